"""Chapter 01: initialization shape (Azulay et al., ICML 2021, arXiv 2102.09769).

Which of infinitely many interpolators does gradient flow pick? The potentials, their minimisers in closed
form or by a dual Newton method, the flows that they are checked against, and the derivations in sympy.

Examples:
    Where does gradient flow on a two-layer diagonal network end? Solved, not trained:

    >>> import numpy as np
    >>> from lib.initialization_shape import DiagonalPotential, minimize_potential
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((20, 100)), rng.standard_normal(20)
    >>> solution = minimize_potential(DiagonalPotential.from_scale_shape(alpha=1e-3, shape=0.5, d=100), X, y)
    >>> solution.converged, bool(abs(X @ solution.w - y).max() < 1e-9)
    (True, True)

    In which regime does your own two-layer network start?

    >>> import torch
    >>> from torch import nn
    >>> from lib.initialization_shape import audit_initialization
    >>> _ = torch.manual_seed(0)
    >>> audit = audit_initialization(nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 1)))
    >>> {regime: audit.regime.count(regime) for regime in ("kernel", "features", "between", "rich")}
    {'kernel': 0, 'features': 0, 'between': 50, 'rich': 0}
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
