"""2:4 blocks as two values and two indices of 2 bits: what a product with a sparse operand reads.

Of 16-bit values 9 bits an entry of the dense tensor are stored, of 4-bit ones 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.sparsity.blocks import as_blocks, in_place_of, is_nm_sparse
from lib.validation import finite_tensor, instance_of, positive_integer

__all__ = ["pack_24", "unpack_24"]


def pack_24(x: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """The two values of each 2:4 block, and where they stand in it.

    Returns:
        values: (*rest, size / 2), `dim` moved last. A block with fewer than two entries is filled up with zeros.
        indices: (*rest, ceil(size / 8)), uint8: four indices of 2 bits a byte, the first in its lowest bits.

    Examples:
        >>> pack_24(torch.tensor([0.0, 5.0, 0.0, 7.0]))
        (tensor([5., 7.]), tensor([13], dtype=torch.uint8))
    """
    blocks = as_blocks(x, 4, dim)
    if not is_nm_sparse(x, 2, 4, dim):
        raise ValueError("x must have at most two entries other than 0 in each block of 4")
    # entries other than 0 first, each group in its order; then the two in the order of their places
    places = (blocks == 0).to(torch.uint8).sort(stable=True, dim=-1).indices[..., :2].sort(-1).values
    values = blocks.gather(-1, places).flatten(-2)
    pairs = (places[..., 0] | places[..., 1] << 2).to(torch.uint8)
    if pairs.shape[-1] % 2:
        pairs = torch.nn.functional.pad(pairs, (0, 1))
    return values, pairs[..., 0::2] | pairs[..., 1::2] << 4


def unpack_24(values: Tensor, indices: Tensor, size: int, dim: int = -1) -> Tensor:
    """Undo `pack_24`: a dense tensor with `size` entries along `dim`.

    Examples:
        >>> unpack_24(torch.tensor([5.0, 7.0]), torch.tensor([13], dtype=torch.uint8), 4)
        tensor([0., 5., 0., 7.])
    """
    size = positive_integer("size", size)
    finite_tensor("values", values)
    instance_of("indices", indices, Tensor, "a tensor of bytes")
    if size % 4 or values.ndim == 0 or values.shape[-1] != size // 2:
        raise ValueError(
            f"values must hold half of size = {size} entries, a multiple of 4; they are {tuple(values.shape)}"
        )
    if indices.dtype != torch.uint8 or indices.shape != (*values.shape[:-1], (size + 7) // 8):
        wanted = (*values.shape[:-1], (size + 7) // 8)
        raise ValueError(f"indices must be uint8 of shape {wanted}; they are {indices.dtype}, {tuple(indices.shape)}")
    pairs = torch.stack([indices & 15, indices >> 4], -1).flatten(-2)[..., : size // 4]
    places = torch.stack([pairs & 3, pairs >> 2], -1).long()
    blocks = values.new_zeros(*values.shape[:-1], size // 4, 4)
    return in_place_of(blocks.scatter_(-1, places, values.reshape(*values.shape[:-1], size // 4, 2)), dim)
