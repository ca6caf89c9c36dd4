"""Samples of a trained consistency model, drawn into a file that is never written over."""

from pathlib import Path
from typing import Any

import numpy
import torch

from minicm.checkpoint import Trained, load_trained
from minicm.plots.images import sheet
from minicm.plots.samples import cloud
from minicm.sampling import LEVELS, Counted, sample, sampling_times


def draw(
    checkpoint: Path,
    /,
    *,
    n: int = 1000,
    times: tuple[float, ...] | None = None,
    steps: int = 1,
    gamma: float = 1.0,
    label: int | None = None,
    w: float | None = None,
    seed: int = 0,
    out: Path | None = None,
    plot: bool = False,
) -> None:
    """Draw samples from a consistency model and save them as a .npy file; pictures as a .png of the first 100, too.

    The file holds points (n, dim) or pictures (n, channels, height, width), which lie in [-1, 1].
    Raises ValueError for what is out of range and for a diffusion model, FileExistsError for a file that is there.

    Args:
        checkpoint: a run folder or its checkpoint
        n: number of samples
        times: decreasing sampling times in the model's clock, such as 80 0.8; those of --steps if not given
        steps: 1, 2 or 4, where no times are given
        gamma: from 1, fresh noise at every time (CM), to 0, deterministic
        label: class of the samples, for a model that knows classes; one at random for each sample if not given
        w: guidance scale, for a model that takes one; 0 if not given, one less than Imagen's
        seed: of the noise
        out: where to; samples-NNN.npy beside the checkpoint if not given, never over an existing file
        plot: draw points of the plane as a .png beside it, too; of pictures there is always one
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    run = load_trained(checkpoint)
    if run.kind != "consistency":
        raise ValueError(f"{checkpoint} holds a diffusion model, which one step cannot sample: distil it first")
    if not times and steps not in LEVELS:
        raise ValueError(f"steps must be one of {', '.join(map(str, LEVELS))}, got {steps}: or give --times")
    if plot and not run.pictures and run.shape != (2,):
        raise ValueError(f"samples of shape {run.shape} cannot be drawn in the plane: leave --plot out")
    drawn = plot or run.pictures
    generator = torch.Generator().manual_seed(seed)
    given = conditioning(run, n, label, w, generator)
    f = Counted(run.model)
    chosen = list(times or sampling_times(f.schedule, steps).tolist())
    out = place(out or next_free(checkpoint if checkpoint.is_dir() else checkpoint.parent), drawn)
    x_T = f.schedule.prior((n, *run.shape), generator)
    title = f"{len(chosen)} step" + "s" * (len(chosen) > 1)
    x = run.decode(sample(f, x_T, chosen, gamma, generator=generator, **given))
    with open(out, "xb") as file:  # x: not even a file that came in between is written over
        numpy.save(file, x.numpy(), allow_pickle=False)
    if drawn:
        figure = sheet(x[:100], title) if run.pictures else cloud(x, title)
        figure.savefig(out.with_suffix(".png"))
    print(f"{out}: {n} samples, {f.evaluations} evaluations of the network each")


def conditioning(
    run: Trained, n: int, label: int | None, w: float | None, generator: torch.Generator
) -> dict[str, Any]:
    """What a model is told beside x and t: label (n,), w (n,), as far as it knows them.

    Raises ValueError for a label or a scale that it has no input for, or that is out of range.
    """
    inputs = run.header["model"]["options"]
    classes = inputs["classes"]
    if label is not None and not classes:
        raise ValueError(f"label = {label}: this model knows no classes, leave --label out")
    if label is not None and not 0 <= label < classes:
        raise ValueError(f"label must be one of the classes 0..{classes - 1}, got {label}")
    if w is not None and not inputs["guidance"]:
        raise ValueError(f"w = {w:g}: this model takes no guidance scale, leave --w out")
    if w is not None and not 0 <= w < float("inf"):
        raise ValueError(f"w must be 0 (no guidance) or more, got {w:g}")
    given: dict[str, Any] = {} if w is None else {"w": torch.full((n,), w, dtype=torch.float64)}
    if classes and label is None:
        given["label"] = torch.randint(classes, (n,), generator=generator)
    elif label is not None:
        given["label"] = torch.full((n,), label)
    return given


def place(out: Path, drawn: bool) -> Path:
    """The file to write, once it is clear that nothing lies there, nor where its .png comes to lie."""
    if drawn and out.suffix == ".png":
        raise ValueError(f"{out}: --out names the .npy file, the .png comes to lie beside it")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent} is no folder: make it, or choose another --out")
    for path in (out, out.with_suffix(".png")) if drawn else (out,):
        if path.exists():
            raise FileExistsError(f"{path} exists: choose another --out")
    return out


def next_free(folder: Path) -> Path:
    """folder/samples-NNN.npy with the first number that is free."""
    number = 1
    while (path := folder / f"samples-{number:03d}.npy").exists():
        number += 1
    return path
