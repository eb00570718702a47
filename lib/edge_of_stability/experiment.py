"""The experiment on networks, from a laptop's seconds to the setting of the literature: descend, then look.

Full-batch gradient descent writes its weights down every so many steps; then the gradient flow solution is
sought from each of them. Both halves go on where they were interrupted. The first half may run on several
devices under `accelerate launch`, each with its share of the examples; the second is one independent piece
a checkpoint, through joblib.

The loss is `half_mean_square` everywhere: the squared distance of the outputs, summed over them, averaged over
examples, halved. The line `2 / eta` belongs to this scaling.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.checkpoints import (
    checkpoint_steps,
    claim_experiment,
    held_experiment,
    load_checkpoint,
    save_checkpoint,
)
from lib.datasets import cifar10, digits, fashion_mnist, standardized
from lib.edge_of_stability.curvature import hessian_top_eigenvalue
from lib.edge_of_stability.networks import GFSMonitor, flow_end_sharpness, half_mean_square
from lib.experiment import Count, Pieces, Positive, Preset, Run, Seed, named
from lib.files import atomic_path, input_folder, output_folder
from lib.models import fully_connected, small_convnet
from lib.progress import progress
from lib.training import processes, reproducible
from lib.validation import job_count, known_device

__all__ = ["PRESETS", "EdgePreset", "EdgeRun", "edge_task", "train_edge_of_stability", "watch_descent"]

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

    Args:
        preset: A name in `PRESETS`, or a setting of your own.
        data_path: Folder of the data, where they do not ship with the package.

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
        model, losses, preset: As in `lib.experiment.Run`.
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


def _largest_loss(targets: Tensor, first: float) -> float:
    """A loss that descent does not come back from: a millionfold that of the start, or of outputs of zero."""
    return 1e6 * max(first, float(half_mean_square(torch.zeros_like(targets), targets)))


def _step_size(settings: EdgePreset, model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """The step size that puts `2 / eta` where the preset wants it."""
    if not settings.relative:
        return 2 / settings.edge
    phi, arrived = flow_end_sharpness(model, half_mean_square, data, **_flow_settings(settings))
    if not arrived:
        raise ValueError("edge must not be relative here: gradient flow from the initial weights does not arrive")
    return 2 / (settings.edge * phi)


def watch_descent(preset: str | EdgePreset, data_path: str | Path | None = None) -> EdgeRun:
    """The experiment in memory, for settings that take seconds: descent with a `GFSMonitor` beside it.

    Examples:
        >>> run = watch_descent(replace(PRESETS["quick"], count=10, n_steps=4, every=2))
        >>> run.steps, len(run.losses)
        (array([0, 2, 4]), 4)
    """
    settings = named(preset, PRESETS)
    model, data = edge_task(settings, data_path)
    eta = _step_size(settings, model, data)
    monitor = GFSMonitor(settings.every, model, half_mean_square, data, **_flow_settings(settings))
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    losses: list[float] = []
    diverged = False
    for step in range(settings.n_steps + 1):
        value = half_mean_square(model(data[0]), data[1])
        loss = float(value.detach())
        diverged = not loss < _largest_loss(data[1], (losses or [loss])[0])
        if diverged:
            losses.append(loss)
            break
        monitor(step)
        if step == settings.n_steps:
            break
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss)
    return EdgeRun(
        model.eval(),
        np.array(losses),
        np.array(monitor.gfs_sharpness),
        diverged,
        settings,
        eta=eta,
        steps=np.array(monitor.steps),
        loss=np.array(monitor.loss),
        sharpness=np.array(monitor.sharpness),
    )


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
        preset: A name in `PRESETS`, or a setting of your own.
        folder: Where everything goes; what is there already is not done again. More or fewer steps are the same
            experiment.
        data_path: As in `edge_task`.
        device: `"cpu"` or `"cuda"`.
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
    diverged = _divergence(folder, settings.n_steps)
    model = EdgeRun.network(settings, {}).eval()
    losses: list[float] = []
    if reached:
        state = load_checkpoint(folder, reached[-1])
        model.load_state_dict(state["model"])
        losses = state["losses"]
    columns = {name: np.array([row[name] for row in found]) for name in ("loss", "sharpness", "gfs_sharpness")}
    return EdgeRun(
        model,
        np.array(diverged["losses"] if diverged else losses),
        columns.pop("gfs_sharpness"),
        diverged is not None,
        settings,
        eta=float((held_experiment(folder, identity) or {})["eta"]),
        steps=np.array(reached[: len(found)], dtype=np.int64),
        **columns,
    )


def _identity(settings: EdgePreset) -> dict[str, Any]:
    """What makes an experiment another one: everything but its length."""
    return replace(settings, n_steps=1).record()


def _flow_settings(settings: EdgePreset) -> dict[str, Any]:
    return {"method": settings.method, "tol": settings.tol, "rtol": settings.rtol}


def _descend(settings: EdgePreset, folder: Path, data_path: str | Path | None, device: str) -> bool:
    """Go on from the last checkpoint to the last step; True in the one process that looks at the result."""
    together = processes(device)
    reproducible()
    model, data = edge_task(settings, data_path)
    held = held_experiment(folder, _identity(settings))
    eta = _step_size(settings, model, data) if held is None else float(held["eta"])
    if held is None and together.is_main_process:
        claim_experiment(folder, _identity(settings), eta=eta)
    if _divergence(folder, settings.n_steps) is not None:
        return bool(together.is_main_process)
    losses: list[float] = []
    first = 0
    last = _last_of_unbroken(checkpoint_steps(folder), settings)
    if last is not None:
        state = load_checkpoint(folder, last)
        model.load_state_dict(state["model"])
        first, losses = last, state["losses"]
    together.wait_for_everyone()
    place = together.device if together.num_processes > 1 else torch.device(device)
    model.to(place)
    share = [part[together.process_index :: together.num_processes].to(place) for part in data]
    weight = len(share[0]) / len(data[0])
    bar = progress(range(first, settings.n_steps + 1), "gradient descent")
    for step in bar:
        due = step % settings.every == 0 or step == settings.n_steps
        if due and step != last and together.is_main_process:
            state = {"model": model.state_dict(), "losses": losses, "processes": together.num_processes}
            save_checkpoint(folder, step, state)
        if step == settings.n_steps:
            break
        value = _full_batch_step(model, share, weight, eta, together)
        losses.append(value)
        if not value < _largest_loss(data[1], losses[0]):
            if together.is_main_process:
                with atomic_path(folder / _DIVERGED) as temporary:
                    temporary.write_text(json.dumps({"step": step, "losses": losses}), encoding="utf-8")
            break
    together.wait_for_everyone()
    return bool(together.is_main_process)


_DIVERGED = "diverged.json"


def _divergence(folder: Path, n_steps: int) -> dict[str, Any] | None:
    """The step at which descent diverged, if it did before `n_steps`, and the losses up to it."""
    path = folder / _DIVERGED
    held: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return held if held is not None and held["step"] < n_steps else None


def _reached(folder: Path, n_steps: int) -> list[int]:
    """Steps of the checkpoints up to `n_steps` and before a divergence."""
    diverged = _divergence(folder, n_steps)
    return [step for step in checkpoint_steps(folder) if step <= n_steps and (not diverged or step < diverged["step"])]


def _last_of_unbroken(done: list[int], settings: EdgePreset) -> int | None:
    """The checkpoint to go on from: the last before which none is missing."""
    last = None
    for step in [*range(0, settings.n_steps, settings.every), settings.n_steps]:
        if step not in done:
            break
        last = step
    return last


def _full_batch_step(model: nn.Module, share: list[Tensor], weight: float, eta: float, together: Any) -> float:
    """One step on the gradient of all examples, of which this process holds a share; the loss before it."""
    from accelerate.utils import reduce

    model.zero_grad()
    value = weight * half_mean_square(model(share[0]), share[1])
    value.backward()  # type: ignore[no-untyped-call]
    total = value.detach()
    if together.num_processes > 1:
        total = reduce(total, reduction="sum")
    with torch.no_grad():
        for parameter in model.parameters():
            slope = parameter.grad
            if slope is None:  # a parameter that the outputs do not see
                continue
            if together.num_processes > 1:
                slope = reduce(slope, reduction="sum")
            parameter.sub_(slope, alpha=eta)
    return float(total)


def _look(settings: EdgePreset, folder: Path, step: int, data_path: str | Path | None, device: str) -> dict[str, float]:
    """Loss, sharpness and GFS sharpness at a checkpoint."""
    model, data = edge_task(settings, data_path)
    model.load_state_dict(load_checkpoint(folder, step)["model"])
    model.to(device=device, dtype=torch.float64)
    inputs, targets = (part.to(device=device, dtype=torch.float64) for part in data)

    def loss() -> Tensor:
        return half_mean_square(model(inputs), targets)

    values, _ = hessian_top_eigenvalue(loss, list(model.parameters()), tol=1e-3)
    phi, arrived = flow_end_sharpness(model, half_mean_square, (inputs, targets), **_flow_settings(settings))
    row = {"loss": float(loss().detach()), "sharpness": float(values[0])}
    return {**row, "gfs_sharpness": phi if arrived else float("nan")}
