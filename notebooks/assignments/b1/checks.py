"""Bonus assignment 1: sCM's tangent, the limit in which two neighbouring times meet (arXiv:2410.11081)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minicm.course.kit import (
    EXACT,
    SHAPES,
    Assignment,
    Causes,
    Impl,
    Task,
    Wrong,
    can_learn,
    f64,
    held_fixed,
    is_tensor,
    keeps_shape,
    reaches,
    same,
    two,
    untouched,
)
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.metrics.consistency import paired_error
from minicm.nets.mlp import MLP
from minicm.objectives.base import Draw, Objective, dropout_seeds, unit_noise
from minicm.schedules import TrigFlow
from minicm.train import TrainConfig, train

ANGLES = (0.05, 0.7, 1.2, 1.5)  # of four samples
T = f64(ANGLES)
X, X0, DX = ([[0.3 * a - b, 0.2 + 0.1 * a * b] for a in range(1, 5)] for b in (0.4, -0.3, 1.1))


def rows(function: Callable, *columns: Any) -> list[list[float]]:
    """A specification of one sample, for each sample."""
    return [function(*row) for row in zip(*columns)]


# ------------------------------------ specifications: slow and obvious, in plain Python, one number at a time
def spec_angle_below(t: float, mean: float, std: float, sd: float) -> float:
    """sCM, arXiv:2410.11081, Algorithm 1: the probability that arctan(e^tau/sd) <= t, tau ~ N(mean, std^2)."""
    return (1 + math.erf((math.log(sd * math.tan(t)) - mean) / (math.sqrt(2) * std))) / 2


def spec_trig_velocity(x: list[float], x0: list[float], t: float) -> list[float]:
    """sCM, section 3: d/dt of cos(t) x0 + sin(t) z, where z is what makes that x."""
    z = [(a - math.cos(t) * b) / math.sin(t) for a, b in zip(x, x0)]
    return [math.cos(t) * c - math.sin(t) * b for b, c in zip(x0, z)]


def spec_trig_tangent(
    x: list[float], dx: list[float], F: list[float], dF: list[float], t: float, sd: float, r: float
) -> list[float]:
    """sCM, Algorithm 1, for the network G = -F of the paper: -cos^2 (sd G - dx) - r cos sin (x + sd dG)."""
    cos, sin = math.cos(t), math.sin(t)
    rows = zip(x, dx, F, dF)
    return [-cos * cos * (sd * -f - d) - r * cos * sin * (a + sd * -df) for a, d, f, df in rows]


def spec_normalized(g: list[float], c: float) -> list[float]:
    """sCM, Algorithm 1: g/(|g| + c)."""
    return [a / (math.hypot(*g) + c) for a in g]


# --------------------------------------------------------------------------------------------- angles
def angles_shape(impl: Impl, seed: int) -> None:
    """draw_angles returns n float64 angles between 0 and pi/2, the same for the same seed"""
    t, again = (impl.draw_angles(500, torch.Generator().manual_seed(seed)) for _ in range(2))
    is_tensor(t, (500,), torch.float64, "draw_angles(500)")
    if not ((t > 0) & (t < math.pi / 2)).all():
        raise Wrong(f"draw_angles gives angles from {t.min():.3g} to {t.max():.3g}, not between 0 and pi/2: "
                    "an arctan of something positive lies there")  # fmt: skip
    if not torch.equal(t, is_tensor(again, (500,), torch.float64, "draw_angles(500)")):
        raise Wrong("draw_angles gives other angles for a generator of the same seed: is it passed on?")


def angles_law(impl: Impl, seed: int) -> None:
    """the angles have sCM's law: ln(sigma_d tan t) is normal with mean and std

    The largest gap between the shares below t and their probabilities (Kolmogorov), 4,000 draws: beyond 3.1/sqrt(4000) =
    .049 in one of 10^8 right runs.
    """
    for args in ((0.4, 0.3, 2.0), (-1.0, 1.4, 0.5)):
        mean, std, sd = args
        given = () if sd == 0.5 else args  # these are the defaults
        t = impl.draw_angles(4000, torch.Generator().manual_seed(seed), *given)
        t = is_tensor(t, (4000,), torch.float64, "draw_angles(4000)").sort().values.tolist()
        others = {
            "tau is not divided by sigma_d after its exponential": (mean, std, 1.0),
            "it is multiplied by sigma_d, not divided": (mean, std, 1 / sd),
            "the sign of the mean is wrong": (-mean, std, sd),
            "std is taken for the variance": (mean, math.sqrt(std), sd),
            "std is not used": (mean, 1.0, sd),
            "mean, std and sigma_d are not passed on": (-1.0, 1.4, 0.5),
        }
        gap = law_gap(t, *args)
        if gap > 0.049:
            near = min(others, key=lambda cause: law_gap(t, *others[cause]))
            why = near if law_gap(t, *others[near]) < 0.049 else "t = arctan(e^tau/sigma_d)"
            raise Wrong(
                f"draw_angles has another law for mean = {mean}, std = {std}, sigma_d = {sd}: the share of angles below "
                f"some t is off by {gap:.2f}; {why}"
            )


def law_gap(t: list[float], mean: float, std: float, sd: float) -> float:
    """The largest gap between the shares of sorted angles and sCM's probabilities."""
    return max(abs((i + 0.5) / len(t) - spec_angle_below(v, mean, std, sd)) for i, v in enumerate(t))


# --------------------------------------------------------------------------------------- consistency
def spread(x: Tensor, t: Tensor) -> Tensor:
    """A network that knows its sample's time and nothing else."""
    return torch.ones_like(x) * t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


consistency_shape = keeps_shape("consistency", lambda x, t: (spread, x, t / 4), "angles")


def consistency_values(impl: Impl, seed: int) -> None:
    """f = cos(t) x + sin(t) sigma_d F, of one evaluation of F, and f(x, 0) = x exactly"""
    x = f64(X)
    for sd in (0.5, 2.0):
        seen: list[Tensor] = []

        def F(x: Tensor, t: Tensor, seen: list = seen) -> Tensor:
            seen.append(t)
            return 0.7 * x + spread(x, t)

        given = () if sd == 0.5 else (sd,)  # 0.5 is the default
        got = is_tensor(impl.consistency(F, x, T, *given), (4, 2), torch.float64, "consistency")
        if len(seen) != 1:
            raise Wrong(f"consistency evaluates F {len(seen)} times, not once")
        cos, sin, out = T.cos()[:, None], T.sin()[:, None], F(x, T)
        causes = {
            "the sign of F is the paper's: here F is minus that one": cos * x - sin * sd * out,
            "sigma_d is missing": cos * x + sin * out,
            "sigma_d is not passed on": cos * x + sin * 0.5 * out,
            "sine and cosine are exchanged": sin * x + cos * sd * out,
            "this is the EDM clock's f": x / (1 + (T / sd)[:, None] ** 2) + sin * out,
        }
        what = f"consistency is wrong for sigma_d = {sd}"
        same(got, cos * x + sin * sd * out, what, rtol=EXACT, atol=EXACT, causes=causes)
    start = impl.consistency(spread, x, torch.zeros(4, dtype=torch.float64))
    if not torch.equal(is_tensor(start, (4, 2), torch.float64, "consistency"), x):
        raise Wrong("f(x, 0) is not x: sin(0) = 0 and cos(0) = 1 give it exactly")


# ------------------------------------------------------------------------------------------ velocity
velocity_shape = keeps_shape("velocity", lambda x, t: (x, x / 2, t / 4), "angles")


def velocity_values(impl: Impl, seed: int) -> None:
    """dx/dt = cos(t) z - sin(t) x0_hat, z being the noise that x0_hat leaves in x"""
    x, x0 = f64(X), f64(X0)
    cos, sin = T.cos()[:, None], T.sin()[:, None]
    z = (x - cos * x0) / sin
    causes = {
        "it points the other way: cos(t) z - sin(t) x0_hat grows with t": sin * x0 - cos * z,
        "the signs of the two parts are equal": cos * z + sin * x0,
        "sine and cosine are exchanged": sin * z - cos * x0,
        "z is missing its division by sin(t)": cos * (x - cos * x0) - sin * x0,
        "z is taken for x": cos * x - sin * x0,
        "this is the EDM clock's slope, (x - x0_hat)/t": (x - x0) / T[:, None],
    }
    got = is_tensor(impl.velocity(x, x0, T), (4, 2), torch.float64, "velocity")
    # 1e-10: near t = 0 z is a small difference divided by a small sine
    same(got, rows(spec_trig_velocity, X, X0, ANGLES), "velocity is wrong", rtol=1e-10, causes=causes,
         otherwise="solve x = cos(t) x0_hat + sin(t) z for z, then differentiate by t")  # fmt: skip


# ---------------------------------------------------------------------------------------- derivative
class Waves:
    """F(x, t) = a (sin(x_0 x_1) cos(3 t), t x_0^2 + x_1) with its derivatives worked out by hand; counts its evaluations."""

    def __init__(self, a: float = 1.0) -> None:
        self.a = torch.tensor([a], dtype=torch.float64, requires_grad=True)
        self.count = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.count += 1
        p, q = x[:, 0], x[:, 1]
        return self.a * torch.stack(((p * q).sin() * (3 * t).cos(), t * p**2 + q), 1)

    def by_hand(self, x: list[float], t: float, dx: list[float], dt: float) -> list[float]:
        """The derivative along (dx, dt) of one sample."""
        (p, q), (dp, dq), a = x, dx, self.a.item()
        first = math.cos(p * q) * (dp * q + p * dq) * math.cos(3 * t) - 3 * math.sin(p * q) * math.sin(3 * t) * dt
        return [a * first, a * (2 * t * p * dp + dt * p * p + dq)]


def derivative_shape(impl: Impl, seed: int) -> None:
    """derivative returns F(x, t) and its derivative, both like x"""
    for shape in SHAPES:
        t, x = torch.linspace(0.3, 1.2, shape[0]).double(), torch.ones(shape)
        pair = two(impl.derivative(spread, x, t, torch.zeros(shape), torch.ones_like(t)), "derivative")
        for name, value in zip(("value", "derivative"), pair):
            is_tensor(value, shape, torch.float32, f"derivative's {name} for x {shape}")


def derivative_values(impl: Impl, seed: int) -> None:
    """the derivative is exact along x and t together, each sample along its own direction"""
    F, dT = Waves(), [1.0, 0.5, -2.0, 0.0]
    value, got = two(impl.derivative(F, f64(X), T, f64(DX), f64(dT)), "derivative")
    none = [[0.0, 0.0]] * 4
    causes: Causes = {
        "the change of x is left out: this is the partial derivative by t": rows(F.by_hand, X, ANGLES, none, dT),
        "the change of t is left out: this is the derivative along x alone": rows(F.by_hand, X, ANGLES, DX, [0.0] * 4),
        "dt is taken for 1: it is given": rows(F.by_hand, X, ANGLES, DX, [1.0] * 4),
        "this is F itself, which comes first": F(f64(X), T),
    }
    got = is_tensor(got, (4, 2), torch.float64, "derivative")
    same(got, rows(F.by_hand, X, ANGLES, DX, dT), "derivative is wrong", rtol=1e-10, atol=EXACT, causes=causes,
         otherwise="is it a difference quotient? Forward differentiation is exact; see torch.func.jvp")  # fmt: skip
    value = is_tensor(value, (4, 2), torch.float64, "derivative's value")
    same(value, F(f64(X), T), "derivative's first result is not F(x, t)", rtol=EXACT, atol=EXACT)


# ------------------------------------------------------------------------------------------- tangent
tangent_shape = keeps_shape("tangent", lambda x, t: (spread, x, t / 4, x / 2), "angles")


def tangents(F: Waves, sd: float, r: float) -> list[list[float]]:
    """The specification at the four samples."""
    out = F(f64(X), T).tolist()
    dF = rows(F.by_hand, X, ANGLES, DX, [1.0] * 4)
    return rows(spec_trig_tangent, X, DX, out, dF, ANGLES, [sd] * 4, [r] * 4)


def tangent_values(impl: Impl, seed: int) -> None:
    """the tangent is that of Algorithm 1, in our sign of F, with r on its second part"""
    F = Waves()
    for sd, r in ((0.5, 1.0), (2.0, 0.25), (0.5, 0.0)):
        want, whole, first = f64(tangents(F, sd, r)), f64(tangents(F, sd, 1.0)), f64(tangents(F, sd, 0.0))
        x, dx, out, cos, sin = f64(X), f64(DX), F(f64(X), T), T.cos()[:, None], T.sin()[:, None]
        by_t = f64(rows(F.by_hand, X, ANGLES, [[0.0, 0.0]] * 4, [1.0] * 4))
        dF = f64(rows(F.by_hand, X, ANGLES, DX, [1.0] * 4))
        causes: Causes = {
            "the signs are the paper's: here F is minus that F": -(cos**2) * (sd * out - dx)
            - r * cos * sin * (x + sd * dF),
            "it is df/dt: the factor cos(t) is missing": want / cos,
            "its sign is wrong": -want,
            "r is not used": whole,
            "r multiplies all of it: the first part is there from the first step": r * whole,
            "r fades in the wrong part": r * first + (whole - first),
            "the derivative of F is by t alone: x moves, too": first - r * cos * sin * (x - sd * by_t),
            "sigma_d is missing beside dF/dt": first - r * cos * sin * (x - dF),
            "sigma_d is not passed on": tangents(F, 0.5, r),
            "dx/dt is left out": want - cos**2 * dx,
        }
        given = {} if (sd, r) == (0.5, 1.0) else {"sigma_d": sd, "r": r}  # these are the defaults
        got = is_tensor(impl.tangent(F, x, T, dx, **given), (4, 2), torch.float64, "tangent")
        what = f"tangent is wrong for sigma_d = {sd}, r = {r}"
        other = "differentiate f = cos(t) x + sin(t) sigma_d F"
        same(got, want, what, rtol=1e-10, atol=EXACT, causes=causes, otherwise=other)


def tangent_vanishes(impl: Impl, seed: int) -> None:
    """along the flow the exact consistency function of Gaussian data does not change: its tangent is 0

    Data N(0, s^2): x_t has the variance v = s^2 cos^2 + sigma_d^2 sin^2, f*(x, t) = s x/sqrt(v), dx/dt = x v'/(2 v). Terms of size 3
    cancel to rounding, some 1e-15.
    """
    s, sd = 0.2, 0.5

    def F(x: Tensor, t: Tensor) -> Tensor:
        v = s**2 * t.cos() ** 2 + sd**2 * t.sin() ** 2
        return x * ((s / v.sqrt() - t.cos()) / (sd * t.sin()))[:, None]

    v = s**2 * T.cos() ** 2 + sd**2 * T.sin() ** 2
    dx = f64(X) * ((sd**2 - s**2) * T.sin() * T.cos() / v)[:, None]
    g = is_tensor(impl.tangent(F, f64(X), T, dx), (4, 2), torch.float64, "tangent")
    if not g.abs().max() < 1e-11:
        raise Wrong(
            f"the tangent of the exact consistency function is {g.abs().max():.1e}, not 0: along the flow f does not change"
        )


# ------------------------------------------------------------------------------------- normalisation
def normal_shape(impl: Impl, seed: int) -> None:
    """normalize keeps shape and dtype, and does not divide 0 by 0"""
    for shape in SHAPES:
        g = torch.zeros(shape)
        out = is_tensor(impl.normalize(g), shape, torch.float32, f"normalize of zeros {shape}")
        if out.any():
            raise Wrong("normalize of a zero tangent is not zero")
        untouched(torch.zeros(shape), g, "normalize")


def normal_values(impl: Impl, seed: int) -> None:
    """each sample's tangent is divided by its own length plus c"""
    g = [[3.0, 0.0, -4.0, 0.0], [0.03, 0.0, 0.0, 0.04], [100.0, 20.0, 5.0, -1.0]]
    G = f64(g)
    length = G.norm(dim=1, keepdim=True)
    for c in (0.1, 2.0):
        causes = {
            "c is missing: short tangents, which are noise near the end, get length 1": G / length,
            "c is not passed on": G / (length + 0.1),
            "the length is that of the whole batch: it is one a sample": G / (G.norm() + c),
            "each number is divided by its own size": G / (G.abs() + c),
            "the length is the root of the mean square: it is of the sum": G / (length / 2 + c),
            "c stands under the root": G / (length**2 + c**2).sqrt(),
            "it is divided by the squared length": G / (length**2 + c),
            "the length is the sum of absolute values": G / (G.abs().sum(1, keepdim=True) + c),
            "it is clipped: that is the paper's alternative": G.clamp(-1, 1),
        }
        given = () if c == 0.1 else (c,)  # the default
        got = impl.normalize(G.reshape(3, 2, 2), *given)
        got = is_tensor(got, (3, 2, 2), torch.float64, "normalize").flatten(1)
        want = rows(spec_normalized, g, [c] * 3)
        same(got, want, f"normalize of three samples of shape (2, 2) is wrong for c = {c}", rtol=1e-10, causes=causes,
             otherwise="g/(|g| + c), with the length over all axes but the first")  # fmt: skip


# ---------------------------------------------------------------------------------------------- loss
W = f64([0.0, 0.3, -0.5, 1.2])


def loss_shape(impl: Impl, seed: int) -> None:
    """scm_loss returns (B,) in x's dtype, also where the batch is as long as the image is wide"""
    for shape in SHAPES:
        t, x, w = (torch.linspace(0.3, 1.2, shape[0]).double(), torch.ones(shape), torch.zeros(shape[0]).double())
        losses = impl.scm_loss(spread, spread, x, t, x / 2, w)
        is_tensor(losses, shape[:1], torch.float32, f"scm_loss of x {shape}")


def aims(F: Waves, sd: float, r: float, c: float) -> tuple[Tensor, Tensor]:
    """The target's F and its normalised tangent, by the specification."""
    return F(f64(X), T).detach(), f64(rows(spec_normalized, tangents(F, sd, r), [c] * 4))


def loss_values(impl: Impl, seed: int) -> None:
    """the loss is e^w/D |F - (F_target - g/(|g| + c))|^2 - w"""
    F, F_target = Waves(0.8), Waves(-0.6)
    x, dx = f64(X), f64(DX)
    for sd, r, c in ((0.5, 1.0, 0.1), (2.0, 0.25, 1.5)):
        out, (aim, g) = F(x, T).detach(), aims(F_target, sd, r, c)

        def loss(residual: Tensor, w: Tensor = W) -> Tensor:
            return w.exp() / 2 * residual.square().sum(1) - w

        own_aim, own = aims(F, sd, r, c)
        raw = f64(tangents(F_target, sd, r))
        causes = {
            "the tangent has the paper's sign: with F minus the paper's it is taken off the target": loss(
                out - aim - g
            ),
            "the tangent is not normalised": loss(out - aim + raw),
            "the tangent is that of F: it is the target's": loss(out - aim + own),
            "all of it is F's: the target is F_target": loss(out - own_aim + own),
            "the target is missing: F is drawn to the tangent": loss(out + g),
            "w is not subtracted: then w goes to minus infinity": loss(out - aim + g) + W,
            "w is added": loss(out - aim + g) + 2 * W,
            "the sign of w in the exponent is wrong": loss(out - aim + g, -W) - 2 * W,
            "w itself is the weight: it is its logarithm": W / 2 * (out - aim + g).square().sum(1) - W,
            "1/D is missing, D being the numbers in a sample": 2 * (loss(out - aim + g) + W) - W,
            "it is divided by the batch, not by the numbers in a sample": (loss(out - aim + g) + W) / 2 - W,
            "it is averaged over the batch": loss(out - aim + g).mean().expand(4),
            "sigma_d, r and c are not passed on": loss(out - aim + aims(F_target, 0.5, 1.0, 0.1)[1]),
        }
        given = {} if sd == 0.5 else {"sigma_d": sd, "r": r, "c": c}  # these are the defaults
        got = is_tensor(impl.scm_loss(F, F_target, x, T, dx, W, **given), (4,), torch.float64, "scm_loss")
        what = f"scm_loss is wrong for sigma_d = {sd}, r = {r}, c = {c}"
        same(got, loss(out - aim + g), what, rtol=1e-10, atol=EXACT, causes=causes,
             otherwise="see which of its parts the tasks above find right")  # fmt: skip


def loss_gradient(impl: Impl, seed: int) -> None:
    """gradients reach F and w alone, and hold the target and its tangent fixed"""
    x, dx = f64(X), f64(DX)
    F, F_target, shared = Waves(0.8), Waves(-0.6), Waves(0.8)
    for net, target in ((F, F_target), (shared, shared)):  # shared: the target is F itself, as in sCM
        w = W.clone().requires_grad_()
        net.count = 0
        loss = is_tensor(impl.scm_loss(net, target, x, T, dx, w), (4,), None, "scm_loss")
        if net is F and net.count != 1:
            raise Wrong(f"scm_loss evaluates F {net.count} times, not once: the tangent is the target's")
        can_learn(loss, "scm_loss")
        held_fixed("F_target", F_target.a)
        if net.a.grad is None or w.grad is None:
            raise Wrong(f"no gradient reaches {'F' if net.a.grad is None else 'w'}")
        (aim, g), out = aims(target, 0.5, 1.0, 0.1), net(x, T).detach()
        per_weight = 2 * W.exp() / 2 * ((out - aim + g) * out / net.a.detach()).sum(1)
        which = "scm_loss" if net is F else "scm_loss with F as its own target"
        same(net.a.grad, [per_weight.sum().item()], f"the gradient of {which} is wrong", rtol=1e-9,
             otherwise="does one flow through the target or its tangent, or is a part of F detached?")  # fmt: skip
        same(w.grad, W.exp() / 2 * (out - aim + g).square().sum(1) - 1, f"the gradient of {which} by w is wrong", rtol=1e-9,
             otherwise="w must not be detached")  # fmt: skip


# ---------------------------------------------------------------------------------------- real thing
class StudentSCM(Objective):
    """Continuous-time distillation by a student's parts; the true denoiser is the teacher."""

    def __init__(self, impl: Impl, teacher: Callable, warmup: int, c: float = 0.1) -> None:
        super().__init__()
        self.parts, self.frozen = (impl,), (teacher,)  # in tuples: no weights of ours
        self.warmup, self.c = warmup, c

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        t = self.parts[0].draw_angles(len(x0), generator).clamp(max=TrigFlow().t_max)  # the law has no end
        return Draw(t=t, eps=unit_noise(x0, generator), seed=dropout_seeds(len(x0), k, generator))

    def loss(
        self, f: Denoiser, f_target: Denoiser, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        x = f.schedule.add_noise(x0, draw.eps, draw.t)
        dx = self.parts[0].velocity(x, self.frozen[0](x, draw.t), draw.t)
        r, w = min(1.0, k / self.warmup), torch.zeros_like(draw.t)
        return self.parts[0].scm_loss(f.raw, f_target.raw, x, draw.t, dx, w, f.sigma_data, r, self.c)


def model(seed: int, width: int = 48, depth: int = 3) -> Denoiser:
    """A consistency model in TrigFlow of points in the plane, smooth in time, with weights from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Denoiser(MLP(2, width=width, depth=depth, octaves=3, scale=0.3), TrigFlow())


def one_step_error(impl: Impl, f: Denoiser, data: GaussianMixture, seed: int, n: int = 500) -> float:
    """The median distance of one-step samples, by the student's f, from the exact flow of the same noise, in sigma_data."""
    clock = TrigFlow()
    x_T = clock.prior((n, 2), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        x0 = impl.consistency(f.raw, x_T, torch.full((n,), clock.t_max))
    exact = data.flow(x_T / math.cos(clock.t_max), 80.0, 0.0)
    return paired_error(x0, exact, data.sigma_data).median().item()


def trains(impl: Impl, seed: int) -> None:
    """a model distilled with your parts reaches the end of the exact flow in one step"""
    ring, clock = GaussianMixture.ring(), TrigFlow()
    config = TrainConfig(steps=300, batch=256, lr=6e-3, warmup=20, ema=0.97, seed=seed)
    objective = StudentSCM(impl, ring.denoiser(clock), warmup=30)
    for step in train(model(seed), objective, ring, config):
        average = step.ema
    error = one_step_error(impl, average, ring, seed)
    reaches(error, TRAINED_BOUND, "one step of the trained model")


TRAINED_BOUND = (
    0.2  # sigma_d; the solution reaches .11 to .12 on five seeds, dF/dt without the motion of x .27, no dx/dt .32
)

ASSIGNMENT = Assignment(
    name="b1",
    title="sCM's tangent",
    functions=("draw_angles", "consistency", "velocity", "derivative", "tangent", "normalize", "scm_loss"),
    forbidden=("minicm.objectives", "minicm.denoiser", "minicm.times"),
    withheld=("velocity", "eps_hat"),
    tasks=(
        Task("1 angles", ((1, angles_shape), (2, angles_law)), hints=(
            "tau is the logarithm of a noise level of the EDM clock. Which angle has the same ratio of noise to data?",
            "The generator draws tau; exponential, division and arctan follow."
        )),
        Task("2 consistency", ((1, consistency_shape), (2, consistency_values)), hints=(
            "In this clock c_skip and c_out are a cosine and a sine.",
            "The paper's F is minus this F: look at the line in capitals."
        )),
        Task("3 velocity", ((1, velocity_shape), (2, velocity_values)), hints=(
            "Along a path x0 and z stand still; only the angle moves.",
            "First the z that x and x0_hat leave over, then d/dt of cos(t) x0_hat + sin(t) z."
        )),
        Task("4 derivative", ((1, derivative_shape), (3, derivative_values)), hints=(
            "A difference quotient has an error that you cannot make small: the figure shows it.",
            "One pass of torch.func.jvp gives both results. The direction has a part for x and a part for t."
        )),
        Task("5 tangent", ((1, tangent_shape), (3, tangent_values), (2, tangent_vanishes)), hints=(
            "Differentiate f = cos(t) x + sin(t) sigma_d F(x, t) by t, where x depends on t as well. Four terms.",
            "Multiply by cos(t); two of the four then have cos^2, two have cos sin. Which two does r fade in?"
        )),
        Task("6 normalisation", ((1, normal_shape), (2, normal_values)), hints=(
            "One length a sample, over all its axes.",
        )),
        Task("7 loss", ((1, loss_shape), (3, loss_values), (2, loss_gradient)), hints=(
            "What F is drawn to is a fixed point: the target's F, moved along the tangent. To which side?",
            "At the minimum over w, e^w is D over the squared distance. Everything but F(x, t) and w is under torch.no_grad()."
        )),
        Task("8 the real thing", ((3, trains),), hints=("Mend what the tasks above report first.",), real_thing=True)
    )
)  # fmt: skip
