"""Against the exact answer: paired errors of a consistency function, and the order of convergence of a solver."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.metrics.clouds import points
from minicm.schedules import EDM, Denoise, Schedule
from minicm.times import T_MIN, karras_grid


def paired_error(a: Tensor, b: Tensor, unit: float = 1.0) -> Tensor:
    """|a - b| of each pair, per dimension and in units of `unit` (the data's sigma_d): (n, *D), (n, *D) -> (n,).

    |.|/sqrt(d), so that its root mean square is the RMSE per dimension; its median forgives a few points that land in
    the wrong mode. Raises ValueError for different shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired points must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    gap = (points(a) - points(b)) / unit
    return gap.square().mean(dim=1).sqrt()


def rms(errors: Tensor) -> float:
    """Root mean square of errors (n,)."""
    return errors.square().mean().sqrt().item()


def noise_level(schedule: Schedule, t: Tensor) -> Tensor:
    """sigma/alpha at times t (n,): the one axis that all clocks share; the inverse of `t_of`."""
    return schedule.sigma(t) / schedule.alpha(t)


def time_grid(schedule: Schedule, n: int, t_min: float = 0.0, lowest: float = T_MIN) -> Tensor:
    """Times from just above t_min to t_max, ascending, equally spaced in (sigma/alpha)^(1/7) in every clock.

    EDM, arXiv:2206.00364, Eq. 5, carried over by `t_of`. t_min itself is left out (f is x there), or, where t_min = 0,
    the noise level `lowest`. (n,) float64; VP has whole times, and where two fall together there are fewer.
    `time_grid(f.schedule, n, f.t_min).flip(0)` are sensible times for n-step sampling.
    """
    low, high = noise_level(schedule, torch.tensor([t_min, schedule.t_max], dtype=torch.float64)).tolist()
    times = schedule.t_of(karras_grid(n + 1, max(low, lowest), high))[1:]
    times[-1] = schedule.t_max
    return times[times > t_min].unique()


@dataclass(frozen=True)
class ExactConsistency:
    """The exact f* of a mixture in any clock, called like a `Denoiser`: the model without error.

    CM, arXiv:2303.01469, section 3. (x, t, label=..., w=...) -> x0_hat, with .schedule and .t_min.
    """

    mixture: GaussianMixture
    schedule: Schedule = field(default_factory=EDM)
    t_min: float = T_MIN

    def __call__(self, x: Tensor, t: Tensor, *, label: Tensor | None = None, w: Tensor | None = None) -> Tensor:
        return self.mixture.flow(x, t, self.t_min, self.schedule, label, w)


@dataclass(frozen=True)
class ConsistencyError:
    """The paired error of a consistency function, per time and over all times; the last time is t_max.

    Per dimension, in units of sigma_d. The error at t_max is that of one-step samples.
    """

    times: tuple[float, ...]  # ascending, in the clock of f
    levels: tuple[float, ...]  # sigma/alpha at these times: the one axis that all clocks share
    rmse: tuple[float, ...]  # at each time
    median: tuple[float, ...]  # at each time
    overall_rmse: float  # of all times together
    overall_median: float  # of all times together

    @property
    def one_step_rmse(self) -> float:
        """RMSE at t_max."""
        return self.rmse[-1]

    @property
    def one_step_median(self) -> float:
        """Median error at t_max."""
        return self.median[-1]


@torch.no_grad()
def consistency_error(
    f: Denoise,
    mixture: GaussianMixture,
    *,
    n: int = 1000,  # points at each time
    times: Tensor | None = None,  # in the clock of f; None: ten, by time_grid
    label: int | None = None,  # class of the data, for a conditional f
    w: float | None = None,  # guidance scale that f is told, LCM's convention
    generator: torch.Generator | None = None,
) -> ConsistencyError:
    """|f(x_t, t) - f*(x_t, t)| at the same points, f* being the exact flow of the mixture down to f.t_min.

    f* is the f of CM, arXiv:2303.01469, section 3. One draw of x0 and eps gives the points x_t of all times
    (so that a curve over t is smooth); at t_max they are drawn from the prior, as samples are. Works in every clock;
    with label and w the truth is the guided flow. f is called with x in torch's default dtype, on the generator's device.
    Raises ValueError for times outside (t_min, t_max] and w without label.
    """
    schedule, t_min = f.schedule, getattr(f, "t_min", 0.0)
    times = time_grid(schedule, 10, t_min) if times is None else torch.as_tensor(times, dtype=torch.float64)
    if not ((times > t_min) & (times <= schedule.t_max * (1 + 1e-6))).all():  # 1e-6: float32's t_max
        raise ValueError(f"times must lie in ({t_min:g}, {schedule.t_max:g}], got {times.tolist()}")
    if w is not None and label is None:
        raise ValueError(f"w = {w:g} guides towards a class: give its label, too")
    x, t = _trial_points(schedule, _of_class(mixture, label), times, n, generator)
    given = {} if label is None else {"label": torch.full_like(t, label, dtype=torch.int64)}
    given |= {} if w is None else {"w": torch.full_like(t, w, dtype=x.dtype)}
    truth = ExactConsistency(mixture, schedule, t_min)(x, t, **given)
    errors = paired_error(f(x, t, **given), truth, mixture.sigma_data).reshape(len(times), n)
    return ConsistencyError(
        times=tuple(times.tolist()),
        levels=tuple(noise_level(schedule, times).tolist()),
        rmse=tuple(rms(row) for row in errors),
        median=tuple(errors.median(dim=1).values.tolist()),
        overall_rmse=rms(errors),
        overall_median=errors.median().item(),
    )


def _trial_points(
    schedule: Schedule, data: GaussianMixture, times: Tensor, n: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """x_t (times x n, d) and t, one draw of x0 and eps for all times."""
    x0, _ = data.sample(n, generator)
    eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    x_T = schedule.prior(x0.shape, generator, x0.device, x0.dtype)
    t = times.to(x0.device).repeat_interleave(n)
    x = schedule.add_noise(x0.repeat(len(times), 1), eps.repeat(len(times), 1), t)
    x[t >= schedule.t_max] = x_T.repeat(int((times >= schedule.t_max).sum()), 1)
    return x, t


def _of_class(mixture: GaussianMixture, label: int | None) -> GaussianMixture:
    """The components of one class; all for None and for the null label."""
    if label is None or label == mixture.classes:
        return mixture
    own = mixture.labels == label
    if not own.any():
        raise ValueError(f"label = {label} is none of the mixture's classes, 0..{mixture.classes - 1}")
    weights = mixture.weights[own]
    return GaussianMixture(mixture.means[own], mixture.covs[own], weights / weights.sum())


def order(steps: Sequence[int] | Tensor, errors: Sequence[float] | Tensor) -> float:
    """Order of convergence: minus the slope of log error over log number of steps, by least squares.

    Give it *median* errors: a few points that fall into another mode's basin ruin the slope of the RMSE. Both of
    length m, lists or tensors.
    """
    x, y = (torch.as_tensor(values, dtype=torch.float64).log() for values in (steps, errors))
    x = x - x.mean()
    return -((x * y).sum() / x.square().sum()).item()
