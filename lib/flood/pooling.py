"""From a fine elevation map to a coarse one by a fixed rule: what a learnt map has to beat.

The baselines of Giladi et al. (NeurIPS 2021, arXiv 2106.07218) are the mean and the mean after an edge-preserving
filter; maximum, minimum, median and nearest cell are ours, because each keeps what another one loses.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from lib.validation import finite_tensor, one_of, positive_integer

__all__ = ["Pooling", "blocks", "elevation_tensor", "map_tensor", "pool_dem"]

Pooling = Literal["mean", "max", "min", "median", "nearest", "bilateral"]

#: Widths of the edge-preserving filter [m of elevation] and [cells], as in the paper's baseline.
_SIGMA_ELEVATION, _SIGMA_SPACE = 2.0, 50.0


def elevation_tensor(name: str, value: Tensor) -> Tensor:
    """Return `value` if it is a finite floating-point tensor of maps (..., R, C) with at least one cell."""
    return finite_tensor(name, map_tensor(name, value))


def map_tensor(name: str, value: Tensor) -> Tensor:
    """The same for maps that may hold NaN, such as depths that have left all bounds."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating-point tensor; it is {kind}")
    if value.ndim < 2 or not value.numel():
        raise ValueError(f"{name} must have at least two axes (..., R, C), and cells; its shape is {(*value.shape,)}")
    return value


def blocks(z: Tensor, factor: int) -> Tensor:
    """Cut maps (..., R, C) into square blocks (..., R / factor, C / factor, factor, factor).

    Examples:
        >>> blocks(torch.arange(8.0).reshape(2, 4), 2)[0, 1]
        tensor([[2., 3.],
                [6., 7.]])
    """
    factor = positive_integer("factor", factor)
    rows, columns = z.shape[-2:]
    if rows % factor or columns % factor:
        raise ValueError(
            f"both sides of a map must be multiples of the factor {factor}; this map has {rows} x {columns} cells: "
            f"crop it to {rows // factor * factor} x {columns // factor * factor}"
        )
    cut = z.reshape(*z.shape[:-2], rows // factor, factor, columns // factor, factor)
    return cut.transpose(-3, -2)


def pool_dem(z: Tensor, factor: int, how: Pooling = "mean") -> Tensor:
    """Coarsen elevation maps (or depths): one value for each block of `factor` x `factor` cells.

    Args:
        z: Maps (..., R, C) [m], floating point. Gradients flow through every rule.
        factor: Cells of `z` along a side of a coarse cell.
        how: - `"mean"` keeps the volume of whatever `z` measures, up to rounding.
            - `"max"`, `"min"`.
            - `"median"`: of an even number of cells the mean of the two middle values, as in NumPy.
            - `"nearest"`: the cell at (factor // 2, factor // 2) of the block, the one at its centre.
            - `"bilateral"`: the mean of a filtered map. Each cell becomes the weighted mean of the 3 x 3 cells around
              it, which count less the more their elevation differs (standard deviation 2 m); distance hardly matters
              (50 cells), as in the paper's baseline. Beyond the sides the map goes on with its outermost cells.

    Returns:
        (..., R / factor, C / factor), of the dtype and on the device of `z`.

    Examples:
        A wall of 3 m on the ground at 0 m, one cell wide, at factor 4: it is there, gone, or much lower.

        >>> z = torch.zeros(4, 4)
        >>> z[:, 1] = 3.0
        >>> [pool_dem(z, 4, how).item() for how in ("max", "min", "mean", "median")]
        [3.0, 0.0, 0.75, 0.0]
    """
    z = elevation_tensor("z", z)
    one_of("how", how, get_args(Pooling))
    cut = blocks(z if how != "bilateral" else _edge_preserving(z), factor)
    match how:
        case "max":
            return cut.amax((-2, -1))
        case "min":
            return cut.amin((-2, -1))
        case "median":
            # torch.median takes the lower of the two middle values
            ordered = cut.flatten(-2).sort(-1).values
            count = ordered.shape[-1]
            return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2
        case "nearest":
            # a copy: what a caller does with it must not change the fine map
            return cut[..., factor // 2, factor // 2].clone()
        case _:
            return cut.mean((-2, -1))


def _edge_preserving(z: Tensor) -> Tensor:
    """A 3 x 3 bilateral filter."""
    rows, columns = z.shape[-2:]
    padded = functional.pad(z.reshape(-1, 1, rows, columns), (1, 1, 1, 1), mode="replicate")
    padded = padded.reshape(*z.shape[:-2], rows + 2, columns + 2)
    total, weights = torch.zeros_like(z), torch.zeros_like(z)
    for i in range(3):
        for j in range(3):
            step = padded[..., i : i + rows, j : j + columns] - z
            distance = ((i - 1) ** 2 + (j - 1) ** 2) / _SIGMA_SPACE**2
            weight = torch.exp(-(step.square() / _SIGMA_ELEVATION**2 + distance) / 2)
            # sums of differences, not of elevations: a constant map stays what it is, bit for bit
            total = total + weight * step
            weights = weights + weight
    return z + total / weights
