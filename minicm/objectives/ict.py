"""Improved consistency training: CT with a better loss, better times, and no slow target.

iCT, arXiv:2310.14189, section 3 and Table 1.   loss = lambda d( f(x0 + t eps, t), f_target(x0 + s eps, s) ), one eps

| paper                    | here                 | meaning                                                     |
|--------------------------|----------------------|-------------------------------------------------------------|
| sigma_{i+1}, sigma_i     | t, s                 | neighbours on the Karras grid of N(k) points                |
| z                        | draw.eps             | one noise for both points                                   |
| theta^-                  | f_target             | stopgrad(theta): mu = 0, for in CT a target must not lag     |
| N(k), s0, s1             | doubling_points      | 11, 21, ..., 1281 grid points in equal stages               |
| p(sigma_i), P_mean, P_std | index_law           | the mass that ln sigma ~ N(-1.1, 2^2) gives an interval     |
| lambda(sigma_i)          | weight               | 1/(t - s)                                                   |
| d, c                     | distance             | pseudo-Huber over the whole sample, c = .00054 sqrt(dim)    |

Differs from CD in: x_s = x0 + s eps needs no teacher. Differs from CT in all that this table names but the pair.
Not here: dropout and the smaller Fourier scale of the time embedding belong to the network, RAdam to the loop.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minicm.distances import Distance, pseudo_huber
from minicm.objectives.base import Draw, Objective, interval_draw, inverse_gap, predict_pair
from minicm.schedules import Denoise
from minicm.times import T_MIN, IndexLaw, LogNormalIndex, doubling_points, karras_grid


class ICT(Objective):
    """Improved consistency training in the EDM clock, with the published curriculum N(k).

    iCT, arXiv:2310.14189, Table 1. Losses (B,). The target is f itself without gradient; there is no teacher.
    Raises ValueError unless 1 <= s0 <= s1.
    """

    def __init__(
        self,
        *,
        s0: int = 10,  # grid intervals at the start
        s1: int = 1280,  # grid intervals at the end
        t_min: float = T_MIN,  # first time of the grid, noise level
        t_max: float = 80.0,  # last time of the grid, noise level
        rho: float = 7.0,  # curvature of the Karras grid
        index_law: IndexLaw = LogNormalIndex(),  # which interval of the grid
        distance: Distance = pseudo_huber(0.03),  # c in data units: .00054 sqrt(3072), CIFAR-10's
        weight: Callable[[Tensor, Tensor], Tensor] = inverse_gap,  # lambda(t, s)
    ) -> None:
        super().__init__()
        if not 1 <= s0 <= s1:
            raise ValueError(f"iCT's grid grows from s0 to s1 intervals: needs 1 <= s0 <= s1, got {s0}, {s1}")
        self.s0, self.s1 = s0, s1
        self.t_min, self.t_max, self.rho = t_min, t_max, rho
        self.index_law, self.distance, self.weight = index_law, distance, weight

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        grid = karras_grid(doubling_points(k, K, self.s0, self.s1), self.t_min, self.t_max, self.rho)
        return interval_draw(grid, self.index_law, x0, k, generator)

    def loss(
        self, f: Denoise, f_target: Denoise, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        t, s = draw.t, draw.s
        x_t, x_s = f.schedule.add_noise(x0, draw.eps, t), f.schedule.add_noise(x0, draw.eps, s)
        y, y_target = predict_pair(lambda: f(x_t, t, label=label), lambda: f_target(x_s, s, label=label), draw.seed)
        return self.weight(t, s).to(x0.dtype) * self.distance(y, y_target)
