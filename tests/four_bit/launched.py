"""What `accelerate launch` runs on two processes: what each draws, and the scales that they agree on."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lib.four_bit import LUQConfig, LUQLinear, luq_encode
from lib.training import fit

STEPS = 6


class Witness(torch.autograd.Function):
    """Passes values through, and keeps the gradient that comes back."""

    @staticmethod
    def forward(ctx, x, seen):
        ctx.seen = seen
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        ctx.seen.append(grad.clone())
        return grad, None


class Watched(nn.Module):
    """A layer between a first and a last one, with a look at the gradients before and after it is quantised."""

    def __init__(self, noise: torch.Generator, config: LUQConfig) -> None:
        super().__init__()
        self.before, self.after = [], []
        self.first = nn.Linear(16, 16)
        self.middle = LUQLinear(16, 16, bias=False, config=config, generator=noise)
        with torch.no_grad():
            self.middle.weight.copy_(torch.eye(16))  # so that what it passes back is what it has drawn

    def forward(self, x: Tensor) -> Tensor:
        inner = Witness.apply(self.first(x), self.after)
        return Witness.apply(self.middle(inner), self.before)


def draws(folder: Path) -> None:
    """Train on the same examples on both processes, so that only the noise can differ."""
    noise = torch.Generator()
    torch.manual_seed(0)
    model = Watched(noise, LUQConfig(forward="none"))
    inputs = torch.randn(1, 16).expand(64, 16).contiguous()
    targets = torch.randn(1, 16).expand(64, 16).contiguous()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    fit(
        model,
        TensorDataset(inputs, targets),
        lambda output, target: ((output - target) ** 2).mean(),
        optimizer,
        epochs=STEPS,
        batch_size=64,
        noise=(noise,),
    )
    rank = Accelerator(cpu=True).process_index
    errors = np.stack([(a - b).numpy() for a, b in zip(model.after, model.before, strict=True)])
    np.save(folder / f"errors_{rank}.npy", errors)


def scales(folder: Path) -> None:
    """One alpha for both processes, and each one's own."""
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    grad = torch.tensor([[1.0, -3.0], [0.5, 0.25]])[rank : rank + 1]
    found = {}
    for name, group in (("shared", "world"), ("own", None)):
        layer = LUQLinear(2, 2, config=LUQConfig(process_group=group, hindsight=0.5))
        found[name] = float(layer.quantizer._max_abs(grad))
    whole = luq_encode(torch.tensor([[1.0, -3.0], [0.5, 0.25]]))[1]
    np.save(folder / f"scales_{rank}.npy", np.array([found["shared"], found["own"], 64 * float(whole)]))


def resume(folder: Path) -> None:
    """A training at once, and one that is interrupted and gone on with."""

    def run(place: Path, stop: int | None = None) -> None:
        noise = torch.Generator()
        torch.manual_seed(0)
        config = LUQConfig(forward="none")
        inner = [LUQLinear(96, 96, config=config, generator=noise) for _ in range(5)]
        model = nn.Sequential(nn.Linear(16, 96), *inner, nn.Linear(96, 4))
        data = TensorDataset(torch.randn(64, 16), torch.randint(4, (64,)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        calls = iter(range(1000))

        def loss(output: Tensor, target: Tensor) -> Tensor:
            if next(calls) == stop:
                raise KeyboardInterrupt
            return nn.functional.cross_entropy(output, target)

        fit(model, data, loss, optimizer, epochs=3, batch_size=16, noise=(noise,), folder=place, every=2)

    run(folder / "whole")
    with contextlib.suppress(KeyboardInterrupt):
        run(folder / "broken", stop=7)
    run(folder / "broken")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    if sys.argv[2:] == ["resume"]:
        resume(out)
    else:
        draws(out)
        scales(out)
