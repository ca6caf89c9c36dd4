"""How good a model of the digits is: measures of its pictures, each beside what held-out digits score."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from minicm.data.digits import Digits
from minicm.denoiser import guided
from minicm.metrics.consistency import paired_error, rms, time_grid
from minicm.metrics.images import Reference, measure_images
from minicm.nets.classifier import Classifier
from minicm.recipes.evaluate import LEVELS, Row, sampling_times
from minicm.recipes.fit import fit
from minicm.sampling import sample
from minicm.schedules import Schedule
from minicm.solvers import solve

Decode = Callable[[Tensor], Tensor]  # latents (or pixels) -> pictures


@cache
def digits_reference() -> Reference:
    """What digits are measured against; trains a classifier on the real ones, in some 10 seconds, once a process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Classifier(1, Digits.classes)

    def loss(x0: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
        down, right = torch.randint(3, (2,), generator=generator).tolist()
        moved = F.pad(x0, (1, 1, 1, 1), value=-1.0)[:, :, down : down + 8, right : right + 8]
        noisy = moved + 0.2 * torch.randn(x0.shape, generator=generator)
        return F.cross_entropy(net(noisy), label, reduction="none")

    net = fit(net, loss, Digits(dequantise=True), steps=600)
    train, held_out = Digits(), Digits(train=False)
    return Reference(train.images, held_out.images, held_out.labels, net, net.features)


def start(schedule: Schedule, shape: tuple[int, ...], n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The noises x_T (n, *shape) and classes (n,) from which a model and its teacher are compared."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(Digits.classes, (n,), generator=generator)
    return schedule.prior((n, *shape), generator), label


def few_steps(
    f: Callable, x_T: Tensor, label: Tensor, steps: int, *, w: float | None = None, seed: int = 0
) -> Tensor:
    """Samples of a consistency model in 1, 2 or 4 steps; w: guidance, for a model that has this input."""
    cond = {} if w is None else {"w": torch.full((len(x_T),), w)}
    generator = torch.Generator().manual_seed(seed)
    return sample(f, x_T, sampling_times(f.schedule, steps), generator=generator, label=label, **cond)


def many_steps(teacher: Callable, x_T: Tensor, label: Tensor, *, w: float = 0.0, steps: int = 40) -> Tensor:
    """Samples of a teacher in 40 Heun steps, its guided flow where w > 0 (LCM's convention)."""
    schedule = teacher.schedule
    times = torch.cat([time_grid(schedule, steps).flip(0), torch.zeros(1, dtype=torch.float64)])
    parts = []
    for x, c in zip(x_T.split(500), label.split(500), strict=True):
        denoise = guided(teacher, c, w) if w else partial(teacher, label=c)
        parts.append(solve(denoise, schedule, x, times))
    return torch.cat(parts)


def evaluate_digits(
    f: Callable,
    *,
    shape: tuple[int, ...] = (1, 8, 8),
    decode: Decode = lambda x: x,
    w: float | None = None,
    n: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """All measures of a student's pictures at 1, 2 and 4 steps; each of the ten classes is asked for alike."""
    x_T, label = start(f.schedule, shape, n, seed)
    rows = []
    for steps in LEVELS:
        x = decode(few_steps(f, x_T, label, steps, w=w, seed=seed + 1))
        rows += _rows(f"{steps}-step", x, label, seed + 2)
    return rows


def evaluate_digits_teacher(
    teacher: Callable,
    *,
    shape: tuple[int, ...] = (1, 8, 8),
    decode: Decode = lambda x: x,
    w: float = 0.0,
    n: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """The same measures of a teacher's pictures, from the same noise, 40 Heun steps each."""
    x_T, label = start(teacher.schedule, shape, n, seed)
    return _rows("Heun-40", decode(many_steps(teacher, x_T, label, w=w)), label, seed + 2)


def against_digits_teacher(
    f: Callable,
    teacher: Callable,
    *,
    shape: tuple[int, ...] = (1, 8, 8),
    w: float | None = None,
    n: int = 500,
) -> list[Row]:
    """One step of a student against 40 Heun steps of its own teacher, from the same noise; in units of sigma_d."""
    x_T, label = start(f.schedule, shape, n, 0)
    truth = many_steps(teacher, x_T, label, w=w or 0.0)
    error = paired_error(few_steps(f, x_T, label, 1, w=w), truth, f.sigma_data)
    return [Row("1-step RMSE to the teacher", rms(error))]


def _rows(name: str, x: Tensor, label: Tensor, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    measured = measure_images(x, digits_reference(), label=label, generator=generator)
    return [Row(f"{name} {what}", m.value, m.floor.mean, m.floor.std or None) for what, m in measured.items()]
