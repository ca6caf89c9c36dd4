"""Bonus assignment 1: mistakes and odd but right solutions. Sources: public code, known pitfalls, slips of students."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.autograd import forward_ad
from variants import mutant, right
from variants import solution as solution_of

from minicm.denoiser import Denoiser
from minicm.objectives.scm import tangent as package_tangent
from minicm.schedules import TrigFlow
from minicm.times import LogNormalAngles

solution = solution_of("b1")
per_sample = solution.per_sample


# ---------------------------------------------------------------------------------------------- mistakes
def angles(make):
    """draw_angles from tau's parts: make(z, mean, std, sigma_d)."""

    def draw_angles(n, generator, mean=-1.0, std=1.4, sigma_d=0.5):
        return make(torch.randn(n, generator=generator, dtype=torch.float64), mean, std, sigma_d)

    return draw_angles


def f_of(make):
    """consistency from (x, F(x, t), cos, sin, sigma_d)."""

    def consistency(F, x, t, sigma_d=0.5):
        return make(x, F(x, t), per_sample(t.cos(), x), per_sample(t.sin(), x), sigma_d)

    return consistency


def speed(make):
    """velocity from (x, x0_hat, cos, sin)."""
    return lambda x, x0_hat, t: make(x, x0_hat, per_sample(t.cos(), x), per_sample(t.sin(), x))


def moved(F, x, t, dx, dt, h):
    """F a little further along the direction."""
    return F(x + h * dx, t + h * dt)


def quotient(h, central=False):
    """derivative by differences."""

    def derivative(F, x, t, dx, dt):
        ahead, behind = moved(F, x, t, dx, dt, h), moved(F, x, t, dx, dt, -h if central else 0)
        return F(x, t), (ahead - behind) / (2 * h if central else h)

    return derivative


def jvp(direction, swap=False):
    """derivative along another direction."""

    def derivative(F, x, t, dx, dt):
        both = torch.func.jvp(F, (x, t), direction(dx, dt))
        return both[::-1] if swap else both

    return derivative


def tangent_of(make, direction=lambda dx, one: (dx, one)):
    """tangent from (x, dx, F, dF, cos, sin, sigma_d, r)."""

    def tangent(F, x, t, dx, sigma_d=0.5, r=1.0):
        value, dF = torch.func.jvp(F, (x, t), direction(dx, torch.ones_like(t)))
        return make(x, dx, value, dF, per_sample(t.cos(), x), per_sample(t.sin(), x), sigma_d, r)

    return tangent


def whole(x, dx, F, dF, cos, sin, sd, r):
    """The tangent as it should be."""
    return cos**2 * (sd * F + dx) - r * cos * sin * (x - sd * dF)


def scaled(length):
    """normalize by length(g, c), which has g's number of axes."""
    return lambda g, c=0.1: g / length(g, c)


def norm(g):
    """The length of each sample."""
    return per_sample(g.flatten(1).norm(dim=1), g)


def loss(
    *, sign=-1, weigh=None, normal=True, source=None, aim=None, grad=False, detach=False, arguments=None, w_of=None
):
    """scm_loss with a part of it exchanged."""

    def scm_loss(F, F_target, x, t, dx, w, sigma_d=0.5, r=1.0, c=0.1):
        sigma_d, r, c = arguments or (sigma_d, r, c)
        with torch.set_grad_enabled(grad):
            g = solution.tangent(source(F, F_target) if source else F_target, x, t, dx, sigma_d, r)
            g = solution.normalize(g, c) if normal else g
            target = (aim(F, F_target, x, t) if aim else F_target(x, t)) + sign * g
        value = F(x, t).detach() if detach else F(x, t)
        squared = (value - target).square().flatten(1).sum(1)
        w = w_of(w) if w_of else w
        if weigh:
            return weigh(squared, w.to(x.dtype), x)
        return w.to(x.dtype).exp() / x[0].numel() * squared - w.to(x.dtype)

    return scm_loss


LAST = lambda t, x: t.to(x.dtype)  # noqa: E731  (B,) as it is: along the last axis, where it fits

MUTANTS = [
    # angles
    mutant("sigma_d is forgotten", "not divided by sigma_d", draw_angles=angles(lambda z, m, s, d: (m + s * z).exp().atan())),
    mutant("times sigma_d", "multiplied by sigma_d", draw_angles=angles(lambda z, m, s, d: ((m + s * z).exp() * d).atan())),
    mutant("mean with the wrong sign", "sign of the mean", draw_angles=angles(lambda z, m, s, d: ((s * z - m).exp() / d).atan())),
    mutant("std as the variance", "taken for the variance", draw_angles=angles(lambda z, m, s, d: ((m + s**0.5 * z).exp() / d).atan())),
    mutant("std left out", "std is not used", draw_angles=angles(lambda z, m, s, d: ((m + z).exp() / d).atan())),
    mutant("fixed numbers", "not passed on", draw_angles=angles(lambda z, m, s, d: ((1.4 * z - 1).exp() / 0.5).atan())),
    mutant("no arctan: noise levels", "between 0 and pi/2", draw_angles=angles(lambda z, m, s, d: (m + s * z).exp() / d)),
    mutant("no exponential", "between 0 and pi/2", draw_angles=angles(lambda z, m, s, d: ((m + s * z) / d).atan())),
    mutant("uniform angles", "another law", draw_angles=lambda n, generator, mean=-1.0, std=1.4, sigma_d=0.5: math.pi / 2 * torch.rand(n, generator=generator, dtype=torch.float64)),
    mutant("its own generator", "the same seed", draw_angles=lambda n, generator, mean=-1.0, std=1.4, sigma_d=0.5: ((mean + std * torch.randn(n, dtype=torch.float64)).exp() / sigma_d).atan()),
    mutant("float32", "must be torch.float64", draw_angles=angles(lambda z, m, s, d: ((m + s * z).exp() / d).atan().float())),
    # consistency
    mutant("the paper's sign of F", "sign of F is the paper's", consistency=f_of(lambda x, F, cos, sin, sd: cos * x - sin * sd * F)),
    mutant("sigma_d missing", "sigma_d is missing", consistency=f_of(lambda x, F, cos, sin, sd: cos * x + sin * F)),
    mutant("sigma_d always .5", "not passed on", consistency=f_of(lambda x, F, cos, sin, sd: cos * x + sin * 0.5 * F)),
    mutant("sine and cosine exchanged", "exchanged", consistency=f_of(lambda x, F, cos, sin, sd: sin * x + cos * sd * F)),
    mutant("t along the image's width", "broadcast along the last axis", consistency=lambda F, x, t, sigma_d=0.5: (LAST(t.cos(), x) * x + LAST(t.sin(), x) * sigma_d * F(x, t)) if x.ndim > 2 else solution.consistency(F, x, t, sigma_d)),
    mutant("F twice", "2 times, not once", consistency=lambda F, x, t, sigma_d=0.5: (F(x, t), solution.consistency(F, x, t, sigma_d))[1]),
    mutant("float64 result", "must be torch.float32", consistency=lambda F, x, t, sigma_d=0.5: solution.consistency(F, x.double(), t, sigma_d)),
    # velocity
    mutant("time runs backwards", "points the other way", velocity=speed(lambda x, x0, cos, sin: sin * x0 - cos * (x - cos * x0) / sin)),
    mutant("plus for minus", "signs of the two parts", velocity=speed(lambda x, x0, cos, sin: cos * (x - cos * x0) / sin + sin * x0)),
    mutant("derivatives exchanged", "sine and cosine are exchanged", velocity=speed(lambda x, x0, cos, sin: sin * (x - cos * x0) / sin - cos * x0)),
    mutant("z not divided", "missing its division", velocity=speed(lambda x, x0, cos, sin: cos * (x - cos * x0) - sin * x0)),
    mutant("x for z", "z is taken for x", velocity=speed(lambda x, x0, cos, sin: cos * x - sin * x0)),
    mutant("EDM's slope", "EDM clock's slope", velocity=lambda x, x0_hat, t: (x - x0_hat) / per_sample(t, x)),
    mutant("t along the image's width", "broadcast along the last axis", velocity=lambda x, x0_hat, t: ((x * LAST(t.cos(), x) - x0_hat) / LAST(t.sin(), x)) if x.ndim > 2 else solution.velocity(x, x0_hat, t)),
    # derivative
    mutant("forward difference, h = 1e-3", "difference quotient", derivative=quotient(1e-3)),
    mutant("central difference, h = 1e-2", "difference quotient", derivative=quotient(1e-2, central=True)),
    mutant("by t alone", "change of x is left out", derivative=jvp(lambda dx, dt: (torch.zeros_like(dx), dt))),
    mutant("along x alone", "change of t is left out", derivative=jvp(lambda dx, dt: (dx, torch.zeros_like(dt)))),
    mutant("dt is 1", "dt is taken for 1", derivative=jvp(lambda dx, dt: (dx, torch.ones_like(dt)))),
    mutant("results exchanged", "which comes first", derivative=jvp(lambda dx, dt: (dx, dt), swap=True)),
    mutant("the derivative alone", "must return two tensors", derivative=lambda F, x, t, dx, dt: torch.func.jvp(F, (x, t), (dx, dt))[1]),
    mutant("the gradient of the sum in place of the derivative", "derivative is wrong", derivative=lambda F, x, t, dx, dt: (F(x, t), dx * torch.func.grad(lambda x: F(x, t).sum())(x))),
    # tangent
    mutant("the paper's signs with our F", "signs are the paper's", tangent=tangent_of(lambda x, dx, F, dF, cos, sin, sd, r: -(cos**2) * (sd * F - dx) - r * cos * sin * (x + sd * dF))),
    mutant("cos(t) forgotten", "factor cos(t) is missing", tangent=tangent_of(lambda x, dx, F, dF, cos, sin, sd, r: whole(x, dx, F, dF, cos, sin, sd, r) / cos)),
    mutant("negated", "its sign is wrong", tangent=tangent_of(lambda *a: -whole(*a))),
    mutant("r unused", "r is not used", tangent=tangent_of(lambda x, dx, F, dF, cos, sin, sd, r: whole(x, dx, F, dF, cos, sin, sd, 1.0))),
    mutant("r on everything", "r multiplies all of it", tangent=tangent_of(lambda x, dx, F, dF, cos, sin, sd, r: r * whole(x, dx, F, dF, cos, sin, sd, 1.0))),
    mutant("r on the first part", "r fades in the wrong part", tangent=tangent_of(lambda x, dx, F, dF, cos, sin, sd, r: r * cos**2 * (sd * F + dx) - cos * sin * (x - sd * dF))),
    mutant("x is held fixed in dF/dt", "by t alone", tangent=tangent_of(whole, lambda dx, one: (torch.zeros_like(dx), one))),
    mutant("sigma_d missing beside dF", "missing beside dF/dt", tangent=tangent_of(lambda x, dx, F, dF, cos, sin, sd, r: cos**2 * (sd * F + dx) - r * cos * sin * (x - dF))),
    mutant("sigma_d always .5", "sigma_d is not passed on", tangent=tangent_of(lambda x, dx, F, dF, cos, sin, sd, r: whole(x, dx, F, dF, cos, sin, 0.5, r))),
    mutant("dx/dt left out", "dx/dt is left out", tangent=tangent_of(lambda x, dx, F, dF, cos, sin, sd, r: whole(x, 0, F, dF, cos, sin, sd, r))),
    mutant("t along the image's width", "broadcast along the last axis", tangent=lambda F, x, t, dx, sigma_d=0.5, r=1.0: LAST(t.cos(), x) * solution.tangent(F, x, t, dx, sigma_d, r) if x.ndim > 2 else solution.tangent(F, x, t, dx, sigma_d, r)),
    mutant("the tangent of the denoiser: F's time held", "tangent is wrong", tangent=tangent_of(whole, lambda dx, one: (dx, 0 * one))),
    # normalisation
    mutant("without c", "NaN", normalize=scaled(lambda g, c: norm(g))),
    mutant("c as a floor", "normalize of three samples", normalize=scaled(lambda g, c: norm(g).clamp(min=c))),
    mutant("c always .1", "c is not passed on", normalize=scaled(lambda g, c: norm(g) + 0.1)),
    mutant("one length for the batch", "whole batch", normalize=scaled(lambda g, c: g.norm() + c)),
    mutant("each number by itself", "its own size", normalize=scaled(lambda g, c: g.abs() + c)),
    mutant("root of the mean square", "root of the mean square", normalize=scaled(lambda g, c: norm(g) / g[0].numel() ** 0.5 + c)),
    mutant("c under the root", "c stands under the root", normalize=scaled(lambda g, c: (norm(g) ** 2 + c**2).sqrt())),
    mutant("the squared length", "squared length", normalize=scaled(lambda g, c: norm(g) ** 2 + c)),
    mutant("sum of absolute values", "sum of absolute values", normalize=scaled(lambda g, c: per_sample(g.flatten(1).abs().sum(1), g) + c)),
    mutant("clipped", "paper's alternative", normalize=lambda g, c=0.1: g.clamp(-1, 1)),
    mutant("length along the last axis alone", "normalize of three samples", normalize=scaled(lambda g, c: g.norm(dim=-1, keepdim=True) + c)),
    mutant("in place", "in place", normalize=lambda g, c=0.1: g.add_(1e-12) / (norm(g) + c) * 0),
    # loss
    mutant("tangent added", "taken off the target", scm_loss=loss(sign=1)),
    mutant("not normalised", "not normalised", scm_loss=loss(normal=False)),
    mutant("the tangent of the trained network", "tangent is that of F", scm_loss=loss(source=lambda F, G: F)),
    mutant("everything of the trained network", "all of it is F's", scm_loss=loss(source=lambda F, G: F, aim=lambda F, G, x, t: F(x, t).detach())),
    mutant("no target", "target is missing", scm_loss=loss(aim=lambda F, G, x, t: 0.0)),
    mutant("w not subtracted", "w is not subtracted", scm_loss=loss(weigh=lambda q, w, x: w.exp() / x[0].numel() * q)),
    mutant("w added", "w is added", scm_loss=loss(weigh=lambda q, w, x: w.exp() / x[0].numel() * q + w)),
    mutant("e^-w", "sign of w in the exponent", scm_loss=loss(weigh=lambda q, w, x: (-w).exp() / x[0].numel() * q - w)),
    mutant("w for e^w", "it is its logarithm", scm_loss=loss(weigh=lambda q, w, x: w / x[0].numel() * q - w)),
    mutant("1/D missing", "1/D is missing", scm_loss=loss(weigh=lambda q, w, x: w.exp() * q - w)),
    mutant("1/B for 1/D", "divided by the batch", scm_loss=loss(weigh=lambda q, w, x: w.exp() / len(x) * q - w)),
    mutant("one number for the batch", "must have shape", scm_loss=loss(weigh=lambda q, w, x: (w.exp() / x[0].numel() * q - w).mean())),
    mutant("fixed settings", "not passed on", scm_loss=loss(arguments=(0.5, 1.0, 0.1))),
    mutant("gradient through the target", "gradient reaches F_target", scm_loss=loss(grad=True)),
    mutant("F detached", "no gradient reaches F", scm_loss=loss(detach=True)),
    mutant("w detached", "no gradient reaches w", scm_loss=loss(w_of=lambda w: w.detach())),
]  # fmt: skip


# -------------------------------------------------------------------------------------- odd but right
def by_dual_numbers(F, x, t, dx, dt):
    """Forward differentiation by hand."""
    with forward_ad.dual_level():
        out = F(forward_ad.make_dual(x, dx), forward_ad.make_dual(t, dt))
        value, dF = forward_ad.unpack_dual(out)
        return value, dF if dF is not None else torch.zeros_like(value)


def multiplied_first(F, x, t, dx, sigma_d=0.5, r=1.0):
    """The paper's way: cos sin is multiplied into the direction, before the derivative."""
    cos, sin = per_sample(t.cos(), x), per_sample(t.sin(), x)
    value, dF = torch.func.jvp(F, (x, t), (cos * sin * dx, t.cos() * t.sin()))
    return cos**2 * (sigma_d * value + dx) - r * (cos * sin * x - sigma_d * dF)


def by_the_papers_network(F, x, t, dx, sigma_d=0.5, r=1.0):
    """Algorithm 1 to the letter, for the paper's network -F."""
    value, dF = torch.func.jvp(lambda x, t: -F(x, t), (x, t), (dx, torch.ones_like(t)))
    cos, sin = per_sample(t.cos(), x), per_sample(t.sin(), x)
    return -(cos**2) * (sigma_d * value - dx) - r * cos * sin * (x + sigma_d * dF)


def of_the_package(F, x, t, dx, sigma_d=0.5, r=1.0):
    """The package's own page, given a denoiser whose network is F."""

    class Net(torch.nn.Module):
        def forward(self, x_in, c_noise, label=None, w=None, u=None):
            return F(sigma_d * x_in, c_noise)

    return package_tangent(Denoiser(Net(), TrigFlow(sigma_data=sigma_d), sigma_d), x, dx, t, warm=r)[1]


def one_by_one(F, F_target, x, t, dx, w, sigma_d=0.5, r=1.0, c=0.1):
    """A loop over the samples, but for the network."""
    aim = F_target(x, t).detach()
    g = solution.tangent(F_target, x, t, dx, sigma_d, r).detach()
    value, losses = F(x, t), []
    for i in range(len(x)):
        goal = aim[i] - g[i] / (g[i].pow(2).sum().sqrt() + c)
        losses.append(w[i].exp() * (value[i] - goal).pow(2).mean() - w[i])
    return torch.stack(losses).to(x.dtype)


def with_numpy(n, generator, mean=-1.0, std=1.4, sigma_d=0.5):
    """numpy's arctan2 of noise and data; the generator draws as for a table of two columns."""
    z = torch.randn(n, 2, generator=generator, dtype=torch.float64).sum(1).numpy() / np.sqrt(2)
    return torch.from_numpy(np.arctan2(np.exp(mean + std * z), sigma_d * np.ones(n)))


RIGHT = [
    right("numpy's arctan2", draw_angles=with_numpy),
    right("the package's law, which cuts at noise level 80", draw_angles=lambda n, generator, mean=-1.0, std=1.4, sigma_d=0.5: LogNormalAngles(mean, std, sigma_d)(n, generator)),
    right("normal by the inverse distribution function", draw_angles=lambda n, generator, mean=-1.0, std=1.4, sigma_d=0.5: ((mean + std * torch.special.ndtri(torch.rand(n, generator=generator, dtype=torch.float64).clamp(min=1e-12))).exp() / sigma_d).atan()),
    right("v-prediction's way: (cos x - x0_hat)/sin", velocity=lambda x, x0_hat, t: (per_sample(t.cos(), x) * x - x0_hat) / per_sample(t.sin(), x)),
    right("cos and sin by a complex number", consistency=lambda F, x, t, sigma_d=0.5: torch.complex(x, (sigma_d * F(x, t)).to(x.dtype)).mul(torch.polar(torch.ones_like(t), -t).to(torch.complex64 if x.dtype == torch.float32 else torch.complex128).reshape(-1, *[1] * (x.ndim - 1))).real),
    right("dual numbers", derivative=by_dual_numbers),
    right("cos sin multiplied in before the derivative", tangent=multiplied_first),
    right("the paper's letters, with -F", tangent=by_the_papers_network),
    right("the package's page", tangent=of_the_package),
    right("hypot-free length", normalize=lambda g, c=0.1: g / (torch.einsum("bi,bi->b", g.flatten(1), g.flatten(1)).sqrt() + c).reshape(-1, *[1] * (g.ndim - 1))),
    right("a loop over the samples", scm_loss=one_by_one)
]  # fmt: skip
