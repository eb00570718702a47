"""Data, and the sweep over scales and shapes."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from lib.__main__ import app
from lib.initialization_shape import (
    PRESETS,
    SweepPreset,
    digits_regression,
    least_l1_interpolator,
    population_errors,
    random_neurons,
    sparse_regression,
    sweep_initialization_shape,
)
from lib.initialization_shape.several_neurons import dual_spread

SMALL = SweepPreset(d=40, n=10, alphas=(1e-4, 1e-2, 1.0), shapes=(0.0, 0.9), seeds=3)


def test_sparse_regression_is_what_it_says_and_repeats() -> None:
    one, other = (sparse_regression(50, 12, sparsity=4, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.X, other.X)
    np.testing.assert_array_equal(one.y, other.y)
    assert np.count_nonzero(one.teacher) == 4
    assert np.linalg.norm(one.teacher) == pytest.approx(1)
    assert one.test_error(np.zeros(50)) == pytest.approx(np.mean((one.X_test @ one.teacher) ** 2))


def test_digits_are_standardised_pixels() -> None:
    problem = digits_regression(40, rng=np.random.default_rng(0))
    everything = np.vstack([problem.X, problem.X_test])
    assert everything.shape[0] == 1797
    np.testing.assert_allclose(everything.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(everything.std(axis=0), 1, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sparse_regression(10, 5, sparsity=11, rng=np.random.default_rng()), "sparsity must be at most"),
        (lambda: digits_regression(52, rng=np.random.default_rng()), "n must be below the number of pixels"),
        (lambda: least_l1_interpolator([[0.0, 0.0]], [1.0]), "no interpolator was found"),
        (lambda: random_neurons(0, 3, 1.0, 0.0, rng=np.random.default_rng()), "count must be at least 1"),
        (lambda: dual_spread([[1.0, 0.0]], [2.0], [1.0], [[1.0, 0.0]], t_max=1e-6), "did not fit the data"),
        (lambda: dual_spread([[1.0, 0.0]], [1.0], [1.0], [[1.0, 0.0]]), "must not fit the data from the start"),
        (lambda: SweepPreset(alphas=(-1.0,)), "alphas must be positive"),
        (lambda: SweepPreset(shapes=(2.0,)), "shape must lie"),
        (
            lambda: sparse_regression(10, 5, noise=-1, rng=np.random.default_rng()),
            "noise must be finite and at least 0",
        ),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_one_neuron_has_no_spread() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((3, 8)), rng.standard_normal(3)
    assert dual_spread(X, y, *random_neurons(1, 8, 0.1, 0.3, rng=rng)) == 0


def test_presets_have_the_papers_sizes() -> None:
    paper = PRESETS["paper"]
    assert (paper.d, paper.n, paper.seeds, len(paper.alphas)) == (1000, 100, 50, 20)
    assert paper.shapes == (0, 0.5, 0.7, 0.9, 0.99)
    assert (paper.alphas[0], paper.alphas[-1]) == pytest.approx((1e-5, 10**-0.6))
    assert PRESETS["paper-gd"].descent
    assert PRESETS["paper-gd"].max_steps == 10_000_000


def test_shards_workers_and_a_straight_run_agree(tmp_path) -> None:
    straight = sweep_initialization_shape(SMALL)
    assert straight.shape == (3, 2, 3)
    for index in range(2):
        assert sweep_initialization_shape(SMALL, tmp_path, shard=(index, 2)) is None
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    np.testing.assert_array_equal(sweep_initialization_shape(SMALL, tmp_path), straight)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")} == written
    direct = population_errors(sparse_regression(40, 10, rng=np.random.RandomState(1993)), SMALL.alphas, SMALL.shapes)
    np.testing.assert_array_equal(straight[0], direct)
    # what is there is what more data sets begin with, and nothing to another sweep
    more = sweep_initialization_shape(replace(SMALL, seeds=4), tmp_path, jobs=2)
    np.testing.assert_array_equal(more[:3], straight)
    assert len(list(tmp_path.glob("*.npz"))) == 4
    assert not np.array_equal(sweep_initialization_shape(replace(SMALL, n=12), tmp_path), straight)


def test_the_papers_descent_comes_close_to_the_exact_limit(tmp_path) -> None:
    exact = replace(SMALL, alphas=(1e-2, 1e-1), shapes=(0.0,), seeds=1)
    descent = replace(exact, descent=True, tol=1e-6, max_steps=100_000)
    ours, theirs = sweep_initialization_shape(exact), sweep_initialization_shape(descent, tmp_path)
    np.testing.assert_allclose(theirs, ours, rtol=0.02)
    assert np.isnan(sweep_initialization_shape(replace(descent, max_steps=1), tmp_path)).all()


def test_command_line_runs_a_sweep(tmp_path) -> None:
    words = ["sweep", "initialization-shape", "--out", str(tmp_path), "--d", "40", "--n", "10", "--shapes", "0,0.9"]
    words += ["--alphas", "1e-4,1e-2,1,2"]
    done = CliRunner().invoke(app, [*words, "--shard", "0/2", "--seeds", "2"])
    assert done.exit_code == 0, done.output
    assert "the same command without --shard" in done.output
    done = CliRunner().invoke(app, [*words, "--seeds", "2"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[1].split() == ["s", "1.0e-04", "2.0e+00"]
    assert [line.split()[0] for line in done.output.splitlines()[2:]] == ["0.00", "0.90"]
    assert CliRunner().invoke(app, [*words, "--shard", "nonsense"]).exit_code == 2
