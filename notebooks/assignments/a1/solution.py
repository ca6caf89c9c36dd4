"""Assignment 1, solved: schedule and preconditioning."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) in the shape (B, 1, ..., 1) and dtype in which it multiplies x (B, *D), whatever D is."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def add_noise(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    return x0 + per_sample(t, x0) * eps


def karras_grid(n: int, t_min: float = 0.002, t_max: float = 80.0, rho: float = 7.0) -> Tensor:
    low, high = t_min ** (1 / rho), t_max ** (1 / rho)
    grid = torch.linspace(low, high, n, dtype=torch.float64) ** rho
    grid[0], grid[-1] = t_min, t_max  # root and power do not cancel in floating point
    return grid


def c_in(t: Tensor, sigma_data: float = 0.5) -> Tensor:
    return 1 / (t**2 + sigma_data**2).sqrt()


def c_skip(t: Tensor, sigma_data: float = 0.5) -> Tensor:
    return sigma_data**2 / (t**2 + sigma_data**2)


def c_out(t: Tensor, sigma_data: float = 0.5) -> Tensor:
    return t * sigma_data / (t**2 + sigma_data**2).sqrt()


def c_noise(t: Tensor) -> Tensor:
    return t.log() / 4


def denoise(net: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, sigma_data: float = 0.5) -> Tensor:
    F = net(per_sample(c_in(t, sigma_data), x) * x, c_noise(t))
    return per_sample(c_skip(t, sigma_data), x) * x + per_sample(c_out(t, sigma_data), x) * F


def network_target(x0: Tensor, x: Tensor, t: Tensor, sigma_data: float = 0.5) -> Tensor:
    skipped = per_sample(c_skip(t, sigma_data), x) * x
    return (x0 - skipped) / per_sample(c_out(t, sigma_data), x)
