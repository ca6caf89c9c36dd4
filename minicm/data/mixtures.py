"""Gaussian mixtures: data of which the exact answer is known, and that answer.

The noised mixture is a mixture again, so score, denoiser and responsibilities have closed forms (`posterior`); the
probability-flow ODE of that score is solved to 1e-8 (`exact_flow`), and with it the true consistency function f* is
known, in every clock, for a class and under guidance. A guided score belongs to no density: there the ODE itself is
the definition of the flow.

All arithmetic is in float64, on x's device; results have x's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minicm.data.exact_flow import transport
from minicm.data.posterior import Posterior, check_mixture
from minicm.schedules import EDM, Schedule, readable
from minicm.times import T_MIN

Numbers = Tensor | Sequence
Time = float | Tensor  # one for all samples, or (B,)
Label = int | Tensor | None  # one for all, (B,) int64, or None: the null label
Scale = float | Tensor | None  # one for all, (B,), or None: no guidance


class GaussianMixture:
    """sum_k pi_k N(mu_k, S_k) in d dimensions, with full covariances, classes, and everything exact.

    EDM, arXiv:2206.00364, appendix B.3 (score and denoiser); CM, arXiv:2303.01469, section 3 (consistency function).
    means (K, d), covs (K, d, d), weights (K,), labels (K,) int, the class of each component; None: one class, 0.
    Attributes: these in float64, `dim`, `classes`, and of the whole `mean` (d,), `cov` (d, d), `sigma_data`, its
    standard deviation per dimension. A label is in 0..classes; `classes`, or None, is the null label: all components.
    Raises ValueError for arguments that make no mixture, and later for times or labels out of range and for points
    that are not (B, d).
    """

    name: str | None = None  # of a data set that `minicm.data.named` makes

    def __init__(self, means: Numbers, covs: Numbers, weights: Numbers, labels: Numbers | None = None) -> None:
        means, covs, weights = (torch.as_tensor(p, dtype=torch.float64).cpu() for p in (means, covs, weights))
        labels = torch.zeros(len(weights)) if labels is None else torch.as_tensor(labels).cpu()
        check_mixture(means, covs, weights, labels)
        self.means, self.covs, self.weights = means, (covs + covs.mT) / 2, weights / weights.sum()
        self.labels, self.classes = labels.long(), int(labels.max()) + 1
        self.dim, self.mean = means.shape[1], self.weights @ means
        between = torch.einsum("k,ki,kj->ij", self.weights, means - self.mean, means - self.mean)
        self.cov = between + torch.einsum("k,kij->ij", self.weights, self.covs)
        self.sigma_data = math.sqrt(self.cov.trace().item() / self.dim)
        self._posteriors: dict[torch.device, Posterior] = {}

    @classmethod
    def ring(
        cls,
        modes: int = 8,
        *,
        std: float = 0.06,  # of a component, on a ring of radius 1
        sigma_data: float = 0.5,  # standard deviation per dimension, after scaling
        classes: int = 1,  # component i is of class i % classes
    ) -> GaussianMixture:
        """Equal round components on a circle, then scaled; 2-D. Its flow has no closed form."""
        angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / max(modes, 1)
        means = torch.stack([angle.cos(), angle.sin()], 1)
        return cls(means, *_equal(means, std), _in_turn(modes, classes)).normalised(sigma_data)

    @classmethod
    def grid(
        cls,
        side: int = 5,
        *,
        dim: int = 2,  # side**dim components
        std: float = 0.05,  # of a component, on a grid over [-1, 1]
        sigma_data: float = 0.5,  # standard deviation per dimension, after scaling
        classes: int = 1,  # component i is of class i % classes
    ) -> GaussianMixture:
        """Equal round components on a square grid, then scaled: a product, so its flow has a closed form."""
        axis = torch.linspace(-1, 1, side, dtype=torch.float64)
        means = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
        return cls(means, *_equal(means, std), _in_turn(len(means), classes)).normalised(sigma_data)

    @classmethod
    def random(
        cls,
        modes: int = 6,
        *,
        dim: int = 2,
        seed: int = 0,
        stds: tuple[float, float] = (0.05, 0.4),  # of a component along its axes, log-uniform; means ~ N(0, I)
        sigma_data: float = 0.5,  # standard deviation per dimension, after scaling
        classes: int = 1,  # component i is of class i % classes
    ) -> GaussianMixture:
        """Ellipsoids turned at random, of unequal weights, then scaled."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(modes, 1 + dim, dim, generator=generator, dtype=torch.float64)
        u = torch.rand(modes, 1 + dim, generator=generator, dtype=torch.float64)
        axes = torch.linalg.qr(z[:, 1:]).Q
        variances = (stds[0] * (stds[1] / stds[0]) ** u[:, 1:]).square()
        covs, weights = axes @ torch.diag_embed(variances) @ axes.mT, 0.5 + u[:, 0]
        return cls(z[:, 0], covs, weights / weights.sum(), _in_turn(modes, classes)).normalised(sigma_data)

    def normalised(self, sigma_data: float = 0.5) -> GaussianMixture:
        """The mixture moved to mean 0 and scaled, by one factor, to this standard deviation per dimension."""
        scale = sigma_data / self.sigma_data
        return GaussianMixture(scale * (self.means - self.mean), scale**2 * self.covs, self.weights, self.labels)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points: x0 (n, d) in torch's default dtype, label (n,) int64, on the generator's device."""
        if n < 1:
            raise ValueError(f"n = {n}: ask for at least one sample")
        device = torch.device("cpu") if generator is None else generator.device
        k = torch.multinomial(self.weights.to(device), n, replacement=True, generator=generator)
        z = torch.randn(n, self.dim, 1, generator=generator, device=device, dtype=torch.float64)
        roots = torch.linalg.cholesky(self.covs).to(device)
        x0 = self.means.to(device)[k] + (roots[k] @ z).squeeze(2)
        return x0.to(torch.get_default_dtype()), self.labels.to(device)[k]

    def log_prob(self, x: Tensor, t: Time = 0.0, label: Label = None) -> Tensor:
        """log p_t(x) in the EDM clock, of a class where label is given; (B, d) -> (B,). Differentiable."""
        log_normal, _, _ = self._posterior(x).components(*self._enter(x, t))
        return (log_normal + self._condition(x, label)[0]).logsumexp(0).to(x.dtype)

    def score(self, x: Tensor, t: Time, label: Label = None, w: Scale = None) -> Tensor:
        """grad log p_t(x) in the EDM clock, guided where w is given; (B, d) -> (B, d)."""
        score = self._posterior(x).score(*self._enter(x, t), *self._condition(x, label, w))
        return score.T.to(x.dtype)

    def denoiser(self, schedule: Schedule = EDM()) -> ExactDenoiser:
        """E[x0 | x_t] in any clock, called like a `Denoiser`."""
        return ExactDenoiser(self, schedule)

    def flow(
        self, x: Tensor, t: Time, s: Time, schedule: Schedule = EDM(), label: Label = None, w: Scale = None
    ) -> Tensor:
        """Carry x (B, d) along the probability-flow ODE from t to s, either way, to 1e-8; guided where w is given.

        CM, arXiv:2303.01469, Eq. 2, integrated by `exact_flow`. Without gradient. Where t = s, x comes back as it is.
        With w the way up, from data to noise, throws points far out that guidance does not lead to: no digits are
        promised there. Raises ValueError for points that are not finite.
        """
        if not x.isfinite().all():
            raise ValueError("x holds NaN or infinity: no flow starts there")
        (y, start), (_, end) = self._enter(x, t, schedule), self._enter(x, s, schedule)
        posterior, cond = self._posterior(x), self._condition(x, label, w)
        mean, alpha = self.mean.to(x.device)[:, None], schedule.alpha(_per_sample(s, x))
        moments = mean, self.sigma_data, posterior.narrowest
        y = transport(posterior.score, *moments, y, start, end, *cond)
        return torch.where((start == end)[:, None], x, (alpha * y).T.to(x.dtype))

    def consistency(self, x: Tensor, t: Time, t_min: float = T_MIN, label: Label = None, w: Scale = None) -> Tensor:
        """The true consistency function f*(x, t) in the EDM clock: the flow from t to t_min. (B, d) -> (B, d).

        CM, arXiv:2303.01469, section 3; t_min is the paper's epsilon.
        """
        return self.flow(x, t, t_min, label=label, w=w)

    def trajectory(
        self, x: Tensor, times: Numbers, schedule: Schedule = EDM(), label: Label = None, w: Scale = None
    ) -> Tensor:
        """The flow at each of `times`, visited in the order given; x (B, d) lives at times[0], and is the first point.

        CM, arXiv:2303.01469, Eq. 2. Returns (len(times), B, d).
        """
        times = torch.as_tensor(times, dtype=torch.float64)
        if times.ndim != 1 or len(times) == 0:
            raise ValueError(f"times must be a list of at least one time, got shape {tuple(times.shape)}")
        points = [x.double()]
        for t, s in zip(times.tolist(), times[1:].tolist()):
            points.append(self.flow(points[-1], t, s, schedule, label, w))
        return torch.stack(points).to(x.dtype)

    def mahalanobis2(self, x: Tensor, t: Time = 0.0) -> Tensor:
        """Squared Mahalanobis distances to the components, in the EDM clock; (B, d) -> (B, K)."""
        return self._posterior(x).components(*self._enter(x, t))[1].T.to(x.dtype)

    def components(self, x: Tensor) -> Tensor:
        """The component nearest in Mahalanobis distance; (B, d) -> (B,) int64."""
        return self.mahalanobis2(x).argmin(1)

    def _posterior(self, x: Tensor) -> Posterior:
        """The closed forms on x's device."""
        if x.device not in self._posteriors:
            parts = self.means, self.covs, self.weights, self.labels
            self._posteriors[x.device] = Posterior(*parts, device=x.device)
        return self._posteriors[x.device]

    def _enter(self, x: Tensor, t: Time, schedule: Schedule = EDM()) -> tuple[Tensor, Tensor]:
        """The coordinates of all clocks: y = x/alpha (d, B) and lambda = sigma/alpha (B,), in float64."""
        if x.ndim != 2 or x.shape[1] != self.dim or not x.is_floating_point():
            raise ValueError(f"points must be floats of shape (B, {self.dim}), got {x.dtype} {tuple(x.shape)}")
        t = _per_sample(t, x)
        schedule.check(t, x)
        alpha = schedule.alpha(t)
        return x.double().T / alpha, schedule.sigma(t) / alpha

    def _condition(self, x: Tensor, label: Label, w: Scale = None) -> tuple[Tensor, ...]:
        """log pi (K, B) in each sample's class, and with guidance w (B,)."""
        label = torch.as_tensor(self.classes if label is None else label, device=x.device)
        if label.shape not in ((), x.shape[:1]) or label.is_floating_point():
            raise ValueError(f"label must be an int or ({len(x)},) int64, got {tuple(label.shape)} {label.dtype}")
        if readable(label) and ((label < 0) | (label > self.classes)).any():
            raise ValueError(f"labels must be in 0..{self.classes}, {self.classes} for none, got {label.tolist()}")
        log_prior = self._posterior(x).log_prior[:, label.expand(len(x))]
        if w is None:
            return (log_prior,)
        w = _per_sample(w, x)
        if w.shape != x.shape[:1]:
            raise ValueError(f"w must be a float or ({len(x)},), got shape {tuple(w.shape)}")
        return log_prior, w


@dataclass(frozen=True)
class ExactDenoiser:
    """E[x0 | x_t] of a mixture in a clock: what a perfectly trained `Denoiser` returns, and called like one.

    EDM, arXiv:2206.00364, Eq. 2 and appendix B.3. x (B, d), t (B,) or a float, label (B,) or an int (None or
    mixture.classes: no class), w (B,) or a float: D_c + w (D_c - D_null); u is ignored. -> x0_hat (B, d).
    """

    mixture: GaussianMixture
    schedule: Schedule
    t_min = 0.0

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the data per dimension."""
        return self.mixture.sigma_data

    def __call__(self, x: Tensor, t: Time, *, label: Label = None, w: Scale = None, u: Any = None) -> Tensor:
        point, cond = self.mixture._enter(x, t, self.schedule), self.mixture._condition(x, label, w)
        return self.mixture._posterior(x).x0_hat(*point, *cond).T.to(x.dtype)


def _per_sample(value: float | Tensor, x: Tensor) -> Tensor:
    """A time or a scale as float64 (B,), on x's device."""
    value = torch.as_tensor(value, dtype=torch.float64, device=x.device)
    return value.expand(len(x)) if value.ndim == 0 else value


def _equal(means: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """Covariances std^2 I and equal weights for the means (K, d)."""
    n, dim = means.shape
    covs = std**2 * torch.eye(dim, dtype=torch.float64).expand(n, dim, dim)
    return covs, torch.full((n,), 1 / max(n, 1), dtype=torch.float64)


def _in_turn(modes: int, classes: int) -> Tensor:
    if not 1 <= classes <= modes:
        raise ValueError(f"classes = {classes} of {modes} components: give at least one to each class")
    return torch.arange(modes) % classes
