"""What `accelerate launch` runs: what each process draws, the scales that they agree on, and two trainings."""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lib.__main__ import app
from lib.four_bit import LUQConfig, LUQLinear, luq_encode
from lib.training import fit

STEPS = 6
GRADIENT = torch.tensor([[1.0, 0.25], [0.5, -3.0], [0.75, 0.5]])


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


def draws() -> np.ndarray:
    """Errors in a training on the same examples on all processes, so that only the noise can differ."""
    noise = torch.Generator()
    torch.manual_seed(0)
    model = Watched(noise, LUQConfig(forward="none"))
    inputs, targets = (torch.randn(1, 16).expand(96, 16).contiguous() for _ in range(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    data = TensorDataset(inputs, targets)
    fit(model, data, nn.functional.mse_loss, optimizer, epochs=STEPS, batch_size=96, noise=(noise,))
    return np.stack([(a - b).numpy() for a, b in zip(model.after, model.before, strict=True)])


def scales(rank: int) -> list[float]:
    """One alpha for all processes, each one's own, and that of a single process."""
    found = []
    for group in ("world", None):
        layer = LUQLinear(2, 2, config=LUQConfig(process_group=group, hindsight=0.5))
        found.append(float(layer.quantizer._max_abs(GRADIENT[rank : rank + 1])))
    return [*found, 64 * float(luq_encode(GRADIENT)[1])]


def train(folder: Path) -> None:
    words = ["train", "four-bit", "--count", "600", "--batch-size", "30", "--epochs", "1", "--hindsight", "0.9"]
    app([*words, "--every", "5", "--out", str(folder)], standalone_mode=False)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    if not (out / "broken").exists():
        rank = Accelerator(cpu=True).process_index
        np.savez(out / f"seen_{rank}.npz", draws=draws(), scales=scales(rank))
        train(out / "whole")
    train(out / "broken")
