"""Bonus assignment 2: be the grader. Write five tests; keep the names.

Each function below is given an implementation, right or wrong. It must raise an exception (as `assert` does) for a wrong one and return None for
a right one. "Right" is what the docstring promises, no more and no less: right implementations differ in rounding, in style and in
speed, and your tests must let all of them pass, on every seed. Whatever is random in a test comes from the seed.

x, x0, eps, a, b are batches (B, *D) with at least one axis after the first, of numbers of the order of 1 to 100. An implementation takes tensors of
at most 4,096 numbers, and no batch so large that (B,) and (B, *D) broadcast to more than a million. It runs in another process, is yours for
the time of one call of your test, and is gone afterwards. The grader calls each test some 150 times and has 120 s for all: some fifty
questions in a test are fine. You need no solution of assignments 1 to 4, only the papers that they read.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def check_karras_grid(karras_grid: Callable[..., Tensor], seed: int) -> None:
    """Test karras_grid(n, t_min=0.002, t_max=80.0, rho=7.0): EDM's grid (arXiv:2206.00364, Eq. 5), in ascending order.

    The contract: 2 <= n <= 10,000 points, 1e-4 <= t_min < t_max <= 1,000, 1 <= rho <= 20. Returns (n,), float64. The first is t_min and the
    last t_max, exactly. The points are equally spaced in t^(1/rho); everything is computed in float64: the relative error of a point is
    at most 1e-12.
    """
    raise NotImplementedError


def check_consistency(consistency: Callable[..., Tensor], seed: int) -> None:
    """Test consistency(net, x, t, sigma_data=0.5, t_min=0.002): a consistency function in the EDM clock (CM, arXiv:2303.01469, appendix C).

    The contract: x float32 or float64; t (B,) in [t_min, 80], in x's dtype or float64; sigma_data from 0.05 to 5, t_min from 1e-4 to 0.1. Returns
    c_skip x + c_out F, (B, *D), in x's dtype, with F = net(c_in x, ln(t)/4), asked once; the first argument is in x's dtype, the second (B,)
    in t's. With g = t - t_min (t_min rounded to t's dtype): c_skip = sigma_data^2/(g^2 + sigma_data^2), c_in = 1/sqrt(t^2 + sigma_data^2),
    c_out = sigma_data g c_in. Where t is t_min the result equals x, bit for bit. Elsewhere a few roundings of x's dtype are allowed,
    relative to the largest number that takes part. x stays as it was.
    """
    raise NotImplementedError


def check_heun_step(heun_step: Callable[..., Tensor], seed: int) -> None:
    """Test heun_step(denoise, schedule, x, t, s): one Heun step of the probability-flow ODE from t to s (EDM, Algorithm 1).

    The contract: schedule is an EDM, VP or TrigFlow of minicm.schedules, with schedule.alpha(t) and schedule.sigma(t), both (B,). t and s are (B,),
    float64 (whole numbers in VP), s below or above t, sigma(t) > 0. In y = x/alpha and lambda = sigma/alpha the ODE reads
    dy/dlambda = eps_hat, where x = alpha D + sigma eps_hat and D = denoise(x, t). Heun averages eps_hat at both ends, the second at the point
    that Euler reaches: two evaluations. Where sigma(s) = 0, for all samples or for none, the step is Euler's, with one evaluation. Returns
    (B, *D), in x's dtype, float32 or float64; x stays as it was. The error is a few roundings of x's dtype, relative to the largest of
    x, y and lambda eps_hat: beware of float32 where alpha is small.
    """
    raise NotImplementedError


def check_pseudo_huber(pseudo_huber: Callable[..., Tensor], seed: int) -> None:
    """Test pseudo_huber(a, b, c): sqrt(|a - b|^2 + c^2) - c of each pair, the norm over the whole sample (iCT, arXiv:2310.14189, section 3.3).

    The contract: a and b (B, *D) of one dtype, float32 or float64; c from 1e-3 to 100. Returns (B,), in their dtype. It can be differentiated in a
    and in b, everywhere: at a = b the gradient is 0. The error is a few roundings of c plus the result: that of sqrt(...) - c as it stands.
    """
    raise NotImplementedError


def check_ct_loss(ct_loss: Callable[..., Tensor], seed: int) -> None:
    """Test ct_loss(f, f_target, x0, eps, t, s, distance): the loss of consistency training (CM, Algorithm 3, with iCT's weight).

    The contract: x0 and eps float32 or float64; 0 < s < t <= 80, both (B,), float64. f and f_target are called once each, as (x, time): f at
    (x0 + t eps, t), f_target at (x0 + s eps, s), the point in x0's dtype. Returns distance(f's answer, f_target's answer)/(t - s), (B,), in
    x0's dtype; distance(a, b) gives (B,) and may be any. The gradient is that of the loss with f_target's answer held fixed: it
    reaches what f depends on, and nothing through f_target. The points are right to a few roundings relative to the largest number that
    takes part (t eps, for one), and the loss to what this makes of it.
    """
    raise NotImplementedError
