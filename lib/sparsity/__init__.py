"""Chapter 05: N:M sparsity of gradients without bias (Chmiel, Hubara, Banner, Soudry, ICLR 2023, arXiv 2203.10991).

The unbiased mask of least variance for any N:M from one random number a block, layers that prune gradients with it,
and a plan of which layers can take which pattern.

Examples:
    Two of four entries, drawn so that the mean is the block itself: one that is larger than the others together stays.

    >>> import torch
    >>> from lib.sparsity import NMConfig, nm_inclusion_probabilities, nm_mvue, plan_sparsity, sparsify_model
    >>> block = torch.tensor([1.0, -2.0, 1.0, 12.0])
    >>> nm_inclusion_probabilities(block, 2, 4), nm_mvue(block, 2, 4, rand=torch.tensor([0.3]))
    (tensor([0.2500, 0.5000, 0.2500, 1.0000]), tensor([ 0., -4.,  0., 12.]))

    Which layers of your network can take which pattern, from one batch:

    >>> from lib.models import fully_connected
    >>> generator = torch.Generator().manual_seed(0)
    >>> net = fully_connected((20, 64, 64, 5), activation="relu", generator=generator)
    >>> x, y = torch.randn(128, 20, generator=generator), torch.randint(5, (128,), generator=generator)
    >>> plan = plan_sparsity(net, torch.nn.functional.cross_entropy, x, y, budget=0.5)
    >>> {name: layer.choice for name, layer in plan.layers.items()}
    {'1': (1, 2), '3': (1, 2), '5': (2, 4)}
    >>> model = sparsify_model(net, NMConfig(n=2, m=4), generator=generator)
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
