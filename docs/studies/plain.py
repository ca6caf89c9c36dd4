"""Consistency distillation as a plain PyTorch loop: what `minicm bench` holds the package's own step against.

CM, arXiv:2303.01469, Algorithm 2, in the EDM clock with a Heun teacher, uniform index, weight 1, squared l2 and mu = 0,
written as one writes it first: float32 throughout, torch's Adam as it comes, averages parameter by parameter. Only the
network and the data are minicm's. On the same draws it does the same updates as `CD` in `train`, up to rounding, and the
tests see to that; so the two may be compared for speed, and read side by side.

Simplified: no warm-up and decay, no look for NaN, no checkpoints, and c_skip in the textbook form, which misses 1 at
t_min for some sigma_data (for .5 it does not).
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from minicm.train import Data

T_MIN, T_MAX, RHO, SIGMA_DATA = 0.002, 80.0, 7.0, 0.5


def plain_cd(
    net: nn.Module,
    teacher_net: nn.Module,
    data: Data,
    *,
    batch: int,  # samples an update
    lr: float,  # constant
    points: int = 18,  # times of the grid
    ema_decay: float = 0.999,  # of the evaluation average
    seed: int = 0,  # of data and draws
) -> Iterator[float]:
    """Distil the EDM denoiser around teacher_net into net, update by update; yields the losses, without end.

    CM, arXiv:2303.01469, Algorithm 2.
    """
    target_net, average_net = copy.deepcopy(net), copy.deepcopy(net)
    optimiser = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 1, points)
    grid = (T_MIN ** (1 / RHO) + ramp * (T_MAX ** (1 / RHO) - T_MIN ** (1 / RHO))) ** RHO
    while True:
        x0, _ = data.sample(batch, generator)
        n = torch.randint(points - 1, (batch,), generator=generator)
        t, s = grid[n + 1], grid[n]
        x_t = x0 + t[:, None] * torch.randn(x0.shape, generator=generator)
        with torch.no_grad():
            x_s = heun(teacher_net, x_t, t, s)
            target = consistency_function(target_net, x_s, s)
        loss = (consistency_function(net, x_t, t) - target).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average(target_net, net, 0.0)
        average(average_net, net, ema_decay)
        yield loss.item()


def denoiser(net: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """D(x, t) (EDM, arXiv:2206.00364, Eq. 7 and Table 1); x (B, d), t (B,) -> (B, d)."""
    c_skip = SIGMA_DATA**2 / (t**2 + SIGMA_DATA**2)
    c_out = t * SIGMA_DATA / (t**2 + SIGMA_DATA**2).sqrt()
    c_in = 1 / (t**2 + SIGMA_DATA**2).sqrt()
    return c_skip[:, None] * x + c_out[:, None] * net(c_in[:, None] * x, t.log() / 4)


def consistency_function(net: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """f(x, t), with f(x, t_min) = x (CM, arXiv:2303.01469, appendix C); x (B, d), t (B,) -> (B, d)."""
    c_skip = SIGMA_DATA**2 / ((t - T_MIN) ** 2 + SIGMA_DATA**2)
    c_out = (t - T_MIN) * SIGMA_DATA / (t**2 + SIGMA_DATA**2).sqrt()
    c_in = 1 / (t**2 + SIGMA_DATA**2).sqrt()
    return c_skip[:, None] * x + c_out[:, None] * net(c_in[:, None] * x, t.log() / 4)


def heun(teacher_net: nn.Module, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One step of the teacher's ODE from t to s (EDM, arXiv:2206.00364, Algorithm 1); x (B, d), t, s (B,) -> (B, d)."""
    slope_t = (x - denoiser(teacher_net, x, t)) / t[:, None]
    x_s = x + (s - t)[:, None] * slope_t
    slope_s = (x_s - denoiser(teacher_net, x_s, s)) / s[:, None]
    return x + (s - t)[:, None] * (slope_t + slope_s) / 2


@torch.no_grad()
def average(kept: nn.Module, net: nn.Module, decay: float) -> None:
    """kept <- decay kept + (1 - decay) net (CM, arXiv:2303.01469, Eq. 8)."""
    for p_kept, p in zip(kept.parameters(), net.parameters(), strict=True):
        p_kept.mul_(decay).add_(p, alpha=1 - decay)
