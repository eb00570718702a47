"""What the claims of chapter 02 measure with."""

import itertools

import numpy as np
import pytest

from lib.edge_of_stability import scalar_network
from lib.edge_of_stability.claims import scalar_networks


def test_a_nan_inside_a_long_run_does_not_pass_for_one_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a long run are too many for the tape of the general test."""
    steps = itertools.count()

    def spoilt(w, eta, target=1.0):
        after = scalar_network.gd_step(w, eta, target)
        if next(steps) == 50:
            after[len(after) // 2, 0] = np.nan
        return after

    monkeypatch.setattr(scalar_networks, "gd_step", spoilt)
    with pytest.raises(ValueError, match="must be finite"):
        scalar_networks._long_runs(np.random.default_rng(3), 2)
