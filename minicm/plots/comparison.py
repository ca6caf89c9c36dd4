"""The figure of a comparison: which method is how wrong, on which mixture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from minicm.plots.style import EXACT, GREY, learned, new_figure, styled

Errors = Mapping[str, Mapping[int, Sequence[float]]]  # method -> sampling steps -> one error a seed


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
    marks = [
        Line2D([], [], label=name, **(learned(i) | {"linestyle": "none"})) for i, name in enumerate(names)
    ]
    lines = [Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label=f"{bound}, 1 step")]
    if floor:
        lines.append(Line2D([], [], **EXACT, linewidth=1.2, label="exact denoiser, 40 Heun steps"))
    return marks + lines
