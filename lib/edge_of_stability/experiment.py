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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
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
from lib.edge_of_stability.networks import (
    GFSMonitor,
    flow_end_sharpness,
    half_mean_square,
)
from lib.files import atomic_path, input_folder, output_folder
from lib.models import fully_connected, small_convnet
from lib.parallel import in_parallel
from lib.progress import progress
from lib.training import processes, reproducible
from lib.validation import (
    instance_of,
    job_count,
    known_device,
    known_seed,
    one_of,
    positive_integer,
    positive_number,
    true_or_false,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EDGE_PRESETS",
    "EdgePreset",
    "EdgeRun",
    "edge_task",
    "load_edge_run",
    "run_edge_experiment",
    "watch_descent",
]


@dataclass(frozen=True)
class EdgePreset:
    """A network, its data, and how to train and look at it.

    Attributes
    ----------
    data, count
        `"digits"` (above four or not), `"fashion"` (pullover or coat) with targets of 1 and -1, or `"cifar10"`
        with one output a class; the first so many images.
    network, widths
        `"fully-connected"` with sizes of all layers, or `"convnet"` with channels of the image and of each block.
    edge
        The value of `2 / eta`; where `relative`, in units of the initial GFS sharpness.
    n_steps, every
        Steps of descent, and how many of them lie between two checkpoints.
    method, loss_tol, rtol
        Of the integration of gradient flow, as in `integrate_gradient_flow`.
    dtype
        Of descent; the flow is always integrated in float64.
    seed
        Of the initial weights.
    """

    data: Literal["digits", "fashion", "cifar10"]
    count: int
    network: Literal["fully-connected", "convnet"]
    widths: tuple[int, ...]
    edge: float
    relative: bool = True
    n_steps: int = 400
    every: int = 20
    method: Literal["etd", "rk4"] = "etd"
    loss_tol: float = 1e-4
    rtol: float = 3e-3
    dtype: Literal["float32", "float64"] = "float64"
    seed: int = 0


#: Settings by name. `quick` takes seconds and `laptop` a minute or two; `cifar10-5k` is for a GPU.
EDGE_PRESETS = {
    "quick": EdgePreset("digits", 50, "fully-connected", (64, 8, 1), 0.75),
    "laptop": EdgePreset("fashion", 100, "fully-connected", (784, 16, 1), 0.75),
    "laptop-convnet": EdgePreset("fashion", 60, "convnet", (1, 4, 8), 0.75, n_steps=800, every=100),
    "cifar10-5k": EdgePreset(
        "cifar10", 5000, "fully-connected", (3072, 200, 200, 10), 50.0, False, 5000, 100, "rk4", 1e-3, 1e-2, "float32"
    ),
    "cifar10-5k-convnet": EdgePreset(
        "cifar10", 5000, "convnet", (3, 32, 32), 50.0, False, 5000, 100, "rk4", 1e-3, 1e-2, "float32"
    ),
}


def edge_task(preset: EdgePreset, data_path: str | Path | None = None) -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    """The network of a preset at its initial weights, and its inputs and targets.

    Parameters
    ----------
    preset
        The setting.
    data_path
        Folder of the data, where they do not ship with the package.

    Examples
    --------
    >>> model, (inputs, targets) = edge_task(EDGE_PRESETS["quick"])
    >>> inputs.shape, targets.shape
    (torch.Size([50, 1, 8, 8]), torch.Size([50, 1]))
    """
    preset = _settings(preset)
    dtype = torch.float32 if preset.dtype == "float32" else torch.float64
    images, targets = _data(preset, data_path)
    if preset.network == "fully-connected" and preset.widths[-1] != targets.shape[1]:
        raise ValueError(f"widths must end with {targets.shape[1]}, the number of outputs; it is {preset.widths}")
    generator = torch.Generator().manual_seed(preset.seed)
    if preset.network == "convnet":
        model = small_convnet(preset.widths, targets.shape[1], size=images.shape[-1], generator=generator)
    else:
        if preset.widths[0] != images[0].size:
            raise ValueError(f"widths must begin with {images[0].size}, the size of an image; it is {preset.widths}")
        model = fully_connected(preset.widths, generator=generator)
    return model.to(dtype), (torch.from_numpy(images).to(dtype), torch.from_numpy(targets).to(dtype))


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
class EdgeRun:
    """What came of an experiment.

    Attributes
    ----------
    eta
        Step size.
    losses
        Loss before every step.
    steps
        Steps at which the flow solution was looked for (T,).
    loss, sharpness, gfs_sharpness
        (T,). NaN where gradient flow did not reach its tolerance.
    diverged
        Whether descent stopped because its loss was a millionfold that of the start, or not finite.
    """

    eta: float
    losses: NDArray[np.float64]
    steps: NDArray[np.int64]
    loss: NDArray[np.float64]
    sharpness: NDArray[np.float64]
    gfs_sharpness: NDArray[np.float64]
    diverged: bool = False


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

    Examples
    --------
    >>> run = watch_descent(replace(EDGE_PRESETS["quick"], count=10, n_steps=4, every=2))
    >>> run.steps, len(run.losses)
    (array([0, 2, 4]), 4)
    """
    settings = _settings(preset)
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
        eta=eta,
        losses=np.array(losses),
        steps=np.array(monitor.steps),
        loss=np.array(monitor.loss),
        sharpness=np.array(monitor.sharpness),
        gfs_sharpness=np.array(monitor.gfs_sharpness),
        diverged=diverged,
    )


def run_edge_experiment(
    preset: str | EdgePreset,
    folder: str | Path,
    *,
    data_path: str | Path | None = None,
    device: str = "cpu",
    jobs: int | None = None,
) -> EdgeRun:
    """Train by full-batch gradient descent, keep checkpoints, and look at the flow solution from each.

    Parameters
    ----------
    preset
        A name in `EDGE_PRESETS`, or a setting of your own.
    folder
        Where everything goes; what is there already is not done again.
    data_path
        Folder of the data, where they do not ship with the package.
    device
        `"cpu"` or `"cuda"`.
    jobs
        Processes that look for flow solutions; None leaves it to a surrounding `joblib.parallel_config`.

    Raises
    ------
    ValueError
        If a setting is out of range, data are missing, or the folder holds another experiment.

    Examples
    --------
    >>> import tempfile
    >>> short = replace(EDGE_PRESETS["quick"], count=10, n_steps=4, every=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = run_edge_experiment(short, folder)
    >>> run.steps, len(run.losses)
    (array([0, 2, 4]), 4)
    """
    settings = _settings(preset)
    known_device(device)
    job_count(jobs)
    folder = output_folder("folder", folder)
    if not _descend(settings, folder, data_path, device):
        return load_edge_run(folder, settings.n_steps)  # another process looks for the flow solutions
    reached = _reached(folder, settings.n_steps)
    missing = [step for step in reached if not _result_path(folder, step).exists()]
    work = [(settings, folder, step, data_path, device) for step in missing]
    for _ in in_parallel(_look, work, "flow solutions", jobs=jobs):
        pass
    return load_edge_run(folder, settings.n_steps)


def _settings(preset: str | EdgePreset) -> EdgePreset:
    if isinstance(preset, str):
        if preset not in EDGE_PRESETS:
            raise ValueError(f"preset must be one of {', '.join(EDGE_PRESETS)}; it is {preset!r}")
        preset = EDGE_PRESETS[preset]
    instance_of("preset", preset, EdgePreset, "a name or an EdgePreset")
    for name in ("count", "n_steps", "every"):
        positive_integer(name, getattr(preset, name))
    for name in ("edge", "loss_tol", "rtol"):
        positive_number(name, getattr(preset, name))
    for name, allowed in _WORDS.items():
        one_of(name, getattr(preset, name), allowed)
    known_seed("seed", preset.seed)
    true_or_false("relative", preset.relative)
    return preset


_WORDS = {
    "data": ("digits", "fashion", "cifar10"),
    "network": ("fully-connected", "convnet"),
    "method": ("etd", "rk4"),
    "dtype": ("float32", "float64"),
}


def _result_path(folder: Path, step: int) -> Path:
    return folder / f"flow_{step:08d}.json"


def _identity(settings: EdgePreset) -> dict[str, Any]:
    """What makes an experiment another one: everything but its length."""
    return asdict(replace(settings, n_steps=1))


def _flow_settings(settings: EdgePreset) -> dict[str, Any]:
    return {"method": settings.method, "loss_tol": settings.loss_tol, "rtol": settings.rtol}


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


def _divergence(folder: Path, n_steps: int | None) -> dict[str, Any] | None:
    """The step at which descent diverged, if it did before `n_steps`, and the losses up to it."""
    path = folder / _DIVERGED
    held: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return held if held is not None and (n_steps is None or held["step"] < n_steps) else None


def _reached(folder: Path, n_steps: int | None) -> list[int]:
    """Steps of the checkpoints up to `n_steps` and before a divergence."""
    diverged = _divergence(folder, n_steps)
    steps = checkpoint_steps(folder)
    return [
        step for step in steps if (n_steps is None or step <= n_steps) and (not diverged or step < diverged["step"])
    ]


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


def _look(settings: EdgePreset, folder: Path, step: int, data_path: str | Path | None, device: str) -> None:
    """Loss, sharpness and GFS sharpness at a checkpoint, into a small file."""
    model, data = edge_task(settings, data_path)
    model.load_state_dict(load_checkpoint(folder, step)["model"])
    model.to(device=device, dtype=torch.float64)
    inputs, targets = (part.to(device=device, dtype=torch.float64) for part in data)

    def loss() -> Tensor:
        return half_mean_square(model(inputs), targets)

    values, _ = hessian_top_eigenvalue(loss, list(model.parameters()), tol=1e-3)
    phi, arrived = flow_end_sharpness(model, half_mean_square, (inputs, targets), **_flow_settings(settings))
    row = {"loss": float(loss().detach()), "sharpness": float(values[0])}
    row["gfs_sharpness"] = phi if arrived else float("nan")
    with atomic_path(_result_path(folder, step)) as temporary:
        temporary.write_text(json.dumps(row), encoding="utf-8")


_COLUMNS = ("loss", "sharpness", "gfs_sharpness")


def _read_result(path: Path) -> dict[str, float]:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(row[name]) for name in _COLUMNS}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged; delete it, and it is made again") from error


def load_edge_run(folder: str | Path, n_steps: int | None = None) -> EdgeRun:
    """What an experiment's folder holds so far, up to a step if one is given.

    Raises
    ------
    ValueError
        If it holds no experiment.
    """
    folder = Path(folder)
    held = held_experiment(folder)
    if held is None:
        raise ValueError(f"{folder} holds no experiment")
    done = _reached(folder, n_steps)
    diverged = _divergence(folder, n_steps)
    seen = [step for step in done if _result_path(folder, step).exists()]
    rows = [_read_result(_result_path(folder, step)) for step in seen]
    last = diverged or (load_checkpoint(folder, done[-1]) if done else {"losses": []})
    columns = {name: np.array([row[name] for row in rows]) for name in _COLUMNS}
    return EdgeRun(
        eta=held["eta"],
        losses=np.array(last["losses"]),
        steps=np.array(seen, dtype=np.int64),
        diverged=diverged is not None,
        **columns,
    )
