"""The live figures of chapter 03."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.explorer import Choice, Data, Explorer, Key, Panel, Slider, Try, axis, dots, heatmap, line, swatch
from lib.forgetting.planar import back_and_forth_angles, one_pass_angles, planar_curve, planar_tasks
from lib.forgetting.rates import (
    cyclic_bounds,
    dominating_rates,
    expected_curve,
    expected_loss,
    expected_loss_curve,
    random_bound,
)
from lib.forgetting.sequences import cyclic_ordering, fit_sequence, forgetting, random_ordering
from lib.forgetting.tasks import Array, TaskCollection, row_space
from lib.forgetting.two_tasks import two_task_distance, two_task_forgetting, two_task_worst_case
from lib.forgetting.worst_case import worst_case_forgetting

__all__ = ["AngleRidge", "BouncingPoint", "Catastrophe", "Orders"]

_LEFT, _RIGHT = (0.0, 0.41, 0.0, 1.0), (0.58, 1.0, 0.0, 1.0)  # of two panels, and of the room for ticks between
_SMALLEST = 1e-8
_WALK = (
    line("the weights", "vermilion", mode="lines+markers", width=1.2, marker_size=5, xy="path"),
    dots("start", "black", size=9, symbol="square", x=(0.0,), y=(0.0,)),
    dots("solves all tasks", "black", size=14, symbol="star", x=(1.0,), y=(0.0,)),
)


def _powers(title: str, lowest: int, highest: int, step: int = 1) -> dict[str, Any]:
    """A logarithmic axis; what is below its lowest power, zero too, is drawn there, and the tick says so."""
    powers = range(lowest, highest + 1, step)
    words = [f"{'≤' if power == lowest else ''}10<sup>{power}</sup>" if power else "1" for power in powers]
    limits = (lowest - 0.02 * (highest - lowest), highest + 0.3)
    return axis(title, limits, log=True, tickvals=[10.0**power for power in powers], ticktext=words)


def _plane(title: str, wide: Any, high: Any) -> Panel:
    return Panel(title, axis("weight 1", wide), axis("weight 2", high, constraintoward="top"), place=_LEFT, equal=True)


def _by_tasks(title: str, words: str, place: Any = _RIGHT) -> Panel:
    """What is lost, from `_SMALLEST` to 1, after so many tasks."""
    learnt = axis("tasks learnt k", Key("range"), log=True, tickvals=[1, 2, 5, 10, 30, 100, 300, 1000])
    return Panel(title, learnt, _powers(words, -8, 0, 2), place=place)


def _lines(turns: Array) -> Array:
    """Lines through (1, 0) at these angles, as points (3 n, 2) with gaps between them."""
    along = np.stack([np.cos(turns), np.sin(turns)], axis=-1)[:, None]
    return np.asarray((np.array([1.0, 0.0]) + along * np.array([[-4.0], [4.0], [np.nan]])).reshape(-1, 2))


class BouncingPoint(Explorer):
    """The weights move from the solutions of one task to those of the next."""

    name = "bouncing_point"
    with_gaps = ("first", "second", "others")
    title = "Learning one task after another: a point that bounces between lines"
    caption = (
        "Left: two weights. All points of a line solve one task, and the star solves all of them. Learning a task to "
        "the end takes the weights to the nearest point of its line. The star is put where most can be lost: on the "
        "line of task 1, at distance 1 from the start, so that task 1 is solved from the beginning. With more than two "
        "tasks each line is turned by θ against the one before, and the tasks are learnt in a cycle. Right, after each "
        "task learnt: forgetting F, the mean loss over the tasks learnt so far (blue), and the squared distance to the "
        "star (orange); what is below 10⁻⁸ is drawn there, such as F = 0 after the first task."
    )
    declared = {
        "theta": Slider("angle θ between tasks (degrees)", 0.0, 90.0, 0.5, 70.0, format=".1f"),
        "k": Slider("tasks learnt k", 1, 60, 1, 6),
        "T": Slider("different tasks T", 2, 8, 1, 2),
    }

    figure_layout = {"height": 480, "margin": {"b": 120}}
    panels = (
        _plane("the weights", Key("wide"), Key("high")),
        Panel(
            "F = {F:.3g}, distance² = {distance:.3g}",
            axis("tasks learnt k", (0, 61)),
            _powers("F, squared distance", -8, 0, 2),
            place=_RIGHT,
        ),
    )
    traces = (
        line("solves task 1", "sky", width=3, hover=False, xy="first"),
        line("solves task 2", "green", width=3, hover=False, xy="second"),
        line("solves a further task", "grey", width=1, hover=False, xy="others"),
        *_WALK,
        dots("now", "vermilion", size=12, xy="now"),
        line("forgetting F", "blue", mode="lines+markers", marker_size=5, panel=2, x="learnt", y="losses"),
        line("squared distance", "orange", mode="lines+markers", marker_size=5, panel=2, x="learnt", y="distances"),
    )

    tries = (
        Try(
            "45 degrees, each task once",
            {"theta": 45.0, "k": 2},
            "Task 1 was solved; after task 2 its loss is {first_loss:.3g}, so F = {F:.3g}. No angle loses more at one "
            "visit: compare 30 and 60 degrees.",
            lambda data: abs(data["F"] - 0.125) < 1e-12,
            not_at={"theta": 60.0, "k": 2},
        ),
        Try(
            "orthogonal",
            {"theta": 90.0, "k": 2},
            "The weights go to the star along the line of task 1: F = {F:.0f}, and the squared distance is "
            "{distance:.0f}.",
            lambda data: data["F"] < 1e-12 and data["distance"] < 1e-12,
            not_at={"theta": 45.0, "k": 2},
        ),
        Try(
            "nearly the same task",
            {"theta": 2.0, "k": 60},
            "After 60 tasks F is only {F:.2g}, and it never was more than {most:.2g}. But the weights have hardly "
            "moved: {distance:.2f} of the squared distance is left.",
            lambda data: data["most"] < 1e-3 and data["distance"] > 0.9,
            not_at={"theta": 45.0, "k": 60},
        ),
        Try(
            "eight tasks, each once",
            {"theta": 12.0, "k": 8, "T": 8},
            "Small turns lead the weights around the star: task 1 now has a loss of {first_loss:.2f}, and F = {F:.2f}, "
            "more than two tasks can ever lose (0.125).",
            lambda data: data["F"] > 0.25 and data["first_loss"] > 0.7,
            not_at={"theta": 12.0, "k": 8},
        ),
    )

    def compute(self, theta: float, k: int, T: int) -> Data:
        """The projections themselves, and the losses on the way."""
        turns = -np.radians(theta) * np.arange(T)
        tasks, order = TaskCollection(planar_tasks(turns), w_star=[1.0, 0.0]), cyclic_ordering(T, k)
        path, losses = fit_sequence(tasks, order), forgetting(tasks, order)
        distances = np.square(path[1:] - tasks.w_star).sum(axis=1)
        return {
            "first": _lines(turns[:1]),
            "second": _lines(turns[1:2]),
            "others": _lines(turns[2:]),
            "wide": (-0.1, 1.1) if T == 2 else (-0.15, 1.6),
            "high": (-0.4, 0.65) if T == 2 else (-0.45, 0.95),
            "path": path,
            "now": path[-1],
            "learnt": np.arange(1, k + 1),
            "losses": np.maximum(losses, _SMALLEST),
            "distances": np.maximum(distances, _SMALLEST),
            "F": float(losses[-1].round(15)),
            "most": float(losses.max()),
            "distance": float(distances[-1].round(15)),
            "first_loss": float(np.square(tasks.X[0] @ path[-1] - tasks.y[0]).sum()),
        }


_LOSS = "forgetting F"
_DISTANCE = "squared distance"
_ROWS = np.unique(2 * np.rint(np.geomspace(2, 200, 60) / 2).astype(int))
_COLUMNS = np.linspace(0, 90, 181)
_ANGLES = np.linspace(0, 90, 361)
_DEGREES = axis("angle θ (degrees)", (0, 90), dtick=15)
_HOVER = "θ %{x}°, k %{y}: 10^%{z:.2f}"
_SHADES = ("#EDF1F5", "#B9D3EA", "#5B9BD0", "#1F5FA8", "#08264D")


def _cut(theta: Array, k: int, what: str) -> Array:
    """Worst forgetting or distance of two tasks at these angles in degrees, at least 10^-6."""
    values = (two_task_forgetting if what == _LOSS else two_task_distance)(np.radians(theta), k)
    return np.maximum(values, 1e-6)


class AngleRidge(Explorer):
    """What two tasks lose, learnt alternately, at every angle and after any number of visits."""

    name = "ridge"
    may_be_absent = ("level", "peak")
    title = "Two tasks alternately: what is lost at which angle"
    caption = (
        "Left: forgetting F, or the squared distance to the joint solution, at worst over solutions of norm 1, for two "
        "tasks learnt alternately. Orange line: the angle at which most is forgotten after k tasks, cos²θ = (k − 1)/k. "
        "The dot is at the sliders' θ and k; a click moves it. Right: the row of the map at this k, and the one at "
        "k = 2; what is below 10⁻⁶ is drawn there."
    )
    declared = {
        "theta": Slider("angle θ (degrees)", 0.0, 90.0, 0.5, 20.0, format=".1f"),
        "k": Slider("tasks learnt k", 2, 200, 2, 4),
        "what": Choice("show", (_LOSS, _DISTANCE), _LOSS),
    }

    clicked = ("theta", "k")
    figure_layout = {"height": 460, "margin": {"b": 120}}
    panels = (
        Panel(
            "k = {k}: F is worst at {worst:.1f}°",
            _DEGREES,
            axis("tasks learnt k", (np.log10(2), np.log10(200)), log=True, tickvals=[2, 5, 10, 20, 50, 100, 200]),
            place=_LEFT,
        ),
        Panel("{value:.3g} at {theta:.1f}°", _DEGREES, _powers("{what}", -6, 0), place=_RIGHT),
    )
    traces = (
        heatmap("map", _SHADES, Key("low"), Key("high"), x=_COLUMNS, y=_ROWS, z="map", hover=_HOVER),
        line("worst angle for F", "orange", width=3, hover=False, x=np.degrees(np.arcsin(_ROWS**-0.5)), y=_ROWS),
        dots("here", "vermilion", size=12, x="theta", y="k"),
        line("k = 2", "grey", dash="dash", panel=2, x=_ANGLES, y="twice"),
        line("k = {k}", "blue", width=3, panel=2, x=_ANGLES, y="curve"),
        line("1/(2ek)", "black", dash="dot", width=1.5, panel=2, x=(0.0, 90.0), y="level"),
        dots("the most", "orange", size=17, symbol="circle-open", marker_line_width=3, panel=2, x="worst", y="peak"),
        dots("here", "vermilion", size=12, legend=False, panel=2, x="theta", y="here"),
        *(swatch(f"{{shades[{number}]}}", colour) for number, colour in enumerate(_SHADES)),
    )

    tries = (
        Try(
            "k = 2",
            {"theta": 45.0, "k": 2},
            "Each task once: most is lost at {worst:.0f} degrees, F = {most:.3f}; similar tasks and orthogonal ones "
            "lose little.",
            lambda data: abs(data["worst"] - 45) < 1e-9 and abs(data["F"] - 0.125) < 1e-12,
            not_at={"theta": 45.0, "k": 10},
        ),
        Try(
            "k = 100",
            {"theta": 5.5, "k": 100},
            "Now the worst angle is {worst:.2f} degrees, and even there F = {most:.5f}, just above "
            "1/(2ek) = {bound:.5f}.",
            lambda data: data["worst"] < 6 and data["bound"] < data["most"] < 1.02 * data["bound"],
            not_at={"theta": 5.5, "k": 2},
        ),
        Try(
            "45 degrees, k = 20",
            {"theta": 45.0, "k": 20},
            "At the angle that lost most at one visit F is now {F:.1g}; similar tasks are the worse ones, with up to "
            "{most:.2g} at {worst:.0f} degrees.",
            lambda data: data["F"] < 1e-6 and data["most"] > 1e4 * data["F"],
            not_at={"theta": 45.0, "k": 2},
        ),
        Try(
            "distance at 1 degree",
            {"theta": 1.0, "k": 100, "what": _DISTANCE},
            "After 100 tasks {distance:.2f} of the squared distance is left, although F is {F:.2g}. Towards 0 degrees "
            "the distance stays at 1.",
            lambda data: data["distance"] > 0.95 and data["F"] < 2e-4,
            not_at={"theta": 20.0, "k": 100, "what": _DISTANCE},
        ),
    )

    def compute(self, theta: float, k: int, what: str) -> Data:
        """Closed forms."""
        worst, most = two_task_worst_case(k)
        bound = 1 / (2 * math.e * k)
        loss = what == _LOSS
        F, distance = (float(each(np.radians(theta), k)) for each in (two_task_forgetting, two_task_distance))
        value = F if loss else distance
        return {
            "map": np.log10([_cut(_COLUMNS, count, what) for count in _ROWS.tolist()]),
            "low": -5 if loss else -4,
            "high": -1 if loss else 0,
            "shades": ("≤10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "≥0.1") if loss else ("≤10⁻⁴", "10⁻³", "10⁻²", "0.1", "1"),
            "what": what,
            "twice": _cut(_ANGLES, 2, what),
            "curve": _cut(_ANGLES, k, what),
            "level": bound if loss else np.nan,
            "peak": most if loss else np.nan,
            "here": max(value, 1e-6),
            "value": value,
            "theta": theta,
            "k": k,
            "F": F,
            "distance": distance,
            "worst": float(np.degrees(worst)),
            "most": most,
            "bound": bound,
        }


#: Angles (T,) of null directions, in radians, for k steps.
_FAMILIES: dict[str, Callable[[int, int, np.random.Generator], Array]] = {
    "even fan": lambda T, _k, _rng: np.linspace(0, np.pi / 3, T),
    "one-pass path": lambda T, _k, _rng: one_pass_angles(T),
    "there and back": lambda T, k, _rng: back_and_forth_angles(T, k),
    "random angles": lambda T, _k, rng: rng.uniform(0, np.pi, T),
    "identical": lambda T, _k, _rng: np.zeros(T),
}
_ORDERS: dict[str, Callable[[int, int, np.random.Generator], NDArray[np.int64]]] = {
    "cyclic": lambda T, k, _rng: cyclic_ordering(T, k),
    "random": random_ordering,
    "shuffled in each round": lambda T, k, rng: np.concatenate([rng.permutation(T) for _ in range(k // T)]),
}


class Catastrophe(Explorer):
    """Tasks in the plane, to be chosen so that they lose as much as can be."""

    name = "catastrophe"
    with_gaps = ("first", "last", "others", "turned")
    title = "Design your own catastrophe"
    caption = (
        "Left: the solutions of each task, a line, and the weights in the first two rounds (at most 60 steps), turned "
        "so that the line of the task learnt first is horizontal; the star solves all tasks. Right: forgetting F, at "
        "worst over solutions of norm 1, from the second task on; what is below 10⁻⁸ is drawn there. Dotted, from "
        "k = T² on: between these two lies the most that any T tasks in the plane lose in a cycle. There and back: the "
        "angles that lose most in a cycle of so many rounds, if these are many. One-pass path: those that lose most in "
        "one round."
    )
    declared = {
        "T": Slider("tasks T", 3, 30, 1, 8),
        "family": Choice("angles", tuple(_FAMILIES), "even fan"),
        "spread": Slider("angles times", 0.0, 2.0, 0.05, 1.0, format=".2f"),
        "order": Choice("order", tuple(_ORDERS), "cyclic"),
        "rounds": Slider("rounds", 1, 40, 1, 10),
        "seed": Slider("seed of what is random", 0, 20, 1, 0),
        "task": Slider("turn task number", 1, 30, 1, 1),
        "turn": Slider("by (degrees)", -90, 90, 1, 0),
    }

    figure_layout = {"height": 480, "margin": {"b": 135}}
    panels = (
        _plane("the lines span {span:.0f}°", (-0.1, 2.1), (-1.05, 1.05)),
        _by_tasks("after {k} tasks F = {last_loss:.3g}", "forgetting F"),
    )
    traces = (
        line("further tasks", "grey", width=0.8, hover=False, xy="others"),
        line("task 1", "sky", width=3, hover=False, xy="first"),
        line("task T", "green", width=3, hover=False, xy="last"),
        line("turned task", "purple", width=3, hover=False, xy="turned"),
        *_WALK,
        line("in a cycle", "orange", width=5, panel=2, x="learnt", y="cyclic"),
        line("in this order", "blue", mode="lines+markers", marker_size=4, panel=2, x="learnt", y="losses"),
        line("bounds, any tasks", "black", dash="dot", width=1.5, panel=2, x="ends", y="upper"),
        line("bounds, any tasks", "black", dash="dot", width=1.5, legend=False, panel=2, x="ends", y="lower"),
    )

    tries = (
        Try(
            "one pass, 30 tasks",
            {"T": 30, "family": "one-pass path", "rounds": 1},
            "Each task is learnt once, and F = {last_loss:.2f}, where no tasks can lose more than 1. With more tasks F "
            "goes to 1.",
            lambda data: data["last_loss"] > 0.6,
            not_at={"T": 30, "rounds": 1},
        ),
        Try(
            "the same, a second round",
            {"T": 30, "family": "one-pass path", "rounds": 2},
            "F falls from {once:.2f} after one round to {last_loss:.1g} after two: the first task is turned by "
            "{back:.0f} degrees against the last, and learning it again takes the weights close to the star.",
            lambda data: data["once"] > 0.6 and data["last_loss"] < 1e-4,
            not_at={"T": 30, "family": "there and back", "rounds": 40},
        ),
        Try(
            "in random order",
            {"T": 10, "family": "there and back", "rounds": 40, "order": "random"},
            "In a cycle these ten tasks lose F = {cyclic_loss:.2g}, close to the most that ten can lose in the plane; "
            "in this random order {last_loss:.1g}.",
            lambda data: 0 < data["last_loss"] < data["cyclic_loss"] / 5,
            not_at={"T": 10, "family": "there and back", "rounds": 40},
        ),
        Try(
            "identical but one",
            {"T": 10, "family": "identical", "rounds": 1, "task": 5, "turn": 45},
            "Nine equal tasks forget nothing; with task 5 turned by 45 degrees F = {last_loss:.3g}, all of it lost by "
            "that task.",
            lambda data: abs(data["last_loss"] - 0.0125) < 1e-9,
            not_at={"T": 10, "family": "identical", "rounds": 1},
        ),
    )

    def compute(
        self, *, T: int, family: str, spread: float, order: str, rounds: int, seed: int, task: int, turn: int
    ) -> Data:
        """The closed form in the plane, at up to 200 numbers of tasks; projections for the first steps."""
        k, rng = T * rounds, np.random.default_rng(seed)
        angles = spread * _FAMILIES[family](T, k, rng)
        angles[min(task, T) - 1] += np.radians(turn)
        sequence = _ORDERS[order](T, k, rng)
        losses, cyclic = planar_curve(angles, sequence), planar_curve(angles, cyclic_ordering(T, k))
        shown = np.unique(np.rint(np.geomspace(2, k, 200)).astype(int))
        turns = angles - angles[sequence[0]]
        few = sequence[: min(2 * T, 60)]
        ends = T * np.arange(T, rounds + 1)  # the theorem speaks of T rounds and more
        lower, upper = np.array([cyclic_bounds(T, end, 2, 1) for end in ends.tolist()]).reshape(-1, 2).T
        return {
            "first": _lines(turns[:1]),
            "last": _lines(turns[-1:]),
            "others": _lines(turns[1:-1]),
            "turned": _lines(turns[[min(task, T) - 1] if turn else []]),
            "path": fit_sequence(TaskCollection(planar_tasks(turns), w_star=[1.0, 0.0]), few),
            "learnt": shown,
            "losses": np.maximum(losses[shown - 1], _SMALLEST),
            "cyclic": np.maximum(cyclic[shown - 1], _SMALLEST),
            "ends": ends,
            "upper": upper,
            "lower": lower,
            "range": (0.25, float(np.log10(k)) + 0.05),
            "span": float(np.degrees(np.ptp(angles))),
            "back": float(np.degrees(abs(angles[-1] - angles[0]))),
            "k": k,
            "once": float(losses[T - 1]),
            "last_loss": float(losses[-1]),
            "cyclic_loss": float(cyclic[-1]),
        }


_RANDOM = "random subspaces"
_FAN = "there and back in the plane"


class Orders(Explorer):
    """A cycle, a random order, and steps that a penalty keeps short."""

    name = "orders"
    title = "In a cycle, at random, or with a penalty?"
    caption = (
        "Left: forgetting F in a cycle (blue), in one random order (grey) and on average over all random orders "
        "(green, exact), with the bound 9(d − r)/k (dotted), for one solution of norm 1: a random one, or in the plane "
        "the one that loses most in a cycle. Right: the loss over all tasks after k random tasks, on average over "
        "orders, at worst over solutions. Without a penalty (green), and with a penalty on moving away from the "
        "weights before: fixed, so that a step goes half of the way (purple), or growing, so that the last of k steps "
        "goes 1/k of the way (orange). Open circles: what the recursion guarantees. What is below 10⁻⁸ is drawn there."
    )
    declared = {
        "T": Slider("number of tasks T", 2, 8, 1, 5),
        "kind": Choice("tasks", (_RANDOM, _FAN), _RANDOM),
        "d": Slider("number of weights d", 2, 10, 1, 6),
        "rank": Slider("rank r of each task, below d", 1, 9, 1, 3),
        "k": Slider("tasks learnt k", 2, 100, 1, 5),
        "seed": Slider("seed", 0, 20, 1, 0),
    }

    figure_layout = {"height": 480, "margin": {"b": 135}}
    panels = (
        _by_tasks("F: cycle {cyclic_last:.2g}, random {random_last:.2g}", "forgetting F", _LEFT),
        _by_tasks("no penalty {free:.1g}, growing {grown:.1g}", "mean loss over all tasks"),
    )
    traces = (
        line("one random order", "grey", width=1, x="learnt", y="sampled"),
        line("random order, mean", "green", width=3, x="learnt", y="random"),
        line("cycle", "blue", width=3, x="learnt", y="cyclic"),
        line("9(d − r)/k", "black", dash="dot", width=1.5, x="learnt", y="bound"),
        line("no penalty", "green", width=3, panel=2, x="learnt", y="loss"),
        line("fixed penalty", "purple", width=2, panel=2, x="learnt", y="loss_fixed"),
        dots("growing penalty", "orange", size=9, panel=2, x="some", y="loss_grown"),
        dots("guaranteed, no penalty", "green", size=9, symbol="circle-open", panel=2, x="some", y="sure"),
        dots("guaranteed, growing", "orange", size=9, symbol="circle-open", panel=2, x="some", y="sure_grown"),
    )

    tries = (
        Try(
            "forty tasks",
            {"k": 40},
            "The cycle has forgotten {cyclic_last:.1g}, a random order {random_last:.1g}: it leaves some task "
            "unvisited for a long time.",
            lambda data: data["cyclic_last"] < data["random_last"] / 1000,
            not_at={"k": 5},
        ),
        Try(
            "tasks of the worst kind",
            {"kind": _FAN, "T": 8, "k": 96},
            "Now the cycle forgets {cyclic_last:.2g}, and a random order {random_last:.2g}: neighbours in the cycle "
            "differ little, and random jumps are larger, which shortens the error faster.",
            lambda data: data["cyclic_last"] > 5 * data["random_last"],
            not_at={"T": 8, "k": 96},
        ),
        Try(
            "a penalty that helps",
            {"kind": _FAN, "T": 3, "k": 96},
            "On these tasks the growing penalty leaves a loss of {grown:.2g}, no penalty {free:.2g}.",
            lambda data: data["grown"] < 0.9 * data["free"],
            not_at={"T": 3, "k": 96},
        ),
        Try(
            "a penalty that hurts",
            {"k": 60},
            "On five random tasks no penalty reaches {free:.1g}, the growing one only {grown:.1g}: steps cut short for "
            "the worst case waste what easy tasks offer.",
            lambda data: data["grown"] > 100 * data["free"],
            not_at={"kind": _FAN, "T": 3, "k": 60},
        ),
        Try(
            "far below the bound",
            {"d": 10, "rank": 1, "k": 100},
            "9(d − r)/k is {bound_last:.2g}, and a random order forgets {random_last:.2g}: the bound covers the "
            "worst tasks of this rank.",
            lambda data: data["random_last"] < 0.01 * data["bound_last"],
            not_at={"kind": _FAN, "T": 2, "k": 100},
        ),
    )

    def compute(self, *, kind: str, T: int, d: int, rank: int, k: int, seed: int) -> Data:
        """Exact means over orders; for the growing penalty each number of tasks is a recursion of its own."""
        rng = np.random.default_rng(seed)
        cycle = cyclic_ordering(T, k)
        if kind == _FAN:
            bases = [row_space(rows) for rows in planar_tasks(back_and_forth_angles(T, k))]
            star = worst_case_forgetting(bases, cycle)[1]
        else:
            bases = [np.linalg.qr(rng.standard_normal((d, min(rank, d - 1)))).Q for _ in range(T)]
            star = rng.standard_normal(d)
            star /= np.linalg.norm(star)
        tasks = TaskCollection([basis.T for basis in bases], w_star=star)
        size, each = bases[0].shape
        spectrum = np.linalg.eigvalsh(np.mean([basis @ basis.T for basis in bases], axis=0)).clip(0, 1)
        some = np.unique(np.rint(np.geomspace(max(1, k / 32), k, 6)).astype(int))
        plans = [np.arange(count, 0, -1) / count for count in some.tolist()]
        bound = np.array([random_bound(count, size, each) for count in range(1, k + 1)])
        curves = {
            "cyclic": forgetting(tasks, cycle),
            "random": expected_curve(bases, k, star),
            "sampled": forgetting(tasks, random_ordering(T, k, rng)),
            "bound": bound,
            "loss": expected_loss_curve(bases, k),
            "loss_fixed": expected_loss_curve(bases, k, 0.5),
            "loss_grown": np.array([expected_loss(bases, len(plan), plan) for plan in plans]),
            "sure": np.array([dominating_rates(spectrum, len(plan)) for plan in plans]),
            "sure_grown": np.array([dominating_rates(spectrum, len(plan), plan) for plan in plans]),
        }
        return {
            **{name: np.maximum(curve, _SMALLEST) for name, curve in curves.items()},
            "learnt": np.arange(1, k + 1),
            "some": some,
            "range": (-0.03, float(np.log10(k)) + 0.05),
            "cyclic_last": float(curves["cyclic"][-1]),
            "random_last": float(curves["random"][-1]),
            "bound_last": float(bound[-1]),
            "free": float(curves["loss"][-1]),
            "grown": float(curves["loss_grown"][-1]),
        }
