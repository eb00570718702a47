"""The exact solutions, against the equations that they solve."""

import numpy as np
import pytest

from lib.flood import normal_depth, planar_wave

G = 9.80665


def test_normal_depth_balances_slope_and_friction() -> None:
    rng = np.random.default_rng(0)
    q, slope, manning = rng.uniform(0.1, 5, 50), rng.uniform(1e-4, 0.1, 50), rng.uniform(0.01, 0.1, 50)
    h = normal_depth(q, slope, manning)
    np.testing.assert_allclose(manning**2 * q**2 / h ** (10 / 3), slope, rtol=1e-12)


@pytest.mark.parametrize("u", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("model", ["full", "local_inertial"])
def test_waves_solve_their_momentum_equation(u: float, model: str) -> None:
    t, n = 3600.0, 0.03
    x = np.linspace(0, 0.99 * u * t, 2001)
    h = planar_wave(x, t, u, n, G, model=model)
    slope = np.gradient(h, x, edge_order=2)[5:-5]
    inner = h[5:-5]
    # with q = u h the rate of change of q is -u^2 h', and advection adds as much
    inertia = -(u**2) * slope * (model == "local_inertial")
    friction = G * n**2 * u**2 / inner ** (1 / 3)
    np.testing.assert_allclose(inertia + G * inner * slope, -friction, rtol=2e-3)


def test_the_front_of_the_local_inertial_wave_is_a_shock() -> None:
    u, t = 1.5, 1000.0
    front = planar_wave([u * t - 1e-9, u * t + 1e-9], t, u, 0.03, G, model="local_inertial")
    np.testing.assert_allclose(front, [2 * u**2 / G, 0.0], rtol=1e-6)


def test_waves_agree_where_the_water_is_slow() -> None:
    x = np.linspace(0, 200.0, 20)
    full, inertial = (planar_wave(x, 4e4, 0.01, 0.05, G, model=model) for model in ("full", "local_inertial"))
    np.testing.assert_allclose(inertial, full, rtol=1e-3)
