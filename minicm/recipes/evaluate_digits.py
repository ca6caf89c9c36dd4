"""What `minicm evaluate` reports of a model of the digits: measures of its pictures beside what held-out digits score."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from minicm.checkpoint import load_checkpoint, load_model
from minicm.data.digits import Digits
from minicm.denoiser import Denoiser, in_clock
from minicm.metrics.images import Reference
from minicm.recipes.evaluate import Row
from minicm.recipes.evaluate_images import (
    against_its_teacher,
    class_reference,
    evaluate_pictures,
    evaluate_teacher_pictures,
    start,
)
from minicm.recipes.run import is_teacher
from minicm.recipes.trained import trained
from minicm.schedules import Denoise

PAIRS = 500  # samples that a student is held against its teacher on, 40 Heun steps each


@cache
def digits_reference() -> Reference:
    """What digits are measured against; trains a classifier on the real ones, in some 10 seconds, once a process."""
    train, held_out = Digits(), Digits(train=False)
    return class_reference(
        train.images, train.labels, held_out.images, held_out.labels, classes=Digits.classes
    )


def evaluate_run(path: Path, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """All measures of a run's pictures; of a student beside the distance to its own teacher, where that is at hand.

    A student that takes a guidance scale is measured at w = 0 and at w = 1, one that was trained at one scale at that.
    """
    state, run = load_checkpoint(path), trained(path)
    options, reference = state.get("options", {}), digits_reference()
    x_T, label = start(run.model.schedule, run.shape, n, seed)
    if is_teacher(state):
        return evaluate_teacher_pictures(run.model, reference, x_T, label, decode=run.decode)
    takes_w = state["model"]["options"]["guidance"]
    scales: tuple[float | None, ...] = (0.0, 1.0) if takes_w else (options.get("w"),)
    rows = []
    for w in scales:
        found = evaluate_pictures(run.model, reference, x_T, label, decode=run.decode, w=w)
        found += against(run.model, options, x_T, label, w)
        rows += found if len(scales) == 1 else [replace(row, name=f"w = {w:g}, {row.name}") for row in found]
    return rows


def against(f: Denoiser, options: dict[str, Any], x_T: Tensor, label: Tensor, w: float | None) -> list[Row]:
    """A student against the teacher that its run names; nothing where that is none or gone."""
    path = Path(options.get("teacher") or "")
    if not options.get("teacher") or not path.exists():
        return []
    teacher = load_model(path)
    guide: Denoise = teacher if teacher.schedule == f.schedule else in_clock(teacher, f.schedule)
    return against_its_teacher(f, guide, x_T[:PAIRS], label[:PAIRS], w=w)
