"""Floods to learn from: what drives the water, the fine solutions, and maps of them in memory or in a folder.

What is trained is the coarse map; a fine solution is computed once and kept (Giladi et al., NeurIPS 2021, arXiv
2106.07218). A surrounding `joblib.parallel_config(backend="dask")` carries the solution of maps to a cluster.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from lib.experiment import Pieces
from lib.files import atomic_path, known_path, read_arrays
from lib.flood.boundaries import SIDES, Boundary
from lib.flood.faces import DEPTH_LIMIT
from lib.flood.pooling import elevation_tensor
from lib.flood.solver import LocalInertialSolver
from lib.flood.terrain import Split, make_terrain
from lib.flood.units import EARTH, refuse_voids
from lib.parallel import in_parallel
from lib.validation import instance_of, job_count, known_seed, one_of, positive_integer, positive_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FloodDataset", "Forcing", "TileFolder", "draw_floods", "flood_map", "solve_tiles"]

#: What drives a flood: rain everywhere, a river that comes in at the west, or one of them on every other map.
Kind = Literal["rain", "inflow", "mixed"]

#: Of drawn maps: metres a cell, seconds, rain [m/s], river [m^2/s].
CELL, DURATION, RAIN, RIVER = 8.0, 1800.0, 0.1 / 3600, (0.3, 1.0)

#: What a tile's solution holds, as an item does after its elevations.
_PARTS = ("rain", "inflow", "outflow", "duration", "h")


@dataclass(frozen=True)
class Forcing:
    """What drives the water on each of B maps of R x C cells.

    Attributes:
        rain: Rain on the whole map [m/s] (B,).
        inflow: Discharge per metre of width into the map [m^2/s] (B, 4, L), through the sides west, east, north, south
            in this order; L is the longer of R and C, and a shorter side uses the first of its entries.
        outflow: Slope [-] of the ground outside (B, 4, L), zero where a side is closed.
        duration: Seconds (B,).

    Examples:
        >>> Forcing.of_rain(2, (4, 4), 1e-5, 600.0).coarse(2).inflow.shape
        torch.Size([2, 4, 2])
    """

    rain: Tensor
    inflow: Tensor
    outflow: Tensor
    duration: Tensor

    @classmethod
    def of_rain(cls, count: int, shape: tuple[int, int], rain: float, duration: float) -> Forcing:
        """The same rain [m/s] on so many maps, for so many seconds; all sides are walls."""
        sides = torch.zeros(positive_integer("count", count), 4, max(shape))
        return cls(torch.full((count,), rain), sides, sides.clone(), torch.full((count,), duration))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four tensors, in their order."""
        return self.rain, self.inflow, self.outflow, self.duration

    def __getitem__(self, some: slice) -> Forcing:
        return Forcing(*(part[some] for part in self.parts))

    def coarse(self, factor: int) -> Forcing:
        """The same on maps of `factor` times as wide cells: discharges stay what they are."""
        length = self.inflow.shape[-1]
        if length % positive_integer("factor", factor):
            raise ValueError(f"the sides must be multiples of the factor {factor}; they have {length} faces")

        def mean(faces: Tensor) -> Tensor:
            return faces.reshape(*faces.shape[:-1], length // factor, factor).mean(-1)

        # what flows out grows with the root of the slope
        return replace(self, inflow=mean(self.inflow), outflow=mean(self.outflow.sqrt()).square())

    def boundary(self, shape: tuple[int, int]) -> Boundary | None:
        """The sides of maps of R x C cells; None if all of them are walls."""
        faces = dict(zip(SIDES, (shape[0], shape[0], shape[1], shape[1]), strict=True))

        def opened(sides: Tensor) -> dict[str, Tensor]:
            each = zip(faces.items(), sides.unbind(1), strict=True)
            return {name: side[:, :length] for (name, length), side in each if bool((side != 0).any())}

        inflow, outflow = opened(self.inflow), opened(self.outflow)
        return Boundary(inflow, outflow) if inflow or outflow else None

    def simulate(self, solver: LocalInertialSolver, z: Tensor, **options: Any) -> Tensor:
        """Depths [m] (B, R, C) at the end of the flood on maps `z` (B, R, C); `options` go to `simulate`."""
        rain = self.rain[:, None, None] if bool((self.rain != 0).any()) else None
        boundary = self.boundary((z.shape[-2], z.shape[-1]))
        return solver.simulate(z, self.duration, rain=rain, boundary=boundary, **options).h


class FloodDataset(TensorDataset):
    """Maps `z`, what drives the water on them, and depths `h` of their fine solutions (B, R, C) [m], in memory.

    An item is `(z, rain, inflow, outflow, duration, h)`.

    Examples:
        >>> z = torch.zeros(3, 4, 4)
        >>> data = FloodDataset(z, z + 0.1, Forcing.of_rain(3, (4, 4), 1e-5, 600.0))
        >>> len(data), len(data[0]), data.forcing.rain.shape
        (3, 6, torch.Size([3]))
    """

    def __init__(self, z: Tensor, h: Tensor, forcing: Forcing) -> None:
        elevation_tensor("z", z)
        elevation_tensor("h", h)
        instance_of("forcing", forcing, Forcing, "a Forcing")
        if z.ndim != 3 or h.shape != z.shape:
            raise ValueError(f"z and h must have one shape (B, R, C); they have {tuple(z.shape)} and {tuple(h.shape)}")
        count, side = len(z), max(z.shape[1:])
        shapes = {"rain": (count,), "inflow": (count, 4, side), "outflow": (count, 4, side), "duration": (count,)}
        for (name, shape), part in zip(shapes.items(), forcing.parts, strict=True):
            if part.shape != shape:
                raise ValueError(f"forcing.{name} must have the shape {shape}; it has {tuple(part.shape)}")
            if not bool((torch.isfinite(part) & (part >= 0)).all()):
                raise ValueError(f"forcing.{name} must be finite and not negative; an entry of it is not")
        if h.dtype != z.dtype or bool((h < 0).any()):
            raise ValueError("h must have the dtype of z and not be negative; it has another, or an entry below 0")
        super().__init__(z, *(part.to(z.dtype) for part in forcing.parts), h)

    @property
    def z(self) -> Tensor:
        """Elevations (B, R, C)."""
        return self.tensors[0]

    @property
    def h(self) -> Tensor:
        """Depths of the fine solutions (B, R, C)."""
        return self.tensors[-1]

    @property
    def forcing(self) -> Forcing:
        """What drives the water."""
        return Forcing(*self.tensors[1:-1])

    def part(self, some: slice) -> FloodDataset:
        """Some of the maps.

        Examples:
            >>> z = torch.zeros(3, 4, 4)
            >>> len(FloodDataset(z, z, Forcing.of_rain(3, (4, 4), 0.0, 600.0)).part(slice(2)))
            2
        """
        instance_of("some", some, slice, "a slice")
        return FloodDataset(self.z[some], self.h[some], self.forcing[some])


def draw_floods(
    count: int,
    *,
    seed: int,
    kind: Kind = "rain",
    split: Split = "train",
    side: int = 128,
    solver: LocalInertialSolver | None = None,
    jobs: int | None = None,
    folder: str | Path | None = None,
) -> FloodDataset:
    """Draw flood plains (`make_terrain`) and solve a flood on each: half an hour, walls around.

    Args:
        count: Number of maps; they are those of a larger draw with the same seed.
        seed: Of the terrains and the rivers.
        kind: `"rain"`: 100 mm/h everywhere. `"inflow"`: 0.3 to 1 m^2/s through a quarter of the western side.
            `"mixed"`: rain on the first map, a river on the second, and so on.
        split: Region of the real elevations, `"train"` or `"test"`.
        side: Cells along a side, a multiple of 4.
        solver: By default one with cells of 8 m and time steps for at least 5 cm of water.
        jobs: Processes; None leaves it to a surrounding `joblib.parallel_config`.
        folder: Where solutions are kept, one file a map: what is there is not solved again.

    Returns:
        float32; each map's mean elevation is 0.

    Examples:
        >>> data = draw_floods(2, seed=1, kind="mixed", side=32)
        >>> data.h.shape, (data.forcing.rain > 0).tolist()
        (torch.Size([2, 32, 32]), [True, False])
    """
    one_of("kind", kind, get_args(Kind))
    known_seed("seed", seed)
    fine = LocalInertialSolver(dx=CELL, h_cfl_min=0.05) if solver is None else solver
    instance_of("solver", fine, LocalInertialSolver)
    positive_integer("count", count)
    if positive_integer("side", side) % 4:
        raise ValueError(f"side must be a multiple of 4; it is {side}")
    pieces = Pieces(folder)
    job_count(jobs)
    z = torch.empty(count, side, side)
    forcing = Forcing.of_rain(count, (side, side), 0.0, DURATION)
    for i in range(count):
        # a generator a map: a larger draw begins with the maps of a smaller one
        rng = np.random.default_rng((seed, i))
        drawn = torch.from_numpy(make_terrain((side, side), split, rng=rng))
        z[i] = drawn - drawn.mean()
        if kind == "rain" or (kind == "mixed" and i % 2 == 0):
            forcing.rain[i] = RAIN
        else:
            first = int(rng.integers(side - side // 4 + 1))
            forcing.inflow[i, 0, first : first + side // 4] = rng.uniform(*RIVER)
    work = [_piece(fine, z[i : i + 1], forcing[i : i + 1]) for i in range(count)]
    solved = pieces.compute(_solved, work, "fine floods", jobs=jobs)
    return FloodDataset(z, torch.cat([torch.from_numpy(each["h"]) for each in solved]), forcing)


def _piece(solver: LocalInertialSolver, z: Tensor, forcing: Forcing) -> tuple[dict[str, str], tuple[Any, ...]]:
    """What a solution is computed from, as `Pieces` wants it."""
    return {"solver": repr(solver), "flood": _digest(z, *forcing.parts)}, (solver, z, forcing)


def _solved(solver: LocalInertialSolver, z: Tensor, forcing: Forcing) -> dict[str, Any]:
    return {"h": flood_map(solver, z, forcing).numpy()}


def solution_cache() -> Path | None:
    """A folder of the user's cache for `draw_floods`, one for each state of the code that solves; None without any."""
    import pooch

    here = Path(__file__).parent
    sources = (here / f"{name}.py" for name in ("boundaries", "compiled", "faces", "scenarios", "solver"))
    code = b"".join(path.read_bytes() for path in sources) + f"{np.__version__} {version('numba')}".encode()
    folder = Path(pooch.os_cache("paperplay")) / "floods" / hashlib.sha256(code).hexdigest()[:24]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def flood_map(solver: LocalInertialSolver, z: Tensor, forcing: Forcing) -> Tensor:
    """Solve the floods on maps (B, R, C) by the compiled loop: depths (B, R, C) [m]. Divergence is an error.

    Examples:
        >>> flood_map(LocalInertialSolver(dx=8.0), torch.zeros(1, 2, 2), Forcing.of_rain(1, (2, 2), 1e-5, 1000.0))
        tensor([[[0.0100, 0.0100],
                 [0.0100, 0.0100]]])
    """
    h = forcing.simulate(solver, z.detach(), backend="compiled")
    if not bool((h.abs() < DEPTH_LIMIT).all()):
        raise RuntimeError("a flood has grown beyond all bounds: take a smaller alpha")
    return h


class TileFolder(Dataset[tuple[Tensor, ...]]):
    """Tiles of a large elevation map in a folder, with their fine solutions beside them.

    Each tile is `NAME.npy` (R, C) or a GeoTIFF `NAME.tif`; `solve_tiles` writes its solution to `NAME.flood.npz`.
    Items are those of `FloodDataset`, float32, read when they are asked for.

    Args:
        folder: Of the tiles; all have one shape.
        dx: Side of a cell [m], with which GeoTIFFs must agree.

    Attributes:
        tiles: Their files, in the order of their names.
        shape: Cells (R, C) of each.
    """

    def __init__(self, folder: str | Path, dx: float) -> None:
        self.folder, self.dx = known_path("folder", folder), positive_number("dx", dx)
        kinds = (".npy", ".tif", ".tiff")
        self.tiles = sorted(path for path in self.folder.glob("*") if path.suffix.lower() in kinds)
        if not self.tiles:
            raise ValueError(f"{self.folder} must hold tiles, as .npy or GeoTIFF; there is none")
        names = [path.stem for path in self.tiles]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.folder} holds two tiles of one name: {sorted(names)}")
        shape = self.elevations(0).shape
        self.shape: tuple[int, int] = (shape[0], shape[1])
        for path in self.tiles:
            its = self._load(path, mmap_mode="r").shape if path.suffix.lower() == ".npy" else self.shape
            if its != self.shape:
                raise ValueError(f"{path} must have the shape {self.shape}; it has {its}")

    def __len__(self) -> int:
        return len(self.tiles)

    def elevations(self, index: int) -> Tensor:
        """Elevations (R, C) float32 [m] of a tile, less their mean."""
        path = self.tiles[index]
        if path.suffix.lower() == ".npy":
            z = torch.from_numpy(self._load(path).astype(np.float64))
        else:
            from lib.flood.geo import read_dem

            z, dx, _ = read_dem(path)
            if not np.isclose(dx, self.dx):
                raise ValueError(f"{path} has cells of {dx:g} m; the others are said to have {self.dx:g} m")
        heights = elevation_tensor(str(path), z).numpy().ravel()
        refuse_voids(str(path), heights, heights, EARTH, "elevation: cut these cells off or fill them")
        if z.ndim != 2 or z.shape != getattr(self, "shape", z.shape):
            raise ValueError(f"{path} must have the shape {getattr(self, 'shape', '(R, C)')}; it has {tuple(z.shape)}")
        return (z - z.mean()).float()

    @staticmethod
    def _load(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
        try:
            stored: NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode=mmap_mode)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} is no array that can be read: {error}") from error
        if stored.dtype.kind not in "iuf":
            raise ValueError(
                f"{path} is no array that can be read: it must hold real numbers, and holds {stored.dtype}"
            )
        return stored

    def solution(self, index: int) -> Path:
        """Where a tile's fine solution is, or will be."""
        return self.tiles[index].with_suffix(".flood.npz")

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        path = self.solution(index)
        if not path.exists():
            raise ValueError(f"{path} is missing: solve the tiles first (solve_tiles)")
        parts = read_arrays(path, *_PARTS).values()
        return (self.elevations(index), *(torch.from_numpy(part) for part in parts))


def tile_forcing(z: Tensor, dx: float, kind: Kind, name: str, *, seed: int = 0) -> Forcing:
    """A flood of one hour for one tile (R, C), with the amounts of water of the paper's code.

    Rain of 35 mm/h with closed sides, or a river of 200 m^3/s over up to 400 m of a side at random, with as long a
    stretch of outflow (slope 0.002) around the lowest cell of the sides without the river. The tile's name and the
    seed decide about all that is random, so other tiles may come and go.

    Examples:
        >>> forcing = tile_forcing(torch.zeros(100, 100), 8.0, "inflow", "north-17")
        >>> print(f"{(8.0 * forcing.inflow.sum()).item():.1f} m^3/s over {8 * int((forcing.inflow > 0).sum())} m")
        200.0 m^3/s over 400 m
    """
    one_of("kind", kind, get_args(Kind))
    rows, columns = z.shape
    forcing = Forcing.of_rain(1, (rows, columns), 0.0, 3600.0)
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    coin = rng.integers(2)
    if kind == "rain" or (kind == "mixed" and coin == 0):
        forcing.rain[0] = 0.035 / 3600
        return forcing
    river = int(rng.integers(4))
    edges = (z[:, 0], z[:, -1], z[0], z[-1])
    length = len(edges[river])
    faces = max(1, min(length, round(400 / dx)))
    first = int(rng.integers(length - faces + 1))
    forcing.inflow[0, river, first : first + faces] = 200 / (faces * dx)
    out = min((side for side in range(4) if side != river), key=lambda side: float(edges[side].min()))
    middle, length = int(edges[out].argmin()), len(edges[out])
    first = max(0, min(middle - faces // 2, length - faces))
    forcing.outflow[0, out, first : first + faces] = 0.002
    return forcing


def solve_tiles(
    folder: str | Path,
    solver: LocalInertialSolver,
    *,
    kind: Kind = "mixed",
    seed: int = 0,
    jobs: int | None = None,
) -> TileFolder:
    """Compute the fine solutions of a folder of tiles, those that are not there yet.

    Args:
        solver: The fine one; its `dx` is that of the tiles.
        kind, seed: As for `tile_forcing`.
        jobs: Processes; None leaves it, and where they run, to a surrounding `joblib.parallel_config`.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     for name in "ab":
        ...         np.save(Path(place) / f"{name}.npy", np.zeros((16, 16)))
        ...     tiles = solve_tiles(place, LocalInertialSolver(dx=400.0), kind="rain")
        ...     print(f"{tiles[1][-1].mean().item():.4f}")
        0.0350
    """
    one_of("kind", kind, get_args(Kind))
    seed = known_seed("seed", seed)
    job_count(jobs)
    tiles = TileFolder(folder, instance_of("solver", solver, LocalInertialSolver).dx)
    todo = []
    for index in range(len(tiles)):
        path = tiles.solution(index)
        if not path.exists():
            todo.append((tiles, index, solver, kind, seed))
            continue
        settings = _settings(tiles.elevations(index), solver, kind, seed)
        stored = str(read_arrays(path, "settings", *_PARTS)["settings"])
        if stored != settings:
            raise ValueError(f"{path} was made with other settings, {stored}: move it away")
    for _ in in_parallel(_solve_tile, todo, "fine floods", jobs=jobs):
        pass
    return tiles


def _settings(z: Tensor, solver: LocalInertialSolver, kind: Kind, seed: int) -> str:
    """What a solution depends on."""
    return repr((solver, kind, seed, _digest(z)))


def _digest(*parts: Tensor) -> str:
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def _solve_tile(tiles: TileFolder, index: int, solver: LocalInertialSolver, kind: Kind, seed: int) -> None:
    z = tiles.elevations(index)
    forcing = tile_forcing(z, solver.dx, kind, tiles.tiles[index].stem, seed=seed)
    h = flood_map(solver, z[None], forcing)
    stored: dict[str, Any] = {name: part[0].numpy() for name, part in zip(_PARTS, (*forcing.parts, h), strict=True)}
    stored["settings"] = _settings(z, solver, kind, seed)
    with atomic_path(tiles.solution(index)) as temporary:
        np.savez_compressed(temporary, **stored)
