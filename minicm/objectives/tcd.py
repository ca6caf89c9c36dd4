"""Trajectory consistency distillation: f learns the way from t to any earlier u, and not only to its end.

TCD, arXiv:2402.19159, section 4.   loss = d( G(x_t, t, u), G_target(x_s, s, u) ),  x_s = step(teacher, x_t, t, s),  u <= s < t
where G(x, t, u) = schedule.step(x, x0_hat, t, u) with x0_hat = f(x, t, u): the point at u on the line to x0_hat.

| paper                   | here                | meaning                                                             |
|-------------------------|---------------------|---------------------------------------------------------------------|
| t_{n+k}, t_n, t_m       | t, s, u             | where f starts, where its target starts, where both arrive          |
| f(x_t, t, s)            | trajectory_point    | G above; G(x, u, u) = x for any f, so the boundary needs no learning |
| TCF(1), TCF(2)          | form                | first_order: x0_hat = f(x, t, u); SecondOrder: f half-way to u      |
| Phi                     | step                | euler_step is DDIM, in the guided teacher where w_range is given    |
| m ~ U[1, n]             | u_law               | any time of the grid up to s, whatever the skip                     |
| theta, theta^-, d, mu   | f, f_target, distance, mu | trained, its slow copy; paper: squared l2, mu as in LCM       |

Differs from CD in: the third time u, which the network is told too. With every u = 0 it is LCD. CTM (arXiv:2310.02279)
stands close by: in the EDM clock G is its (u/t) x + (1 - u/t) g(x, t, u). To sample is `sample(f, ..., gamma)`.
Simplified: no TCF(S+), where one more network gives an integral; no autoencoder. LCM-LoRA's way: `add_lora(f.net, ...)`.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from minicm.denoiser import given
from minicm.distances import Distance, pseudo_huber
from minicm.objectives.base import Distillation, Draw, constant, interval_draw, predict_pair, whole_times
from minicm.schedules import Denoise
from minicm.solvers import Step, euler_step
from minicm.times import IndexLaw, UniformIndex, with_skip

Grid = Tensor | Callable[[int, int], Tensor]
ArrivalLaw = Callable[[Tensor, Tensor, torch.Generator], Tensor]  # (grid, s (B,), generator) -> u (B,)


def uniform_arrival(grid: Tensor, s: Tensor, generator: torch.Generator) -> Tensor:
    """u uniform on the times of the grid (N,) that are not after s: m ~ U[1, n] in TCD, section 4; (B,) -> (B,)."""
    n = torch.searchsorted(grid, s, right=True)  # how many times these are
    share = torch.rand(s.shape, generator=generator, device=s.device, dtype=torch.float64)
    return grid[(share * n).long()]


def trajectory_point(f: Denoise, x: Tensor, t: Tensor, u: Tensor, **cond: Tensor | None) -> Tensor:
    """G(x, t, u), where f sees the trajectory through (x, t) at the earlier time u; x (B, *D), t, u (B,) -> (B, *D).

    TCD, arXiv:2402.19159, section 4; in the VP clock it is DDIM. G(x, u, u) = x to rounding, for any f. cond: label, w (B,).
    """
    x0_hat = f(x, t, u=u, **cond)
    # No step starts from clean data (t = u = 0, f's boundary). But a step to 0 ends in x0_hat wherever it starts.
    start = torch.where(f.schedule.sigma(t) == 0, f.schedule.t_max, t)
    return f.schedule.step(x, x0_hat, start, u)


def first_order(f: Denoise) -> Denoise:
    """TCF(1): f as it is (TCD, arXiv:2402.19159, section 4)."""
    return f


class SecondOrder(nn.Module):
    """TCF(2): f made into a function whose x0_hat is taken half-way from t to u; it costs two evaluations.

    TCD, arXiv:2402.19159, section 4, for r = 1/2; in form DPM-Solver++(2S), arXiv:2211.01095, Algorithm 1. Half-way
    is meant in ln(alpha/sigma), which VP rounds to a step; where sigma(u) = 0 it is u, and the form that of first
    order. Called like f: sample(SecondOrder(f), ...) for an f trained in this form.
    """

    second_time = True

    def __init__(self, f: Denoise) -> None:
        super().__init__()
        self.f, self.schedule, self.t_min = f, f.schedule, f.t_min

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor | None) -> Tensor:
        told = given(cond)
        u = told.pop("u", torch.full_like(t, self.t_min))
        noise_t, noise_u = (self.schedule.sigma(time) / self.schedule.alpha(time) for time in (t, u))
        half_way = self.schedule.t_of((noise_t * noise_u).sqrt())
        x_half = trajectory_point(self.f, x, t, half_way, **told)
        return self.f(x_half, half_way, u=u, **told)


class TCD(Distillation):
    """Trajectory consistency distillation from a teacher, on skips of its VP grid or of any other.

    TCD, arXiv:2402.19159, section 4. teacher: a diffusion model called (x, t, label) with a `schedule`; for
    guidance it must know classes. f: a `Denoiser` whose network has the second time. x0 (B, *D) -> losses (B,).
    Raises ValueError for a skip that does not fit the grid, a w_range that is not 0 <= low <= high, mu outside
    [0, 1), a clock without a grid, and in `draw` for guidance without labels.
    """

    def __init__(
        self,
        teacher: Denoise,
        *,
        skip: int,  # skipping step, in steps of the grid; the paper's is 20 of 1000
        w_range: tuple[float, float] | None = None,  # guidance is uniform on it; None: no guidance, no w
        grid: Grid | None = None,  # ascending times (N,), or a curriculum (k, K) -> grid; None: VP's 0..T
        step: Step = euler_step,  # the ODE solver Phi
        index_law: IndexLaw = UniformIndex(),  # which of the skips
        u_law: ArrivalLaw = uniform_arrival,  # where to arrive, at s or before
        form: Callable[[Denoise], Denoise] = first_order,  # or SecondOrder
        distance: Distance = pseudo_huber(0.001),  # of two points at u: (B, *D), (B, *D) -> (B,)
        weight: Callable[[Tensor, Tensor], Tensor] = constant,  # lambda(t, s)
        mu: float = 0.95,  # the target's decay; 0: a stop-gradient copy of f
    ) -> None:
        super().__init__(teacher, mu, w_range)
        self.grid, self.skip = whole_times(teacher) if grid is None else grid, skip
        if isinstance(self.grid, Tensor):
            with_skip(self.grid, skip)  # refuses a skip that does not fit
        self.step, self.index_law, self.u_law = step, index_law, u_law
        self.form, self.distance, self.weight = form, distance, weight

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        grid = (self.grid if isinstance(self.grid, Tensor) else self.grid(k, K)).double()
        draw = interval_draw(with_skip(grid, self.skip), self.index_law, x0, k, generator)
        if self.w_range is not None and label is None:
            raise ValueError("guidance is the difference that a label makes: TCD's w_range needs labels")
        w = self.draw_w(len(x0), generator)
        return replace(draw, w=w, u=self.u_law(grid.to(generator.device), draw.s, generator))

    def loss(
        self, f: Denoise, f_target: Denoise, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        self.check_clock(f)
        t, w, schedule = draw.t, draw.w, f.schedule
        s, u = draw.s.clamp(min=f.t_min), draw.u.clamp(min=f.t_min)  # a grid may begin below f's boundary
        x_t = schedule.add_noise(x0, draw.eps, t)
        with torch.no_grad():
            x_s = self.step(self.guided(label, w), schedule, x_t, t, s)
        x_u, x_u_target = predict_pair(
            lambda: trajectory_point(self.form(f), x_t, t, u, label=label, w=w),
            lambda: trajectory_point(self.form(f_target), x_s, s, u, label=label, w=w),
            draw.seed,
        )
        return self.weight(t, s).to(x0.dtype) * self.distance(x_u, x_u_target)
