"""Assignment 4, solved: consistency training."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) in the shape (B, 1, ..., 1) and dtype in which it multiplies x (B, *D)."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def ct_points(k: int, K: int, s0: int = 2, s1: int = 150) -> int:
    return math.ceil(math.sqrt(k / K * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1) + 1


def ct_decay(k: int, K: int, s0: int = 2, s1: int = 150, mu0: float = 0.9) -> float:
    return math.exp(s0 * math.log(mu0) / ct_points(k, K, s0, s1))


def pair(x0: Tensor, eps: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return x0 + per_sample(t, x0) * eps, x0 + per_sample(s, x0) * eps


def pseudo_huber(a: Tensor, b: Tensor, c: float) -> Tensor:
    squared = (a - b).square().flatten(1).sum(1)
    return (squared + c**2).sqrt() - c


def interval_mass(grid: Tensor, mean: float = -1.1, std: float = 2.0) -> Tensor:
    mass = torch.erf((grid.log() - mean) / (math.sqrt(2) * std)).diff()
    return mass / mass.sum()


def ect_earlier(t: Tensor, step: int, d: int, q: float = 2.0, k: float = 8.0, b: float = 1.0) -> Tensor:
    n = 1 + k * torch.sigmoid(-b * t)
    return (t * (1 - n / q ** (step // d + 1))).clamp(min=0)


def ct_loss(
    f: Callable, f_target: Callable, x0: Tensor, eps: Tensor, t: Tensor, s: Tensor, distance: Callable
) -> Tensor:
    x_t, x_s = pair(x0, eps, t, s)
    with torch.no_grad():
        y_target = f_target(x_s, s)
    return distance(f(x_t, t), y_target) / (t - s).to(x0.dtype)
