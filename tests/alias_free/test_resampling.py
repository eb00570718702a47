"""Translation and resampling against the interpolating function itself, summed bin by bin."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.alias_free import fourier_shift, ideal_lowpass, ideal_resample, resample_matrix

F64 = torch.float64
SIDES = (1, 2, 3, 4, 5, 7, 8, 12, 15, 28)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def without_nyquist(x: torch.Tensor) -> torch.Tensor:
    return fourier_shift(x, (0, 0), nyquist="zero")


def function_at(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The trigonometric polynomial through the samples (N,), at any places [pixels]."""
    n = len(x)
    total = np.full(t.shape, x.mean())
    for k in range(1, (n - 1) // 2 + 1):
        coefficient = (x * np.exp(-2j * np.pi * k * np.arange(n) / n)).sum() / n
        total = total + 2 * (coefficient * np.exp(2j * np.pi * k * t / n)).real
    if n % 2 == 0:
        total = total + (x * (-1.0) ** np.arange(n)).sum() / n * np.cos(np.pi * t)
    return total


@given(side=st.sampled_from(SIDES), shift=st.floats(-40, 40), seed=st.integers(0, 99))
def test_a_shift_samples_the_shifted_function(side: int, shift: float, seed: int) -> None:
    x = noise(1, side, seed=seed)
    wanted = function_at(x[0].numpy(), np.arange(side) - shift)
    np.testing.assert_allclose(fourier_shift(x, (0, shift))[0].numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(fourier_shift(x.T.contiguous(), (shift, 0))[:, 0].numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 8), (8, 7), (1, 5), (6, 6)])
def test_whole_shifts_are_rolls(shape) -> None:
    x = noise(2, 3, *shape)
    for shift in ((0, 0), (1, 0), (-2, 3), (shape[0] + 1, -shape[1])):
        assert torch.allclose(fourier_shift(x, shift), x.roll(shift, (-2, -1)), atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 9), (8, 10), (8, 7)])
def test_shifts_add_up_and_keep_energy_without_the_nyquist_frequency(shape) -> None:
    x = without_nyquist(noise(3, *shape))
    twice = fourier_shift(fourier_shift(x, (0.5, 1 / 3)), (0.7, -2.2))
    assert torch.allclose(twice, fourier_shift(x, (1.2, 1 / 3 - 2.2)), atol=1e-12)
    assert torch.allclose(fourier_shift(x, (0.5, 0.5)).norm(), x.norm(), rtol=1e-12)
    # with it they do not, and that is no mistake of the code
    full = noise(3, 8, 8)
    assert (fourier_shift(fourier_shift(full, (0.5, 0)), (0.5, 0)) - fourier_shift(full, (1, 0))).abs().max() > 0.05
    assert fourier_shift(full, (0.5, 0.5)).norm() < 0.99 * full.norm()


@pytest.mark.parametrize("n_in", SIDES)
@pytest.mark.parametrize("n_out", SIDES)
def test_the_matrix_samples_the_function(n_in: int, n_out: int) -> None:
    x = noise(n_in)
    t = np.arange(n_out) * n_in / n_out
    samples = x.numpy()
    if n_out < n_in:  # what the coarser grid cannot hold is removed first
        kept = np.fft.fft(samples)
        kept[np.abs(np.fft.fftfreq(n_in, 1 / n_in)) > (n_out - 1) // 2] = 0
        samples = np.fft.ifft(kept).real
    np.testing.assert_allclose((resample_matrix(n_in, n_out) @ x).numpy(), function_at(samples, t), atol=1e-12)


@pytest.mark.parametrize(("before", "after"), [(130, 195), (195, 130), (130, 260), (260, 131), (131, 200), (64, 140)])
def test_large_sides_by_fft_agree_with_the_matrix(before: int, after: int) -> None:
    x = noise(2, before, 6)
    wanted = resample_matrix(before, after) @ x
    assert torch.allclose(ideal_resample(x, (after, 6)), wanted, atol=1e-11)
    assert torch.allclose(ideal_resample(x.mT, (6, after)), wanted.mT, atol=1e-11)
    last = x[..., None].repeat(1, 1, 1, 3)
    assert torch.allclose(ideal_resample(last, (after, 6), channels_last=True)[..., 1], wanted, atol=1e-11)


@pytest.mark.parametrize("size", [(9, 14), (6, 10), (5, 4), (1, 1), (12, 7)])
def test_channels_last_arrays_and_dtypes(size) -> None:
    x = noise(2, 3, 6, 10)
    wanted = ideal_resample(x, size)
    assert wanted.shape == (2, 3, *size)
    last = ideal_resample(x.permute(0, 2, 3, 1), size, channels_last=True)
    assert torch.allclose(last.permute(0, 3, 1, 2), wanted, atol=1e-13)
    array = ideal_resample(x.numpy(), size)
    assert isinstance(array, np.ndarray)
    np.testing.assert_allclose(array, wanted.numpy(), atol=1e-13)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        other = ideal_resample(x.to(dtype), size)
        assert other.dtype == dtype
        assert (other.to(F64) - wanted).abs().max() < tolerance * x.abs().max() * 2


@pytest.mark.parametrize("n", range(2, 49))
def test_coarsening_commutes_with_translation(n: int) -> None:
    """For every factor that divides the side, whatever the picture holds."""
    x = noise(1, n, n, seed=n)
    for factor in (r for r in range(2, n + 1) if n % r == 0):
        coarse = (n // factor, n // factor)
        moved = ideal_resample(fourier_shift(x, (0.7182, -2.236)), coarse)
        wanted = fourier_shift(ideal_resample(x, coarse), (0.7182 / factor, -2.236 / factor))
        assert (moved - wanted).abs().max() < 1e-11


@pytest.mark.parametrize("shape", [(12, 15), (8, 8), (140, 9)])
def test_the_low_pass_is_coarse_and_fine_again(shape) -> None:
    x = noise(2, *shape)
    for size in ((3, 3), (4, 6), (7, 5), shape):
        low = ideal_lowpass(x, size)
        spectrum = torch.fft.fft2(low)
        for axis, (side, cut) in enumerate(zip(shape, size, strict=True)):
            k = torch.fft.fftfreq(side, 1 / side).abs()
            assert spectrum.abs().amax([0, 2 - axis])[k > (cut - 1) // 2].numel() == 0 or (
                spectrum.abs().amax([0, 2 - axis])[k > (cut - 1) // 2].max() < 1e-9
            )
        assert torch.allclose(ideal_lowpass(low, size), low, atol=1e-12)
        if size != shape:  # the same size is no resampling, and keeps what an even side's half holds
            assert torch.allclose(ideal_resample(low, size), ideal_resample(x, size), atol=1e-12)


def test_gradients_of_first_and_second_order() -> None:
    x = noise(1, 4, 5).requires_grad_()
    for function in (
        lambda a: ideal_resample(a, (6, 3)),
        lambda a: ideal_lowpass(a, (3, 3)),
        lambda a: fourier_shift(a, (0.3, 1.7)),
    ):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: fourier_shift(x, (0.5,)), ValueError, "shift must be two finite numbers"),
        (lambda x: fourier_shift(x, (0.5, float("nan"))), ValueError, "shift must be two finite numbers"),
        (lambda x: fourier_shift(x, (0, 0), nyquist="half"), ValueError, "nyquist must be"),
        (lambda x: fourier_shift(x.long(), (0, 0)), TypeError, "x must be a floating-point"),
        (lambda x: fourier_shift(x.to(torch.complex64), (0, 0)), TypeError, "x must be a floating-point"),
        (lambda x: fourier_shift(x[0, 0], (0, 0)), ValueError, r"x must have the shape \(..., H, W\)"),
        (lambda x: ideal_resample(x, (0, 3)), ValueError, "size must be at least 1"),
        (lambda x: ideal_resample(x[0], (3, 3), channels_last=True), ValueError, r"the shape \(..., H, W, C\)"),
        (lambda x: ideal_lowpass(x, (3, 0)), ValueError, "size must be at least 1"),
        (lambda _: resample_matrix(0, 3), ValueError, "n_in must be at least 1"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call(noise(2, 4, 4))
