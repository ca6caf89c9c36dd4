"""Continuous-time consistency training and distillation: the two times meet, and a tangent takes the gap's place.

sCM, arXiv:2410.11081, Algorithm 1 and Eq. 8.   loss = e^w/D |F - (F_target - g)|^2 - w,   g = tangent/(|tangent| + c)
                                      tangent = cos(t) df_target/dt along the trajectory

| paper                    | here                 | meaning                                                        |
|--------------------------|----------------------|----------------------------------------------------------------|
| F_theta                  | -f.raw(x, t)         | OUR F IS MINUS THE PAPER'S: f = cos(t) x + sin(t) sigma_d F     |
| F_theta^-                | -f_target.raw(x, t)  | the same without gradient: mu = 0                              |
| z                        | sigma_d draw.eps     | x_t = cos(t) x0 + sin(t) z                                     |
| dx_t/dt                  | velocity(x_t, x0_hat, t) | sCD: x0_hat from the teacher; sCT: x0 itself, cos(t) z - sin(t) x0 |
| sigma_d dF_theta^-/dt    | jvp                  | along (dx_t/dt, 1); cos(t) sin(t) is multiplied in before       |
| r, H                     | warm, warmup         | r = min(1, k/H) fades in all of the tangent that could be unstable |
| c                        | c                    | tangent normalisation                                          |
| w_phi(t), D              | log_weight, x0[0].numel() | learnt weight, dimension                                  |
| P_mean, P_std            | time_law             | t = arctan(e^tau/sigma_d), tau ~ N(-1, 1.4^2)                    |

Differs from CD in: no grid and no solver, so no discretisation error; the loss acts on F, not on f, which is the prior
weight 1/(sigma_d tan t); its value says little, since the tangent's length is divided out: watch an error instead.
The tangent holds dF/dt, so the network's time embedding must be smooth (section 4.1): on the ring of 8, 3 octaves of t
in place of 6 took the one-step median error of the recipe mixture-sct from .09 to .03 (seed 0).
Simplified: no adaptive double normalisation (it belongs to a large network); w_phi is linear in a few sinusoids of t.
"""

from typing import Any

import torch
from torch import Tensor, nn

from minicm.denoiser import Denoiser
from minicm.distances import l2
from minicm.nets.embeddings import octaves
from minicm.objectives.base import Distillation, Draw, noisy_draw, predict_pair
from minicm.schedules import Denoise, TrigFlow, expand
from minicm.times import LogNormalAngles, TimeLaw


class LogWeight(nn.Module):
    """w_phi(t), the logarithm of a weight that evens out the loss over t; (B,) -> (B,), zero at the start.

    sCM, arXiv:2410.11081, section 4.2 and Eq. 8, after EDM2 (arXiv:2312.02696). The optimum is e^w = D/E[|F - target|^2 | t].
    """

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        self.octaves = n  # the shortest period is 2 pi/2^(n - 1)
        self.out = nn.Linear(1 + 2 * n, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, t: Tensor) -> Tensor:
        return self.out(octaves(t, self.octaves).to(self.out.weight.dtype)).squeeze(1)


class SCM(Distillation):
    """Continuous-time consistency training (sCT), or with a teacher distillation (sCD), in the TrigFlow clock.

    sCM, arXiv:2410.11081, Algorithm 1. f: a Denoiser in TrigFlow with t_min = 0. teacher: a diffusion model in the
    TrigFlow clock (others through `InClock`), called (x, t, label). Losses (B,).
    Raises ValueError for a negative warmup, c <= 0, an f in another clock (in VP there is no dx/dt) or for another
    sigma_d, and a teacher in another clock than f's.
    """

    def __init__(
        self,
        teacher: Denoise | None = None,
        *,
        time_law: TimeLaw = LogNormalAngles(),  # of t, an angle
        c: float = 0.1,  # tangent normalisation: tangents well below c keep their length
        warmup: int = 10_000,  # H, training steps; 0 for none
        learn_weight: bool = True,  # whether w_phi is learnt, or stays 0
    ) -> None:
        super().__init__(teacher)
        if not c > 0:
            raise ValueError(f"sCM's tangent normalisation needs c > 0, got {c}")
        if warmup < 0:
            raise ValueError(f"sCM's warm-up is a number of steps, at least 0, got {warmup}")
        self.time_law, self.c, self.warmup = time_law, c, warmup
        self.log_weight = LogWeight() if learn_weight else None

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        return noisy_draw(x0, k, generator, t=self.time_law(len(x0), generator))

    def loss(
        self, f: Denoiser, f_target: Denoiser, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        _check_f(f)
        self.check_clock(f)
        t, schedule = draw.t, f.schedule
        x_t = schedule.add_noise(x0, draw.eps, t)
        with torch.no_grad():
            x0_hat = x0 if self.teacher is None else self.teacher(x_t, t, label=label)
            dx = schedule.velocity(x_t, x0_hat, t)
        warm = min(1.0, k / self.warmup) if self.warmup else 1.0

        def target() -> Tensor:
            F, g = tangent(f_target, x_t, dx, t, warm=warm, label=label)
            length = expand(torch.linalg.vector_norm(g.flatten(1), dim=1), g)
            return F - g / (length + self.c)

        F, F_aim = predict_pair(lambda: f.raw(x_t, t, label=label), target, draw.seed)
        w = torch.zeros_like(t) if self.log_weight is None else self.log_weight(t)
        w = w.to(x0.dtype)
        return w.exp() * l2(F, F_aim) / x0[0].numel() - w


def tangent(
    f: Denoiser, x: Tensor, dx: Tensor, t: Tensor, *, warm: float = 1.0, **cond: Tensor | None
) -> tuple[Tensor, Tensor]:
    """F(x, t), and cos(t) df/dt along the direction dx = dx/dt of the trajectory; with warm < 1, partly.

    sCM, arXiv:2410.11081, Eq. 6 and Algorithm 1, with our F in place of minus theirs:
    cos^2 (sigma_d F + dx/dt) - warm cos sin (x - sigma_d dF/dt). x, dx (B, *D), t (B,), cond: label, w, u (B,)
    -> two of (B, *D).
    """
    clock: Any = f.schedule  # TrigFlow, as SCM has made sure
    sigma_d = clock.sigma_data
    cos, sin = t.cos(), t.sin()
    scale = cos * sin * sigma_d  # multiplied in before the derivative, which may be large near t = 0 and pi/2
    F, dF = torch.func.jvp(  # type: ignore[misc]
        lambda x, t: f.raw(x, t, **cond), (x, t), (expand(scale, x) * dx, scale)
    )
    g = expand(cos.square(), x) * (sigma_d * F + dx) - warm * (expand(cos * sin, x) * x - dF)
    return F, g


def _check_f(f: Denoiser) -> None:
    if not isinstance(f.schedule, TrigFlow):
        clock = type(f.schedule).__name__
        raise ValueError(f"sCM trains an f in the TrigFlow clock, got {clock}: give Denoiser(net, TrigFlow())")
    if f.sigma_data != f.schedule.sigma_data:
        raise ValueError(
            f"f has sigma_data = {f.sigma_data:g}, its clock {f.schedule.sigma_data:g}: "
            "in TrigFlow the two are one number"
        )
