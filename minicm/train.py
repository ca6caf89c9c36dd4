"""The training loop: one generator for every objective, from two dimensions to CIFAR-10."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Generic, Protocol

import torch
from torch import Tensor, nn

from minicm.checkpoint import restore, state_of
from minicm.denoiser import Denoiser
from minicm.ema import Model, ema_update, frozen_copy, power_decay
from minicm.objectives.base import Objective
from minicm.parallel import from_first, share, sum_gradients, world
from minicm.schedules import readable


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
    ema: float | None = None  # decay of the evaluation average; None: one that forgets the start, `power_decay`
    radam: bool = False  # the consistency papers' RAdam in place of Adam
    seed: int = 0  # of data and draws
    device: str = "cpu"  # "cuda" for a GPU
    accumulate: int = 1  # parts in which a batch is computed, one after the other, to save memory
    bf16: bool = False  # bfloat16 products inside the networks; weights, averages and all around stay float32
    compile: bool = False  # torch.compile the networks: a minute or two at the start, then faster steps
    channels_last: bool = False  # keep convolutions' weights in the order that tensor cores like

    def __post_init__(self) -> None:
        for names, fits, range_ in (
            ("steps batch accumulate", lambda v: v >= 1, "at least 1"),
            ("warmup", lambda v: v >= 0, "at least 0"),
            ("lr clip", lambda v: 0 < v < math.inf, "positive and finite"),
            ("final_lr ema", lambda v: 0 <= v <= 1, "in [0, 1]"),
            ("beta1 beta2", lambda v: 0 <= v < 1, "in [0, 1)"),
            ("seed", lambda v: -(2**63) <= v < 2**63, "in -2^63..2^63 - 1"),
        ):
            for name in names.split():
                if (value := getattr(self, name)) is not None and not fits(value):
                    raise ValueError(f"{name} must be {range_}, got {value}")
        if self.batch < self.accumulate * world():
            way_out = f"raise batch or lower accumulate (now {self.accumulate}, in {world()} processes)"
            raise ValueError(f"a batch of {self.batch} has no {self.accumulate * world()} parts: {way_out}")

    def lr_at(self, k: int) -> float:
        """The learning rate of update k (0-based): linear warm-up times a half cosine down to final_lr."""
        warm = min(1.0, (k + 1) / self.warmup) if self.warmup else 1.0
        cosine = (1 + math.cos(math.pi * k / self.steps)) / 2
        return self.lr * warm * (self.final_lr + (1 - self.final_lr) * cosine)


@dataclass(frozen=True)
class Step(Generic[Model]):
    """What one update leaves behind; `state()` is all that a resumed run needs."""

    k: int  # updates done
    loss: Tensor  # mean over the batch, detached; on a GPU, reading it waits for the update
    f: Model  # trained
    f_target: Model  # theta-minus
    ema: Model  # evaluation average
    state: Callable[[], dict[str, Any]]  # call it before the next update


class Diverged(RuntimeError):
    """A loss or gradient that is not finite; the weights are those before the update where that is known."""


Parts = tuple[dict[str, Any], torch.optim.Optimizer, torch.Generator]  # all that has a state: the models by name, ...


def train(
    f: Model, objective: Objective, data: Data, config: TrainConfig, resume: dict[str, Any] | None = None
) -> Iterator[Step[Model]]:
    """Train f and yield a Step after each update.

    CM, arXiv:2303.01469, Algorithms 2 and 3. resume: the `state()` of a run of the same model, objective and
    config; the resumed run gives bit for bit the weights of one that never stopped. Where torchrun started several
    processes, each computes its share of every batch; f moves to the config's device, a teacher along with it.
    Raises ValueError at once for a device that is not there or a state that does not fit, and at the step for empty
    data; Diverged where a loss is not finite.
    """
    device = device_named(config.device)
    f, objective = f.to(device).train(), objective.to(device)
    _prepare(f, objective, config, device)
    from_first([f, objective])
    f_target, ema = frozen_copy(f).train(), frozen_copy(f).eval()
    models: dict[str, nn.Module] = {"f": f, "f_target": f_target, "ema": ema, "objective": objective}
    parts = models, _optimiser(f, objective, config), torch.Generator(device).manual_seed(config.seed)
    start = 0 if resume is None else restore(resume, *parts, asdict(config))
    return _updates(parts, data, config, start)


def _prepare(f: nn.Module, objective: Objective, config: TrainConfig, device: torch.device) -> None:
    """Bring the teacher to the device, and the networks of both into the precision and layout asked for."""
    teacher = getattr(objective, "teacher", None)
    models = [f, teacher.to(device)] if isinstance(teacher, nn.Module) else [f]
    for denoiser in (m for model in models for m in model.modules() if isinstance(m, Denoiser)):
        denoiser.autocast = torch.bfloat16 if config.bf16 else denoiser.autocast
        if config.channels_last:
            denoiser.net.to(memory_format=torch.channels_last)
        if config.compile:
            denoiser.net.compile()


def _updates(parts: Parts, data: Data, config: TrainConfig, start: int) -> Iterator[Step]:
    """The loop itself, from update `start` on."""
    models, optimiser, generator = parts
    (f, f_target, ema, objective), settings = models.values(), asdict(config)
    for k in range(start, config.steps):
        x0, label = data.sample(config.batch, generator)
        if k == start:
            _check_batch(x0, config.batch)
        draw = objective.draw(x0, label, k, config.steps, generator)
        optimiser.zero_grad()
        loss = torch.zeros((), device=x0.device, dtype=x0.dtype)
        for rows in share(len(x0), config.accumulate):  # all was drawn at once: the sum is the whole batch's
            part = x0[rows], None if label is None else label[rows], draw[rows]
            losses = objective.loss(f, f_target, *part, k, config.steps).sum() / len(x0)
            losses.backward()
            loss += losses.detach()
        _descend(loss, x0, optimiser, config, k)
        ema_update(f_target, f, objective.target_decay(k, config.steps))
        ema_update(ema, f, power_decay(k + 1) if config.ema is None else config.ema)
        yield Step(k + 1, loss, f, f_target, ema, partial(state_of, k + 1, *parts, settings))


def _check_batch(x0: Tensor, batch: int) -> None:
    if len(x0) == 0:
        raise ValueError(f"the data are empty: {batch} samples were asked for, none came")
    if not x0.is_floating_point():
        raise ValueError(f"the data have dtype {x0.dtype}: give floats, such as pictures in [-1, 1]")


def _descend(loss: Tensor, x0: Tensor, optimiser: torch.optim.Optimizer, config: TrainConfig, k: int) -> None:
    group = optimiser.param_groups[0]
    if world() > 1:
        sum_gradients(loss, group["params"])
    norm = nn.utils.clip_grad_norm_(group["params"], math.inf if config.clip is None else config.clip)
    if (readable(loss) or (k + 1) % 100 == 0) and not (loss + norm).isfinite():  # a look waits for the GPU
        cause = "the gradient" if loss.isfinite() else "the loss" if x0.isfinite().all() else "the data"
        at = f"at step {k + 1} of {config.steps}"
        raise Diverged(f"{cause} is not finite {at}: lower lr (now {config.lr:g}), clip, or check the data")
    group["lr"] = config.lr_at(k)
    optimiser.step()


def _optimiser(f: nn.Module, objective: Objective, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [p for p in (*f.parameters(), *objective.parameters()) if p.requires_grad]
    if not parameters:
        raise ValueError(
            "f has no weights that require a gradient, as averages and loaded models have none: nothing to train; "
            "call f.requires_grad_(True)"
        )
    kind = torch.optim.RAdam if config.radam else partial(torch.optim.Adam, fused=True)
    return kind(parameters, lr=config.lr, betas=(config.beta1, config.beta2))


def device_named(name: str) -> torch.device:
    """The device of a name such as "cpu" or "cuda". Raises ValueError where it is not there."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        torch.Generator(device)  # "meta" has none
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device "{name}" is not there ({str(error).splitlines()[0]}): use "cpu"') from None
    return device
