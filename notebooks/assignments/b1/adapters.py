"""Where the grader looks for your functions. If your code is built differently, edit this file and nothing else.

Each function here has the signature that the checks call; how it reaches your code is up to you.
"""

from __future__ import annotations

from collections.abc import Callable

import student
import torch
from torch import Tensor


def draw_angles(
    n: int, generator: torch.Generator, mean: float = -1.0, std: float = 1.4, sigma_d: float = 0.5
) -> Tensor:
    return student.draw_angles(n, generator, mean, std, sigma_d)


def consistency(F: Callable, x: Tensor, t: Tensor, sigma_d: float = 0.5) -> Tensor:
    return student.consistency(F, x, t, sigma_d)


def velocity(x: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
    return student.velocity(x, x0_hat, t)


def derivative(F: Callable, x: Tensor, t: Tensor, dx: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    return student.derivative(F, x, t, dx, dt)


def tangent(F: Callable, x: Tensor, t: Tensor, dx: Tensor, sigma_d: float = 0.5, r: float = 1.0) -> Tensor:
    return student.tangent(F, x, t, dx, sigma_d, r)


def normalize(g: Tensor, c: float = 0.1) -> Tensor:
    return student.normalize(g, c)


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
    return student.scm_loss(F, F_target, x, t, dx, w, sigma_d, r, c)
