"""Chapter 03: forgetting in linear regression (Evron, Moroshko, Ward, Srebro, Soudry, COLT 2022, arXiv 2205.09588).

Learning one task after another, each to the end, is a walk of projections; what is forgotten is exact.

Examples:
    What two tasks will cost one another, before anything is trained; a row of features an example:

    >>> import numpy as np
    >>> from lib.forgetting import forgetting_forecast
    >>> rng = np.random.default_rng(0)
    >>> print(forgetting_forecast(rng.standard_normal((20, 50)), rng.standard_normal((20, 50))))
    20 principal angles, from 17 to 90 degrees, median 51
    tasks learnt    worst forgetting    mean forgetting    distance² left
               2            1.25e-01           3.68e-02             0.916
               4            5.27e-02           1.14e-02             0.769
              10            1.94e-02           1.94e-03             0.454
             100            7.11e-06           2.20e-07             0.000
    Repetition reduces it: 100 tasks learnt alternately forget less than 1%.

    What was forgotten after two rounds of five tasks, and the most that other labels could have cost:

    >>> from lib.forgetting import cyclic_ordering, digit_tasks, forgetting, worst_case_forgetting
    >>> tasks, order = digit_tasks(), cyclic_ordering(5, 10)
    >>> lost = forgetting(tasks, order)[-1] / (tasks.w_star @ tasks.w_star)
    >>> print(f"{lost:.1e}, at most {worst_case_forgetting(tasks, order)[0]:.1e}")
    1.7e-03, at most 2.7e-02
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
