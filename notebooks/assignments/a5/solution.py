"""Assignment 5, solved: sampling in a few steps, and editing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minicm.schedules import Schedule


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) in the shape (B, 1, ..., 1) and dtype in which it multiplies x (B, *D)."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def renoise(x: Tensor, s: Tensor, eps: Tensor, t_min: float = 0.002) -> Tensor:
    return x + per_sample((s**2 - t_min**2).sqrt(), x) * eps


def multistep(
    f: Callable, eps: Tensor, times: Tensor, draw: Callable[[Tensor], Tensor], t_min: float = 0.002
) -> Tensor:
    x = f(times[0].item() * eps, times[0].expand(len(eps)))
    for time in times[1:]:
        s = time.expand(len(eps))
        x = f(renoise(x, s, draw(x), t_min), s)
    return x


def gamma_step(
    schedule: Schedule, x: Tensor, x0_hat: Tensor, t: Tensor, s: Tensor, gamma: float, eps: Tensor, t_min: float = 0.002
) -> Tensor:
    u = (1 - gamma) * s
    alpha, sigma = schedule.alpha, schedule.sigma
    eps_hat = (x - per_sample(alpha(t), x) * x0_hat) / per_sample(sigma(t), x)
    x_u = per_sample(alpha(u), x) * x0_hat + per_sample(sigma(u), x) * eps_hat
    ratio = alpha(s) / alpha(u)
    variance = sigma(s) ** 2 - (ratio * sigma(u).clamp(min=t_min)) ** 2
    return per_sample(ratio, x) * x_u + per_sample(variance.clamp(min=0).sqrt(), x) * eps


def orthogonal(first: Tensor) -> Tensor:
    columns = torch.eye(len(first), dtype=first.dtype)
    axis = first.abs().argmax()  # leave out the unit vector nearest to first: the rest stay independent
    others = columns[:, [i for i in range(len(first)) if i != axis]]
    Q, R = torch.linalg.qr(torch.cat([first[:, None], others], dim=1))
    return Q * R.diag().sign()  # QR may turn a column round


def mix(x: Tensor, Q: Tensor) -> Tensor:
    return torch.einsum("bi...,ij->bj...", x, Q.to(x.dtype))


def unmix(z: Tensor, Q: Tensor) -> Tensor:
    return torch.einsum("bj...,ij->bi...", z, Q.to(z.dtype))


def edit(
    f: Callable,
    y: Tensor,
    forward: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
    mask: Tensor,
    times: Tensor,
    draw: Callable[[Tensor], Tensor],
    t_min: float = 0.002,
) -> Tensor:
    known = forward(y)

    def put_back(x: Tensor, t: Tensor) -> Tensor:
        return inverse(torch.where(mask, forward(f(x, t)), known))

    t = times[0].expand(len(y))
    start = inverse(known.masked_fill(mask, 0))
    x = put_back(start + per_sample(t, y) * draw(y), t)
    for time in times[1:]:
        s = time.expand(len(y))
        x = put_back(renoise(x, s, draw(x), t_min), s)
    return x


def slerp(a: Tensor, b: Tensor, fraction: float) -> Tensor:
    cosine = torch.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1)
    angle = per_sample(cosine.acos() / torch.pi, a)
    whole = torch.sinc(angle)  # sin(w)/w, which is 1 where a and b are parallel
    share_a = (1 - fraction) * torch.sinc((1 - fraction) * angle) / whole
    return share_a * a + fraction * torch.sinc(fraction * angle) / whole * b
