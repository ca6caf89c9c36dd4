"""Easy consistency tuning: a diffusion model becomes a consistency model as the gap between its two times closes.

ECT, arXiv:2406.14548, section 3.   loss = lambda d( f(x0 + t eps, t), f_target(x0 + s eps, s) ), one eps

| paper              | here                | meaning                                                          |
|--------------------|---------------------|------------------------------------------------------------------|
| t, r               | t, s                | later and earlier time; t is continuous, there is no grid        |
| epsilon            | draw.eps            | one noise for both points                                        |
| p(t)               | time_law            | ln t ~ N(-1.1, 2^2)                                              |
| p(r \\| t, iters), q, k, b | ect_gap      | s/t = 1 - n(t)/q^(stage + 1), at least 0; n(t) = 1 + k sigmoid(-b t) |
| floor(iters / d)   | stage(k, K)         | how far the gap has closed; the paper's d is K/stages            |
| w(t)               | weight              | 1/(t - s)                                                        |
| d, c               | distance            | the plain norm; pseudo_huber(c) for c > 0                        |

Start f from a diffusion model's weights (tuning), or at random. Stage 0 has s = 0 for t < ln 7: denoising, as
a diffusion model learns it where the distance is squared l2; the plain norm learns a median instead of the mean.
Differs from CD in: x_s = x0 + s eps needs no teacher; its weights at the start do. There is no grid and no slow target.
Differs from ECT's code in: f keeps its boundary f(x, t_min) = x while it trains (the code has it in evaluation alone),
and below t_min f is the identity. So the target at s = 0 is the clean x0, as in the code, without a mask.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minicm.distances import Distance, pseudo_huber
from minicm.objectives.base import Draw, Objective, inverse_gap, noisy_draw, predict_pair
from minicm.schedules import Denoise
from minicm.times import T_MIN, LogNormalTimes, TimeLaw, ect_gap


class ECT(Objective):
    """Easy consistency tuning in the EDM clock; what it starts from is f's initial weights.

    ECT, arXiv:2406.14548, section 3, with the mapping of its code. Losses (B,). Raises ValueError for a number of
    stages below 1 and for q <= 1.
    """

    def __init__(
        self,
        *,
        stages: int = 8,  # equal parts of the training; the gap shrinks by q at each
        q: float = 2.0,  # how much the gap shrinks
        k: float = 8.0,  # how much wider the gap is at small t
        b: float = 1.0,  # how fast that wears off, per unit of t
        time_law: TimeLaw = LogNormalTimes(mean=-1.1, std=2.0, low=T_MIN),  # of t, noise level
        distance: Distance = pseudo_huber(0.0),  # (B, *D), (B, *D) -> (B,); c = 0 is the plain norm
        weight: Callable[[Tensor, Tensor], Tensor] = inverse_gap,  # lambda(t, s)
    ) -> None:
        super().__init__()
        if stages < 1:
            raise ValueError(f"ECT needs at least one stage, got stages = {stages}")
        if not q > 1:
            raise ValueError(f"ECT's gap shrinks by q at each stage: needs q > 1, got {q}")
        self.stages, self.q, self.k, self.b = stages, q, k, b
        self.time_law, self.distance, self.weight = time_law, distance, weight

    def stage(self, k: int, K: int) -> int:
        """The stage 0..stages - 1 of step k of K."""
        return min(k * self.stages // K, self.stages - 1)

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        t = self.time_law(len(x0), generator)
        s = ect_gap(t, self.stage(k, K), q=self.q, k=self.k, b=self.b)
        return noisy_draw(x0, k, generator, t=t, s=s)

    def loss(
        self, f: Denoise, f_target: Denoise, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        t, s = draw.t, draw.s
        x_t, x_s = f.schedule.add_noise(x0, draw.eps, t), f.schedule.add_noise(x0, draw.eps, s)
        s_seen = s.clamp(min=f.t_min)  # f(x_s, t_min) is x_s itself: the clean x0 where s = 0
        y, y_target = predict_pair(
            lambda: f(x_t, t, label=label), lambda: f_target(x_s, s_seen, label=label), draw.seed
        )
        return self.weight(t, s).to(x0.dtype) * self.distance(y, y_target)
