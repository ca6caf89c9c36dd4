"""Assignment 2: mistakes and odd but right solutions. Sources: public code (named), known pitfalls, slips of students."""

from __future__ import annotations

import math

import numpy as np
import torch
from variants import mutant, right
from variants import solution as solution_of

from minicm.solvers import euler_step as package_euler
from minicm.solvers import heun_step as package_heun
from minicm.solvers import solve as package_solve

solution = solution_of("a2")
eps_hat, euler_step, heun_step, per_sample = (
    solution.eps_hat,
    solution.euler_step,
    solution.heun_step,
    solution.per_sample,
)


# ---------------------------------------------------------------------------------------------- mistakes
def backwards(denoise, schedule, x, t, s):
    return 2 * x - euler_step(denoise, schedule, x, t, s)


def asks_at_s(denoise, schedule, x, t, s):
    return euler_step(lambda x, _: denoise(x, s), schedule, x, t, s)


def edm_only(denoise, schedule, x, t, s):
    return x + per_sample((s - t) / t, x) * (x - denoise(x, t))


def no_noise_at_s(denoise, schedule, x, t, s):
    return denoise(x, t)


def fresh_noise(denoise, schedule, x, t, s):
    alpha, sigma = per_sample(schedule.alpha(s), x), per_sample(schedule.sigma(s), x)
    return alpha * denoise(x, t) + sigma * torch.randn(len(x), *[1] * (x.ndim - 1)).to(x)


def times_exchanged(denoise, schedule, x, t, s):
    return euler_step(denoise, schedule, x, s, t)


def along_the_width(denoise, schedule, x, t, s):
    return (
        x + ((s - t) / t).to(x) * (x - denoise(x, t))
        if x.shape[-1] == len(t)
        else euler_step(denoise, schedule, x, t, s)
    )


def in_place(denoise, schedule, x, t, s):
    new = euler_step(denoise, schedule, x, t, s)
    return x.copy_(new)


def heun_with(denoise, schedule, x, t, s, *, at=None, point=None, mix=None):
    """Heun with its second evaluation or its average exchanged."""
    x_s = euler_step(denoise, schedule, x, t, s)
    if (schedule.sigma(s) == 0).all():
        return x_s
    slope_t = eps_hat(schedule, x, denoise(x, t), t)
    later, when = (x_s if point is None else point), (s if at is None else at)
    slope_s = eps_hat(schedule, later, denoise(later, when), when)
    width = schedule.sigma(s) / schedule.alpha(s) - schedule.sigma(t) / schedule.alpha(t)
    slope = mix(slope_t, slope_s) if mix else (slope_t + slope_s) / 2
    return per_sample(schedule.alpha(s), x) * (x / per_sample(schedule.alpha(t), x) + per_sample(width, x) * slope)


def remembered(denoise):
    """A denoiser that answers a question asked before without being evaluated."""
    known = []

    def ask(x, t):
        for a, b, answer in known:
            if a is x and b is t:
                return answer
        known.append((x, t, denoise(x, t)))
        return known[-1][2]

    return ask


def heun(**parts):
    """heun_with on a denoiser that is not asked twice for the same."""
    return lambda denoise, schedule, x, t, s: heun_with(
        remembered(denoise), schedule, x, t, s, **{k: v(x, t, s) for k, v in parts.items()}
    )


def mean_of_x0(denoise, schedule, x, t, s):
    x0 = denoise(x, t)
    x_s = euler_step(lambda *_: x0, schedule, x, t, s)
    if (schedule.sigma(s) == 0).all():
        return x_s
    return euler_step(lambda *_: (x0 + denoise(x_s, s)) / 2, schedule, x, t, s)


def edm_heun(denoise, schedule, x, t, s):
    slope = (x - denoise(x, t)) / per_sample(t, x)
    x_s = x + per_sample(s - t, x) * slope
    if (s == 0).all():
        return x_s
    return x + per_sample(s - t, x) * (slope + (x_s - denoise(x_s, s)) / per_sample(s, x)) / 2


def slope_at_clean(denoise, schedule, x, t, s):
    s = s.clamp(min=1e-3)
    return heun_step(denoise, schedule, x, t, s)


def without_the_last(denoise, schedule, x, times, step):
    return solution.solve(denoise, schedule, x, times[:-1], step)


def sorted_down(denoise, schedule, x, times, step):
    return solution.solve(denoise, schedule, x, sorted(times, reverse=True), step)


def always_from_x(denoise, schedule, x, times, step):
    for t, s in zip(times[:-1], times[1:]):
        new = step(denoise, schedule, x, *(torch.full((len(x),), v, dtype=torch.float64) for v in (t, s)))
    return new


def scalar_times(denoise, schedule, x, times, step):
    for t, s in zip(times[:-1], times[1:]):
        x = step(denoise, schedule, x, torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64))
    return x


def float32_times(denoise, schedule, x, times, step):
    for t, s in zip(times[:-1], times[1:]):
        x = step(denoise, schedule, x, torch.full((len(x),), t), torch.full((len(x),), s))
    return x


def fit(x, y):
    return np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)[0].item()


def ddim(x, eps, bar_t, bar_s, *, a=math.sqrt, b=math.sqrt, back=None, clip=False):
    """DDIM with a part of it exchanged."""
    x0 = (x - b(1 - bar_t) * eps) / a(bar_t)
    x0 = x0.clamp(-1, 1) if clip else x0
    return a(bar_s) * x0 + b(1 - (bar_s if back is None else back)) * eps


def exponential(denoise, schedule, x, t, s):
    ratio = schedule.sigma(s) / schedule.sigma(t)
    share = schedule.alpha(s) - ratio * schedule.alpha(t)
    return per_sample(ratio, x) * x + per_sample(share, x) * denoise(x, t)


MUTANTS = (
    mutant("the score instead of the noise", "score", eps_hat=lambda schedule, x, x0, t: eps_hat(schedule, x, x0, t) / per_sample(schedule.sigma(t), x)),
    mutant("x0_hat not scaled by alpha", "not scaled by alpha", eps_hat=lambda schedule, x, x0, t: (x - x0) / per_sample(schedule.sigma(t), x)),
    mutant("x0_hat - x", "sign", eps_hat=lambda schedule, x, x0, t: -eps_hat(schedule, x, x0, t)),
    mutant("not divided by sigma", "unit size", eps_hat=lambda schedule, x, x0, t: eps_hat(schedule, x, x0, t) * per_sample(schedule.sigma(t), x)),
    mutant("sigma broadcasts along the width (flow_matching)", "broadcast", eps_hat=lambda schedule, x, x0, t: (x - x0) / (schedule.sigma(t).to(x) if x.ndim > 2 else per_sample(schedule.sigma(t), x))),
    mutant("the step's sign turned (700 times the error)", "sign of the step", euler_step=backwards),
    mutant("denoise asked at s", "asked at s", euler_step=asks_at_s),
    mutant("EDM's formula in every clock", "EDM clock only", euler_step=edm_only),
    mutant("x0_hat returned", "noise that belongs to s is missing", euler_step=no_noise_at_s),
    mutant("new noise at s: a sampler's step, not the ODE's", "new noise", euler_step=fresh_noise),
    mutant("t and s exchanged", "exchanged", euler_step=times_exchanged),
    mutant("times broadcast along the width", "broadcast", euler_step=along_the_width),
    mutant("written into x", "in place", euler_step=in_place),
    mutant("Euler in place of Heun", "2 time(s)", heun_step=euler_step),
    mutant("Heun without its second slope", "Euler's step", heun_step=heun(mix=lambda *_: lambda a, b: a)),
    mutant("second evaluation at t", "at t again", heun_step=heun(at=lambda x, t, s: t.clone())),
    mutant("second evaluation at the old point", "old point", heun_step=heun(point=lambda x, t, s: x.clone())),
    mutant("midpoint rule", "midpoint", heun_step=heun(at=lambda x, t, s: (t + s) / 2)),
    mutant("second slope alone", "no average", heun_step=heun(mix=lambda *_: lambda a, b: b)),
    mutant("slopes added", "added", heun_step=heun(mix=lambda *_: lambda a, b: a + b)),
    mutant("correction subtracted", "wrong sign", heun_step=heun(mix=lambda *_: lambda a, b: (3 * a - b) / 2)),
    mutant("estimates of x0 averaged", "x0_hats are averaged", heun_step=mean_of_x0),
    mutant("EDM's Heun in every clock", "y = x/alpha", heun_step=edm_heun),
    mutant("a slope at s = 0", "s = 0", heun_step=slope_at_clean),
    mutant("last step forgotten", "one is missing", solve=without_the_last),
    mutant("times sorted: it can no longer encode", "caller's", solve=sorted_down),
    mutant("every step starts from the first point", "after its last step", solve=always_from_x),
    mutant("times without a batch axis", "must have shape (3,)", solve=scalar_times),
    mutant("times in float32", "float64", solve=float32_times),
    mutant("slope instead of order", "sign", order=lambda steps, errors: -solution.order(steps, errors)),
    mutant("first and last error only", "first and the last", order=lambda steps, errors: math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])),
    mutant("log10 over ln", "different bases", order=lambda steps, errors: -fit(np.log(steps), np.log10(errors))),
    mutant("errors not in logarithms", "errors' logarithm", order=lambda steps, errors: -fit(np.log(steps), errors)),
    mutant("alpha_bar without roots", "roots", ddim_step=lambda x, eps, a, b: ddim(x, eps, a, b, a=float, b=float)),
    mutant("the noise of t put back", "that of s", ddim_step=lambda x, eps, a, b: ddim(x, eps, a, b, back=a)),
    mutant("predicted x0 returned", "predicted x0 is returned", ddim_step=lambda x, eps, a, b: ddim(x, eps, a, 1.0)),
    mutant("from s to t", "exchanged", ddim_step=lambda x, eps, a, b: ddim(x, eps, b, a)),
    mutant("clipped x0 (image pipelines do it)", "clipped", ddim_step=lambda x, eps, a, b: ddim(x, eps, a, b, clip=True)),
    mutant("Heun: a small s taken for clean", "twice", heun_step=lambda denoise, schedule, x, t, s: (euler_step if (schedule.sigma(s) < 0.01).all() else heun_step)(denoise, schedule, x, t, s)),
    mutant("DDIM: alpha_bar beside x0, its root forgotten", "beside x0", ddim_step=lambda x, eps, bar_t, bar_s: bar_s * (x - (1 - bar_t) ** 0.5 * eps) / bar_t + (1 - bar_s) ** 0.5 * eps),
    mutant("DDPM's mean for DDIM's step", "DDPM", ddim_step=lambda x, eps, bar_t, bar_s: (x - (1 - bar_t / bar_s) / (1 - bar_t) ** 0.5 * eps) / (bar_t / bar_s) ** 0.5)
)  # fmt: skip


# ------------------------------------------------------------------------------------------ odd but right
def one_sample_at_a_time(denoise, schedule, x, t, s):
    parts = zip(x.split(1), denoise(x, t).split(1), t.split(1), s.split(1))
    return torch.cat([euler_step(lambda *_, p=p: p, schedule, y, a, b) for y, p, a, b in parts])


def heun_as_correction(denoise, schedule, x, t, s):
    x0 = denoise(x, t)
    x_s = euler_step(lambda *_: x0, schedule, x, t, s)
    if schedule.sigma(s).abs().sum() == 0:
        return x_s
    change = eps_hat(schedule, x_s, denoise(x_s, s), s) - eps_hat(schedule, x, x0, t)
    half = 0.5 * (schedule.sigma(s) - schedule.alpha(s) / schedule.alpha(t) * schedule.sigma(t))
    return torch.addcmul(x_s, per_sample(half, x), change)


def in_float64(denoise, schedule, x, t, s):
    return heun_step(lambda y, t: denoise(y.to(x.dtype), t).double(), schedule, x.double(), t, s).to(x.dtype)


def while_loop(denoise, schedule, x, times, step):
    left = [torch.ones(len(x), dtype=torch.float64) * t for t in times]
    while len(left) > 1:
        t, left = left[0], left[1:]
        x = step(denoise, schedule, x, t, left[0])
    return x


RIGHT = (
    right("the package's steps", euler_step=package_euler, heun_step=package_heun),
    right("the package's solve", solve=lambda denoise, schedule, x, times, step: package_solve(denoise, schedule, x, times, step)),
    right("one sample at a time", euler_step=one_sample_at_a_time),
    right("Heun as a correction of Euler", heun_step=heun_as_correction),
    right("float64 inside", heun_step=in_float64),
    right("a while loop that eats the list", solve=while_loop),
    right("numpy's polyfit on log10", order=lambda steps, errors: float(-np.polyfit(np.log10(steps), np.log10(errors), 1)[0])),
    right("DDIM as a rotation of (x, eps)", ddim_step=lambda x, eps, bar_t, bar_s: (bar_s / bar_t) ** 0.5 * x + ((1 - bar_s) ** 0.5 - (bar_s * (1 - bar_t) / bar_t) ** 0.5) * eps),
    right("eps by way of the score", eps_hat=lambda schedule, x, x0, t: -per_sample(schedule.sigma(t), x) * ((per_sample(schedule.alpha(t), x) * x0 - x) / per_sample(schedule.sigma(t), x) ** 2)),
    right("least squares by torch: a number in a tensor without axes", order=lambda steps, errors: -torch.linalg.lstsq(torch.tensor([[math.log(n), 1.0] for n in steps]).double(), torch.tensor(errors).double().log()[:, None]).solution[0, 0]),
    right("the exponential form: sigma's ratio times x, and the rest of x0_hat", euler_step=exponential)
)  # fmt: skip
