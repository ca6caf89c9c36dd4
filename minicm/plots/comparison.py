"""Figures of measured numbers: of a comparison of methods, against one option that was varied, and for pairs of times."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator
from torch import Tensor

from minicm.plots.style import EXACT, GREY, array, learned, new_figure, styled

Errors = Mapping[str, Mapping[int, Sequence[float]]]  # method -> sampling steps -> one error a seed
Curves = Mapping[str, Sequence[float]]  # name -> a value at each x


@styled
def comparison(
    errors: Mapping[str, Errors],  # data -> its errors
    *,
    bound: str,  # the method that is no method, but what the network can hold
    floors: Mapping[str, float],  # data -> what an exact denoiser misses in 40 Heun steps
) -> Figure:
    """Median error to the exact answer in 1, 2 and 4 steps, method by method, a panel a mixture.

    Look first how far a method's circle, one step, lies to the right of the dashed line: so much is lost by the algorithm
    at this budget; what lies left of it is the network's. Then whether squares and triangles, two and four steps, lie
    left of the circle. Bars span the seeds.
    """
    methods = list(dict.fromkeys(name for part in errors.values() for name in part))
    height = 1.8 + 0.3 * len(methods)
    title = "Median error to the exact answer at an equal budget"
    figure, (axes,) = new_figure(1, len(errors), height, title, sharex=True, sharey=True)
    for ax, (data, part) in zip(axes, errors.items()):
        _panel(ax, part, methods)
        ax.axvline(floors[data], **EXACT, linewidth=1.2) if data in floors else None
        if bound in part:
            ax.axvline(statistics.mean(part[bound][1]), color=GREY, linestyle="--", linewidth=1.2)
        ax.set(xscale="log", title=data, xlabel=r"median error / $\sigma_d$")
        ax.grid(axis="y", color="0.93")
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].set(ylabel="method")
    axes[0].invert_yaxis()
    figure.legend(handles=_legend(bound, bool(floors)), loc="outside lower center", ncols=3)
    return figure


def _panel(ax: Axes, errors: Errors, methods: Sequence[str]) -> None:
    for i, (steps, shift) in enumerate(((1, -0.2), (2, 0.0), (4, 0.2))):
        look = learned(i) | {"linestyle": "none"}
        for name, values in errors.items():
            place, seeds = methods.index(name) + shift, values.get(steps, ())
            if seeds:
                ax.plot([min(seeds), max(seeds)], [place, place], color=look["color"], linewidth=1.2)
                ax.plot([statistics.mean(seeds)], [place], **look)


def _legend(bound: str, floor: bool) -> list[Line2D]:
    names = ("1 step", "2 steps", "4 steps")
    marks = [Line2D([], [], label=name, **(learned(i) | {"linestyle": "none"})) for i, name in enumerate(names)]
    lines = [Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label=f"{bound}, 1 step")]
    if floor:
        lines.append(Line2D([], [], **EXACT, linewidth=1.2, label="exact denoiser, 40 Heun steps"))
    return marks + lines


@styled
def curves(
    x: Sequence[float],
    panels: Mapping[str, tuple[Curves, Curves]],
    *,
    xlabel: str,
    title: str,
    logarithmic: bool = True,
) -> Figure:
    """Values against what was varied, a panel a measure: label of the y axis -> (exact or solver's own, learned).

    Look at how far the coloured lines stay above the black one, which is what a perfect network would score. x (m,), every
    curve (m,); x is evenly spaced, whatever its values, and logarithmic says whether y is.
    """
    figure, (axes,) = new_figure(1, len(panels), 4.6, title)
    for ax, (ylabel, (truth, methods)) in zip(axes, panels.items(), strict=True):
        for i, (name, values) in enumerate(truth.items()):
            ax.plot(range(len(x)), values, label=name, **EXACT | {"linestyle": ("-", "--")[i % 2]})
        for i, (name, values) in enumerate(methods.items()):
            ax.plot(range(len(x)), values, label=name, **learned(i))
        ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if logarithmic else "linear")
        ax.set_xticks(range(len(x)), [f"{value:g}" for value in x])
        if logarithmic:
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            ax.minorticks_off()
        ax.grid(axis="y", which="major", color="0.9")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1))  # above: lines may run anywhere
    return figure


@styled
def pairs(levels: Sequence[float], errors: Mapping[str, Tensor], *, title: str) -> Figure:
    """An error at every pair of times u < t, a triangle a measure: name -> (m, m), NaN where there is no pair.

    Look along the left column, all the way to clean data, which is all that a consistency model learns; and near the
    diagonal, where steps are short. levels (m,): sigma/alpha of the times, ascending.
    """
    figure, (axes,) = new_figure(1, len(errors), 4.3, title)
    for ax, (name, error) in zip(axes, errors.items(), strict=True):
        _triangle(ax, levels, array(error))
        ax.set(title=name, xlabel=r"noise level at $u$")
    axes[0].set(ylabel=r"noise level at $t$")
    return figure


def _triangle(ax: Axes, levels: Sequence[float], error: np.ndarray) -> None:
    ticks = [f"{level:.2g}" for level in levels]
    ax.imshow(np.log10(error), cmap="Greys", origin="lower", vmin=-4, vmax=0)
    ax.set_xticks(range(len(ticks) - 1), ticks[:-1], rotation=60)
    ax.set_yticks(range(1, len(ticks)), ticks[1:])
    ax.set(xlim=(-0.5, len(ticks) - 1.5), ylim=(0.5, len(ticks) - 0.5))
    for i, j in zip(*np.nonzero(~np.isnan(error)), strict=True):
        dark = error[i, j] > 1e-2
        text = f"{error[i, j]:.2f}" if error[i, j] >= 0.095 else f"{error[i, j]:.3f}"
        text = "0" if error[i, j] < 5e-4 else text.replace("0.", ".")
        ax.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
