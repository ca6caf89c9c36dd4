"""Trajectories of the probability-flow ODE, and where a consistency function sends their points."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.metrics.consistency import noise_level, time_grid
from minicm.plots.style import GREY, LEVEL, array, new_figure, plane, styled, with_exact
from minicm.schedules import Denoise, Schedule, expand

POINTS = 73  # times at which a trajectory is drawn
EVERY = 9  # f is asked at every ninth of them


class _Paths(NamedTuple):
    """Exact trajectories in the clock of f, and what f makes of their points; n of them, at T times."""

    level: np.ndarray  # (T,) sigma/alpha
    scaled: np.ndarray  # (T, n, d) the points, brought to the data's size at every time
    sent: np.ndarray  # (T/EVERY, n, d) f(x_t, t)
    end: np.ndarray  # (n, d) x_eps


@styled
def trajectories(
    mixture: GaussianMixture,
    methods: Mapping[str, Denoise],
    *,
    n: int = 5,  # trajectories
    generator: torch.Generator | None = None,
) -> Figure:
    """Exact trajectories from noise to data, with f(x_t, t) of nine points on each: exact beside learned.

    Look at the dots: f should send all points of a trajectory to its end (the cross), from wherever they are. In the exact
    panel they lie on top of one another. Above, for data in the plane, the trajectories themselves; below, the first coordinate
    against the noise level, where "all to one point" is a level line. x_t is drawn times sigma_d/sqrt(sigma^2 + alpha^2
    sigma_d^2), which leaves data as they are and makes noise as large as data.
    """
    device = None if generator is None else generator.device
    unit = torch.randn(n, mixture.dim, generator=generator, device=device)
    models, rows = with_exact(mixture, methods), 2 if mixture.dim == 2 else 1
    title = "$f$ sends all points of a trajectory to its end"
    figure, axes = new_figure(rows, len(models), 1 + 2.6 * rows, title, sharey="row")
    for column, (name, f) in zip(axes.T, models.items(), strict=True):
        paths = _follow(mixture, f, f.schedule.prior_std * unit)
        column[0].set_title(name)
        if rows == 2:
            _from_above(column[0], paths, name)
        _from_the_side(column[-1], paths)
    _legends(figure, axes, paths.level)
    return figure


def _legends(figure: Figure, axes: np.ndarray, level: np.ndarray) -> None:
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    handles = [Line2D([], [], color=GREY, label="trajectory"), *axes[0, 0].get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    label = r"$f(x_t, t)$ from noise level $\sigma/\alpha$"
    colours = ScalarMappable(LogNorm(level[-1], level[0]), "viridis_r")
    figure.colorbar(colours, ax=axes, label=label, aspect=40, pad=0.01)


@torch.no_grad()
def _follow(mixture: GaussianMixture, f: Denoise, x_T: Tensor) -> _Paths:
    schedule, (n, dim) = f.schedule, x_T.shape
    times = _times(schedule, f.t_min)
    t = times.to(x_T.device).repeat_interleave(n)
    x = mixture.flow(x_T.repeat(POINTS, 1), schedule.t_max, t, schedule)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    scale = mixture.sigma_data / (sigma.square() + (alpha * mixture.sigma_data).square()).sqrt()
    asked = x.reshape(POINTS, n, dim)[::EVERY].flatten(0, 1)
    return _Paths(
        level=array(noise_level(schedule, times)),
        scaled=array(expand(scale, x) * x).reshape(POINTS, n, dim),
        sent=array(f(asked, t.reshape(POINTS, n)[::EVERY].flatten())).reshape(-1, n, dim),
        end=array(mixture.flow(x_T, schedule.t_max, f.t_min, schedule)),
    )


def _times(schedule: Schedule, t_min: float) -> Tensor:
    """Equally spaced in log(sigma/alpha), from t_max down."""
    ends = time_grid(schedule, 1000, t_min)[[-1, 0]]
    top, bottom = noise_level(schedule, ends).log().tolist()
    times = schedule.t_of(torch.linspace(top, bottom, POINTS, dtype=torch.float64).exp())
    times[0] = ends[0]
    return times


def _from_above(ax: Axes, paths: _Paths, title: str) -> None:
    plane(ax, 1.15 * np.abs(paths.scaled).max(), title)
    ax.plot(paths.scaled[..., 0], paths.scaled[..., 1], color=GREY, linewidth=1.2)
    start, end = paths.scaled[0], paths.end
    circle: dict[str, Any] = {"s": 28, "facecolors": "white", "edgecolors": "black", "zorder": 2}
    cross: dict[str, Any] = {"s": 70, "marker": "x", "color": "black", "linewidths": 1.2}
    ax.scatter(start[:, 0], start[:, 1], label="noise $x_T$", **circle)
    ax.scatter(end[:, 0], end[:, 1], label=r"end $x_\epsilon$", **cross)
    _dots(ax, paths, paths.sent[..., 0], paths.sent[..., 1])


def _from_the_side(ax: Axes, paths: _Paths) -> None:
    ax.plot(paths.level, paths.scaled[..., 0], color=GREY, linewidth=1.2)
    ax.plot(paths.level[::EVERY], paths.sent[..., 0], color="black", linewidth=0.8, linestyle="--")
    _dots(ax, paths, paths.level[::EVERY, None], paths.sent[..., 0])
    ax.set(xscale="log", xlabel=LEVEL, ylabel="$x_1$")


def _dots(ax: Axes, paths: _Paths, x: np.ndarray, y: np.ndarray) -> None:
    """f(x_t, t), the darker the more noise."""
    level = np.broadcast_to(paths.level[::EVERY, None], y.shape)
    look: dict[str, Any] = {"cmap": "viridis_r", "norm": LogNorm(paths.level[-1], paths.level[0])}
    look |= {"s": 24, "edgecolors": "black", "linewidths": 0.5, "zorder": 3}
    ax.scatter(np.broadcast_to(x, y.shape), y, c=level, label="$f(x_t, t)$", **look)
