"""Chapter 06: alias-free convnets (Michaeli, Michaeli, Soudry, CVPR 2023, arXiv 2303.08085).

Translation of pictures by any real number of pixels, ideal resampling, and polynomial activation functions.

Examples:
    Which layers of your own convolutional network depend on where the picture is, and the same network without them.
    Fine-tune it afterwards: a polynomial is not quite GELU.

    >>> import torch
    >>> from torch import nn
    >>> from lib.alias_free import audit, make_alias_free
    >>> pictures = torch.randn(4, 3, 32, 32)
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    >>> exact = make_alias_free(net, pictures)
    >>> [layer.kind for layer in audit(net, pictures) if layer.error > 1e-3]
    ['Conv2d', 'GELU', 'MaxPool2d', 'Sequential']
    >>> [layer.kind for layer in audit(exact, pictures) if layer.error > 1e-3]
    []
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
