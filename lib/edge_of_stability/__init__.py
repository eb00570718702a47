"""Chapter 02: the edge of stability (Kreisler, Shpigel Nacson, Soudry, Carmon, ICML 2023, arXiv 2305.13064).

Gradient descent lets the loss jump and the sharpness bounce, while the sharpness of the gradient flow solution
only falls. Scalar networks, where that solution is algebraic.

Examples:
    How sharp is the place where gradient flow would end? Of many scalar networks at once:

    >>> import numpy as np
    >>> from lib.edge_of_stability import gfs_sharpness
    >>> gfs_sharpness(np.array([[1.0, 1.0, 1.0, 1.0], [4.0, 0.5, 1.0, 0.5]])).round(3)
    array([4.   , 9.062])

    Of your own network while it trains; call `monitor(step)` in your loop:

    >>> import torch
    >>> from torch import nn
    >>> from lib.edge_of_stability import GFSMonitor, half_mean_square
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    >>> inputs, targets = torch.randn(20, 4).double(), torch.randn(20, 1).double()
    >>> monitor = GFSMonitor(50, model, half_mean_square, (inputs, targets))
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
