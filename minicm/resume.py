"""What a resumed run needs: all of a training as one flat dict, and putting it back bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def state_of(
    k: int,
    models: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    config: dict[str, Any],
) -> dict[str, Any]:
    """Everything a resumed run needs after k updates, flat: tensors, and plain values for the header."""
    state: dict[str, Any] = {"k": k, "config": config, "generator": generator.get_state()}
    for name, model in models.items():
        state |= {f"{name}/{key}": value.detach().clone() for key, value in model.state_dict().items()}
    for i, slots in optimiser.state_dict()["state"].items():
        state |= {f"optimiser/{i}/{key}": value.detach().clone() for key, value in slots.items()}
    return state


def restore(
    state: dict[str, Any],
    models: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    config: dict[str, Any],
) -> int:
    """Put a state back; returns the number of updates it has seen. Raises ValueError if it does not fit."""
    for name, then in state.get("config", {}).items():
        if name != "device" and config.get(name) != then:
            raise ValueError(
                f"the checkpoint was trained with {name} = {then}, this run has {name} = {config.get(name)}"
            )
    try:
        for name, model in models.items():
            model.load_state_dict(_part(state, f"{name}/"))
        packed, slots = optimiser.state_dict(), _part(state, "optimiser/")
        parameters = optimiser.param_groups[0]["params"]
        for key, value in slots.items():
            i, slot = key.split("/")
            like = None if slot == "step" else parameters[int(i)]
            packed["state"].setdefault(int(i), {})[slot] = _laid_out(value, like)
        optimiser.load_state_dict(packed)
        generator.set_state(state["generator"])
        return int(state["k"])
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        # torch's first line says only that something is wrong, its second what
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise ValueError(f"the checkpoint does not fit this model: {reason}") from None


def _laid_out(value: Tensor, like: Tensor | None) -> Tensor:
    """A copy (the optimiser works in place) laid out in memory as its parameter is: fused Adam goes by position."""
    return value.clone() if like is None else torch.empty_like(like).copy_(value)


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
