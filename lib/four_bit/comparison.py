"""Ways to quantise that are compared with each other, by name, and the results of their trainings that ship.

The trainings were made by `python tools/make_data.py four-bit-runs`: 10 000 images of Fashion-MNIST, three epochs,
three seeds each, tested on all 10 000 test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.four_bit.layers import LUQConfig
from lib.validation import one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COMPARED", "ROUNDINGS", "SEEDS", "WAYS", "Trained", "trained_runs"]

SEEDS = (0, 1, 2)

#: Name -> how `luq` rounds between levels and below the smallest.
ROUNDINGS: dict[str, dict[str, Any]] = {
    "naive": {"rounding": "nearest", "underflow": "flush"},
    "nearest": {"rounding": "nearest", "underflow": "nearest"},
    "stochastic rounding only": {"underflow": "flush"},
    "stochastic underflow only": {"rounding": "nearest"},
    "LUQ": {},
}


def _gradients(fmt: str, rounding: str, samples: int = 1, *, everywhere: bool = True) -> LUQConfig:
    """Quantised gradients behind a forward pass of full precision; averages also go to the layers before."""
    return LUQConfig(fmt=fmt, forward="none", samples=samples, smp_backward=everywhere, **ROUNDINGS[rounding])


#: Name -> what is quantised. "naive" is rounding to nearest with a flush to zero; FP4, FP3 and FP2 name the format of
#: the gradients with a forward pass of full precision; "4 bits" quantises the forward pass to INT4 as well.
WAYS: dict[str, LUQConfig] = {
    "FP32": LUQConfig(forward="none", backward="none"),
    **{f"FP4 {name}": _gradients("fp4", name) for name in ROUNDINGS},
    "INT4 stochastic": LUQConfig(forward="none", backward="int4"),
    "INT4 nearest": LUQConfig(forward="none", backward="int4", rounding="nearest"),
    **{f"FP3 {name}": _gradients("fp3", name) for name in ROUNDINGS},
    "FP2 naive": _gradients("fp2", "naive"),
    **{f"FP2 LUQ, N = {samples}": _gradients("fp2", "LUQ", samples) for samples in (1, 2, 4, 16)},
    "FP2 LUQ, N = 16 for updates alone": _gradients("fp2", "LUQ", 16, everywhere=False),
    "4 bits": LUQConfig(),
    "4 bits, N = 2": LUQConfig(samples=2),
    "4 bits, stochastic forward": LUQConfig(forward_rounding="stochastic"),
    "4 bits, hindsight": LUQConfig(hindsight=0.9),
    "4 bits, power-of-two alpha": LUQConfig(pow2_alpha=True),
    "3 bits": LUQConfig(fmt="fp3"),
}

#: Network -> the ways that it was trained in.
COMPARED: dict[str, tuple[str, ...]] = {
    "mlp": tuple(WAYS),
    "convnet": (
        "FP32",
        "FP4 naive",
        "FP4 stochastic rounding only",
        "FP4 LUQ",
        "INT4 stochastic",
        "INT4 nearest",
        "4 bits",
    ),
}


@dataclass(frozen=True)
class Trained:
    """Results of one way over seeds, read-only.

    Attributes:
        scores: Test accuracy after every epoch, (seeds, epochs).
        losses: Before every step, (seeds, steps).
    """

    scores: NDArray[np.float64]
    losses: NDArray[np.float64]


def trained_runs(network: str = "mlp") -> dict[str, Trained]:
    """What ships of a network in `COMPARED`, by way; "3 bits" has a fourth epoch, of fine-tuning (FNT).

    Examples:
        >>> trained_runs("mlp")["FP32"].scores.shape
        (3, 3)
    """
    return dict(_shipped_runs(one_of("network", network, COMPARED)))


@cache
def _shipped_runs(network: str) -> dict[str, Trained]:
    found = {}
    with as_file(files("lib") / "data" / "four_bit_runs.npz") as place, np.load(place) as stored:
        for way in COMPARED[network]:
            arrays = [stored[f"{network}/{way}/{key}"].astype(np.float64) for key in ("scores", "losses")]
            for each in arrays:
                each.flags.writeable = False  # every caller gets the same ones
            found[way] = Trained(*arrays)
    return found
