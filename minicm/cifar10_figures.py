"""The figures of a CIFAR-10 run: sheets of samples, one trajectory, and the training pictures nearest to some samples."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicm.data.cifar10 import CLASSES
from minicm.denoiser import Denoiser
from minicm.evaluate.pictures import few_steps, many_steps, noise
from minicm.metrics.consistency import time_grid
from minicm.metrics.images import Reference
from minicm.plots.images import along_a_trajectory, few_step_samples, nearest_training, picture_rows
from minicm.sampling import LEVELS
from minicm.schedules import Denoise

SEED = 7  # of the noise that is drawn for figures


ROWS = 6  # of a teacher's sheet


def draw_teacher(out: Path, model: Denoise, reference: Reference, about: str) -> None:
    """OUT/samples.png, one column a class, and OUT/nearest.png."""
    x_T, label = by_class(model, ROWS, reference)
    x = many_steps(model, x_T, label)
    rows = {f"noise {i + 1}": part for i, part in enumerate(x.split(len(CLASSES)))}
    save(picture_rows(rows, f"{about}: a diffusion teacher, 40 Heun steps", CLASSES), out / "samples.png")
    save(nearest_figure(x[: len(CLASSES)], reference), out / "nearest.png")


def draw_student(out: Path, model: Denoise, teacher: Denoiser | None, reference: Reference, about: str) -> None:
    """OUT/samples.png at 1, 2, 4 steps beside the teacher's, OUT/trajectory.png, OUT/nearest.png; without a teacher less."""
    x_T, label = by_class(model, 1, reference)
    x = {steps: few_steps(model, x_T, label, steps) for steps in LEVELS}
    if teacher is None:
        rows = {f"{steps} step" + "s" * (steps > 1): part for steps, part in x.items()}
        save(picture_rows(rows, f"{about}: no teacher", CLASSES), out / "samples.png")
    else:
        title = f"{about}: from one noise a column, the classes in order"
        save(few_step_samples(x, many_steps(teacher, x_T, label), label, title), out / "samples.png")
        times = time_grid(teacher.schedule, 40).flip(0)
        save(along_a_trajectory(model, teacher, x_T[:1], times, label=label[:1]), out / "trajectory.png")
    save(nearest_figure(x[1], reference), out / "nearest.png")


def by_class(model: Denoise, rows: int, reference: Reference) -> tuple[Tensor, Tensor]:
    """Noise for `rows` pictures of every class, x_T (10 rows, 3, 32, 32), and the classes, in order."""
    device = reference.train.device
    x_T, _ = noise(model.schedule, rows * len(CLASSES), SEED, str(device))
    return x_T, torch.arange(len(CLASSES), device=device).repeat(rows)


def nearest_figure(x: Tensor, reference: Reference) -> Figure:
    """Some samples above the training pictures nearest to them."""
    return nearest_training(x.clamp(-1, 1), reference.train)


def save(figure: Figure, path: Path) -> None:
    """Write a figure."""
    figure.savefig(path)
