"""How good a model of a 2-D recipe is: every number beside its floor and the band that healthy seeds fall into."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.evaluate.rows import Row
from minicm.metrics import (
    ExactConsistency,
    Floor,
    consistency_error,
    energy_distance,
    floor,
    paired_error,
    rms,
    sample_metrics,
    sliced_wasserstein,
)
from minicm.sampling import LEVELS, sample, sampling_times
from minicm.schedules import Denoise
from minicm.solvers import solve
from minicm.times import karras_grid
from minicm.train import Data


@torch.no_grad()
def evaluate(f: Denoise, data: Data, *, n: int = 4000, seed: int = 0) -> list[Row]:
    """All measures of a consistency function in 2-D: paired errors where data is a mixture, and sample distances.

    In a paired error f and the exact f* go through the same sampler with the same noise; per dimension, in units of
    sigma_d.
    """
    rows = []
    x_T = f.schedule.prior((n, 2), torch.Generator().manual_seed(seed))
    for steps in LEVELS:
        times = sampling_times(f.schedule, steps)
        x = sample(f, x_T, times, generator=torch.Generator().manual_seed(seed + 1))
        label = f"{steps}-step" if steps > 1 else "1-step"
        if isinstance(data, GaussianMixture):
            exact = ExactConsistency(data, f.schedule, f.t_min)
            truth = sample(exact, x_T, times, generator=torch.Generator().manual_seed(seed + 1))
            rows += _paired(label, paired_error(x, truth, data.sigma_data))
            rows += _samples(label, x, data, seed)
        else:
            rows += _clouds(label, x, data, seed)
    if isinstance(data, GaussianMixture):
        error = consistency_error(f, data, generator=torch.Generator().manual_seed(seed + 3))
        rows += [Row("all times RMSE", error.overall_rmse), Row("all times median", error.overall_median)]
    return rows


@torch.no_grad()
def evaluate_teacher(denoiser: Denoise, data: Data, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """The teacher's flow, 40 Heun steps from x_T, against the exact flow; beside it what the solver alone misses."""
    schedule = denoiser.schedule
    x_T = schedule.prior((n, 2), torch.Generator().manual_seed(seed))
    times = schedule.t_of(karras_grid(40)).flip(0)
    x = solve(denoiser, schedule, x_T, times)
    if not isinstance(data, GaussianMixture):
        return _clouds("Heun-40", x, data, seed)
    truth = data.flow(x_T, schedule.t_max, times[-1].item(), schedule)
    alone = paired_error(solve(data.denoiser(schedule), schedule, x_T, times), truth, data.sigma_data)
    error = paired_error(x, truth, data.sigma_data)
    rows = [
        Row("Heun-40 RMSE", rms(error), rms(alone)),
        Row("Heun-40 median", error.median().item(), alone.median().item()),
    ]
    return rows + _samples("Heun-40", x, data, seed)


@torch.no_grad()
def against_teacher(f: Denoiser, teacher: Denoise, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """One step of a student against 200 Heun steps of its own teacher: what distillation lost, teacher's faults apart."""
    schedule = teacher.schedule
    x_T = schedule.prior((n, 2), torch.Generator().manual_seed(seed))
    truth = solve(teacher, schedule, x_T, schedule.t_of(karras_grid(200)).flip(0))  # .002 is t_min, or close to 0
    error = paired_error(f(x_T, torch.full((n,), schedule.t_max)), truth, f.sigma_data)
    return [
        Row("1-step RMSE to the teacher", rms(error)),
        Row("1-step median to the teacher", error.median().item()),
    ]


def _paired(label: str, error: torch.Tensor) -> list[Row]:
    return [Row(f"{label} RMSE", rms(error), 0.0), Row(f"{label} median", error.median().item(), 0.0)]


def _samples(label: str, x: torch.Tensor, data: GaussianMixture, seed: int) -> list[Row]:
    """Every sample measure of x beside its floor."""
    metrics, floors = _metrics(data, len(x), seed), _floors(data, len(x), seed)
    return [Row(f"{label} {name}", m(x), floors[name].mean, floors[name].std) for name, m in metrics.items()]


def _metrics(data: GaussianMixture, n: int, seed: int) -> dict[str, Callable[[torch.Tensor], float]]:
    generator = torch.Generator().manual_seed(seed + 2)
    return sample_metrics(data, data.sample(n, generator)[0], generator)


@lru_cache(maxsize=64)  # ten times the work of the values, and the same for every model
def _floors(data: GaussianMixture, n: int, seed: int) -> dict[str, Floor]:
    generator = torch.Generator().manual_seed(seed + 3)
    return {name: floor(m, data, n, generator=generator) for name, m in _metrics(data, n, seed).items()}


def _clouds(label: str, x: torch.Tensor, data: Data, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed + 2)
    real, again = data.sample(len(x), generator)[0], data.sample(len(x), generator)[0]
    rows = []
    for name, distance in {
        "sliced W2": lambda a: sliced_wasserstein(a, real, generator=torch.Generator().manual_seed(seed)),
        "energy distance": lambda a: energy_distance(a[:2000], real[:2000]),
    }.items():
        rows.append(Row(f"{label} {name}", distance(x), distance(again)))
    return rows
