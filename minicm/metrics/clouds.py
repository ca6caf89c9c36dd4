"""Distances between two clouds of points, (n, *D) and (m, *D): what is left where there is no exact answer.

They see little on mixtures: chance alone (how many points each mode happens to get) gives each of them a value above zero,
its `floor`, and a blur or a shift may well hide below it.
"""

import math

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor


def sliced_wasserstein(
    a: Tensor, b: Tensor, *, projections: int = 128, generator: torch.Generator | None = None
) -> float:
    """Sliced 2-Wasserstein distance over random directions, in the unit of the data.

    Bonneel et al., 2015, "Sliced and Radon Wasserstein barycenters of measures": the root of the mean, over directions, of
    the squared distance in one dimension, which is exact. (n, *D), (m, *D); directions are drawn on the CPU.
    Raises ValueError for a generator that is not a CPU one.
    """
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"directions are drawn on the CPU: give a CPU generator, not one on {generator.device}")
    a_all, b_all = two_clouds(a, b)
    directions = torch.randn(a_all.shape[1], projections, generator=generator, dtype=torch.float64).numpy()
    directions /= np.linalg.norm(directions, axis=0)
    a_sorted, b_sorted = (np.sort((cloud @ directions).T, axis=1) for cloud in (a_all, b_all))
    # Both quantile functions are stairs. Level i/(nm) is on step (i - 1)//m of a's n and (i - 1)//n of b's m.
    n, m = len(a_all), len(b_all)
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(levels, prepend=0) / (n * m)
    gap = a_sorted[:, (levels - 1) // m] - b_sorted[:, (levels - 1) // n]
    return math.sqrt((gap**2 @ widths).mean())


def wasserstein2(a: Tensor, b: Tensor) -> float:
    """Exact 2-Wasserstein distance of two clouds of n points each, (n, *D), by optimal assignment.

    Peyre and Cuturi, "Computational optimal transport", section 2.2. Time n^3, memory n^2: for n up to a few thousand.
    Raises ValueError for clouds of different sizes.
    """
    a_all, b_all = two_clouds(a, b)
    if len(a_all) != len(b_all):
        raise ValueError(f"wasserstein2 pairs points off and needs as many of each, got {len(a)} and {len(b)}")
    cost = cdist(a_all, b_all, "sqeuclidean")
    return math.sqrt(cost[linear_sum_assignment(cost)].mean())


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Energy distance, sqrt(2 E|a - b| - E|a - a'| - E|b - b'|), as in `scipy.stats` in one dimension; (n, *D), (m, *D).

    Szekely and Rizzo, 2013, "Energy statistics". All pairs are averaged, a point with itself included: so it is zero for
    equal clouds, and biased upwards otherwise. Time n m.
    """
    a_all, b_all = two_clouds(a, b)
    squared = 2 * _mean_distance(a_all, b_all) - _mean_distance(a_all, a_all) - _mean_distance(b_all, b_all)
    return math.sqrt(max(squared, 0.0))


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance between Gaussians fitted to features (n, d) and (m, d), squared as in FID.

    |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), TTUR, arXiv:1706.08500, Eq. 6. It falls as n and m
    grow: compare at equal sizes. Raises ValueError for fewer than two points.
    """
    a_all, b_all = two_clouds(a, b)
    if min(len(a_all), len(b_all)) < 2:
        raise ValueError(f"a covariance needs at least 2 points, got {len(a)} and {len(b)}")
    moments = [(torch.from_numpy(cloud.mean(axis=0)), torch.from_numpy(cloud).T.cov()) for cloud in (a_all, b_all)]
    return frechet_of_moments(*moments[0], *moments[1])


def frechet_of_moments(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """The same from means (d,) and covariances (d, d): of a data set, say, whose moments were stored.

    TTUR, arXiv:1706.08500, Eq. 6.
    """
    dim = len(mean_a)
    cov_a, cov_b = (cov.double().cpu().reshape(dim, dim) for cov in (cov_a, cov_b))
    # tr (C_a C_b)^(1/2) is the sum of the roots of the eigenvalues of C_a C_b, which are real and at least 0 but for
    # rounding. So no matrix root is needed, and singular covariances do no harm.
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()
    shift = (mean_a.double().cpu() - mean_b.double().cpu()).square().sum()
    return max((shift + cov_a.trace() + cov_b.trace() - 2 * roots).item(), 0.0)


def points(x: Tensor) -> Tensor:
    """(n, *D) -> (n, d), float64 on the CPU. Raises ValueError for no points, and for values that are not finite."""
    flat = x.detach().flatten(1).double().cpu()
    if len(flat) == 0:
        raise ValueError("there are no samples to measure: give at least one")
    if not flat.isfinite().all():
        bad = int((~flat.isfinite().all(dim=1)).sum())
        raise ValueError(f"{bad} of {len(flat)} samples hold NaN or infinity: the model or its sampler has failed")
    return flat


def two_clouds(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both as numpy arrays, (n, d) and (m, d). Raises ValueError where samples differ in shape."""
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"both clouds must hold samples of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    return points(a).numpy(), points(b).numpy()


def _mean_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of |a_i - b_j| over all pairs, by rows: at once, all pairs of 10,000 points would need 800 MB."""
    return sum(cdist(a[i : i + 1000], b).sum() for i in range(0, len(a), 1000)) / (len(a) * len(b))
