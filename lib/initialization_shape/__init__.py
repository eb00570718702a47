"""Chapter 01: initialization shape (Azulay et al., ICML 2021, arXiv 2102.09769).

Which of infinitely many interpolators does gradient flow pick? The potentials, their minimisers in closed
form or by a dual Newton method, the flows that they are checked against, and the derivations in sympy.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
