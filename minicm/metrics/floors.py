"""The floor of a measure: what exact samples score, which chance alone keeps above zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.metrics.clouds import energy_distance, sliced_wasserstein
from minicm.metrics.modes import mode_covariance_ratio, occupancy_variation, outlier_fraction


@dataclass(frozen=True)
class Floor:
    """What exact samples score, over repeats: mean and standard deviation."""

    mean: float
    std: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.std:.1g}"


def floor(
    metric: Callable[[Tensor], float],
    mixture: GaussianMixture,
    n: int,
    repeats: int = 10,
    generator: torch.Generator | None = None,
) -> Floor:
    """What n exact samples of the mixture score in a metric, x (n, *D) -> number, and how much that scatters.

    floor(lambda x: sliced_wasserstein(x, data), mixture, 1000). Raises ValueError for fewer than two repeats.
    """
    if repeats < 2:
        raise ValueError(f"a spread needs at least 2 repeats, got {repeats}")
    scores = [float(metric(mixture.sample(n, generator)[0])) for _ in range(repeats)]
    values = torch.tensor(scores, dtype=torch.float64)
    return Floor(values.mean().item(), values.std().item())


@dataclass(frozen=True)
class Measured:
    """A number and its floor."""

    value: float
    floor: Floor

    def __str__(self) -> str:
        return f"{self.value:.3g} (floor {self.floor})"


def measure(
    x: Tensor, mixture: GaussianMixture, *, repeats: int = 10, generator: torch.Generator | None = None
) -> dict[str, Measured]:
    """All sample measures of x (n, *D), each beside its floor at the same n and against the same reference samples.

    The energy distance, which needs all pairs, is of the first 2,000 points.
    """
    data = mixture.sample(len(x), generator)[0]
    return {
        name: Measured(metric(x), floor(metric, mixture, len(x), repeats, generator))
        for name, metric in sample_metrics(mixture, data, generator).items()
    }


def sample_metrics(
    mixture: GaussianMixture, data: Tensor, generator: torch.Generator | None = None
) -> dict[str, Callable[[Tensor], float]]:
    """All sample measures by name, x (n, *D) -> number, against the reference samples data (n, *D).

    The energy distance, which needs all pairs, is of the first 2,000 points.
    """
    return {
        "outliers": lambda x: outlier_fraction(x, mixture),
        "occupancy": lambda x: occupancy_variation(x, mixture),
        "narrowest mode": lambda x: mode_covariance_ratio(x, mixture).min().item(),
        "widest mode": lambda x: mode_covariance_ratio(x, mixture).max().item(),
        "sliced W2": lambda x: sliced_wasserstein(x, data, generator=generator),
        "energy distance": lambda x: energy_distance(x[:2000], data[:2000]),
    }
