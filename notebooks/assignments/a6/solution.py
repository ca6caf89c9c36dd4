"""Assignment 6, solved: guidance, the skipping step and LoRA."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minicm.schedules import Schedule


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) in the shape (B, 1, ..., 1) and dtype in which it multiplies x (B, *D)."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def guide(D_c: Tensor, D_null: Tensor, w: Tensor) -> Tensor:
    return D_c + per_sample(w, D_c) * (D_c - D_null)


def guided_step(
    teacher: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor, label: Tensor, w: Tensor
) -> Tensor:
    x0_hat = guide(teacher(x, t, label=label), teacher(x, t), w)
    eps_hat = (x - per_sample(schedule.alpha(t), x) * x0_hat) / per_sample(schedule.sigma(t), x)
    return per_sample(schedule.alpha(s), x) * x0_hat + per_sample(schedule.sigma(s), x) * eps_hat


def skipping_grid(T: int, k: int) -> Tensor:
    down = torch.arange(T, 0, -k, dtype=torch.float64)
    return torch.cat([torch.zeros(1, dtype=torch.float64), down.flip(0)])


def w_embedding(w: Tensor, dim: int) -> Tensor:
    half = dim // 2
    j = torch.arange(half, dtype=w.dtype)
    phase = 1000 * w[:, None] * torch.exp(-j * math.log(10000) / (half - 1))
    return torch.cat([phase.sin(), phase.cos()], dim=1)


def draw_w(low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)


def lcd_loss(
    f: Callable,
    f_target: Callable,
    teacher: Callable,
    x0: Tensor,
    eps: Tensor,
    label: Tensor,
    t: Tensor,
    s: Tensor,
    w: Tensor,
    step: Callable,
    distance: Callable,
) -> Tensor:
    clock = teacher.schedule  # type: ignore[attr-defined]
    x_t = per_sample(clock.alpha(t), x0) * x0 + per_sample(clock.sigma(t), x0) * eps
    with torch.no_grad():
        x_s = step(teacher, clock, x_t, t, s, label, w)
        y_target = f_target(x_s, s, label=label, w=w)
    return distance(f(x_t, t, label=label, w=w), y_target)


def lora_start(W: Tensor, rank: int, scale: float, generator: torch.Generator) -> dict[str, Any]:
    A = torch.randn(rank, W.shape[1], generator=generator, dtype=W.dtype) / W.shape[1] ** 0.5
    return {"W": W, "A": A, "B": torch.zeros(W.shape[0], rank, dtype=W.dtype), "scale": scale}


def lora_apply(layer: dict[str, Any], x: Tensor) -> Tensor:
    y = x @ layer["W"].T
    if "base" in layer:  # merged: W holds the adapter already
        return y
    return y + layer["scale"] * (x @ layer["A"].T) @ layer["B"].T


def lora_merge(layer: dict[str, Any]) -> dict[str, Any]:
    if "base" in layer:
        return layer
    merged = layer["W"] + layer["scale"] * layer["B"] @ layer["A"]
    return {**layer, "W": merged, "base": layer["W"]}  # W' - scale B A would miss W by a rounding


def lora_unmerge(layer: dict[str, Any]) -> dict[str, Any]:
    if "base" not in layer:
        return layer
    return {"W": layer["base"], **{name: layer[name] for name in ("A", "B", "scale")}}
