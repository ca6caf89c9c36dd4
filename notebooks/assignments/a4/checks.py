"""Assignment 4: consistency training, as published, improved and tuned (arXiv:2303.01469, 2310.14189, 2406.14548)."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minicm.course import specs
from minicm.course.kit import (
    EXACT,
    SHAPES,
    Assignment,
    Impl,
    Linear,
    Task,
    Wrong,
    alike_within,
    can_learn,
    f64,
    held_fixed,
    is_tensor,
    pairs,
    plain,
    reaches,
    same,
    two,
    type_name,
    untouched,
)
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.distances import l1, l2
from minicm.metrics.consistency import paired_error
from minicm.nets.mlp import MLP
from minicm.objectives.base import Draw, Objective, dropout_seeds, unit_noise
from minicm.schedules import EDM
from minicm.times import karras_grid
from minicm.train import TrainConfig, train

STEPS = (0, 1, 12, 100, 473, 799, 800)  # of 800; no root lies within .05 of a whole number but at the ends
RUNS = ((), (20, 90))  # s0, s1; the first are the defaults


# ------------------------------------ specifications: slow and obvious, in plain Python, one number at a time
def spec_ct_points(k: int, K: int, s0: int, s1: int) -> int:
    """CM, arXiv:2303.01469, appendix C: ceil(sqrt(y) - 1) + 1 is the first n with n^2 >= y; here in whole numbers."""
    n = 1
    while K * n * n < k * ((s1 + 1) ** 2 - s0**2) + K * s0**2:
        n += 1
    return n


def spec_ct_decay(n: float, s0: int, mu0: float) -> float:
    """CM, appendix C, for n = N(k) points: exp(s0 ln(mu0)/n)."""
    return math.exp(s0 * math.log(mu0) / n)


def spec_pseudo_huber(r: list[float], c: float) -> float:
    """iCT, arXiv:2310.14189, section 3.3, of one sample's residual: sqrt(|r|^2 + c^2) - c."""
    return math.sqrt(sum(a * a for a in r) + c * c) - c


def spec_interval_mass(grid: list[float], mean: float, std: float) -> list[float]:
    """iCT, section 3.5: how much of ln t ~ N(mean, std^2) lies in each interval, out of what lies on the grid."""
    below = [math.erf((math.log(t) - mean) / (math.sqrt(2) * std)) for t in grid]
    return [(b - a) / (below[-1] - below[0]) for a, b in zip(below, below[1:])]


def spec_ect_earlier(t: float, stage: float, q: float, k: float, b: float) -> float:
    """ECT, arXiv:2406.14548, section 3.3: max(0, t (1 - n(t)/q^(stage + 1))), n(t) = 1 + k sigmoid(-b t)."""
    n = 1 + k / (1 + math.exp(b * t))
    return max(0.0, t * (1 - n / q ** (stage + 1)))


# ------------------------------------------------------------------------------------------- curriculum
def curriculum_kind(impl: Impl, seed: int) -> None:
    """ct_points returns an int and ct_decay a float, from the first step to the last"""
    for k in STEPS:
        points = impl.ct_points(k, 800)
        if not isinstance(plain(points), numbers.Integral) or isinstance(points, bool):
            raise Wrong(f"ct_points({k}, 800) must return an int, for a grid to be made of it, got {type_name(points)}")
        decay = impl.ct_decay(k, 800)
        if not isinstance(plain(decay), float) or not math.isfinite(decay):
            raise Wrong(
                f"ct_decay({k}, 800) must return a finite float, got {decay if isinstance(decay, float) else type_name(decay)}"
            )


def points_values(impl: Impl, seed: int) -> None:
    """N(k) has the values of CM's appendix C: s0 at the first step, s1 + 1 at the last"""
    for args in RUNS:
        s0, s1 = args or (2, 150)
        want = [spec_ct_points(k, 800, s0, s1) for k in STEPS]
        roots = [math.sqrt(k / 800 * ((s1 + 1) ** 2 - s0**2) + s0**2) for k in STEPS]
        causes = {
            "these are the intervals: N points have N - 1 of them": [n - 1 for n in want],
            "it is one point too many: is 1 subtracted before ceil?": [n + 1 for n in want],
            "it is rounded down, not up": [math.floor(r) for r in roots],
            "it ends at s1, not at s1 + 1": [spec_ct_points(k, 800, s0, s1 - 1) for k in STEPS],
            "N grows linearly; it is N^2 that does": [math.ceil(s0 + k / 800 * (s1 + 1 - s0)) for k in STEPS],
            "s0 and s1 are not passed on": [spec_ct_points(k, 800, 2, 150) for k in STEPS],
        }
        got = f64([impl.ct_points(k, 800, *args) for k in STEPS])
        what = f"ct_points is wrong for k = {STEPS} of 800, s0 = {s0}, s1 = {s1}"
        same(got, want, what, rtol=0, causes=causes, otherwise="compare with CM, appendix C")


def decay_values(impl: Impl, seed: int) -> None:
    """mu(k) = exp(s0 ln(mu0)/N(k)), with the paper's N(k)"""
    for args in ((), (20, 90, 0.95)):
        s0, s1, mu0 = args or (2, 150, 0.9)
        points = [spec_ct_points(k, 800, s0, s1) for k in STEPS]
        want = [spec_ct_decay(n, s0, mu0) for n in points]
        causes = {
            "N(k) - 1, the intervals, are counted, as in the official code; the paper divides by N(k)": [
                spec_ct_decay(n - 1, s0, mu0) for n in points
            ],
            "s0 is missing: mu(0) is not mu0": [spec_ct_decay(n, 1, mu0) for n in points],
            "it is 1 - mu(k), the share of theta": [1 - mu for mu in want],
            "it is mu0 at every step": [mu0] * len(want),
            "mu0 is not passed on": [spec_ct_decay(n, s0, 0.9) for n in points],
            "s0 and s1 are not passed on to N(k)": [
                spec_ct_decay(spec_ct_points(k, 800, 2, 150), s0, mu0) for k in STEPS
            ],
        }
        got = f64([impl.ct_decay(k, 800, *args) for k in STEPS])
        what = f"ct_decay is wrong for k = {STEPS} of 800, s0 = {s0}, s1 = {s1}, mu0 = {mu0}"
        # 1e-6: float32 will do
        same(got, want, what, rtol=1e-6, causes=causes, otherwise="compare with CM, appendix C")


# ------------------------------------------------------------------------------------------------- pair
def pair_shape(impl: Impl, seed: int) -> None:
    """pair returns (x_t, x_s), both like x0, with one noise level for a sample"""
    for shape in SHAPES:
        t = torch.arange(1.0, shape[0] + 1).double()
        x0, eps = torch.zeros(shape), torch.ones(shape)
        for name, x in zip(("x_t", "x_s"), two(impl.pair(x0, eps, t, t / 2), "pair")):
            call = f"pair's {name} for x0 {shape}"
            alike_within(is_tensor(x, shape, torch.float32, call), call)
        untouched(torch.zeros(shape), x0, "pair")
        untouched(torch.ones(shape), eps, "pair")


def pair_values(impl: Impl, seed: int) -> None:
    """x_t = x0 + t eps and x_s = x0 + s eps, with one and the same eps"""
    x0, eps, t, s = pairs(seed)
    x_t, x_s = x0 + t[:, None] * eps, x0 + s[:, None] * eps
    got = [is_tensor(x, (4, 2), torch.float64, "pair") for x in two(impl.pair(x0, eps, t, s), "pair")]
    causes = {"eps is not scaled by the noise level": x0 + eps, "x_t and x_s are exchanged": x_s}
    same(got[0], x_t, "pair's x_t is wrong", rtol=EXACT, atol=EXACT, causes=causes, otherwise="x_t = x0 + t eps")
    causes = {"eps is not scaled by the noise level": x0 + eps, "it is x_t again": x_t}
    same(got[1], x_s, "pair's x_s is wrong", rtol=EXACT, atol=EXACT, causes=causes,
         otherwise="is its noise a new one? Both points share eps")  # fmt: skip


# --------------------------------------------------------------------------------------------- distance
def distance_shape(impl: Impl, seed: int) -> None:
    """pseudo_huber returns one number a sample, (B,)"""
    for shape in SHAPES:
        got = impl.pseudo_huber(torch.ones(shape), torch.zeros(shape), 0.03)
        is_tensor(got, shape[:1], torch.float32, f"pseudo_huber of {shape}")


def distance_values(impl: Impl, seed: int) -> None:
    """pseudo-Huber is sqrt(|a - b|^2 + c^2) - c, with the norm over the whole sample"""
    rows = [[1.0, 2.0, 0.0, -2.0], [3.0, 0.0, -4.0, 0.0], [0.02, 0.0, 0.01, 0.0]]
    for c in (0.03, 4.0):
        each = [[spec_pseudo_huber([r], c) for r in row] for row in rows]
        squares = [sum(r * r for r in row) for row in rows]
        want = [spec_pseudo_huber(row, c) for row in rows]
        causes = {
            "the root is taken per element and summed: the norm is the whole sample's": [sum(e) for e in each],
            "the root is taken per element and averaged: the norm is the whole sample's": [sum(e) / 4 for e in each],
            "the squares are averaged, not summed": [math.sqrt(r / 4 + c * c) - c for r in squares],
            "c is not subtracted": [w + c for w in want],
            "c is not squared under the root": [math.sqrt(r + c) - c for r in squares],
            "there is a factor c too many: the general pseudo-Huber's slope is c far out, iCT's is 1": [
                c * w for w in want
            ],
            "c is not passed on: 0.00054 sqrt(d) is the caller's choice": [
                spec_pseudo_huber(row, 0.00054 * 2) for row in rows
            ],
            "it is the squared distance": squares,
        }
        a = f64(rows).reshape(3, 2, 2)
        got = is_tensor(impl.pseudo_huber(a + 1, torch.ones_like(a), c), (3,), torch.float64, "pseudo_huber")
        what = f"pseudo_huber of three samples of shape (2, 2) is wrong for c = {c}"
        other = "compare with iCT, section 3.3; the norm is that of a whole sample, over all axes but the first"
        same(got, want, what, rtol=1e-10, atol=EXACT, causes=causes, otherwise=other)


def distance_gradient(impl: Impl, seed: int) -> None:
    """its gradient is (a - b)/sqrt(|a - b|^2 + c^2): zero, not NaN, where a = b"""
    a = f64([[0.0, 0.0], [0.03, 0.04], [30.0, -40.0]]).requires_grad_()
    loss = is_tensor(impl.pseudo_huber(a, torch.zeros(3, 2, dtype=torch.float64), 0.05), (3,), None, "pseudo_huber")
    if not loss.requires_grad:
        raise Wrong("pseudo_huber has no gradient: is its input detached?")
    loss.sum().backward()
    if a.grad is None or not a.grad.isfinite().all():
        raise Wrong(
            "pseudo_huber's gradient is NaN or missing where a = b: a norm's root has an infinite slope at 0, so put c^2 under it first"
        )
    r = a.detach()
    want = r / (r.square().sum(1, keepdim=True) + 0.05**2).sqrt()
    same(a.grad, want, "pseudo_huber's gradient is wrong", rtol=1e-9, atol=EXACT, otherwise="is a part of it detached?")


# -------------------------------------------------------------------------------------------- index law
def mass_shape(impl: Impl, seed: int) -> None:
    """interval_mass returns one float64 number for each interval of the grid"""
    for n in (2, 6, 81):
        grid = f64(specs.grid(n, 0.002, 80.0, 7.0))
        got = impl.interval_mass(grid)
        if isinstance(got, Tensor) and tuple(got.shape) == (n,):
            raise Wrong(f"interval_mass of a grid of {n} points returns {n} masses: N points have N - 1 intervals")
        is_tensor(got, (n - 1,), torch.float64, f"interval_mass of {n} points")


def mass_values(impl: Impl, seed: int) -> None:
    """each interval has the mass that ln t ~ N(P_mean, P_std^2) gives it, out of the whole grid's"""
    for n, args in ((9, ()), (1281, (0.4, 1.3))):  # the second: so fine a grid that float32 does not do
        mean, std = args or (-1.1, 2.0)
        grid = specs.grid(n, 0.002, 80.0, 7.0)
        want = spec_interval_mass(grid, mean, std)
        cdf = [math.erf((math.log(t) - mean) / (math.sqrt(2) * std)) for t in grid]
        raw = [b - a for a, b in zip(cdf, cdf[1:])]
        causes = {
            "the sign of P_mean is wrong": spec_interval_mass(grid, -mean, std),
            "the root of 2 is missing beside P_std": spec_interval_mass(grid, mean, std / math.sqrt(2)),
            "the masses do not sum to 1: divide by what lies on the grid": raw,
            "the masses do not sum to 1: what lies outside the grid is not left out": [r / 2 for r in raw],
            "it is the density at one end of each interval, not the mass between its ends": density(
                grid[:-1], mean, std
            ),
            "ln is missing: it is ln t that is normal": normal_mass(grid, mean, std),
            "all intervals have the same mass: that is CM's law": [1 / (n - 1)] * (n - 1),
            "P_mean and P_std are not passed on": spec_interval_mass(grid, -1.1, 2.0),
        }
        got = impl.interval_mass(f64(grid), *args)
        what = f"interval_mass of {n} points is wrong for P_mean = {mean}, P_std = {std}"
        # 1e-6: torch's Normal(P_mean, P_std) holds its two numbers in float32
        same(got, want, what, rtol=1e-6, atol=EXACT, causes=causes, otherwise="compare with iCT, section 3.5")


def density(points: list[float], mean: float, std: float) -> list[float]:
    """The normal density of ln t at each point, scaled to sum to 1."""
    found = [math.exp(-(((math.log(t) - mean) / std) ** 2) / 2) for t in points]
    return [p / sum(found) for p in found]


def normal_mass(grid: list[float], mean: float, std: float) -> list[float]:
    """The mass of the intervals if t itself were normal."""
    return spec_interval_mass([math.exp(t) for t in grid], mean, std)


# -------------------------------------------------------------------------------------------------- ECT
TIMES = (0.002, 0.1, 0.5, 1.0, 2.0, 5.0, 80.0)


def earlier_shape(impl: Impl, seed: int) -> None:
    """ect_earlier maps (B,) to (B,) in t's dtype, with 0 <= s < t"""
    for dtype in (torch.float32, torch.float64):
        t = torch.tensor(TIMES, dtype=dtype)
        kept = t.clone()
        for step in (0, 99, 250):
            call = f"ect_earlier of t = {TIMES} at step {step} with d = 100"
            s = is_tensor(impl.ect_earlier(t, step, 100), t.shape, dtype, call)
            untouched(kept, t, "ect_earlier")
            if (s < 0).any():
                raise Wrong(
                    f"{call} is negative at index {(s < 0).nonzero()[0].item()}: s is a noise level, clamped at 0"
                )
            if (s >= t).any():
                late = (s >= t).nonzero()[0].item()
                cause = ": it is clamped at 0, not at t_min" if late == 0 and s[0] > 0 else ""
                raise Wrong(f"{call} is not below t at index {late}{cause}")


def earlier_values(impl: Impl, seed: int) -> None:
    """s = t (1 - n(t)/q^(stage + 1)), and a stage lasts d steps"""
    steps, stages = (0, 99, 100, 260, 700), (0, 0, 1, 2, 7)
    for args in ((), (4.0, 3.0, 0.5)):
        q, k, b = args or (2.0, 8.0, 1.0)

        def s(stages: Sequence[float] = stages, q: float = q, k: float = k, b: float = b) -> list[list[float]]:
            return [[spec_ect_earlier(t, stage, q, k, b) for t in TIMES] for stage in stages]

        causes = {
            "q has the power stage, not stage + 1: stage 0 must not have s = 0 for every t": s([i - 1 for i in stages]),
            "the power of q is one too high: stages count from 0": s([i + 1 for i in stages]),
            "the stage is not a whole number: step / d is rounded down": s([step / 100 for step in steps]),
            "the stage is rounded to the nearest: step / d is rounded down": s([round(step / 100) for step in steps]),
            "the sign in the sigmoid is wrong: the gap is widest at small t": s(b=-b),
            "n(t) is left out": s(k=0.0),
            "q, k and b are not passed on": s(q=2.0, k=8.0, b=1.0),
            "q is not passed on": s(q=2.0),
            "k is not passed on": s(k=8.0),
            "b is not passed on": s(b=1.0),
        }
        rows = [is_tensor(impl.ect_earlier(f64(TIMES), step, 100, *args), (7,), None, "ect_earlier") for step in steps]
        what = f"ect_earlier is wrong for steps {steps} (index 0) of t = {TIMES} (index 1), d = 100, q = {q}, k = {k}, b = {b}"
        other = "compare with ECT, section 3.3"
        same(torch.stack(rows), s(), what, rtol=1e-9, atol=EXACT, causes=causes, otherwise=other)


# ------------------------------------------------------------------------------------------------- loss
def loss_shape(impl: Impl, seed: int) -> None:
    """ct_loss returns (B,) in x0's dtype, also where the batch is as long as the image is wide"""
    for shape in SHAPES:
        t = torch.arange(1.0, shape[0] + 1).double()
        f, f_target = Linear(0.8, 0.3), Linear(0.6, 0.2)
        call = f"ct_loss of x0 {shape}"
        losses = impl.ct_loss(f, f_target, torch.zeros(shape), torch.ones(shape), t, t / 2, l2)
        is_tensor(losses, shape[:1], torch.float32, call)
        for name, model in (("f", f), ("f_target", f_target)):
            for x, _ in model.seen:
                alike_within(x, f"the point that {call} gives to {name}")


def loss_calls(impl: Impl, seed: int) -> None:
    """f sees (x0 + t eps, t) and f_target (x0 + s eps, s), once each, with one eps"""
    f, f_target = Linear(0.8, 0.3), Linear(0.6, 0.2)
    x0, eps, t, s = pairs(seed)
    impl.ct_loss(f, f_target, x0, eps, t, s, l2)
    if (len(f.seen), len(f_target.seen)) != (1, 1):
        raise Wrong(f"ct_loss evaluates f {len(f.seen)} and f_target {len(f_target.seen)} times, not once each")
    points = {"it is x0 + t eps": x0 + t[:, None] * eps, "it is x0 + s eps": x0 + s[:, None] * eps, "it is x0": x0}
    for name, (x, time), right in (("f", f.seen[0], t), ("f_target", f_target.seen[0], s)):
        causes = {"it is s, the earlier one": s} if name == "f" else {"it is t: both are asked at one time": t}
        same(time, right, f"the time that {name} sees is wrong", rtol=EXACT, causes=causes)
        same(x, x0 + right[:, None] * eps, f"the point that {name} sees is wrong", rtol=EXACT, atol=EXACT, causes=points,
             otherwise="is its noise a new one? Both points share eps")  # fmt: skip


def loss_values(impl: Impl, seed: int) -> None:
    """the loss is d(f(x_t, t), f_target(x_s, s))/(t - s), with the distance that is given"""
    x0, eps, t, s = pairs(seed)
    for name, distance in (("squared l2", l2), ("l1", l1)):
        f, f_target = Linear(0.8, 0.3), Linear(0.6, 0.2)
        y = f(x0 + t[:, None] * eps, t).detach()
        y_target = f_target(x0 + s[:, None] * eps, s).detach()
        d = distance(y, y_target)
        causes = {
            "the weight 1/(t - s) is missing": d,
            "the weight is inverted: it is 1/(t - s), larger for small gaps": d * (t - s),
            "the weight is 1/t, not 1/(t - s)": d / t,
            "the weight is squared": d / (t - s) ** 2,
            "the weight is negative: t is above s": -d / (t - s),
            "it is compared with x0: that trains a diffusion model": distance(y, x0) / (t - s),
            "the distance that was given is not used": l2(y, y_target) / (t - s),
            "it is averaged over the batch": (d / (t - s)).mean().expand(4),
        }
        got = is_tensor(impl.ct_loss(f, f_target, x0, eps, t, s, distance), (4,), None, "ct_loss")
        what = f"ct_loss with the distance {name} is wrong"
        same(got, d / (t - s), what, rtol=1e-10, causes=causes, otherwise="look at what each model is called with")


def loss_gradient(impl: Impl, seed: int) -> None:
    """gradients reach f alone, and are those of the loss with the target held fixed"""
    x0, eps, t, s = pairs(seed)
    f, f_target, shared = Linear(0.8, 0.3), Linear(0.6, 0.2), Linear(0.8, 0.3)
    for model, target in ((f, f_target), (shared, shared)):  # shared: mu = 0, as in iCT and ECT
        loss = impl.ct_loss(model, target, x0, eps, t, s, l2)
        can_learn(loss, "ct_loss")
        held_fixed("f_target", f_target.a)
        x_t, x_s = (x0 + time[:, None] * eps for time in (t, s))
        with torch.no_grad():
            residual = (model(x_t, t) - target(x_s, s)) / (t - s)[:, None]
        if model.a.grad is None:
            raise Wrong("no gradient reaches f's weights")
        which = "ct_loss" if model is f else "ct_loss with f as its own target"
        same(model.a.grad, [2 * (residual * x_t).sum().item()], f"the gradient of {which} is wrong", rtol=1e-9,
             otherwise="does a gradient flow through the target, or is a part of f's prediction detached?")  # fmt: skip


def loss_vanishes(impl: Impl, seed: int) -> None:
    """for data that are one point the loss of the exact consistency function is zero: the pair lies on one trajectory

    All x0 = xi: the flow is x - xi ~ t, so f*(x, t) = xi + (t_min/t) (x - xi) = xi + t_min eps at t and at s. Rounding
    leaves about 1e-15 of a distance, times the weight 1/(t - s) of at most 20.
    """

    def exact(x: Tensor, t: Tensor) -> Tensor:
        return 0.7 + (0.002 / t)[:, None] * (x - 0.7)

    x0, eps, t, s = pairs(seed)
    losses = is_tensor(impl.ct_loss(exact, exact, torch.full_like(x0, 0.7), eps, t, s, l1), (4,), None, "ct_loss")
    if not losses.abs().max() < 1e-11:
        raise Wrong(
            f"for data that are one point the loss of the exact solution is {losses.abs().max().item():.1e}, not 0"
        )


# ------------------------------------------------------------------------------------------ real thing
class StudentCT(Objective):
    """Consistency training by a student's parts: N(k), the interval's law, the distance and the loss; mu(k) where mu0 > 0."""

    def __init__(self, impl: Impl, s0: int = 10, s1: int = 40, mu0: float = 0.0) -> None:
        super().__init__()
        self.parts, self.s0, self.s1, self.mu0 = (impl,), s0, s1, mu0  # in a tuple: no weights of ours

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        grid = karras_grid(int(self.parts[0].ct_points(k, K, self.s0, self.s1)))
        i = torch.multinomial(self.parts[0].interval_mass(grid), len(x0), replacement=True, generator=generator)
        seeds = dropout_seeds(len(x0), k, generator)
        return Draw(t=grid[i + 1], s=grid[i], eps=unit_noise(x0, generator), seed=seeds)

    def loss(
        self, f: Callable, f_target: Callable, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        return self.parts[0].ct_loss(f, f_target, x0, draw.eps, draw.t, draw.s, self.distance)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """The student's pseudo-Huber, with a width that fits points of spread 1/2."""
        return self.parts[0].pseudo_huber(a, b, 0.03)

    def target_decay(self, k: int, K: int) -> float:
        return self.parts[0].ct_decay(k, K, self.s0, self.s1, self.mu0) if self.mu0 else 0.0


def model(seed: int, width: int = 48, depth: int = 3) -> Denoiser:
    """A consistency model of points in the plane, with weights from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Denoiser(MLP(2, width=width, depth=depth))


def one_step_error(f: Callable, data: GaussianMixture, seed: int, n: int = 500) -> float:
    """The median distance of one-step samples from the exact flow of the same noise, in sigma_data."""
    x_T = EDM().prior((n, 2), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        x0 = f(x_T, torch.full((n,), 80.0))
    return paired_error(x0, data.flow(x_T, 80.0, 0.002), data.sigma_data).median().item()


def trains(impl: Impl, seed: int) -> None:
    """a model trained from data alone with your N(k), law, distance and loss reaches the exact answer"""
    ring = GaussianMixture.ring()
    config = TrainConfig(steps=400, batch=256, lr=4e-3, warmup=20, ema=0.98, seed=seed)
    for step in train(model(seed), StudentCT(impl), ring, config):
        average = step.ema
    error = one_step_error(average, ring, seed)
    reaches(error, TRAINED_BOUND, "one step of the trained model")


TRAINED_BOUND = (
    0.4  # sigma_d; the solution reaches .22 to .29 on ten seeds, a gradient through the target .50, a new z .98
)

ASSIGNMENT = Assignment(
    name="a4",
    title="Consistency training",
    functions=("ct_points", "ct_decay", "pair", "pseudo_huber", "interval_mass", "ect_earlier", "ct_loss"),
    forbidden=("minicm.objectives", "minicm.distances", "minicm.times"),
    tasks=(
        Task("1 curriculum", ((1, curriculum_kind), (2, points_values), (2, decay_values)), hints=(
            "N counts points, not intervals. What must N be at k = 0, and at k = K?",
            "CM, appendix C: the square of N grows linearly with k. The - 1 stands inside ceil, the + 1 outside."
        )),
        Task("2 pair", ((1, pair_shape), (2, pair_values)), hints=(
            "How many noises does a pair of points on one line need?",
            "t is (B,), x0 has more axes: give t an axis of length 1 for each of them."
        )),
        Task("3 distance", ((1, distance_shape), (2, distance_values), (1, distance_gradient)), hints=(
            "First one number a sample, then the root.",
            "What is the slope of a norm at zero? What does c^2 under the same root do to it?"
        )),
        Task("4 index law", ((1, mass_shape), (2, mass_values)), hints=(
            "The mass of an interval is a difference of two values of the distribution function.",
            "erf((ln t - P_mean)/(sqrt(2) P_std)) at the grid's points; then make the differences sum to 1. P_mean is negative."
        )),
        Task("5 ECT's mapping", ((1, earlier_shape), (2, earlier_values)), hints=(
            "At stage 0 and t = 80 the sigmoid is 0. ECT starts there with s/t = 1/2: which power of q is that?",
            "Where n(t) exceeds q^(stage + 1), s would be negative. The clean data are at 0."
        )),
        Task("6 loss", ((1, loss_shape), (1, loss_calls), (2, loss_values), (2, loss_gradient), (1, loss_vanishes)), hints=(
            "Nothing in it is random: eps comes in, and pair makes both points.",
            "Everything but f(x_t, t) is computed under torch.no_grad(). The weight is (B,), like the distance."
        )),
        Task("7 the real thing", ((3, trains),), hints=("Mend what the tasks above report first.",), real_thing=True)
    )
)  # fmt: skip
