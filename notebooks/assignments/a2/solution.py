"""Assignment 2, solved: steps of the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minicm.schedules import Schedule


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) in the shape (B, 1, ..., 1) and dtype in which it multiplies x (B, *D)."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def eps_hat(schedule: Schedule, x: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
    return (x - per_sample(schedule.alpha(t), x) * x0_hat) / per_sample(schedule.sigma(t), x)


def euler_step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    x0_hat = denoise(x, t)
    noise = eps_hat(schedule, x, x0_hat, t)
    return per_sample(schedule.alpha(s), x) * x0_hat + per_sample(schedule.sigma(s), x) * noise


def heun_step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    slope_t = eps_hat(schedule, x, denoise(x, t), t)
    alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(s)
    width = schedule.sigma(s) / alpha_s - schedule.sigma(t) / alpha_t
    y = x / per_sample(alpha_t, x)
    x_s = per_sample(alpha_s, x) * (y + per_sample(width, x) * slope_t)
    if (schedule.sigma(s) == 0).all():
        return x_s  # a clean point has no slope
    slope_s = eps_hat(schedule, x_s, denoise(x_s, s), s)
    return per_sample(alpha_s, x) * (y + per_sample(width, x) * (slope_t + slope_s) / 2)


def solve(denoise: Callable, schedule: Schedule, x: Tensor, times: Sequence[float], step: Callable) -> Tensor:
    for t, s in zip(times[:-1], times[1:]):
        x = step(denoise, schedule, x, *(torch.full((len(x),), time, dtype=torch.float64) for time in (t, s)))
    return x


def order(steps: Sequence[int], errors: Sequence[float]) -> float:
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (steps, errors))
    x, y = x - x.mean(), y - y.mean()
    return -((x * y).sum() / (x * x).sum()).item()


def ddim_step(x: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    x0_hat = (x - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5
    return alpha_bar_s**0.5 * x0_hat + (1 - alpha_bar_s) ** 0.5 * eps
