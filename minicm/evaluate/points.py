"""How good a model of a 2-D recipe is: every number beside its floor and the band that healthy seeds fall into."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.metrics import ExactConsistency, Row, consistency_error, measure_samples, paired_error
from minicm.metrics.pairs import ExactTrajectory
from minicm.metrics.rows import error_rows
from minicm.sampling import LEVELS, sample, sampling_times
from minicm.schedules import Denoise
from minicm.solvers import solve
from minicm.times import karras_grid
from minicm.train import Data

NO_ERROR = torch.zeros(1)  # what the exact f* scores, held against itself


def seeded(seed: int) -> torch.Generator:
    """A generator of its own for each part of a report."""
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def evaluate(f: Denoise, data: Data, *, n: int = 4000, seed: int = 0) -> list[Row]:
    """All measures of a consistency function in 2-D: paired errors where data is a mixture, and sample distances.

    In a paired error f and the exact f* go through the same sampler with the same noise; per dimension, in units of
    sigma_d.
    """
    rows = []
    x_T = f.schedule.prior((n, 2), seeded(seed))
    for steps in LEVELS:
        times = sampling_times(f.schedule, steps)
        if isinstance(data, GaussianMixture):
            exact = ExactConsistency(data, f.schedule, f.t_min)
            x, error = beside_exact(f, exact, x_T, times, seed=seed + 1)
            rows += error_rows(f"{steps}-step", error, NO_ERROR)
        else:
            x = sample(f, x_T, times, generator=seeded(seed + 1))
        rows += _samples(f"{steps}-step", x, data, seed)
    if isinstance(data, GaussianMixture):
        over_times = consistency_error(f, data, generator=seeded(seed + 3))
        rows.append(Row("all times RMSE", over_times.overall_rmse))
        rows.append(Row("all times median", over_times.overall_median))
    return rows


@torch.no_grad()
def evaluate_teacher(denoiser: Denoise, data: Data, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """The teacher's flow, 40 Heun steps from x_T, against the exact flow; beside it what the solver alone misses."""
    schedule = denoiser.schedule
    x_T = schedule.prior((n, 2), seeded(seed))
    times = schedule.t_of(karras_grid(40)).flip(0)
    x, rows = solve(denoiser, schedule, x_T, times), []
    if isinstance(data, GaussianMixture):
        truth = data.flow(x_T, schedule.t_max, times[-1].item(), schedule)
        alone = solve(data.denoiser(schedule), schedule, x_T, times)
        error, floor = (paired_error(end, truth, data.sigma_data) for end in (x, alone))
        rows = error_rows("Heun-40", error, floor)
    return rows + _samples("Heun-40", x, data, seed)


@torch.no_grad()
def against_teacher(f: Denoiser, teacher: Denoise, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """One step of a student against 200 Heun steps of its own teacher: what distillation lost, teacher's faults apart."""
    schedule = teacher.schedule
    x_T = schedule.prior((n, 2), seeded(seed))
    truth = solve(teacher, schedule, x_T, schedule.t_of(karras_grid(200)).flip(0))  # .002 is t_min, or close to 0
    error = paired_error(f(x_T, torch.full((n,), schedule.t_max)), truth, f.sigma_data)
    return error_rows("1-step", error, to=" to the teacher")


def beside_exact(
    f: Denoise,
    exact: ExactConsistency | ExactTrajectory,
    x_T: Tensor,
    times: Tensor | Sequence[float],
    gamma: float = 1.0,
    *,
    seed: int,
    told: dict[str, Any] | None = None,  # what the exact one is told instead
    **cond: Any,
) -> tuple[Tensor, Tensor]:
    """Samples of f (n, d), and how far each is from the exact model's through one sampler with the same noise, (n,).

    Per dimension, in units of sigma_d.
    """
    x = sample(f, x_T, times, gamma, generator=seeded(seed), **cond)
    truth = sample(exact, x_T, times, gamma, generator=seeded(seed), **cond | (told or {}))
    return x, paired_error(x, truth, exact.mixture.sigma_data)


def _samples(label: str, x: Tensor, data: Data, seed: int) -> list[Row]:
    return [replace(row, name=f"{label} {row.name}") for row in measure_samples(x, data, seed=seed)]
