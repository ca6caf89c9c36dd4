"""From any time to any earlier one: the exact trajectory of a mixture, and a model's error between all pairs of times.

TCD learns the way from any t to any earlier u. The flow of a mixture is exact between any two times, so the whole
triangle of pairs is measured, which no set of samples can show.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import given
from minicm.metrics.consistency import noise_level, paired_error, rms, time_grid
from minicm.objectives.tcd import trajectory_point
from minicm.schedules import Denoise, Schedule, expand


@dataclass(frozen=True)
class ExactTrajectory:
    """The exact f of TCD, called like a `Denoiser`: x0_hat is where the line from (x, t) through the flow's point at u ends.

    TCD, arXiv:2402.19159, section 4. (x, t, u=..., label=..., w=...) -> x0_hat (B, d); at u = t, where every line
    goes through, the denoiser.
    """

    mixture: GaussianMixture
    schedule: Schedule
    t_min: float
    second_time = True

    def __call__(self, x: Tensor, t: Tensor, **cond: Tensor | None) -> Tensor:
        told = given(cond)
        u = told.pop("u", torch.full_like(t, self.t_min))
        x_u = self.mixture.flow(x.double(), t, u, self.schedule, **told)
        alpha_t, alpha_u = (expand(self.schedule.alpha(time), x.double()) for time in (t, u))
        kept = expand(self.schedule.sigma(u) / self.schedule.sigma(t), x.double())
        line = (x_u - kept * x) / (alpha_u - kept * alpha_t)
        tangent = self.mixture.denoiser(self.schedule)(x.double(), t, **told)
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
    return PairsError(tuple(noise_level(schedule, times).tolist()), error, spread, moved)


def _over_pairs(ratio: Tensor) -> float:
    return rms(ratio[~ratio.isnan()])
