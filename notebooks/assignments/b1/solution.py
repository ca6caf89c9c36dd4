"""Bonus assignment 1, solved: sCM's tangent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) in the shape (B, 1, ..., 1) and dtype in which it multiplies x (B, *D)."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def draw_angles(
    n: int, generator: torch.Generator, mean: float = -1.0, std: float = 1.4, sigma_d: float = 0.5
) -> Tensor:
    tau = mean + std * torch.randn(n, generator=generator, dtype=torch.float64)
    return (tau.exp() / sigma_d).atan()


def consistency(F: Callable, x: Tensor, t: Tensor, sigma_d: float = 0.5) -> Tensor:
    return per_sample(t.cos(), x) * x + per_sample(t.sin(), x) * sigma_d * F(x, t)


def velocity(x: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
    z = (x - per_sample(t.cos(), x) * x0_hat) / per_sample(t.sin(), x)
    return per_sample(t.cos(), x) * z - per_sample(t.sin(), x) * x0_hat


def derivative(F: Callable, x: Tensor, t: Tensor, dx: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    value, dF = torch.func.jvp(F, (x, t), (dx, dt))  # type: ignore[misc]
    return value, dF


def tangent(F: Callable, x: Tensor, t: Tensor, dx: Tensor, sigma_d: float = 0.5, r: float = 1.0) -> Tensor:
    value, dF = derivative(F, x, t, dx, torch.ones_like(t))
    cos, sin = per_sample(t.cos(), x), per_sample(t.sin(), x)
    return cos**2 * (sigma_d * value + dx) - r * cos * sin * (x - sigma_d * dF)


def normalize(g: Tensor, c: float = 0.1) -> Tensor:
    return g / (per_sample(g.flatten(1).norm(dim=1), g) + c)


def scm_loss(
    F: Callable,
    F_target: Callable,
    x: Tensor,
    t: Tensor,
    dx: Tensor,
    w: Tensor,
    sigma_d: float = 0.5,
    r: float = 1.0,
    c: float = 0.1,
) -> Tensor:
    with torch.no_grad():
        aim = F_target(x, t) - normalize(tangent(F_target, x, t, dx, sigma_d, r), c)
    squared = (F(x, t) - aim).square().flatten(1).sum(1)
    w = w.to(x.dtype)
    return w.exp() / x[0].numel() * squared - w
