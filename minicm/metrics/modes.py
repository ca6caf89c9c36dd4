"""Samples against the modes of a mixture: points between the modes, missing modes, modes that have collapsed."""

import torch
from scipy.stats import chi2
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.metrics.clouds import points

FAR = 16.0  # squared Mahalanobis distance from which on a point is an outlier: four standard deviations


def outlier_fraction(x: Tensor, mixture: GaussianMixture) -> float:
    """Share of points (n, *D) farther than four standard deviations (Mahalanobis^2 > 16) from every mode.

    Beside `exact_outliers`, what a perfect sampler scores. It sees points on the bridges between modes, which
    distances between samples do not.
    """
    return (_mahalanobis2(x, mixture).amin(dim=1) > FAR).double().mean().item()


def exact_outliers(dim: int) -> float:
    """The outlier fraction of a mixture of well separated modes: P(chi^2_dim > 16), exp(-8) = .034 % for dim = 2."""
    return float(chi2.sf(FAR, dim))


def mode_occupancy(x: Tensor, mixture: GaussianMixture) -> Tensor:
    """Share of the points (n, *D) in each mode, (K,), summing to one.

    A point between modes is shared out by the odds that it came from each. So exact samples have the mixture's
    weights on average, however much its modes overlap.
    """
    return _odds(x, mixture).mean(dim=0)


def occupancy_variation(x: Tensor, mixture: GaussianMixture) -> float:
    """Total variation between occupancy and weights: the share of points that would have to change their mode."""
    return (mode_occupancy(x, mixture) - mixture.weights).abs().sum().item() / 2


def mode_covariance_ratio(x: Tensor, mixture: GaussianMixture) -> Tensor:
    """(det C_k/det S_k)^(1/d) of each mode: samples' over true variance, 1 if right, 0 if collapsed; (n, *D) -> (K,).

    The determinant sees a blob that has shrunk in one direction only, to a line. C_k is taken about the samples' own
    mean, over points within four standard deviations of the mode (outliers are counted elsewhere), each by its odds
    of belonging to it; what a Gaussian loses by that cut is divided out. A mode of d points or fewer, which span nothing, has 0.
    """
    flat = points(x)
    dim = flat.shape[1]
    held = _odds(x, mixture) * (_mahalanobis2(x, mixture) <= FAR)
    mass = held.sum(dim=0)
    mean = held.T @ flat / mass[:, None]
    gap = flat[:, None] - mean
    cov = torch.einsum("nk,nki,nkj->kij", held, gap, gap) / mass[:, None, None]
    kept = chi2.cdf(FAR, dim + 2) / chi2.cdf(FAR, dim)  # variance of a Gaussian inside the cut
    ratio = (torch.linalg.det(cov).clamp(min=0) / torch.linalg.det(mixture.covs)) ** (1 / dim)
    return (ratio / kept).where(mass > dim, 0.0)


def _mahalanobis2(x: Tensor, mixture: GaussianMixture) -> Tensor:
    return mixture.mahalanobis2(points(x)).double().cpu()


def _odds(x: Tensor, mixture: GaussianMixture) -> Tensor:
    """Posterior probability of each mode at each point, (n, K)."""
    log_weight = mixture.weights.log() - torch.logdet(mixture.covs) / 2
    return torch.softmax(log_weight - _mahalanobis2(x, mixture) / 2, dim=1)
