"""Assignment 2: solving the probability-flow ODE. Write the bodies; keep the names.

x is a batch (B, *D) of any number of dimensions; t and s are (B,): from and to, in either direction. A schedule is a clock, with
schedule.alpha(t) and schedule.sigma(t), both (B,): x_t = alpha x0 + sigma eps. In the EDM clock alpha = 1 and sigma = t. denoise(x, t) is
the estimate of the clean point, (B, *D). Read with it: EDM (arXiv:2206.00364), Algorithm 1; DDIM (arXiv:2010.02502), Eq. 12.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from minicm.schedules import Schedule


def eps_hat(schedule: Schedule, x: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
    """The unit noise that x holds at t, if its clean point is x0_hat. (B, *D) -> (B, *D), in x's dtype."""
    raise NotImplementedError


def euler_step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One Euler step from t to s, with one evaluation of denoise, in any clock.

    The estimate x0_hat and the noise eps_hat at t are kept, and put together again at s. (B, *D) -> (B, *D), in x's dtype.
    """
    raise NotImplementedError


def heun_step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One Heun step from t to s, with two evaluations of denoise; where sigma(s) = 0, Euler's with one.

    In y = x/alpha and lambda = sigma/alpha the ODE reads dy/dlambda = eps_hat, in every clock; Heun averages its slope at both
    ends, the second taken at the point that Euler reaches. All samples of a batch share one s if it is clean.
    """
    raise NotImplementedError


def solve(denoise: Callable, schedule: Schedule, x: Tensor, times: Sequence[float], step: Callable) -> Tensor:
    """Carry x through the times in the order given, by step(denoise, schedule, x, t, s); x lives at times[0].

    times: a list of N floats (N - 1 steps), falling from noise to data or rising to encode. step wants t and s as (B,) tensors in
    float64. Returns the point at times[-1], (B, *D).
    """
    raise NotImplementedError


def order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The order of convergence p of errors ~ steps^-p: minus the least-squares slope of ln(error) over ln(steps)."""
    raise NotImplementedError


def ddim_step(x: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    """DDIM's deterministic step (Eq. 12 with sigma = 0): from noise level t to s, eps being predicted at x.

    alpha_bar is the cumulative product of DDPM, alpha squared in our letters. (B, *D) -> (B, *D).
    """
    raise NotImplementedError
