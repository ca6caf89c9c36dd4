"""How good a model of pictures is: samples in 1, 2, 4 steps and a teacher's in 40, and their measures beside the floors.

The same for digits and CIFAR-10, in pixels and in latents: what differs is the `Reference`, the shape of a sample, and
`decode`, which turns samples into pictures.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minicm.data.cifar10 import Cifar10
from minicm.data.digits import Digits
from minicm.data.points import Points
from minicm.denoiser import Denoiser, Guided
from minicm.metrics.consistency import paired_error, time_grid
from minicm.metrics.images import Reference, measure_images
from minicm.metrics.rows import Row, error_rows
from minicm.nets.classifier import Classifier
from minicm.runs.fit import fit
from minicm.sampling import LEVELS, sample, sampling_times
from minicm.schedules import Denoise, Schedule
from minicm.solvers import solve

Decode = Callable[[Tensor], Tensor]  # latents (or pixels) -> pictures
PART = 500  # pictures that go through a network at once
PAIRS = 500  # samples that a student is held against its teacher on, 40 Heun steps each


# ------------------------------------------------------------------------------------------- samples
def start(
    schedule: Schedule, shape: tuple[int, ...], n: int, seed: int, classes: int = 10, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The noises x_T (n, *shape) and classes (n,), in turn, from which a model and its teacher are compared, on a device.

    The noise is drawn on the CPU, so that it is the same everywhere.
    """
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % classes  # not drawn: the class counts' chance alone moves a Frechet distance
    return schedule.prior((n, *shape), generator).to(device), label.to(device)


def few_steps(f: Denoise, x_T: Tensor, label: Tensor, steps: int, *, w: float | None = None, seed: int = 1) -> Tensor:
    """Samples of a consistency model in 1, 2 or 4 steps; w: guidance, for a model that has this input.

    seed: of the noise of the later steps. It must not be the one that x_T was drawn with, or that very noise comes again.
    """
    generator = torch.Generator(x_T.device).manual_seed(seed)
    times = sampling_times(f.schedule, steps)

    def draw(x: Tensor, c: Tensor) -> Tensor:
        given: dict[str, Any] = {} if w is None else {"w": torch.full((len(x),), w, device=x.device)}
        return sample(f, x, times, generator=generator, label=c, **given)

    return torch.cat([draw(*part) for part in zip(x_T.split(PART), label.split(PART), strict=True)])


def many_steps(teacher: Denoise, x_T: Tensor, label: Tensor, *, w: float = 0.0, steps: int = 40) -> Tensor:
    """Samples of a teacher in 40 Heun steps, its guided flow where w > 0 (LCM's convention)."""
    schedule = teacher.schedule
    times = torch.cat([time_grid(schedule, steps).flip(0), torch.zeros(1, dtype=torch.float64)])

    def draw(x: Tensor, c: Tensor) -> Tensor:
        return solve(Guided(teacher, c, w) if w else partial(teacher, label=c), schedule, x, times)

    return torch.cat([draw(*part) for part in zip(x_T.split(PART), label.split(PART), strict=True)])


# -------------------------------------------------------------------------------------- the measures
def evaluate_pictures(
    f: Denoise,
    reference: Reference,
    x_T: Tensor,
    label: Tensor,
    *,
    decode: Decode = lambda x: x,
    w: float | None = None,
) -> list[Row]:
    """All measures of a student's pictures at 1, 2 and 4 steps from x_T (n, *D), of the classes label (n,)."""
    rows = []
    for steps in LEVELS:
        x = decode(few_steps(f, x_T, label, steps, w=w))
        rows += measured(f"{steps}-step", x, label, reference)
    return rows


def evaluate_teacher_pictures(
    teacher: Denoise, reference: Reference, x_T: Tensor, label: Tensor, *, decode: Decode = lambda x: x
) -> list[Row]:
    """The same measures of a teacher's pictures, 40 Heun steps each, from x_T (n, *D), of the classes label (n,)."""
    return measured("Heun-40", decode(many_steps(teacher, x_T, label)), label, reference)


def against_its_teacher(
    f: Denoiser, teacher: Denoise, x_T: Tensor, label: Tensor, *, w: float | None = None
) -> list[Row]:
    """One step of a student against 40 Heun steps of its own teacher from the same noise, in units of sigma_d."""
    truth = many_steps(teacher, x_T, label, w=w or 0.0)
    error = paired_error(few_steps(f, x_T, label, 1, w=w), truth, f.sigma_data)
    return error_rows("1-step", error, to=" to the teacher")


def measured(name: str, x: Tensor, label: Tensor, reference: Reference) -> list[Row]:
    """Every measure of pictures x (n, C, H, W), asked for as label (n,), each beside its floor."""
    generator = torch.Generator().manual_seed(2)  # not 0 or 1, which the samples' noise came from
    found = measure_images(x, reference, label=label, generator=generator)
    return [replace(row, name=f"{name} {row.name}") for row in found]


# ----------------------------------------------------------------- what pictures are measured against
def class_reference(
    train: Tensor,
    train_label: Tensor,
    held_out: Tensor,
    held_out_label: Tensor,
    *,
    classes: int,
    width: int = 32,  # channels of the classifier's first stage
    stages: int = 2,  # how often it halves height and width: 2 for 8x8, 3 for 32x32
    flips: bool = False,  # whether a mirrored picture is of the same class
    steps: int = 600,  # updates of 128 pictures
) -> Reference:
    """What pictures are measured against, by a classifier trained here on pictures (N, C, H, W) in [-1, 1], labels (N,).

    It sees them moved by a pixel and with noise, so that it knows more than the training pictures by heart. All stays on
    the pictures' device. The unit of its distance is its own: numbers compare only from one and the same classifier.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Classifier(train.shape[1], classes, width=width, stages=stages)

    def loss(x0: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(net(disturbed(x0, flips, generator)), label, reduction="none")

    net = fit(net, loss, Points(train, train_label), steps=steps, device=train.device)
    return Reference(train, held_out, held_out_label, net, net.features)


def disturbed(x: Tensor, flips: bool, generator: torch.Generator) -> Tensor:
    """Pictures (B, C, H, W), all moved by up to a pixel, with noise of .2, half of them mirrored if `flips`."""
    height, width = x.shape[2:]
    down, right = torch.randint(3, (2,), generator=generator, device=generator.device).tolist()
    moved = F.pad(x, (1, 1, 1, 1), mode="replicate")[:, :, down : down + height, right : right + width]
    if flips:
        mirrored = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
        moved = torch.where(mirrored, moved.flip(3), moved)
    return moved + 0.2 * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


@cache
def digits_reference() -> Reference:
    """What digits are measured against; trains a classifier on the real ones, in some 10 seconds, once a process."""
    train, held_out = Digits(), Digits(train=False)
    return class_reference(train.images, train.labels, held_out.images, held_out.labels, classes=Digits.classes)


def cifar10_reference(
    data: Path, device: str, *, steps: int = 3000, held_out: int = 5000, width: int = 64
) -> Reference:
    """What CIFAR-10 is measured against: all training pictures, `held_out` test pictures, a classifier of `steps` updates."""
    train, test = Cifar10(data, device=device), Cifar10(data, train=False, device=device)
    pictures = [(d.images.float().div_(127.5).sub_(1), d.labels) for d in (train, test)]
    kept = (part[:held_out] for part in pictures[1])
    return class_reference(*pictures[0], *kept, classes=Cifar10.classes, width=width, stages=3, flips=True, steps=steps)
