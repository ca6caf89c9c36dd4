"""The floor of a measure: what exact samples score, which chance alone keeps above zero."""

from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.metrics.clouds import energy_distance, sliced_wasserstein
from minicm.metrics.modes import mode_covariance_ratio, occupancy_variation, outlier_fraction
from minicm.metrics.rows import Row
from minicm.train import Data

Metric = Callable[[Tensor], float]  # samples (n, *D) -> a number


def floor(
    metric: Metric, data: Data, n: int, repeats: int = 10, generator: torch.Generator | None = None
) -> tuple[float, float]:
    """What n exact samples of the data score in a metric, x (n, *D) -> number: mean and standard deviation over repeats.

    floor(lambda x: sliced_wasserstein(x, real), mixture, 1000). Raises ValueError for fewer than two repeats.
    """
    generator = generator or torch.Generator().manual_seed(0)
    return mean_and_spread(metric(data.sample(n, generator)[0]) for _ in range(repeats))


def mean_and_spread(scores: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation of some numbers. Raises ValueError for fewer than two."""
    values = torch.tensor([float(score) for score in scores], dtype=torch.float64)
    if len(values) < 2:
        raise ValueError(f"a spread needs at least 2 repeats, got {len(values)}")
    return values.mean().item(), values.std().item()


def measure_samples(x: Tensor, data: Data, *, seed: int = 0) -> list[Row]:
    """All sample measures of x (n, *D), each beside its floor at the same n and against the same reference samples.

    Distances to samples of the data, and where these are a mixture the state of its modes. The energy distance, which
    needs all pairs, is of the first 2,000 points.
    """
    floors = _floors(data, len(x), seed)  # type: ignore[arg-type]  # data are hashable, unless they say otherwise
    return [Row(name, metric(x), *floors[name]) for name, metric in _metrics(data, len(x), seed).items()]


def _metrics(data: Data, n: int, seed: int) -> dict[str, Metric]:
    generator = torch.Generator().manual_seed(seed + 2)
    real, _ = data.sample(n, generator)
    found: dict[str, Metric] = {}
    if isinstance(data, GaussianMixture):
        found = {
            "outliers": lambda x: outlier_fraction(x, data),
            "occupancy": lambda x: occupancy_variation(x, data),
            "narrowest mode": lambda x: mode_covariance_ratio(x, data).min().item(),
            "widest mode": lambda x: mode_covariance_ratio(x, data).max().item(),
        }
    return found | {
        "sliced W2": lambda x: sliced_wasserstein(x, real, generator=generator),
        "energy distance": lambda x: energy_distance(x[:2000], real[:2000]),
    }


@lru_cache(maxsize=64)  # ten times the work of the values, and the same for every model
def _floors(data: Data, n: int, seed: int) -> dict[str, tuple[float, float]]:
    generator = torch.Generator().manual_seed(seed + 3)
    return {name: floor(metric, data, n, generator=generator) for name, metric in _metrics(data, n, seed).items()}
