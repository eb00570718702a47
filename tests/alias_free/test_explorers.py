"""The chapter's live figures: what a reader should see in each."""

import itertools
import time

import numpy as np
import pytest
import torch
from scipy.stats import binom

from lib.alias_free import (
    BlurPool2d,
    dealias_size,
    equivariance_error,
    explorers,
    fourier_shift,
    resample_matrix,
    translate,
)
from lib.alias_free.attacks import BACKGROUND
from lib.alias_free.explorers import AliasMicroscope, FilterShootOut, FollowingFeatures, MovingPicture
from lib.explorer import Data, Explorer

CLASSES = (MovingPicture, AliasMicroscope, FollowingFeatures, FilterShootOut)


def defaults(kind: type[Explorer], /, **values: object) -> dict:
    """A setting of all controls."""
    return {**{name: control.default for name, control in kind.declared.items()}, **values}


@pytest.fixture(scope="module")
def computed():
    """What a figure computes from its default setting and some other values."""
    figures = {kind: kind() for kind in CLASSES}
    return lambda figure, /, **values: figures[figure].compute(**defaults(figure, **values))


def curves(data: Data) -> np.ndarray:
    """The four networks' curves of the moving picture (4, 49)."""
    return np.array([data[net] for net in explorers._NETS])


def answers(data: Data) -> list[str]:
    """The classes that the four networks say."""
    return [answer.split("<br>")[1] for answer in data["answers"]]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_figure_follows_the_hand(kind) -> None:
    """The processor's time; 50 ms is the aim, and a machine may be three times as slow."""
    explorer = kind()
    rng = np.random.default_rng(3)
    seconds = []
    for _ in range(12):
        settings = {name: control.random(rng) for name, control in kind.declared.items()}
        start = time.process_time()
        explorer.compute(**settings)
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.15


# --- the moving picture


@pytest.mark.parametrize("picture", [0, 15, 97])
def test_three_curves_waver_and_one_is_a_ruler(computed, picture: int) -> None:
    data = computed(MovingPicture, picture=picture, dy=0.35, curve="logit")
    assert curves(data).shape == (4, 49)
    spread = np.ptp(curves(data), axis=1)
    assert spread[3] < 1e-5
    assert (spread[:3] > 0.02).all()


def test_the_baseline_changes_its_mind_within_a_pixel(computed) -> None:
    at_rest, moved = computed(MovingPicture, dx=0.0), computed(MovingPicture, dx=1.0)
    assert answers(at_rest)[0] == at_rest["label"] != answers(moved)[0]
    assert answers(at_rest)[3] == answers(moved)[3] == at_rest["label"]


def test_aps_is_flat_for_whole_pixels_only(computed) -> None:
    aps = computed(MovingPicture, curve="logit")["APS"]
    assert np.ptp(aps[::8]) < 1e-5
    assert np.ptp(aps) > 1e-2


def test_the_dots_lie_on_the_curves(computed) -> None:
    for kind, curve in itertools.product(("circular", "zero", "bilinear"), ("probability", "logit")):
        data = computed(MovingPicture, dx=-1.25, dy=0.5, kind=kind, curve=curve)
        np.testing.assert_allclose(data["here"], curves(data)[:, 14], atol=1e-5)


def test_without_the_theorem_nothing_is_exact(computed) -> None:
    for kind in ("zero", "bilinear"):
        assert np.ptp(curves(computed(MovingPicture, picture=0, kind=kind, curve="logit")), axis=1).min() > 1e-2


def test_zero_rounds_to_whole_pixels(computed) -> None:
    data = computed(MovingPicture, dx=-1.5, dy=0.5, kind="zero")
    assert (data["right_shift"], data["down_shift"]) == (-1.0, 1.0)
    same = computed(MovingPicture, dx=-1.0, dy=1.0, kind="zero")
    np.testing.assert_array_equal(data["picture"], same["picture"])


@pytest.mark.parametrize(("kind", "shift"), [("circular", (0.3, -1.85)), ("zero", (2, -3)), ("bilinear", (-0.6, 2.25))])
def test_the_picture_is_moved_as_the_library_moves_it(kind: str, shift: tuple[float, float]) -> None:
    image = explorers._clothes()[0][4, 0]
    moved = explorers._moved(4, shift[0], kind, explorers._mover(shift[1], kind))
    torch.testing.assert_close(moved, translate(image, shift, kind, fill=BACKGROUND), atol=1e-5, rtol=0)


def test_bars_are_the_right_class_and_the_best_other(computed) -> None:
    data = computed(MovingPicture, picture=0)
    assert (data["right"] + data["rival"] <= 1 + 1e-12).all()
    assert data["label"] not in data["rivals"]
    wrong = data["right"] < data["rival"]
    assert [answer != data["label"] for answer in answers(data)] == wrong.tolist()


# --- the microscope


@pytest.mark.parametrize(("activation", "factor", "before"), [("quadratic", 1.5, 1.25), ("cubic", 2.0, 1.75)])
def test_red_vanishes_where_the_grid_holds_the_polynomial(computed, activation: str, factor: float, before: float):
    exact = computed(AliasMicroscope, activation=activation, factor=factor)
    assert exact["folded_share"] < 1e-28
    assert exact["folded_kept"].max() < 1e-14
    assert exact["errors"].max() < 1e-13
    aliased = computed(AliasMicroscope, activation=activation, factor=before)
    assert aliased["folded_share"] > 1e-4
    assert aliased["error"] > 1e-3
    degree = 2 if activation == "quadratic" else 3
    assert before * 64 < dealias_size(64, degree) <= factor * 64


@pytest.mark.parametrize("activation", ["ReLU", "GELU"])
def test_red_never_vanishes_for_other_functions(computed, activation: str) -> None:
    shares = [
        computed(AliasMicroscope, activation=activation, factor=factor)["folded_share"] for factor in (1.0, 2.0, 4.0)
    ]
    assert shares[0] > shares[1] > shares[2] > 1e-12


def test_the_half_pixel_trap(computed) -> None:
    half, other = (computed(AliasMicroscope, activation="GELU", factor=2.0, shift=shift) for shift in (0.5, 0.37))
    assert half["error"] < 1e-13
    assert other["error"] > 5e-3
    np.testing.assert_allclose(half["moved_first"], half["moved_last"], atol=1e-12)
    assert np.abs(other["moved_first"] - other["moved_last"]).max() > 1e-3


def test_the_spectrum_is_that_of_the_product() -> None:
    """One tone of amplitude 1: its square is half a constant and half a tone of twice the frequency."""
    figure = AliasMicroscope(f1=20, a1=1.0, a2=0.0, a3=0.0)
    c0, c1, c2 = explorers.GELU_QUADRATIC
    wanted = np.full(94, 1e-17)
    wanted[[0, 20, 40]] = c0 + c2 / 2, c1, c2 / 2
    np.testing.assert_allclose([*figure.data["true_kept"], *figure.data["true_cut"]], wanted, atol=1e-15)
    folded = np.full(94, 1e-17)
    folded[64 - 40] = c2 / 2
    np.testing.assert_allclose([*figure.data["folded_kept"], *figure.data["folded_cut"]], folded, atol=1e-15)


def test_the_error_is_that_of_the_library(computed) -> None:
    """The same layer by resampling matrices, on rows of pictures."""
    data = computed(AliasMicroscope, activation="GELU", factor=1.5, shift=-0.83)
    tones, heights = np.array([28.0, 9.0, 3.0]), np.array([1.0, 0.6, 0.4])
    row = torch.from_numpy(explorers._tones(tones, heights, 64, np.zeros(1)))[None, None]
    up, down = resample_matrix(64, 96), resample_matrix(96, 64)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x @ up.T) @ down.T

    assert equivariance_error(layer, row, (0.0, -0.83)) == pytest.approx(data["error"], rel=1e-6)


def test_a_signal_of_nothing_is_no_error(computed) -> None:
    for activation in ("quadratic", "cubic", "ReLU", "GELU"):
        data = computed(AliasMicroscope, a1=0.0, a2=0.0, a3=0.0, activation=activation)
        assert data["error"] < 1e-12


# --- features


@pytest.mark.parametrize("layer", ["stem", "first block", "downsampling", "last features"])
def test_features_of_afc_follow_and_those_of_the_baseline_do_not(computed, layer: str) -> None:
    for shift in (0.3, 2.7, 5.1):
        assert computed(FollowingFeatures, network="AFC", layer=layer, shift=shift)["error"] < 1e-5
        for network in ("baseline", "BlurPool", "APS"):
            assert computed(FollowingFeatures, network=network, layer=layer, shift=shift)["error"] > 1e-2


def test_shifts_by_whole_strides_are_exact_for_fixed_grids(computed) -> None:
    for network in ("baseline", "BlurPool"):
        assert computed(FollowingFeatures, network=network, layer="last features", shift=4.0)["error"] < 1e-5
        assert computed(FollowingFeatures, network=network, layer="last features", shift=2.0)["error"] > 1e-2


def test_last_features_are_those_of_the_network() -> None:
    model = explorers._network("AFC")
    with torch.no_grad():
        wanted = model.forward_features(explorers._bag())[0]
    torch.testing.assert_close(explorers._features("AFC", "last features", explorers._bag()), wanted)


def test_the_gain_multiplies_the_difference(computed) -> None:
    once, often = (computed(FollowingFeatures, gain=gain) for gain in (1.0, 100.0))
    np.testing.assert_allclose(often["difference"], np.clip(100 * once["difference"], -1, 1))
    assert np.abs(once["difference"]).max() <= once["error"] == often["error"]


# --- filters


def test_smoothing_trades_loss_for_aliases_and_the_brick_wall_has_neither() -> None:
    lost, left = explorers._budget()
    assert lost[0] == pytest.approx(0)
    assert left[0] == pytest.approx(1)
    assert (np.diff(lost[:7]) > 0).all()
    assert (np.diff(left[:7]) < 0).all()
    assert abs(lost[7]) < 1e-15
    assert left[7] == 0


def test_the_error_falls_with_smoothing_and_only_the_ideal_has_none() -> None:
    errors = explorers._sweep_errors()
    between = np.abs(explorers._SWEEP - np.round(explorers._SWEEP / 2) * 2) > 0.2
    worst = errors.max(axis=1)
    assert (np.diff(worst[:7]) < 0).all()
    assert (errors[:7, between] > 1e-2).all()
    assert worst[7] < 1e-13
    assert (errors[:, [0, 80]] < 1e-13).all()


def test_the_brick_wall_rings_and_binomials_do_not(computed) -> None:
    for shift in (0.0, 0.45, 1.3):
        assert 0.04 < computed(FilterShootOut, filter="ideal low-pass", shift=shift)["overshoot"] < 0.12
        for size in range(2, 8):
            assert computed(FilterShootOut, filter=f"BlurPool {size}", shift=shift)["overshoot"] < 1e-9


@pytest.mark.parametrize("size", range(1, 8))
def test_responses_are_those_of_the_layers(size: int) -> None:
    pulse = torch.zeros(1, 1, 1, 64, dtype=torch.float64)
    pulse[..., 20] = 1
    answer = BlurPool2d(1, 1, size)(pulse)[0, 0, 0].numpy()
    np.testing.assert_allclose(explorers._responses()[size - 1], np.abs(np.fft.rfft(answer)), atol=1e-14)
    np.testing.assert_allclose(np.sort(answer)[-size:], np.sort(binom.pmf(range(size), size - 1, 0.5)), atol=1e-15)


def test_what_the_stride_keeps_is_what_the_layer_gives(computed) -> None:
    for name in explorers._FILTERS:
        edge = torch.from_numpy(explorers._edge(0.7)).expand(1, 1, 64, 64)
        kept = explorers._layer(name)(edge)[0, 0, 0].numpy()
        np.testing.assert_allclose(computed(FilterShootOut, filter=name, shift=0.7)["filtered"][::2], kept, atol=1e-12)


def test_a_whole_shift_of_the_edge_is_a_roll() -> None:
    np.testing.assert_allclose(explorers._edge(2.0), np.roll(explorers._edge(0.0), 2))
    assert explorers._edge(0.3).sum() == pytest.approx(explorers._edge(1.9).sum())


def test_the_sweep_is_of_the_layers() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, 32, 32)))
    noise = fourier_shift(noise, (0.0, 0.0), nyquist="zero")
    measured = equivariance_error(BlurPool2d(1, 2, 3), noise, (1.3, 1.3), stride=2)
    assert FilterShootOut(filter="BlurPool 3", shift=1.3).data["error"] == pytest.approx(measured)
