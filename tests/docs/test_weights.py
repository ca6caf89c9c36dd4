"""The small weights that are shipped for the notebooks: loadable, small, and digits come out of them in one step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minicm.checkpoint import load_checkpoint, load_model
from minicm.data.digits import Digits
from minicm.evaluate.pictures import few_steps, many_steps, start
from minicm.metrics.images import nearest
from minicm.recipes.digits import diffusion_model

WEIGHTS = Path(__file__).parents[2] / "notebooks" / "weights"


@pytest.mark.parametrize("name", ["digits-teacher", "digits-cd"])
def test_shipped_weights_are_small_and_the_average_alone(name):
    path = WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size < 1_000_000
    state = load_checkpoint(path)
    assert state["recipe"] == name
    assert {key.split("/")[0] for key, value in state.items() if isinstance(value, torch.Tensor)} == {"ema"}


def test_shipped_weights_draw_the_digits_that_are_asked_for():
    """Judged by the label of the nearest training picture, which is right for 99 % of the held-out digits."""
    f = load_model(WEIGHTS / "digits-cd.safetensors")
    teacher = diffusion_model(WEIGHTS / "digits-teacher.safetensors")
    x_T, label = start(f.schedule, (1, 8, 8), 300, seed=11)
    train, x = Digits(), few_steps(f, x_T, label, 1)
    agreement = (train.labels[nearest(x, train.images)[1]] == label).double().mean().item()
    assert agreement > 0.85  # measured: .96, which 300 draws scatter by .011
    drawn = many_steps(teacher, x_T[:50], label[:50], steps=18)
    error = (drawn - x[:50]).square().mean().sqrt() / f.sigma_data
    assert error < 0.3  # measured: .13
