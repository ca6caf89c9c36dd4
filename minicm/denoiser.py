"""A denoiser, and with a boundary condition a consistency function: a network inside its preconditioning.

With v^2 = sigma^2 + alpha^2 sigma_d^2 the prediction is x0_hat = c_skip x + c_out F(c_in x, c_noise), where
c_in = 1/v, c_out = sigma sigma_d/v and c_skip = alpha sigma_d^2/v^2. EDM's Table 1, v-prediction and TrigFlow are
its special cases, up to the sign of F. A consistency function in EDM shifts sigma by t_min in c_skip and in c_out's
numerator (CM, appendix C), and nowhere else: that alone makes f(x, t_min) = x.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from minicm.schedules import EDM, Denoise, Schedule, expand, readable


def given(cond: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """What is given of label, w and u, by name; None is not given. Raises TypeError for any other name."""
    if wrong := cond.keys() - {"label", "w", "u"}:
        raise TypeError(f'f(x, t, ...) takes label, w and u by name, got "{min(wrong)}"')
    return {name: value for name, value in cond.items() if value is not None}


class Denoiser(nn.Module):
    """x0_hat = c_skip x + c_out F(c_in x, c_noise): a diffusion model, or f with f(x, t_min) = x exactly.

    EDM, arXiv:2206.00364, Eq. 7 and Table 1; CM, arXiv:2303.01469, Eq. 5 and appendix C.
    x (B, *D), t (B,), and by name label, w, u (B,) or None -> (B, *D) in x's dtype. A diffusion teacher has t_min = 0; a
    consistency function in EDM has t_min = 0.002, in VP and TrigFlow 0, where the unshifted formula is exact.
    With u (the network's second time; t_min if not given) the trajectory's point is schedule.step(x, x0_hat, t, u).
    Set `autocast = torch.bfloat16` to compute the network's products so; all around it keeps its precision.
    Raises ValueError for t of the wrong shape or outside [t_min, t_max], for labels that the network does not have, for
    an x of whole numbers, and for t_min > 0 where alpha(t_min) is not 1; TypeError for another name than label, w, u.
    """

    __call__: Callable[..., Tensor]  # for type checkers: nn.Module's own returns Any
    net: Any  # an nn.Module; what else it offers (options, classes, ...) differs from net to net
    autocast: torch.dtype | None = None  # of the matrix products inside the network; None: as its weights are

    def __init__(self, net: nn.Module, schedule: Schedule = EDM(), sigma_data: float = 0.5, t_min: float = 0.0) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data must be positive (the data's standard deviation), got {sigma_data}")
        if not 0 <= t_min < schedule.t_max:
            raise ValueError(f"t_min must lie in [0, {schedule.t_max:g}), got {t_min}")
        if t_min > 0 and schedule.alpha(torch.tensor([t_min], dtype=torch.float64)) != 1:
            raise ValueError(f"t_min = {t_min} needs the EDM clock; {type(schedule).__name__} has t_min = 0")
        self.net, self.schedule, self.sigma_data, self.t_min = net, schedule, sigma_data, t_min
        self.second_time = getattr(net, "second_time", False)  # whether the network takes a second time u (TCD)

    def c_in(self, t: Tensor) -> Tensor:
        """1/v: the network's input has unit variance for data of standard deviation sigma_d; (B,) -> (B,)."""
        return 1 / self._v(t)

    def c_skip(self, t: Tensor) -> Tensor:
        """How much of x is kept; exactly 1 at t_min. (B,) -> (B,)."""
        # Not sd^2/(sd^2 + gap^2): a float over a tensor is a reciprocal times a float, and misses 1.
        alpha = self.schedule.alpha(t)
        return alpha / (alpha.square() + (self._gap(t) / self.sigma_data).square())

    def c_out(self, t: Tensor) -> Tensor:
        """How much of F is added; exactly 0 at t_min. (B,) -> (B,)."""
        return self._gap(t) * self.sigma_data / self._v(t)

    def raw(self, x: Tensor, t: Tensor, **cond: Tensor | None) -> Tensor:
        """The network's output F(c_in x, c_noise(t)), (B, *D)."""
        told = given(cond)
        if self.second_time:
            told.setdefault("u", torch.full_like(t, self.t_min))  # the end of the trajectory
        if "u" in told:
            told["u"] = self.schedule.c_noise(told["u"])
        x_in, c_noise = expand(self.c_in(t), x) * x, self.schedule.c_noise(t)
        with nullcontext() if self.autocast is None else torch.autocast(x.device.type, self.autocast):
            return self.net(x_in, c_noise, **told)

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor | None) -> Tensor:
        told = given(cond)
        for time in (t, told["u"]) if "u" in told else (t,):
            self.schedule.check(time, x)
        t = t if t.is_floating_point() else t.double()  # a whole number would cut t_min to 0
        if "label" in told and getattr(self.net, "classes", 0) > 0:
            check_label(told["label"], self.net.classes, x)
        # 1e-6: a t_min that went through another dtype or clock
        if self.t_min and readable(t) and (t < torch.full_like(t, self.t_min) * (1 - 1e-6)).any():
            raise ValueError(f"t = {t.min().item():g} lies before t_min = {self.t_min:g}, where f(x, t_min) = x")
        F = self.raw(x, t, **told).to(torch.promote_types(x.dtype, torch.float32))
        return (expand(self.c_skip(t), x) * x + expand(self.c_out(t), x) * F).to(x.dtype)

    def _gap(self, t: Tensor) -> Tensor:
        # t_min in t's own dtype: float32(0.002) - 0.002 is not zero.
        return self.schedule.sigma(t) - self.schedule.sigma(torch.full_like(t, self.t_min))

    def _v(self, t: Tensor) -> Tensor:
        return (self.schedule.sigma(t).square() + (self.schedule.alpha(t) * self.sigma_data).square()).sqrt()


def check_label(label: Any, classes: int, x: Tensor) -> None:
    """Refuse labels that are not (B,) whole numbers in 0..classes, `classes` itself being the null label.

    Values are looked at where they are `readable`. Raises ValueError.
    """
    whole = isinstance(label, Tensor) and label.dtype in (torch.int64, torch.int32)
    if not whole or label.shape != x.shape[:1]:
        got = f"{label.dtype} {tuple(label.shape)}" if isinstance(label, Tensor) else repr(label)
        raise ValueError(f"label must hold one whole number a sample, int64 of shape ({len(x)},), got {got}")
    if readable(label) and ((label < 0) | (label > classes)).any():
        raise ValueError(f"labels must be in 0..{classes}, {classes} for none, got {label.min()}..{label.max()}")


class Guided(nn.Module):
    """Classifier-free guidance of a denoiser: D_c + w (D_c - D_null), in LCM's convention.

    Ho and Salimans, arXiv:2207.12598, Eq. 6; LCM, arXiv:2310.04378, section 4.2. w = 0 is the conditional denoiser; the
    scale of Imagen and of `diffusers` pipelines is w + 1. label: an int or (B,); w: a float or (B,).
    The result is called like a denoiser, (x, t) -> x0_hat, and has its schedule and t_min.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, denoiser: Denoise, label: int | Tensor, w: float | Tensor) -> None:
        super().__init__()
        self.denoiser, self.label, self.w = denoiser, label, w
        self.schedule, self.t_min = denoiser.schedule, denoiser.t_min
        self.sigma_data = getattr(denoiser, "sigma_data", None)
        self.second_time = getattr(denoiser, "second_time", False)

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor | None) -> Tensor:
        end = given(cond)
        if end.keys() & {"label", "w"}:
            raise ValueError("label and w were given to Guided already: call the result with (x, t)")
        label = torch.as_tensor(self.label, device=x.device).expand(len(x))
        w = expand(torch.as_tensor(self.w, device=x.device).expand(len(x)), x)
        conditional, null = self.denoiser(x, t, label=label, **end), self.denoiser(x, t, **end)
        return (conditional + w * (conditional - null)).to(x.dtype)


class InClock(nn.Module):
    """A denoiser of one clock, called with the points and times of another.

    x0_hat depends on x/alpha and sigma/alpha alone (EDM, arXiv:2206.00364, Algorithm 1, line 4), so the point
    is x_inner = alpha_inner x/alpha at the inner time of the same sigma/alpha. An inner VP clock rounds it to a step.
    The result is called like a denoiser and has the new schedule, and t_min carried over to it.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, denoiser: Denoise, schedule: Schedule) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, schedule
        self.sigma_data = getattr(denoiser, "sigma_data", None)
        self.second_time = getattr(denoiser, "second_time", False)
        inner, t = denoiser.schedule, torch.tensor([denoiser.t_min], dtype=torch.float64)
        self.t_min = schedule.t_of(inner.sigma(t) / inner.alpha(t)).item()

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor | None) -> Tensor:
        self.schedule.check(t, x)
        t_inner, told = self._inner_time(t), given(cond)
        if "u" in told:
            told["u"] = self._inner_time(told["u"])
        scale = expand(self.denoiser.schedule.alpha(t_inner) / self.schedule.alpha(t), x)
        return self.denoiser((scale * x).to(x.dtype), t_inner, **told)

    def _inner_time(self, t: Tensor) -> Tensor:
        return self.denoiser.schedule.t_of(self.schedule.sigma(t) / self.schedule.alpha(t))


class FromPrediction(nn.Module):
    """Any pretrained eps-, v- or x0-network as a denoiser: net(x, t, ...) -> prediction becomes x0_hat.

    DDPM, arXiv:2006.11239, Eq. 15 (eps); arXiv:2202.00512, appendix D (v = alpha eps - sigma x0). The network is
    called with x unscaled and t in our clock; the timestep of a `diffusers` network is t - 1:
    FromPrediction(lambda x, t: unet(x, t - 1).sample, VP.linear(), "eps").
    Conditioning is passed on by name where it is given. Raises ValueError for an unknown kind.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, net: Callable, schedule: Schedule, kind: str = "eps") -> None:
        super().__init__()
        if kind not in ("eps", "v", "x0"):
            raise ValueError(f'kind must be "eps", "v" or "x0", got {kind!r}')
        self.net, self.schedule, self.kind, self.t_min = net, schedule, kind, 0.0

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor | None) -> Tensor:
        self.schedule.check(t, x)
        prediction = self.net(x, t, **given(cond))
        alpha, sigma = expand(self.schedule.alpha(t), x), expand(self.schedule.sigma(t), x)
        if self.kind == "x0":
            return prediction
        if self.kind == "eps":
            return ((x - sigma * prediction) / alpha).to(x.dtype)
        return ((alpha * x - sigma * prediction) / (alpha.square() + sigma.square())).to(x.dtype)
