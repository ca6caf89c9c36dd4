"""Figures of pictures: samples at few steps beside the teacher's, one trajectory, and the nearest training pictures."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d

from minicm.denoiser import Denoiser
from minicm.editing import inpaint, interpolate, super_resolve
from minicm.metrics.consistency import noise_level
from minicm.metrics.images import nearest
from minicm.plots.style import array, new_figure, styled
from minicm.schedules import Denoise, expand
from minicm.solvers import solve


def sheet(x: Tensor, title: str = "", columns: int = 10) -> Figure:
    """Pictures (n, C, H, W) in [-1, 1] in rows of `columns`, in their order; the last row may be shorter.

    Look for pictures that are no digits, that come again and again, and for classes that are missing.
    """
    return picture_rows({f"{i + 1} ..": row for i, row in zip(range(0, len(x), columns), x.split(columns))}, title)


@styled
def picture_rows(rows: Mapping[str, Tensor], title: str = "", labels: Sequence[str] = ()) -> Figure:
    """Rows of pictures, each named at its left: name -> (n, C, H, W) in [-1, 1], C = 1 or 3, the same n in all rows.

    Look down the columns: what stands in one column belongs together (the same noise and class, the same picture at
    different noise levels). labels: what stands above each column.
    """
    n = max(len(x) for x in rows.values())
    figure, axes = new_figure(len(rows), 1, 0.45 + 0.9 * len(rows) * min(1.0, 9 / n), title)
    for i, (ax, (name, x)) in enumerate(zip(axes[:, 0], rows.items(), strict=True)):
        strip(ax, x)
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        if i == 0 and labels:
            centres = (np.arange(len(labels)) + 0.5) * (x.shape[-1] + 1) - 1
            ax.xaxis.tick_top()
            ax.set_xticks(centres, labels)
            ax.tick_params(length=0)
    return figure


def few_step_samples(
    students: Mapping[int, Tensor], teacher: Tensor, label: Tensor | None = None, title: str = ""
) -> Figure:
    """Samples at 1, 2, 4 steps, steps -> (n, C, H, W), above the teacher's from the same noise, (n, C, H, W).

    Look down the columns: one step should give the teacher's picture, a little softer; more steps draw new noise, so
    they may give another picture of the same kind, and should be sharper.
    """
    rows = {f"{steps} step" + "s" * (steps > 1): x for steps, x in students.items()}
    names = () if label is None else [str(c) for c in label.tolist()]
    return picture_rows(rows | {"teacher,\n40 Heun steps": teacher}, title, names)


@torch.no_grad()
def along_a_trajectory(
    f: Denoise,
    teacher: Denoiser,
    x_T: Tensor,
    times: Tensor,
    *,
    label: Tensor | None = None,
    decode: Callable[[Tensor], Tensor] = lambda x: x,
    every: int = 4,
) -> Figure:
    """x_t along one trajectory of the teacher's ODE, the teacher's D(x_t, t) and the student's f(x_t, t).

    x_T (1, *D) lives at times[0]; the times decrease, and every `every`-th point is shown. Look along the rows: D, a mean
    over all that x_t may come from, is a blur at the left and becomes a picture; f is the same picture all the way, or
    should be. x_t is scaled to the data's spread.
    """
    points = solve(lambda x, t: teacher(x, t, label=label), teacher.schedule, x_T, times, keep=True)
    shown = range(0, len(times), every)
    x = torch.cat([points[i] for i in shown])
    t = torch.stack([times[i] for i in shown]).to(x.device)
    c = None if label is None else label.expand(len(x))
    rows = {
        "$x_t$": decode(expand(teacher.sigma_data * teacher.c_in(t), x) * x),
        "$D(x_t, t)$,\nteacher": decode(teacher(x, t, label=c)),
        "$f(x_t, t)$,\nstudent": decode(f(x, t.clamp(min=f.t_min), label=c)),
    }
    names = [f"{level:.2g}" for level in noise_level(teacher.schedule, t).tolist()]
    return picture_rows(rows, "Along one trajectory, at noise levels $\\sigma/\\alpha$ from noise to data", names)


def nearest_training(
    x: Tensor, train: Tensor, title: str = "Samples above the training pictures nearest to them"
) -> Figure:
    """Samples (n, C, H, W), and below each the training picture (N, C, H, W) at the smallest pixel distance.

    Look for pairs that are the same picture: those were copied. The number is the distance, in pixel values.
    """
    distance, index = nearest(x, train)
    names = [f"{d:.1f}" for d in distance.tolist()]
    return picture_rows({"sample": x, "nearest\ntraining picture": train[index]}, title, names)


def edited(
    f: Denoise,
    y: Tensor,
    times: Tensor | Sequence[float],
    *,
    label: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Figure:
    """Pictures y (n, C, H, W), H and W even, with a half filled in again and, averaged 2x2, enlarged again.

    Look at the halves that were there: they are the same pixels; and at the seam, which shows how well the new half fits.
    The enlarged picture averages to the small one, but its details are invented: they need not be those of y.
    """
    missing = torch.arange(y.shape[-1], device=y.device) >= y.shape[-1] // 2
    small = avg_pool2d(y, 2)
    rows = {
        "picture": y,
        "half of it": y.masked_fill(missing, -1.0),
        "filled in": inpaint(f, y, missing, times, generator, label=label),
        "averaged 2x2": small.repeat_interleave(2, 2).repeat_interleave(2, 3),
        "enlarged": super_resolve(f, small, 2, times, generator, label=label),
    }
    return picture_rows(rows, "Editing without training: what is known stays, the rest is generated")


def interpolated(f: Denoise, x_a: Tensor, x_b: Tensor, *, label: Tensor | None = None, columns: int = 9) -> Figure:
    """Pictures on the way from f(x_a) to f(x_b), the noises (n, C, H, W) living at t_max; one row a pair.

    Look along each row: every picture between the two should be one by itself, not a mixture of both.
    """
    fractions = torch.linspace(0, 1, columns).tolist()
    path = interpolate(f, x_a, x_b, fractions, label=label)
    rows = {f"pair {i + 1}": path[:, i] for i in range(len(x_a))}
    return picture_rows(rows, "Between two noises, on a sphere", [f"{u:.2g}" for u in fractions])


def strip(ax: Axes, x: Tensor) -> None:
    """Draw pictures (n, C, H, W) in [-1, 1] side by side, ink dark on white where there is one channel."""
    n, channels, height, width = x.shape
    canvas = np.full((height, n * (width + 1) - 1, channels), 1.0 if channels > 1 else -1.0)
    for i, picture in enumerate(array(x.clamp(-1, 1))):
        canvas[:, i * (width + 1) : i * (width + 1) + width] = picture.transpose(1, 2, 0)
    if channels == 1:
        ax.imshow(canvas[..., 0], cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    else:
        ax.imshow((canvas + 1) / 2, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
