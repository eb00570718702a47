"""How fast the N:M kernels are on a GPU, and when a 2:4 product pays; a program, for no processor has a use for it.

    python -m tests.benchmarks.sparsity_on_gpu [--quick]

prints a table of the kernels against a copy of the same tensor, and one of products: dense, with a sparse left
operand that was made before, and with everything that a step of training needs (mask, compression, product).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable

import torch

from lib.sparsity import nm_prune

SHAPES = ((4096, 4096), (16384, 4096))
# (outputs, batch, inputs): delta^T is (outputs, batch), and pruned along the batch
PRODUCTS = ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 4096, 4096), (4096, 4096, 16), (4096, 4096, 1024))
SMALL = ((1024, 1024, 1024), (256, 512, 256))
# Larger than the cache that the GPU would otherwise read from.
_FLUSHED = 256 * 2**20


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The median of some calls, each on a cold cache."""
    flushed = torch.empty(_FLUSHED, dtype=torch.uint8, device="cuda")
    for _ in range(3):
        call()
    found = []
    for _ in range(repeats):
        flushed.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1000)
    return statistics.median(found)


def kernels(repeats: int) -> None:
    """GB/s of what is read and written, and as a share of a copy's."""
    print(f"{'kernel':<26}{'dtype':<10}{'shape':<16}{'us':>9}{'GB/s':>9}{'of a copy':>11}")
    for dtype in (torch.bfloat16, torch.float32):
        for shape in SHAPES:
            x = torch.randn(shape, device="cuda").to(dtype)
            result = torch.empty_like(x)
            ways: dict[str, tuple[Callable[[], object], float]] = {"copy": (lambda r=result, x=x: r.copy_(x), 2.0)}
            for method in ("mvue", "greedy"):
                for dim in (0, 1):
                    for form in ("dense", "transposed", "compressed"):
                        options = {"dim": dim, "method": method, "form": form, "check": False}
                        # half the values, and one bit an entry of places
                        moved = 2.0 if form != "compressed" else 1.5 + 0.125 / x.element_size()
                        ways[f"{method} dim {dim} {form}"] = (lambda x=x, o=options: nm_prune(x, **o), moved)
            roof = 0.0
            for name, (call, moved) in ways.items():
                taken = seconds(call, repeats)
                rate = moved * x.nbytes / taken / 1e9
                roof = roof or rate
                where = f"{str(dtype)[6:]:<10}{shape!s:<16}"
                print(f"{name:<26}{where}{1e6 * taken:>9.1f}{rate:>9.0f}{rate / roof:>11.2f}", flush=True)


def products(repeats: int, shapes: tuple[tuple[int, int, int], ...]) -> None:
    """Microseconds of delta^T @ X; the last column counts all that a step of training needs."""
    print(f"{'outputs, batch, inputs':<26}{'dtype':<10}{'dense':>9}{'2:4':>9}{'all':>9}{'dense / all':>13}")
    for dtype in (torch.bfloat16, torch.float16):
        for outputs, batch, inputs in shapes:
            where = f"{(outputs, batch, inputs)!s:<26}{str(dtype)[6:]:<10}"
            try:
                delta, x = (torch.randn(batch, wide, device="cuda").to(dtype) for wide in (outputs, inputs))

                def masked(delta: torch.Tensor = delta) -> torch.Tensor:
                    pruned = nm_prune(delta, dim=0, form="transposed", check=False)
                    assert isinstance(pruned, torch.Tensor)
                    return torch.sparse.to_sparse_semi_structured(pruned)

                left = masked()
                dense = seconds(lambda d=delta, x=x: d.T @ x, repeats)
                sparse = seconds(lambda left=left, x=x: left @ x, repeats)
                whole = seconds(lambda masked=masked, x=x: masked() @ x, repeats)
            except (RuntimeError, NotImplementedError) as error:  # shapes and cards that torch has no kernel for
                print(f"{where}{str(error).splitlines()[0][:80]}")
                continue
            times = "".join(f"{1e6 * each:>9.1f}" for each in (dense, sparse, whole))
            print(f"{where}{times}{dense / whole:>13.2f}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and small products only")
    quick = parser.parse_args(arguments).quick
    if not torch.cuda.is_available():
        print("sparsity_on_gpu needs a CUDA device, and torch finds none", file=sys.stderr)
        return 2
    try:
        import triton
    except ImportError:
        print("sparsity_on_gpu needs triton, of the extra gpu: pip install 'paperplay[gpu]'", file=sys.stderr)
        return 2
    card = torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}, triton {triton.__version__}")
    repeats = 5 if quick else 30
    kernels(repeats)
    products(repeats, SMALL if quick else PRODUCTS + SMALL)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
