"""Bonus assignment 2: be the grader. Write five tests; keep the names.

Each function below is given an implementation, right or wrong, and must raise an exception (AssertionError, as `assert` does) for a wrong
one and return None for a right one. "Right" is what the docstring promises, no more and no less: right implementations differ in
rounding, in style and in speed, and your tests must let all of them pass, on every seed. Whatever is random in a test comes from the seed.

An implementation may be asked with any input that its contract allows: tensors of at most 4,096 numbers, n up to 10,000, few enough samples
that one noise level for each beside the points broadcasts to no more than a million. x, x0, a, b are batches (B, *D) with at least one axis
after the first. They run in another process: print or source code tell nothing about them.
Read with it: the docstrings of assignments 1 to 4, which this one needs none of.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def check_karras_grid(karras_grid: Callable[..., Tensor], seed: int) -> None:
    """Test karras_grid(n, t_min=0.002, t_max=80.0, rho=7.0): EDM's grid (arXiv:2206.00364, Eq. 5), in ascending order.

    The contract: n >= 2 points, 0 < t_min < t_max, rho >= 1. Returns (n,), float64. The first is t_min and the last t_max, exactly.
    The points are equally spaced in t^(1/rho), with a relative error of at most 1e-12: everything is computed in float64.
    """
    raise NotImplementedError


def check_consistency(consistency: Callable[..., Tensor], seed: int) -> None:
    """Test consistency(net, x, t, sigma_data=0.5, t_min=0.002): a consistency function in the EDM clock (CM, arXiv:2303.01469, appendix C).

    The contract: t (B,) in [t_min, 80], in x's dtype or in float64. Returns c_skip x + c_out F, (B, *D), in x's dtype, with
    F = net(c_in x, ln(t)/4), asked once; the second argument is (B,) in t's dtype, the first in x's. With g = t - t_min
    (t_min rounded to t's dtype): c_skip = sigma_data^2/(g^2 + sigma_data^2), c_out = sigma_data g/sqrt(t^2 + sigma_data^2),
    c_in = 1/sqrt(t^2 + sigma_data^2). Where t is t_min the result equals x, bit for bit, for every sigma_data > 0. x stays as it was.
    Elsewhere a few roundings of x's dtype are allowed, relative to the largest number that takes part.
    """
    raise NotImplementedError


def check_heun_step(heun_step: Callable[..., Tensor], seed: int) -> None:
    """Test heun_step(denoise, schedule, x, t, s): one Heun step of the probability-flow ODE from t to s (EDM, Algorithm 1).

    The contract: schedule is an EDM, VP or TrigFlow of minicm.schedules, of which schedule.alpha(t) and schedule.sigma(t) are there, (B,);
    t and s (B,), float64 (whole numbers in VP), s below or above t, sigma(t) > 0, alpha(s) > 0. In y = x/alpha and lambda = sigma/alpha the
    ODE reads dy/dlambda = eps_hat, with x = alpha D + sigma eps_hat and D = denoise(x, t). Heun averages eps_hat at both ends, the second
    at the point that Euler reaches: two evaluations. Where sigma(s) = 0, for all samples or for none, the step is Euler's, with one
    evaluation. Returns (B, *D), in x's dtype; x stays as it was. The error is a few roundings of x's dtype, relative to the largest of x,
    y and the result; beware of float32 where alpha is small.
    """
    raise NotImplementedError


def check_pseudo_huber(pseudo_huber: Callable[..., Tensor], seed: int) -> None:
    """Test pseudo_huber(a, b, c): sqrt(|a - b|^2 + c^2) - c of each pair, the norm over the whole sample (iCT, arXiv:2310.14189, section 3.3).

    The contract: a and b (B, *D) of one dtype, float32 or float64; c > 0. Returns (B,), in their dtype. It can be differentiated in a and
    in b, everywhere: at a = b the gradient is 0. The error is a few roundings of c plus the result: that of sqrt(...) - c as it stands.
    """
    raise NotImplementedError


def check_ct_loss(ct_loss: Callable[..., Tensor], seed: int) -> None:
    """Test ct_loss(f, f_target, x0, eps, t, s, distance): the loss of consistency training (CM, Algorithm 3, with iCT's weight).

    The contract: x0 and eps (B, *D), in float32 or float64; t > s > 0, both (B,), float64. f and f_target are each called once, as (x, time):
    f at (x0 + t eps, t), f_target at (x0 + s eps, s), with the x in x0's dtype. Returns distance(f's answer, f_target's answer)/(t - s),
    (B,), in x0's dtype; distance(a, b) gives (B,) and may be any. The gradient is that of the loss with f_target's answer held
    fixed: it reaches what f depends on, and nothing through f_target. The error is a few roundings, relative to the largest number that
    takes part (t eps, for one).
    """
    raise NotImplementedError
