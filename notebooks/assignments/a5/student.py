"""Assignment 5: sampling in a few steps, and editing. Write the bodies; keep the names.

x is a batch (B, *D) of any number of dimensions; f is a consistency function, called f(x, t) with t of shape (B,). Its output is a
sample at t_min: almost clean, not quite. Read with it: Consistency Models (Song et al. 2023, arXiv:2303.01469), Algorithms 1 and 4;
TCD (Zheng et al. 2024, arXiv:2402.19159), Algorithm 4.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from minicm.schedules import Schedule


def renoise(x: Tensor, s: Tensor, eps: Tensor, t_min: float = 0.002) -> Tensor:
    """x (B, *D), a sample at t_min, brought up to the noise levels s (B,) with the unit noise eps; EDM clock. In x's dtype.

    CM, Algorithm 1. What is already there counts: together it must be the noise of s.
    """
    raise NotImplementedError


def multistep(
    f: Callable, eps: Tensor, times: Tensor, draw: Callable[[Tensor], Tensor], t_min: float = 0.002
) -> Tensor:
    """Samples (B, *D) from unit noise eps (B, *D), in len(times) evaluations of f: CM, Algorithm 1, EDM clock. In eps's dtype.

    times (N,) decrease; the first is where sampling starts. draw(x) gives new unit noise of x's shape at every call.
    """
    raise NotImplementedError


def gamma_step(
    schedule: Schedule, x: Tensor, x0_hat: Tensor, t: Tensor, s: Tensor, gamma: float, eps: Tensor, t_min: float = 0.002
) -> Tensor:
    """From x (B, *D) at t to s < t (both (B,)), in any clock; s may be 0. TCD, Algorithm 4. In x's dtype.

    First without noise to u = (1 - gamma) s: same x0_hat, same eps_hat. Then up to s with the unit noise eps, as the forward process
    x_s = alpha_s/alpha_u x_u + ... does it. Where sigma_u is below t_min, x_u still holds t_min's noise: f does not go lower.
    schedule.alpha and schedule.sigma take (B,) times. gamma = 0: deterministic; gamma = 1 in the EDM clock: renoise(x0_hat, s, eps).
    """
    raise NotImplementedError


def orthogonal(first: Tensor) -> Tensor:
    """An orthogonal matrix (n, n) whose first column points the way of first (n,), which need not have length 1."""
    raise NotImplementedError


def mix(x: Tensor, Q: Tensor) -> Tensor:
    """Coefficients (B, C, *S) of x (B, C, *S): at each place number j is the product of column j of Q (C, C) with the channels."""
    raise NotImplementedError


def unmix(z: Tensor, Q: Tensor) -> Tensor:
    """The x of which z are the coefficients: undoes mix, for an orthogonal Q."""
    raise NotImplementedError


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
    """A sample (B, *D) that has y's coefficients where mask is False, and generated ones where it is True: CM, Algorithm 4.

    forward(x) gives the coefficients, inverse(z) takes them back; mask (bool) has the coefficients' shape without the batch. times
    (N,) decrease, in the EDM clock; one evaluation of f for each. What y holds in the masked part must not matter. draw as in multistep.
    """
    raise NotImplementedError


def slerp(a: Tensor, b: Tensor, fraction: float) -> Tensor:
    """From noise a (B, *D), at fraction 0, to b, at 1, along the arc: each sample by its own angle. Also where a equals b."""
    raise NotImplementedError
