"""What the tests of assignment b2 are tried on: right implementations in several styles, and wrong ones.

Each wrong one is a known kind of mistake: of public code, or a slip that the mutants of the assignments 1 to 4 expect. Each keeps the
signature and breaks the contract (the docstrings of the handout's student.py) on some valid input; its note says on which kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from minicm.course.kit import Candidate
from minicm.schedules import Schedule


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) in the shape (B, 1, ..., 1) and dtype in which it multiplies x (B, *D)."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def along_the_width(t: Tensor, x: Tensor) -> Tensor:
    """A known mistake: (B,) beside (B, C, H, W) is taken for the width's where W = B."""
    return t.to(x.dtype) if x.ndim > 2 and x.shape[-1] == len(t) else per_sample(t, x)


# ------------------------------------------------------------------------------------------- the plain ones
def karras_grid(n: int, t_min: float = 0.002, t_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """EDM's grid, ascending: equal steps in t^(1/rho), the ends set."""
    low, high = t_min ** (1 / rho), t_max ** (1 / rho)
    grid = torch.linspace(low, high, n, dtype=torch.float64) ** rho
    grid[0], grid[-1] = t_min, t_max
    return grid


def consistency(net: Callable, x: Tensor, t: Tensor, sigma_data: float = 0.5, t_min: float = 0.002) -> Tensor:
    """CM, appendix C: c_skip x + c_out net(c_in x, ln(t)/4), exactly x at t_min."""
    gap = t - torch.full_like(t, t_min)
    c_in = 1 / (t**2 + sigma_data**2).sqrt()
    c_skip = 1 / (1 + (gap / sigma_data) ** 2)
    c_out = sigma_data * gap * c_in
    F = net(per_sample(c_in, x) * x, t.log() / 4)
    return per_sample(c_skip, x) * x + per_sample(c_out, x) * F


def heun_step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Heun in y = x/alpha over lambda = sigma/alpha; Euler to a clean s."""
    alpha_t, alpha_s = per_sample(schedule.alpha(t), x), per_sample(schedule.alpha(s), x)
    sigma_t, sigma_s = per_sample(schedule.sigma(t), x), per_sample(schedule.sigma(s), x)
    slope_t = (x - alpha_t * denoise(x, t)) / sigma_t
    width = sigma_s / alpha_s - sigma_t / alpha_t
    x_s = alpha_s * (x / alpha_t + width * slope_t)
    if (sigma_s == 0).all():
        return x_s
    slope_s = (x_s - alpha_s * denoise(x_s, s)) / sigma_s
    return alpha_s * (x / alpha_t + width * (slope_t + slope_s) / 2)


def pseudo_huber(a: Tensor, b: Tensor, c: float) -> Tensor:
    """sqrt(|a - b|^2 + c^2) - c, one number a sample."""
    squared = (a - b).square().flatten(1).sum(1)
    return (squared + c**2).sqrt() - c


def ct_loss(
    f: Callable, f_target: Callable, x0: Tensor, eps: Tensor, t: Tensor, s: Tensor, distance: Callable
) -> Tensor:
    """CM, Algorithm 3, with the weight 1/(t - s); the target is held fixed."""
    x_t, x_s = x0 + per_sample(t, x0) * eps, x0 + per_sample(s, x0) * eps
    with torch.no_grad():
        y_target = f_target(x_s, s)
    return distance(f(x_t, t), y_target) / (t - s).to(x0.dtype)


# ------------------------------------------------------------------------------------ right, in other styles
def grid_of_floats(n, t_min=0.002, t_max=80.0, rho=7.0):
    """One point at a time, as a weighted mean of the roots."""
    a, b = t_min ** (1 / rho), t_max ** (1 / rho)
    inner = [(a * (n - 1 - i) / (n - 1) + b * i / (n - 1)) ** rho for i in range(1, n - 1)]
    return torch.tensor([t_min, *inner, t_max], dtype=torch.float64)


def grid_of_logarithms(n, t_min=0.002, t_max=80.0, rho=7.0):
    """Roots and powers by exp and log."""
    a, b = np.exp(np.log(t_min) / rho), np.exp(np.log(t_max) / rho)
    grid = np.exp(rho * np.log(a + np.arange(n) / (n - 1) * (b - a)))
    grid[[0, -1]] = t_min, t_max
    return torch.from_numpy(grid)


def consistency_by_choice(net, x, t, sigma_data=0.5, t_min=0.002):
    """The textbook's formula, and x itself where t is t_min."""
    first = t == torch.full_like(t, t_min)
    v = torch.hypot(t, torch.full_like(t, sigma_data))
    F = net(x / per_sample(v, x), torch.log(t) * 0.25)
    skip = sigma_data**2 / ((t - t_min) ** 2 + sigma_data**2)
    f = per_sample(skip, x) * x + per_sample((t - t_min) / v * sigma_data, x) * F
    return torch.where(per_sample(first, x).bool(), x, f)


def consistency_by_sample(net, x, t, sigma_data=0.5, t_min=0.002):
    """Python's floats for the factors, one sample at a time; the net still sees the batch."""
    t_min = torch.tensor(t_min, dtype=t.dtype).item()
    times = [(v, math.hypot(v, sigma_data), v - t_min) for v in t.tolist()]
    F = net(torch.stack([row / v for row, (_, v, _) in zip(x, times)]), t.log().div(4))
    skip = [sigma_data**2 / (gap**2 + sigma_data**2) for _, _, gap in times]
    out = [sigma_data * gap / v for _, v, gap in times]
    return torch.stack([a * row + b * add for a, b, row, add in zip(skip, out, x, F)])


def heun_as_correction(denoise, schedule, x, t, s):
    """Euler's step and half the change of the slope."""
    D = denoise(x, t)
    alpha_t, alpha_s, sigma_t, sigma_s = (
        per_sample(v, x) for v in (schedule.alpha(t), schedule.alpha(s), schedule.sigma(t), schedule.sigma(s))
    )
    eps = (x - alpha_t * D) / sigma_t
    x_s = alpha_s * D + sigma_s * eps
    if not sigma_s.any():
        return x_s
    change = (x_s - alpha_s * denoise(x_s, s)) / sigma_s - eps
    return x_s + (sigma_s - alpha_s * sigma_t / alpha_t) / 2 * change


def heun_by_sample(denoise, schedule, x, t, s):
    """One sample at a time, in float64 whatever x is."""
    D, rows = denoise(x, t), []
    clock = [v.double().tolist() for v in (schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s))]
    slopes = [(row - a * d) / b for row, d, a, b in zip(x.double(), D.double(), *clock[:2])]
    for d, slope, a, b in zip(D.double(), slopes, *clock[2:]):
        rows.append(a * d + b * slope)
    x_s = torch.stack(rows).to(x.dtype)
    if not any(clock[3]):
        return x_s
    ends = [(row - a * d) / b for row, d, a, b in zip(x_s.double(), denoise(x_s, s).double(), *clock[2:])]
    steps = [(b_s / a_s - b_t / a_t) / 2 for a_t, b_t, a_s, b_s in zip(*clock)]
    whole = zip(x.double(), steps, slopes, ends, clock[0], clock[2])
    return torch.stack([a_s * (row / a_t + h * (p + q)) for row, h, p, q, a_t, a_s in whole]).to(x.dtype)


def huber_without_cancellation(a, b, c):
    """Its numerator rationalised: nothing large is subtracted."""
    squared = (a - b).flatten(1).pow(2).sum(-1)
    return squared / (torch.sqrt(squared + c * c) + c)


def huber_as_norm(a, b, c):
    """The norm of the residual with c for one more element."""
    r = (b - a).flatten(1)
    return torch.cat([r, r.new_full((len(r), 1), c)], 1).norm(dim=1) - c


def huber_by_sample(a, b, c):
    """One sample at a time."""
    return torch.stack([torch.sqrt(torch.sum((p - q) ** 2) + c * c) - c for p, q in zip(a, b)])


def loss_detached_later(f, f_target, x0, eps, t, s, distance):
    """f first; x_s along the line from x_t; the target detached, not computed under no_grad."""
    x_t = torch.addcmul(x0, per_sample(t, x0), eps)
    y = f(x_t, t)
    y_target = f_target(x_t + per_sample(s - t, x0) * eps, s).detach()
    return torch.div(distance(y, y_target), (t - s).to(x0.dtype))


def loss_by_sample(f, f_target, x0, eps, t, s, distance):
    """Points and weights one sample at a time."""
    x_s, x_t = (torch.stack([x + v * e for x, e, v in zip(x0, eps, times.tolist())]) for times in (s, t))
    y_target = f_target(x_s, s).detach()
    return torch.stack([d / gap for d, gap in zip(distance(f(x_t, t), y_target), (t - s).tolist())])


RIGHT = {
    "karras_grid": (
        Candidate(karras_grid, "the plain one"),
        Candidate(grid_of_floats, "one in plain Python"),
        Candidate(grid_of_logarithms, "one in numpy, by logarithms"),
    ),
    "consistency": (
        Candidate(consistency, "the plain one"),
        Candidate(consistency_by_choice, "one that chooses x where t is t_min"),
        Candidate(consistency_by_sample, "one that goes sample by sample"),
    ),
    "heun_step": (
        Candidate(heun_step, "the plain one"),
        Candidate(heun_as_correction, "one that corrects Euler's step"),
        Candidate(heun_by_sample, "one that goes sample by sample, in float64"),
    ),
    "pseudo_huber": (
        Candidate(pseudo_huber, "the plain one"),
        Candidate(huber_without_cancellation, "one without cancellation"),
        Candidate(huber_as_norm, "one that takes c for one more element"),
        Candidate(huber_by_sample, "one that goes sample by sample"),
    ),
    "ct_loss": (
        Candidate(ct_loss, "the plain one"),
        Candidate(loss_detached_later, "one that comes from x_t to x_s"),
        Candidate(loss_by_sample, "one that goes sample by sample"),
    ),
}


# ---------------------------------------------------------------------------------------------- wrong: grids
def grid_geometric(n, t_min=0.002, t_max=80.0, rho=7.0):
    """Equal steps in ln t."""
    grid = torch.linspace(math.log(t_min), math.log(t_max), n, dtype=torch.float64).exp()
    grid[0], grid[-1] = t_min, t_max
    return grid


def grid_of_seven(n, t_min=0.002, t_max=80.0, rho=7.0):
    """rho is not passed on."""
    return karras_grid(n, t_min, t_max)


def grid_from_default(n, t_min=0.002, t_max=80.0, rho=7.0):
    """The inner points start at the default t_min."""
    grid = karras_grid(n, 0.002, t_max, rho)
    grid[0] = t_min
    return grid


def grid_by_arange(n, t_min=0.002, t_max=80.0, rho=7.0):
    """The ramp by arange, whose length is a matter of rounding."""
    low, high, h = t_min ** (1 / rho), t_max ** (1 / rho), 1 / (n - 1)
    ramp = torch.arange(0, 1 + h, h, dtype=torch.float64)  # n or n + 1 of them, as 1 + h happens to be rounded
    grid = (low + ramp * (high - low)) ** rho
    grid[0], grid[-1] = t_min, t_max
    return grid


def grid_in_float32(n, t_min=0.002, t_max=80.0, rho=7.0):
    """Computed in float32 and cast."""
    low, high = t_min ** (1 / rho), t_max ** (1 / rho)
    grid = (torch.linspace(low, high, n) ** rho).double()
    grid[0], grid[-1] = t_min, t_max
    return grid


def grid_with_computed_ends(n, t_min=0.002, t_max=80.0, rho=7.0):
    """Root and power do not cancel at the ends."""
    return torch.linspace(t_min ** (1 / rho), t_max ** (1 / rho), n, dtype=torch.float64) ** rho


# ------------------------------------------------------------------------------ wrong: consistency functions
def consistency_with(*, spread=per_sample, width=lambda sd: sd, inside=lambda sd: sd, skip=None, shift=True):
    """The plain one with a part of it exchanged."""

    def consistency(net, x, t, sigma_data=0.5, t_min=0.002):
        gap = t - torch.full_like(t, t_min) if shift else t
        c_in = 1 / (t**2 + inside(sigma_data) ** 2).sqrt()
        c_skip = skip(gap, sigma_data) if skip else 1 / (1 + (gap / sigma_data) ** 2)
        c_out = width(sigma_data) * gap / (t**2 + sigma_data**2).sqrt()
        F = net(spread(c_in, x) * x, t.log() / 4)
        return spread(c_skip, x) * x + spread(c_out, x) * F

    return consistency


def consistency_in_place(net, x, t, sigma_data=0.5, t_min=0.002):
    """Works on the caller's x."""
    gap, c_in = t - torch.full_like(t, t_min), 1 / (t**2 + sigma_data**2).sqrt()
    F = net(per_sample(c_in, x) * x, t.log() / 4)
    return x.mul_(per_sample(1 / (1 + (gap / sigma_data) ** 2), x)).add_(per_sample(sigma_data * gap * c_in, x) * F)


# ------------------------------------------------------------------------------------------ wrong: Heun steps
def euler(denoise, schedule, x, t, s):
    """Euler's step in place of Heun's."""
    alpha_t, alpha_s = per_sample(schedule.alpha(t), x), per_sample(schedule.alpha(s), x)
    D = denoise(x, t)
    noise = (x - alpha_t * D) / per_sample(schedule.sigma(t), x)
    return alpha_s * D + per_sample(schedule.sigma(s), x) * noise


def heun_of_points(denoise, schedule, x, t, s):
    """The two estimates of x0 averaged, not the two slopes."""
    D = denoise(x, t)
    x_s = euler(lambda *_: D, schedule, x, t, s)
    if (schedule.sigma(s) == 0).all():
        return x_s
    return euler(lambda *_: (D + denoise(x_s, s)) / 2, schedule, x, t, s)


def heun_at_one_time(denoise, schedule, x, t, s):
    """The second estimate is asked for at t, not at s."""
    return heun_step(lambda point, time: denoise(point, t), schedule, x, t, s)


def heun_of_edm(denoise, schedule, x, t, s):
    """EDM's Algorithm 1 as printed, whatever the clock."""
    h = per_sample(s - t, x)
    slope = (x - denoise(x, t)) / per_sample(t, x)
    x_s = x + h * slope
    if (s == 0).all():
        return x_s
    return x + h * (slope + (x_s - denoise(x_s, s)) / per_sample(s, x)) / 2


def heun_by_size(denoise, schedule, x, t, s):
    """The correction by the size of the step, without its sign."""
    alpha_t, alpha_s = per_sample(schedule.alpha(t), x), per_sample(schedule.alpha(s), x)
    sigma_t, sigma_s = per_sample(schedule.sigma(t), x), per_sample(schedule.sigma(s), x)
    D = denoise(x, t)
    slope = (x - alpha_t * D) / sigma_t
    x_s = alpha_s * D + sigma_s * slope
    if (sigma_s == 0).all():
        return x_s
    change = (x_s - alpha_s * denoise(x_s, s)) / sigma_s - slope
    return x_s - alpha_s * (sigma_s / alpha_s - sigma_t / alpha_t).abs() / 2 * change


def heun_to_the_end(denoise, schedule, x, t, s):
    """No thought of sigma(s) = 0."""
    alpha_t, alpha_s = per_sample(schedule.alpha(t), x), per_sample(schedule.alpha(s), x)
    sigma_t, sigma_s = per_sample(schedule.sigma(t), x), per_sample(schedule.sigma(s), x)
    slope_t = (x - alpha_t * denoise(x, t)) / sigma_t
    width = sigma_s / alpha_s - sigma_t / alpha_t
    x_s = alpha_s * (x / alpha_t + width * slope_t)
    slope_s = (x_s - alpha_s * denoise(x_s, s)) / sigma_s
    return alpha_s * (x / alpha_t + width * (slope_t + slope_s) / 2)


# ------------------------------------------------------------------------------------------ wrong: distances
def huber_by_element(a, b, c):
    """Per element, then summed."""
    return (((a - b).square() + c**2).sqrt() - c).flatten(1).sum(1)


def huber_of_the_mean(a, b, c):
    """The mean of the squares for their sum."""
    return ((a - b).square().flatten(1).mean(1) + c**2).sqrt() - c


def huber_with_c(a, b, c):
    """c for c^2 under the root, shifted to be zero at zero."""
    return ((a - b).square().flatten(1).sum(1) + c).sqrt() - c**0.5


def huber_by_pixel(a, b, c):
    """The norm over the first axis of a sample alone; the rest is summed."""
    d = ((a - b).square().sum(1) + c**2).sqrt() - c
    return d if d.ndim == 1 else d.flatten(1).sum(1)


def huber_of_the_norm(a, b, c):
    """The norm first: its root has an infinite slope at zero."""
    norm = (a - b).square().flatten(1).sum(1).sqrt()
    return (norm**2 + c**2).sqrt() - c


def huber_of_one_side(a, b, c):
    """b is detached."""
    return pseudo_huber(a, b.detach(), c)


# --------------------------------------------------------------------------------------------- wrong: losses
def loss_with(*, spread=per_sample, z=None, weight=None, grad=False, own=False):
    """The plain one with a part of it exchanged."""

    def ct_loss(f, f_target, x0, eps, t, s, distance):
        x_t = x0 + spread(t, x0) * eps
        x_s = x0 + spread(s, x0) * (z(eps) if z else eps)
        with torch.set_grad_enabled(grad):
            y_target = (f if own else f_target)(x_s, s)
        return distance(f(x_t, t), y_target) * (weight or (lambda gap: 1 / gap.to(x0.dtype)))(t - s)

    return ct_loss


WRONG = {
    "karras_grid": (
        Candidate(grid_geometric, "it shows in any grid of more than two points: how are they spaced?"),
        Candidate(grid_of_seven, "it is right with rho = 7"),
        Candidate(grid_from_default, "it is right with the default t_min"),
        Candidate(grid_by_arange, "it is right for most n: try many"),
        Candidate(grid_in_float32, "its ends are right, and seven digits of what lies between"),
        Candidate(grid_with_computed_ends, "it is right to fifteen digits: what is promised of the ends?")
    ),
    "consistency": (
        Candidate(consistency_with(width=lambda sd: sd * sd), "it shows wherever the net's output counts; its samples look fine"),
        Candidate(consistency_with(inside=lambda sd: 0.5), "it is right with the default sigma_data"),
        Candidate(consistency_with(shift=False), "it is wrong by less than 1 % of x and of the net's output where t is above 0.2"),
        Candidate(consistency_with(spread=along_the_width), "it is wrong only where two sizes coincide"),
        Candidate(consistency_in_place, "what it returns is right: what else may a caller count on?"),
        Candidate(consistency_with(skip=lambda gap, sd: sd**2 / (gap**2 + sd**2)), "it misses what is promised at t_min by one rounding, and for few values of sigma_data: try many")
    ),
    "heun_step": (
        Candidate(euler, "it shows in any step that is not tiny"),
        Candidate(heun_of_points, "it asks denoise where it should; what does it make of the answers?"),
        Candidate(heun_at_one_time, "it shows only with a denoiser that depends on the time"),
        Candidate(heun_of_edm, "it is right in the EDM clock"),
        Candidate(heun_by_size, "it is right on the way from noise to data"),
        Candidate(heun_to_the_end, "it is wrong only in the last step of a path")
    ),
    "pseudo_huber": (
        Candidate(huber_by_element, "it is right for samples of one number"),
        Candidate(huber_of_the_mean, "it is right for samples of one number, and looks like a matter of scale"),
        Candidate(huber_with_c, "it is right with c = 1, and zero where it must be"),
        Candidate(huber_by_pixel, "it is right for points: are samples always points?"),
        Candidate(huber_of_the_norm, "its values are right: what else does training take from a distance?"),
        Candidate(huber_of_one_side, "its values are right, and its slope in one of two directions")
    ),
    "ct_loss": (
        Candidate(loss_with(weight=lambda gap: 1.0), "it is right where t - s is 1"),
        Candidate(loss_with(own=True), "it is right where f is its own target"),
        Candidate(loss_with(z=torch.randn_like), "each of its two points is distributed as it should be"),
        Candidate(loss_with(weight=lambda gap: 1 / gap), "its numbers are right: what else is promised of a tensor?"),
        Candidate(loss_with(spread=along_the_width), "it is wrong only where two sizes coincide"),
        Candidate(loss_with(grad=True), "its values are right: what else does training take from a loss?")
    )
}  # fmt: skip
