"""The fit of the clip, against brute force."""

import numpy as np
import pytest

from lib.four_bit.clipping_fit import fit_sawb


@pytest.mark.parametrize("levels", [7, 15, 17])
def test_best_clips_are_those_of_samples(levels: int) -> None:
    """Evenly spread quantiles of the distributions with a closed form, and a fine grid of clips."""
    fit = fit_sawb(levels)
    u = (np.arange(50_000) + 0.5) / 50_000
    samples = {"uniform": u, "Laplace": -np.log1p(-u), "logistic": 2 * np.arctanh(u), "triangular": 1 - np.sqrt(1 - u)}
    for name, x in samples.items():
        place = fit.distributions.index(name)
        best = fit.clips[place] * x.mean()
        clips = best * np.linspace(0.8, 1.2, 81)
        scales = clips[:, None] / (levels // 2)
        lost = ((np.minimum(np.rint(x / scales), levels // 2) * scales - x) ** 2).mean(axis=1)
        assert clips[lost.argmin()] == pytest.approx(best, rel=0.011)
        assert fit.moments[place] == pytest.approx(np.sqrt(np.mean(x**2)) / x.mean(), rel=1e-3)


@pytest.mark.parametrize("levels", [1, 16, 0])
def test_a_grid_that_is_not_symmetric_is_refused(levels: int) -> None:
    with pytest.raises(ValueError, match="levels must be"):
        fit_sawb(levels)
