"""What the kernels of N:M masks must do, in Triton's interpreter and on a GPU: give the bits of eager torch.

Run as a program it makes all checks and prints what failed: triton reads TRITON_INTERPRET when it is first imported.
"""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from lib.sparsity import nm_greedy, nm_mvue_luq, nm_prune, pack_24, sampling
from lib.sparsity.blocks import as_blocks, in_place_of
from tests.four_bit.kernel_checks import same
from tests.sparsity.test_sampling import LAST, kinds, seeded

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@contextmanager
def kernels(used: bool = True) -> Iterator[None]:
    with patch.object(sampling, "takes_kernels", lambda *_: used):
        yield


def definition(x: Tensor, pattern: tuple[int, int], dim: int, rand: Tensor | None, seed: int | None) -> Tensor:
    """By eager torch, on the CPU."""
    n, m = pattern
    x = x.cpu()
    given = None if rand is None else rand.cpu()
    return in_place_of(sampling._eager(as_blocks(x, m, dim), n, given, seed), dim).to(x.dtype)


def every_kind(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    x = torch.cat(list(kinds(shape).values()))
    if dtype == torch.float16:  # what it does not hold, as its largest
        x = x.clamp(-65504, 65504)
    return x.clamp(*(torch.finfo(dtype).min, torch.finfo(dtype).max)).to(dtype)


def same_bits(x: Tensor, pattern: tuple[int, int], dim: int, seed: int, rand: Tensor | None = None) -> None:
    """Dense, transposed and compressed results by the kernel against the definition."""
    n, m = pattern
    for method in ("mvue", "greedy"):
        if method == "greedy":
            with kernels(used=False):
                expected, options = nm_greedy(x.cpu(), n, m, dim), {}
        else:
            options = {"generator": seeded(seed)} if rand is None else {"rand": rand}
            expected = definition(
                x, (n, m), dim, rand, None if rand is not None else sampling.random_seed(seeded(seed))
            )
        forms = {"dense": (expected,), "transposed": (expected.movedim(dim, -1).contiguous(),)}
        # levels beyond the largest number of the dtype are refused
        if (n, m) == (2, 4) and expected.isfinite().all():
            forms["compressed"] = pack_24(expected, dim)
        for form, wanted in forms.items():
            if "generator" in options:
                options["generator"] = seeded(seed)
            with kernels():
                found = nm_prune(x, n, m, dim, method=method, form=form, **options)
            parts = (found,) if isinstance(found, Tensor) else found
            assert all(same(a.cpu(), b) for a, b in zip(parts, wanted, strict=True)), (n, m, dim, method, form, x.dtype)


def check_every_pattern(device: str = "cpu", patterns=((2, 4), (1, 2), (3, 8))) -> None:
    """For all kinds of magnitudes, and the extreme random numbers."""
    for turn, (n, m) in enumerate(patterns):
        x = every_kind((8, 32), DTYPES[turn % 3])
        same_bits(x.to(device), (n, m), 1, seed=turn)
        rand = torch.rand(32, len(x) // m, generator=seeded(1))
        rand.view(-1)[:40], rand.view(-1)[40:80] = 0, LAST
        same_bits(x.to(device), (n, m), 0, seed=0, rand=rand.to(device))


def check_shapes(device: str = "cpu") -> None:
    """Several tiles and rests of tiles, odd numbers of blocks, none at all, strides; more digits than are used."""
    for turn, (shape, dim) in enumerate((((2, 4100), -1), ((12, 1030), 0), ((5, 12), -1), ((4,), 0), ((2, 8, 3), 1))):
        x = torch.randn(shape, generator=seeded(3))
        same_bits(x.to(device, DTYPES[turn % 3]), (2, 4), dim, seed=5)
    x = torch.randn(16, 32, generator=seeded(4)).to(device)
    same_bits(x[:0], (2, 4), 1, seed=6)
    same_bits(x.T, (2, 4), 0, seed=6)
    same_bits(x[::2, 4:], (2, 4), 1, seed=6)
    same_bits(x, (1, 4), 1, seed=0, rand=torch.rand(16, 8, generator=seeded(5), dtype=torch.float64).to(device))


def check_levels(device: str = "cpu") -> None:
    """The codes, places and unit of the composition of the mask with LUQ."""
    for turn, (shape, dim) in enumerate((((64, 33), 0), ((5, 36), -1), ((2, 8, 3), 1))):
        x = (torch.randn(shape, generator=seeded(7)).exp() ** 3 - 1).to(DTYPES[turn % 3])
        with kernels(used=False):
            expected = nm_mvue_luq(x, dim, generator=seeded(8))
        with kernels():
            found = nm_mvue_luq(x.to(device), dim, generator=seeded(8))
        assert found.values.backend == "triton"
        assert same(found.values.packed.cpu(), expected.values.packed), (shape, dim)
        assert same(found.values.alpha.cpu(), expected.values.alpha)
        assert same(found.indices.cpu(), expected.indices)
        assert same(found.decode(x.dtype).cpu(), expected.decode(x.dtype))


def check_what_is_not_finite(device: str = "cpu") -> None:
    x = torch.tensor([1.0, torch.nan, 2.0, 3.0], device=device)
    with kernels():
        for call in (nm_prune, nm_mvue_luq):
            with pytest.raises(ValueError, match="must be finite"):
                call(x)
        # looked at by nobody, it stays where it is
        assert bool(nm_prune(x, check=False)[1].isnan())


CHECKS = {name: check for name, check in sorted(globals().items()) if name.startswith("check_")}

if __name__ == "__main__":
    failed = {}
    for name, check in CHECKS.items():
        try:
            check()
        except Exception:
            failed[name] = traceback.format_exc()
    print(json.dumps({"made": list(CHECKS), "failed": failed}))
