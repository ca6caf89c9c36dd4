"""Slow and obvious specifications: plain Python, one number at a time, written from the papers and not from the package.

They share no line with the code that they judge. Numbers are floats, points are lists of floats.
"""

from __future__ import annotations

import math


# ------------------------------------------------------------------------------------- A1: EDM's scalings
def grid(n: int, t_min: float, t_max: float, rho: float) -> list[float]:
    """EDM, arXiv:2206.00364, Eq. 5, in ascending order: (a + i/(n-1) (b - a))^rho, a and b being the rho-th roots."""
    a, b = t_min ** (1 / rho), t_max ** (1 / rho)
    inner = [(a + i / (n - 1) * (b - a)) ** rho for i in range(1, n - 1)]
    return [t_min, *inner, t_max]


def c_in(t: float, sd: float) -> float:
    """EDM, Table 1: 1/sqrt(t^2 + sd^2)."""
    return 1 / math.hypot(t, sd)


def c_skip(t: float, sd: float, t_min: float = 0.0) -> float:
    """EDM, Table 1; with t_min CM, arXiv:2303.01469, appendix C: sd^2/((t - t_min)^2 + sd^2)."""
    return sd * sd / ((t - t_min) * (t - t_min) + sd * sd)


def c_out(t: float, sd: float, t_min: float = 0.0) -> float:
    """EDM, Table 1; with t_min CM, appendix C: sd (t - t_min)/sqrt(t^2 + sd^2)."""
    return sd * (t - t_min) / math.hypot(t, sd)


def c_noise(t: float) -> float:
    """EDM, Table 1: ln(t)/4."""
    return math.log(t) / 4
