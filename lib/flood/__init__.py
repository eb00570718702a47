"""Chapter 10: physics-aware downsampling for flood modelling (Giladi et al., NeurIPS 2021, arXiv 2106.07218).

A shallow-water solver through which gradients flow, on single maps or batches, and the exact solutions that it is
held against.

Examples:
    Flood a map by rain and a river. No water is lost. With `backend="torch"` gradients reach every cell of
    the ground:

    >>> import numpy as np
    >>> import torch
    >>> from lib.flood import Boundary, LocalInertialSolver, make_terrain
    >>> ground = torch.from_numpy(make_terrain((64, 64), rng=np.random.default_rng(0)))
    >>> solver = LocalInertialSolver(dx=8.0)
    >>> flood = solver.simulate(ground, 600.0, rain=50 / 3.6e6, boundary=Boundary({"west": 0.1}), backend="compiled")
    >>> bool(abs(flood.volume_in - 64 * flood.h.sum()) < 1e-9 * flood.volume_in)
    True
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
