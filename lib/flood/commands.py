"""What chapter 10 adds to the command line: `python -m lib simulate flood`, `solve flood` and `train flood`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from lib.command_line import TrainingCommand, refusals
from lib.files import output_file, output_folder

if TYPE_CHECKING:
    import torch

    from lib.flood.boundaries import Boundary
    from lib.flood.downsampler import Detour
    from lib.flood.faces import State
    from lib.flood.geo import Dem
    from lib.flood.solver import FloodResult, LocalInertialSolver

__all__ = ["COMMANDS"]

_RASTERS, _DATASETS, _PICTURES = (".tif", ".tiff"), (".nc",), (".png",)
_PIECES = 100  # that the progress bar counts
_WET = 0.05  # depth [m] from which the Froude number is looked at
_FLOODED = 0.1  # depth [m] from which a cell counts as flooded
_WALL = 1000.0  # height [m] of cells without data above all else
_FAST_SHARE = 0.05  # of supercritical cells, from which the user is warned


def simulate(
    dem: Annotated[Path, typer.Option(help="Elevations: a GeoTIFF, or another raster, in a projected system.")],
    out: Annotated[
        list[Path],
        typer.Option(help="Depths: FILE.nc (NetCDF-CF, over time) or FILE.tif (GeoTIFF, the last); may be repeated."),
    ],
    duration: Annotated[float, typer.Option(help="Time to simulate, in seconds.")] = 3600.0,
    rain: Annotated[
        str, typer.Option(help="Rain: a number in mm/h, or a file of it (GeoTIFF, NetCDF) on the map's cells.")
    ] = "0",
    inflow: Annotated[
        list[str] | None,
        typer.Option(
            help="SIDE=Q or SIDE=Q@FROM:TO: a discharge in m^3/s over a side (west, east, north, south), or over "
            "a stretch of it, in metres from its northern or western end; may be repeated."
        ),
    ] = None,
    outflow: Annotated[
        list[str] | None,
        typer.Option(
            help="SIDE=SLOPE: water leaves at its normal depth on such a slope, wherever the side has no inflow; "
            "may be repeated. Sides that are not named are walls."
        ),
    ] = None,
    h0: Annotated[float, typer.Option(help="Depth of the water at the start, in metres.")] = 0.0,
    fill: Annotated[
        float | None,
        typer.Option(
            help="Elevation in metres, above all ground, of cells that have none, else an error: they are walls, get "
            "no rain, and have no depth in the files."
        ),
    ] = None,
    nodata: Annotated[
        float | None, typer.Option(help="Value of cells without elevation, where the file does not declare it.")
    ] = None,
    z_unit: Annotated[
        str | None, typer.Option(help="Unit of the heights, such as m or ft, where the file leaves it open.")
    ] = None,
    crs: Annotated[str | None, typer.Option(help="Reference system of a file without one, such as EPSG:32633.")] = None,
    network: Annotated[
        Path | None, typer.Option(help="Run on the coarse map of a network that `train flood` wrote.")
    ] = None,
    factor: Annotated[int, typer.Option(help="Run on a map coarsened by this factor.")] = 1,
    pooling: Annotated[str, typer.Option(help="How: mean, max, min, median, nearest or bilateral.")] = "mean",
    manning: Annotated[float, typer.Option(help="Manning's roughness, in s m^-1/3.")] = 0.05,
    theta: Annotated[float, typer.Option(help="Weight of a face's own discharge, 0 to 1.")] = 0.7,
    alpha: Annotated[float, typer.Option(help="Part of the longest stable time step, up to 1.")] = 0.5,
    frames: Annotated[int, typer.Option(help="Depths to save, evenly spaced from start to end; 1: the end.")] = 13,
    precision: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    backend: Annotated[str, typer.Option(help="compiled (numba) or torch.")] = "compiled",
    picture: Annotated[Path | None, typer.Option(help="FILE.png: a picture of the last depths.")] = None,
) -> None:
    """Flood a map by rain and rivers, and write the depths of the water."""
    with refusals():
        import torch

        from lib.flood.geo import read_dem
        from lib.flood.pooling import Pooling
        from lib.flood.solver import LocalInertialSolver
        from lib.validation import number_between, one_of, positive_integer

        _check_files(dem, out, picture)
        times = _times(duration, frames)
        positive_integer("--factor", factor)
        number_between("--h0", h0, 0)
        rate = _rate(rain)
        if not (rate or h0 or inflow):
            raise ValueError("there is no water: give --rain, --inflow or --h0")
        one_of("--precision", precision, ("float32", "float64"))
        one_of("--backend", backend, ("compiled", "torch"))
        one_of("--pooling", pooling, get_args(Pooling))
        fine = read_dem(dem, fill=fill, nodata=nodata, z_unit=z_unit, crs=crs)
        ground, share = _ground(fine, factor, pooling, network)
        # levels far above zero would cost float32 the digits in which depths are
        z = (ground.z - ground.z[share > 0].median()).to(getattr(torch, precision))
        solver = LocalInertialSolver(dx=ground.dx, manning=manning, theta=theta, alpha=alpha)
        falls = _rainfall(rate, fine, share)
        water = (h0 * (share > 0).double()).to(z.dtype)
        boundary = _boundary(inflow or [], outflow or [], ground)
        # a run of no time looks at all that is left to check
        start = solver.simulate(z, 0.0, water, falls, boundary)

    flood = _run(solver, z, times, start, rain=falls, boundary=boundary, backend=backend)
    if flood is None:
        raise _failure("the run diverged and nothing was written: try a smaller --alpha")
    remark = _remark(rate, solver, precision)
    coarsened = round(ground.dx / fine.dx)
    if coarsened > 1:
        drawn = f"drawn by {network}" if network is not None else f"pooled ({pooling})"
        remark += f", ground coarsened by {coarsened}, {drawn}"
    files = [*out, picture] if picture is not None else out
    try:
        for path in files:
            _write(path, flood.depths, ground, times, remark, name=dem.stem)
    except OSError as error:
        raise _failure(f"the run is over, but its depths cannot be written: {error}") from error
    typer.echo("\n".join([*_report(flood, ground), f"{'written':14}{', '.join(str(file) for file in files)}"]))


def _failure(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)


def _times(duration: float, frames: int) -> list[float]:
    """When depths are saved [s]."""
    from lib.validation import positive_integer, positive_number

    positive_number("--duration", duration)
    intervals = positive_integer("--frames", frames) - 1
    return [duration * i / intervals for i in range(frames)] if intervals else [duration]


def _rate(rain: str) -> float | str:
    """Rain in mm/h, or the name of a file of it."""
    from lib.validation import number_between

    try:
        rate = float(rain)
    except ValueError:
        return rain
    return number_between("--rain", rate, 0)


def _rainfall(rate: float | str, fine: Dem, share: torch.Tensor) -> float | torch.Tensor:
    """Rain [m/s] on the cells of the map to run on: as much as falls on those of the fine map that have data."""
    from lib.flood.geo import read_rain
    from lib.flood.pooling import pool_dem

    if isinstance(rate, str):
        return pool_dem(read_rain(rate, fine.profile), len(fine.z) // len(share))
    return rate / 3.6e6 if bool((share == 1).all()) else rate / 3.6e6 * share


def _ground(fine: Dem, factor: int, pooling: str, network: Path | None) -> tuple[Dem, torch.Tensor]:
    """The map to run on, and the part (R, C) of its cells that has data; where there is none, it has walls."""
    import torch

    from lib.flood.geo import coarse_profile
    from lib.flood.pooling import pool_dem

    model = None if network is None else _network(network, fine, factor)
    factor = factor if model is None else model.factor
    empty = torch.as_tensor(fine.profile.get("missing", False)).expand(fine.z.shape)
    share = pool_dem((~empty).double(), factor)
    z = fine.z
    if empty.any():
        fill, level = float(z[empty].max()), z[~empty].mean()
        if fill <= z[~empty].max():
            raise ValueError(
                f"--fill must lie above the highest ground, {z[~empty].max():g} m, as cells without data are walls; "
                f"it is {fill:g}"
            )
        # a coarse cell that has some data is as high as these
        means = torch.where(share > 0, pool_dem(z.where(~empty, 0.0), factor) / share, level)
        z = z.where(~empty, means.repeat_interleave(factor, 0).repeat_interleave(factor, 1))
    if model is None:
        coarse = pool_dem(z, factor, pooling)  # type: ignore[arg-type]
    else:
        with torch.no_grad():
            coarse = model((z - z.mean()).float()[None, None])[0, 0].double() + z.mean()
    if empty.any():
        coarse = coarse.where(share > 0, max(fill, float(coarse.max())) + _WALL)
    return fine._replace(z=coarse, dx=fine.dx * factor, profile=coarse_profile(fine.profile, factor)), share


def _network(network: Path, fine: Dem, factor: int) -> Detour:
    """A network that fits the map and the factor that was asked for."""
    from lib.flood.experiment import FloodRun

    trained = FloodRun.load(network)
    if factor not in (1, trained.model.factor):
        raise ValueError(f"--factor must be that of the network, {trained.model.factor}; it is {factor}")
    if abs(fine.dx / trained.preset.dx - 1) > 0.01:
        raise ValueError(f"--network was trained on cells of {trained.preset.dx:g} m; the map's have {fine.dx:g} m")
    return trained.model


def _check_files(dem: Path, out: Sequence[Path], picture: Path | None) -> None:
    """Refuse files that could not be written when the run is over."""
    files: list[tuple[str, Path, tuple[str, ...]]] = [("--out", path, _DATASETS + _RASTERS) for path in out]
    if picture is not None:
        files.append(("--picture", picture, _PICTURES))
    for name, path, allowed in files:
        if path.suffix.lower() not in allowed:
            raise ValueError(f"{name} must end in {' or '.join(allowed)}; it is {path}")
        if output_file(name, path).resolve() == dem.resolve():
            raise ValueError(f"{name} must not be the map itself; it is {path}")
    if any(path.suffix.lower() in _DATASETS for path in out):
        try:
            import_module("h5netcdf")
        except ImportError as error:
            advice = "install the extra geo, pip install 'paperplay[geo]'"
            raise ImportError(f"h5netcdf is needed for NetCDF files: {advice}") from error


def _boundary(inflow: Sequence[str], outflow: Sequence[str], ground: Dem) -> Boundary:
    """The sides of the map, from the words of the command line."""
    from lib.flood.boundaries import Boundary

    came: dict[str, torch.Tensor] = {}
    for words in inflow:
        side, numbers = _side("--inflow", words)
        if len(numbers) not in (1, 3):
            raise ValueError(f"--inflow must be SIDE=Q or SIDE=Q@FROM:TO; it is {words!r}")
        q = _stretch(words, *numbers, has_data=_ground_at(ground, side), dx=ground.dx)
        came[side] = came[side] + q if side in came else q
    went: dict[str, torch.Tensor] = {}
    for words in outflow:
        side, (slope, *more) = _side("--outflow", words)
        if slope <= 0 or more:
            raise ValueError(f"--outflow must have a positive slope; it is {words!r}")
        if side in went:
            raise ValueError(f"--outflow must name a side once; it names {side!r} again")
        open_faces = _ground_at(ground, side)
        if side in came:
            open_faces &= came[side] == 0
        if not open_faces.any():
            raise ValueError(
                f"--outflow must leave through ground, and a part of a side without inflow; {side!r} has none"
            )
        went[side] = open_faces.double() * slope
    return Boundary(came, went)


def _side(option: str, words: str) -> tuple[str, list[float]]:
    """A side of the map and the numbers behind it, which stand between `=`, `@` and `:`."""
    from lib.flood.boundaries import SIDES

    side, _, rest = words.partition("=")
    if side not in SIDES:
        raise ValueError(f"{option} must begin with {', '.join(f'{name}=' for name in SIDES)}; it is {words!r}")
    try:
        return side, [float(number) for number in re.split("[@:]", rest)]
    except ValueError:
        raise ValueError(f"{option} must hold numbers behind the side; it is {words!r}") from None


def _ground_at(ground: Dem, side: str) -> torch.Tensor:
    """Which of the cells along a side (L,) have data."""
    import torch

    edge = {"west": (slice(None), 0), "east": (slice(None), -1), "north": (0,), "south": (-1,)}[side]
    return ~torch.as_tensor(ground.profile.get("missing", False)).expand(ground.z.shape)[edge]


def _stretch(
    words: str, discharge: float, start: float = 0.0, end: float | None = None, *, has_data: torch.Tensor, dx: float
) -> torch.Tensor:
    """Discharge per metre of width [m^2/s] (L,) of an inflow over a stretch, in which faces may lie with a part."""
    import torch

    length = len(has_data) * dx
    end = length if end is None else end
    if not 0 <= start < end <= length:
        raise ValueError(f"--inflow must lie between 0 and {length:g} m, the length of the side; it is {words!r}")
    if not 0 < discharge < float("inf"):
        raise ValueError(f"--inflow must be a positive discharge; it is {words!r}")
    faces = torch.arange(len(has_data), dtype=torch.float64) * dx
    width = ((faces + dx).clamp_max(end) - faces.clamp_min(start)).clamp_min(0) * has_data
    if not width.any():
        raise ValueError(f"--inflow must come in over ground; there is no cell with data at {words!r}")
    return discharge / width.sum() * width / dx


@dataclass
class _Flood:
    """A run in pieces, added up."""

    depths: list[torch.Tensor]  # (R, C) [m] at the saved times
    whole: FloodResult
    wet: int = 0  # the most cells deeper than _WET at any time
    fast: int = 0  # the most of them in which the flow is supercritical


def _run(
    solver: LocalInertialSolver, z: torch.Tensor, times: Sequence[float], start: FloodResult, **options: Any
) -> _Flood | None:
    """Run in pieces of equal time, several between two saved depths; None if the depths left all bounds."""
    import torch

    from lib.progress import progress

    flood = _Flood([] if len(times) == 1 else [start.h], start)
    intervals = max(len(times) - 1, 1)
    each = -(-_PIECES // intervals)
    for piece in progress(range(1, each * intervals + 1), "flood"):
        result = solver.simulate(z, times[-1] / (each * intervals), state=flood.whole.state, **options)
        if bool(torch.isnan(result.time)):
            return None
        so_far = flood.whole
        flood.whole = replace(
            result,
            steps=so_far.steps + result.steps,
            volume_before=so_far.volume_before,
            volume_in=so_far.volume_in + result.volume_in,
            volume_out=so_far.volume_out + result.volume_out,
        )
        wet, fast = _supercritical(result.state, solver.g)
        flood.wet, flood.fast = max(flood.wet, wet), max(flood.fast, fast)
        if piece % each == 0:
            flood.depths.append(result.h)
    return flood


def _supercritical(state: State, g: float) -> tuple[int, int]:
    """How many cells are wet, and in how many of them the Froude number `|q| / sqrt(g h^3)` is above 1."""
    h, qx, qy = state[:3]
    east, south = (qx[:, 1:] + qx[:, :-1]) / 2, (qy[1:] + qy[:-1]) / 2
    wet = h > _WET
    fast = wet & (east.square() + south.square() > g * h.pow(3))
    return int(wet.sum()), int(fast.sum())


def _remark(rate: float | str, solver: LocalInertialSolver, precision: str) -> str:
    """What was simulated, for a file's comment."""
    fell = rate if isinstance(rate, str) else f"{rate:g} mm/h"
    scheme = f"Manning {solver.manning:g} s m^-1/3, theta {solver.theta:g}, alpha {solver.alpha:g}"
    return f"rain {fell}, {scheme}, {precision}"


def _write(
    path: Path, depths: list[torch.Tensor], ground: Dem, times: Sequence[float], remark: str, *, name: str
) -> None:
    """Depths over time as NetCDF, the last ones as GeoTIFF or as a picture: the suffix decides."""
    import torch

    from lib.files import atomic_path
    from lib.flood.geo import to_xarray, write_depth

    if path.suffix.lower() in _RASTERS:
        write_depth(path, depths[-1], ground.profile)
    elif path.suffix.lower() in _PICTURES:
        from lib.flood.maps import flood_picture

        title = f"{name}: water after {times[-1]:g} s"
        flood_picture(ground.z, depths[-1].numpy(), ground.dx, path, title=title, profile=ground.profile)
    else:
        dataset = to_xarray(torch.stack(depths), ground.profile, times)
        dataset.attrs["comment"] = remark
        with atomic_path(path) as temporary:
            dataset.to_netcdf(temporary, engine="h5netcdf")


def _report(flood: _Flood, ground: Dem) -> list[str]:
    """What happened, in lines."""
    import numpy as np

    whole, h, area = flood.whole, flood.depths[-1].double(), ground.dx**2
    rows, columns = h.shape
    of = "what came in" if whole.volume_in > 0 else "the water before"
    row, column = divmod(int(h.argmax()), columns)
    x, y = ground.profile["transform"] @ (column + 0.5, row + 0.5)
    flooded, cells = int((h > _FLOODED).sum()), h.numel() - int(np.sum(ground.profile.get("missing", 0)))
    lines = [
        ("cells", f"{h.numel()} ({rows} x {columns} of {ground.dx:g} m)"),
        ("steps", f"{int(whole.steps)}"),
        *([("water before", f"{float(whole.volume_before):.1f} m^3")] if whole.volume_before else []),
        ("water in", f"{float(whole.volume_in):.1f} m^3"),
        ("water out", f"{float(whole.volume_out):.1f} m^3"),
        ("mass error", f"{float(whole.mass_error):.1e} of {of}"),
        ("deepest", f"{float(h.max()):.3f} m at x = {x:.1f} m, y = {y:.1f} m"),
        ("flooded", f"{flooded * area:.0f} m^2 deeper than {_FLOODED:g} m, {flooded / cells:.1%} of the map"),
    ]
    text = [f"{name:14}{value}" for name, value in lines]
    if flood.fast > _FAST_SHARE * flood.wet:
        text.append(
            f"Warning: the flow was supercritical (Froude number above 1) in up to {flood.fast} cells at a time, "
            f"{flood.fast / flood.wet:.0%} of the up to {flood.wet} that were deeper than {_WET:g} m. The local "
            "inertial equations do not hold there: take the depths around them with care, or use a solver of the full "
            "shallow water equations."
        )
    return text


@refusals()
def solve(
    tiles: Annotated[str, typer.Option(help="Folder of elevation tiles: .npy arrays or GeoTIFFs, all of one shape.")],
    dx: Annotated[float, typer.Option(help="Side of a cell, in metres.")],
    kind: Annotated[str, typer.Option(help="Floods: rain, inflow or mixed.")] = "mixed",
    manning: Annotated[float, typer.Option(help="Manning's roughness, in s m^-1/3.")] = 0.05,
    alpha: Annotated[float, typer.Option(help="Part of the longest stable time step, up to 1.")] = 0.5,
    floor: Annotated[float, typer.Option(help="Least depth for the time step, in metres.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Of the rivers.")] = 1,
    jobs: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
) -> None:
    """Compute the fine floods of a folder of tiles, those that are not there yet."""
    from lib.flood.scenarios import solve_tiles
    from lib.flood.solver import LocalInertialSolver
    from lib.validation import job_count, known_seed

    solver = LocalInertialSolver(dx=dx, manning=manning, alpha=alpha, h_cfl_min=floor)
    known_seed("--seed", seed)
    job_count(jobs)
    output_folder("--tiles", tiles)
    try:
        found = solve_tiles(tiles, solver, kind=kind, seed=seed, jobs=jobs)  # type: ignore[arg-type]
    except RuntimeError as error:  # a flood has grown beyond all bounds, after work that stays
        raise _failure(str(error)) from error
    typer.echo(f"{len(found)} tiles of {found.shape[0]} x {found.shape[1]} cells are solved")


class Train(TrainingCommand):
    """Train a coarse map through the solver, and print its errors on the test maps."""

    target = "lib.flood.experiment:train_flood"


#: verb -> the command
COMMANDS = {"simulate": simulate, "solve": solve, "train": Train}
