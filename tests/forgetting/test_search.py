import pytest

from lib.forgetting import cyclic_bounds, cyclic_ordering, search_cyclic, worst_case_forgetting


def test_what_is_found_is_so_and_beats_the_plane() -> None:
    value, bases = search_cyclic(4, 16, starts=16, steps=300)
    assert worst_case_forgetting(bases, cyclic_ordering(4, 16))[0] == pytest.approx(value, rel=1e-9)
    assert 0.0435 < value < cyclic_bounds(4, 16, d=4, r_max=2)[1]
    plane, _ = search_cyclic(4, 16, d=2, nullity=1, starts=16, steps=300)
    assert plane == pytest.approx(0.041358, rel=1e-3)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be a multiple of T = 3"):
        search_cyclic(3, 10)
    with pytest.raises(ValueError, match="nullity must be below d = 2"):
        search_cyclic(3, 9, d=2)
