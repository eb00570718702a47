"""What autograd keeps between forward and backward, in bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.validation import instance_of

__all__ = ["SavedMemory", "saved_for_backward"]


@dataclass(frozen=True)
class SavedMemory:
    """Tensors that a forward pass keeps for backward.

    Attributes:
        total: Bytes, each storage counted once; parameters are not counted, since they are there anyway.
        by_dtype: The same by dtype.
    """

    total: int
    by_dtype: dict[torch.dtype, int]


def saved_for_backward(forward: Callable[[], Tensor], parameters: Iterable[Tensor] = ()) -> SavedMemory:
    """Run a forward pass and add up what it keeps for backward.

    Args:
        parameters: Tensors that are not to be counted: the model's parameters.

    Examples:
        >>> x, layer = torch.ones(100, 8), torch.nn.Linear(8, 4)
        >>> saved_for_backward(lambda: layer(x), layer.parameters()).total
        3200
    """
    if not callable(forward):
        raise TypeError(f"forward must be a function of no arguments; it is {forward!r}")
    if isinstance(parameters, Tensor) or not isinstance(parameters, Iterable):
        raise TypeError(f"parameters must be a list of tensors, as model.parameters() is; it is {parameters!r}")
    parameters = [instance_of("parameters", each, Tensor, "tensors") for each in parameters]
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    # the tensors themselves are held, so that no freed storage is counted twice under one address
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known:
            held.setdefault(place, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    by_dtype: Counter[torch.dtype] = Counter()
    for tensor in held.values():
        by_dtype[tensor.dtype] += tensor.untyped_storage().nbytes()
    del output
    return SavedMemory(by_dtype.total(), dict(by_dtype))
