"""Denoising score matching: how the diffusion teacher is trained.

EDM, arXiv:2206.00364, Eq. 2 and Table 1.   loss = |D(x0 + sigma eps, sigma) - x0|^2 / c_out(sigma)^2

| paper         | here              | meaning                                                   |
|---------------|-------------------|-----------------------------------------------------------|
| D, F          | f, f.raw          | the denoiser, and the network inside its preconditioning  |
| sigma         | t                 | noise level                                               |
| lambda(sigma) | 1 / f.c_out(t)^2  | weight: the regression target of F has unit variance      |
| P_mean, P_std | time_law          | ln sigma ~ N(-1.2, 1.2^2)                                 |

Simplified: no augmentation. Labels arrive already dropped where guidance needs it (`data.labels.LabelDropout`).
"""

import torch
from torch import Tensor

from minicm.denoiser import Denoiser
from minicm.distances import l2
from minicm.objectives.base import Draw, Objective, dropout_from, noisy_draw
from minicm.times import LogNormalTimes, TimeLaw


class DSM(Objective):
    """Denoising score matching in any clock: the weight 1/c_out^2 makes it a plain squared loss on F.

    EDM, arXiv:2206.00364, Eqs. 2 and 8. Losses (B,), summed over the sample; f_target is not used.
    """

    kind = "diffusion"

    def __init__(
        self,
        *,
        time_law: TimeLaw = LogNormalTimes(),  # training times, in the clock of f
    ) -> None:
        super().__init__()
        self.time_law = time_law

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        return noisy_draw(x0, k, generator, t=self.time_law(len(x0), generator))

    def loss(
        self, f: Denoiser, f_target: Denoiser, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        x_t = f.schedule.add_noise(x0, draw.eps, draw.t)
        with dropout_from(draw.seed):
            x0_hat = f(x_t, draw.t, label=label)
        return l2(x0_hat, x0) / f.c_out(draw.t).square().to(x0.dtype)
