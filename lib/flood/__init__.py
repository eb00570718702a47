"""Chapter 10: physics-aware downsampling for flood modelling (Giladi et al., NeurIPS 2021, arXiv 2106.07218).

A shallow-water solver through which gradients flow, on single maps or batches, and the exact solutions that it is
held against.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
