"""What chapters that train or sweep share: checked settings with names, runs that are stored, resumable pieces of work.

A chapter's settings are a frozen dataclass on `Preset`; its `PRESETS` hold `quick` (seconds), `laptop` (minutes) and
`paper` (the paper's own data, model and hyper-parameters). Training returns a `Run`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from lib.files import atomic_path, output_folder, read_arrays
from lib.parallel import in_parallel
from lib.validation import (
    finite_number,
    instance_of,
    integer_at_least,
    job_count,
    known_seed,
    number_between,
    one_of,
    pair,
    positive_integer,
    positive_number,
    true_or_false,
)

# torch is imported where a network is: chapters that sweep without one start faster
if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn
    from torch.utils.data import Dataset

__all__ = [
    "BelowOne",
    "Count",
    "Natural",
    "NonNegative",
    "OpenFraction",
    "Pieces",
    "Positive",
    "Preset",
    "Run",
    "Seed",
    "below_one",
    "described",
    "named",
    "prepare",
    "train_in_ways",
]

Check = Callable[[str, Any], Any]


def _inside(name: str, value: float) -> float:
    number = number_between(name, value, 0, 1)
    if number in (0, 1):
        raise ValueError(f"{name} must lie between 0 and 1, and be neither; it is {value}")
    return number


def below_one(name: str, value: float) -> float:
    """Return `value` as a float if it is at least 0 and below 1."""
    number = number_between(name, value, 0)
    if number >= 1:
        raise ValueError(f"{name} must be at least 0 and below 1; it is {value}")
    return number


#: Kinds of numbers for the fields of a `Preset`: the check stands beside the type.
Count = Annotated[int, positive_integer]
Natural = Annotated[int, partial(integer_at_least, low=0)]
Seed = Annotated[int, known_seed]
Positive = Annotated[float, positive_number]
NonNegative = Annotated[float, partial(number_between, low=0)]
BelowOne = Annotated[float, below_one]
OpenFraction = Annotated[float, _inside]


@dataclass(frozen=True)
class Preset:
    """Settings, each checked by its annotation when an instance is made.

    Fields are kinds of numbers as above, `float` (finite), `bool`, `str`, `Literal[...]`, another dataclass, one of
    these or None, or `tuple[kind, ...]` (which takes lists and arrays, but not empty ones). Values become Python's own.

    Examples:
        >>> @dataclass(frozen=True)
        ... class Walk(Preset):
        ...     gait: Literal["slow", "fast"] = "slow"
        >>> Walk(gait="odd")
        Traceback (most recent call last):
        ...
        ValueError: gait must be one of slow, fast; it is 'odd'
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, check in _checks(kind).items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        self.check()

    def check(self) -> None:
        """Refuse fields that do not go together."""

    def record(self) -> dict[str, Any]:
        """All settings, as a file can hold them."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The settings that a file holds."""
        hints = get_type_hints(cls)
        made = {name: hints[name](**held) for name, held in record.items() if is_dataclass(hints.get(name))}
        return cls(**{**record, **made})


@cache
def _checks(kind: type[Any]) -> dict[str, Check]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _check(hints[field.name]) for field in fields(kind)}


def _check(hint: Any) -> Check:
    """What looks at a value of such an annotation, and returns it as Python's own."""
    parts = get_args(hint)
    origin = get_origin(hint)
    if origin is Annotated:
        check: Check = parts[1]
        return check
    if origin is Literal:
        return partial(one_of, options=parts)
    if origin in (Union, types.UnionType):
        (inner,) = (part for part in parts if part is not types.NoneType)
        of_it = _check(inner)
        return lambda name, value: None if value is None else of_it(name, value)
    if origin is tuple:
        return partial(_tuple, check=_check(parts[0]))
    known: dict[Any, Check] = {bool: true_or_false, float: finite_number}
    return known.get(hint) or partial(instance_of, kind=hint)


def _tuple(name: str, value: Any, check: Check) -> tuple[Any, ...]:
    if not (isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim)):
        raise TypeError(f"{name} must be a list or a tuple; it is {value!r}")
    if not len(value):
        raise ValueError(f"{name} must not be empty")
    return tuple(check(name, each) for each in value)


P = TypeVar("P", bound=Preset)


def named(preset: str | P, presets: Mapping[str, P]) -> P:
    """A preset by its name, or one that the caller has made.

    Examples:
        >>> from lib.four_bit import PRESETS
        >>> named("laptop", PRESETS).count
        10000
    """
    if isinstance(preset, str):
        return presets[one_of("preset", preset, presets)]
    kind = type(next(iter(presets.values())))
    return instance_of("preset", preset, kind, f"one of {', '.join(presets)}, or a {kind.__name__}")


def described(kind: type) -> dict[str, str]:
    """What the section "Attributes" of a class's docstring says of each name."""
    entry = re.compile(r"^    (\w+(?:, \w+)*): (.+(?:\n {8}.+)*)", re.MULTILINE)
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):  # what a class says of a name holds before what those that it is made from say
        _, _, section = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")
        for names, text in entry.findall(re.split(r"\n\n\S", section)[0]):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


@dataclass(frozen=True)
class Run:
    """A trained network; chapters add what else came of the training.

    Attributes:
        model: The network, in evaluation mode.
        losses: Before every step.
        scores: After every epoch.
        diverged: Whether training stopped because a loss or a gradient was not finite.
        preset: How it was made.
    """

    model: nn.Module
    losses: NDArray[np.float64]
    scores: NDArray[np.float64]
    diverged: bool
    preset: Preset

    #: The class of `preset`; what `scores` are, and their format.
    preset_class: ClassVar[type[Preset]] = Preset
    score: ClassVar[tuple[str, str]] = ("test accuracy", "13.4f")

    def facts(self) -> dict[str, Any]:
        """What the network is made from beside the preset, such as the number of classes of a folder of pictures."""
        return {}

    @staticmethod
    def network(preset: Any, facts: dict[str, Any]) -> nn.Module:
        """The network at any weights, from what `facts` gave."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """The scores as a table."""
        name, form = self.score
        if not len(self.scores):
            return []
        return [f"   epoch   {name}", *(f"{epoch:8d}   {score:{form}}" for epoch, score in enumerate(self.scores, 1))]

    def save(self, path: str | Path) -> None:
        """Write the network, how it was made and its training to one file (.npz); `load` reads it."""
        from lib.checkpoints import save_network

        series = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("model", "preset")}
        save_network(path, self.model, {**self.preset.record(), **self.facts()}, **series)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, in evaluation mode; no code is unpickled."""
        from lib.checkpoints import load_network

        def apart(held: dict[str, Any]) -> tuple[Preset, dict[str, Any]]:
            own = {each.name: held[each.name] for each in fields(cls.preset_class) if each.name in held}
            return cls.preset_class.from_record(own), {name: held[name] for name in held.keys() - own.keys()}

        model, held, series = load_network(path, lambda held: cls.network(*apart(held)))
        values: dict[str, Any] = {name: each if each.ndim else each.item() for name, each in series.items()}
        try:
            return cls(model=model, preset=apart(held)[0], **{"diverged": False, **values})
        except TypeError as error:
            raise ValueError(f"{path} holds no {cls.__name__}: {error}") from error


if TYPE_CHECKING:
    M = TypeVar("M", bound=nn.Module)
    D = TypeVar("D", Dataset[Any], Dataset[Any] | None)


def prepare(
    preset: Preset,
    folder: str | Path | None,
    task: Callable[[], tuple[M, Dataset[Any], D]],
    *,
    batch_size: int,
    device: str,
    precision: str,
    every: int | None,
    workers: int,
) -> tuple[M, Dataset[Any], D, int]:
    """Look at all that a training needs; what is refused has taken no folder, which afterwards belongs to this preset.

    Returns:
        What `task` gives (the network at its initial weights, training data, test data), and the steps in an epoch.
    """
    from lib.checkpoints import claim_experiment, held_experiment
    from lib.training import check_options, is_first_process, steps_an_epoch

    check_options(device=device, precision=precision, every=every, workers=workers, folder=folder)
    if folder is not None:
        held_experiment(folder, preset.record())
    model, train, test = task()
    per_epoch = steps_an_epoch(train, batch_size, device)
    if folder is not None and is_first_process(device):
        claim_experiment(folder, preset.record())
    return model, train, test, per_epoch


R = TypeVar("R", bound=Run)


def train_in_ways(
    train: Callable[[Any, Path | None], R],
    ways: Mapping[str, Preset],
    *,
    seeds: Iterable[int],
    folder: str | Path | None,
    jobs: int | None,
) -> dict[str, list[R]]:
    """Train each of several presets with several seeds, in processes side by side.

    Args:
        train: Of a preset and the folder of its checkpoints; other processes must be able to import it.
        ways: Presets by name; their `seed` is replaced.
        folder: Checkpoints go to a folder a training in it; a second call goes on from them. None keeps nothing.
        jobs: Processes; None leaves it to a surrounding `joblib.parallel_config`, which may carry them to a cluster.

    Returns:
        The runs by way, in the order of the seeds.
    """
    seeds = _distinct(seeds)
    job_count(jobs)
    place = None if folder is None else output_folder("folder", folder)
    work = [
        (replace(preset, **{"seed": seed}), place and place / _file_name(way) / f"seed-{seed}")
        for way, preset in ways.items()
        for seed in seeds
    ]
    runs = iter(list(in_parallel(train, work, "trainings", jobs=jobs)))
    return {way: list(islice(runs, len(seeds))) for way in ways}


def _distinct(seeds: object) -> list[int]:
    if not isinstance(seeds, Iterable):
        raise TypeError(f"seeds must be a list of integers; it is {seeds!r}")
    found = [known_seed("seeds", seed) for seed in seeds]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"seeds must hold at least one integer, each once; it is {found}")
    return found


def _file_name(way: str) -> str:
    """A way's name without what a file system might not like."""
    return re.sub(r"[^A-Za-z0-9]+", "-", way).strip("-").lower()


#: A piece of work: the settings that it depends on, and the arguments of the function that does it.
Work = Sequence[tuple[Mapping[str, Any], tuple[object, ...]]]
Result = dict[str, Any]


class Pieces:
    """Independent pieces of work, one small file each, so that what was interrupted goes on where it stopped.

    A file is named by a digest of the settings that its content is computed from, so a folder can hold many works.
    Without a folder nothing is kept.

    Examples:
        >>> Pieces(None).compute(lambda base: {"square": base**2}, [({"base": base}, (base,)) for base in (2, 3)], "")
        [{'square': 4}, {'square': 9}]
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else output_folder("folder", folder)

    def path(self, key: Mapping[str, Any]) -> Path | None:
        """The file of a piece."""
        return self.folder and self.folder / f"{hashlib.sha256(_text(key).encode()).hexdigest()[:24]}.npz"

    def compute(
        self,
        function: Callable[..., Result],
        work: Work,
        description: str,
        *,
        jobs: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> list[Result]:
        """The results of a function for each piece, in order; those that are there are not computed again.

        Args:
            function: Something that other processes can import; it returns a dict of numbers and arrays.
            jobs: Processes; None leaves it to a surrounding `joblib.parallel_config`.
            shard: `(i, n)`: only the pieces whose place is `i` modulo `n`, for a cluster of `n` workers on one folder.
        """
        index, count = (integer_at_least("shard", part, 0) for part in pair("shard", shard))
        if index >= count:
            raise ValueError(f"shard must be (i, n) with 0 <= i < n; it is {shard}")
        job_count(jobs)
        mine = work[index::count]
        paths = [self.path(key) for key, _ in mine]
        results = {place: _read(path) for place, path in enumerate(paths) if path is not None and path.exists()}
        missing = [place for place in range(len(mine)) if place not in results]
        calls = [(function, mine[place][1], paths[place], _text(mine[place][0])) for place in missing]
        results |= dict(zip(missing, in_parallel(_compute, calls, description, jobs=jobs), strict=True))
        return [results[place] for place in range(len(mine))]

    def keep(self, key: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Write the result of a piece that was come by on another way."""
        path = self.path(key)
        if path is not None:
            _write(path, _text(key), _plain(result))

    def load(self, work: Work) -> list[Result]:
        """The results of work that is done; a ValueError if pieces are missing."""
        there = [path for path in (self.path(key) for key, _ in work) if path is not None and path.exists()]
        if len(there) < len(work):
            raise ValueError(f"{self.folder} must hold all {len(work)} pieces; {len(work) - len(there)} are missing")
        return [_read(path) for path in there]


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(dict(key), sort_keys=True)


def _plain(result: Mapping[str, Any]) -> Result:
    """Arrays as they are, numbers as Python's."""
    arrays = {name: np.asarray(value) for name, value in result.items()}
    return {name: array if array.ndim else array.item() for name, array in arrays.items()}


def _read(path: Path) -> Result:
    return _plain({name: array for name, array in read_arrays(path).items() if name != "key"})


def _compute(function: Callable[..., Result], arguments: tuple[object, ...], path: Path | None, key: str) -> Result:
    result = _plain(function(*arguments))
    if path is not None:
        _write(path, key, result)
    return result


def _write(path: Path, key: str, result: Result) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, key=key, **result)
