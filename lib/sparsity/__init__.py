"""Chapter 05: N:M sparsity of gradients without bias (Chmiel, Hubara, Banner, Soudry, ICLR 2023, arXiv 2203.10991)."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
