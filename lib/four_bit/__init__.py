"""Chapter 04: training with 4-bit matrix products (Chmiel et al., ICLR 2023, arXiv 2112.10769).

Logarithmic unbiased quantisation of the gradients, INT4 weights and activations, layers that keep in 4 bits what
backward needs.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
