"""Drawing samples: from a consistency function in one or a few steps, and from a denoiser with EDM's sampler."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from minicm.schedules import EDM, Denoise, Schedule, expand
from minicm.solvers import as_times, heun_step

LEVELS = {1: (80.0,), 2: (80.0, 0.8), 4: (80.0, 8.0, 0.8, 0.2)}  # noise levels of few-step sampling


class Counted:
    """A denoiser that counts how often it is evaluated: the NFE of the literature, in `.evaluations`."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise, self.evaluations = denoise, 0

    def __call__(self, *args: Any, **cond: Any) -> Tensor:
        self.evaluations += 1
        return self.denoise(*args, **cond)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["denoise"], name)


@torch.no_grad()
def sample(
    f: Denoise,
    x_T: Tensor,
    times: Tensor | Sequence[float],
    gamma: float = 1.0,
    schedule: Schedule | None = None,
    t_min: float | None = None,
    generator: torch.Generator | None = None,
    **cond: Tensor | None,
) -> Tensor:
    """x0 from x_T in len(times) evaluations of f: predict, go back to the next time, predict again.

    CM, arXiv:2303.01469, Algorithm 1 (gamma = 1: fresh noise at every time); TCD, arXiv:2402.19159, Algorithm 4
    (0 < gamma < 1); gamma = 0 is deterministic: Euler, DDIM. x_T (B, *D) lives at times[0]; times decrease, in f's
    clock; there is no noise after the last. The step from t to s goes to s' = (1 - gamma) s without noise (rounded
    down in VP) and on to s with noise; in EDM f's output lives at t_min, so that gamma = 1 adds sqrt(s^2 - t_min^2).
    An f with a second time is told u = s'. cond: label, w (B,).
    Raises ValueError for times that do not decrease or lie outside [t_min, t_max], and gamma outside [0, 1].
    """
    schedule = f.schedule if schedule is None else schedule
    t_min = getattr(f, "t_min", 0.0) if t_min is None else t_min
    times = check_times(times, schedule, t_min)
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1] (0 deterministic, 1 fresh noise), got {gamma:g}")
    x = x_T
    for t, s in zip(times, [*times[1:], None], strict=True):
        u = schedule.floor((1 - gamma) * s) if s is not None else torch.zeros_like(t)
        t, u = (time.to(x.device).expand(len(x)) for time in (t, u))
        goal = {"u": u.clamp(min=t_min)} if getattr(f, "second_time", False) else {}
        x0_hat = f(x, t, **cond, **goal)
        if s is None:
            break
        x = schedule.step(x, x0_hat, t, u)
        if gamma > 0:
            x = _add_noise(schedule, x, u, s.to(x.device).expand(len(x)), t_min, generator)
    return x0_hat


@torch.no_grad()
def edm_sample(
    denoise: Denoise,
    x: Tensor,
    times: Tensor | Sequence[float],
    *,
    s_churn: float = 0.0,  # how much noise is stirred in, over all steps
    s_min: float = 0.0,  # noise levels that are stirred: from here
    s_max: float = float("inf"),  # to here
    s_noise: float = 1.0,  # standard deviation of the noise stirred in
    generator: torch.Generator | None = None,
) -> Tensor:
    """EDM's stochastic sampler: before every Heun step a little noise is added, and the step starts higher up.

    EDM, arXiv:2206.00364, Algorithm 2. x (B, *D) lives at times[0]; times decrease and usually end in 0. With
    s_churn = 0 it is Algorithm 1: solve(denoise, EDM(), x, times, heun_step). Times below s_min and above s_max
    get no noise, and, unlike in the paper, no point is lifted above t_max, where no denoiser is trained.
    Raises ValueError for times that do not decrease, a clock other than EDM, and a negative s_churn or s_noise.
    """
    schedule = denoise.schedule
    if not isinstance(schedule, EDM):
        raise ValueError(
            f"edm_sample needs a denoiser in the EDM clock, got {type(schedule).__name__}: use InClock(..., EDM())"
        )
    if not (s_churn >= 0 and s_noise >= 0):
        raise ValueError(f"s_churn and s_noise must be 0 (no noise) or more, got {s_churn:g}, {s_noise:g}")
    times = check_times(times, schedule, 0.0)
    for t, s in zip(times[:-1], times[1:], strict=True):
        churn = min(s_churn / (len(times) - 1), 2**0.5 - 1) if s_min <= t <= s_max else 0.0
        t_hat = ((1 + churn) * t).clamp(max=schedule.t_max)
        if t_hat > t:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + ((t_hat**2 - t**2).sqrt() * s_noise).item() * noise
        t_hat, s = (time.to(x.device).expand(len(x)) for time in (t_hat, s))
        x = heun_step(denoise, schedule, x, t_hat, s)
    return x


def choose_times(
    f: Denoise,
    x_T: Tensor,
    score: Callable[[Tensor], float],
    n: int,
    *,
    grid: Tensor,  # ascending candidates (N,), in f's clock; the last is where x_T lives
    gamma: float = 1.0,  # of sample()
    seed: int = 0,  # of sample()'s noise, one for all candidates: so their scores can be compared
    **cond: Any,
) -> Tensor:
    """The n decreasing times for `sample` whose samples score lowest, chosen greedily: one more time after another.

    CM, arXiv:2303.01469, section 3. Each time is found by ternary search, which finds the best candidate where the
    score has a single valley, for about 2 log(N)/log(3/2) scores. score: samples (B, *D) -> a number, such as a
    distance to data; lower is better.
    Returns (n,), float64. Raises ValueError for a grid that does not ascend and an n that it cannot hold.
    """
    if grid.ndim != 1 or (grid.diff() <= 0).any() or not 1 <= n <= len(grid):
        raise ValueError(f"choose_times needs an ascending grid of at least n = {n} >= 1 times")

    def value(chosen: list[int], i: int) -> float:
        generator = torch.Generator(x_T.device).manual_seed(seed)
        return float(score(sample(f, x_T, grid[[*chosen, i]], gamma, generator=generator, **cond)))

    chosen = [len(grid) - 1]
    for room in range(n - 2, -1, -1):  # how many later times must still fit below this one
        chosen = [*chosen, _lowest(partial(value, chosen), room, chosen[-1] - 1)]
    return grid[chosen].double()


def _lowest(value: Callable[[int], float], low: int, high: int) -> int:
    """Where value is lowest on low..high, by ternary search: a third of the interval goes after each comparison."""
    value = cache(value)
    while high - low > 2:
        third = (high - low) // 3
        if value(low + third) < value(high - third):
            high -= third
        else:
            low += third
    return min(range(low, high + 1), key=value)


def check_times(times: Tensor | Sequence[float], schedule: Schedule, t_min: float) -> Tensor:
    """Sampling times as a float64 tensor (N,). Raises ValueError unless they decrease and stay above t_min."""
    times = as_times(times, schedule)
    if (times.diff() >= 0).any():
        given = [round(t, 6) for t in times.tolist()]
        raise ValueError(f"sampling times must decrease, from noise to data, got {given}")
    if times[-1] < t_min * (1 - 1e-6):  # 1e-6: a t_min that went through float32
        raise ValueError(f"sampling times must be at least t_min = {t_min:g}, got {times[-1].item():g}")
    return times


def _add_noise(
    schedule: Schedule, x: Tensor, u: Tensor, s: Tensor, t_min: float, generator: torch.Generator | None
) -> Tensor:
    """From u up to s > u by the forward process: scale by alpha_s/alpha_u and fill up the variance."""
    ratio = schedule.alpha(s) / schedule.alpha(u)
    sigma_u = schedule.sigma(u.clamp(min=t_min))  # f's output lives at t_min, not at 0
    fill = (schedule.sigma(s).square() - (ratio * sigma_u).square()).clamp(min=0).sqrt()
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (expand(ratio, x) * x + expand(fill, x) * noise).to(x.dtype)


def sampling_times(schedule: Schedule, steps: int) -> Tensor:
    """Times of 1-, 2- or 4-step sampling in a clock, from the noise levels LEVELS."""
    times = schedule.t_of(torch.tensor(LEVELS[steps], dtype=torch.float64))
    times[0] = schedule.t_max
    return times
