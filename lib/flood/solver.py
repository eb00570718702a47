"""The local inertial flood solver: explicit, batched, differentiable through every time step.

Physics and setting: Giladi et al., NeurIPS 2021 (arXiv 2106.07218); the scheme: Bates et al. 2010, de Almeida et al.
2012. Wet and dry cells, the limiter and the bounds of the time step are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint

from lib.flood.boundaries import SIDES, Boundary, Side, fits, open_sides, outer_faces, real_tensor
from lib.flood.faces import BOUNDS, DEPTH_LIMIT, State, limit_to_donors, net_outflow, new_discharge, two_floats
from lib.flood.pooling import elevation_tensor, map_tensor
from lib.validation import (
    finite_array,
    finite_tensor,
    instance_of,
    integer_at_least,
    number_between,
    one_of,
    positive_integer,
    positive_number,
    true_or_false,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["FloodResult", "LocalInertialSolver"]


@dataclass(frozen=True)
class FloodResult:
    """The end of a run, and what happened on the way; `...` are the batch axes of the map.

    Attributes:
        h, qx, qy: Depth [m] (..., R, C) and discharges [m^2/s] (..., R, C + 1), (..., R + 1, C) at the end.
        steps: Number of time steps (...), int64.
        time: Time reached [s] (...), float64; NaN where a depth left all bounds (NaN, or beyond 100 km), which ends a
            run.
        volume_in, volume_out: Rain and inflow, and outflow [m^3] (...), float64.
        volume_before, volume_after: Water on the map [m^3] (...), float64, at the start and at the end, with what lies
            below the last digit of the depths.
        history: Depths [m] (T, ..., R, C) at the `save_times`, or None.
        carry: In float32, what lies below the last digit of `h` [m] (..., R, C); in float64 None.
    """

    h: torch.Tensor
    qx: torch.Tensor
    qy: torch.Tensor
    steps: torch.Tensor
    time: torch.Tensor
    volume_in: torch.Tensor
    volume_out: torch.Tensor
    volume_before: torch.Tensor
    volume_after: torch.Tensor
    history: torch.Tensor | None = None
    carry: torch.Tensor | None = None

    @property
    def state(self) -> State:
        """The water at the end, from which `step` and `simulate` go on."""
        return State(self.h, self.qx, self.qy, self.carry)

    @property
    def mass_error(self) -> torch.Tensor:
        """Water made (lost, below 0), as a fraction (...) of what came in, or of what was there where nothing came."""
        made = self.volume_after - self.volume_before - self.volume_in + self.volume_out
        whole = torch.where(self.volume_in > 0, self.volume_in, self.volume_before)
        return made / torch.where(whole > 0, whole, 1.0)


class _Drive(NamedTuple):
    """What drives the water, after all checks."""

    rain: torch.Tensor | None
    sides: dict[str, Side]
    dt_max: float = math.inf


class _Run(NamedTuple):
    """What a run carries from step to step; all but the state is (...)."""

    state: State
    time: torch.Tensor
    steps: torch.Tensor
    volume_in: torch.Tensor
    volume_out: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class LocalInertialSolver:
    """Shallow water without advection on a map of square cells: valid where the flow is subcritical.

    Args:
        dx: Side of a cell [m].
        manning: Manning's roughness [s m^-1/3].
        theta: Weight of a face's own discharge against its two neighbours', 0 to 1; 1 is the scheme of Bates et al.
            2010.
        alpha: Part of the CFL time step to take, above 0, up to 1. Without friction, waves of two cells grow where it
            is above `sqrt(theta / 2)` (above `sqrt(theta)` where all flow is along one axis): 0.59 for a `theta` of 0.7
            (derived here). Friction of shallow water damps them, but they have been seen to make floods of less than 2
            m deeper; hence the default, which is below the 0.7 of Giladi et al.
        g: Gravity [m/s^2].
        h_dry: Faces with no more water than this [m] let none pass.
        h_cfl_min: Depth [m] from which the time step is computed where all water is shallower. Without it the first
            step of a storm on dry land would last as long as the storm.
        friction: `"vector"`: friction by the length of the discharge (Giladi et al.). `"component"`: by its component
            through the face (Bates et al.).
        edge: What stands for the missing neighbour in the average with `theta` at the edge of a map: `"replicate"`: the
            face itself; `"mirror"`: its other neighbour.
        limiter: Whether a cell gives no more water than it has. Without it depths become negative on slopes.

    Examples:
        Half a cubic metre per second and metre of width comes in at the west; after an hour the water runs down to the
        east as deep as Manning says:

        >>> from lib.flood import Boundary, normal_depth
        >>> z = -0.001 * 50 * torch.arange(20, dtype=torch.float64).repeat(2, 1)
        >>> solver = LocalInertialSolver(dx=50.0)
        >>> result = solver.simulate(z, 7200.0, boundary=Boundary({"west": 0.5}, {"east": 0.001}))
        >>> print(f"{result.h[0, 10].item():.4f} {normal_depth(0.5, 0.001, 0.05):.4f}")
        0.8685 0.8685
    """

    dx: float
    manning: float = 0.05
    theta: float = 0.7
    alpha: float = 0.5
    g: float = 9.80665
    h_dry: float = 1e-5
    h_cfl_min: float = 0.01
    friction: str = "vector"
    edge: str = "replicate"
    limiter: bool = True

    def __post_init__(self) -> None:
        for name in ("dx", "manning", "alpha", "g", "h_dry", "h_cfl_min"):
            object.__setattr__(self, name, positive_number(name, getattr(self, name)))
        for name in ("theta", "alpha"):
            object.__setattr__(self, name, number_between(name, getattr(self, name), 0, 1))
        one_of("friction", self.friction, ("vector", "component"))
        one_of("edge", self.edge, ("replicate", "mirror"))
        true_or_false("limiter", self.limiter)

    def coarse(self, factor: int) -> LocalInertialSolver:
        """The same solver for cells `factor` times as wide.

        Examples:
            >>> LocalInertialSolver(dx=8.0).coarse(16).dx
            128.0
        """
        return replace(self, dx=self.dx * positive_integer("factor", factor))

    def initial_state(self, z: torch.Tensor, h0: float | torch.Tensor | None = None) -> State:
        """Water at rest on the map `z`; the arguments are those of `simulate`.

        Examples:
            >>> LocalInertialSolver(dx=1.0).initial_state(torch.zeros(2, 2), 0.5).h
            tensor([[0.5000, 0.5000],
                    [0.5000, 0.5000]])
        """
        _check_map(z)
        h = _field("h0", 0.0 if h0 is None else h0, z).expand(z.shape).clone()
        *batch, rows, columns = z.shape
        carry = torch.zeros_like(z) if z.dtype == torch.float32 else None
        return State(h, z.new_zeros(*batch, rows, columns + 1), z.new_zeros(*batch, rows + 1, columns), carry)

    def time_step(self, h: torch.Tensor) -> torch.Tensor:
        """The time step `alpha dx / sqrt(g max(h, h_cfl_min))` [s] (...) float64 for depths `h` [m] (..., R, C).

        It is a constant for gradients, and NaN where a depth is not finite, or beyond 100 km.

        Examples:
            >>> print(f"{LocalInertialSolver(dx=10.0, alpha=1.0).time_step(torch.ones(2, 2)).item():.4f}")
            3.1933
        """
        map_tensor("h", h)
        deepest = h.detach().amax(dim=(-2, -1)).double()
        # NaN is not below the limit either; without one, ever larger depths would ask for ever shorter steps
        bounded = (h.detach().abs() < DEPTH_LIMIT).all(dim=-1).all(dim=-1)
        step = self.alpha * self.dx / (self.g * deepest.clamp_min(self.h_cfl_min)).sqrt()
        return torch.where(bounded, step, math.nan)

    def step(
        self,
        z: torch.Tensor,
        state: State,
        dt: float | torch.Tensor,
        rain: float | torch.Tensor | None = None,
        boundary: Boundary | None = None,
    ) -> State:
        """One time step of `dt` seconds, a number or one for each map (...): momentum, sides, rain, limiter, mass.

        The other arguments are those of `simulate`.

        Examples:
            >>> solver, z = LocalInertialSolver(dx=10.0), torch.zeros(2, 2)
            >>> solver.step(z, solver.initial_state(z), 60.0, rain=1e-5).h
            tensor([[0.0006, 0.0006],
                    [0.0006, 0.0006]])
        """
        _check_map(z)
        state = self._check_state(state, z)
        seconds = _times("dt", dt, z)
        return self._step(z, state, seconds.to(z.dtype)[..., None, None], self._drive(z, rain, boundary))

    def _drive(self, z: torch.Tensor, rain: float | torch.Tensor | None, boundary: Boundary | None) -> _Drive:
        return _Drive(None if rain is None else _field("rain", rain, z), open_sides(boundary, z, self.manning))

    def _step(self, z: torch.Tensor, state: State, dt: torch.Tensor, drive: _Drive) -> State:
        h, qx, qy, carry = state
        momentum = partial(
            new_discharge, z, h, dt=dt, dx=self.dx, manning=self.manning, theta=self.theta, g=self.g,
            h_dry=self.h_dry, friction=self.friction, edge=self.edge,
        )  # fmt: skip
        west, east, north, south = (outer_faces(drive.sides, name, h, self.h_dry) for name in SIDES)
        new_qx = torch.cat([west[..., None], momentum(qx, qy, dim=-1), -east[..., None]], -1)
        new_qy = torch.cat([north[..., None, :], momentum(qy, qx, dim=-2), -south[..., None, :]], -2)
        rained = None if drive.rain is None else dt * drive.rain
        wetter = h if rained is None else h + rained
        ratio = dt / self.dx
        if self.limiter:
            new_qx, new_qy = limit_to_donors(wetter, new_qx, new_qy, ratio)
        if carry is None:
            return State(wetter - ratio * net_outflow(new_qx, new_qy), new_qx, new_qy)
        # in float64: in float32 weak rain is less than what rounding leaves of strong flows
        change = -ratio * net_outflow(new_qx.double(), new_qy.double())
        depth = (h.double() + carry) + (change if rained is None else change + rained)
        new_h, carry = two_floats(depth)
        return State(new_h, new_qx, new_qy, carry)

    def simulate(
        self,
        z: torch.Tensor,
        duration: float | torch.Tensor,
        h0: float | torch.Tensor | None = None,
        rain: float | torch.Tensor | None = None,
        boundary: Boundary | None = None,
        *,
        state: State | None = None,
        dt_max: float | None = None,
        save_times: Sequence[float] | None = None,
        checkpoint_every: int = 0,
        backend: str = "torch",
    ) -> FloodResult:
        """Run the water for some time, from rest or from where another run ended.

        Args:
            z: Bed [m] (..., R, C), float32 or float64: the precision of the run. Subtract its mean before float32.
            duration: Time to run [s], not negative: a number or one for each map (...).
            h0: Depth at the start [m], water at rest; None: dry.
            rain: Rain [m/s], not negative: a number or a tensor that broadcasts to the shape of `z`.
            boundary: What passes the sides; None: closed walls.
            state: Depths and discharges to go on from, such as `FloodResult.state`, instead of `h0`.
            dt_max: Longest time step [s]; below the CFL step it makes all steps alike, as finite differences need.
            save_times: Ascending times [s] at which to keep the depths. Steps are cut such that they end there.
            checkpoint_every: Steps per segment of activation checkpointing, 0: none. Memory of a backward pass is then
                that of one segment and of the states between segments, for one more forward pass.
            backend: `"torch"`, whose gradients treat the time steps as constants, as the paper's do; or `"compiled"`:
                numba, on the processor, without gradients.

        Examples:
            >>> z = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
            >>> result = LocalInertialSolver(dx=10.0).simulate(z, 600.0, rain=1e-5, backend="compiled")
            >>> print(f"{result.volume_in.item():.3f} {10 * 10 * result.h.sum().item():.3f}")
            1.800 1.800
        """
        if state is not None and h0 is not None:
            raise ValueError("h0 and state cannot both be given: a state has its own depths")
        _check_map(z)
        state = self.initial_state(z, h0) if state is None else self._check_state(state, z)
        stops = _stops(save_times, _times("duration", duration, z))
        drive = self._drive(z, rain, boundary)
        if dt_max is not None:
            drive = drive._replace(dt_max=positive_number("dt_max", dt_max))
        every = integer_at_least("checkpoint_every", checkpoint_every, 0)
        if one_of("backend", backend, ("torch", "compiled")) == "compiled":
            run, history = self._run_compiled(z, state, stops, drive)
        else:
            run, history = self._run_torch(z, state, stops, drive, every)
        end = run.state
        volumes = (run.volume_in, run.volume_out, self._water(state), self._water(end))
        kept = None if save_times is None else history[:-1]
        return FloodResult(end.h, end.qx, end.qy, run.steps, run.time, *volumes, kept, end.carry)

    def _water(self, state: State) -> torch.Tensor:
        """Water on the map [m^3] (...), float64."""
        depths = state.h.sum(dim=(-2, -1), dtype=torch.float64)
        if state.carry is not None:
            depths = depths + state.carry.sum(dim=(-2, -1), dtype=torch.float64)
        return self.dx**2 * depths

    def _check_state(self, state: State, z: torch.Tensor) -> State:
        """Return a state that fits the map, with a carry in float32 and without one in float64."""
        instance_of("state", state, State, "a State, as initial_state gives one")
        *batch, rows, columns = z.shape
        shapes = {"h": (rows, columns), "qx": (rows, columns + 1), "qy": (rows + 1, columns), "carry": (rows, columns)}
        if state.carry is None:
            del shapes["carry"]
        for name, shape in shapes.items():
            part = finite_tensor(f"state.{name}", getattr(state, name), shape=(*batch, *shape))
            if part.dtype != z.dtype or part.device != z.device:
                raise ValueError(
                    f"state.{name} must be {z.dtype} on {z.device} as z is; it is {part.dtype} on {part.device}"
                )
        if z.dtype == torch.float32 and state.carry is None:
            state = state._replace(carry=torch.zeros_like(z))
        elif z.dtype == torch.float64 and state.carry is not None:
            state = state._replace(h=state.h + state.carry, carry=None)
        least = state.h if state.carry is None else torch.minimum(state.h, state.h + state.carry)
        if self.limiter and bool((least < 0).any()):
            raise ValueError(f"state.h must not be negative; its smallest entry is {least.min().item()}")
        return state

    def _run_torch(
        self, z: torch.Tensor, state: State, stops: torch.Tensor, drive: _Drive, checkpoint_every: int
    ) -> tuple[_Run, torch.Tensor]:
        zero = torch.zeros(z.shape[:-2], dtype=torch.float64, device=z.device)
        run, history = _Run(state, zero, zero.long(), zero, zero), []
        segment: Any = self._segment
        if checkpoint_every:
            segment = partial(checkpoint, self._segment, use_reentrant=False, preserve_rng_state=False)
        for stop in stops:
            while bool((run.time < stop).any()):
                run = segment(z, run, stop, drive, steps=max(1, checkpoint_every))
            history.append(run.state.h)
        return run, torch.stack(history)

    def _segment(self, z: torch.Tensor, run: _Run, stop: torch.Tensor, drive: _Drive, *, steps: int) -> _Run:
        """At most so many steps towards `stop`; maps that are there already stay as they are."""
        for _ in range(steps):
            active = run.time < stop
            if not bool(active.any()):
                break
            with torch.no_grad():
                whole = self.time_step(run.state.h).clamp_max(drive.dt_max)
                left = stop - run.time
                seconds = torch.where(active, torch.where(whole >= left, left, whole), 0.0)
                time = torch.where(active, torch.where(whole >= left, stop, run.time + whole), run.time)
            new = self._step(z, run.state, seconds.to(z.dtype)[..., None, None], drive)
            came, went = self._volumes(z, new, seconds, drive)
            if not bool(active.all()):
                new = _where(active[..., None, None], new, run.state)
            run = _Run(new, time, run.steps + active, run.volume_in + came, run.volume_out + went)
        return run

    def _volumes(
        self, z: torch.Tensor, state: State, seconds: torch.Tensor, drive: _Drive
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Water [m^3] that came in and went out during a step, as the step counted it."""
        came = went = torch.zeros_like(seconds)
        # the step as the map's precision had it
        exact = seconds.to(z.dtype).double()
        if drive.rain is not None:
            came = came + exact * self.dx**2 * drive.rain.expand(z.shape).sum(dim=(-2, -1), dtype=torch.float64)
        qx, qy = state.qx, state.qy
        faces = {"west": qx[..., 0], "east": -qx[..., -1], "north": qy[..., 0, :], "south": -qy[..., -1, :]}
        for name in drive.sides:
            inward = faces[name].double()
            came = came + exact * self.dx * inward.clamp_min(0).sum(dim=-1)
            went = went - exact * self.dx * inward.clamp_max(0).sum(dim=-1)
        return came, went

    def _run_compiled(
        self, z: torch.Tensor, state: State, stops: torch.Tensor, drive: _Drive
    ) -> tuple[_Run, torch.Tensor]:
        given = [z, *state, drive.rain, *(part for side in drive.sides.values() for part in side)]
        if any(part is not None and part.requires_grad for part in given):
            raise RuntimeError("backend 'compiled' gives no gradients; use backend 'torch', or detach the inputs")
        import numpy as np

        from lib.flood.compiled import run

        batch, (rows, columns) = z.shape[:-2], z.shape[-2:]

        def arrays(a: torch.Tensor) -> NDArray[Any]:
            """A copy with one batch axis."""
            one_axis = a.cpu().reshape(-1, *a.shape[len(batch) :])
            return one_axis.clone(memory_format=torch.contiguous_format).numpy()

        def back(a: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(a.reshape((*batch, *a.shape[1:]))).to(z.device)

        beds, ends = arrays(z), arrays(stops.movedim(0, -1))
        h, qx, qy = arrays(state.h), arrays(state.qx), arrays(state.qy)
        carry = None if state.carry is None else arrays(state.carry)
        count = len(beds)
        dry = np.zeros((count, 1, columns), beds.dtype)
        water = dry if drive.rain is None else arrays(drive.rain.expand(z.shape))
        edges = np.zeros((count, 4, 2, max(rows, columns)), beds.dtype)
        for place, name in enumerate(SIDES):
            for what, part in enumerate(drive.sides.get(name, ())):
                if part is not None:
                    length = part.shape[-1]
                    edges[:, place, what, :length] = arrays(part.expand(*batch, length))
        flags = (self.friction == "vector", self.edge == "mirror", bool(self.limiter), bool(drive.sides))
        history = np.empty((count, len(stops), rows, columns), beds.dtype)
        volumes, steps, times = np.zeros((count, 2)), np.zeros(count, np.int64), np.zeros(count)
        for b, rain in enumerate(water):
            settings = (
                self.dx, self.g, self.manning, self.theta, self.h_dry, self.alpha, self.h_cfl_min, drive.dt_max,
                float(rain.sum(dtype=np.float64)) * self.dx**2,
            )  # fmt: skip
            # the same in every row: one row, that stays in the cache
            short = rain[:1] if bool((rain == rain[:1]).all()) else rain
            steps[b], times[b], qx[b], qy[b] = run(
                beds[b], h[b], qx[b], qy[b], None if carry is None else carry[b], short, edges[b], flags, settings,
                BOUNDS, ends[b], history[b], volumes[b],
            )  # fmt: skip
        came, went = back(volumes).unbind(-1)
        new = State(back(h), back(qx), back(qy), None if carry is None else back(carry))
        return _Run(new, back(times), back(steps), came, went), back(history).movedim(len(batch), 0)


def _where(on: torch.Tensor, new: State, old: State) -> State:
    """The new water of the maps that are on, the old one of the others."""
    h, qx, qy = (torch.where(on, getattr(new, name), getattr(old, name)) for name in ("h", "qx", "qy"))
    return State(h, qx, qy, None if new.carry is None or old.carry is None else torch.where(on, new.carry, old.carry))


def _check_map(z: torch.Tensor) -> None:
    if elevation_tensor("z", z).dtype not in (torch.float32, torch.float64):
        raise TypeError(f"z must be a tensor of float32 or float64; it is {z.dtype}")


def _field(name: str, value: float | torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """A number, or a tensor that broadcasts to the shape of `z` and has rows and columns."""
    given = real_tensor(name, value, z)
    if given.numel() and given.min() < 0:
        raise ValueError(f"{name} must not be negative; its smallest entry is {given.min().item()}")
    # a tensor of one axis could mean a row or a batch
    if given.ndim == 1 or not fits(given, z.shape):
        raise ValueError(f"{name} must broadcast to the shape {tuple(z.shape)} of z; its shape is {tuple(given.shape)}")
    return given


def _times(name: str, value: float | torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Seconds for each map (...), float64."""
    given = real_tensor(name, value, z, torch.float64).detach()
    if given.ndim and given.shape != z.shape[:-2]:
        raise ValueError(f"{name} must be a number or have the shape {(*z.shape[:-2],)}; it has {(*given.shape,)}")
    if not bool((given >= 0).all()):
        raise ValueError(f"{name} must not be negative; it is {value}")
    return given.expand(z.shape[:-2])


def _stops(save_times: Sequence[float] | None, end: torch.Tensor) -> torch.Tensor:
    """The times (T, ...) at which steps end: those to keep, no later than a map's own end, and the end."""
    times = [] if save_times is None else finite_array("save_times", save_times, ndim=1).tolist()
    latest = end.max().item()
    if any(not 0 <= t <= latest for t in times) or any(b < a for a, b in pairwise(times)):
        raise ValueError(f"save_times must ascend between 0 and the duration {latest:g}; they are {times}")
    return torch.stack([*(end.clamp_max(t) for t in times), end])
