"""The plain loops of docs/studies and the package do the same updates: on the same draws the weights stay together, to rounding."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from docs.studies.plain import plain_cd
from docs.studies.plain_images import plain_dsm
from minicm import CD, DSM, MLP, Denoiser, GaussianMixture, Objective, UNet, karras_grid
from minicm.train import Data, TrainConfig, train

STEPS, BATCH, LR = 10, 16, 1e-3


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """So that rounding is 1e-16, and nothing but rounding can hide in a tolerance."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Pictures:
    """Coloured noise of 8 x 8 pixels in three classes."""

    def sample(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return 0.5 * torch.randn(n, 3, 8, 8, generator=generator), torch.arange(n) % 3


def check(f: Denoiser, objective: Objective, data: Data, net: nn.Module, plain: Iterator[float]) -> None:
    """Ten updates of the package and ten of a plain loop around `net`, which starts as f's network does."""
    config = TrainConfig(steps=STEPS, batch=BATCH, lr=LR, warmup=0, final_lr=1.0)
    first = copy.deepcopy(net)
    for step, loss in zip(train(f, objective, data, config), plain):
        assert step.loss.item() == pytest.approx(loss, rel=1e-8)
    for mine, theirs, before in zip(f.net.parameters(), net.parameters(), first.parameters(), strict=True):
        # Adam divides a gradient's rounding, 1e-16 of some hundreds, by the gradient or by 1e-8: up to 1e-5 of its step
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * LR)
        assert (theirs - before).abs().max() > LR / 2  # they have moved


def test_consistency_distillation():
    torch.manual_seed(0)
    net, teacher = MLP(2, 16, 2), MLP(2, 16, 2)
    for last in (net.out, teacher.out):
        nn.init.normal_(last.weight, std=0.3)  # a network that starts at zero would hide what is before
    f, ring = Denoiser(copy.deepcopy(net), t_min=0.002), GaussianMixture.ring()
    plain = plain_cd(net, teacher, ring, batch=BATCH, lr=LR)
    check(f, CD(Denoiser(teacher), grid=karras_grid(18)), ring, net, plain)


def test_a_diffusion_model_of_pictures():
    torch.manual_seed(0)
    net = UNet(3, 8, (1, 2), blocks=1, classes=3)
    nn.init.normal_(net.leave.weight, std=0.01)
    f = Denoiser(copy.deepcopy(net))
    check(f, DSM(), Pictures(), net, plain_dsm(net, Pictures(), batch=BATCH, lr=LR))
