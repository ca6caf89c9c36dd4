"""Slow and obvious specifications: plain Python, one number at a time, written from the papers and not from the package.

They share no line with the code that they judge. Numbers are floats, points are lists of floats.
"""

from __future__ import annotations

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


def ddim(x: float, eps: float, bar_t: float, bar_s: float) -> float:
    """DDIM, arXiv:2010.02502, Eq. 12 with sigma = 0: predicted x0, then the direction pointing to x_t."""
    predicted = (x - math.sqrt(1 - bar_t) * eps) / math.sqrt(bar_t)
    return math.sqrt(bar_s) * predicted + math.sqrt(1 - bar_s) * eps


def slope(x: list[float], y: list[float]) -> float:
    """The least-squares slope of y over x."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


# ------------------------------------------------------------------------------- A4: consistency training
def ct_points(k: int, K: int, s0: int, s1: int) -> int:
    """CM, arXiv:2303.01469, appendix C: ceil(sqrt(y) - 1) + 1 is the first n with n^2 >= y; here in whole numbers."""
    n = 1
    while K * n * n < k * ((s1 + 1) ** 2 - s0**2) + K * s0**2:
        n += 1
    return n


def ct_decay(n: float, s0: int, mu0: float) -> float:
    """CM, appendix C, for n = N(k) points: exp(s0 ln(mu0)/n)."""
    return math.exp(s0 * math.log(mu0) / n)


def pseudo_huber(r: list[float], c: float) -> float:
    """iCT, arXiv:2310.14189, section 3.3, of one sample's residual: sqrt(|r|^2 + c^2) - c."""
    return math.sqrt(sum(a * a for a in r) + c * c) - c


def interval_mass(grid: list[float], mean: float, std: float) -> list[float]:
    """iCT, section 3.5: how much of ln t ~ N(mean, std^2) lies in each interval, out of what lies on the grid."""
    below = [math.erf((math.log(t) - mean) / (math.sqrt(2) * std)) for t in grid]
    return [(b - a) / (below[-1] - below[0]) for a, b in zip(below, below[1:])]


def ect_earlier(t: float, stage: float, q: float, k: float, b: float) -> float:
    """ECT, arXiv:2406.14548, section 3.3: max(0, t (1 - n(t)/q^(stage + 1))), n(t) = 1 + k sigmoid(-b t)."""
    n = 1 + k / (1 + math.exp(b * t))
    return max(0.0, t * (1 - n / q ** (stage + 1)))


# ------------------------------------------------------------------------------- A5: sampling and editing
def fill(s: float, t_min: float) -> float:
    """CM, arXiv:2303.01469, Algorithm 1: the standard deviation that brings a sample at t_min up to s in the EDM clock."""
    return math.sqrt(s * s - t_min * t_min)


def by_way_of(
    clock: Clock,
    x: list[float],
    x0: list[float],
    t: float,
    u: float,
    scale: float,
    level: float,
    z: list[float],
) -> list[float]:
    """From t to u with the same x0 and the same eps, then scaled, then noise of a level (a standard deviation)."""
    alpha, sigma = clock
    moved = [alpha(u) * a + sigma(u) * e for a, e in zip(x0, eps_hat(clock, x, x0, t))]
    return [scale * a + level * b for a, b in zip(moved, z)]


def gamma_step(
    clock: Clock,
    x: list[float],
    x0: list[float],
    t: float,
    s: float,
    gamma: float,
    z: list[float],
    t_min: float,
) -> list[float]:
    """TCD, arXiv:2402.19159, Algorithm 4, by way of u = (1 - gamma) s; a point below t_min has t_min's noise."""
    alpha, sigma = clock
    u = (1 - gamma) * s
    scale = alpha(s) / alpha(u)
    level = math.sqrt(max(sigma(s) ** 2 - (scale * max(sigma(u), t_min)) ** 2, 0.0))
    return by_way_of(clock, x, x0, t, u, scale, level, z)


def slerp(a: list[float], b: list[float], fraction: float) -> list[float]:
    """Shoemake 1985: weights sin((1 - u) w)/sin(w) and sin(u w)/sin(w), w being the angle between a and b."""
    length_a, length_b = math.hypot(*a), math.hypot(*b)
    angle = math.acos(sum(p * q for p, q in zip(a, b)) / (length_a * length_b))
    share_a, share_b = (math.sin(part * angle) / math.sin(angle) for part in (1 - fraction, fraction))
    return [share_a * p + share_b * q for p, q in zip(a, b)]


# ------------------------------------------------------------------------------- A6: guidance and skips
def guided(D_c: list[float], D_null: list[float], w: float) -> list[float]:
    """LCM, arXiv:2310.04378, section 4.2: (1 + w) D_c - w D_null; w + 1 is Imagen's scale."""
    return [(1 + w) * a - w * b for a, b in zip(D_c, D_null)]


def skipping_grid(T: int, k: int) -> list[float]:
    """LCM, section 4.3, t = 0 being clean: from T down in steps of k, and 0; ascending."""
    times, t = [], T
    while t > 0:
        times.append(float(t))
        t -= k
    return [0.0, *reversed(times)]


def w_embedding(w: float, dim: int) -> list[float]:
    """LCM's training script: sines, then cosines, of 1000 w times exp(-j ln(10000)/(dim/2 - 1))."""
    half = dim // 2
    phases = [1000 * w * math.exp(-j * math.log(10000) / (half - 1)) for j in range(half)]
    return [math.sin(p) for p in phases] + [math.cos(p) for p in phases]


# ------------------------------------------------------------------------------- B1: sCM's tangent
def angle_below(t: float, mean: float, std: float, sd: float) -> float:
    """sCM, arXiv:2410.11081, Algorithm 1: the probability that arctan(e^tau/sd) <= t, tau ~ N(mean, std^2)."""
    return (1 + math.erf((math.log(sd * math.tan(t)) - mean) / (math.sqrt(2) * std))) / 2


def trig_velocity(x: list[float], x0: list[float], t: float) -> list[float]:
    """sCM, section 3: d/dt of cos(t) x0 + sin(t) z, where z is what makes that x."""
    z = [(a - math.cos(t) * b) / math.sin(t) for a, b in zip(x, x0)]
    return [math.cos(t) * c - math.sin(t) * b for b, c in zip(x0, z)]


def trig_tangent(
    x: list[float], dx: list[float], F: list[float], dF: list[float], t: float, sd: float, r: float
) -> list[float]:
    """sCM, Algorithm 1, for the network G = -F of the paper: -cos^2 (sd G - dx) - r cos sin (x + sd dG)."""
    cos, sin = math.cos(t), math.sin(t)
    rows = zip(x, dx, F, dF)
    return [-cos * cos * (sd * -f - d) - r * cos * sin * (a + sd * -df) for a, d, f, df in rows]


def normalized(g: list[float], c: float) -> list[float]:
    """sCM, Algorithm 1: g/(|g| + c)."""
    return [a / (math.hypot(*g) + c) for a in g]
