"""Translation and resampling against the interpolating function itself, summed bin by bin."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.alias_free import fourier_shift, ideal_lowpass, ideal_resample, resample_matrix
from lib.alias_free.resampling import _resample_matrix
from tests.alias_free.pictures import noise, pictures

SIDES = (1, 2, 3, 4, 5, 7, 8, 12, 15, 28)


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


@given(
    shape=st.tuples(st.sampled_from(SIDES), st.sampled_from(SIDES)),
    shift=st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
    seed=st.integers(0, 99),
)
def test_rows_and_columns_are_shifted_apart_from_each_other(shape, shift, seed) -> None:
    x = noise(*shape, seed=seed).numpy()
    rows = np.stack([function_at(column, np.arange(shape[0]) - shift[0]) for column in x.T], 1)
    wanted = np.stack([function_at(row, np.arange(shape[1]) - shift[1]) for row in rows])
    np.testing.assert_allclose(fourier_shift(x, shift), wanted, rtol=0, atol=1e-12)
    whole = tuple(map(round, shift))
    np.testing.assert_allclose(fourier_shift(x, whole), np.roll(x, whole, (0, 1)), rtol=0, atol=1e-12)


@given(
    shape=st.tuples(st.sampled_from(SIDES), st.sampled_from(SIDES)),
    finer=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    seed=st.integers(0, 99),
)
def test_rows_and_columns_are_resampled_apart_from_each_other(shape, finer, seed) -> None:
    x = noise(*shape, seed=seed).numpy()
    size = (shape[0] + finer[0], shape[1] + finer[1])
    rows = np.stack([function_at(column, np.arange(size[0]) * shape[0] / size[0]) for column in x.T], 1)
    wanted = np.stack([function_at(row, np.arange(size[1]) * shape[1] / size[1]) for row in rows])
    fine = ideal_resample(x, size)
    np.testing.assert_allclose(fine, wanted, rtol=0, atol=1e-12)
    # and back: all but the frequency N / 2 of the sides that changed
    back = ideal_resample(fine, shape)
    lost = (finer[0] > 0 and shape[0] % 2 == 0) or (finer[1] > 0 and shape[1] % 2 == 0)
    assert lost or np.allclose(back, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 9), (8, 10), (8, 7)])
def test_shifts_add_up_and_keep_energy_without_the_nyquist_frequency(shape) -> None:
    x = pictures(3, *shape)
    twice = fourier_shift(fourier_shift(x, (0.5, 1 / 3)), (0.7, -2.2))
    assert torch.allclose(twice, fourier_shift(x, (1.2, 1 / 3 - 2.2)), rtol=0, atol=1e-12)
    assert torch.allclose(fourier_shift(x, (0.5, 0.5)).norm(), x.norm(), rtol=1e-12, atol=0)
    # with it they do not, and that is no mistake of the code
    full = noise(3, 8, 8)
    assert (fourier_shift(fourier_shift(full, (0.5, 0)), (0.5, 0)) - fourier_shift(full, (1, 0))).abs().max() > 0.05
    assert fourier_shift(full, (0.5, 0.5)).norm() < 0.99 * full.norm()


@pytest.mark.parametrize("n_in", SIDES)
def test_the_matrix_samples_the_function(n_in: int) -> None:
    for n_out in SIDES:
        t, samples = np.arange(n_out) * n_in / n_out, noise(n_in).numpy()
        found = resample_matrix(n_in, n_out).numpy() @ samples
        if n_out < n_in:  # what the coarser grid cannot hold is removed first
            kept = np.fft.fft(samples)
            kept[np.abs(np.fft.fftfreq(n_in, 1 / n_in)) > (n_out - 1) // 2] = 0
            samples = np.fft.ifft(kept).real
        np.testing.assert_allclose(found, function_at(samples, t), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("before", "after"), [(260, 390), (390, 260), (260, 520), (520, 261), (261, 300), (64, 280)])
def test_large_sides_by_fft_agree_with_the_matrix(before: int, after: int) -> None:
    x = noise(2, before, 6)
    wanted = resample_matrix(before, after) @ x
    assert torch.allclose(ideal_resample(x, (after, 6)), wanted, rtol=0, atol=1e-11)
    assert torch.allclose(ideal_resample(x.mT, (6, after)), wanted.mT, rtol=0, atol=1e-11)
    last = x[..., None].repeat(1, 1, 1, 3)
    assert torch.allclose(ideal_resample(last, (after, 6), channels_last=True)[..., 1], wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [(9, 14), (6, 10), (5, 4), (1, 1), (12, 7)])
def test_channels_last_and_arrays(size) -> None:
    x = noise(2, 3, 6, 10)
    wanted = ideal_resample(x, size)
    assert wanted.shape == (2, 3, *size)
    last = ideal_resample(x.permute(0, 2, 3, 1), size, channels_last=True)
    assert torch.allclose(last.permute(0, 3, 1, 2), wanted, rtol=0, atol=1e-13)
    array = ideal_resample(x.numpy(), size)
    assert isinstance(array, np.ndarray)
    np.testing.assert_allclose(array, wanted.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(12, 15), (8, 8), (280, 9)])
def test_the_low_pass_is_coarse_and_fine_again(shape) -> None:
    x = noise(2, *shape)
    assert torch.equal(ideal_lowpass(x, (shape[0] + 1, shape[1] + 1)), x)
    for size in ((3, 3), (4, 6), (7, 5), shape):
        rows, columns = (
            torch.fft.fftfreq(side, 1 / side).abs() <= (cut - 1) // 2 for side, cut in zip(shape, size, strict=True)
        )
        low = ideal_lowpass(x, size)
        wanted = torch.fft.ifft2(torch.fft.fft2(x) * (rows[:, None] & columns)).real
        assert torch.allclose(low, wanted, rtol=0, atol=1e-12)
        if size != shape:  # the same size is no resampling, and keeps what an even side's half holds
            assert torch.allclose(ideal_resample(low, size), ideal_resample(x, size), rtol=0, atol=1e-12)


def test_what_inference_caches_can_be_trained_with_and_is_nobodys_to_change() -> None:
    _resample_matrix.cache_clear()
    x = noise(1, 9, 9)
    with torch.inference_mode():
        before = ideal_lowpass(ideal_resample(x, (13, 13)), (5, 5))
    resample_matrix(9, 13).zero_()
    after = ideal_lowpass(ideal_resample(x.requires_grad_(), (13, 13)), (5, 5))
    assert torch.equal(after, before)
    after.sum().backward()


#: One of each, for any picture.
FUNCTIONS = (
    lambda x: ideal_resample(x, (x.shape[-2] * 3 // 2, x.shape[-1] - 2)),
    lambda x: ideal_lowpass(x, (x.shape[-2] // 2, x.shape[-1] // 2)),
    lambda x: fourier_shift(x, (0.3, 1.7)),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("side", [20, 280])
def test_lower_precision(dtype: torch.dtype, side: int) -> None:
    x = noise(2, 10, side).to(dtype)
    allowed = 4 * torch.finfo(dtype).eps * float(x.abs().max())
    for function in FUNCTIONS:
        result = function(x)
        assert result.dtype == dtype
        assert (result.double() - function(x.double())).abs().max() < allowed
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(function(x), result)


def test_empty_batches() -> None:
    x = noise(0, 3, 4, 280)
    assert ideal_resample(x, (6, 283)).shape == (0, 3, 6, 283)
    assert ideal_lowpass(x, (3, 3)).shape == fourier_shift(x, (0.5, 0.5)).shape == x.shape


def test_arrays_of_any_layout() -> None:
    x = np.random.default_rng(0).standard_normal((6, 8))
    wanted = ideal_resample(x, (9, 12))
    frozen = x.copy()
    frozen.setflags(write=False)
    for other in (frozen, np.asfortranarray(x), x[::-1][::-1], x.astype(">f8")):
        np.testing.assert_array_equal(ideal_resample(other, (9, 12)), wanted)
    same = ideal_resample(x, (6, 8))
    same[:] = 0  # an array that comes back is never the caller's own
    assert x.any()
    assert fourier_shift(x.astype(np.float32), (0.5, 0.5)).dtype == np.float32


def test_gradients_of_first_and_second_order() -> None:
    x = noise(1, 4, 5).requires_grad_()
    for function in FUNCTIONS:
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: fourier_shift(x, (0.5,)), ValueError, "shift must be a pair"),
        (lambda x: fourier_shift(x[0, 0], (0, 0)), ValueError, r"x must have the shape \(..., H, W\)"),
        (lambda x: fourier_shift(x.numpy().astype(np.longdouble), (0, 0)), TypeError, "of 64 bits at most"),
        (lambda x: ideal_resample(x, (3,)), ValueError, "size must be a pair"),
        (lambda x: ideal_resample(x[..., None][:, :0], (3, 3), channels_last=True), ValueError, "and hold pixels"),
        (lambda x: ideal_resample(x[0], (3, 3), channels_last=True), ValueError, r"the shape \(..., H, W, C\)"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call(noise(2, 4, 4))


def test_results_are_copies_and_functions_can_be_compiled_and_mapped() -> None:
    x = noise(2, 3, 5, 5)
    for result in (ideal_resample(x, (5, 5)), ideal_lowpass(x, (9, 9)), fourier_shift(x, (0, 0))):
        assert torch.allclose(result, x)
        assert result.data_ptr() != x.data_ptr()
    # where there are no values to look at, none are looked at
    mapped = torch.func.vmap(lambda part: ideal_resample(fourier_shift(part, (0.3, 1)), (7, 7)))(x)
    assert torch.allclose(mapped, ideal_resample(fourier_shift(x, (0.3, 1)), (7, 7)))
    assert fourier_shift(x.to("meta"), (0.3, 1)).shape == x.shape
