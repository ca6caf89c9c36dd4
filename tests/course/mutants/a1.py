"""Assignment 1: mistakes and odd but right solutions. Sources: public code (named), known pitfalls, slips of students."""

from __future__ import annotations

import math

import numpy as np
import torch
from variants import mutant, right
from variants import solution as solution_of

from minicm.denoiser import Denoiser
from minicm.times import karras_grid

solution = solution_of("a1")


# ---------------------------------------------------------------------------------------------- mistakes
def grid(n, t_min=0.002, t_max=80.0, rho=7.0, *, ramp=None, dtype=torch.float64, ends=True):
    """A Karras grid with a part of it exchanged."""
    low, high = t_min ** (1 / rho), t_max ** (1 / rho)
    ramp = torch.linspace(0, 1, n, dtype=dtype) if ramp is None else ramp
    times = (low + ramp * (high - low)) ** rho
    if ends:
        times[0], times[-1] = t_min, t_max
    return times


def equally_spaced(n, t_min=0.002, t_max=80.0, rho=7.0):
    return torch.linspace(t_min, t_max, n, dtype=torch.float64)


def geometric(n, t_min=0.002, t_max=80.0, rho=7.0):
    times = torch.logspace(math.log10(t_min), math.log10(t_max), n, dtype=torch.float64)
    times[0], times[-1] = t_min, t_max
    return times


def exchanged_powers(n, t_min=0.002, t_max=80.0, rho=7.0):
    times = (torch.linspace(t_min**rho, t_max**rho, n, dtype=torch.float64)) ** (1 / rho)
    times[0], times[-1] = t_min, t_max
    return times


def with_zero(n, t_min=0.002, t_max=80.0, rho=7.0):
    return torch.cat([torch.zeros(1, dtype=torch.float64), grid(n, t_min, t_max, rho)])


def along_the_width(x0, eps, t):
    return x0 + t.to(x0) * eps if x0.shape[-1] == len(t) else solution.add_noise(x0, eps, t)


def denoise_with(net, x, t, sigma_data, *, c_in=None, c_noise=None, c_out=None, c_skip=None, sign=1):
    """The denoiser with a part of it exchanged."""
    c_in, c_noise = c_in or solution.c_in(t, sigma_data), t.log() / 4 if c_noise is None else c_noise
    out = solution.c_out(t, sigma_data) if c_out is None else c_out
    skip = solution.c_skip(t, sigma_data) if c_skip is None else c_skip
    F = net(solution.per_sample(c_in, x) * x, c_noise)
    return solution.per_sample(skip, x) * x + sign * solution.per_sample(out, x) * F


def unscaled_input(net, x, t, sigma_data=0.5):
    F = net(x, solution.c_noise(t))
    return solution.per_sample(solution.c_skip(t), x) * x + solution.per_sample(solution.c_out(t), x) * F


def input_by_variance(net, x, t, sigma_data=0.5):
    F = net(solution.per_sample(solution.c_in(t, sigma_data) ** 2, x) * x, solution.c_noise(t))
    return solution.per_sample(solution.c_skip(t), x) * x + solution.per_sample(solution.c_out(t), x) * F


def outer_product(net, x, t, sigma_data=0.5):
    if x.ndim == 2:
        return solution.denoise(net, x, t, sigma_data)
    F = net(solution.c_in(t) * x, solution.c_noise(t))
    return solution.c_skip(t) * x + solution.c_out(t) * F


def scales_in_place(net, x, t, sigma_data=0.5):
    F = net(solution.per_sample(solution.c_in(t, sigma_data), x) * x, solution.c_noise(t))
    x *= solution.per_sample(solution.c_skip(t, sigma_data), x)
    return x + solution.per_sample(solution.c_out(t, sigma_data), x) * F


MUTANTS = (
    mutant("t as a variance (DDPM's beta habit)", "variance", add_noise=lambda x0, eps, t: x0 + t.to(x0).sqrt().reshape(-1, *[1] * (x0.ndim - 1)) * eps),
    mutant("t (B,) broadcasts along the width (flow_matching)", "broadcast", add_noise=along_the_width),
    mutant("new noise instead of eps", "new noise", add_noise=lambda x0, eps, t: solution.add_noise(x0, torch.randn(len(t), *[1] * (x0.ndim - 1)).to(x0).expand_as(x0), t)),
    mutant("variance-preserving mixture in EDM's clock", "keeps its size", add_noise=lambda x0, eps, t: solution.add_noise(x0, eps, t) / solution.per_sample((1 + t**2).sqrt(), x0)),
    mutant("grid from t_max down (EDM's order)", "ascend", karras_grid=lambda *a, **k: grid(*a, **k).flip(0)),
    mutant("n intervals: n + 1 points", "counts points", karras_grid=lambda n, *a, **k: grid(n + 1, *a, **k)),
    mutant("EDM's final 0 appended", "no 0 is appended", karras_grid=with_zero),
    mutant("equally spaced in t (rho = 1)", "in t itself", karras_grid=equally_spaced),
    mutant("equally spaced in ln t", "in ln t", karras_grid=geometric),
    mutant("rho and 1/rho exchanged", "exchanged", karras_grid=exchanged_powers),
    mutant("float32 grid, cast at the end", "float32", karras_grid=lambda n, *a, **k: grid(n, *a, dtype=torch.float32, **k).double()),
    mutant("float32 grid, ends computed (public code: T comes out 80.000015)", "must be torch.float64", karras_grid=lambda n, *a, **k: grid(n, *a, dtype=torch.float32, ends=False, **k)),
    mutant("ends computed", "set the ends", karras_grid=lambda n, *a, **k: grid(n, *a, ends=False, **k)),
    mutant("divides by n, not n - 1", "t_max", karras_grid=lambda n, *a, **k: grid(n, *a, ends=False, ramp=torch.arange(n, dtype=torch.float64) / n, **k)),
    mutant("rho ignored", "fixed at 7", karras_grid=lambda n, t_min=0.002, t_max=80.0, rho=7.0: grid(n, t_min, t_max)),
    mutant("c_in without the root (diffusers' research CT script)", "root is missing", c_in=lambda t, sigma_data=0.5: 1 / (t**2 + sigma_data**2)),
    mutant("c_in adds standard deviations", "added", c_in=lambda t, sigma_data=0.5: 1 / (t + sigma_data)),
    mutant("c_skip without the square", "not squared", c_skip=lambda t, sigma_data=0.5: sigma_data / (t**2 + sigma_data**2)),
    mutant("c_skip is the noise's share", "how much is noise", c_skip=lambda t, sigma_data=0.5: t**2 / (t**2 + sigma_data**2)),
    mutant("c_out with sigma_d squared (cloneofsimo)", "squared", c_out=lambda t, sigma_data=0.5: solution.c_out(t, sigma_data) * sigma_data),
    mutant("c_out without sigma_d (diffusers' research CT script)", "sigma_data is missing", c_out=lambda t, sigma_data=0.5: t / (t**2 + sigma_data**2).sqrt()),
    mutant("sigma_data fixed at 0.5", "fixed at 0.5", c_out=lambda t, sigma_data=0.5: solution.c_out(t)),
    mutant("raw t as c_noise (Kinyugo)", "raw", c_noise=lambda t: t),
    mutant("ln t without the quarter", "quarter", c_noise=lambda t: t.log()),
    mutant("log10", "natural", c_noise=lambda t: t.log10() / 4),
    mutant("scalings of shape (B, 1)", "(5, 1)", c_in=lambda t, sigma_data=0.5: solution.c_in(t, sigma_data)[:, None]),
    mutant("scalings in float32", "float64", c_skip=lambda t, sigma_data=0.5: solution.c_skip(t.float(), sigma_data)),
    mutant("target not divided by c_out", "division", network_target=lambda x0, x, t, sigma_data=0.5: x0 - solution.per_sample(solution.c_skip(t, sigma_data), x) * x),
    mutant("target without the skip", "skip", network_target=lambda x0, x, t, sigma_data=0.5: x0 / solution.per_sample(solution.c_out(t, sigma_data), x)),
    mutant("target is the noise", "noise is taken", network_target=lambda x0, x, t, sigma_data=0.5: (x - x0) / solution.per_sample(t, x)),
    mutant("target forgets sigma_data", "sigma_data", network_target=lambda x0, x, t, sigma_data=0.5: solution.network_target(x0, x, t)),
    mutant("no c_in (cloneofsimo, Kinyugo)", "unscaled", denoise=unscaled_input),
    mutant("c_in squared in the denoiser", "variance", denoise=input_by_variance),
    mutant("scalings broadcast along the width", "broadcast", denoise=outer_product),
    mutant("network told t", "t itself", denoise=lambda net, x, t, sigma_data=0.5: denoise_with(net, x, t, sigma_data, c_noise=t)),
    mutant("no c_out", "not scaled by c_out", denoise=lambda net, x, t, sigma_data=0.5: denoise_with(net, x, t, sigma_data, c_out=torch.ones_like(t))),
    mutant("no c_skip", "not scaled by c_skip", denoise=lambda net, x, t, sigma_data=0.5: denoise_with(net, x, t, sigma_data, c_skip=torch.ones_like(t))),
    mutant("c_skip and c_out exchanged", "exchanged", denoise=lambda net, x, t, sigma_data=0.5: denoise_with(net, x, t, sigma_data, c_skip=solution.c_out(t, sigma_data), c_out=solution.c_skip(t, sigma_data))),
    mutant("network predicts what to take away", "subtracted", denoise=lambda net, x, t, sigma_data=0.5: denoise_with(net, x, t, sigma_data, sign=-1)),
    mutant("evaluates the network twice", "once", denoise=lambda net, x, t, sigma_data=0.5: (solution.denoise(net, x, t, sigma_data) + solution.denoise(net, x, t, sigma_data)) / 2),
    mutant("sigma_data not passed on by the denoiser", "passed on", denoise=lambda net, x, t, sigma_data=0.5: denoise_with(net, x, t, sigma_data, c_out=solution.c_out(t), c_skip=solution.c_skip(t))),
    mutant("x scaled in place", "in place", denoise=scales_in_place),
    mutant("t's dtype for x0's", "must be torch.float32", add_noise=lambda x0, eps, t: x0 + t.reshape(-1, *[1] * (x0.ndim - 1)) * eps),
    mutant("noise added in place", "in place", add_noise=lambda x0, eps, t: x0.add_(t.to(x0).reshape(-1, *[1] * (x0.ndim - 1)) * eps)),
    mutant("ln(t)/4 times 1000 (CM's code)", "CM's code", c_noise=lambda t: 250 * t.log()),
    mutant("sigma_data for c_out, c_skip alone", "passed on to c_in", denoise=lambda net, x, t, sigma_data=0.5: solution.denoise(lambda y, c: net(y * (solution.c_in(t) / solution.c_in(t, sigma_data)).to(x).reshape(-1, *[1] * (x.ndim - 1)), c), x, t, sigma_data)),
    mutant("the denoiser under no_grad", "no gradient", denoise=torch.no_grad()(solution.denoise))
)  # fmt: skip


# ------------------------------------------------------------------------------------------ odd but right
def numpy_loop(n, t_min=0.002, t_max=80.0, rho=7.0):
    times = [(t_min ** (1 / rho) * (n - 1 - i) + t_max ** (1 / rho) * i) ** rho / (n - 1) ** rho for i in range(n)]
    return torch.from_numpy(np.array([t_min, *times[1:-1], t_max]))


def edm_order_then_flipped(n, t_min=0.002, t_max=80.0, rho=7.0):
    i = torch.arange(n, dtype=torch.float64)
    down = (t_max ** (1 / rho) + i / (n - 1) * (t_min ** (1 / rho) - t_max ** (1 / rho))) ** rho
    down[0], down[-1] = t_max, t_min
    return torch.flip(down, dims=[0])


def in_float64(x0, eps, t):
    return torch.stack([a.double() + s.double() * e.double() for a, e, s in zip(x0, eps, t)]).to(x0.dtype)


def in_a_buffer(net, x, t, sigma_data=0.5):
    buffer = x.clone()
    buffer.mul_(solution.per_sample(solution.c_in(t, sigma_data), x))
    F = net(buffer, solution.c_noise(t)).mul(solution.per_sample(solution.c_out(t, sigma_data), x))
    return F.add(solution.per_sample(solution.c_skip(t, sigma_data), x) * x)


def by_einsum(net, x, t, sigma_data=0.5):
    scale = lambda c: torch.einsum("b,b...->b...", c.to(x.dtype), x)  # noqa: E731
    F = net(scale(1 / torch.hypot(t, torch.full_like(t, sigma_data))), torch.log(t) * 0.25)
    return scale(solution.c_skip(t, sigma_data)) + torch.einsum(
        "b,b...->b...", solution.c_out(t, sigma_data).to(x.dtype), F
    )


RIGHT = (
    right("the package's own grid", karras_grid=karras_grid),
    right("the package's own scalings", c_in=lambda t, sigma_data=0.5: Denoiser(torch.nn.Identity(), sigma_data=sigma_data).c_in(t), c_out=lambda t, sigma_data=0.5: Denoiser(torch.nn.Identity(), sigma_data=sigma_data).c_out(t), c_skip=lambda t, sigma_data=0.5: Denoiser(torch.nn.Identity(), sigma_data=sigma_data).c_skip(t)),
    right("a numpy loop with the interpolation written out", karras_grid=numpy_loop),
    right("EDM's order, flipped at the end", karras_grid=edm_order_then_flipped),
    right("sample by sample in float64, cast back", add_noise=in_float64),
    right("torch.lerp-like algebra: x0 + t eps as addcmul", add_noise=lambda x0, eps, t: torch.addcmul(x0, t.to(x0)[(...,) + (None,) * (x0.ndim - 1)], eps)),
    right("logarithms and exponentials", c_in=lambda t, sigma_data=0.5: torch.exp(-0.5 * torch.log(t**2 + sigma_data**2)), c_skip=lambda t, sigma_data=0.5: 1 / (1 + (t / sigma_data) ** 2)),
    right("c_out by way of the harmonic sum of variances", c_out=lambda t, sigma_data=0.5: (1 / (1 / t**2 + 1 / sigma_data**2)).sqrt(), c_noise=lambda t: 0.25 * torch.log10(t) / math.log10(math.e)),
    right("an in-place buffer of its own", denoise=in_a_buffer),
    right("einsum", denoise=by_einsum),
    right("lambda with other parameter names", network_target=lambda clean, noisy, level, width=0.5: solution.network_target(clean, noisy, level, width))
)  # fmt: skip
