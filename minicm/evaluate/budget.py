"""What a training costs: evaluations of a network, counted from the loss itself, not declared.

A forward pass of one sample is one evaluation, with its gradient three, with a tangent two. What a target and a learned
teacher are called for counts; an exact denoiser is no network.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from minicm.denoiser import Denoiser, InClock
from minicm.ema import frozen_copy
from minicm.runs.run import Recipe

GRADIENT, DERIVATIVE = 3, 2  # passes that a forward pass costs with its backward pass, with its tangent
PROBE = 8  # samples of the one loss that is counted


def steps_within(evaluations: int, recipe: Recipe) -> int:
    """The number of updates that a budget of evaluations allows. Raises ValueError where it is less than one."""
    update = cost(recipe) * recipe.config.batch
    if evaluations < update:
        raise ValueError(f"the budget of {evaluations:,} evaluations is less than one update, {update:,.0f}")
    return int(evaluations / update)


def cost(recipe: Recipe) -> float:
    """Evaluations of a network for each sample of an update; the recipe is left as it was."""
    model, objective = copy.deepcopy(recipe.model), recipe.objective
    generator = torch.Generator().manual_seed(0)
    x0, label = recipe.data.sample(PROBE, generator)
    target = frozen_copy(model)
    with counted(model, target, *_networks(getattr(objective, "teacher", None))) as count:
        objective(model, target, x0, label, 0, recipe.config.steps, generator)
    return count[0] / PROBE


@contextmanager
def counted(*models: Denoiser) -> Iterator[list[float]]:
    """Count what the networks of these models are called for, as the head of this page says."""
    count = [0.0]

    def note(net: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        tangent = forward_ad.unpack_dual(args[0]).tangent is not None
        learning = torch.is_grad_enabled() and any(p.requires_grad for p in net.parameters())
        count[0] += len(out) * (DERIVATIVE if tangent else GRADIENT if learning else 1)

    handles = [model.net.register_forward_hook(note) for model in models]
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()


def _networks(teacher: Any) -> list[Denoiser]:
    """The learned teacher as a model with a .net, or nothing where the teacher is exact or there is none."""
    while isinstance(teacher, InClock):
        teacher = teacher.denoiser
    return [teacher] if isinstance(getattr(teacher, "net", None), nn.Module) else []
