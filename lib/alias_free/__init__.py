"""Chapter 06: alias-free convnets (Michaeli, Michaeli, Soudry, CVPR 2023, arXiv 2303.08085).

Translation of pictures by any real number of pixels, ideal resampling, and polynomial activation functions.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
