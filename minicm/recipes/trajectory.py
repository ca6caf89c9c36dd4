"""Recipes of trajectory consistency distillation in two dimensions, and its error between all pairs of times.

TCD learns the way from any t to any earlier u. The flow of a mixture is exact between any two times, so the whole
triangle of pairs is measured, which no set of samples can show.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from minicm.checkpoint import load_checkpoint, load_model
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.distances import pseudo_huber
from minicm.metrics import outlier_fraction, paired_error, rms, time_grid
from minicm.objectives.tcd import TCD, trajectory_point
from minicm.recipes.evaluate import Row
from minicm.recipes.mixtures import T_MIN, gentle_gap, points_named, small_mlp, teacher_of
from minicm.recipes.run import Recipe
from minicm.sampling import sample
from minicm.schedules import Denoise, Schedule, expand
from minicm.solvers import heun_step
from minicm.times import LogNormalIndex, karras_grid
from minicm.train import TrainConfig

GAMMAS = (0.0, 0.3, 1.0)  # TCD's stochasticity: none, its scheduler's default, CM's sampler
MixtureName = Literal["ring", "grid", "random"]


def closing_grid(k: int, K: int) -> Tensor:
    """Karras grids of 9, 17, 33 and 65 times, a quarter of the training each: long steps spread consistency fast."""
    return karras_grid(2 ** (3 + min(3, 4 * k // K)) + 1, T_MIN)


def mixture_tcd(
    *,
    data: MixtureName = "ring",
    teacher: Path | None = None,
    config: TrainConfig = TrainConfig(steps=7000, batch=512, lr=2e-3),
) -> Recipe:
    """Trajectory consistency distillation: from any time to any earlier one, with the settings found for 2-D.

    Args:
        data: which mixture
        teacher: run folder or checkpoint of a mixture-teacher; the exact denoiser if not given
        config: how long and how fast
    """
    points = points_named(data)
    objective = TCD(
        teacher_of(teacher, points),
        k=1,
        grid=closing_grid,
        step=heun_step,
        index_law=LogNormalIndex(mean=-0.5, std=2.0),
        distance=pseudo_huber(0.03),
        weight=gentle_gap,
        mu=0.0,
    )
    net = small_mlp(config.seed, second_time=True)
    return Recipe(Denoiser(net, t_min=T_MIN), objective, points, config)


# ------------------------------------------------------------------------------------------ evaluation
@dataclass(frozen=True)
class ExactTrajectory:
    """The exact f of TCD, called like a `Denoiser`: x0_hat is where the line from (x, t) through the flow's point at u ends.

    TCD, arXiv:2402.19159, section 4. (x, t, u, label=None, w=None) -> x0_hat (B, d); at u = t, where every line
    goes through, the denoiser.
    """

    mixture: GaussianMixture
    schedule: Schedule
    t_min: float
    second_time = True

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        w: Tensor | None = None,
        u: Tensor | None = None,
    ) -> Tensor:
        u = torch.full_like(t, self.t_min) if u is None else u
        x_u = self.mixture.flow(x.double(), t, u, self.schedule, label, w)
        alpha_t, alpha_u = (expand(self.schedule.alpha(time), x.double()) for time in (t, u))
        kept = expand(self.schedule.sigma(u) / self.schedule.sigma(t), x.double())
        line = (x_u - kept * x) / (alpha_u - kept * alpha_t)
        tangent = self.mixture.denoiser(self.schedule)(x.double(), t, label, w)
        return torch.where((u == t)[:, None], tangent, line).to(x.dtype)


@dataclass(frozen=True)
class PairsError:
    """Errors of G(x_t, t, u) over all pairs u < t of some times: matrices (t, u), NaN where there is no pair."""

    levels: tuple[float, ...]  # sigma/alpha at the times, ascending
    error: Tensor  # rms of |G - exact x_u|, in data units, per dimension
    spread: Tensor  # rms of |x_u|
    moved: Tensor  # rms of |x_t - x_u|

    @property
    def of_spread(self) -> float:
        """The error in units of the spread of x_u: rms over the pairs."""
        return _over_pairs(self.error / self.spread)

    @property
    def of_moved(self) -> float:
        """The error in units of the distance from x_t to x_u: rms over the pairs. The stricter."""
        return _over_pairs(self.error / self.moved)


@torch.no_grad()
def pairs_error(
    f: Denoise,
    mixture: GaussianMixture,
    *,
    times: Tensor | None = None,  # ascending, in f's clock; None: t_min and nine above it, by time_grid
    n: int = 1000,  # trajectories
    seed: int = 0,
    **cond: Tensor,
) -> PairsError:
    """G(x_t, t, u) against the exact flow from t to u, all pairs, at points x_t of exact trajectories.

    TCD, arXiv:2402.19159, section 4. The trajectories start in data noised to the last of the times. cond: label, w (n,).
    """
    schedule = f.schedule
    if times is None:
        times = torch.cat([torch.tensor([f.t_min], dtype=torch.float64), time_grid(schedule, 9, f.t_min)])
    generator = torch.Generator().manual_seed(seed)
    x0, _ = mixture.sample(n, generator)
    eps = torch.randn(x0.shape, generator=generator)
    x = schedule.add_noise(x0, eps, times[-1].expand(n)).double()
    exact = mixture.trajectory(x, times.flip(0), schedule, **cond).flip(0)
    error, spread, moved = (torch.full((len(times), len(times)), float("nan")) for _ in range(3))
    for j, i in itertools.combinations(range(len(times)), 2):  # times[j] < times[i]
        t, u = times[i].expand(n), times[j].expand(n)
        point = trajectory_point(f, exact[i].float(), t, u, **cond)
        error[i, j] = rms(paired_error(point, exact[j]))
        spread[i, j] = rms(paired_error(exact[j], torch.zeros_like(exact[j])))
        moved[i, j] = rms(paired_error(exact[i], exact[j]))
    levels = tuple((schedule.sigma(times) / schedule.alpha(times)).tolist())
    return PairsError(levels, error, spread, moved)


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
    rows = [
        Row("all pairs, of the distance moved", pairs.of_moved),
        Row("all pairs, of the spread", pairs.of_spread),
    ]
    exact = ExactTrajectory(data, f.schedule, f.t_min)
    x_T = f.schedule.prior((n, data.dim), torch.Generator().manual_seed(seed))
    for gamma in gammas:
        for k in steps:
            times = time_grid(f.schedule, k, f.t_min).flip(0)
            x, truth = (
                sample(g, x_T, times, gamma, generator=torch.Generator().manual_seed(seed + 1))
                for g in (f, exact)
            )
            error, name = paired_error(x, truth, data.sigma_data), f"gamma = {gamma:g}, {k}-step"
            rows += [
                Row(f"{name} RMSE", rms(error)),
                Row(f"{name} median", error.median().item()),
                Row(f"{name} outliers", outlier_fraction(x, data)),
            ]
    return rows


def evaluate_run(path: Path, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """What `minicm evaluate` reports of a run of mixture-tcd."""
    data = points_named(load_checkpoint(path)["options"]["data"])
    return evaluate_trajectory(load_model(path), data, n=n, seed=seed)


def _over_pairs(ratio: Tensor) -> float:
    return rms(ratio[~ratio.isnan()])
