"""Assignment 3, solved: the boundary condition and consistency distillation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) in the shape (B, 1, ..., 1) and dtype in which it multiplies x (B, *D)."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def gap(t: Tensor, t_min: float) -> Tensor:
    """t - t_min, with t_min rounded to t's dtype first: float32(0.002) - 0.002 is not zero."""
    return t - torch.full_like(t, t_min)


def c_skip(t: Tensor, sigma_data: float = 0.5, t_min: float = 0.002) -> Tensor:
    # Not sd^2/(gap^2 + sd^2): torch divides a float by a tensor as reciprocal times float, which misses 1.
    return 1 / (1 + (gap(t, t_min) / sigma_data) ** 2)


def c_out(t: Tensor, sigma_data: float = 0.5, t_min: float = 0.002) -> Tensor:
    return sigma_data * gap(t, t_min) / (t**2 + sigma_data**2).sqrt()


def consistency(
    net: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, sigma_data: float = 0.5, t_min: float = 0.002
) -> Tensor:
    F = net(per_sample(1 / (t**2 + sigma_data**2).sqrt(), x) * x, t.log() / 4)
    skip, out = c_skip(t, sigma_data, t_min), c_out(t, sigma_data, t_min)
    return per_sample(skip, x) * x + per_sample(out, x) * F


def draw_interval(grid: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    i = torch.randint(len(grid) - 1, (n,), generator=generator)
    return grid[i + 1], grid[i]


def l2(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).sum(1)


def cd_loss(
    f: Callable,
    f_target: Callable,
    teacher: Callable,
    x0: Tensor,
    eps: Tensor,
    t: Tensor,
    s: Tensor,
    step: Callable,
    distance: Callable,
) -> Tensor:
    x_t = x0 + per_sample(t, x0) * eps
    with torch.no_grad():
        x_s = step(teacher, teacher.schedule, x_t, t, s)  # type: ignore[attr-defined]
        y_target = f_target(x_s, s)
    return distance(f(x_t, t), y_target)


@torch.no_grad()
def target_update(target: list[Tensor], online: list[Tensor], mu: float) -> None:
    for kept, now in zip(target, online):
        kept.mul_(mu).add_(now, alpha=1 - mu)
