import pytest

from lib.forgetting import search_cyclic


def test_in_the_plane_it_finds_the_best() -> None:
    plane, _ = search_cyclic(4, 16, d=2, nullity=1, starts=8, steps=200)
    assert plane == pytest.approx(0.041358, rel=1e-3)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be a multiple of T = 3"):
        search_cyclic(3, 10)
    with pytest.raises(ValueError, match="nullity must be below d = 2"):
        search_cyclic(3, 9, d=2)
