"""Latent consistency distillation: consistency distillation of a guided teacher, w being an input of the student.

LCM, arXiv:2310.04378, Algorithm 1.   loss = d( f(x_t, w, c, t), f_target(x_s, w, c, s) ),  x_s = step(guided teacher, x_t, t, s)

| paper                | here                  | meaning                                                            |
|----------------------|-----------------------|--------------------------------------------------------------------|
| z                    | x                     | here points or pixels; the paper's are codes of an autoencoder     |
| c, empty             | label, null label     | the class stands in the place of the text                          |
| t_{n+k}, t_n         | t, s, skip            | `skip` (k) steps of the grid apart; every k-th time is used        |
| w ~ U[w_min, w_max]  | draw.w, w_range       | guidance: D_c + w (D_c - D_null); Imagen's scale is w + 1          |
| Psi                  | step                  | euler_step is DDIM: x + (1+w) Psi(c) - w Psi(empty) is its result  |
| theta, theta^-       | f, f_target           | trained, its slow copy                                             |
| d, mu                | distance, mu          | paper: squared l2, .999943; diffusers' script: l2 or Huber, .95    |

Differs from CD in: the guidance, which the student learns as an input, so that sampling needs one evaluation a step;
the skip (the paper's k), without which a grid of 1000 steps learns too slowly. Latent consistency fine-tuning (section 4.4)
goes without a teacher, from an f that is trained already: LCD(None, grid=..., ...) takes x0 for the teacher's
x0_hat, as CT does, and keeps w and the skip.
Simplified: no autoencoder; f in our own preconditioning or in LCM's (`LCMBoundary`), which ends at t = 1 instead of 0.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from minicm.denoiser import given
from minicm.distances import Distance, pseudo_huber
from minicm.objectives.base import Distillation, Draw, constant, interval_draw, predict_pair, whole_times
from minicm.schedules import VP, Denoise, expand, readable
from minicm.solvers import Step, euler_step
from minicm.times import IndexLaw, UniformIndex, with_skip


class LCD(Distillation):
    """Latent consistency distillation from a label-conditional teacher; with teacher None, fine-tuning on data.

    LCM, arXiv:2310.04378, Algorithm 1 and section 4.4. teacher: a diffusion model called (x, t, label) with a `schedule`,
    trained with its label dropped now and then (`data.labels.LabelDropout`). x0 (B, *D), label (B,) -> losses (B,).
    Raises ValueError for a skip that does not fit the grid, a w_range that is not 0 <= low <= high, mu outside [0, 1),
    a teacher without classes, a clock without a grid, an f in another clock than the teacher's, and in `draw` where
    there is a teacher and no label.
    """

    def __init__(
        self,
        teacher: Denoise | None,
        *,
        skip: int,  # skipping step, in steps of the grid; the paper's is 20 of 1000
        w_range: tuple[float, float],  # guidance is uniform on it; paper [2, 14], script [5, 15]
        grid: Tensor | None = None,  # ascending times (N,); None: all times 0..T of the teacher's VP clock
        step: Step = euler_step,  # the ODE solver Psi
        index_law: IndexLaw = UniformIndex(),  # which of the skips
        distance: Distance = pseudo_huber(0.001),  # over the whole sample, where the script has each number
        weight: Callable[[Tensor, Tensor], Tensor] = constant,  # lambda(t, s)
        mu: float = 0.95,  # the target's decay; 0: a stop-gradient copy of f
    ) -> None:
        super().__init__(teacher, mu, w_range)
        self.grid = with_skip(whole_times(teacher) if grid is None else grid, skip)
        self.step, self.index_law, self.distance, self.weight = step, index_law, distance, weight

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        if label is None and self.teacher is not None:
            raise ValueError("LCD needs a label for each sample: guidance is the difference that it makes")
        draw = interval_draw(self.grid, self.index_law, x0, k, generator)
        return replace(draw, w=self.draw_w(len(x0), generator))

    def loss(
        self, f: Denoise, f_target: Denoise, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        self.check_clock(f)
        t, w = draw.t, draw.w
        s = draw.s.clamp(min=f.t_min)  # LCM's own boundary is at t = 1, not at 0
        x_t = f.schedule.add_noise(x0, draw.eps, t)
        denoise = (lambda x, t: x0) if self.teacher is None else self.guided(label, w)  # who supplies x0_hat
        with torch.no_grad():
            x_s = self.step(denoise, f.schedule, x_t, t, s)
        y, y_target = predict_pair(
            lambda: f(x_t, t, label=label, w=w), lambda: f_target(x_s, s, label=label, w=w), draw.seed
        )
        return self.weight(t, s).to(x0.dtype) * self.distance(y, y_target)


class LCMBoundary(nn.Module):
    """LCM's own boundary condition for a given eps-, v- or x0-network: f = c_skip x + c_out x0_hat, f(x, 1) = x.

    LCM, arXiv:2310.04378, section 4.1, with the numbers of its training script: c_skip = sd^2/(s^2 + sd^2) and
    c_out = s/sqrt(s^2 + sd^2), where s is 10 times the timestep of `diffusers`, which is our t - 1. So the boundary
    is t = 1, and already at t = 2 f is all but x0_hat. There is no sd in c_out, since x0_hat is a point and no
    network output of unit variance. denoiser: `FromPrediction(net, VP..., kind)`, or any in the VP clock; the result
    is called like it, and trains its weights. Raises ValueError for another clock, and for t < 1.
    """

    t_min = 1.0

    def __init__(
        self,
        denoiser: Denoise,
        *,
        sigma_data: float = 0.5,  # sd, whatever the data's spread
        timestep_scaling: float = 10.0,  # s at the second timestep
    ) -> None:
        super().__init__()
        if not isinstance(denoiser.schedule, VP):
            raise ValueError(f"LCM's boundary counts timesteps: it needs the VP clock, got {denoiser.schedule}")
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.sigma_data, self.timestep_scaling = sigma_data, timestep_scaling

    def c_skip(self, t: Tensor) -> Tensor:
        """How much of x is kept; exactly 1 at t = 1. (B,) -> (B,)."""
        return 1 / (1 + self._s(t).square())

    def c_out(self, t: Tensor) -> Tensor:
        """How much of x0_hat is added; exactly 0 at t = 1. (B,) -> (B,)."""
        return self._s(t) / (1 + self._s(t).square()).sqrt()

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor | None) -> Tensor:
        if readable(t) and (t < 1).any():
            raise ValueError(f"t = {t.min().item():g}: LCM's f begins at t = 1, the first timestep")
        x0_hat = self.denoiser(x, t, **given(cond))
        return (expand(self.c_skip(t), x) * x + expand(self.c_out(t), x) * x0_hat).to(x.dtype)

    def _s(self, t: Tensor) -> Tensor:
        return self.timestep_scaling * (t - 1) / self.sigma_data  # in units of sd
