"""Pictures that the chapter's tests share."""

import torch

from lib.alias_free import fourier_shift

F64 = torch.float64


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """White noise: all frequencies, those of even sides' halves as well."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    """The same without the frequency of an even side's half, which no shift by parts of a pixel keeps."""
    return fourier_shift(noise(*shape, seed=seed), (0, 0), nyquist="zero")
