"""Bonus assignment 1: sCM's tangent. Write the bodies; keep the names.

The clock is TrigFlow: x_t = cos(t) x0 + sin(t) z with z ~ N(0, sigma_d^2 I), and t an angle in (0, pi/2). x is a batch (B, *D) of any number of
dimensions, t is (B,). F is the network inside f, called F(x, t) with the point itself: the division by sigma_d happens inside it.
F HAS THE OPPOSITE SIGN OF THE PAPER'S: f(x, t) = cos(t) x + sin(t) sigma_d F(x, t). Wherever the paper writes F, put -F.
Read with it: sCM (Lu and Song 2024, arXiv:2410.11081), sections 3 and 4, Eq. 6, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def draw_angles(
    n: int, generator: torch.Generator, mean: float = -1.0, std: float = 1.4, sigma_d: float = 0.5
) -> Tensor:
    """sCM's training times, t = arctan(e^tau/sigma_d) with tau ~ N(mean, std^2): Algorithm 1. Returns (n,), float64."""
    raise NotImplementedError


def consistency(F: Callable, x: Tensor, t: Tensor, sigma_d: float = 0.5) -> Tensor:
    """f(x, t), with f(x, 0) = x exactly, of one evaluation of F. (B, *D), (B,) -> (B, *D), in x's dtype."""
    raise NotImplementedError


def velocity(x: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
    """dx/dt of the probability-flow ODE in TrigFlow, for a prediction x0_hat of the data: section 3. Returns (B, *D)."""
    raise NotImplementedError


def derivative(F: Callable, x: Tensor, t: Tensor, dx: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """F(x, t), and its derivative along the direction (dx, dt): a Jacobian-vector product. Two of (B, *D).

    dx (B, *D), dt (B,). torch.func.jvp does it (torch.func.linearize would trace F, which the grader's F does not allow).
    """
    raise NotImplementedError


def tangent(F: Callable, x: Tensor, t: Tensor, dx: Tensor, sigma_d: float = 0.5, r: float = 1.0) -> Tensor:
    """cos(t) df/dt along the trajectory through x, whose direction is dx = dx/dt: Eq. 6. (B, *D).

    r, 0 to 1, fades in what Algorithm 1 fades in: the term with cos(t) sin(t).
    """
    raise NotImplementedError


def normalize(g: Tensor, c: float = 0.1) -> Tensor:
    """The tangent with its length brought below 1: section 4.2, tangent normalisation. (B, *D) -> (B, *D)."""
    raise NotImplementedError


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
    """sCM's loss of each sample, (B,), in x's dtype: Algorithm 1, last line, for the point x at t and its direction dx.

    w (B,) is the learnt log-weight w_phi(t). F is called (x, t), once; all else is F_target's. Gradients reach F and w, not F_target.
    """
    raise NotImplementedError
