"""Chapter 02: the edge of stability (Kreisler, Shpigel Nacson, Soudry, Carmon, ICML 2023, arXiv 2305.13064).

Gradient descent lets the loss jump and the sharpness bounce, while the sharpness of the gradient flow solution
only falls. Scalar networks, where that solution is algebraic.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
