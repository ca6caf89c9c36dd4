"""Figures about errors: against time, against the number of solver steps, and at the boundary."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.metrics import ConsistencyError, order, paired_error, rms, time_grid
from minicm.metrics.consistency import noise_level
from minicm.plots.style import EXACT, GREY, LEVEL, learned, new_figure, styled, with_exact
from minicm.schedules import Denoise


@styled
def error_against_time(errors: Mapping[str, ConsistencyError]) -> Figure:
    """Median and RMSE of |f(x_t, t) - f*(x_t, t)| against the noise level, one line a method.

    Look first at the right end, the error of one-step samples; then at where it arises: consistency spreads from
    t_min to t_max, so a method that is not yet trained is good on the left only. An RMSE far above the median: a few points
    land in the wrong mode.
    """
    figure, (axes,) = new_figure(1, 2, 4, "Error against the exact answer", sharex=True, sharey=True)
    for ax, kind in zip(axes, ("median", "rmse")):
        for i, (name, error) in enumerate(errors.items()):
            values = getattr(error, kind)
            ax.plot(error.levels, values, label=f"{name}: {values[-1]:.2g} in one step", **learned(i))
        ax.set(xscale="log", yscale="log", xlabel=LEVEL, title=kind.replace("rmse", "RMSE"))
        ax.grid(which="major", color="0.9")
        ax.legend()
    axes[0].set(ylabel=r"$|f(x_t, t) - f^*(x_t, t)|\ /\ (\sqrt{d}\,\sigma_d)$")
    return figure


@styled
def convergence(steps: Sequence[int], errors: Mapping[str, Sequence[float]]) -> Figure:
    """Median error against the number of solver steps, with the fitted order of convergence of each solver.

    Look at the slopes: doubling the steps divides the error of a method of order p by 2^p. steps (m,), errors:
    name -> (m,). The order needs *steps*, not grid points, and medians, not RMSE.
    """
    figure, ((ax,),) = new_figure(1, 1, 4.2, "Order of convergence: the slope on doubly logarithmic axes")
    for i, (name, values) in enumerate(errors.items()):
        p = order(steps, values)
        ax.plot(steps, values, label=f"{name}: order {p:.2f}", **learned(i))
        start = values[0] * 0.6
        ax.plot(steps, start * (np.asarray(steps) / steps[0]) ** -round(p), color=GREY, linewidth=1)
        ax.text(steps[-1], start * (steps[-1] / steps[0]) ** -round(p), f" slope {round(p)}", color="0.4", va="center")
    ax.set(xscale="log", yscale="log", xlabel="solver steps", ylabel="median error to the exact flow")
    ax.set_xticks(list(steps), [str(n) for n in steps])
    ax.minorticks_off()
    ax.legend()
    return figure


@styled
def boundary(
    mixture: GaussianMixture, methods: Mapping[str, Denoise], *, n: int = 500, generator: torch.Generator | None = None
) -> Figure:
    """c_skip and c_out against t, and how far f moves a point as t falls to t_min, exact beside learned.

    Look at the left end: c_skip is 1 and c_out is 0 at t_min, so f(x, t_min) = x whatever the network says. On the right
    both axes are logarithmic, so zero itself is not to be seen: the legend gives the largest |f(x, t_min) - x|, which is
    0 for a model with the boundary built in.
    """
    title = r"The boundary: $f(x, t_\mathrm{min}) = x$, whatever the network says"
    figure, ((left, right),) = new_figure(1, 2, 4, title)
    _scalings(left, next(iter(methods.values())), mixture.sigma_data)
    looks = [EXACT, *(learned(i) for i in range(len(methods)))]
    for (name, f), look in zip(with_exact(mixture, methods).items(), looks, strict=True):
        above, moved, at_t_min = _moves(f, mixture, n, generator)
        right.plot(above, moved, label=rf"{name}: {at_t_min:.1g} at $t_\mathrm{{min}}$", **look)
    right.set(xscale="log", yscale="log", xlabel=r"$\sigma/\alpha$ above its value at $t_\mathrm{min}$")
    right.set(ylabel=r"RMS of $f(x, t) - x$, in units of $\sigma_d$", title="how far $f$ moves a point")
    right.set_ylim(top=100)  # room for the legend
    right.legend(loc="upper left")
    return figure


def _scalings(ax: Axes, f: Denoise, sigma_data: float) -> None:
    """c_skip and c_out of a model, or, for a callable that has none, of the preconditioning of this package."""
    model: Any = f if hasattr(f, "c_skip") else Denoiser(nn.Identity(), f.schedule, sigma_data, f.t_min)
    t = time_grid(f.schedule, 200, f.t_min)
    t = torch.cat([torch.tensor([f.t_min], dtype=torch.float64), t]) if f.t_min else t
    level, c_skip, c_out = noise_level(f.schedule, t), model.c_skip(t).detach(), model.c_out(t).detach()
    ax.plot(level, c_skip, label=r"$c_\mathrm{skip}$", **EXACT)
    ax.plot(level, c_out / sigma_data, label=r"$c_\mathrm{out}/\sigma_d$", color="black", linestyle="--")
    ax.set(xscale="log", xlabel=LEVEL, ylabel="factor", title=r"$f = c_\mathrm{skip}\,x + c_\mathrm{out}\,F$")
    ax.legend()


@torch.no_grad()
def _moves(
    f: Denoise, mixture: GaussianMixture, n: int, generator: torch.Generator | None
) -> tuple[list[float], list[float], float]:
    """Levels above that of t_min, the RMS of f(x, t) - x there, and the largest |f(x, t_min) - x|."""
    schedule = f.schedule
    lowest = torch.tensor([f.t_min], dtype=torch.float64)
    level = noise_level(schedule, lowest)
    times = schedule.t_of(level + torch.logspace(-4, 0, 17, dtype=torch.float64))
    times = torch.cat([lowest, times[times > f.t_min].unique()])
    x0, _ = mixture.sample(n, generator)
    eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    errors = []
    for t in times.to(x0.device):
        x = schedule.add_noise(x0, eps, t.expand(n))
        errors.append(paired_error(f(x, t.expand(n)), x, mixture.sigma_data))
    above = noise_level(schedule, times) - level
    return above[1:].tolist(), [rms(error) for error in errors[1:]], errors[0].max().item()
