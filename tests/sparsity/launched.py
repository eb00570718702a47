"""What `accelerate launch` runs: a training with the same data on all processes, in which only masks can differ."""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import TensorDataset

from lib.sparsity import NMLinear
from lib.training import fit

STEPS = 400

if __name__ == "__main__":
    torch.manual_seed(0)
    noise = torch.Generator()
    layer = NMLinear(8, 8, bias=False, generator=noise)
    rows, slope = torch.randn(1, 16, 8), torch.randn(1, 16, 8)
    rank = PartialState(cpu=True).process_index
    own, shared = [], []
    layer.on_product = lambda _, operand, __: own.append((operand.T @ rows[0]).numpy())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    optimizer.register_step_pre_hook(lambda *_: shared.append(layer.weight.grad.numpy().copy()))
    data = TensorDataset(*(each.expand(2 * STEPS, 16, 8).contiguous() for each in (rows, slope)))
    fit(layer, data, lambda out, by: (out * by).sum(), optimizer, epochs=1, batch_size=2, noise=(noise,))
    np.savez(Path(sys.argv[1]) / f"seen_{rank}.npz", own=own, shared=shared)
