"""Assignment 4: mistakes and odd but right solutions. Sources: public code (named), known pitfalls, slips of students."""

from __future__ import annotations

import math

import numpy as np
import torch
from variants import mutant, right
from variants import solution as solution_of

from minicm.distances import pseudo_huber as package_huber
from minicm.objectives.base import Draw
from minicm.objectives.ict import ICT
from minicm.schedules import EDM
from minicm.times import LogNormalIndex, ct_decay, ct_points, ect_gap

solution = solution_of("a4")
per_sample = solution.per_sample


# ---------------------------------------------------------------------------------------------- mistakes
def root(k, K, s0=2, s1=150):
    """The root in N(k)."""
    return math.sqrt(k / K * ((s1 + 1) ** 2 - s0**2) + s0**2)


def huber(reduce):
    """pseudo_huber of the flat residual (B, n) and c."""
    return lambda a, b, c: reduce((a - b).flatten(1), c)


def distribution(grid, mean=-1.1, std=2.0):
    """The values of ln t's distribution function at the grid's points, up to scale and shift."""
    return torch.erf((grid.log() - mean) / (math.sqrt(2) * std))


def to_one(mass):
    """Scaled to sum to 1."""
    return mass / mass.sum()


def earlier(stage=lambda step, d: step // d, n=lambda t, k, b: 1 + k * torch.sigmoid(-b * t), least=0.0):
    """ect_earlier with a part of it exchanged."""

    def ect_earlier(t, step, d, q=2.0, k=8.0, b=1.0):
        return (t * (1 - n(t, k, b) / q ** (stage(step, d) + 1))).clamp(min=least)

    return ect_earlier


def loss(*, z=None, at_s=None, grad=False, detach=False, weight=None, aim=None, d=None):
    """ct_loss with a part of it exchanged."""

    def ct_loss(f, f_target, x0, eps, t, s, distance):
        x_t, x_s = solution.pair(x0, eps, t, s)
        if z:
            x_s = x0 + per_sample(s, x0) * z(eps)
        with torch.set_grad_enabled(grad):
            y_target = f_target(x_s, at_s(t, s) if at_s else s)
        y = f(x_t, t).detach() if detach else f(x_t, t)
        losses = (d or distance)(y, aim(x0, y_target) if aim else y_target)
        return losses * (weight(t, s) if weight else 1 / (t - s)).to(losses)

    return ct_loss


def exchanged_times(f, f_target, x0, eps, t, s, distance):
    return solution.ct_loss(f, f_target, x0, eps, s, t, distance)


def exchanged_models(f, f_target, x0, eps, t, s, distance):
    return solution.ct_loss(f_target, f, x0, eps, t, s, distance)


def own_target(f, f_target, x0, eps, t, s, distance):
    """mu = 0 written as f for its target, whatever target is given."""
    return solution.ct_loss(f, f, x0, eps, t, s, distance)


def loss_along_the_width(f, f_target, x0, eps, t, s, distance):
    if x0.ndim == 2:
        return solution.ct_loss(f, f_target, x0, eps, t, s, distance)
    x_t, x_s = (x0 + time.to(x0) * eps for time in (t, s))
    return distance(f(x_t, t), f_target(x_s, s).detach()) / (t - s).to(x0)


def batch_mean(f, f_target, x0, eps, t, s, distance):
    return solution.ct_loss(f, f_target, x0, eps, t, s, distance).mean()


def outer(f, f_target, x0, eps, t, s, distance):
    return solution.ct_loss(f, f_target, x0, eps, t, s, distance) / torch.ones_like(t)[:, None].to(x0)


MUTANTS = (
    mutant("N counts intervals", "these are the intervals", ct_points=lambda k, K, s0=2, s1=150: math.ceil(root(k, K, s0, s1) - 1)),
    mutant("no - 1 inside ceil", "one point too many", ct_points=lambda k, K, s0=2, s1=150: math.ceil(root(k, K, s0, s1)) + 1),
    mutant("rounded down", "rounded down", ct_points=lambda k, K, s0=2, s1=150: int(root(k, K, s0, s1) - 1) + 1),
    mutant("s1 for s1 + 1", "ends at s1", ct_points=lambda k, K, s0=2, s1=150: solution.ct_points(k, K, s0, s1 - 1)),
    mutant("N grows linearly", "linearly", ct_points=lambda k, K, s0=2, s1=150: math.ceil(s0 + k / K * (s1 + 1 - s0))),
    mutant("numpy's ceil: a float", "int", ct_points=lambda k, K, s0=2, s1=150: float(np.ceil(root(k, K, s0, s1)))),
    mutant("CIFAR-10's s0 and s1 always", "not passed on", ct_points=lambda k, K, s0=2, s1=150: solution.ct_points(k, K)),
    mutant("mu from N - 1 (both official code bases)", "official code", ct_decay=lambda k, K, s0=2, s1=150, mu0=0.9: mu0 ** (s0 / (solution.ct_points(k, K, s0, s1) - 1))),
    mutant("mu without s0", "s0 is missing", ct_decay=lambda k, K, s0=2, s1=150, mu0=0.9: mu0 ** (1 / solution.ct_points(k, K, s0, s1))),
    mutant("1 - mu", "share of theta", ct_decay=lambda k, K, s0=2, s1=150, mu0=0.9: 1 - solution.ct_decay(k, K, s0, s1, mu0)),
    mutant("mu0 throughout", "at every step", ct_decay=lambda k, K, s0=2, s1=150, mu0=0.9: mu0),
    mutant("a new z for the second point", "new one", pair=lambda x0, eps, t, s: (x0 + per_sample(t, x0) * eps, x0 + per_sample(s, x0) * torch.randn(len(x0), *[1] * (x0.ndim - 1)).to(x0))),
    mutant("the pair exchanged", "exchanged", pair=lambda x0, eps, t, s: solution.pair(x0, eps, s, t)),
    mutant("one point twice", "x_t again", pair=lambda x0, eps, t, s: solution.pair(x0, eps, t, t)),
    mutant("unit noise", "not scaled", pair=lambda x0, eps, t, s: (x0 + eps, x0 + eps)),
    mutant("t along the width", "broadcast", pair=lambda x0, eps, t, s: tuple(x0 + (v.to(x0) if x0.ndim > 2 else per_sample(v, x0)) * eps for v in (t, s))),
    mutant("per element, summed", "per element and summed", pseudo_huber=huber(lambda r, c: ((r**2 + c**2).sqrt() - c).sum(1))),
    mutant("per element, averaged (Kinyugo, mincy, diffusers' script)", "per element and averaged", pseudo_huber=huber(lambda r, c: ((r**2 + c**2).sqrt() - c).mean(1))),
    mutant("mean for sum", "averaged, not summed", pseudo_huber=huber(lambda r, c: ((r**2).mean(1) + c**2).sqrt() - c)),
    mutant("c not subtracted", "not subtracted", pseudo_huber=huber(lambda r, c: ((r**2).sum(1) + c**2).sqrt())),
    mutant("c not squared", "not squared", pseudo_huber=huber(lambda r, c: ((r**2).sum(1) + c).sqrt() - c)),
    mutant("the norm first: an infinite slope at 0", "infinite slope", pseudo_huber=huber(lambda r, c: (((r**2).sum(1).sqrt()) ** 2 + c**2).sqrt() - c)),
    mutant("one number for the batch", "one number a sample", pseudo_huber=huber(lambda r, c: ((r**2).sum(1) + c**2).sqrt().mean() - c)),
    mutant("P_mean = +1.1 (Kinyugo's README, mincy)", "sign of P_mean", interval_mass=lambda grid, mean=-1.1, std=2.0: solution.interval_mass(grid, -mean, std)),
    mutant("no root of 2", "root of 2", interval_mass=lambda grid, mean=-1.1, std=2.0: solution.interval_mass(grid, mean, std / math.sqrt(2))),
    mutant("erf's differences as they are", "do not sum to 1", interval_mass=lambda grid, mean=-1.1, std=2.0: distribution(grid, mean, std).diff()),
    mutant("the normal's mass, its tails not left out", "outside the grid", interval_mass=lambda grid, mean=-1.1, std=2.0: distribution(grid, mean, std).diff() / 2),
    mutant("points for intervals", "N - 1 intervals", interval_mass=lambda grid, mean=-1.1, std=2.0: to_one((-(((grid.log() - mean) / std) ** 2) / 2).exp())),
    mutant("density for mass", "density", interval_mass=lambda grid, mean=-1.1, std=2.0: to_one((-(((grid[:-1].log() - mean) / std) ** 2) / 2).exp())),
    mutant("t for ln t", "ln is missing", interval_mass=lambda grid, mean=-1.1, std=2.0: to_one(torch.erf((grid - mean) / (math.sqrt(2) * std)).diff())),
    mutant("uniform intervals: CM's law", "CM's law", interval_mass=lambda grid, mean=-1.1, std=2.0: torch.full_like(grid[1:], 1 / (len(grid) - 1))),
    mutant("P_mean and P_std fixed", "not passed on", interval_mass=lambda grid, mean=-1.1, std=2.0: solution.interval_mass(grid)),
    mutant("ECT's stage off by one", "not stage + 1", ect_earlier=earlier(stage=lambda step, d: step // d - 1)),
    mutant("stages from 1, plus 1", "one too high", ect_earlier=earlier(stage=lambda step, d: step // d + 1)),
    mutant("stage not rounded", "not a whole number", ect_earlier=earlier(stage=lambda step, d: step / d)),
    mutant("stage rounded to the nearest", "to the nearest", ect_earlier=earlier(stage=lambda step, d: round(step / d))),
    mutant("negative s not clamped", "clamped at 0", ect_earlier=earlier(least=-math.inf)),
    mutant("the sigmoid's sign", "sign in the sigmoid", ect_earlier=earlier(n=lambda t, k, b: 1 + k * torch.sigmoid(b * t))),
    mutant("ECT's constant variant", "left out", ect_earlier=earlier(n=lambda t, k, b: 1.0)),
    mutant("the gap for the earlier time", "not below t", ect_earlier=lambda t, step, d, q=2.0, k=8.0, b=1.0: t - solution.ect_earlier(t, step, d, q, k, b)),
    mutant("CIFAR-10's q, k and b always", "q, k and b", ect_earlier=lambda t, step, d, q=2.0, k=8.0, b=1.0: solution.ect_earlier(t, step, d)),
    mutant("t and s exchanged", "it is s", ct_loss=exchanged_times),
    mutant("f and its target exchanged", "it is s", ct_loss=exchanged_models),
    mutant("f for f_target, whatever is given", "f 2 and f_target 0", ct_loss=own_target),
    mutant("two noises in the loss", "new one", ct_loss=loss(z=lambda eps: torch.randn(len(eps), *[1] * (eps.ndim - 1)).to(eps))),
    mutant("both at t", "asked at one time", ct_loss=loss(at_s=lambda t, s: t)),
    mutant("weight inverted", "inverted", ct_loss=loss(weight=lambda t, s: t - s)),
    mutant("no weight (CM's lambda = 1)", "is missing", ct_loss=loss(weight=lambda t, s: torch.ones_like(t))),
    mutant("weight 1/t", "weight is 1/t", ct_loss=loss(weight=lambda t, s: 1 / t)),
    mutant("weight 1/(s - t)", "negative", ct_loss=loss(weight=lambda t, s: 1 / (s - t))),
    mutant("regress to x0", "compared with x0", ct_loss=loss(aim=lambda x0, y: x0)),
    mutant("its own distance", "not used", ct_loss=loss(d=lambda a, b: (a - b).square().flatten(1).sum(1))),
    mutant("target not detached", "stopgrad", ct_loss=loss(grad=True)),
    mutant("f detached", "no gradient", ct_loss=loss(detach=True)),
    mutant("averaged over the batch", "one number a sample", ct_loss=batch_mean),
    mutant("(B,) beside (B, 1)", "outer product", ct_loss=outer),
    mutant("t along the width in the loss", "broadcast", ct_loss=loss_along_the_width),
    mutant("mu(k) with CIFAR-10's N(k)", "passed on to N(k)", ct_decay=lambda k, K, s0=2, s1=150, mu0=0.9: mu0 ** (s0 / solution.ct_points(k, K))),
    mutant("the general pseudo-Huber, whose slope is c", "factor c too many", pseudo_huber=huber(lambda r, c: c**2 * ((1 + (r**2).sum(1) / c**2).sqrt() - 1))),
    mutant("c by the dimension, whatever is given", "c is not passed on", pseudo_huber=huber(lambda r, c: ((r**2).sum(1) + 0.00054**2 * r.shape[1]).sqrt() - 0.00054 * r.shape[1] ** 0.5)),
    mutant("the masses in float32", "1281 points", interval_mass=lambda grid, mean=-1.1, std=2.0: to_one(distribution(grid, mean, std).float().diff()).double() if len(grid) > 100 else solution.interval_mass(grid, mean, std)),
    mutant("s clamped at t_min", "not at t_min", ect_earlier=earlier(least=0.002)),
    mutant("t changed in place", "in place", ect_earlier=lambda t, step, d, q=2.0, k=8.0, b=1.0: t.copy_(solution.ect_earlier(t, step, d, q, k, b))),
    mutant("b fixed", "b is not passed on", ect_earlier=lambda t, step, d, q=2.0, k=8.0, b=1.0: solution.ect_earlier(t, step, d, q, k)),
    mutant("t - s in float32", "last digits", ct_loss=loss(weight=lambda t, s: 1 / (t.float() - s.float()).double()))
)  # fmt: skip


# ------------------------------------------------------------------------------------------ odd but right
def by_package(f, f_target, x0, eps, t, s, distance):
    draw = Draw(t=t, s=s, eps=eps, seed=torch.zeros(len(t), dtype=torch.int64))

    def online(x, t, label=None):
        return f(x, t)

    online.schedule = EDM()
    return ICT(distance=distance).loss(online, lambda x, t, label=None: f_target(x, t), x0, None, draw, 0, 1)


def detached_later(f, f_target, x0, eps, t, s, distance):
    """f first, x_s stepped down from x_t by the data's own slope eps, the weight inside."""
    x_t = torch.addcmul(x0, per_sample(t, x0), eps)
    y = f(x_t, t)
    y_target = f_target(x_t + per_sample(s - t, x0) * eps, s).detach()
    return torch.div(distance(y, y_target), (t - s).to(x0.dtype))


def one_by_one(grid, mean=-1.1, std=2.0):
    """The masses in plain Python."""
    below = [0.5 * math.erfc((mean - math.log(t)) / (std * 2**0.5)) for t in grid.tolist()]
    mass = [b - a for a, b in zip(below, below[1:])]
    return torch.tensor([m / (below[-1] - below[0]) for m in mass], dtype=grid.dtype)


def by_distribution(grid, mean=-1.1, std=2.0):
    """The masses by torch.distributions."""
    law = torch.distributions.LogNormal(*torch.tensor([mean, std], dtype=torch.float64))
    return to_one(law.cdf(grid).diff())


def by_loop(x0, eps, t, s):
    """Sample by sample."""
    rows = [(x + a * e, x + b * e) for x, e, a, b in zip(x0, eps, t.tolist(), s.tolist())]
    return [torch.stack(points) for points in zip(*rows)]


def squared_root(k, K, s0=2, s1=150):
    """N(k) in whole numbers: the first N with K N^2 >= k ((s1 + 1)^2 - s0^2) + K s0^2."""
    return math.isqrt((k * ((s1 + 1) ** 2 - s0**2) + K * s0**2 - 1) // K) + 1


def where(t, step, d, q=2.0, k=8.0, b=1.0):
    """The clamp as a choice, the sigmoid written out."""
    s = t - t * (1 + k / (1 + (b * t).exp())) * q ** -(1 + math.floor(step / d))
    return torch.where(s > 0, s, torch.zeros_like(s))


RIGHT = (
    right("the package's curriculum", ct_points=ct_points, ct_decay=ct_decay),
    right("N(k) in whole numbers", ct_points=squared_root),
    right("mu(k) as a power", ct_decay=lambda k, K, s0=2, s1=150, mu0=0.9: mu0 ** (s0 / solution.ct_points(k, K, s0, s1))),
    right("the pair sample by sample, in a list", pair=by_loop),
    right("the pair by the clock", pair=lambda x0, eps, t, s: (EDM().add_noise(x0, eps, t), EDM().add_noise(x0, eps, s))),
    right("the package's pseudo-Huber, without cancellation", pseudo_huber=lambda a, b, c: package_huber(c)(a, b)),
    right("a norm with c as one more element", pseudo_huber=lambda a, b, c: torch.cat([(a - b).flatten(1), a.new_full((len(a), 1), c)], 1).norm(dim=1) - c),
    right("the package's law", interval_mass=lambda grid, mean=-1.1, std=2.0: LogNormalIndex(mean, std).mass(grid)),
    right("erfc, in plain Python", interval_mass=one_by_one),
    right("torch's distributions", interval_mass=by_distribution),
    right("the package's mapping", ect_earlier=lambda t, step, d, q=2.0, k=8.0, b=1.0: ect_gap(t, step // d, q=q, k=k, b=b)),
    right("a choice for the clamp", ect_earlier=where),
    right("the package's ICT", ct_loss=by_package),
    right("detach instead of no_grad, x_s from x_t", ct_loss=detached_later),
    right("numbers of numpy and of torch", ct_points=lambda k, K, s0=2, s1=150: np.ceil(root(k, K, s0, s1)).astype(np.int32), ct_decay=lambda k, K, s0=2, s1=150, mu0=0.9: torch.tensor(mu0).double() ** (s0 / solution.ct_points(k, K, s0, s1))),
    right("torch's Normal, which holds its numbers in float32", interval_mass=lambda grid, mean=-1.1, std=2.0: to_one(torch.distributions.Normal(mean, std).cdf(grid.log()).diff()))
)  # fmt: skip
