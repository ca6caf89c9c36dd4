"""Three clocks of one process, x_t = alpha(t) x0 + sigma(t) eps with eps ~ N(0, I) and t = 0 clean.

EDM (arXiv:2206.00364, Table 1), DDPM's VP chain (arXiv:2006.11239) and TrigFlow (arXiv:2410.11081, section 3).

| clock      | t                     | alpha           | sigma               | c_noise |
|------------|-----------------------|-----------------|---------------------|---------|
| `EDM`      | noise level, 0..80    | 1               | t                   | ln(t)/4 |
| `VP`       | whole number, 0..T    | sqrt(alpha_bar) | sqrt(1 - alpha_bar) | t/T     |
| `TrigFlow` | angle, 0..pi/2 (open) | cos t           | sigma_d sin t       | t       |

Shapes everywhere: x is (B, *D), t is (B,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor


def expand(t: Tensor, x: Tensor) -> Tensor:
    """Reshape a per-sample (B,) tensor so that it multiplies x (B, *D), in x's dtype (float32 if x is half)."""
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    return t.to(dtype).reshape(-1, *[1] * (x.ndim - 1))


def readable(t: Tensor) -> bool:
    """Whether a check may look at values: on the CPU alone, since a look stalls an accelerator, and not while compiling."""
    return t.device.type == "cpu" and not torch.compiler.is_compiling()


class Schedule:
    """A clock: alpha(t), sigma(t), and everything that follows from them alone."""

    t_max: float

    def alpha(self, t: Tensor) -> Tensor:
        """The factor of x0 at t: (B,) -> (B,), in t's dtype."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        """The factor of the unit noise at t: (B,) -> (B,), in t's dtype."""
        raise NotImplementedError

    def c_noise(self, t: Tensor) -> Tensor:
        """How a network is told the time: (B,) -> (B,), finite on the whole range."""
        raise NotImplementedError

    def t_of(self, sigma_over_alpha: Tensor) -> Tensor:
        """The time at which sigma/alpha has the given value; any shape."""
        raise NotImplementedError

    def floor(self, t: Tensor) -> Tensor:
        """The last time of this clock that is not after t; any shape. Only VP, whose times are whole, rounds."""
        return t

    def velocity(self, x: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
        """The right-hand side dx/dt of the probability-flow ODE at (x, t). Raises NotImplementedError in VP."""
        raise NotImplementedError(
            f"{type(self).__name__} defines no dx/dt; VP's times are whole numbers: there is no dx/dt"
        )

    @property
    def prior_std(self) -> float:
        """Standard deviation of the noise that sampling starts from at t_max."""
        raise NotImplementedError

    def check(self, t: Tensor, x: Tensor | None = None) -> None:
        """Raises ValueError for times not (B,) beside x, or (where `readable`) outside [0, t_max], and for a whole x."""
        if not hasattr(t, "device"):
            raise ValueError(f"t = {t} is no tensor: give one time a sample, such as torch.full((len(x),), {t})")
        if x is not None and not x.is_floating_point():
            raise ValueError(f"x has dtype {x.dtype}, which would cut the times to whole numbers: give floats")
        if x is not None and t.shape != x.shape[:1]:
            need = f"one time a sample, t.shape == {tuple(x.shape[:1])}"
            raise ValueError(f"t has shape {tuple(t.shape)} but x has shape {tuple(x.shape)}: give {need}")
        # 1e-6: t_max itself, rounded to float32
        if readable(t) and not (inside := (t >= 0) & (t <= self.t_max * (1 + 1e-6))).all():
            bad, clock = t[~inside].max(), type(self).__name__
            raise ValueError(f"t = {bad:g} is outside [0, {self.t_max:g}], the range of {clock}")

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The noisy point x_t = alpha x0 + sigma eps; all of shape (B, *D), t (B,)."""
        if x0.shape != eps.shape:
            raise ValueError(f"x0 {tuple(x0.shape)} and eps {tuple(eps.shape)} must have one shape")
        x_t = expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps
        return x_t.to(x0.dtype)

    def eps_hat(self, x: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
        """The unit noise that x holds if its clean point is x0_hat: (x - alpha x0_hat)/sigma.

        Raises ValueError where sigma(t) = 0: a clean point tells nothing of its noise.
        """
        sigma = self.sigma(t)
        if readable(t) and (sigma == 0).any():
            raise ValueError("eps_hat needs sigma(t) > 0, got t = 0: no step can start from clean data")
        return ((x - expand(self.alpha(t), x) * x0_hat) / expand(sigma, x)).to(x.dtype)

    def step(self, x: Tensor, x0_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """From t to s along the straight line that x0_hat gives: alpha_s x0_hat + sigma_s eps_hat.

        Euler's step in EDM (CM, arXiv:2303.01469, after Eq. 6), DDIM in VP (arXiv:2010.02502, Eq. 12), a
        rotation in TrigFlow. Raises ValueError where sigma(t) = 0.
        """
        return self.add_noise(x0_hat, self.eps_hat(x, x0_hat, t), s)

    def prior(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Pure noise x_T to start sampling from at t_max, of the given shape (B, *D)."""
        device = device or (generator.device if generator is not None else None)
        return self.prior_std * torch.randn(tuple(shape), generator=generator, device=device, dtype=dtype)


class Denoise(Protocol):
    """What every denoiser and consistency function offers: the call (x, t) -> x0_hat, a clock, and its earliest time.

    A type for annotations alone, never checked at run time: any callable that has `schedule` and `t_min` will do.
    """

    @property
    def schedule(self) -> Schedule:
        """The clock that t and x are in."""
        ...

    @property
    def t_min(self) -> float:
        """The earliest time, where a consistency function is the identity; 0 for a denoiser."""
        ...

    def __call__(self, *args: Any, **cond: Any) -> Tensor:
        """x (B, *D), t (B,), and what it is conditioned on by name: label, w, u (B,) -> x0_hat (B, *D)."""
        ...


@dataclass(frozen=True)
class EDM(Schedule):
    """The variance-exploding clock of EDM and of consistency models: t is the noise level.

    Source: EDM, arXiv:2206.00364, Table 1, last column; CM, arXiv:2303.01469, section 2.
    """

    t_max: float = 80.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def c_noise(self, t: Tensor) -> Tensor:
        return t.clamp(min=1e-4).log() / 4  # the floor keeps t = 0 finite and lies below every t_min in use

    def t_of(self, sigma_over_alpha: Tensor) -> Tensor:
        return sigma_over_alpha

    def velocity(self, x: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
        """dx/dt = eps_hat = (x - x0_hat)/t (EDM, Eqs. 1 and 3)."""
        return self.eps_hat(x, x0_hat, t)

    @property
    def prior_std(self) -> float:
        return self.t_max


@dataclass(frozen=True)
class VP(Schedule):
    """The variance-preserving chain of DDPM, LCM and TCD: t counts its steps.

    Source: DDPM, arXiv:2006.11239, Eq. 4, with t = 0 for clean data: alpha_bar[0] = 1, so the
    timestep i of `diffusers` is our t = i + 1. Raises ValueError unless alpha_bar starts at 1 and
    falls strictly, staying positive.
    """

    alpha_bar: tuple[float, ...]
    _tables: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha_bar", tuple(float(a) for a in self.alpha_bar))
        a = self.alpha_bar
        if len(a) < 2 or a[0] != 1.0:
            raise ValueError(f"alpha_bar must begin with 1.0 (t = 0 is clean), got {a[:1]}: prepend it")
        if not (a[-1] > 0 and all(later < earlier for earlier, later in zip(a, a[1:], strict=False))):
            raise ValueError("alpha_bar must fall strictly from 1 and stay above 0")

    @classmethod
    def linear(cls, T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> VP:
        """DDPM's chain: beta rises linearly (arXiv:2006.11239, section 4)."""
        return cls._from_betas(torch.linspace(beta_1, beta_T, T, dtype=torch.float64))

    @classmethod
    def scaled_linear(cls, T: int = 1000, beta_1: float = 0.00085, beta_T: float = 0.012) -> VP:
        """Stable Diffusion's chain, which LCM and TCD distil: sqrt(beta) rises linearly."""
        return cls._from_betas(torch.linspace(beta_1**0.5, beta_T**0.5, T, dtype=torch.float64) ** 2)

    @classmethod
    def _from_betas(cls, betas: Tensor) -> VP:
        return cls((1.0, *torch.cumprod(1 - betas, 0).tolist()))

    @property
    def t_max(self) -> float:  # type: ignore[override]
        """T, the number of steps."""
        return float(len(self.alpha_bar) - 1)

    @property
    def prior_std(self) -> float:
        return 1.0

    def check(self, t: Tensor, x: Tensor | None = None) -> None:
        super().check(t, x)
        if readable(t) and (t != t.round()).any():
            raise ValueError(f"t = {t[t != t.round()][0].item():g} must be a whole number in 0..{self.t_max:g}")

    def alpha(self, t: Tensor) -> Tensor:
        return self._look_up(t).sqrt().to(_float_dtype(t))

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - self._look_up(t)).sqrt().to(_float_dtype(t))

    def c_noise(self, t: Tensor) -> Tensor:
        return t / self.t_max

    def t_of(self, sigma_over_alpha: Tensor) -> Tensor:
        """The whole number whose angle arctan(sigma/alpha) is nearest."""
        t = torch.arange(len(self.alpha_bar), device=sigma_over_alpha.device)
        angles = torch.atan2(self.sigma(t), self.alpha(t))
        nearest = torch.bucketize(torch.atan(sigma_over_alpha).double(), (angles[1:] + angles[:-1]) / 2)
        return nearest.to(_float_dtype(sigma_over_alpha))

    def floor(self, t: Tensor) -> Tensor:
        return (t + 1e-9).floor()  # 1e-9: (1 - gamma) s may miss a whole number by rounding

    def _look_up(self, t: Tensor) -> Tensor:
        table = self._tables.get(t.device)
        if table is None:
            table = torch.tensor(self.alpha_bar, dtype=torch.float64, device=t.device)
            self._tables[t.device] = table
        return table[t.long()]


@dataclass(frozen=True)
class TrigFlow(Schedule):
    """The clock of continuous-time consistency models: x_t = cos(t) x0 + sin(t) z, z ~ N(0, sigma_d^2 I).

    Source: sCM, arXiv:2410.11081, section 3; sampling starts at t_max = arctan(sigma_max/sigma_d).
    """

    sigma_data: float = 0.5
    sigma_max: float = 80.0

    @property
    def t_max(self) -> float:  # type: ignore[override]
        """The last angle, that of sigma_max."""
        return math.atan(self.sigma_max / self.sigma_data)

    @property
    def prior_std(self) -> float:
        return self.sigma_data

    def alpha(self, t: Tensor) -> Tensor:
        return t.cos()

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_data * t.sin()

    def c_noise(self, t: Tensor) -> Tensor:
        return t

    def t_of(self, sigma_over_alpha: Tensor) -> Tensor:
        return (sigma_over_alpha / self.sigma_data).atan()

    def velocity(self, x: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
        """dx/dt = cos(t) sigma_d eps_hat - sin(t) x0_hat."""
        noise = self.sigma_data * self.eps_hat(x, x0_hat, t)
        return expand(t.cos(), x) * noise - expand(t.sin(), x) * x0_hat


def _float_dtype(t: Tensor) -> torch.dtype:
    return t.dtype if t.is_floating_point() else torch.float64
