"""The training loop: one generator for every objective, from two dimensions to CIFAR-10."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from minicm.ema import ema_update, frozen_copy
from minicm.objectives.base import Objective


class Data(Protocol):
    """Anything that draws (x0, label) on its generator's device."""

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """n samples x0 (n, *D) and their labels (n,), or None where there are none."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train; a field with no default has none that fits every task."""

    steps: int  # updates, the K of the curricula
    batch: int  # samples an update
    lr: float  # peak learning rate
    warmup: int = 100  # updates of linear warm-up
    final_lr: float = 0.0  # share of lr at the end of the cosine decay; 1 for none
    beta1: float = 0.9  # Adam's average of gradients
    beta2: float = 0.99  # Adam's average of their squares
    clip: float | None = None  # largest gradient norm; None for no clipping
    ema: float = 0.999  # decay of the evaluation average
    radam: bool = False  # the consistency papers' RAdam in place of Adam
    seed: int = 0  # of data and draws
    device: str = "cpu"  # "cuda" for a GPU

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        for name in ("final_lr", "beta1", "beta2", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")

    def lr_at(self, k: int) -> float:
        """The learning rate of update k (0-based): linear warm-up times a half cosine down to final_lr."""
        warm = min(1.0, (k + 1) / self.warmup) if self.warmup else 1.0
        cosine = (1 + math.cos(math.pi * k / self.steps)) / 2
        return self.lr * warm * (self.final_lr + (1 - self.final_lr) * cosine)


@dataclass(frozen=True)
class Step:
    """What one update leaves behind; `state()` is all that a resumed run needs."""

    k: int  # updates done
    loss: Tensor  # mean over the batch, detached; on a GPU, reading it waits for the update
    f: nn.Module  # trained
    f_target: nn.Module  # theta-minus
    ema: nn.Module  # evaluation average
    state: Callable[[], dict[str, Any]]  # call it before the next update


class Diverged(RuntimeError):
    """A loss or gradient that is not finite; the weights are those before the update where that is known."""


def train(
    f: nn.Module, objective: Objective, data: Data, config: TrainConfig, resume: dict[str, Any] | None = None
) -> Iterator[Step]:
    """Train f and yield a Step after each update.

    CM, arXiv:2303.01469, Algorithms 2 and 3. resume: the `state()` of a run of the same model, objective and
    config; the resumed run gives bit for bit the weights of one that never stopped.
    Raises ValueError at once for a device that is not there or a state that does not fit, and at the step for empty
    data; Diverged where a loss is not finite.
    """
    device = _device(config.device)
    f, objective = f.to(device).train(), objective.to(device)
    f_target, ema = frozen_copy(f).train(), frozen_copy(f).eval()
    models = {"f": f, "f_target": f_target, "ema": ema, "objective": objective}
    optimiser = _optimiser(f, objective, config)
    generator = torch.Generator(device).manual_seed(config.seed)
    start = 0 if resume is None else _restore(resume, models, optimiser, generator, config)
    return _updates(models, optimiser, generator, data, config, start)


def _updates(
    models: dict[str, Any],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    data: Data,
    config: TrainConfig,
    start: int,
) -> Iterator[Step]:
    """The loop itself, from update `start` on."""
    f, f_target, ema, objective = models.values()
    for k in range(start, config.steps):
        x0, label = data.sample(config.batch, generator)
        if len(x0) == 0:
            raise ValueError(f"the data are empty: {config.batch} samples were asked for, none came")
        loss = objective(f, f_target, x0, label, k, config.steps, generator).mean()
        _descend(loss, x0, optimiser, config, k)
        ema_update(f_target, f, objective.target_decay(k, config.steps))
        ema_update(ema, f, config.ema)
        state = partial(_state, k + 1, models, optimiser, generator, config)
        yield Step(k + 1, loss.detach(), f, f_target, ema, state)


def _descend(loss: Tensor, x0: Tensor, optimiser: torch.optim.Optimizer, config: TrainConfig, k: int) -> None:
    optimiser.zero_grad()
    loss.backward()
    group = optimiser.param_groups[0]
    norm = nn.utils.clip_grad_norm_(group["params"], math.inf if config.clip is None else config.clip)
    look = loss.device.type == "cpu" or (k + 1) % 100 == 0  # a look waits for the GPU
    if look and not (loss.detach() + norm).isfinite():
        cause = "the gradient" if loss.isfinite() else "the loss" if x0.isfinite().all() else "the data"
        raise Diverged(
            f"{cause} is not finite at step {k + 1} of {config.steps}: lower lr (now {config.lr:g}), clip, or check the data"
        )
    group["lr"] = config.lr_at(k)
    optimiser.step()


def _optimiser(f: nn.Module, objective: Objective, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [p for p in (*f.parameters(), *objective.parameters()) if p.requires_grad]
    if not parameters:
        raise ValueError("f has no weights that require a gradient: nothing to train")
    betas = (config.beta1, config.beta2)
    if config.radam:
        return torch.optim.RAdam(parameters, lr=config.lr, betas=betas)
    return torch.optim.Adam(parameters, lr=config.lr, betas=betas, fused=True)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device "{name}" is not there ({str(error).splitlines()[0]}): use "cpu"') from None
    return device


def _state(
    k: int,
    models: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    config: TrainConfig,
) -> dict[str, Any]:
    """Everything a resumed run needs, flat: tensors, and plain values for the header."""
    state: dict[str, Any] = {"k": k, "config": asdict(config), "generator": generator.get_state()}
    for name, model in models.items():
        state |= {f"{name}/{key}": value.detach().clone() for key, value in model.state_dict().items()}
    for i, slots in optimiser.state_dict()["state"].items():
        state |= {f"optimiser/{i}/{key}": value.detach().clone() for key, value in slots.items()}
    return state


def _restore(
    state: dict[str, Any],
    models: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    config: TrainConfig,
) -> int:
    """Put a state back; returns the number of updates it has seen. Raises ValueError if it does not fit."""
    now = asdict(config)
    for name, then in state.get("config", {}).items():
        if name != "device" and now.get(name) != then:
            raise ValueError(
                f"the checkpoint was trained with {name} = {then}, this run has {name} = {now.get(name)}"
            )
    try:
        for name, model in models.items():
            model.load_state_dict(_part(state, f"{name}/"))
        packed, slots = optimiser.state_dict(), _part(state, "optimiser/")
        for key, value in slots.items():
            i, slot = key.split("/")
            packed["state"].setdefault(int(i), {})[slot] = value.clone()  # the optimiser works in place
        optimiser.load_state_dict(packed)
        generator.set_state(state["generator"])
        return int(state["k"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"the checkpoint does not fit this model: {str(error).splitlines()[0]}") from None


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
