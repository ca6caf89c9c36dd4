"""How good the guided family is: LCD, LCM-LoRA and TCD against exact guided flows and exact trajectories."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Guided
from minicm.evaluate.points import beside_exact, seeded
from minicm.metrics import ExactConsistency, Row, outlier_fraction, paired_error, time_grid
from minicm.metrics.pairs import ExactTrajectory, pairs_error
from minicm.metrics.rows import error_rows
from minicm.schedules import Denoise, Schedule
from minicm.solvers import euler_step, solve
from minicm.times import quadratic_grid

# Times of few-step sampling: LCM's, the scheduler's 999, 759, 499, 259 for four steps.
SAMPLING: dict[int, Sequence[float]] = {n: [1000.0 - 20 * (50 * i // n) for i in range(n)] for n in (1, 2, 4, 8)}
GAMMAS = (0.0, 0.3, 1.0)  # TCD's stochasticity: none, its scheduler's default, CM's sampler


@torch.no_grad()
def evaluate_guided(
    f: Denoise,
    data: GaussianMixture,
    *,
    ws: Sequence[float] = (0, 1, 3, 8),  # guidance; w + 1 in Imagen's convention
    steps: Sequence[int] = (1, 2, 4, 8),
    times: Mapping[int, Sequence[float]] = SAMPLING,  # of each number of steps
    towards: float | None = None,  # the w of the exact flow, where it is not the one that f is told
    n: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Paired errors against the exact guided flow: f and f* go through one sampler with the same noise and labels.

    LCM, arXiv:2310.04378, section 5, with an exact answer. Per dimension, in units of sigma_d.
    """
    x_T, label = (part.repeat(len(ws), *[1] * (part.ndim - 1)) for part in guided_noise(f.schedule, data, n, seed))
    w = torch.tensor(ws, dtype=torch.float64).repeat_interleave(n)
    told = {} if towards is None else {"w": torch.full_like(w, towards)}
    exact = ExactConsistency(data, f.schedule, f.t_min)
    errors = {}
    for k in steps:
        _, error = beside_exact(f, exact, x_T, times[k], seed=seed + 1, told=told, label=label, w=w)
        errors[k] = error.reshape(len(ws), n)
    return [
        row
        for i, w_i in enumerate(ws)
        for k, error in errors.items()
        for row in error_rows(f"w = {w_i:g}, {k}-step", error[i])
    ]


@torch.no_grad()
def evaluate_guided_teacher(
    denoiser: Denoise,
    data: GaussianMixture,
    *,
    ws: Sequence[float] = (0, 1, 3, 8),
    times: Sequence[float] | Tensor = quadratic_grid().flip(0),  # down to 0; few are what it reaches undistilled
    n: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """The teacher's guided flow, DDIM steps from x_T, against the exact one; beside it what the solver alone misses."""
    schedule = denoiser.schedule
    x_T, label = guided_noise(schedule, data, n, seed)
    rows = []
    for w in ws:
        truth = data.flow(x_T, schedule.t_max, 0.0, schedule, label, float(w))
        error, alone = (
            paired_error(solve(Guided(g, label, float(w)), schedule, x_T, times, euler_step), truth, data.sigma_data)
            for g in (denoiser, data.denoiser(schedule))
        )
        rows += error_rows(f"w = {w:g}, DDIM-{len(times) - 1}", error, alone)
    return rows


def guided_noise(schedule: Schedule, data: GaussianMixture, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise x_T (n, d) to start from, and a class for each, drawn evenly: label (n,)."""
    generator = seeded(seed)
    x_T = schedule.prior((n, data.dim), generator)
    return x_T, torch.randint(data.classes, (n,), generator=generator)


@torch.no_grad()
def evaluate_trajectory(
    f: Denoise,
    data: GaussianMixture,
    *,
    steps: Sequence[int] = (1, 2, 4),
    gammas: Sequence[float] = GAMMAS,
    n: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """The error between all pairs of times, and of samples in a few steps at each gamma.

    Paired: f and the exact f go through one sampler with the same noise; per dimension, in units of sigma_d.
    """
    pairs = pairs_error(f, data, n=n, seed=seed)
    rows = [Row("all pairs, of the distance moved", pairs.of_moved), Row("all pairs, of the spread", pairs.of_spread)]
    exact = ExactTrajectory(data, f.schedule, f.t_min)
    x_T = f.schedule.prior((n, data.dim), seeded(seed))
    for gamma in gammas:
        for k in steps:
            name, times = f"gamma = {gamma:g}, {k}-step", time_grid(f.schedule, k, f.t_min).flip(0)
            x, error = beside_exact(f, exact, x_T, times, gamma, seed=seed + 1)
            rows += [*error_rows(name, error), Row(f"{name} outliers", outlier_fraction(x, data))]
    return rows
