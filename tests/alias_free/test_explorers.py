"""The chapter's live figures: what a reader should see in each."""

import itertools

import numpy as np
import pytest
import torch

from lib.alias_free import BlurPool2d, equivariance_error, explorers, fourier_shift, resample_matrix, translate
from lib.alias_free.attacks import BACKGROUND
from lib.alias_free.explorers import AliasMicroscope, FilterShootOut, FollowingFeatures, MovingPicture
from lib.explorer import Data, Explorer


def computed(kind: type[Explorer], /, **values: object) -> Data:
    """What a figure computes from its default setting and some other values."""
    defaults = {name: control.default for name, control in kind.declared.items()}
    return kind.compute(kind.__new__(kind), **{**defaults, **values})


def curves(data: Data) -> np.ndarray:
    """The four networks' curves of the moving picture (4, 49)."""
    return np.array([data[net] for net in explorers._NETS])


@pytest.mark.parametrize("picture", [0, 15, 97])
def test_three_curves_waver_and_one_is_a_ruler(picture: int) -> None:
    *wavering, ruler = np.ptp(curves(computed(MovingPicture, picture=picture, dy=0.35, curve="logit")), axis=1)
    assert ruler < 1e-5
    assert min(wavering) > 0.02
    for kind in ("zero", "bilinear"):  # without the theorem nothing is exact
        assert np.ptp(curves(computed(MovingPicture, picture=0, kind=kind, curve="logit")), axis=1).min() > 1e-2


def test_answers_are_those_of_the_taller_bars() -> None:
    for values in ({"picture": 0}, {"dx": 0.0}, {"dx": 1.0}):
        data = computed(MovingPicture, **values)
        assert data["label"] not in data["rivals"]
        answers = [answer.split("<br>")[1] for answer in data["answers"]]
        assert [answer != data["label"] for answer in answers] == (data["right"] < data["rival"]).tolist()
    # the default picture: the baseline changes its mind within a pixel, and is right at rest
    assert answers[0] != data["label"] == answers[3]
    assert f"baseline:<br>{data['label']}" in computed(MovingPicture, dx=0.0)["answers"]


def test_aps_is_flat_for_whole_pixels_only() -> None:
    aps = computed(MovingPicture, curve="logit")["APS"]
    assert np.ptp(aps[::8]) < 1e-5
    assert np.ptp(aps) > 1e-2


def test_the_dots_lie_on_the_curves() -> None:
    for kind, curve in itertools.product(("circular", "zero", "bilinear"), ("probability", "logit")):
        data = computed(MovingPicture, dx=-1.25, dy=0.5, kind=kind, curve=curve)
        np.testing.assert_allclose(data["here"], curves(data)[:, 14], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shift"),
    [("circular", (0.3, -1.85)), ("zero", (2, -3)), ("zero", (0.5, -1.5)), ("bilinear", (-0.6, 2.25))],
)
def test_the_picture_is_moved_as_the_library_moves_it(kind: str, shift: tuple[float, float]) -> None:
    data = computed(MovingPicture, picture=4, dy=shift[0], dx=shift[1], kind=kind)
    carried_out = tuple(np.floor(np.add(shift, 0.5)).tolist()) if kind == "zero" else shift
    assert (data["down_shift"], data["right_shift"]) == carried_out
    wanted = translate(explorers._clothes()[0][4, 0], carried_out, kind, fill=BACKGROUND)
    shown = (data["picture"] - explorers.FASHION_MEAN) / explorers.FASHION_SPREAD
    np.testing.assert_allclose(shown, wanted, atol=1e-5)


@pytest.mark.parametrize(("activation", "factor"), [("quadratic", 1.5), ("cubic", 2.0)])
def test_red_vanishes_where_the_grid_holds_the_polynomial(activation: str, factor: float) -> None:
    exact = computed(AliasMicroscope, activation=activation, factor=factor)
    assert exact["folded_share"] < 1e-28
    assert exact["folded_kept"].max() < 1e-14
    assert exact["errors"].max() < 1e-13
    aliased = computed(AliasMicroscope, activation=activation, factor=factor - 0.25)
    assert aliased["folded_share"] > 1e-4
    assert aliased["error"] > 1e-3


@pytest.mark.parametrize("activation", ["ReLU", "GELU"])
def test_red_never_vanishes_for_other_functions(activation: str) -> None:
    figures = [computed(AliasMicroscope, activation=activation, factor=factor) for factor in (1.0, 2.0, 4.0)]
    shares = [data["folded_share"] for data in figures]
    assert shares[0] > shares[1] > shares[2] > 1e-12


def test_the_half_pixel_trap() -> None:
    half, other = (computed(AliasMicroscope, activation="GELU", factor=2.0, shift=shift) for shift in (0.5, 0.37))
    assert half["error"] < 1e-13
    assert other["error"] > 5e-3
    np.testing.assert_allclose(half["moved_first"], half["moved_last"], atol=1e-12)
    assert np.abs(other["moved_first"] - other["moved_last"]).max() > 1e-3


def test_the_spectrum_is_that_of_the_product() -> None:
    """One tone of amplitude 1: its square is half a constant and half a tone of twice the frequency."""
    data = computed(AliasMicroscope, f1=20, a1=1.0, a2=0.0, a3=0.0)
    c0, c1, c2 = explorers.GELU_QUADRATIC
    wanted = np.full(94, 1e-17)
    wanted[[0, 20, 40]] = c0 + c2 / 2, c1, c2 / 2
    np.testing.assert_allclose([*data["true_kept"], *data["true_cut"]], wanted, atol=1e-15)
    folded = np.full(94, 1e-17)
    folded[64 - 40] = c2 / 2
    np.testing.assert_allclose([*data["folded_kept"], *data["folded_cut"]], folded, atol=1e-15)


def test_the_error_is_that_of_the_library() -> None:
    """The same layer by resampling matrices, on rows of pictures."""
    data = computed(AliasMicroscope, activation="GELU", factor=1.5, shift=-0.83)
    tones, heights = np.array([28.0, 9.0, 3.0]), np.array([1.0, 0.6, 0.4])
    row = torch.from_numpy(explorers._tones(tones, heights, 64, np.zeros(1)))[None, None]
    up, down = resample_matrix(64, 96), resample_matrix(96, 64)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x @ up.T) @ down.T

    assert equivariance_error(layer, row, (0.0, -0.83)) == pytest.approx(data["error"], rel=1e-6)


@pytest.mark.parametrize("layer", explorers._LAYERS)
def test_features_of_afc_follow_and_those_of_the_others_do_not(layer: str) -> None:
    for shift, network in itertools.product((0.3, 2.7), explorers._NETS):
        error = computed(FollowingFeatures, network=network, layer=layer, shift=shift)["error"]
        assert error < 1e-5 if network == "AFC" else error > 1e-2
    # shifts by whole strides are exact for fixed grids
    for network in ("baseline", "BlurPool"):
        stride = float(explorers._LAYERS[layer])
        assert computed(FollowingFeatures, network=network, layer=layer, shift=stride)["error"] < 1e-5


def test_last_features_are_those_of_the_network() -> None:
    model = explorers._network("AFC")
    with torch.no_grad():
        wanted = model.forward_features(explorers._bag())[0]
    torch.testing.assert_close(explorers._features("AFC", "last features", explorers._bag()), wanted)


def test_the_gain_multiplies_the_difference() -> None:
    once, often = (computed(FollowingFeatures, gain=gain) for gain in (1.0, 100.0))
    np.testing.assert_allclose(often["difference"], np.clip(100 * once["difference"], -1, 1))
    assert np.abs(once["difference"]).max() <= once["error"] == often["error"]


def test_smoothing_trades_loss_for_aliases_and_the_brick_wall_has_neither() -> None:
    lost, left = explorers._budget()
    np.testing.assert_allclose([lost[0], lost[7], left[0], left[7]], [0, 0, 1, 0], atol=1e-15)
    assert (np.diff(lost[:7]) > 0).all()
    assert (np.diff(left[:7]) < 0).all()


def test_the_error_falls_with_smoothing_and_only_the_ideal_has_none() -> None:
    errors = explorers._sweep_errors()
    between = np.abs(explorers._SWEEP - np.round(explorers._SWEEP / 2) * 2) > 0.2
    assert (np.diff(errors.max(axis=1)[:7]) < 0).all()
    assert (errors[:7, between] > 1e-2).all()
    assert errors[7].max() < 1e-13
    assert (errors[:, [0, 80]] < 1e-13).all()
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, 32, 32)))
    measured = equivariance_error(BlurPool2d(1), fourier_shift(noise, (0, 0), nyquist="zero"), (1.3, 1.3), stride=2)
    assert computed(FilterShootOut, filter="BlurPool 3", shift=1.3)["error"] == pytest.approx(measured)


@pytest.mark.parametrize("name", explorers._FILTERS)
def test_filters_are_those_of_the_layers(name: str) -> None:
    edge = torch.from_numpy(explorers._edge(0.7)).expand(1, 1, 64, 64)
    data = computed(FilterShootOut, filter=name, shift=0.7)
    np.testing.assert_allclose(data["kept"], explorers._layer(name)(edge)[0, 0, 0].numpy(), atol=1e-12)
    # the brick wall rings, binomials do not
    assert 0.04 < data["overshoot"] < 0.12 if name == "ideal low-pass" else data["overshoot"] < 1e-9
    pulse = np.eye(1, 64, 20)[0]
    answer = np.abs(np.fft.rfft(explorers._filtered(pulse, name)))
    np.testing.assert_allclose(data[f"response of {name}"], answer, atol=1e-14)
