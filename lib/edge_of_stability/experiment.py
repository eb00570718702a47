"""The experiment on networks, from a laptop's seconds to the setting of the literature: descend, then look.

Full-batch gradient descent keeps its weights every so many steps; the gradient flow solution is looked for from each
of them. Descent may run on several devices under `accelerate launch`, each with its share of the examples. The loss
is `half_mean_square` everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import takewhile
from math import isnan, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.checkpoints import checkpoint_steps, claim_experiment, held_experiment, load_checkpoint, save_checkpoint
from lib.datasets import cifar10, digits, fashion_mnist, standardized
from lib.edge_of_stability.networks import GFSMonitor, half_mean_square
from lib.experiment import Count, Pieces, Positive, Preset, Run, Seed, named
from lib.files import atomic_path, input_folder, output_folder
from lib.models import fully_connected, small_convnet
from lib.progress import progress
from lib.training import processes, reproducible
from lib.validation import job_count, known_device

__all__ = ["PRESETS", "EdgePreset", "EdgeRun", "edge_task", "train_edge_of_stability"]

#: Shapes of images, and numbers of outputs.
_SHAPES = {"digits": (1, 8, 8), "fashion": (1, 28, 28), "cifar10": (3, 32, 32)}
_OUTPUTS = {"digits": 1, "fashion": 1, "cifar10": 10}


@dataclass(frozen=True)
class EdgePreset(Preset):
    """A network, its data, and how to train and look at it.

    Attributes:
        data: `"digits"` (above four or not), `"fashion"` (pullover or coat) with targets of 1 and -1, or `"cifar10"`
            with one output a class.
        count: The first so many images.
        architecture: `"fully-connected"` or `"convnet"`.
        widths: Sizes of all layers, or channels of the image and of each block of convolutions.
        edge: The value of 2 / eta; where `relative`, in units of the initial GFS sharpness.
        relative: Whether `edge` is relative.
        n_steps: Steps of descent.
        every: Steps between two checkpoints, from which the flow solution is looked for.
        method, rtol: Of the integration of gradient flow, as in `integrate_gradient_flow`.
        tol: Loss at which gradient flow has arrived.
        dtype: Of descent; the flow is always integrated in float64.
        seed: Of the initial weights.
    """

    data: Literal["digits", "fashion", "cifar10"]
    count: Count
    architecture: Literal["fully-connected", "convnet"]
    widths: tuple[Count, ...]
    edge: Positive
    relative: bool = True
    n_steps: Count = 400
    every: Count = 20
    method: Literal["etd", "rk4"] = "etd"
    tol: Positive = 1e-4
    rtol: Positive = 3e-3
    dtype: Literal["float32", "float64"] = "float64"
    seed: Seed = 0

    def check(self) -> None:
        """Refuse layers that do not fit the data."""
        if self.architecture == "fully-connected":
            size, outputs = prod(_SHAPES[self.data]), _OUTPUTS[self.data]
            if self.widths[0] != size:
                raise ValueError(f"widths must begin with {size}, the size of an image; it is {self.widths}")
            if self.widths[-1] != outputs:
                raise ValueError(f"widths must end with {outputs}, the number of outputs; it is {self.widths}")


_PAPER = EdgePreset(
    "cifar10", 5000, "fully-connected", (3072, 200, 200, 10), 50.0, False, 5000, 100, "rk4", 1e-3, 1e-2, "float32"
)

#: Settings by name. `quick` takes seconds and `laptop` a minute or two; the `paper` ones are for a GPU.
PRESETS = {
    "quick": EdgePreset("digits", 50, "fully-connected", (64, 8, 1), 0.75),
    "laptop": EdgePreset("fashion", 100, "fully-connected", (784, 16, 1), 0.75),
    "laptop-convnet": EdgePreset("fashion", 60, "convnet", (1, 4, 8), 0.75, n_steps=800, every=100),
    "paper": _PAPER,
    "paper-convnet": replace(_PAPER, architecture="convnet", widths=(3, 32, 32)),
}


def edge_task(
    preset: str | EdgePreset, data_path: str | Path | None = None
) -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    """The network of a preset at its initial weights, and its inputs and targets.

    `data_path` is the folder of data that do not ship with the package.

    Examples:
        >>> model, (inputs, targets) = edge_task("quick")
        >>> inputs.shape, targets.shape
        (torch.Size([50, 1, 8, 8]), torch.Size([50, 1]))
    """
    settings = named(preset, PRESETS)
    images, targets = (torch.from_numpy(part) for part in _data(settings, data_path))
    dtype = getattr(torch, settings.dtype)
    return EdgeRun.network(settings, {}), (images.to(dtype), targets.to(dtype))


def _data(preset: EdgePreset, path: str | Path | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if preset.data == "cifar10":
        if path is None:
            raise ValueError("data_path must name the folder of CIFAR-10's binary version")
        input_folder("data_path", path)
        pictures, classes = cifar10(path, count=preset.count)
        return standardized(pictures, per_channel=True), np.eye(10)[classes]
    if preset.data == "digits":
        if path is not None:
            raise ValueError("data_path must be None for the digits, which come with scikit-learn")
        all_images, labels = digits()
        chosen, signs = all_images[: preset.count], labels[: preset.count] >= 5
    else:
        clothes, kinds = fashion_mnist(path=path)
        pair = np.flatnonzero((kinds == 2) | (kinds == 4))[: preset.count]
        chosen, signs = clothes[pair].astype(np.float64), kinds[pair] == 4
    if len(chosen) < preset.count:
        raise ValueError(f"count must be at most {len(chosen)}; it is {preset.count}")
    return standardized(chosen)[:, None], np.where(signs, 1.0, -1.0)[:, None]


@dataclass(frozen=True)
class EdgeRun(Run):
    """A descent, and the flow solution as seen from its checkpoints.

    Attributes:
        scores: Sharpness of the gradient flow solution (`gfs_sharpness`) from `steps` (T,); NaN where gradient flow did
            not reach its tolerance.
        diverged: Whether descent stopped because its loss was a millionfold that of the start, or not finite.
        eta: Step size.
        steps: Steps at which the flow solution was looked for (T,).
        loss, sharpness: At these steps (T,).
    """

    preset: EdgePreset
    eta: float
    steps: NDArray[np.int64]
    loss: NDArray[np.float64]
    sharpness: NDArray[np.float64]

    preset_class = EdgePreset

    @property
    def gfs_sharpness(self) -> NDArray[np.float64]:
        """The scores."""
        return self.scores

    @staticmethod
    def network(preset: Any, _: dict[str, Any]) -> nn.Sequential:
        """The network of a preset, at its initial weights."""
        generator = torch.Generator().manual_seed(preset.seed)
        if preset.architecture == "convnet":
            side = _SHAPES[preset.data][-1]
            model = small_convnet(preset.widths, _OUTPUTS[preset.data], size=side, generator=generator)
        else:
            model = fully_connected(preset.widths, generator=generator)
        return model.to(getattr(torch, preset.dtype))

    def lines(self) -> list[str]:
        """Step size, and sharpnesses over time."""
        rises = int((self.losses[1:] > self.losses[:-1]).sum())
        rows = zip(self.steps, self.loss, self.eta * self.sharpness, self.eta * self.scores, strict=True)
        return [
            f"eta = {self.eta:.4g}, 2/eta = {2 / self.eta:.4g}; {rises} rises",
            "    step       loss   eta * sharpness   eta * GFS sharpness",
            *(f"{step:8d}   {loss:8.2e}   {sharp:15.3f}   {phi:19.3f}" for step, loss, sharp, phi in rows),
        ]


def train_edge_of_stability(
    preset: str | EdgePreset,
    folder: str | Path,
    *,
    data_path: str | Path | None = None,
    device: str = "cpu",
    jobs: int | None = None,
) -> EdgeRun:
    """Train by full-batch gradient descent, keep checkpoints, and look at the flow solution from each.

    Args:
        folder: Where everything goes; what is there already is not done again. More or fewer steps are the same
            experiment.
        data_path: As in `edge_task`.
        jobs: Processes that look for flow solutions; None leaves it to a surrounding `joblib.parallel_config`.

    Examples:
        >>> import tempfile
        >>> short = replace(PRESETS["quick"], count=10, n_steps=4, every=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = train_edge_of_stability(short, folder)
        >>> run.steps, len(run.losses)
        (array([0, 2, 4]), 4)
    """
    settings = named(preset, PRESETS)
    known_device(device)
    job_count(jobs)
    folder = output_folder("folder", folder)
    looks = _descend(settings, folder, data_path, device)
    identity = _identity(settings)
    reached = _reached(folder, settings.n_steps)
    work = [({**identity, "step": step}, (settings, folder, step, data_path, device)) for step in reached]
    found = Pieces(folder / "flow").compute(_look, work if looks else [], "flow solutions", jobs=jobs)
    until = _divergence(folder, settings.n_steps)
    model = EdgeRun.network(settings, {}).eval()
    losses: list[float] = []
    if reached:
        state = load_checkpoint(folder, reached[-1])
        model.load_state_dict(state["model"])
        losses = state["losses"]
    columns = {name: np.array([row[name] for row in found]) for name in ("loss", "sharpness", "gfs_sharpness")}
    return EdgeRun(
        model,
        np.array(until or losses),
        columns.pop("gfs_sharpness"),
        until is not None,
        settings,
        eta=float((held_experiment(folder, identity) or {})["eta"]),
        steps=np.array(reached[: len(found)], dtype=np.int64),
        **columns,
    )


def _identity(settings: EdgePreset) -> dict[str, Any]:
    """What makes an experiment another one: everything but its length."""
    return replace(settings, n_steps=1).record()


def _measured(settings: EdgePreset, model: nn.Module, data: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Loss, sharpness and GFS sharpness of the present weights."""
    flow: dict[str, Any] = {"method": settings.method, "tol": settings.tol, "rtol": settings.rtol}
    monitor = GFSMonitor(1, model, half_mean_square, data, **flow)
    monitor(0)
    return {name: getattr(monitor, name)[0] for name in ("loss", "sharpness", "gfs_sharpness")}


def _step_size(
    settings: EdgePreset, model: nn.Module, data: tuple[Tensor, Tensor]
) -> tuple[float, dict[str, float] | None]:
    """The step size that puts `2 / eta` where the preset wants it, and what was measured for that at the start."""
    if not settings.relative:
        return 2 / settings.edge, None
    start = _measured(settings, model, data)
    if isnan(start["gfs_sharpness"]):
        raise ValueError("edge must not be relative here: gradient flow from the initial weights does not arrive")
    return 2 / (settings.edge * start["gfs_sharpness"]), start


def _descend(settings: EdgePreset, folder: Path, data_path: str | Path | None, device: str) -> bool:
    """Go on from the last checkpoint to the last step; True in the one process that looks at the result."""
    together = processes(device)
    first, many = bool(together.is_main_process), together.num_processes
    reproducible()
    model, data = edge_task(settings, data_path)
    identity = _identity(settings)
    held = held_experiment(folder, identity)
    eta, start = _step_size(settings, model, data) if held is None else (float(held["eta"]), None)
    if held is None and first:
        claim_experiment(folder, identity, eta=eta)
    if start is not None and first and device == "cpu":  # elsewhere the first look has other last digits
        Pieces(folder / "flow").keep({**identity, "step": 0}, start)
    if _divergence(folder, settings.n_steps) is not None:
        return first
    losses: list[float] = []
    due = [*range(0, settings.n_steps, settings.every), settings.n_steps]
    unbroken = list(takewhile(checkpoint_steps(folder).__contains__, due))
    last = unbroken[-1] if unbroken else 0
    if unbroken:
        state = load_checkpoint(folder, last)
        model.load_state_dict(state["model"])
        losses = state["losses"]
    together.wait_for_everyone()
    place = together.device if many > 1 else torch.device(device)
    model.to(place)
    share = [part[together.process_index :: many].to(place) for part in data]
    weight = len(share[0]) / len(data[0])
    # a loss that descent does not come back from is a millionfold of that at the start, or of outputs of zero
    zero = float(half_mean_square(torch.zeros_like(data[1]), data[1]))
    for step in progress(range(last, settings.n_steps + 1), "gradient descent"):
        if step in due and step not in unbroken and first:
            save_checkpoint(folder, step, {"model": model.state_dict(), "losses": losses, "processes": many})
        if step == settings.n_steps:
            break
        losses.append(_full_batch_step(model, share, weight, eta))
        if not losses[-1] < 1e6 * max(losses[0], zero):
            if first:
                with atomic_path(folder / _DIVERGED) as temporary:
                    temporary.write_text(json.dumps(losses), encoding="utf-8")
            break
    together.wait_for_everyone()
    return first


def _full_batch_step(model: nn.Module, share: list[Tensor], weight: float, eta: float) -> float:
    """One step on the gradient of all examples, of which this process holds a share; the loss before it."""
    from accelerate.utils import reduce

    model.zero_grad()
    value = weight * half_mean_square(model(share[0]), share[1])
    value.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:  # the outputs may not see one
                parameter.sub_(reduce(parameter.grad, reduction="sum"), alpha=eta)
    return float(reduce(value.detach(), reduction="sum"))


_DIVERGED = "diverged.json"


def _divergence(folder: Path, n_steps: int) -> list[float] | None:
    """The losses up to a divergence, if it came before `n_steps`."""
    path = folder / _DIVERGED
    losses: list[float] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return losses if losses is not None and len(losses) <= n_steps else None


def _reached(folder: Path, n_steps: int) -> list[int]:
    """Steps of the checkpoints up to `n_steps` and before a divergence."""
    until = _divergence(folder, n_steps)
    end = n_steps + 1 if until is None else len(until) - 1
    return [step for step in checkpoint_steps(folder) if step < end]


def _look(settings: EdgePreset, folder: Path, step: int, data_path: str | Path | None, device: str) -> dict[str, float]:
    """What a checkpoint shows."""
    model, (inputs, targets) = edge_task(settings, data_path)
    model.load_state_dict(load_checkpoint(folder, step)["model"])
    return _measured(settings, model.to(device), (inputs.to(device), targets.to(device)))
