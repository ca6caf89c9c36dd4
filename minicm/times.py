"""Which times are used: grids, the laws that draw training times, and curricula.

A grid is an ascending float64 tensor with grid[0] = t_min. A time law draws times; an index law draws the
interval n of a grid, whose ends are s = grid[n] < t = grid[n + 1]. A curriculum is a function of (k, K), the
training step and their total: it has no state, so a resumed run needs nothing extra.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

T_MIN = 0.002  # the papers' epsilon, the earliest noise level

TimeLaw = Callable[[int, torch.Generator], Tensor]  # (n, generator) -> times (n,)
IndexLaw = Callable[[Tensor, int, torch.Generator], Tensor]  # (grid, n, generator) -> indices (n,)


# ---------------------------------------------------------------------------------------------- grids
def karras_grid(n: int, t_min: float = T_MIN, t_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """The n times of EDM, ascending as in CM, equally spaced in t^(1/rho).

    EDM, arXiv:2206.00364, Eq. 5; CM, arXiv:2303.01469, section 4. Returns (n,), float64; the end points
    are set, not computed: grid[0] == t_min and grid[-1] == t_max.
    Raises ValueError unless n >= 2, 0 <= t_min < t_max and rho > 0.
    """
    if n < 2:
        raise ValueError(f"a grid needs n >= 2 points, got n = {n}")
    if not 0 <= t_min < t_max:
        raise ValueError(f"a grid needs 0 <= t_min < t_max, got t_min = {t_min:g}, t_max = {t_max:g}")
    if not rho > 0:
        raise ValueError(f"a grid needs rho > 0 (EDM uses 7), got {rho:g}")
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    low, high = t_min ** (1 / rho), t_max ** (1 / rho)
    grid = (low + ramp * (high - low)) ** rho
    grid[0], grid[-1] = t_min, t_max
    return grid


def skip_grid(n: int, T: int = 1000) -> Tensor:
    """The times 0, T/n, 2T/n, ..., T of the VP clock: n skips of k = T/n (LCM, arXiv:2310.04378, section 4.3).

    Returns (n + 1,), float64, whole numbers. Raises ValueError unless 1 <= n <= T.
    """
    if not 1 <= n <= T:
        raise ValueError(f"a skip grid needs 1 <= n <= T = {T}, got n = {n}")
    return (torch.arange(n + 1, dtype=torch.float64) * T / n).round()


def quadratic_grid(n: int = 30, T: int = 1000) -> Tensor:
    """The times T (i/n)^2 of the VP clock for i = 0..n, rounded: close together near the data, where sigma falls fast.

    DDIM, arXiv:2010.02502, appendix D.2 ("quadratic"). With equal skips of 20 the last one, from sigma/alpha = .13 to
    0 in one Euler step, alone costs .05 on the ring of eight; these 30 steps cost .02 in all. Returns (n + 1,), float64.
    """
    return ((torch.arange(n + 1, dtype=torch.float64) / n).square() * T).round()


def with_skip(grid: Tensor, skip: int) -> Tensor:
    """Every `skip`-th time of an ascending grid (N,), counted down from the last, and the first time of all.

    LCM, arXiv:2310.04378, section 4.3. For 0..1000 and a skip (the paper's k) of 20 these are 0, 20, ..., 1000, the DDIM
    times of the training script, 19, 39, ..., 999 in its numbering. Where it does not divide N - 1, the lowest skip is shorter. Raises ValueError unless the grid ascends and 1 <= skip <= N - 1.
    """
    if grid.ndim != 1 or len(grid) < 2 or (grid.diff() <= 0).any():
        raise ValueError("skips need an ascending grid of at least two times, such as torch.arange(1001)")
    if not 1 <= skip <= len(grid) - 1:
        raise ValueError(f"skip = {skip}: the skipping step must lie in 1..{len(grid) - 1}, the steps of the grid")
    kept = grid.double().flip(0)[::skip].flip(0)
    return kept if kept[0] == grid[0] else torch.cat([grid[:1].double(), kept])


# ------------------------------------------------------------------------------------------ time laws
@dataclass(frozen=True)
class LogNormalTimes:
    """ln t ~ N(mean, std^2), clamped to [low, high]: EDM's training noise (arXiv:2206.00364, Table 1).

    Raises ValueError unless std >= 0 and 0 <= low <= high.
    """

    mean: float = -1.2  # P_mean; iCT and ECT use -1.1
    std: float = 1.2  # P_std; iCT and ECT use 2.0
    low: float = 1e-3  # noise level
    high: float = 80.0  # noise level

    def __post_init__(self) -> None:
        if not (self.std >= 0 and 0 <= self.low <= self.high):
            raise ValueError(
                f"times need std >= 0 and 0 <= low <= high, got std = {self.std}, low = {self.low}, high = {self.high}"
            )

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, generator=generator, device=generator.device, dtype=torch.float64)
        return (self.mean + self.std * z).exp().clamp(self.low, self.high)


@dataclass(frozen=True)
class LogNormalAngles:
    """t = arctan(e^tau / sigma_d) with tau ~ N(mean, std^2): sCM's proposal (arXiv:2410.11081, Algorithm 1)."""

    mean: float = -1.0  # of ln sigma
    std: float = 1.4  # of ln sigma
    sigma_data: float = 0.5  # data units
    high: float = 80.0  # noise level of the last angle

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        sigma = LogNormalTimes(mean=self.mean, std=self.std, low=0.0, high=self.high)(n, generator)
        return (sigma / self.sigma_data).atan()


@dataclass(frozen=True)
class UniformSteps:
    """t uniform on 1..T: DDPM's training times (arXiv:2006.11239, Algorithm 1)."""

    T: int = 1000  # steps of the VP chain

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        steps = torch.randint(1, self.T + 1, (n,), generator=generator, device=generator.device)
        return steps.double()


# ----------------------------------------------------------------------------------------- index laws
@dataclass(frozen=True)
class UniformIndex:
    """Every interval of the grid alike: n ~ U{0..N-2} (CM, arXiv:2303.01469, Algorithms 2 and 3)."""

    def __call__(self, grid: Tensor, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(grid) - 1, (n,), generator=generator, device=generator.device)


@dataclass(frozen=True)
class LogNormalIndex:
    """Each interval with the mass that ln t ~ N(mean, std^2) gives it (iCT, arXiv:2310.14189, section 3.5)."""

    mean: float = -1.1  # P_mean, of ln sigma (not +1.1)
    std: float = 2.0  # P_std

    def mass(self, grid: Tensor) -> Tensor:
        """Probabilities (N-1,) of the intervals of a grid (N,)."""
        cdf = torch.erf((grid.log() - self.mean) / (math.sqrt(2) * self.std))
        return (cdf[1:] - cdf[:-1]) / (cdf[-1] - cdf[0])

    def __call__(self, grid: Tensor, n: int, generator: torch.Generator) -> Tensor:
        return torch.multinomial(self.mass(grid), n, replacement=True, generator=generator)


# ------------------------------------------------------------------------------------------ curricula
def ct_points(k: int, K: int, s0: int = 2, s1: int = 150) -> int:
    """N(k), the number of grid points of CT at step k of K (CM, arXiv:2303.01469, appendix C)."""
    return math.ceil(math.sqrt(k / K * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1) + 1


def ct_decay(k: int, K: int, s0: int = 2, s1: int = 150, mu0: float = 0.9) -> float:
    """mu(k) = exp(s0 ln(mu0)/N(k)) = mu0^(s0/N(k)), the target's decay in CT (CM, arXiv:2303.01469, appendix C).

    The paper's N(k); both official code bases divide by N(k) - 1, which gives .81 for .9 at k = 0.
    """
    return mu0 ** (s0 / ct_points(k, K, s0, s1))


def doubling_points(k: int, K: int, s0: int = 10, s1: int = 1280) -> int:
    """N(k) of iCT: s0 + 1 points, intervals doubling in equal stages up to s1 (arXiv:2310.14189, Table 1)."""
    stage = max(math.floor(K / (math.log2(s1 // s0) + 1)), 1)  # K' of the paper: steps a stage lasts
    return min(s0 * 2 ** (k // stage), s1) + 1


def ect_gap(t: Tensor, stage: int, *, q: float = 2.0, k: float = 8.0, b: float = 1.0) -> Tensor:
    """ECT's earlier time s = max(0, t (1 - n(t)/q^(stage+1))), n(t) = 1 + k sigmoid(-b t); (B,) -> (B,).

    ECT, arXiv:2406.14548, section 3.3, and the mapping of its code. Stage 0 has s = 0 for t < ln 7: there
    consistency training begins as diffusion training, and the gap closes as the stage rises.
    """
    n = 1 + k * torch.sigmoid(-b * t)
    return (t * (1 - n / q ** (stage + 1))).clamp(min=0)
