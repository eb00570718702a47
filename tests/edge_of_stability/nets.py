"""Small networks of many kinds, with their data."""

import torch
from torch import nn

from lib.edge_of_stability import half_mean_square


def network(outputs: int = 1) -> tuple[nn.Sequential, tuple[torch.Tensor, torch.Tensor]]:
    """A tanh network and six examples."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    data = torch.randn(6, 4, generator=generator), torch.randn(6, outputs, generator=generator)
    return model, data


def flat_loss(model, data):
    """The loss as a function of one flat float64 vector, and the present vector."""
    names, shapes = zip(*((name, p.shape) for name, p in model.named_parameters()), strict=True)
    inputs, targets = (part.double() for part in data)

    def value(flat: torch.Tensor) -> torch.Tensor:
        pieces = flat.split([shape.numel() for shape in shapes])
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        return half_mean_square(torch.func.functional_call(model, weights, (inputs,)), targets)

    return value, torch.cat([p.detach().double().reshape(-1) for p in model.parameters()])


class Between(nn.Module):
    """Two layers with anything between them."""

    def __init__(self, between) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(4, 6), nn.Linear(6, 2), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.between(self.first(x))))


class Sequence(nn.Module):
    """Inputs (N, 4) as two tokens of two numbers, through something that reads sequences."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.into, self.reader, self.out = nn.Linear(2, 8), reader, nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.into(x.view(-1, 2, 2))
        if isinstance(self.reader, nn.MultiheadAttention):
            read = self.reader(tokens, tokens, tokens, need_weights=False)[0]
        elif isinstance(self.reader, nn.RNNBase):
            read = self.reader(tokens)[0]
        else:
            read = self.reader(tokens)
        return self.out(read.mean(1))


def seeded(make):
    """A network with the same weights at every run; torch's global random state stays where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def attention(dropout: float = 0.0) -> nn.Module:
    return nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True)


def behind_zeros(between) -> nn.Module:
    model = Between(between)
    nn.init.zeros_(model.last.weight)
    return model
