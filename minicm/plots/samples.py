"""Samples beside data, and the map from noise to data as a coloured field."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.metrics import FAR, paired_error, time_grid
from minicm.plots.style import GREY, LEARNED, array, mode_colours, new_figure, plane, styled, with_exact
from minicm.sampling import sample
from minicm.schedules import Denoise

REACH = 2.4  # half side of the field, in standard deviations of the noise
EXTENT = (-REACH, REACH, -REACH, REACH)
OUTLIER = LEARNED[1]["color"]


@styled
def samples(
    data: Any,
    methods: Mapping[str, Denoise],
    *,
    steps: Sequence[int] = (1, 2, 4),
    times: Mapping[int, Sequence[float]] | None = None,  # steps -> decreasing times; None: by time_grid
    n: int = 2000,
    generator: torch.Generator | None = None,
) -> Figure:
    """Samples of each method at 1, 2, 4 steps beside data, all from the same noise; data: anything with .sample, in 2-D.

    Look for points between the modes (crosses: farther than four standard deviations from every mode; their share stands
    below), for modes that are missing, and for blobs that are too small. More steps should mend the first.
    """
    x0, _ = data.sample(n, generator)
    radius = 1.15 * x0.abs().max().item()
    title = "Samples at " + ", ".join(map(str, steps)) + " steps beside data"
    figure, axes = new_figure(len(methods), len(steps) + 1, 1.5 + 2.15 * len(methods), title)
    unit = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    for row, (name, f) in zip(axes, methods.items(), strict=True):
        _cloud(row[0], x0, data, radius, "data")
        for ax, count in zip(row[1:], steps, strict=True):
            at = time_grid(f.schedule, count, f.t_min).flip(0) if times is None else times[count]
            x = sample(f, f.schedule.prior_std * unit, at, generator=generator)
            _cloud(ax, x, data, radius, f"{name}, {count} step" + "s" * (count > 1))
    if isinstance(data, GaussianMixture):
        outline = Line2D([], [], color=GREY, linewidth=0.8, label="four standard deviations of a mode")
        crosses = Line2D([], [], linestyle="", marker="x", color=OUTLIER, label="outliers")
        figure.legend(handles=[outline, crosses], loc="outside lower center", ncols=2)
    return figure


@styled
def cloud(x: Tensor, title: str = "") -> Figure:
    """Points of the plane, (n, 2)."""
    figure, axes = new_figure(1, 1, 7)
    _cloud(axes[0, 0], x, None, 1.05 * x.abs().max().item(), title)
    return figure


@styled
def noise_map(mixture: GaussianMixture, methods: Mapping[str, Denoise], *, resolution: int = 100) -> Figure:
    """The map x_T -> x_eps of one step: which mode each noise is sent to, exact beside learned, and the error there.

    Look at the borders between the fields: there the map jumps from mode to mode, and there a network, which
    is smooth, goes wrong. A learned map with good fields and an even, small error elsewhere is as good as it gets. The panel
    below the exact map is the key: which mode has which number. resolution: points along a side. Two-dimensional mixtures
    only (ValueError).
    """
    if mixture.dim != 2:
        raise ValueError(f"noise_map draws the plane: it needs a mixture in 2 dimensions, got {mixture.dim}")
    name, exact = next(iter(with_exact(mixture, methods).items()))
    truth, modes = _send(exact, mixture, resolution)
    figure, axes = new_figure(2, len(methods) + 1, 6, "Where one step sends the noise")
    _field(axes[0, 0], modes, mixture, name)
    _key(axes[1, 0], mixture)
    for (name, f), (above, below) in zip(methods.items(), axes.T[1:], strict=True):
        sent, learned_modes = _send(f, mixture, resolution)
        wrong = 100 * _gauss_weights(resolution)[learned_modes != modes].sum()
        _field(above, learned_modes, mixture, f"{name}: {wrong:.2g} % to a wrong mode")
        image = _error_field(below, paired_error(sent, truth, mixture.sigma_data), f"{name}: distance to $f^*$")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    label = r"$|f(x_T, T) - f^*(x_T, T)|\ /\ (\sqrt{d}\,\sigma_d)$"
    figure.colorbar(image, ax=axes[1, 1:], label=label, extend="both", pad=0.02)
    return figure


def _cloud(ax: Axes, x: Tensor, data: Any, radius: float, title: str) -> None:
    """Points x (n, 2), over the outlines of the data's modes, or where there are none over the data."""
    points, far = array(x), np.zeros(len(x), dtype=bool)
    if isinstance(data, GaussianMixture):
        far = array(data.mahalanobis2(x).amin(dim=1)) > FAR
        for k in range(len(data.weights)):
            ax.add_patch(_ellipse(data, k, 4.0, fill=False, edgecolor=GREY))
        title += f"\n{100 * far.mean():.2g} % outliers"
    plane(ax, radius, title)
    (x1, x2), (far1, far2) = points[~far].T, points[far].T
    ax.scatter(x1, x2, s=1.5, color="black", linewidths=0)
    ax.scatter(far1, far2, s=14, color=OUTLIER, marker="x", linewidths=1)
    ax.label_outer()


def _send(f: Denoise, mixture: GaussianMixture, resolution: int) -> tuple[Tensor, np.ndarray]:
    """f(x_T, t_max) on a grid of noises, (R*R, 2), and the mode where each lands, (R, R)."""
    schedule, axis = f.schedule, torch.linspace(-REACH, REACH, resolution)
    x_T = schedule.prior_std * torch.cartesian_prod(axis, axis).flip(1)  # the first coordinate runs along a row
    with torch.no_grad():
        sent = f(x_T, torch.full((len(x_T),), schedule.t_max, dtype=torch.float64))
    return sent, mixture.components(sent).reshape(resolution, resolution).numpy()


def _gauss_weights(resolution: int) -> np.ndarray:
    """The probability of each noise of the grid, (R, R)."""
    density = np.exp(-(np.linspace(-REACH, REACH, resolution) ** 2) / 2)
    density = density / density.sum()
    return density[:, None] * density


def _field(ax: Axes, modes: np.ndarray, mixture: GaussianMixture, title: str) -> None:
    plane(ax, REACH, title)
    count = len(mixture.weights)
    ax.imshow(modes, origin="lower", extent=EXTENT, cmap=mode_colours(count), vmin=0, vmax=max(count - 1, 1))
    for k in np.unique(modes):
        place = _middle(modes == k)
        if place is not None:
            _number(ax, *place, k)
    ax.set(xlabel=r"noise $\epsilon_1$", ylabel=r"noise $\epsilon_2$")


def _middle(inside: np.ndarray) -> tuple[float, float] | None:
    """Where a number has room: far from the border of a region, and there nearest to its centre; None if nowhere."""
    depth = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    if depth.max() < 0.03 * len(inside):
        return None
    roomy = np.argwhere(depth > 0.9 * depth.max())
    away = np.linalg.norm(roomy - np.argwhere(inside).mean(axis=0), axis=1)
    row, column = np.linspace(-REACH, REACH, len(inside))[roomy[away.argmin()]]
    return column, row


def _error_field(ax: Axes, error: Tensor, title: str) -> AxesImage:
    plane(ax, REACH, title)
    side = math.isqrt(len(error))
    ax.set(xlabel=r"noise $\epsilon_1$")
    return ax.imshow(
        array(error).reshape(side, side), origin="lower", extent=EXTENT, cmap="magma_r", norm=LogNorm(1e-3, 1)
    )


def _key(ax: Axes, mixture: GaussianMixture) -> None:
    """The modes with their numbers, at two standard deviations."""
    plane(ax, 1.4 * mixture.means.abs().max().item(), "key: the modes of the data")
    colours = mode_colours(len(mixture.weights))
    for k, (x, y) in enumerate(mixture.means.tolist()):
        ax.add_patch(_ellipse(mixture, k, 2.0, facecolor=colours(k), edgecolor="black"))
        _number(ax, x, y, k)


def _ellipse(mixture: GaussianMixture, k: int, sigmas: float, **look: Any) -> Ellipse:
    variances, axes = torch.linalg.eigh(mixture.covs[k])
    angle = math.degrees(math.atan2(axes[1, 0], axes[0, 0]))
    width, height = (2 * sigmas * variances.sqrt()).tolist()
    x, y = mixture.means[k].tolist()
    return Ellipse((x, y), width, height, angle=angle, linewidth=0.8, **look)


def _number(ax: Axes, x: float, y: float, k: int) -> None:
    halo = [withStroke(linewidth=2.5, foreground="w")]
    ax.text(x, y, f"{k}", ha="center", va="center", fontsize=10, path_effects=halo)
