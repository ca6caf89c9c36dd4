"""What `minicm evaluate` reports of a checkpoint: which measures fit is read from the facts that it states."""

from dataclasses import replace
from pathlib import Path

import torch

from minicm.checkpoint import CheckpointError, Trained, fingerprint, load_model, load_trained
from minicm.data.mixtures import GaussianMixture
from minicm.data.named import NAMES, points_named
from minicm.denoiser import InClock
from minicm.evaluate import guided, pictures, points
from minicm.evaluate.rows import table, with_bands
from minicm.metrics.images import Reference
from minicm.metrics.rows import Row
from minicm.schedules import VP, Denoise


def evaluate(checkpoint: Path, /, *, n: int | None = None, seed: int = 0) -> None:
    """Hold a trained model against the exact answer; one of pictures against pictures that it was not trained on.

    Raises ValueError for n < 2, CheckpointError for a model of data of one's own.

    Args:
        checkpoint: a run folder or its checkpoint
        n: number of samples; 4000 points or 2000 pictures if not given
        seed: of the noise
    """
    if n is not None and n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    run = load_trained(checkpoint)
    rows = evaluate_trained(run, n=n or (2000 if run.pictures else 4000), seed=seed)
    print(table(with_bands(f"{run.header.get('recipe')} {run.data}", rows)))


def evaluate_trained(run: Trained, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """The measures that fit a model: by its samples' shape, its kind, what its network takes and what it learned from.

    Raises CheckpointError for a model of data of one's own, which has nothing to be held against.
    """
    if run.data not in NAMES:
        own = run.data or "data of one's own"
        raise CheckpointError(f"the model was trained on {own}: only one of {', '.join(NAMES)} can be evaluated")
    return of_pictures(run, n, seed) if run.pictures else of_points(run, n, seed)


def of_points(run: Trained, n: int, seed: int) -> list[Row]:
    """Of points; where the network knows classes in the VP clock, against the exact guided flow of each class."""
    f, inputs = run.model, run.header["model"]["options"]
    data = points_named(str(run.data), max(inputs["classes"], 1))
    if run.kind == "diffusion":
        if inputs["classes"] and isinstance(f.schedule, VP) and isinstance(data, GaussianMixture):
            return guided.evaluate_guided_teacher(f, data, n=n, seed=seed)
        return points.evaluate_teacher(f, data, n=n, seed=seed)
    w = own_scale(run)
    if isinstance(data, GaussianMixture) and (inputs["guidance"] or w is not None):
        ws = (0.0, 1.0, 3.0, 8.0) if w is None else (w,)
        towards = 0.0 if run.header["teacher"] is None else None  # trained on data alone, it has seen no guidance
        return guided.evaluate_guided(f, data, ws=ws, n=n, seed=seed, towards=towards)
    if isinstance(data, GaussianMixture) and inputs["second_time"]:
        return guided.evaluate_trajectory(f, data, n=n, seed=seed)
    return points.evaluate(f, data, n=n, seed=seed)


def of_pictures(run: Trained, n: int, seed: int) -> list[Row]:
    """Of pictures, on a GPU if their reference is there; of a student beside its own teacher, where that is at hand.

    A student that takes a guidance scale is measured at w = 0 and at w = 1, one that was trained at one scale at that.
    """
    reference = reference_of(run)
    device = reference.train.device
    f = run.model.to(device)
    x_T, label = pictures.start(f.schedule, run.shape, n, seed, device=device)
    if run.kind == "diffusion":
        return pictures.evaluate_teacher_pictures(f, reference, x_T, label, decode=run.decode)
    teacher = teacher_of(run)
    scales = (0.0, 1.0) if run.header["model"]["options"]["guidance"] else (own_scale(run),)
    rows = []
    for w in scales:
        found = pictures.evaluate_pictures(f, reference, x_T, label, decode=run.decode, w=w)
        if teacher is not None:
            few = slice(pictures.PAIRS)
            found += pictures.against_its_teacher(f, teacher, x_T[few], label[few], w=w)
        rows += found if len(scales) == 1 else [replace(row, name=f"w = {w:g}, {row.name}") for row in found]
    return rows


def reference_of(run: Trained) -> Reference:
    """What pictures are measured against; CIFAR-10 is read from where the run read it, and its classifier made anew.

    That takes some minutes, and a smaller one where there is no GPU: compare the rows of one report, not those of two.
    """
    if run.data == "digits":
        return pictures.digits_reference()
    folder = run.header["options"].get("source", {}).get("data", "data")
    gpu = torch.cuda.is_available()
    less = {} if gpu else {"steps": 1000, "width": 32, "held_out": 1000}
    return pictures.cifar10_reference(Path(folder), "cuda" if gpu else "cpu", **less)


def teacher_of(run: Trained) -> Denoise | None:
    """The teacher that a run names, in the student's clock; None where it is gone or was replaced by another."""
    path = run.header.get("options", {}).get("teacher")
    if path is None or not Path(path).exists():
        return None
    teacher = load_model(path)
    if run.header["teacher"] not in (None, fingerprint(teacher)):
        return None
    teacher = teacher.to(next(run.model.parameters()).device)
    return teacher if teacher.schedule == run.model.schedule else InClock(teacher, run.model.schedule)


def own_scale(run: Trained) -> float | None:
    """The one guidance scale that a student took in while it was trained, where there is one."""
    return run.header.get("options", {}).get("w")
