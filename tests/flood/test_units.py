"""Units of heights by many names, and ground that only looks like a void."""

import re

import numpy as np
import pytest

from lib.flood.units import EARTH, metres, millimetres_per_hour, refuse_voids

METRES = {
    1.0: ("m", "M", "metre", "Meters", "metres", "[m]", "m a.s.l."),
    0.3048: ("ft", "feet", "Foot", "international feet", "ft."),
    1200 / 3937: ("US survey foot", "ftUS", "us-ft", "US_survey_feet", "Foot_US", "U.S. survey ft", "survey foot"),
    0.01: ("cm", "centimetres", "centimeter"),
    0.1: ("dm", "decimeter"),
    0.001: ("mm",),
    1000.0: ("km", "kilometers"),
    0.3048007491: ("British foot (1936)",),
}


@pytest.mark.parametrize(("word", "size"), [(word, size) for size, words in METRES.items() for word in words])
def test_units_of_heights_are_known_by_many_names(word, size):
    assert metres("z_unit", word) == pytest.approx(size, rel=1e-9)


@pytest.mark.parametrize("word", ["K", "degrees", "0.1 m", "m2", "furlongs", "m/s", "hPa", "s", ""])
def test_unknown_units_are_named(word):
    with pytest.raises(ValueError, match=rf"the unit of a\.tif must be one of length .*'{re.escape(word)}'.*--z-unit"):
        metres("the unit of a.tif", word)


@pytest.mark.parametrize(
    ("word", "rate"),
    [("", 1), ("mm/h", 1), ("mm hr-1", 1), ("mm/hour", 1), ("mm/day", 1 / 24), ("mm d^-1", 1 / 24), ("mm s-1", 3600),
     ("kg m-2 s-1", 3600), ("kg/m2/s", 3600), ("m s**-1", 3.6e6), ("m/s", 3.6e6)],
)  # fmt: skip
def test_units_of_rain(word, rate):
    assert millimetres_per_hour("rain.nc", word) == pytest.approx(rate)


def relief(low=100.0, high=120.0, size=24):
    x = np.linspace(0, 1, size)
    return low + (high - low) * np.add.outer(x, x) / 2


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (relief(-430.5, -380), np.float32),  # the Dead Sea
        (relief(-125, -40), np.int16),  # the Danakil, which passes through -99
        (relief(-10984, -9000, 64), np.int16),  # deep sea, which passes through -9999
        (relief(-1010, -990), np.int16),
        (relief(8700, 8849), np.float64),
        (relief(0, 255), np.uint8),
        (np.zeros((4, 4)), np.float32),
        (np.full((4, 4), -3.0), np.float64),
    ],
)
def test_low_and_high_ground_is_ground(values, dtype):
    stored = values.astype(dtype).astype(float)
    refuse_voids("a.tif", stored, stored, EARTH, "elevation")


def test_voids_that_a_warp_has_blended_with_ground_are_seen():
    values = relief()
    values[:8] = -9999
    values[8] = np.linspace(-9990, 50, 24)
    with pytest.raises(ValueError, match=r"192 of the 576 cells .* hold -9999, which is no elevation: say -9999"):
        refuse_voids("a.tif", values, values, EARTH, "elevation: say {0}")
