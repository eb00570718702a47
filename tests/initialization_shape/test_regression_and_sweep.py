"""Data, and the sweep over scales and shapes."""

import numpy as np
import pytest
from joblib import parallel_config
from typer.testing import CliRunner

from lib.__main__ import app
from lib.initialization_shape import (
    PRESETS,
    SweepPreset,
    digits_regression,
    least_l1_interpolator,
    load_sweep,
    population_errors,
    random_neurons,
    run_sweep,
    sparse_regression,
)
from lib.initialization_shape import sweep as sweep_module
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
        (lambda: sparse_regression(10, 0, rng=np.random.default_rng()), "n must be at least 1"),
        (
            lambda: sparse_regression(10, 5, noise=-1, rng=np.random.default_rng()),
            "noise must be finite and at least 0",
        ),
        (lambda: digits_regression(52, rng=np.random.default_rng()), "n must be below the number of pixels"),
        (lambda: least_l1_interpolator([[0.0, 0.0]], [1.0]), "no interpolator was found"),
        (lambda: random_neurons(0, 3, 1.0, 0.0, rng=np.random.default_rng()), "count must be at least 1"),
        (lambda: dual_spread([[1.0, 0.0]], [1.0], [1.0], [[1.0, 0.0]], t_max=1e-6), "did not fit the data"),
        (lambda: run_sweep("nonsense", "."), "preset must be one of quick"),
        (lambda: run_sweep(SMALL, ".", shard=(2, 2)), "shard must be"),
        (lambda: run_sweep(SMALL, ".", seeds=0), "seeds must be at least 1"),
        (lambda: SweepPreset(alphas=(-1.0,)), "alpha must be positive"),
        (lambda: SweepPreset(shapes=(2.0,)), "shape must lie"),
        (lambda: sparse_regression(10, 5, noise=np.inf, rng=np.random.default_rng(0)), "noise must be finite"),
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
    assert (paper.d, paper.n, paper.seeds, len(paper.alphas), paper.shapes) == (
        1000,
        100,
        50,
        20,
        (0, 0.5, 0.7, 0.9, 0.99),
    )
    assert paper.alphas[0] == pytest.approx(1e-5)
    assert paper.alphas[-1] == pytest.approx(10**-0.6)
    assert PRESETS["paper-gd"].descent
    assert PRESETS["paper-gd"].max_steps == 10_000_000


def test_shards_workers_and_a_straight_run_agree(tmp_path) -> None:
    straight = load_sweep(run_sweep(SMALL, tmp_path / "straight"), SMALL)
    assert straight.shape == (3, 2, 3)
    for index in range(2):
        run_sweep(SMALL, tmp_path / "shards", shard=(index, 2))
    np.testing.assert_array_equal(load_sweep(tmp_path / "shards", SMALL), straight)
    direct = population_errors(sparse_regression(40, 10, rng=np.random.RandomState(1993)), SMALL.alphas, SMALL.shapes)
    np.testing.assert_array_equal(straight[0], direct)


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_surrounding_configuration_decides_where_the_work_runs(backend: str, tmp_path) -> None:
    with parallel_config(backend=backend, n_jobs=2):
        run_sweep(SMALL, tmp_path / backend)
    straight = load_sweep(run_sweep(SMALL, tmp_path / "straight"), SMALL)
    np.testing.assert_array_equal(load_sweep(tmp_path / backend, SMALL), straight)


def test_loading_leaves_folders_alone_and_names_damaged_pieces(tmp_path) -> None:
    with pytest.raises(ValueError, match="3 of 3 pieces are missing"):
        load_sweep(tmp_path / "typo", SMALL)
    assert not (tmp_path / "typo").exists()
    run_sweep(SMALL, tmp_path)
    (tmp_path / "seed_001.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"seed_001.npz is damaged"):
        load_sweep(tmp_path, SMALL)


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, monkeypatch) -> None:
    done: list[int] = []
    original = sweep_module._exact_unit

    def interrupted(preset, seed, path) -> None:
        if seed == 1 and len(done) == 1:
            done.append(-1)
            raise KeyboardInterrupt
        original(preset, seed, path)
        done.append(seed)

    monkeypatch.setattr(sweep_module, "_exact_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(SMALL, tmp_path)
    with pytest.raises(ValueError, match="2 of 3 pieces are missing"):
        load_sweep(tmp_path, SMALL)
    run_sweep(SMALL, tmp_path)
    assert done == [0, -1, 1, 2]
    assert load_sweep(tmp_path, SMALL).shape == (3, 2, 3)


def test_a_folder_does_not_mix_two_sweeps(tmp_path) -> None:
    run_sweep(SMALL, tmp_path, seeds=1)
    run_sweep(SMALL, tmp_path, seeds=2)
    with pytest.raises(ValueError, match="folder must be new"):
        run_sweep("quick", tmp_path)


def test_the_papers_descent_comes_close_to_the_exact_limit(tmp_path) -> None:
    from dataclasses import replace

    exact = replace(SMALL, alphas=(1e-2, 1e-1), shapes=(0.0,), seeds=1)
    descent = replace(exact, descent=True, stop_mse=1e-8, max_steps=100_000)
    ours = load_sweep(run_sweep(exact, tmp_path / "exact"), exact)
    theirs = load_sweep(run_sweep(descent, tmp_path / "descent", jobs=2), descent)
    np.testing.assert_allclose(theirs, ours, rtol=0.02)
    short = replace(descent, max_steps=1)
    assert np.isnan(load_sweep(run_sweep(short, tmp_path / "short"), short)).all()


def test_command_line_runs_a_sweep_and_refuses_bad_words(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", SMALL)
    words = ["sweep", "initialization-shape", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*words, "--seeds", "2"])
    assert done.exit_code == 0, done.output
    assert "mean test error" in done.output
    assert CliRunner().invoke(app, [*words, "--shard", "0/2"]).exit_code == 0
    assert CliRunner().invoke(app, [*words, "--shard", "nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, [*words, "--preset", "nonsense"]).exit_code == 2


def test_numpys_integers_are_integers() -> None:
    preset = SweepPreset(d=np.int64(40), alphas=np.array([0.1]))
    assert preset == SweepPreset(d=40, alphas=(0.1,))
    assert repr(preset) == repr(SweepPreset(d=40, alphas=(0.1,)))
    with pytest.raises(TypeError, match="alphas must hold real numbers"):
        SweepPreset(alphas="abc")
