"""Probability flows that have a formula: independent checks of the integrated one in `mixtures`.

One Gaussian (the ODE is linear), one dimension (the flow keeps quantiles), and products of one-dimensional mixtures
(each coordinate goes its own way). Nothing is integrated here, and nothing is shared with `exact_flow` but the clocks.

x is (B, d), times are a float or (B,) in the clock's unit; results are float64.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from minicm.schedules import EDM, Schedule

Time = float | Tensor
Mixture1D = tuple[Tensor, Tensor, Tensor]  # weights, means and standard deviations, each (K,)


def gaussian_flow(x: Tensor, mean: Tensor, cov: Tensor, t: Time, s: Time, schedule: Schedule = EDM()) -> Tensor:
    """The flow of N(mean, cov) from t to s: whiten at t, colour at s. x (B, d), mean (d,), cov (d, d) -> (B, d).

    alpha_s m + (alpha_s^2 S + sigma_s^2 I)^(1/2) (alpha_t^2 S + sigma_t^2 I)^(-1/2) (x - alpha_t m): EDM,
    arXiv:2206.00364, Eq. 4, whose right-hand side is linear here. The roots share the eigenvectors of S, and commute.
    """
    (a_t, b_t), (a_s, b_s) = _clock(schedule, t, x), _clock(schedule, s, x)
    mean, (eig, Q) = mean.double(), torch.linalg.eigh(cov.double())
    along = (x.double() - a_t * mean) @ Q
    ratio = ((a_s.square() * eig + b_s.square()) / (a_t.square() * eig + b_t.square())).sqrt()
    return a_s * mean + (ratio * along) @ Q.T


def quantile_flow(x: Tensor, mixture: Mixture1D, t: Time, s: Time, schedule: Schedule = EDM()) -> Tensor:
    """The flow of a one-dimensional mixture from t to s: Q_s(CDF_t(x)), Q_s being the inverse of CDF_s. (B,) -> (B,).

    A flow that carries p_t to p_s on a line cannot change the order of points, so it keeps the quantile of each (the
    ODE is Score-SDE's, arXiv:2011.13456, Eq. 13). The inverse is by bisection.
    """
    (a_t, b_t), (a_s, b_s) = _clock(schedule, t, x[:, None]), _clock(schedule, s, x[:, None])
    weights, means, stds = (part.double() for part in mixture)
    width_t, width_s = ((a * stds).square() + b.square() for a, b in ((a_t, b_t), (a_s, b_s)))
    target = _log_odds(weights, (x.double()[:, None] - a_t * means) / width_t.sqrt())
    # The quantile lies between those of the components: each brings x to where it alone would carry it.
    alone = a_s * means + (width_s / width_t).sqrt() * (x.double()[:, None] - a_t * means)
    low, high = alone.amin(1), alone.amax(1)
    for _ in range(100):  # until two neighbouring floats are left
        middle = (low + high) / 2
        below = _log_odds(weights, (middle[:, None] - a_s * means) / width_s.sqrt()) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def product_flow(x: Tensor, mixtures: Sequence[Mixture1D], t: Time, s: Time, schedule: Schedule = EDM()) -> Tensor:
    """The flow of a product of one-dimensional mixtures, one a coordinate: `quantile_flow` in each. (B, d) -> (B, d).

    The density factorises at every time, so the score's coordinates do not know of each other, nor the ODE's.
    """
    columns = [quantile_flow(column, mixture, t, s, schedule) for column, mixture in zip(x.T, mixtures)]
    return torch.stack(columns, dim=1)


def _log_odds(weights: Tensor, z: Tensor) -> Tensor:
    """log(CDF/(1 - CDF)) of a mixture whose components see the point at z (B, K): exact in both tails. (B,)."""
    below, above = (torch.logsumexp(weights.log() + torch.special.log_ndtr(side), 1) for side in (z, -z))
    return below - above


def _clock(schedule: Schedule, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, (B, 1)."""
    t = torch.as_tensor(t, dtype=torch.float64)
    t = t.expand(len(x)) if t.ndim == 0 else t
    schedule.check(t, x)
    return schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
