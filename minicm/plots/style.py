"""One look for all figures: 800 pixels wide, readable in grey and by colour-blind readers.

What is exact is black and solid, what is learned has a colour *and* a dash and a marker of its own, so that no figure
depends on colour. Every function of this package returns a matplotlib Figure that pyplot does not know: show it as the
last line of a notebook's cell, or call .savefig(path).
"""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.metrics import ExactConsistency
from minicm.schedules import Denoise

STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "figure.titlesize": 13,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
}
styled = matplotlib.rc_context(STYLE)  # a decorator: the look holds inside the function and nowhere else

GREY = "0.6"
LEVEL = r"noise level $\sigma/\alpha$"  # the one axis of time that all clocks share
EXACT: dict[str, Any] = {"color": "black", "linestyle": "-"}
# Okabe and Ito's colours, safe for colour-blind readers; dark enough for thin lines on white.
LEARNED: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "--", "marker": "o"},
    {"color": "#D55E00", "linestyle": "-.", "marker": "s"},
    {"color": "#009E73", "linestyle": ":", "marker": "^"},
    {"color": "#CC79A7", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "D"},
    {"color": "#56B4E9", "linestyle": (0, (8, 2)), "marker": "v"},
    {"color": "#E69F00", "linestyle": (0, (1, 1)), "marker": "P"},
)


def learned(i: int) -> dict[str, Any]:
    """Colour, dash and marker of the i-th method."""
    return LEARNED[i % len(LEARNED)]


def with_exact(mixture: GaussianMixture, methods: Mapping[str, Denoise]) -> dict[str, Denoise]:
    """The exact f* in the clock of the first method, before the methods."""
    first = next(iter(methods.values()))
    return {"exact $f^*$": ExactConsistency(mixture, first.schedule, first.t_min), **methods}


def new_figure(rows: int, columns: int, height: float, title: str = "", **grid: Any) -> tuple[Figure, np.ndarray]:
    """An empty figure 8 inches wide, and its axes, always (rows, columns)."""
    figure = Figure(figsize=(8, height), layout="constrained")
    if title:
        figure.suptitle(title)
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def plane(ax: Axes, radius: float, title: str = "") -> None:
    """Make axes a map of the plane, [-radius, radius]^2, with one unit as long in both directions."""
    ax.set(xlim=(-radius, radius), ylim=(-radius, radius), title=title, xlabel="$x_1$", ylabel="$x_2$")
    ax.set_aspect("equal")
    ax.spines[["top", "right"]].set_visible(True)


def mode_colours(modes: int) -> ListedColormap:
    """A colour for each mode; neighbours in number are far apart in lightness, also without colour."""
    far_apart = np.argsort(np.argsort((np.arange(modes) * (math.sqrt(5) - 1) / 2) % 1))
    return ListedColormap(matplotlib.colormaps["viridis"](far_apart / max(modes - 1, 1)))


def array(x: Tensor) -> np.ndarray:
    """A tensor as a float64 numpy array on the CPU."""
    return torch.as_tensor(x).detach().double().cpu().numpy()
