"""What `minicm evaluate` reports of a model of CIFAR-10: measures of its pictures beside what the test pictures score.

The Frechet distance is on the features of a small classifier trained here on the real pictures, and no FID; FID itself is
the same call with `minicm.metrics.inception` where its weights are at hand.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from minicm.checkpoint import load_checkpoint, load_model
from minicm.data.cifar10 import Cifar10
from minicm.metrics.images import Reference
from minicm.recipes.evaluate import Row
from minicm.recipes.evaluate_images import (
    class_reference,
    evaluate_pictures,
    evaluate_teacher_pictures,
    start,
)
from minicm.recipes.run import is_teacher
from minicm.schedules import Schedule

SHAPE = (3, 32, 32)


def cifar10_reference(
    data: Path, device: str, *, steps: int = 3000, held_out: int = 5000, width: int = 64
) -> Reference:
    """What CIFAR-10 is measured against: all training pictures, `held_out` test pictures, a classifier of `steps` updates."""
    train, test = Cifar10(data, device=device), Cifar10(data, train=False, device=device)
    pictures = [(d.images.float().div_(127.5).sub_(1), d.labels) for d in (train, test)]
    kept = (part[:held_out] for part in pictures[1])
    return class_reference(
        *pictures[0], *kept, classes=Cifar10.classes, width=width, stages=3, flips=True, steps=steps
    )


def noise(schedule: Schedule, n: int, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """The noises x_T (n, 3, 32, 32) and classes (n,) that a student and its teacher start from, on a device."""
    x_T, label = start(schedule, SHAPE, n, seed)
    return x_T.to(device), label.to(device)


def evaluate_run(path: Path, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """All measures of a run's pictures, on a GPU if there is one; a student that takes a guidance scale gets w = 1.

    The pictures are read from where the run read them. The classifier is trained anew each time, a smaller one where there
    is no GPU, in some minutes: compare the rows of one report, not those of two.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    state, model = load_checkpoint(path), load_model(path).to(device)
    less = {} if device == "cuda" else {"steps": 1000, "width": 32, "held_out": 1000}
    reference = cifar10_reference(Path(state["options"]["source"]["data"]), device, **less)
    x_T, label = noise(model.schedule, n, seed, device)
    if is_teacher(state):
        return evaluate_teacher_pictures(model, reference, x_T, label)
    w = 1.0 if model.net.options["guidance"] else None
    return evaluate_pictures(model, reference, x_T, label, w=w)
