"""Steps of the probability-flow ODE, from t to s in either direction, and a loop that takes them.

A step is a pure function of a denoiser, its clock, the point x (B, *D) and the two times (B,).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minicm.schedules import Schedule, expand, readable

Step = Callable[[Callable, Schedule, Tensor, Tensor, Tensor], Tensor]


def euler_step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One Euler step from t to s: one evaluation, global order 1.

    CM, arXiv:2303.01469, after Eq. 6; in the VP clock this is DDIM (arXiv:2010.02502, Eq. 12).
    """
    return schedule.step(x, denoise(x, t), t, s)


def heun_step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One Heun step from t to s: two evaluations, global order 2; a step to sigma(s) = 0 is Euler's.

    EDM, arXiv:2206.00364, Algorithm 1. In y = x/alpha, lambda = sigma/alpha the ODE is dy/dlambda = eps_hat, so
    Heun averages eps_hat at the two ends; below it stands as a correction of the Euler step.
    """
    x0_t = denoise(x, t)
    x_s = schedule.step(x, x0_t, t, s)
    clean = schedule.sigma(s) == 0
    if readable(s) and clean.all():
        return x_s
    s_noisy = torch.where(clean, t, s)  # a clean end has no slope: its correction is dropped below
    eps_t = schedule.eps_hat(x, x0_t, t)
    eps_s = schedule.eps_hat(x_s, denoise(x_s, s_noisy), s_noisy)
    half = (schedule.sigma(s) - schedule.alpha(s) * schedule.sigma(t) / schedule.alpha(t)) / 2
    return (x_s + expand(half.masked_fill(clean, 0), x) * (eps_s - eps_t)).to(x.dtype)


@torch.no_grad()
def solve(
    denoise: Callable,
    schedule: Schedule,
    x: Tensor,
    times: Tensor | Sequence[float],
    step: Step = heun_step,
    keep: bool = False,
) -> Tensor:
    """Carry x along the probability-flow ODE through the times in the order given; x lives at times[0].

    EDM, arXiv:2206.00364, Algorithm 1, for any step. karras_grid(n).flip(0) goes from noise to data,
    karras_grid(n) encodes. x (B, *D), times (N,) -> (B, *D), or with keep all points, (N, B, *D).
    Raises ValueError for times out of the clock's range.
    """
    times = as_times(times, schedule)
    points = [x]
    for t, s in zip(times[:-1], times[1:], strict=True):
        x = step(denoise, schedule, x, t.to(x.device).expand(len(x)), s.to(x.device).expand(len(x)))
        points = [*points, x] if keep else [x]
    return torch.stack(points) if keep else x


def as_times(times: Tensor | Sequence[float], schedule: Schedule) -> Tensor:
    """Times as a 1-D float64 tensor on the CPU, checked against the clock's range. Raises ValueError."""
    times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"times must be a list of at least one time, got shape {tuple(times.shape)}")
    schedule.check(times)
    return times
