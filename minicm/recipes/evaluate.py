"""How good a model of a 2-D recipe is: every number beside its floor and the band that healthy seeds fall into."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
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
from minicm.sampling import sample
from minicm.schedules import Denoise, Schedule
from minicm.solvers import solve
from minicm.times import karras_grid
from minicm.train import Data

LEVELS = {1: (80.0,), 2: (80.0, 0.8), 4: (80.0, 8.0, 0.8, 0.2)}  # noise levels of few-step sampling
BANDS = Path(__file__).with_name("bands.json")


@dataclass(frozen=True)
class Row:
    """One number of a report."""

    name: str  # what was measured
    value: float
    floor: float | None = None  # what exact samples score
    spread: float | None = None  # standard deviation of the floor
    band: tuple[float, float] | None = None  # least and greatest of the seeds that made bands.json

    @property
    def verdict(self) -> str:
        """Whether the value is no farther from its floor than healthy seeds are, give or take a half."""
        if self.band is None:
            return ""
        best = self.floor or 0.0
        farthest = max(abs(edge - best) for edge in self.band) + (self.spread or 0.0)
        return "as expected" if abs(self.value - best) <= 1.5 * farthest else "worse than expected"


def sampling_times(schedule: Schedule, steps: int) -> torch.Tensor:
    """Times of 1-, 2- or 4-step sampling in a clock, from the noise levels LEVELS."""
    times = schedule.t_of(torch.tensor(LEVELS[steps], dtype=torch.float64))
    times[0] = schedule.t_max
    return times


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
    truth = solve(
        teacher, schedule, x_T, schedule.t_of(karras_grid(200)).flip(0)
    )  # .002 is t_min, or close to 0
    error = paired_error(f(x_T, torch.full((n,), schedule.t_max)), truth, f.sigma_data)
    return [
        Row("1-step RMSE to the teacher", rms(error)),
        Row("1-step median to the teacher", error.median().item()),
    ]


def with_bands(key: str, rows: list[Row]) -> list[Row]:
    """The rows with the bands that were recorded for "RECIPE DATA" or "demo MODEL", where there are any."""
    bands = json.loads(BANDS.read_text()).get(key, {}) if BANDS.exists() else {}
    return [
        Row(**(asdict(row) | {"band": tuple(bands[row.name]) if row.name in bands else None})) for row in rows
    ]


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| measure | value | floor | expect | |", "|---|---:|---:|---:|---|"]
    for row in rows:
        best = "" if row.floor is None else f"{row.floor:.3g}"
        best += "" if row.spread is None else f" ± {row.spread:.1g}"
        band = "" if row.band is None else f"{row.band[0]:.3g} .. {row.band[1]:.3g}"
        lines.append(f"| {row.name} | {row.value:.4g} | {best} | {band} | {row.verdict} |")
    return "\n".join(lines)


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
