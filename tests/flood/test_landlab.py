"""Another code of the field, landlab's OverlandFlow: what it found is stored; `make bench` lets it find it again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.flood import State
from lib.flood.claims.peer import compare_with_landlab, landlab_reference, shared_flood, solver_like_landlab


def without_dry_faces(z: torch.Tensor, state: State) -> State:
    """The state with no discharge through faces that have no water now."""
    level, qx, qy = z + state.h, state.qx.clone(), state.qy.clone()
    qx[:, 1:-1] *= torch.maximum(level[:, 1:], level[:, :-1]) > torch.maximum(z[:, 1:], z[:, :-1])
    qy[1:-1] *= torch.maximum(level[1:], level[:-1]) > torch.maximum(z[1:], z[:-1])
    return State(state.h, qx, qy)


def test_other_steps_or_other_depths_are_seen() -> None:
    reference = landlab_reference()
    # there is something to agree on: levels have moved by a quarter of a metre, and no cell came near to dry
    depths = reference.depths["wet", 0.8]
    assert np.abs(depths - shared_flood("wet").h0).max() > 0.2
    assert depths.min() > 0.5
    assert compare_with_landlab(reference._replace(steps=reference.steps[::-1]), 0.8) > 1e-6
    swapped = {("wet", 0.8): reference.depths["wet", 1.0]}
    assert compare_with_landlab(reference._replace(depths=swapped), 0.8) > 1e-6


def test_where_cells_fall_dry_the_codes_differ_by_design() -> None:
    reference = landlab_reference()
    depths = reference.depths["drying", 0.8]
    assert depths.min() < -1e-4
    limited = replace(solver_like_landlab(0.8), limiter=True)
    assert 1e-4 < compare_with_landlab(reference, 0.8, "drying") < 2e-3
    assert 1e-4 < compare_with_landlab(reference, 0.8, "drying", solver=limited) < 2e-3


def test_the_differences_at_dry_faces_are_explained() -> None:
    reference = landlab_reference()
    assert compare_with_landlab(reference, 1.0, "drying") > 1e-7
    solver = replace(solver_like_landlab(1.0), h_dry=1e-6)
    assert compare_with_landlab(reference, 1.0, "drying", solver=solver) < 1e-10
    # with an average over neighbours, a face that has just dried must count as zero in it
    solver = replace(solver, theta=0.8)
    assert compare_with_landlab(reference, 0.8, "drying", solver=solver) > 1e-6
    flood = shared_flood("drying")
    z = torch.from_numpy(flood.z)
    state = solver.initial_state(z, torch.from_numpy(flood.h0))
    for dt in reference.steps:
        state = solver.step(z, without_dry_faces(z, state), float(dt))
    assert np.abs(state.h.numpy() - reference.depths["drying", 0.8]).max() < 1e-10


def test_unknown_scenes_and_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="scene must be one of wet, drying"):
        shared_flood("dry")
    with pytest.raises(ValueError, match=r"scene and theta must be among .*; they are 'wet' with 0\.7"):
        compare_with_landlab(landlab_reference(), 0.7)
