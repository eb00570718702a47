"""The time loop of `LocalInertialSolver` for one map, compiled: float32 or float64, no gradients.

A step is one sweep over the rows: new discharges of row i, then what row i - 1 may give away, then the new depths of
row i - 2. All that a sweep touches twice is still in the cache. Rows are worked on in short loops without branches,
one result each, which become vector instructions; intermediate rows live in a small scratch array.

Friction needs `h^(-7/3)`, and a call of `pow` would cost more than all the rest. It is `r^7` for `r = h^(-1/3)`. The
bits of a float, read as an integer, are nearly its logarithm: minus a third of them, plus a constant, are the bits of
a first guess of `r`, wrong by at most 3.5 per cent (derived here, the constant by minimising that). With
`u = 1 - x r^3`, the root is `r (1 - u)^(-1/3)`, whose series needs no division.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lib.flood.faces import DEPTH_LIMIT, ROUNDING_ROOM, SPEED_FLOOR

__all__ = ["inverse_seven_thirds", "run"]

# Sums in any order and fused multiplications, but NaN and infinity stay what they are: a run that has left all
# bounds has to be seen.
_FAST = {"reassoc", "contract", "nsz", "arcp"}

_GUESS = np.float32(1419920000)
_THIRD = np.float32(1 / 3)


@njit(cache=True, error_model="numpy", fastmath=_FAST, inline="always")
def _inverse_cube_root_32(x):
    """`x ** (-1 / 3)` of a positive float32, to rounding."""
    one = np.float32(1)
    r = np.int32(_GUESS - np.float32(x.view(np.int32)) * _THIRD).view(np.float32)
    u = one - x * r * r * r
    r = r * (one + u * (np.float32(1 / 3) + u * (np.float32(2 / 9) + u * np.float32(14 / 81))))
    u = one - x * r * r * r
    return r * (one + u * np.float32(1 / 3))


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def inverse_seven_thirds(x, result):
    """Write `x ** (-7 / 3)` into `result`, both (N,) and float32 or float64, for x from 1e-5 to 1e5.

    Within 1e-6 in float32, whose rounding the power makes seven times as large, and 1e-14 in float64.
    """
    one = x.dtype.type(1)
    third, two_ninths = x.dtype.type(1 / 3), x.dtype.type(2 / 9)
    for j in range(x.size):
        # float64 starts where float32 ends, seven digits, and a step of third order gives the rest
        r = x.dtype.type(_inverse_cube_root_32(np.float32(x[j])))
        u = one - x[j] * r * r * r
        r = r * (one + u * (third + u * two_ninths))
        square = r * r
        result[j] = square * square * square * r


# What follows names rows by their numbers instead of taking them out as arrays of their own: a view costs more than
# the arithmetic on dozens of cells. Rows 0 to 3 of `scratch` are the terms of one row of faces, 4 and 5 the levels of
# the last two rows of cells.


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _weigh_x(qx, i, theta, mirror, scratch):
    """Average of neighbouring faces along a row: `theta q + (1 - theta) / 2 (before + after)`."""
    last = qx.shape[1] - 2
    side = (qx.dtype.type(1) - theta) / qx.dtype.type(2)
    for j in range(1, last + 1):
        scratch[0, j] = theta * qx[i, j] + side * (qx[i, j - 1] + qx[i, j + 1])
    # the first and the last face within the map have one neighbour
    first_other, last_other = (min(2, last), max(last - 1, 1)) if mirror else (1, last)
    before, after = qx[i, first_other], qx[i, last_other]
    scratch[0, 1] = theta * qx[i, 1] + side * (before + (qx[i, 2] if last > 1 else after))
    if last > 1:
        scratch[0, last] = theta * qx[i, last] + side * (qx[i, last - 1] + after)


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _weigh_y(qy, i, mirror, theta, scratch):
    """The same along a column."""
    rows = qy.shape[0] - 1
    up = i - 1 if i > 1 else (min(2, rows - 1) if mirror else 1)
    down = i + 1 if i < rows - 1 else (max(rows - 2, 1) if mirror else rows - 1)
    side = (qy.dtype.type(1) - theta) / qy.dtype.type(2)
    for j in range(qy.shape[1]):
        scratch[0, j] = theta * qy[i, j] + side * (qy[up, j] + qy[down, j])


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _speed_x(qx, qy, i, vector, scratch):
    """Length of the discharge through faces along a row, or of its component across them."""
    quarter, floor = qx.dtype.type(0.25), qx.dtype.type(SPEED_FLOOR)
    if vector:
        for j in range(1, qy.shape[1]):
            transverse = quarter * ((qy[i, j - 1] + qy[i, j]) + (qy[i + 1, j - 1] + qy[i + 1, j]))
            scratch[1, j] = np.sqrt(qx[i, j] * qx[i, j] + transverse * transverse + floor)
    else:
        for j in range(1, qy.shape[1]):
            scratch[1, j] = abs(qx[i, j])


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _speed_y(qy, qx, i, vector, scratch):
    """The same for faces between row i - 1 and row i."""
    quarter, floor = qy.dtype.type(0.25), qy.dtype.type(SPEED_FLOOR)
    if vector:
        for j in range(qy.shape[1]):
            transverse = quarter * ((qx[i - 1, j] + qx[i - 1, j + 1]) + (qx[i, j] + qx[i, j + 1]))
            scratch[1, j] = np.sqrt(qy[i, j] * qy[i, j] + transverse * transverse + floor)
    else:
        for j in range(qy.shape[1]):
            scratch[1, j] = abs(qy[i, j])


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _depths_x(z, i, w, h_dry, scratch):
    """Depth at the faces along a row, clamped from below; `w` is the place of the row's levels."""
    for j in range(1, z.shape[1]):
        level = scratch[w, j - 1] if scratch[w, j - 1] > scratch[w, j] else scratch[w, j]
        bed = z[i, j - 1] if z[i, j - 1] > z[i, j] else z[i, j]
        d = level - bed
        scratch[2, j] = d if d > h_dry else h_dry


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _depths_y(z, i, w_above, w, h_dry, scratch):
    """The same between row i - 1 and row i."""
    for j in range(z.shape[1]):
        level = scratch[w_above, j] if scratch[w_above, j] > scratch[w, j] else scratch[w, j]
        bed = z[i - 1, j] if z[i - 1, j] > z[i, j] else z[i, j]
        d = level - bed
        scratch[2, j] = d if d > h_dry else h_dry


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _powers(scratch, first, last):
    """Depths to the power of -7/3."""
    one = scratch.dtype.type(1)
    third, two_ninths = scratch.dtype.type(1 / 3), scratch.dtype.type(2 / 9)
    for j in range(first, last):
        x = scratch[2, j]
        r = scratch.dtype.type(_inverse_cube_root_32(np.float32(x)))
        u = one - x * r * r * r
        r = r * (one + u * (third + u * two_ninths))
        square = r * r
        scratch[3, j] = square * square * square * r


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _discharges_x(i, w, push, drag, h_dry, scratch, new_qx):
    """The momentum equation; `push` is `g dt / dx`, `drag` is `g dt n^2`."""
    one, zero = scratch.dtype.type(1), scratch.dtype.type(0)
    for j in range(1, new_qx.shape[1] - 1):
        fall = scratch[w, j] - scratch[w, j - 1]
        q = (scratch[0, j] - push * scratch[2, j] * fall) / (one + drag * scratch[1, j] * scratch[3, j])
        new_qx[i, j] = q if scratch[2, j] > h_dry else zero


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _discharges_y(i, w_above, w, push, drag, h_dry, scratch, new_qy):
    one, zero = scratch.dtype.type(1), scratch.dtype.type(0)
    for j in range(new_qy.shape[1]):
        fall = scratch[w, j] - scratch[w_above, j]
        q = (scratch[0, j] - push * scratch[2, j] * fall) / (one + drag * scratch[1, j] * scratch[3, j])
        new_qy[i, j] = q if scratch[2, j] > h_dry else zero


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _share_row(h, rain, m, new_qx, new_qy, ratio, dt, room, share):
    """The part of its outgoing discharges that each cell of row m can afford; how many cannot afford all."""
    zero, one, tiny = h.dtype.type(0), h.dtype.type(1), h.dtype.type(1e-30)
    here, wet = m % 3, m % rain.shape[0]
    short = 0
    for j in range(h.shape[1]):
        east, west, south, north = new_qx[m, j + 1], new_qx[m, j], new_qy[m + 1, j], new_qy[m, j]
        out = (east if east > zero else zero) - (west if west < zero else zero)
        out += (south if south > zero else zero) - (north if north < zero else zero)
        out *= ratio
        may = (h[m, j] + dt * rain[wet, j]) * room
        floor = out if out > tiny else tiny
        share[here, j + 1] = may / floor if out > may else one
        short += out > may
    return short


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _scale_x(q, m, share, here):
    """Scale the discharges along a row by the share of the cell each takes from."""
    zero = q.dtype.type(0)
    for j in range(q.shape[1]):
        q[m, j] *= share[here, j] if q[m, j] > zero else share[here, j + 1]


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _scale_y(q, m, share, above, below):
    """The same for a row of faces, from the cells above it and below."""
    zero = q.dtype.type(0)
    for j in range(q.shape[1]):
        q[m, j] *= share[above, j + 1] if q[m, j] > zero else share[below, j + 1]


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _depth_row(h, rain, m, qx, qy, ratio, dt):
    """The mass equation for a row of cells, in place."""
    wet = m % rain.shape[0]
    for j in range(h.shape[1]):
        gone = (qx[m, j + 1] - qx[m, j]) + (qy[m + 1, j] - qy[m, j])
        h[m, j] = (h[m, j] + dt * rain[wet, j]) - ratio * gone


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _levels(z, h, i, scratch, w):
    for j in range(z.shape[1]):
        scratch[w, j] = z[i, j] + h[i, j]


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _outer(sides, side, k, h, i, j, h_dry, outward):
    """Discharge through the k-th face of a side, from cell (i, j); `outward` is the sign of the axis there."""
    kind = h.dtype.type
    inflow, conveyance = sides[side, 0, k], sides[side, 1, k]
    leaving = kind(0)
    if conveyance > 0 and h[i, j] > h_dry:
        leaving = kind(h[i, j] ** kind(5 / 3) * conveyance)
    return outward * (leaving - inflow)


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _count(passed, volumes):
    """Add what went out, or came in, to the two volumes."""
    if passed > 0:
        volumes[1] += passed
    else:
        volumes[0] -= passed


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _momentum_x(i, z, h, w, qx, qy, new_qx, sides, scratch, numbers, flags):
    """New discharges through the faces between the cells of row i, and through its two ends."""
    columns = h.shape[1]
    vector, mirror, _, is_open = flags
    theta, h_dry, push, drag = numbers[0], numbers[1], numbers[2], numbers[3]
    if columns > 1:
        _weigh_x(qx, i, theta, mirror, scratch)
        _speed_x(qx, qy, i, vector, scratch)
        _depths_x(z, i, w, h_dry, scratch)
        _powers(scratch, 1, columns)
        _discharges_x(i, w, push, drag, h_dry, scratch, new_qx)
    if is_open:
        one = h.dtype.type(1)
        new_qx[i, 0] = _outer(sides, 0, i, h, i, 0, h_dry, -one)
        new_qx[i, columns] = _outer(sides, 1, i, h, i, columns - 1, h_dry, one)


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _momentum_y(i, z, h, w_above, w, qx, qy, new_qy, sides, scratch, numbers, flags):
    """New discharges through the row of faces above row i; above the first and below the last lie the sides."""
    rows, columns = h.shape
    vector, mirror, _, is_open = flags
    theta, h_dry, push, drag = numbers[0], numbers[1], numbers[2], numbers[3]
    one = h.dtype.type(1)
    if 0 < i < rows:
        _weigh_y(qy, i, mirror, theta, scratch)
        _speed_y(qy, qx, i, vector, scratch)
        _depths_y(z, i, w_above, w, h_dry, scratch)
        _powers(scratch, 0, columns)
        _discharges_y(i, w_above, w, push, drag, h_dry, scratch, new_qy)
    elif is_open:
        side, edge, outward = (2, 0, -one) if i == 0 else (3, rows - 1, one)
        for j in range(columns):
            new_qy[i, j] = _outer(sides, side, j, h, edge, j, h_dry, outward)


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _limit_row(m, rows, new_qx, new_qy, share, short, short_below):
    """Scale the discharges of row m and through the faces below it; those above it are scaled already."""
    # place 3 of `share` is the world outside, which is never short; rows take turns in the others
    here = m % 3
    below = (m + 1) % 3 if m + 1 < rows else 3
    if short > 0:
        _scale_x(new_qx, m, share, here)
        if m == 0:
            _scale_y(new_qy, 0, share, 3, here)
    if short + short_below > 0:
        _scale_y(new_qy, m + 1, share, here, below)


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _count_row(m, rows, new_qx, new_qy, volumes, area):
    """Count what passed the sides of the map at row m."""
    columns = new_qy.shape[1]
    _count(-np.float64(new_qx[m, 0]) * area, volumes)
    _count(np.float64(new_qx[m, columns]) * area, volumes)
    for j in range(columns):
        if m == 0:
            _count(-np.float64(new_qy[0, j]) * area, volumes)
        if m == rows - 1:
            _count(np.float64(new_qy[rows, j]) * area, volumes)


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _sweep(z, h, qx, qy, new_qx, new_qy, rain, sides, share, scratch, numbers, flags, dt, dx, volumes):
    """One step of a map: depths change in place, new discharges go to `new_qx` and `new_qy`."""
    rows = h.shape[0]
    limiter, is_open = flags[2], flags[3]
    ratio, room = numbers[4], numbers[5]
    area = np.float64(dt) * dx
    short = short_below = 0  # cells that are short of water in the rows i - 2 and i - 1
    for i in range(rows + 2):
        w_above, w = 4 + (i + 1) % 2, 4 + i % 2
        if i < rows:
            _levels(z, h, i, scratch, w)
            _momentum_x(i, z, h, w, qx, qy, new_qx, sides, scratch, numbers, flags)
        if i <= rows:
            _momentum_y(i, z, h, w_above, w, qx, qy, new_qy, sides, scratch, numbers, flags)
        short, short_below = short_below, 0
        if limiter and 1 <= i <= rows:
            short_below = _share_row(h, rain, i - 1, new_qx, new_qy, ratio, dt, room, share)
        if i >= 2:
            m = i - 2
            _limit_row(m, rows, new_qx, new_qy, share, short, short_below)
            _depth_row(h, rain, m, new_qx, new_qy, ratio, dt)
            if is_open:
                _count_row(m, rows, new_qx, new_qy, volumes, area)


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _deepest(h, top):
    """The largest depth, not below 0; NaN if one has left all bounds."""
    strange, limit, zero = 0, h.dtype.type(DEPTH_LIMIT), h.dtype.type(0)
    for j in range(h.shape[1]):
        top[j] = zero
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            top[j] = h[i, j] if h[i, j] > top[j] else top[j]
            strange += not (abs(h[i, j]) < limit)
    return np.nan if strange else np.float64(top.max())


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def run(z, h, qx, qy, rain, sides, flags, settings, stops, history, volumes):
    """Run one map to each of the times `stops` and copy the depths there to `history`.

    `h`, `qx`, `qy` are the state and change in place. `rain` is (1, C) or (R, C); `sides` (4, 2, L) holds inflow and
    conveyance of west, east, north and south; `settings` are dx, g, n, theta, h_dry, alpha, h_cfl_min, dt_max and the
    total of the rain [m^3/s]; `volumes` (2,) counts what comes in and goes out [m^3].
    Returns the number of steps and the time reached, NaN if a depth left all bounds.
    """
    columns = h.shape[1]
    kind = h.dtype.type
    dx, g, manning, theta, h_dry, alpha, h_cfl_min, dt_max, rain_total = settings
    scratch, top = np.zeros((6, columns), h.dtype), np.zeros(columns, h.dtype)
    share = np.ones((4, columns + 2), h.dtype)
    new_qx, new_qy = np.zeros_like(qx), np.zeros_like(qy)
    numbers = np.zeros(6, h.dtype)
    numbers[0], numbers[1] = theta, h_dry
    numbers[5] = 1 - ROUNDING_ROOM * np.finfo(h.dtype).eps
    time, steps, odd = 0.0, 0, False
    for s in range(stops.size):
        while time < stops[s]:
            deepest = _deepest(h, top)
            if np.isnan(deepest):
                time = np.nan
                break
            step = min(alpha * dx / np.sqrt(g * max(deepest, h_cfl_min)), dt_max)
            left = stops[s] - time
            last = step >= left
            dt = kind(left if last else step)
            time = stops[s] if last else time + step
            numbers[2], numbers[3], numbers[4] = g / dx * dt, g * manning * manning * dt, dt / dx
            if odd:
                _sweep(z, h, new_qx, new_qy, qx, qy, rain, sides, share, scratch, numbers, flags, dt, dx, volumes)
            else:
                _sweep(z, h, qx, qy, new_qx, new_qy, rain, sides, share, scratch, numbers, flags, dt, dx, volumes)
            odd = not odd
            if steps == 0 and not flags[3]:
                # what passed the sides in an earlier run; walls write nothing there, and the second step writes here
                qx[:, 0], qx[:, columns], qy[0], qy[h.shape[0]] = 0, 0, 0, 0
            volumes[0] += np.float64(dt) * rain_total
            steps += 1
        history[s] = h
    if odd:
        qx[:], qy[:] = new_qx, new_qy
    return steps, time
