"""Consistency distillation: the teacher's solver supplies the earlier point.

CM, arXiv:2303.01469, Algorithm 2 and Eq. 7.   loss = lambda d( f(x_t, t), f_target(x_s, s) ),  x_s = step(teacher, x_t, t, s)

| paper                | here             | meaning                                                    |
|----------------------|------------------|------------------------------------------------------------|
| t_{n+1}, t_n         | t, s             | grid[n + 1] and grid[n]                                    |
| theta, theta^-, phi  | f, f_target, teacher | trained, its slow copy, the frozen diffusion model     |
| x_{t_{n+1}}, x_hat^phi_{t_n} | x_t, x_s | noisy point, the solver's estimate of the point at s       |
| Phi                  | step             | heun_step or euler_step                                    |
| lambda, d, mu        | weight, distance, mu | CM: 1, LPIPS or l2, 0 on CIFAR-10                      |

Simplified: no LPIPS (it needs pretrained weights).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minicm.distances import Distance, l2
from minicm.objectives.base import Distillation, Draw, constant, interval_draw, predict_pair
from minicm.schedules import Denoise
from minicm.solvers import Step, heun_step
from minicm.times import IndexLaw, UniformIndex

Weight = Callable[[Tensor, Tensor], Tensor]


class CD(Distillation):
    """Consistency distillation from a frozen teacher, on a grid of the teacher's clock.

    CM, arXiv:2303.01469, Algorithm 2. teacher: a diffusion model called (x, t, label) with a `schedule`.
    Losses (B,). Raises ValueError unless the grid ascends, 0 <= mu < 1, and f has the teacher's clock.
    """

    def __init__(
        self,
        teacher: Denoise,
        *,
        grid: Tensor | Callable[[int, int], Tensor],  # ascending times (N,), or a curriculum (k, K) -> grid
        step: Step = heun_step,  # the ODE solver Phi
        index_law: IndexLaw = UniformIndex(),  # which interval of the grid
        distance: Distance = l2,  # (B, *D), (B, *D) -> (B,)
        weight: Weight = constant,  # lambda(t, s)
        mu: float = 0.0,  # the target's decay; 0: a stop-gradient copy of f
    ) -> None:
        super().__init__(teacher, mu)
        if isinstance(grid, Tensor) and (grid.ndim != 1 or len(grid) < 2 or (grid.diff() <= 0).any()):
            raise ValueError("CD needs an ascending grid of at least two times, such as karras_grid(18)")
        self.grid, self.step, self.index_law = grid, step, index_law
        self.distance, self.weight = distance, weight

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        grid = self.grid if isinstance(self.grid, Tensor) else self.grid(k, K)
        return interval_draw(grid, self.index_law, x0, k, generator)

    def loss(
        self, f: Denoise, f_target: Denoise, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        self.check_clock(f)
        t, s, schedule = draw.t, draw.s, self.teacher.schedule
        x_t = schedule.add_noise(x0, draw.eps, t)
        with torch.no_grad():
            x_s = self.step(partial(self.teacher, label=label), schedule, x_t, t, s)
        y, y_target = predict_pair(lambda: f(x_t, t, label=label), lambda: f_target(x_s, s, label=label), draw.seed)
        return self.weight(t, s).to(x0.dtype) * self.distance(y, y_target)
