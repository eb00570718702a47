"""What the numbers in a map's file stand for: units of heights and of rain, and voids that are not declared."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from lib.validation import instance_of

__all__ = ["EARTH", "WEATHER", "metres", "millimetres_per_hour", "refuse_voids"]

Array = NDArray[np.float64]

#: Elevations [m] that the Earth has, and rain [mm/h] that has fallen on it, with some room.
EARTH, WEATHER = (-11_500.0, 9_000.0), (0.0, 2_500.0)
#: Values that often stand for "no data" in files that do not say so.
_VOIDS = (-9999, 9999, -99999, 99999, -999, -99, -9998, -8888, -7777, -32768, -32767, 32767, 65535)
#: Units of length [m] that PROJ does not know by these words; its decimetre is one of 0.01 m.
_LENGTHS = {
    **{"masl": 1.0, "decimetre": 0.1, "dm": 0.1, "internationalfoot": 0.3048, "footintl": 0.3048},
    **dict.fromkeys(("surveyfoot", "footus"), 1200 / 3937),
}
#: Units of rain [mm/h]; a file without a unit is taken to hold the first.
_RATES = {"": 1.0, "mm/h": 1.0, "mm/d": 1 / 24, "mm/s": 3600.0, "kgm-2/s": 3600.0, "kg/m2/s": 3600.0, "m/s": 3.6e6}


def metres(name: str, unit: str) -> float:
    """A unit of length [m], by PROJ's names and other usual ones."""
    from pyproj.database import get_units_map

    def plain(word: str) -> str:
        word = re.sub(r"[\s._()\[\]-]", "", word.lower()).replace("meter", "metre")
        return re.sub("feet|ft", "foot", word)

    proj = get_units_map(category="linear").items()
    known = {plain(word): entry.conv_factor for name, entry in proj for word in (name, entry.proj_short_name or name)}
    known |= _LENGTHS
    word = plain(instance_of(name, unit, str, "the name of a unit"))
    size = known.get(word, known.get(word.removesuffix("s")))
    if size is None:
        raise ValueError(f"{name} must be one of length such as m or ft; it is {unit!r}: say it with z_unit (--z-unit)")
    return float(size)


def millimetres_per_hour(name: str, unit: str) -> float:
    """The unit [mm/h] of the rain in the file `name`."""
    word = re.sub(r"[\s.*^]", "", unit.lower()).replace("hour", "h").replace("hr", "h").replace("day", "d")
    rate = _RATES.get(re.sub("([hds])-1$", r"/\1", word))
    if rate is None:
        raise ValueError(f"{name} must hold rain in mm/h (or mm/day, m s-1, kg m-2 s-1); its unit is {unit!r}")
    return rate


def refuse_voids(name: str, raw: Array, values: Array, bounds: tuple[float, float], advice: str) -> None:
    """Refuse numbers `raw` of a file whose `values` lie out of bounds, and usual voids that stand apart from others."""
    outside = (values < bounds[0]) | (values > bounds[1])
    found, counts = np.unique(raw[outside | np.isin(raw, _VOIDS)], return_counts=True)
    for index in np.argsort(-counts, kind="stable"):
        void, count, same = found[index], counts[index], raw == found[index]
        near = (np.abs(values - values[same][0]) < 50.0) & ~same
        # ground is continuous; a few cells between it and a void are what a warp has blended
        if outside[same].any() or count > 10 * near.sum():
            found_there = f"{count} of the {raw.size} cells of {name} that are not declared void hold {void:.7g}"
            raise ValueError(f"{found_there}, which is no {advice.format(f'{void:.7g}')}")
