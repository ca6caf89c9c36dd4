"""Exponential averages of weights: theta_minus in training, and the average that samples are drawn with."""

import copy
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def frozen_copy(model: Model) -> Model:
    """A copy of a model that no gradient reaches: where a target or an average starts. Compiled parts are so again."""
    kept = copy.deepcopy(model).requires_grad_(False)
    for ours, theirs in zip(kept.modules(), model.modules(), strict=True):
        if theirs._compiled_call_impl is not None:  # a copy forgets Module.compile()
            ours.compile()
    return kept


def power_decay(k: int, gamma: float = 6.94) -> float:
    """The decay of update k = 1, 2, ... that makes an average in which update i weighs as i^gamma.

    EDM2, arXiv:2312.02696, section 3.1, the power-function average; 6.94 is its width of .10: the weights are 11 % of the
    training old on average, however long that is. The first decay is 0, so the weights of the start weigh nothing.
    """
    return (1 - 1 / k) ** (gamma + 1)


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) model in place (CM, arXiv:2303.01469, Eq. 8); buffers are copied.

    decay = 0 copies the model. Raises ValueError outside [0, 1].
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"an average's decay must lie in [0, 1], got {decay}")
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for kept, now in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(now)
