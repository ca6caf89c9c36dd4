"""Consistency training: the data themselves supply the earlier point, and no diffusion model is needed.

CM, arXiv:2303.01469, Algorithm 3 and Eq. 10.   loss = lambda d( f(x0 + t eps, t), f_target(x0 + s eps, s) ), one eps

| paper                | here                | meaning                                               |
|----------------------|---------------------|-------------------------------------------------------|
| t_{n+1}, t_n         | t, s                | neighbours on the grid of N(k) points                 |
| z                    | draw.eps            | one noise for both points                             |
| N(k), s0, s1         | ct_points           | number of grid points, growing with the step k        |
| mu(k), mu0           | ct_decay            | the target's decay; the paper's N(k), not the code's N(k) - 1 |
| lambda, d            | weight, distance    | CM: 1, LPIPS or l2                                    |

Differs from CD in: x_s = x0 + s eps is the Euler step whose teacher is the data, x0_hat = x0. The pair is not on one
trajectory; only its direction is right on average. Simplified: no LPIPS.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minicm.distances import Distance, l2
from minicm.objectives.base import Draw, Objective, constant, interval_draw, predict_pair
from minicm.schedules import Denoise
from minicm.times import T_MIN, IndexLaw, UniformIndex, ct_decay, ct_points, karras_grid


class CT(Objective):
    """Consistency training in the EDM clock, with the published curricula N(k) and mu(k).

    CM, arXiv:2303.01469, Algorithm 3 and appendix C. Losses (B,). It cannot be given a teacher.
    """

    def __init__(
        self,
        *,
        s0: int = 2,  # grid points at the start, N(0)
        s1: int = 150,  # grid intervals at the end: N(K) = s1 + 1
        mu0: float = 0.9,  # the target's decay at the start; 0: a stop-gradient copy of f throughout
        t_min: float = T_MIN,  # first time of the grid, noise level
        t_max: float = 80.0,  # last time of the grid, noise level
        rho: float = 7.0,  # curvature of the Karras grid
        index_law: IndexLaw = UniformIndex(),  # which interval of the grid
        distance: Distance = l2,  # (B, *D), (B, *D) -> (B,)
        weight: Callable[[Tensor, Tensor], Tensor] = constant,  # lambda(t, s)
    ) -> None:
        super().__init__()
        if not 2 <= s0 <= s1:
            raise ValueError(f"CT's grid grows from s0 to s1 + 1 points: needs 2 <= s0 <= s1, got {s0}, {s1}")
        if not 0 <= mu0 < 1:
            raise ValueError(f"CT's mu0 must lie in [0, 1), got {mu0}")
        self.s0, self.s1, self.mu0 = s0, s1, mu0
        self.t_min, self.t_max, self.rho = t_min, t_max, rho
        self.index_law, self.distance, self.weight = index_law, distance, weight

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        grid = karras_grid(ct_points(k, K, self.s0, self.s1), self.t_min, self.t_max, self.rho)
        return interval_draw(grid, self.index_law, x0, k, generator)

    def loss(
        self, f: Denoise, f_target: Denoise, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        t, s = draw.t, draw.s
        x_t, x_s = f.schedule.add_noise(x0, draw.eps, t), f.schedule.add_noise(x0, draw.eps, s)
        y, y_target = predict_pair(lambda: f(x_t, t, label=label), lambda: f_target(x_s, s, label=label), draw.seed)
        return self.weight(t, s).to(x0.dtype) * self.distance(y, y_target)

    def target_decay(self, k: int, K: int) -> float:
        return ct_decay(k, K, self.s0, self.s1, self.mu0)
