"""The time loop of `LocalInertialSolver` for one map, compiled: float32 or float64, no gradients.

A step is one sweep over the rows: new discharges of row i, then what row i - 1 may give away, then the new depths of
row i - 2. All that a sweep touches twice is still in the cache. Rows are worked on in short loops without branches,
one result each, which become vector instructions; intermediate rows live in a small scratch array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lib.compiling import compiled

__all__ = ["inverse_seven_thirds", "run"]

# Sums in any order and fused multiplications, but NaN and infinity stay what they are: a run that has left all
# bounds has to be seen.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
# What Python does not call needs no door for Python, which would take as long to compile as what is behind it. Arrays
# are copied entry by entry for the same reason: numba compiles an error message with every assignment to a slice.
_INNER: dict[str, Any] = {
    "error_model": "numpy",
    "fastmath": _FAST,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}

_GUESS = np.float32(1419920000)
_THIRD = np.float32(1 / 3)

# places in `numbers`: the weight of a face's own discharge, the depth of dry faces, what is `push` and `drag` in
# `_discharges`, dt / dx, what a cell may give of its water, and the floor of a squared speed
_THETA, _H_DRY, _PUSH, _DRAG, _RATIO, _ROOM, _FLOOR = range(7)
# rows of `scratch`: four of a row of faces, the levels of two rows of cells by turns, the discharges on either side
# of each face, and the deepest water of each column
_WEIGHTED, _SPEED, _DEPTH, _POWER, _LEVEL, _, _BEFORE, _AFTER, _DEEPEST = range(9)


@compiled(error_model="numpy", fastmath=_FAST, inline="always")
def _inverse_cube_root_32(x):
    """`x ** (-1 / 3)` of a positive float32, to rounding.

    The bits of a float, read as an integer, are nearly its logarithm: minus a third of them, plus a constant, are the
    bits of a first guess, wrong by at most 3.5 per cent (derived here, the constant by minimising that). With
    `u = 1 - x r^3` the root is `r (1 - u)^(-1/3)`, whose series needs no division.
    """
    one = np.float32(1)
    r = np.int32(_GUESS - np.float32(x.view(np.int32)) * _THIRD).view(np.float32)
    u = one - x * r * r * r
    r = r * (one + u * (np.float32(1 / 3) + u * (np.float32(2 / 9) + u * np.float32(14 / 81))))
    u = one - x * r * r * r
    return r * (one + u * np.float32(1 / 3))


@compiled(error_model="numpy", fastmath=_FAST)
def inverse_seven_thirds(x, result):
    """Write `x ** (-7 / 3)` into `result`, both (N,) and float32 or float64, for x from 1e-5 to 1e5.

    A call of `pow` would cost more than all the rest of a step. Within 1e-6 in float32, 1e-14 in float64.
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


@compiled(**_INNER)
def _weigh(q, before, after, theta, result):
    """Average of neighbouring faces: `theta q + (1 - theta) / 2 (before + after)`."""
    side = (q.dtype.type(1) - theta) / q.dtype.type(2)
    for j in range(q.size):
        result[j] = theta * q[j] + side * (before[j] + after[j])


@compiled(**_INNER)
def _speed_vector(q, a, b, floor, result):
    """Length of the discharge; `a` and `b` are rows of the other component, one entry longer."""
    quarter = q.dtype.type(0.25)
    for j in range(q.size):
        transverse = quarter * ((a[j] + a[j + 1]) + (b[j] + b[j + 1]))
        result[j] = np.sqrt(q[j] * q[j] + transverse * transverse + floor)


@compiled(**_INNER)
def _speed_component(q, result):
    for j in range(q.size):
        result[j] = abs(q[j])


@compiled(**_INNER)
def _depths(w0, w1, z0, z1, h_dry, depth):
    """Depth at the faces between two rows of cells, clamped from below."""
    for j in range(depth.size):
        w = w0[j] if w0[j] > w1[j] else w1[j]
        z = z0[j] if z0[j] > z1[j] else z1[j]
        d = w - z
        depth[j] = d if d > h_dry else h_dry


@compiled(**_INNER)
def _discharges(weighted, speed, depth, power, w0, w1, push, drag, h_dry, result):
    """The momentum equation; `push` is `g dt / dx`, `drag` is `g dt n^2`."""
    one, zero = depth.dtype.type(1), depth.dtype.type(0)
    for j in range(depth.size):
        q = (weighted[j] - push * depth[j] * (w1[j] - w0[j])) / (one + drag * speed[j] * power[j])
        result[j] = q if depth[j] > h_dry else zero


@compiled(**_INNER)
def _face_row(q, before, after, a, b, vector, w0, w1, z0, z1, numbers, scratch, result):
    """New discharges through a row of faces."""
    theta, h_dry, push, drag = numbers[_THETA], numbers[_H_DRY], numbers[_PUSH], numbers[_DRAG]
    n = q.size
    weighted, speed = scratch[_WEIGHTED, :n], scratch[_SPEED, :n]
    depth, power = scratch[_DEPTH, :n], scratch[_POWER, :n]
    _weigh(q, before, after, theta, weighted)
    if vector:
        _speed_vector(q, a, b, numbers[_FLOOR], speed)
    else:
        _speed_component(q, speed)
    _depths(w0, w1, z0, z1, h_dry, depth)
    inverse_seven_thirds(depth, power)
    _discharges(weighted, speed, depth, power, w0, w1, push, drag, h_dry, result)


@compiled(**_INNER)
def _share_row(h, rain, qx, north, south, ratio, dt, room, share):
    """The part of its outgoing discharges that each cell of a row can afford; how many cannot afford all."""
    zero, one, tiny = h.dtype.type(0), h.dtype.type(1), h.dtype.type(1e-30)
    short = 0
    for j in range(h.size):
        east, west = qx[j + 1], qx[j]
        out = (east if east > zero else zero) - (west if west < zero else zero)
        out += (south[j] if south[j] > zero else zero) - (north[j] if north[j] < zero else zero)
        out *= ratio
        may = (h[j] + dt * rain[j]) * room
        floor = out if out > tiny else tiny
        share[j] = may / floor if out > may else one
        short += out > may
    return short


@compiled(**_INNER)
def _scale_faces(q, giver, taker):
    """Scale a row of discharges by the share of the cell each takes from."""
    zero = q.dtype.type(0)
    for j in range(q.size):
        q[j] *= giver[j] if q[j] > zero else taker[j]


@compiled(**_INNER)
def _depth_row(h, rain, qx, north, south, ratio, dt):
    """The mass equation for a row of cells, in place."""
    for j in range(h.size):
        h[j] = (h[j] + dt * rain[j]) - ratio * ((qx[j + 1] - qx[j]) + (south[j] - north[j]))


@compiled(**{**_INNER, "fastmath": False}, forceinline=True)
def _depth_row_32(h, carry, rain, qx, north, south, ratio, dt, depth):
    """The same in float64, for depths that are kept as two float32 numbers, `h + carry`; not to be reassociated."""
    dt, ratio = np.float64(dt), np.float64(ratio)
    for j in range(h.size):
        net = (np.float64(qx[j + 1]) - np.float64(qx[j])) + (np.float64(south[j]) - np.float64(north[j]))
        depth[j] = (np.float64(h[j]) + np.float64(carry[j])) + (dt * np.float64(rain[j]) - ratio * net)
    for j in range(h.size):
        h[j] = np.float32(depth[j])
        carry[j] = np.float32(depth[j] - np.float64(np.float32(depth[j])))


@compiled(**_INNER)
def _levels(z, h, w):
    for j in range(z.size):
        w[j] = z[j] + h[j]


@compiled(**_INNER)
def _raise(h, limit, top):
    """Keep the larger depth of each column; how many depths have left all bounds."""
    strange = 0
    for j in range(h.size):
        top[j] = h[j] if h[j] > top[j] else top[j]
        strange += not (abs(h[j]) < limit)
    return strange


@compiled(**_INNER)
def _outer(inflow, conveyance, h, h_dry, outward, faces):
    """Discharges through a side of the map from the cells along it; `outward` is the sign of the axis there."""
    for j in range(h.size):
        leaving = h.dtype.type(0)
        if conveyance[j] > 0 and h[j] > h_dry:
            leaving = h.dtype.type(h[j] ** h.dtype.type(5 / 3) * conveyance[j])
        faces[j] = outward * (leaving - inflow[j])


@compiled(**_INNER)
def _count(faces, outward, volumes, area):
    """Add what came in and what went out through some outer faces to the two volumes."""
    for j in range(faces.size):
        passed = outward * np.float64(faces[j]) * area
        if passed > 0:
            volumes[1] += passed
        else:
            volumes[0] -= passed


@compiled(**_INNER)
def _momentum_x(i, z, h, w, qx, qy, new_qx, sides, scratch, numbers, flags):
    """New discharges through the faces between the cells of row i, and through its two ends."""
    columns = h.shape[1]
    vector, mirror, _, is_open = flags
    if columns > 1:
        q = qx[i, 1:columns]
        n = q.size
        before, after = scratch[_BEFORE, :n], scratch[_AFTER, :n]
        for j in range(n - 1):
            before[j + 1] = q[j]
            after[j] = q[j + 1]
        before[0] = q[min(1, n - 1)] if mirror else q[0]
        after[n - 1] = q[max(n - 2, 0)] if mirror else q[n - 1]
        _face_row(
            q, before, after, qy[i], qy[i + 1], vector,
            w[: columns - 1], w[1:], z[i, : columns - 1], z[i, 1:], numbers, scratch, new_qx[i, 1:columns],
        )  # fmt: skip
    if is_open:
        one, here = h.dtype.type(1), slice(i, i + 1)
        _outer(sides[0, 0, here], sides[0, 1, here], h[i, :1], numbers[_H_DRY], -one, new_qx[i, :1])
        _outer(sides[1, 0, here], sides[1, 1, here], h[i, columns - 1 :], numbers[_H_DRY], one, new_qx[i, columns:])


@compiled(**_INNER)
def _momentum_y(i, z, h, w_above, w, qx, qy, new_qy, sides, scratch, numbers, flags):
    """New discharges through the row of faces above row i; above the first and below the last lie the sides."""
    rows, columns = h.shape
    vector, mirror, _, is_open = flags
    one = h.dtype.type(1)
    if 0 < i < rows:
        up = i - 1 if i > 1 else (min(2, rows - 1) if mirror else 1)
        down = i + 1 if i < rows - 1 else (max(rows - 2, 1) if mirror else rows - 1)
        _face_row(
            qy[i], qy[up], qy[down], qx[i - 1], qx[i], vector,
            w_above, w, z[i - 1], z[i], numbers, scratch, new_qy[i],
        )  # fmt: skip
    elif i == 0 and is_open:
        _outer(sides[2, 0, :columns], sides[2, 1, :columns], h[0], numbers[_H_DRY], -one, new_qy[0])
    elif is_open:
        _outer(sides[3, 0, :columns], sides[3, 1, :columns], h[rows - 1], numbers[_H_DRY], one, new_qy[rows])


@compiled(**_INNER)
def _limit_row(m, rows, new_qx, new_qy, share, short, short_below):
    """Scale the discharges of row m and through the faces below it; those above it are scaled already."""
    # place 3 of `share` is the world outside, which is never short; rows take turns in the others
    here = share[m % 3]
    below = share[(m + 1) % 3] if m + 1 < rows else share[3]
    columns = new_qy.shape[1]
    inner = slice(1, columns + 1)
    if short > 0:
        _scale_faces(new_qx[m], here[: columns + 1], here[1:])
        if m == 0:
            _scale_faces(new_qy[0], share[3, inner], here[inner])
    if short + short_below > 0:
        _scale_faces(new_qy[m + 1], here[inner], below[inner])


@compiled(**_INNER)
def _count_row(m, rows, new_qx, new_qy, volumes, area):
    """Count what passed the sides of the map at row m."""
    _count(new_qx[m, :1], -1.0, volumes, area)
    _count(new_qx[m, new_qx.shape[1] - 1 :], 1.0, volumes, area)
    if m == 0:
        _count(new_qy[0], -1.0, volumes, area)
    if m == rows - 1:
        _count(new_qy[rows], 1.0, volumes, area)


@compiled(**_INNER)
def _sweep(z, h, carry, qx, qy, new_qx, new_qy, rain, sides, share, scratch, numbers, flags, dt, dx, volumes):
    """One step of a map: depths change in place, new discharges go to `new_qx` and `new_qy`."""
    rows, columns = h.shape
    limiter, is_open = flags[2], flags[3]
    ratio, room = numbers[_RATIO], numbers[_ROOM]
    area = np.float64(dt) * dx
    depth = np.empty(columns)
    nobody = np.int64(0)  # of one type with the counts, or `_limit_row` is compiled twice
    short = short_below = nobody  # cells that are short of water in the rows i - 2 and i - 1
    for i in range(rows + 2):
        w_above, w = scratch[_LEVEL + (i + 1) % 2], scratch[_LEVEL + i % 2]
        if i < rows:
            _levels(z[i], h[i], w)
            _momentum_x(i, z, h, w, qx, qy, new_qx, sides, scratch, numbers, flags)
        if i <= rows:
            _momentum_y(i, z, h, w_above, w, qx, qy, new_qy, sides, scratch, numbers, flags)
        short, short_below = short_below, nobody
        if limiter and 1 <= i <= rows:
            m = i - 1
            short_below = _share_row(
                h[m], rain[m % rain.shape[0]], new_qx[m], new_qy[m], new_qy[m + 1], ratio, dt, room,
                share[m % 3, 1 : columns + 1],
            )  # fmt: skip
        if i >= 2:
            m = i - 2
            _limit_row(m, rows, new_qx, new_qy, share, short, short_below)
            wet = rain[m % rain.shape[0]]
            if carry is None:
                _depth_row(h[m], wet, new_qx[m], new_qy[m], new_qy[m + 1], ratio, dt)
            else:
                _depth_row_32(h[m], carry[m], wet, new_qx[m], new_qy[m], new_qy[m + 1], ratio, dt, depth)
            if is_open:
                _count_row(m, rows, new_qx, new_qy, volumes, area)


@compiled(**_INNER)
def _deepest(h, limit, top):
    """The largest depth, not below 0; NaN if one has left all bounds."""
    top[:] = 0
    strange = 0
    for i in range(h.shape[0]):
        strange += _raise(h[i], limit, top)
    deepest = top[0]
    for j in range(1, top.size):
        deepest = max(deepest, top[j])
    return np.nan if strange else np.float64(deepest)


@compiled(error_model="numpy", fastmath=_FAST)
def run(z, h, qx, qy, carry, rain, sides, flags, settings, bounds, stops, history, volumes):
    """Run one map to each of the times `stops` and copy the depths there to `history`.

    `h` and, in float32, `carry` (in float64 None) change in place, `qx` and `qy` are overwritten. `rain` is (1, C) or
    (R, C); `sides` (4, 2, L) holds inflow and conveyance of west, east, north and south; `settings` are dx, g, n,
    theta, h_dry, alpha, h_cfl_min, dt_max and the total of the rain [m^3/s]; `bounds` are `SPEED_FLOOR`,
    `ROUNDING_ROOM` and `DEPTH_LIMIT` of the scheme; `volumes` (2,) counts what comes in and goes out [m^3].
    Returns the number of steps, the time reached, NaN if a depth left all bounds, and the discharges.
    """
    columns = h.shape[1]
    kind = h.dtype.type
    dx, g, manning, theta, h_dry, alpha, h_cfl_min, dt_max, rain_total = settings
    scratch = np.zeros((_DEEPEST + 1, columns), h.dtype)
    share = np.ones((4, columns + 2), h.dtype)
    new_qx, new_qy = np.zeros_like(qx), np.zeros_like(qy)
    speed_floor, rounding_room, depth_limit = bounds
    limit = kind(depth_limit)
    numbers = np.zeros(_FLOOR + 1, h.dtype)
    numbers[_THETA], numbers[_H_DRY], numbers[_FLOOR] = theta, h_dry, speed_floor
    numbers[_ROOM] = 1 - rounding_room * np.finfo(h.dtype).eps
    time, steps = 0.0, 0
    for s in range(stops.size):
        while time < stops[s]:
            deepest = _deepest(h, limit, scratch[_DEEPEST])
            if np.isnan(deepest):
                time = np.nan
                break
            step = min(alpha * dx / np.sqrt(g * max(deepest, h_cfl_min)), dt_max)
            left = stops[s] - time
            last = step >= left
            dt = kind(left if last else step)
            time = stops[s] if last else time + step
            numbers[_PUSH], numbers[_DRAG] = g / dx * dt, g * manning * manning * dt
            numbers[_RATIO] = dt / dx
            _sweep(z, h, carry, qx, qy, new_qx, new_qy, rain, sides, share, scratch, numbers, flags, dt, dx, volumes)
            qx, qy, new_qx, new_qy = new_qx, new_qy, qx, qy
            if steps == 0 and not flags[3]:
                # what passed the sides in an earlier run; walls write nothing there, and the second step writes here
                new_qx[:, 0], new_qx[:, columns], new_qy[0], new_qy[h.shape[0]] = 0, 0, 0, 0
            volumes[0] += np.float64(dt) * rain_total
            steps += 1
        for i in range(h.shape[0]):
            for j in range(columns):
                history[s, i, j] = h[i, j]
    return steps, time, qx, qy
