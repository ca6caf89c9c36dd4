"""Slow and obvious specifications: plain Python, one number at a time, written from the papers and not from the package.

They share no line with the code that they judge. Numbers are floats, points are lists of floats.
"""

import math
from collections.abc import Callable


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


# ------------------------------------------------------------------- A2: steps of the probability-flow ODE
Clock = tuple[Callable[[float], float], Callable[[float], float]]  # alpha and sigma
Denoise = Callable[[list[float], float], list[float]]

EDM: Clock = (lambda t: 1.0, lambda t: t)
TRIGFLOW: Clock = (math.cos, lambda t: 0.5 * math.sin(t))


def vp(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Clock:
    """DDPM's chain, arXiv:2006.11239, section 4, t = 0 being clean: alpha_bar is a running product of 1 - beta."""
    bars = [1.0]
    for i in range(T):
        bars.append(bars[-1] * (1 - (beta_1 + i / (T - 1) * (beta_T - beta_1))))
    return (lambda t: math.sqrt(bars[int(t)]), lambda t: math.sqrt(1 - bars[int(t)]))


def eps_hat(clock: Clock, x: list[float], x0: list[float], t: float) -> list[float]:
    """x = alpha x0 + sigma eps, solved for eps."""
    alpha, sigma = clock
    return [(a - alpha(t) * b) / sigma(t) for a, b in zip(x, x0)]


def euler(clock: Clock, denoise: Denoise, x: list[float], t: float, s: float) -> list[float]:
    """The point at s that has the same x0 and the same eps: DDIM, arXiv:2010.02502, Eq. 12 without noise."""
    alpha, sigma = clock
    x0 = denoise(x, t)
    return [alpha(s) * a + sigma(s) * e for a, e in zip(x0, eps_hat(clock, x, x0, t))]


def heun(clock: Clock, denoise: Denoise, x: list[float], t: float, s: float) -> list[float]:
    """EDM, arXiv:2206.00364, Algorithm 1, in y = x/alpha over lambda = sigma/alpha, where the slope is eps."""
    alpha, sigma = clock
    first = euler(clock, denoise, x, t, s)
    if sigma(s) == 0:
        return first
    slope_t, slope_s = eps_hat(clock, x, denoise(x, t), t), eps_hat(clock, first, denoise(first, s), s)
    width = sigma(s) / alpha(s) - sigma(t) / alpha(t)
    return [alpha(s) * (a / alpha(t) + width * (p + q) / 2) for a, p, q in zip(x, slope_t, slope_s)]
