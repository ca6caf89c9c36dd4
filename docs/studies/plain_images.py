"""A diffusion model of pictures as a plain PyTorch loop: what `minicm bench --images` holds the package's own step against.

EDM, arXiv:2206.00364, Eq. 2 and Table 1, written as one writes it first: float32 throughout, torch's Adam as it comes, the
average parameter by parameter. Only the network and the data are minicm's. On the same draws it does the same updates as
`DSM` in `train`, up to rounding, and the tests see to that.

Simplified: no warm-up and decay, no look for NaN, no checkpoints.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from docs.studies.plain import SIGMA_DATA, average
from minicm.train import Data


def plain_dsm(
    net: nn.Module,
    data: Data,
    *,
    batch: int,  # pictures an update
    lr: float,  # constant
    ema_decay: float = 0.999,  # of the evaluation average
    seed: int = 0,  # of data and draws
    device: str = "cpu",
) -> Iterator[float]:
    """Train the EDM denoiser around net on pictures (B, C, H, W), update by update; yields the losses, without end.

    EDM, arXiv:2206.00364, Eq. 2.
    """
    net = net.to(device)
    average_net = copy.deepcopy(net)
    optimiser = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    generator = torch.Generator(device).manual_seed(seed)
    while True:
        x0, label = data.sample(batch, generator)
        z = torch.randn(batch, generator=generator, device=device, dtype=torch.float64)
        sigma = (-1.2 + 1.2 * z).exp().clamp(1e-3, 80).to(x0.dtype)
        eps = torch.randn(x0.shape, generator=generator, device=device)
        x0_hat = denoiser(net, x0 + sigma[:, None, None, None] * eps, sigma, label)
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        loss = (weight * (x0_hat - x0).square().sum((1, 2, 3))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average(average_net, net, ema_decay)
        yield loss.item()


def denoiser(net: nn.Module, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
    """D(x, sigma) (EDM, arXiv:2206.00364, Eq. 7 and Table 1); x (B, C, H, W), sigma (B,) -> (B, C, H, W)."""
    s = sigma[:, None, None, None]
    c_skip = SIGMA_DATA**2 / (s**2 + SIGMA_DATA**2)
    c_out = s * SIGMA_DATA / (s**2 + SIGMA_DATA**2).sqrt()
    c_in = 1 / (s**2 + SIGMA_DATA**2).sqrt()
    return c_skip * x + c_out * net(c_in * x, sigma.log() / 4, label)
