"""Figures about training: curricula, loss curves, and who is who among the four models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from minicm.plots.style import learned, new_figure, styled
from minicm.times import ct_decay, ct_points, doubling_points, ect_gap, karras_grid

Point = tuple[float, float]


@styled
def curricula(K: int = 100_000) -> Figure:
    """N(k) of CT and iCT, mu(k) of CT, and how far apart ECT's two times are, stage by stage; K steps in all.

    Look at how all bring the two times of a training pair together as training advances, each in its way: CT smoothly,
    iCT by doubling N at equal intervals, ECT by halving 1 - s/t. ECT's stage 0 has s = 0, 1 - s/t = 1, for most times.
    The middle: CT's target follows f ever more slowly, while iCT's and ECT's is f itself, 1 - mu = 1.
    """
    figure, axes = new_figure(1, 3, 3.4, "As training advances, the two times of a pair draw together")
    points, decay, gap = axes[0]
    k = np.linspace(0, K - 1, 400).astype(int)
    points.plot(k / K, [ct_points(j, K) for j in k], label="CT", **_line(0))
    points.plot(k / K, [doubling_points(j, K) for j in k], label="iCT", **_line(1))
    points.set(yscale="log", xlabel="share of training $k/K$", ylabel="grid points $N(k)$", title="grid")
    points.legend()
    decay.plot(k / K, [1 - ct_decay(j, K) for j in k], label="CT", **_line(0))
    decay.plot(k / K, np.ones(len(k)), label="iCT, ECT", **_line(1))
    decay.set(yscale="log", xlabel="share of training $k/K$", ylabel=r"$1 - \mu(k)$", title="target follows by")
    decay.legend(loc="center right")
    _ect_stages(gap)
    return figure


@styled
def losses(runs: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """Loss against training step, one line a run; runs: name -> (steps, losses). A running median over the raw values.

    Look, but do not judge by it: the loss of a consistency model compares the model with itself. A wrong grid or a
    frozen target have the lowest losses of all. `error_against_time` tells whether a run is good.
    """
    figure, ((ax,),) = new_figure(1, 1, 4, "Training loss (it does not tell how good the model is)")
    for i, (name, (steps, values)) in enumerate(runs.items()):
        raw = np.asarray(values, dtype=float)
        style = learned(i)
        ax.plot(steps, raw, color=style["color"], alpha=0.25, linewidth=0.8)
        every = max(len(raw) // 10, 1)
        ax.plot(steps, _running_median(raw), label=name, markevery=(i * every // 4, every), **style)
    ax.set(yscale="log", xlabel="training step $k$", ylabel="loss")
    ax.legend()
    return figure


@styled
def roles(teacher: bool = True) -> Figure:
    """The models of consistency training, and what happens to each: trained, frozen, copied, averaged.

    Look at the arrows into f: gradients reach no other box. With teacher=True this is distillation (CD), with False
    training from data (CT), where there is no teacher at all. f_target is not the teacher, and ema never feeds back.
    """
    title = "Distillation (CD): four models" if teacher else "Training from data (CT): three models, no teacher"
    figure, ((ax,),) = new_figure(1, 1, 4.4, title)
    ax.set(xlim=(0, 16), ylim=(0.4, 7.4))
    ax.axis("off")
    _box(ax, 2.4, 1.8, "data", r"$x_t = x_0 + t\,\epsilon$", dash=":")
    _box(ax, 8.2, 6, "f_target", r"$\theta^-$: slow copy of $f$" + "\nno gradient", dash="--")
    _box(ax, 8.2, 1.8, "f", r"$\theta$: trained" + "\nby gradient", fill="0.85", line=3)
    _box(ax, 13.6, 1.8, "ema", "average of $f$\nfor sampling", dash="--")
    if teacher:
        _box(ax, 2.4, 6, "teacher", "diffusion model\nfrozen", dash="--")
        _arrow(ax, (2.4, 3), (2.4, 4.8), "$x_t$")
        _arrow(ax, (4.6, 6), (6, 6), "$x_s$")
    else:
        _arrow(ax, (2.4, 3), (6, 6), r"$x_s = x_0 + s\,\epsilon$, the same $\epsilon$", at=(3.4, 6.4), bend=True)
    _arrow(ax, (4.6, 1.8), (6, 1.8), "$x_t$")
    _arrow(ax, (7.4, 4.8), (7.4, 3), "loss compares\n" + r"$f(x_t, t)$ with $f_\mathrm{target}(x_s, s)$", side=-1)
    _arrow(ax, (9, 3), (9, 4.8), "after each step\n" + r"$\theta^- \leftarrow \mu\,\theta^- + (1-\mu)\,\theta$")
    _arrow(ax, (10.4, 1.8), (11.4, 1.8), "")
    return figure


def _ect_stages(ax: Axes) -> None:
    t = karras_grid(200)
    stages = (0, 1, 2, 3, 5, 7)
    for stage, shade in zip(stages, np.linspace(0.7, 0, len(stages)), strict=True):
        gap = (1 - ect_gap(t, stage) / t).numpy()
        ax.plot(t, gap, color=str(shade))
        ax.text(110, gap[-1], f"{stage}", va="center", fontsize=9)
    ax.set(xscale="log", yscale="log", xlabel="later time $t$", ylabel="$1 - s/t$", title="ECT, stages 0 to 7")


def _line(i: int) -> dict:
    return {key: value for key, value in learned(i).items() if key != "marker"}


def _running_median(values: np.ndarray) -> np.ndarray:
    """Over a fiftieth of the run to either side."""
    reach = max(len(values) // 50, 1)
    return np.array([np.median(values[max(i - reach, 0) : i + reach + 1]) for i in range(len(values))])


def _box(
    ax: Axes, x: float, y: float, name: str, text: str, dash: str = "-", fill: str = "w", line: float = 1.8
) -> None:
    width, height = 4.4, 2.4
    look: dict[str, Any] = {"facecolor": fill, "edgecolor": "black", "linestyle": dash, "linewidth": line}
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.3", **look))
    ax.text(x, y + 0.7, name, ha="center", va="center", family="monospace", fontsize=13, weight="bold")
    ax.text(x, y - 0.4, text, ha="center", va="center")


def _arrow(
    ax: Axes, start: Point, end: Point, text: str, at: Point | None = None, side: int = 1, bend: bool = False
) -> None:
    """An arrow with its text above, beside it (to the right, or for side = -1 to the left), or at a given place."""
    look: dict[str, Any] = {"arrowstyle": "-|>", "linewidth": 1.8, "color": "black", "shrinkA": 0, "shrinkB": 0}
    if bend:
        look["connectionstyle"] = "angle,angleA=90,angleB=0"
    ax.annotate("", xy=end, xytext=start, arrowprops=look)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    upright = start[0] == end[0]
    align = "center" if not upright else "left" if side > 0 else "right"
    x, y = at or ((x + 0.25 * side, y) if upright else (x, y + 0.35))
    ax.text(x, y, text, ha=align, va="center")
