"""How far one map of water depths is from another, and the loss that a coarse map is trained on.

The loss is the paper's (Giladi et al., NeurIPS 2021, arXiv 2106.07218, Eqs. 3 and 4): it compares the water on the
coarse map with the mean of the fine water in each block, not terrain with terrain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional

from lib.flood.pooling import blocks, elevation_tensor, map_tensor
from lib.validation import finite_array, one_of, positive_number

__all__ = ["Loss", "downsample_loss", "flood_metrics"]

Loss = Literal["mse", "huber"]


def flood_metrics(h: Tensor, h_ref: Tensor, thresholds: Sequence[float] = (0.1, 0.3)) -> dict[str, float]:
    """Compare water depths with reference depths, over all cells of all maps together.

    Args:
        h, h_ref: Depths (..., R, C) [m], floating-point tensors of one shape; `h_ref` is taken to be true.
        thresholds: Depths [m] above which a cell counts as flooded.

    Returns:
        - `rmse`, `mae`, `bias` [m]: root mean square, mean absolute and mean of `h - h_ref`.
        - `nse`: Nash-Sutcliffe efficiency, `1 - sum (h - h_ref)^2 / sum (h_ref - mean h_ref)^2`: 1 is perfect, 0 as
          good as the reference's mean everywhere. NaN where the reference is the same in all cells.
        - `csi_<threshold>` for each threshold: critical success index, cells flooded in both over cells flooded in
          either. NaN where no cell is flooded in either.

    Examples:
        >>> import torch
        >>> h_ref = torch.tensor([[0.0, 0.2], [0.4, 0.6]])
        >>> scores = flood_metrics(h_ref + torch.tensor([[0.2, 0.0], [0.0, 0.0]]), h_ref)
        >>> {name: round(value, 3) for name, value in scores.items()}
        {'rmse': 0.1, 'mae': 0.05, 'bias': 0.05, 'nse': 0.8, 'csi_0.1': 0.75, 'csi_0.3': 1.0}
    """
    limits = [positive_number("thresholds", limit) for limit in finite_array("thresholds", thresholds, ndim=1).tolist()]
    names = [f"csi_{limit:g}" for limit in limits]
    if len(set(names)) < len(names):
        raise ValueError(f"thresholds must differ; they are {tuple(thresholds)}")
    # in double precision: sums over millions of cells are taken
    found, truth = (elevation_tensor(name, value).detach().double() for name, value in (("h", h), ("h_ref", h_ref)))
    if found.shape != truth.shape:
        raise ValueError(f"h and h_ref must have one shape; they have {tuple(found.shape)} and {tuple(truth.shape)}")
    truth = truth.to(found.device)
    error = found - truth
    spread = float((truth - truth.mean()).square().sum())
    # a constant's mean is rounded, so its spread need not be exactly zero
    constant = bool((truth == truth.flatten()[0]).all())
    scores = {
        "rmse": float(error.square().mean().sqrt()),
        "mae": float(error.abs().mean()),
        "bias": float(error.mean()),
        "nse": float("nan") if constant else 1 - float(error.square().sum()) / spread,
    }
    for name, limit in zip(names, limits, strict=True):
        # compared in the precision of each map: 0.1 in float32 is not deeper than 0.1
        wet, wet_truth = h.detach() > limit, h_ref.detach().to(h.device) > limit
        either = int((wet | wet_truth).sum())
        scores[name] = int((wet & wet_truth).sum()) / either if either else float("nan")
    return scores


def downsample_loss(h_coarse: Tensor, h_fine: Tensor, factor: int, kind: Loss = "mse", beta: float = 1.0) -> Tensor:
    """Distance between the water on coarse maps and the block means of the water on fine ones.

    Args:
        h_coarse, h_fine: Depths [m] (..., R / factor, C / factor) and (..., R, C) that the solver finds on the coarse
            and on the fine map.
        kind: `"mse"`: mean square; `"huber"`: torch's `smooth_l1_loss`, the square divided by `2 beta` for errors below
            `beta`, and the absolute error minus `beta / 2` above.
        beta: Depth [m] at which the Huber loss turns from square to linear.

    Returns:
        0-d tensor: [m^2], and [m] for `"huber"`. NaN in a depth makes it NaN: training loops look at their loss anyway.

    Examples:
        >>> import torch
        >>> h_fine = torch.tensor([[0.0, 1.0], [1.0, 2.0]])
        >>> [downsample_loss(torch.tensor([[h]]), h_fine, 2).item() for h in (1.0, 4.0)]
        [0.0, 9.0]
    """
    one_of("kind", kind, get_args(Loss))
    positive_number("beta", beta)
    map_tensor("h_coarse", h_coarse)
    target = blocks(map_tensor("h_fine", h_fine), factor).mean((-2, -1))
    # no broadcasting: a missing batch axis would pass unseen
    if h_coarse.shape != target.shape:
        raise ValueError(
            f"h_coarse must have the shape {tuple(target.shape)} of h_fine's block means; "
            f"its shape is {tuple(h_coarse.shape)}"
        )
    if kind == "mse":
        return functional.mse_loss(h_coarse, target)
    return functional.smooth_l1_loss(h_coarse, target, beta=beta)
