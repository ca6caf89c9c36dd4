"""Assignment 3: the boundary condition, and consistency distillation. Write the bodies; keep the names.

x is a batch (B, *D) of any number of dimensions; t and s < t are (B,), in the EDM clock. f is trained, f_target is theta-minus (its slow
copy), teacher is the frozen diffusion model: three different things. Read with it: Consistency Models (Song et al. 2023,
arXiv:2303.01469), section 3, Algorithm 2 and appendix C.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def c_skip(t: Tensor, sigma_data: float = 0.5, t_min: float = 0.002) -> Tensor:
    """How much of x is kept: EDM's c_skip, shifted so that it is *exactly* 1 at t_min. (B,) -> (B,), in t's dtype.

    Exactly means: equal to 1.0, in float32 and float64, for every sigma_data.
    """
    raise NotImplementedError


def c_out(t: Tensor, sigma_data: float = 0.5, t_min: float = 0.002) -> Tensor:
    """How much of the network's output is added: CM, appendix C; *exactly* 0 at t_min. (B,) -> (B,), in t's dtype."""
    raise NotImplementedError


def consistency(
    net: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, sigma_data: float = 0.5, t_min: float = 0.002
) -> Tensor:
    """The consistency function f(x, t), from one evaluation of net(c_in x, ln(t)/4), with f(x, t_min) = x exactly.

    c_in is EDM's, 1/sqrt(t^2 + sigma_data^2). (B, *D) -> (B, *D), in x's dtype.
    """
    raise NotImplementedError


def draw_interval(grid: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n intervals of an ascending grid (N,), each with the same probability: returns (t, s), both (n,), s just below t."""
    raise NotImplementedError


def l2(a: Tensor, b: Tensor) -> Tensor:
    """The squared Euclidean distance of each pair, summed over the whole sample. (B, *D), (B, *D) -> (B,)."""
    raise NotImplementedError


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
    """The consistency distillation loss of each sample, (B,): CM, Algorithm 2, with lambda = 1.

    f, f_target and teacher are called (x, t); step(teacher, teacher.schedule, x, t, s) is the ODE solver, as in assignment 2;
    distance(a, b) gives (B,). Gradients reach f, and neither f_target nor the teacher.
    """
    raise NotImplementedError


def target_update(target: list[Tensor], online: list[Tensor], mu: float) -> None:
    """theta-minus <- mu theta-minus + (1 - mu) theta, weight by weight, in place: CM, Eq. 8.

    target and online are the weights of f_target and of f, as list(model.parameters()) gives them: some want gradients.
    """
    raise NotImplementedError
