"""What `minicm evaluate` reports of a model of the digits: measures of its pictures beside what held-out digits score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from minicm.checkpoint import load_checkpoint, load_model
from minicm.data.digits import Digits
from minicm.denoiser import Denoiser, in_clock
from minicm.metrics.images import Reference
from minicm.recipes.digits_latent import autoencoder_of
from minicm.recipes.evaluate import Row
from minicm.recipes.evaluate_images import (
    Decode,
    against_its_teacher,
    class_reference,
    evaluate_pictures,
    evaluate_teacher_pictures,
    start,
)
from minicm.recipes.run import is_teacher

PAIRS = 500  # samples that a student is held against its teacher on, 40 Heun steps each


@dataclass(frozen=True)
class Trained:
    """A trained model of the digits, and how its samples become pictures."""

    model: Denoiser
    shape: tuple[int, int, int]  # of a sample
    decode: Decode  # samples (n, *shape) -> pictures (n, 1, 8, 8)


def trained(path: Path, options: dict[str, Any] | None = None) -> Trained:
    """The model of a digits run. Raises CheckpointError where it, or the autoencoder that it needs, is not there."""
    options = load_checkpoint(path).get("options", {}) if options is None else options
    model = load_model(path)
    if "autoencoder" not in options:
        return Trained(model, (1, 8, 8), lambda x: x)
    return Trained(model, (2, 4, 4), autoencoder_of(Path(options["autoencoder"])).decode)


@cache
def digits_reference() -> Reference:
    """What digits are measured against; trains a classifier on the real ones, in some 10 seconds, once a process."""
    train, held_out = Digits(), Digits(train=False)
    return class_reference(
        train.images, train.labels, held_out.images, held_out.labels, classes=Digits.classes
    )


def evaluate_run(path: Path, *, n: int = 2000, seed: int = 0, w: float | None = None) -> list[Row]:
    """All measures of a run's pictures; of a student beside the distance to its own teacher, where that is at hand.

    w: the guidance scale, of a teacher's flow or of a student that takes one; that of its training where there is one,
    else none. Raises ValueError for a student without such an input.
    """
    state = load_checkpoint(path)
    options = state.get("options", {})
    run, reference = trained(path, options), digits_reference()
    x_T, label = start(run.model.schedule, run.shape, n, seed)
    if is_teacher(state):
        return evaluate_teacher_pictures(run.model, reference, x_T, label, decode=run.decode, w=w or 0.0)
    if w is not None and not run.model.net.options["guidance"]:
        raise ValueError(f"w = {w:g}: this model takes no guidance scale, leave --w out")
    w = options.get("w") if w is None else w
    rows = evaluate_pictures(run.model, reference, x_T, label, decode=run.decode, w=w)
    return rows + against(run.model, options, x_T, label, w)


def against(f: Denoiser, options: dict[str, Any], x_T: Tensor, label: Tensor, w: float | None) -> list[Row]:
    """A student against the teacher that its run names; nothing where that is none or gone."""
    path = Path(options.get("teacher") or "")
    if not options.get("teacher") or not path.exists():
        return []
    teacher = load_model(path)
    if teacher.schedule != f.schedule:
        teacher = in_clock(teacher, f.schedule)
    return against_its_teacher(f, teacher, x_T[:PAIRS], label[:PAIRS], w=w)
