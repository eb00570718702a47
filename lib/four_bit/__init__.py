"""Chapter 04: training with 4-bit matrix products (Chmiel et al., ICLR 2023, arXiv 2112.10769).

Logarithmic unbiased quantisation of the gradients, INT4 weights and activations, layers that keep in 4 bits what
backward needs.

Examples:
    Your own network with 4-bit matrix products: which layers are in 4 bits now, which are not, and why.

    >>> import torch
    >>> from torch import nn
    >>> from lib.four_bit import LUQConfig, exchange_report, quantize_model, saved_for_backward
    >>> net = nn.Sequential(nn.Linear(100, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 1))
    >>> model = quantize_model(net, LUQConfig(fmt="fp4", samples=2))
    >>> print(exchange_report(model))
    exchanged for PackedReLU: 1, 3
    exchanged for LUQLinear: 2
    not exchanged, the first layer: 0
    not exchanged, the last layer: 4

    Bytes that each of the two keeps for the backward pass:

    >>> batch = torch.randn(256, 100)
    >>> [saved_for_backward(lambda: one(batch), one.parameters()).total for one in (net, model)]
    [1150976, 856072]
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
