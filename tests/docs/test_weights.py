"""The small weights that are shipped for the notebooks: loadable, small, and digits come out of them in one step."""

from pathlib import Path

import pytest
import torch

from minicm.checkpoint import load_checkpoint, load_trained
from minicm.data.digits import Digits
from minicm.evaluate.pictures import few_steps, many_steps, start
from minicm.metrics.images import nearest
from minicm.recipes.digits import diffusion_model

WEIGHTS = Path(__file__).parents[2] / "notebooks" / "weights"


@pytest.mark.parametrize("name, kind", [("digits-teacher", "diffusion"), ("digits-cd", "consistency")])
def test_shipped_weights_are_small_and_the_average_alone(name, kind):
    path = WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size < 1_000_000
    found = load_trained(path)
    assert (found.kind, found.data, found.shape, found.decoder) == (kind, "digits", (1, 8, 8), None)
    tensors = [key for key, value in load_checkpoint(path).items() if isinstance(value, torch.Tensor)]
    assert {key.split("/")[0] for key in tensors} == {"ema"}


def test_shipped_weights_draw_the_digits_that_are_asked_for():
    """Judged by the label of the nearest training picture, which is right for 99 % of the held-out digits."""
    f = load_trained(WEIGHTS / "digits-cd.safetensors").model
    teacher = diffusion_model(WEIGHTS / "digits-teacher.safetensors")
    x_T, label = start(f.schedule, (1, 8, 8), 300, seed=11)
    train, x = Digits(), few_steps(f, x_T, label, 1)
    agreement = (train.labels[nearest(x, train.images)[1]] == label).double().mean().item()
    assert agreement > 0.85  # measured: .96, which 300 draws scatter by .011
    drawn = many_steps(teacher, x_T[:50], label[:50], steps=18)
    error = (drawn - x[:50]).square().mean().sqrt() / f.sigma_data
    assert error < 0.3  # measured: .13
