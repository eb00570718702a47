"""Chapter 03: forgetting in linear regression (Evron, Moroshko, Ward, Srebro, Soudry, COLT 2022, arXiv 2205.09588).

Learning one task after another, each to the end, is a walk of projections; what is forgotten is exact.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
