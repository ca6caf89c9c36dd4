"""A plain loop for the networks beside the subject: the autoencoder and the classifier."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from minicm.train import Data

Net = TypeVar("Net", bound=nn.Module)


def fit(
    net: Net,
    loss: Callable[[Tensor, Any, torch.Generator], Tensor],  # (x0, label, or None as data has it, generator) -> (B,)
    data: Data,
    *,
    steps: int,  # updates
    batch: int = 128,  # samples an update
    lr: float = 2e-3,  # peak of one rise and fall of the learning rate
    seed: int = 0,  # of data and of what the loss draws; the weights are given
    device: torch.device | str = "cpu",
) -> Net:
    """Train a network on a loss of its own and return it frozen, in evaluation mode. No averages, no checkpoints."""
    net = net.to(device).train()
    generator = torch.Generator(device).manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=lr, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    for _ in range(steps):
        x0, label = data.sample(batch, generator)
        optimiser.zero_grad()
        loss(x0, label, generator).mean().backward()
        optimiser.step()
        rate.step()
    return net.eval().requires_grad_(False)
