"""What coarse maps lose, what a network that was trained through the solver gets back, and where that ends."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from lib.claims import Evidence, at_least, at_most, claim, combine, true_that, within
from lib.flood.downsampler import FeatureDownsampler, ReliefScale
from lib.flood.experiment import PRESETS, SHIPPED, coarse_solver, held_out, trained_network
from lib.flood.learning import CoarseResult, coarse_floods, descend_coarse_maps, train_downsampler
from lib.flood.metrics import flood_metrics
from lib.flood.pooling import Pooling, pool_dem
from lib.flood.scenarios import CELL, FloodDataset, Forcing, Kind, draw_floods, solution_cache
from lib.flood.solver import LocalInertialSolver
from lib.flood.wall import leak
from lib.validation import finite_array, finite_number, finite_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Maps on which the cost of a flood is counted.
_COUNTED = 8
_HELD_OUT = "48 maps of the region kept for tests, 128 x 128 cells of 8 m, half an hour"


def solver_of(factor: int) -> LocalInertialSolver:
    return LocalInertialSolver(dx=CELL * factor, h_cfl_min=0.05)


def pooled(how: Pooling, kind: Kind, factor: int) -> CoarseResult:
    """The held-out floods on pooled maps."""
    return coarse_floods(how, held_out(kind), solver_of(factor), factor=factor)


def learnt(name: str, kind: Kind) -> CoarseResult:
    """The held-out floods on the maps of a network that ships with the package."""
    return coarse_floods(trained_network(name).model, held_out(kind), coarse_solver(SHIPPED[name]))


def _errors(floods: CoarseResult) -> Tensor:
    """Mean square error [m^2] of each map."""
    return (floods.h - floods.truth).square().mean((1, 2))


def _error(floods: CoarseResult) -> float:
    """Mean square error [m^2]."""
    return float(_errors(floods).mean())


def _ratio(floods: CoarseResult, others: CoarseResult) -> tuple[float, float, float]:
    """Mean square error over another one's, and the ends of its 95 % interval over which maps one happens to test."""
    ours, theirs = _errors(floods), _errors(others)
    drawn = torch.randint(len(ours), (2000, len(ours)), generator=torch.Generator().manual_seed(0))
    ratios = ours[drawn].mean(1) / theirs[drawn].mean(1)
    low, high = torch.quantile(ratios, torch.tensor([0.025, 0.975])).tolist()
    return float(ours.mean() / theirs.mean()), low, high


def _best_pooling(kind: Kind, factor: int) -> CoarseResult:
    found = [pooled(how, kind, factor) for how in get_args(Pooling)]
    return found[_best([_error(each) for each in found])]


def _best(errors: list[float]) -> int:
    """Where the least error stands; next to a NaN nothing is the best."""
    return int(finite_array("errors", errors).argmin())


def _beats(floods: CoarseResult, others: CoarseResult) -> NDArray[np.float64]:
    """1 for each map on which they are better, 0 where not, and NaN where an error is: no comparison would tell."""
    return np.asarray(np.heaviside((_errors(others) - _errors(floods)).double().numpy(), 0.0))


@claim(
    source="derived here; why the paper learns a coarse map",
    statement="A wall two cells wide holds the water on the fine map. On the mean of blocks of eight it leaks, on the "
    "minimum it is gone, on the maximum it holds.",
)
def averages_leak() -> Evidence:
    share = {rule: float(leak(rule, [600.0]).share[0]) for rule in (None, "mean", "min", "max")}
    return combine(
        at_most(share[None], 1e-6, label="fine", shown="0"),
        at_least(share["mean"], 0.05, label="mean"),
        at_least(share["min"], 0.2, label="min"),
        at_most(share["max"], 1e-6, label="max", shown="0"),
        remark="part of the water behind the wall after ten minutes",
    )


@claim(
    source="derived here, on the same plain",
    statement="Keeping the wall is not enough: the maximum makes it two dry blocks of 8 cells wide, and its depths are "
    "wrong too, though by less.",
)
def maximum_keeps_the_wall_at_a_price() -> Evidence:
    times = [1800.0]
    fine = pool_dem(leak(None, times).h[-1], 8)
    error = {rule: float((leak(rule, times).h[-1] - fine).square().mean()) for rule in ("mean", "min", "max")}
    return combine(
        within(error["max"], 0.43, 0.455, label="max [m²]"),
        within(error["mean"], 0.89, 0.915, label="mean [m²]"),
        within(error["min"], 0.88, 0.905, label="min [m²]"),
        remark="mean square error of the depth after half an hour",
    )


@claim(
    source="baselines of the paper's code and ours",
    statement="No pooling is best: the minimum for rain, the mean (or its edge-preserving kin) for a river.",
)
def best_pooling_depends_on_the_flood() -> Evidence:
    names = get_args(Pooling)
    error = {(how, kind): _error(pooled(how, kind, 8)) for how in names for kind in ("rain", "inflow")}
    best = {kind: names[_best([error[how, kind] for how in names])] for kind in ("rain", "inflow")}
    return combine(
        true_that("the minimum is best for rain", best["rain"] == "min"),
        within(error["mean", "rain"], 0.0015, 0.0019, label="error of the mean [m²]"),
        at_most(error["min", "rain"] / error["mean", "rain"], 0.92, label="min over mean", shown="< 0.92"),
        true_that("the mean or its edge-preserving kin for the river", best["inflow"] in ("mean", "bilateral")),
        at_least(error["min", "inflow"] / error["mean", "inflow"], 1.4, label="min over mean"),
        remark=f"mean square errors at factor 8; {_HELD_OUT}",
    )


@claim(
    source="the paper's main result, in its setting, at our size",
    statement="A network trained through the solver draws coarse maps of a region that it has never seen, on which the "
    "water is, on average over maps, nearer to the fine solution than on those of any pooling.",
    paper="see its tables (LiDAR maps, factor 16)",
)
def learnt_maps_win() -> Evidence:
    found = learnt("rain", "rain")
    mean = pooled("mean", "rain", 16)
    efficiency = [flood_metrics(each.h, each.truth)["nse"] for each in (found, mean)]
    _, _, high = _ratio(found, _best_pooling("rain", 16))
    return combine(
        at_most(high, 0.4, label="error over best pooling's", shown="< 0.4"),
        at_most(_error(found), 0.0006, label="error [m²]", shown="< 0.0006"),
        at_least(efficiency[0], 0.6, label="Nash-Sutcliffe efficiency"),
        at_most(efficiency[1], 0.1, label="of the mean", shown="< 0.1"),
        at_least(_beats(found, mean).mean(), 0.9, label="part of maps where it beats the mean"),
        remark=f"rain, factor 16, upper end of a 95 % interval over maps; trained on 128 maps of another region; "
        f"{_HELD_OUT}",
    )


@lru_cache(maxsize=1)
def training_maps() -> FloodDataset:
    """The first floods that the presets train on."""
    preset = PRESETS["quick"]
    assert preset.count is not None
    return draw_floods(preset.count, seed=preset.data_seed, folder=solution_cache())


@lru_cache(maxsize=2)
def best_relief(factor: int) -> float:
    """The number by which the relief of block means should be multiplied, for the least error on training maps."""
    from scipy.optimize import minimize_scalar

    data, solver = training_maps(), solver_of(factor)

    def error(relief: float) -> float:
        # the search would go on from a NaN as if nothing had been found there
        return finite_number("error", _error(coarse_floods(ReliefScale(factor, relief), data, solver)))

    # a third digit of it changes nothing
    return round(float(minimize_scalar(error, bounds=(0.0, 1.2), method="bounded", options={"xatol": 0.005}).x), 2)


def flattened(kind: Kind, factor: int) -> CoarseResult:
    """The held-out floods on block means with that relief."""
    return coarse_floods(ReliefScale(factor, best_relief(factor)), held_out(kind), solver_of(factor))


@claim(
    source="derived here",
    statement="Most of that gain is one number: block means with about a quarter of their relief, a number that is "
    "chosen on training maps as well, do nearly as well in rain. The network gains more on top of it.",
)
def one_number_explains_most_of_it() -> Evidence:
    flat, network = flattened("rain", 16), learnt("rain", "rain")
    _, _, over_pooling = _ratio(flat, _best_pooling("rain", 16))
    _, _, on_top = _ratio(network, flat)
    _, _, on_top_8 = _ratio(learnt("rain-factor8", "rain"), flattened("rain", 8))
    means = pool_dem(held_out("rain").z, 16).flatten()
    explained = float(torch.corrcoef(torch.stack([network.z.flatten(), means]))[0, 1]) ** 2
    return combine(
        within(best_relief(16), 0.15, 0.4, label="relief kept", digits=1),
        at_most(over_pooling, 0.5, label="its error over best pooling's", shown="< 0.5"),
        at_least(explained, 0.9, label="R² of its heights and the means"),
        at_most(on_top, 0.95, label="network's error over its", shown="< 0.95"),
        at_most(on_top_8, 0.9, label="at factor 8", shown="< 0.9"),
        remark=f"rain; upper ends of 95 % intervals over maps; chosen on 48 maps; {_HELD_OUT}",
    )


@lru_cache(maxsize=1)
def trained_here() -> tuple[float, float]:
    """Errors [m^2] of a small network trained on the spot, and of mean pooling, on its test maps."""
    preset, solver = PRESETS["quick"], coarse_solver("quick")
    model = FeatureDownsampler(preset.factor, generator=torch.Generator().manual_seed(preset.seed))
    train_downsampler(model, training_maps(), solver, preset)
    test = held_out("rain").part(slice(preset.test_count))
    return _error(coarse_floods(model, test, solver)), _error(coarse_floods("mean", test, solver, factor=preset.factor))


@claim(
    source="derived here",
    statement="A network that sees nine numbers of each block beats the mean after seconds of training, by less.",
)
def passes_and_quantiles_help() -> Evidence:
    error, mean = trained_here()
    return combine(
        at_most(error / mean, 0.88, label="error over the mean's", shown="< 0.88"),
        remark="trained here on 48 maps, tested on 16 of the other region; rain, factor 16",
    )


@claim(
    source="derived here",
    statement="What was learnt from rain does not carry over to rivers: there the network's maps are, on average, "
    "worse than plain averages, and so is the flattened ground.",
)
def rain_does_not_carry_over_to_rivers() -> Evidence:
    mean = pooled("mean", "inflow", 16)
    return combine(
        at_least(_ratio(learnt("rain", "inflow"), mean)[1], 1.05, label="network's error over the mean's"),
        at_least(_ratio(flattened("inflow", 16), mean)[1], 1.05, label="flattened ground's"),
        remark=f"rivers, factor 16; lower ends of 95 % intervals over maps; {_HELD_OUT}",
    )


@claim(
    source="derived here; the scheme is explicit",
    statement="A map coarsened by a factor needs about its third power fewer updates of cells: there are fewer cells, "
    "and steps are longer.",
)
def cost_falls_with_the_cube() -> Evidence:
    few = held_out("rain").part(slice(_COUNTED))
    fine = _updates(few.z, few.forcing, 1)
    parts = []
    for factor in (8, 16):
        ratio = fine / _updates(pool_dem(few.z, factor), few.forcing, factor)
        parts.append(within(ratio / factor**3, 0.5, 2.5, label=f"factor {factor}: updates saved over {factor}³"))
    return combine(*parts, remark=f"cell updates of half an hour of rain on {_COUNTED} maps")


def _updates(z: Tensor, forcing: Forcing, factor: int) -> float:
    """Cells times steps of a flood."""
    result = solver_of(factor).simulate(z, forcing.duration, rain=forcing.rain[:, None, None], backend="compiled")
    finite_tensor("depths", result.h)  # what diverges takes steps, too
    return float(result.steps.sum()) * z[0].numel()


@claim(
    source="derived here",
    statement="One coarse map, moved by gradients for one flood alone, gets rid of much of the error: how far a "
    "single map can go.",
)
def one_map_can_go_far() -> Evidence:
    few = held_out("rain").part(slice(16))
    errors = descend_coarse_maps(few, solver_of(8), factor=8, iterations=20).errors
    best = errors.amin(0)
    return combine(
        at_most(best.mean() / errors[0].mean(), 0.6, label="error left", shown="< 0.6"),
        true_that("every map got better", best < errors[0]),
        remark="rain, factor 8, 16 maps, 20 iterations from the mean",
    )


@claim(
    source="derived here",
    statement="A network trained on rain and on rivers, by errors relative to each flood, serves both: on average over "
    "maps it is better than every pooling in rain, and a little better in rivers, though not on every map.",
)
def training_on_both_serves_both() -> Evidence:
    found, best = learnt("mixed", "inflow"), _best_pooling("inflow", 16)
    return combine(
        at_most(_ratio(learnt("mixed", "rain"), _best_pooling("rain", 16))[2], 0.7, label="rain", shown="< 0.7"),
        at_most(_ratio(found, best)[2], 1.0, label="rivers", shown="< 1"),
        within(_beats(found, best).mean(), 0.5, 0.75, label="part of the river maps where it is better", digits=1),
        remark=f"error over best pooling's, factor 16, upper ends of 95 % intervals over maps; trained on 256 maps of "
        f"another region; {_HELD_OUT}",
    )
