"""Assignment 5: sampling in a few steps, and editing (arXiv:2303.01469, arXiv:2402.19159). What is asked, and how it is checked."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minicm.course import specs
from minicm.course.kit import (
    EXACT,
    SHAPES,
    Assignment,
    Causes,
    Impl,
    Task,
    Wrong,
    close,
    f64,
    is_tensor,
    keeps_shape,
    same,
    untouched,
)
from minicm.data.mixtures import GaussianMixture
from minicm.metrics.modes import mode_covariance_ratio, mode_occupancy, outlier_fraction
from minicm.schedules import EDM, Schedule, TrigFlow
from minicm.times import karras_grid

TIMES = (4.0, 1.5, 0.8)
T_MIN = 0.5  # so large that a t_min that is forgotten shows
ROOT = "the root is missing: s^2 - t_min^2 is a variance, and noise is multiplied by its standard deviation"


class Watched:
    """A stand-in for a consistency function that keeps what it is asked and what it answers."""

    schedule, t_min = EDM(), T_MIN

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []  # x, t, the answer

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        told = torch.as_tensor(t, dtype=torch.float64)
        time = told.reshape(-1)[0].item()
        out = 0.7 * x / (1 + time) + 0.1 * time
        self.seen.append((x.detach().clone(), told.clone(), out.detach().clone()))
        return out


class Noise:
    """draw: new unit noise at every call; keeps what it gave."""

    def __init__(self, seed: int) -> None:
        self.generator, self.given = torch.Generator().manual_seed(seed), []  # type: ignore[var-annotated]

    def __call__(self, x: Tensor) -> Tensor:
        z = torch.randn(x.shape, generator=self.generator, dtype=x.dtype)
        self.given.append(z.clone())
        return z


# ------------------------------------ specifications: slow and obvious, in plain Python, one number at a time
def spec_fill(s: float, t_min: float) -> float:
    """CM, arXiv:2303.01469, Algorithm 1: the standard deviation that brings a sample at t_min up to s in the EDM clock."""
    return math.sqrt(s * s - t_min * t_min)


def spec_by_way_of(
    clock: specs.Clock, x: list[float], x0: list[float], t: float, u: float, scale: float, level: float, z: list[float]
) -> list[float]:
    """From t to u with the same x0 and the same eps, then scaled, then noise of a level (a standard deviation)."""
    alpha, sigma = clock
    moved = [alpha(u) * a + sigma(u) * e for a, e in zip(x0, specs.eps_hat(clock, x, x0, t))]
    return [scale * a + level * b for a, b in zip(moved, z)]


def spec_gamma_step(
    clock: specs.Clock, x: list[float], x0: list[float], t: float, s: float, gamma: float, z: list[float], t_min: float
) -> list[float]:
    """TCD, arXiv:2402.19159, Algorithm 4, by way of u = (1 - gamma) s; a point below t_min has t_min's noise."""
    alpha, sigma = clock
    u = (1 - gamma) * s
    scale = alpha(s) / alpha(u)
    level = math.sqrt(max(sigma(s) ** 2 - (scale * max(sigma(u), t_min)) ** 2, 0.0))
    return spec_by_way_of(clock, x, x0, t, u, scale, level, z)


def spec_slerp(a: list[float], b: list[float], fraction: float) -> list[float]:
    """Shoemake 1985: weights sin((1 - u) w)/sin(w) and sin(u w)/sin(w), w being the angle between a and b."""
    length_a, length_b = math.hypot(*a), math.hypot(*b)
    angle = math.acos(sum(p * q for p, q in zip(a, b)) / (length_a * length_b))
    share_a, share_b = (math.sin(part * angle) / math.sin(angle) for part in (1 - fraction, fraction))
    return [share_a * p + share_b * q for p, q in zip(a, b)]


# ---------------------------------------------------------------------------------------------- re-noise
renoise_shape = keeps_shape("renoise", lambda x, s: (0 * x, s, x))


def renoise_values(impl: Impl, seed: int) -> None:
    """renoise adds what is missing between t_min and s: nothing at t_min, all of s for t_min = 0"""
    x, eps = f64([[1.5, -0.5]] * 3), f64([[0.3, -2.0]] * 3)
    for t_min in (T_MIN, 0.002, 0.0):
        s = f64([t_min, 0.8, 4.0])
        want = x + f64([spec_fill(v, t_min) for v in s.tolist()])[:, None] * eps
        args = () if t_min == 0.002 else (t_min,)  # the default
        got = is_tensor(impl.renoise(x, s, eps, *args), (3, 2), None, "renoise")
        causes = fills(x, s[:, None], eps, t_min) | {"no noise is added": x}
        what = f"renoise is wrong for s = {s.tolist()}, t_min = {t_min}"
        same(got, want, what, rtol=1e-9, atol=EXACT, causes=causes)


def fills(x: Tensor, s: Tensor | float, z: Tensor, t_min: float) -> Causes:
    """x with noise up to s, by each misconception."""
    s = torch.as_tensor(s, dtype=torch.float64)
    return {
        "t_min is not subtracted: a sample at t_min is not clean": x + s * z,
        "t_min is fixed at 0.002": x + (s * s - 0.002**2).clamp(min=0).sqrt() * z,
        ROOT: x + (s * s - t_min * t_min) * z,
        "it is the root of a difference of squares, not a difference": x + (s - t_min) * z,
        "the squares are added: the noise of t_min is there already": x + (s * s + t_min * t_min).sqrt() * z,
    }


# --------------------------------------------------------------------------------------------- multistep
def multistep_shape(impl: Impl, seed: int) -> None:
    """multistep keeps shape and dtype, and tells f one time a sample, (B,)"""
    for shape in SHAPES:
        f, eps, call = Watched(), torch.ones(shape), f"multistep of eps {shape}"
        out = impl.multistep(f, eps, f64(TIMES), Noise(seed), T_MIN)
        is_tensor(out, shape, torch.float32, call)
        untouched(torch.ones(shape), eps, "multistep")
        told_well(f, shape, call)


def told_well(f: Watched, shape: tuple[int, ...], call: str) -> None:
    """Raises Wrong unless f was called with points of this shape and times (B,)."""
    for x, t, _ in f.seen:
        is_tensor(x, shape, None, f"in {call}, the point that f is given")
        is_tensor(t, shape[:1], None, f"in {call}, the time that f is given")


def multistep_calls(impl: Impl, seed: int) -> None:
    """one evaluation of f for each time, at the times as they are given, from times[0] eps on"""
    eps = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for times in (TIMES, TIMES[:2], TIMES[:1]):
        f = Watched()
        impl.multistep(f, eps, f64(times), Noise(seed), T_MIN)
        at_times(f, times, "multistep")
        causes = {
            "eps is not scaled by the first time": eps,
            "the scale must be the first time itself, not more": 1.5 * times[0] * eps,
            "this is the last time's noise: which end of times is the first?": times[-1] * eps,
            "t_min is subtracted here, too, but nothing lies under the noise": spec_fill(times[0], T_MIN) * eps
        }  # fmt: skip
        what = f"the first point that f sees is not times[0] eps for times = {list(times)}"
        same(f.seen[0][0], times[0] * eps, what, rtol=1e-9, atol=EXACT, causes=causes)


def at_times(f: Watched, times: tuple[float, ...], name: str) -> None:
    """Raises Wrong unless f was evaluated once at each of the times, in this order."""
    if len(f.seen) != len(times):
        raise Wrong(
            f"{name} evaluates f {len(f.seen)} times for times = {list(times)}, not {len(times)}: n times are n evaluations"
        )
    told = torch.stack([t for _, t, _ in f.seen])
    want = f64(times)[:, None].expand_as(told)
    causes = {
        "they run from data to noise": want.flip(0),
        "f is told the time that comes next": torch.cat([want[1:], want[-1:]]),
        "f is always told the first time": want[:1].expand_as(told),
    }
    what = f"{name} evaluates f at other times than {list(times)}"
    same(told, want, what, rtol=1e-6, causes=causes, otherwise="in the order given")  # 1e-6: float32


def multistep_noise(impl: Impl, seed: int) -> None:
    """between two evaluations fresh noise is added to f's answer, up to the next time"""
    eps = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    f, noise = Watched(), Noise(seed + 1)
    impl.multistep(f, eps, f64(TIMES), noise, T_MIN)
    at_times(f, TIMES, "multistep")
    walked("multistep", f, [out for _, _, out in f.seen], noise.given, lambda *_: {})
    f, noise = Watched(), Noise(seed + 1)
    impl.multistep(f, eps, f64((4.0, 0.003)), noise)
    by_default("multistep", f, noise.given[0])


def by_default(name: str, f: Watched, z: Tensor) -> None:
    """Raises Wrong unless f saw, at the time 0.003, its first answer with the noise z up to there, t_min being left out."""
    at_times(f, (4.0, 0.003), name)
    x, start = f.seen[1][0], f.seen[0][2]
    what = f"{name} without a t_min: at s = 0.003 f must see its answer with noise up to there"
    same(x, start + spec_fill(0.003, 0.002) * z, what, rtol=1e-9, atol=EXACT, causes=fills(start, 0.003, z, 0.002),
         otherwise="t_min is 0.002 where none is given")  # fmt: skip


def walked(name: str, f: Watched, before: list[Tensor], z: list[Tensor], more: Callable[[int, Tensor], Causes]) -> None:
    """Raises Wrong unless f sees, at each later time, before[k - 1] with the fresh noise z[k - 1] up to that time."""
    for k in range(1, len(TIMES)):
        x, start, s = f.seen[k][0], before[k - 1], TIMES[k]
        what = f"{name}'s evaluation {k + 1} must see the sample before it with noise up to s = {s} (t_min = {T_MIN})"
        if close(x, start, EXACT, EXACT):
            raise Wrong(f"{what}: no noise is added, so f looks at the same clean point again")
        if len(z) < k:
            raise Wrong(f"{what}: new noise was drawn {len(z)} times so far; each step needs its own, from draw")
        others = more(k, z[k - 1]) | fills(start, s, z[k - 1], T_MIN)
        others["this is the noise of the step before: draw again"] = start + spec_fill(s, T_MIN) * z[0]
        others["this is noise up to the time that was left"] = start + spec_fill(TIMES[k - 1], T_MIN) * z[k - 1]
        others["only new noise is left: f's answer is lost"] = spec_fill(s, T_MIN) * z[k - 1]
        want = start + spec_fill(s, T_MIN) * z[k - 1]
        same(x, want, what, rtol=1e-9, atol=EXACT, causes=others, otherwise="which point, and which noise?")


def multistep_end(impl: Impl, seed: int) -> None:
    """what comes back is f's last answer, bit for bit"""
    for times in (TIMES, TIMES[:1]):
        f = Watched()
        eps = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        got = is_tensor(impl.multistep(f, eps, f64(times), Noise(seed), T_MIN), (3, 2), None, "multistep")
        if not torch.equal(got, f.seen[-1][2]):
            raise Wrong(
                f"multistep's result is not f's last answer for times = {list(times)}: is noise added after the last evaluation?"
            )


# ------------------------------------------------------------------------------------------------- gamma
CLOCKS: tuple[tuple[str, Schedule, specs.Clock, float, list[float], list[float]], ...] = (
    ("EDM", EDM(), specs.EDM, 0.1, [60.0, 2.0, 0.9], [5.0, 0.8, 0.3]),
    ("TrigFlow", TrigFlow(), specs.TRIGFLOW, 0.0, [1.5, 1.0, 0.6], [1.1, 0.5, 0.2]),
)
X, X0, Z = ([[20.0, -3.0], [1.0, 2.0], [-0.5, 0.1]], [[0.4, -0.7], [0.2, 0.9], [-1.0, 0.3]],
            [[0.3, -2.0], [1.1, 0.6], [-0.8, 0.5]])  # fmt: skip


gamma_shape = keeps_shape("gamma_step", lambda x, s: (EDM(), 2 * x, 0 * x, 2 * s, s, 0.3, x))


def gamma_ends(impl: Impl, seed: int) -> None:
    """gamma = 0 is Euler's step, without noise; gamma = 1 in the EDM clock is CM's: f's answer re-noised"""
    for name, schedule, clock, t_min, t, s in CLOCKS:
        want = [specs.euler(clock, lambda *_, a=a: a, x, p, q) for x, a, p, q in zip(X, X0, t, s)]
        got = impl.gamma_step(schedule, f64(X), f64(X0), f64(t), f64(s), 0.0, f64(Z), t_min)
        others = gamma_others(clock, t, s, 0.0, t_min)
        # 1e-6: the root of a variance that cancels to some 1e-15 is some 1e-8
        same(is_tensor(got, (3, 2), None, f"gamma_step with gamma = 0 in {name}"), want,
             f"gamma_step with gamma = 0 in {name} is not the deterministic step", rtol=1e-6, atol=1e-6, causes=others)  # fmt: skip
    _, schedule, clock, t_min, t, s = CLOCKS[0]
    got = impl.gamma_step(schedule, f64(X), f64(X0), f64(t), f64(s), 1.0, f64(Z), t_min)
    cm = f64(X0) + f64([spec_fill(v, t_min) for v in s])[:, None] * f64(Z)
    same(is_tensor(got, (3, 2), None, "gamma_step with gamma = 1"), cm, f"gamma_step with gamma = 1, t_min = {t_min} in EDM is not CM's step",
         rtol=1e-9, atol=EXACT, causes={**fills(f64(X0), f64(s)[:, None], f64(Z), t_min), **gamma_others(clock, t, s, 1.0, t_min)})  # fmt: skip


def gamma_values(impl: Impl, seed: int) -> None:
    """by way of u = (1 - gamma) s, then noise: worked by hand in two clocks"""
    for name, schedule, clock, t_min, t, s in CLOCKS:
        for gamma in (0.3, 0.8):
            got = impl.gamma_step(schedule, f64(X), f64(X0), f64(t), f64(s), gamma, f64(Z), t_min)
            rows = zip(X, X0, t, s, Z)
            want = [spec_gamma_step(clock, x, a, p, q, gamma, z, t_min) for x, a, p, q, z in rows]
            what = f"gamma_step is wrong in {name} for gamma = {gamma}, t = {t}, s = {s}"
            same(is_tensor(got, (3, 2), None, "gamma_step"), want, what, rtol=1e-9, atol=1e-10,
                 causes=gamma_others(clock, t, s, gamma, t_min), otherwise="where is u, and how much noise is there already?")  # fmt: skip
    x, x0, z, time = f64(X), f64(X0), f64(Z), f64(CLOCKS[0][4])
    what = "gamma_step to s = 0, where the variance that is missing is below 0,"
    got = is_tensor(impl.gamma_step(EDM(), x, x0, time, 0 * time, 0.3, z, 0.1), (3, 2), None, what)
    same(got, x0, f"{what} is not x0_hat", rtol=EXACT, atol=EXACT)
    got = is_tensor(impl.gamma_step(EDM(), x, x0, time, f64([0.003] * 3), 1.0, z), (3, 2), None, "gamma_step")
    what = "gamma_step without a t_min, gamma = 1, s = 0.003 in EDM, is wrong"
    same(got, x0 + spec_fill(0.003, 0.002) * z, what, rtol=1e-9, atol=EXACT, causes=fills(x0, 0.003, z, 0.002),
         otherwise="t_min is 0.002 where none is given")  # fmt: skip


def gamma_others(clock: specs.Clock, t: list[float], s: list[float], gamma: float, t_min: float) -> dict[str, list]:
    """What each misconception of the step gives, sample by sample."""
    alpha, sigma = clock
    others: dict[str, list] = {}
    for x, a, p, q, z in zip(X, X0, t, s, Z):

        def way(u: float, scale: float, level: float, x: list = x, a: list = a, p: float = p, z: list = z) -> list:
            return spec_by_way_of(clock, x, a, p, u, scale, level, z)

        def missing(u: float, scale: float, q: float = q) -> float:
            return math.sqrt(max(sigma(q) ** 2 - (scale * max(sigma(u), t_min)) ** 2, 0.0))

        u = (1 - gamma) * q
        ratio = alpha(q) / alpha(u)
        level, plain = missing(u, ratio), missing(u, 1.0)
        lost = "alpha_s/alpha_u is missing from"
        for cause, value in {
            "gamma is reversed: u = gamma s": spec_gamma_step(clock, x, a, p, q, 1 - gamma, z, t_min),
            ROOT.replace("s^2 - t_min^2", "this"): way(u, ratio, level**2),
            "all noise of s is added, though that of u is there already": way(u, ratio, sigma(q)),
            "u is a part of s, not of t": way(
                (1 - gamma) * p, alpha(q) / alpha((1 - gamma) * p), missing((1 - gamma) * p, alpha(q) / alpha((1 - gamma) * p))
            ),
            "no noise is added: 1 - (alpha_s/alpha_u)^2 is the variance in VP alone": way(u, ratio, math.sqrt(max(1 - ratio**2, 0.0))),
            "u itself is moved up to t_min: f does not go lower, but x_u is where eps_hat takes it": [
                ratio * (alpha(u) * b + max(sigma(u), t_min) * (c - alpha(p) * b) / sigma(p)) + level * d
                for b, c, d in zip(a, x, z)
            ],
            "t_min^2 is subtracted beside the noise of u, which holds it already": way(
                u, ratio, math.sqrt(max(missing(u, ratio) ** 2 - t_min**2, 0.0))
            ),
            "x is lost: u still has eps_hat": [ratio * b + level * c for b, c in zip(a, z)],
            f"{lost} the variance: the noise of u shrinks on the way to s": way(u, ratio, plain),
            f"{lost} the mean: a step of the forward process scales x_u": way(u, 1.0, level),
            f"{lost} mean and variance": way(u, 1.0, plain)
        }.items():  # fmt: skip
            others.setdefault(cause, []).append(value)
    return others


# ---------------------------------------------------------------------------------------------- operator
LUMINANCE = (0.2989, 0.5870, 0.1140)  # of red, green, blue (ITU-R BT.601)
TURN = ((0.36, 0.48, 0.8), (0.48, 0.64, -0.6), (-0.8, 0.6, 0.0))  # orthogonal, and not its own transpose


def operator_shape(impl: Impl, seed: int) -> None:
    """orthogonal gives (n, n); mix and unmix keep shape and dtype of images of any size"""
    for first in (LUMINANCE, (1.0,) * 4, (1.0,)):
        n = len(first)
        is_tensor(impl.orthogonal(f64(first)), (n, n), torch.float64, f"orthogonal of {n} numbers")
    for shape in ((2, 3, 4, 5), (5, 3), (3, 3, 3, 3)):
        for name in ("mix", "unmix"):
            for dtype in (torch.float32, torch.float64):
                out = getattr(impl, name)(torch.ones(shape, dtype=dtype), f64(TURN).to(dtype))
                is_tensor(out, shape, dtype, f"{name} of a {shape}, all in {dtype},")


def orthogonal_values(impl: Impl, seed: int) -> None:
    """Q^T Q = 1, and the first column is first, normalised"""
    for first in (LUMINANCE, (1.0,) * 4, (0.0, 0.0, 2.0), (-1.0, 2.0, 2.0), (1.0, 0.0), (0.0, -1.0)):
        n, call = len(first), f"orthogonal({list(first)})"
        Q = is_tensor(impl.orthogonal(f64(first)), (n, n), None, call)
        want = f64(first) / math.hypot(*first)
        if close(Q[0].double(), want, 1e-9, EXACT) and not close(Q[:, 0].double(), want, 1e-9, EXACT):
            raise Wrong(f"{call} has first in its first row, not in its first column")
        causes = {"it is not normalised": f64(first), "it points the other way: QR may turn a column round": -want}
        same(Q[:, 0], want, f"the first column of {call} is wrong", rtol=1e-9, atol=EXACT, causes=causes)
        what = f"the columns of {call} are not orthonormal"
        other = "take QR or Gram and Schmidt, of columns that are independent"
        same(Q.T @ Q, torch.eye(n), what, rtol=0, atol=1e-10, otherwise=other)


def mix_values(impl: Impl, seed: int) -> None:
    """coefficient j is the product of Q's column j with the channels, so that number 0 is the luminance"""
    mixes(impl.mix, "mix", f64(TURN), seed, "Q is transposed: columns, not rows, are the new axes")


def unmix_values(impl: Impl, seed: int) -> None:
    """unmix undoes mix"""
    mixes(impl.unmix, "unmix", f64(TURN).T, seed, "it mixes once more; an orthogonal Q is undone by its transpose")


def mixes(function: Callable, name: str, Q: Tensor, seed: int, cause: str) -> None:
    """Raises Wrong unless function takes channel i to sum_i x_i Q_ij."""
    x = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    given = Q if name == "mix" else Q.T
    want, other = torch.zeros_like(x), torch.zeros_like(x)
    for i in range(3):
        for j in range(3):
            want[:, j] += x[:, i] * Q[i, j]
            other[:, j] += x[:, i] * Q[j, i]
    got = is_tensor(function(x, given), (2, 3, 3), None, name)
    same(got, want, f"{name} of (2, 3, 3) is wrong", rtol=1e-9, atol=EXACT, causes={cause: other, "it mixes the last axis, not the channels": x @ Q},
         otherwise="z_j = sum_i x_i Q_ij")  # fmt: skip


# ------------------------------------------------------------------------------------------------ editing
def identity(x: Tensor) -> Tensor:
    """The operator of inpainting."""
    return x


def edit_shape(impl: Impl, seed: int) -> None:
    """edit keeps y's shape and dtype, and evaluates f once a time"""
    for shape in SHAPES:
        y, mask, f = torch.ones(shape), torch.zeros(shape[1:], dtype=torch.bool), Watched()
        mask[0] = True
        call = f"edit of y {shape}"
        out = impl.edit(f, y, identity, identity, mask, f64(TIMES), Noise(seed), T_MIN)
        is_tensor(out, shape, torch.float32, call)
        untouched(torch.ones(shape), y, "edit")
        told_well(f, shape, call)
        at_times(f, TIMES, "edit")


class Edit:
    """One run of edit on coefficients that are a turned basis, two of three generated, and all that it asked for."""

    def __init__(self, impl: Impl, seed: int) -> None:
        self.y = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.mask, Q = torch.tensor([False, True, True]), f64(TURN)
        self.forward, self.inverse = (lambda x: x @ Q), (lambda z: z @ Q.T)
        self.f, noise = Watched(), Noise(seed + 1)
        got = impl.edit(self.f, self.y, self.forward, self.inverse, self.mask, f64(TIMES), noise, T_MIN)
        self.got, self.z = is_tensor(got, (4, 3), None, "edit"), noise.given
        self.raw = [out for _, _, out in self.f.seen]
        at_times(self.f, TIMES, "edit")

    def put_back(self, x: Tensor) -> Tensor:
        """x with y's known coefficients."""
        return self.inverse(torch.where(self.mask, self.forward(x), self.forward(self.y)))


def edit_start(impl: Impl, seed: int) -> None:
    """the start is y without its masked coefficients, plus the noise of times[0]"""
    run = Edit(impl, seed)
    if not run.z:
        raise Wrong("edit draws no noise for its start: Algorithm 4 starts from N(y, t_1^2)")
    z, start = run.z[0], run.put_back(torch.zeros(4, 3, dtype=torch.float64))
    inverted = run.y - start
    causes = {
        "the mask is inverted: True is what is generated": inverted + TIMES[0] * z,
        "the masked coefficients of y are left in": run.y + TIMES[0] * z,
        "the mask is laid on y, not on its coefficients": run.y.masked_fill(run.mask, 0) + TIMES[0] * z,
        "the known part is missing from the start": TIMES[0] * z,
        "the coefficients are not taken back by inverse": run.forward(start) + TIMES[0] * z,
        "this is the noise of the last time: t_1 is where sampling starts": start + TIMES[-1] * z,
        "this is the noise of t_min: t_1 is where sampling starts": start + T_MIN * z,
        "the noise is not scaled by the first time": start + z,
        "the noise stands in the masked coefficients alone: all of x is noisy at t_1": start
        + run.inverse(TIMES[0] * z * run.mask),
        "t_min is subtracted, but y is clean": start + spec_fill(TIMES[0], T_MIN) * z,
    }
    what = f"edit's first evaluation must see the known part of y with noise of times[0] = {TIMES[0]}"
    same(run.f.seen[0][0], start + TIMES[0] * z, what, rtol=1e-9, atol=1e-11, causes=causes)


def edit_steps(impl: Impl, seed: int) -> None:
    """after every evaluation the known coefficients are put back, then noise is added"""
    run = Edit(impl, seed)
    back = [run.put_back(raw) for raw in run.raw]

    def more(k: int, z: Tensor) -> Causes:
        level, raw = spec_fill(TIMES[k], T_MIN), run.raw[k - 1]
        swapped = run.inverse(torch.where(run.mask, run.forward(run.y), run.forward(raw)))
        return {
            "the known part is not put back after every evaluation": raw + level * z,
            "the mask is inverted: True is what is generated": swapped + level * z,
            "the known part is put back after the noise, so f sees it clean": run.put_back(raw + level * z),
            "the mask is laid on x, not on its coefficients": torch.where(run.mask, raw, run.y) + level * z,
        }

    walked("edit", run.f, back, run.z[1:], more)
    causes = {
        "the known part is not put back after the last evaluation": run.raw[-1],
        "the mask is inverted: True is what is generated": run.inverse(
            torch.where(run.mask, run.forward(run.y), run.forward(run.raw[-1]))
        ),
        "the mask is laid on x, not on its coefficients": torch.where(run.mask, run.raw[-1], run.y),
    }
    what = "edit's result is not f's last answer with the known coefficients put back"
    same(run.got, back[-1], what, rtol=1e-9, atol=1e-11, causes=causes, otherwise="is noise added after the last evaluation?")  # fmt: skip
    f, noise, all_of_it = Watched(), Noise(seed + 1), torch.ones(3, dtype=torch.bool)
    impl.edit(f, run.y, identity, identity, all_of_it, f64((4.0, 0.003)), noise)
    by_default("edit", f, noise.given[1])


def edit_keeps(impl: Impl, seed: int) -> None:
    """with the identity the known part comes back bit for bit, and what y holds in the masked part does not matter"""
    generator = torch.Generator().manual_seed(seed)
    y, mask = torch.randn(4, 3, 4, 4, generator=generator), torch.rand(3, 4, 4, generator=generator) < 0.5
    mask[0, 0, :2] = torch.tensor([True, False])
    results = []
    for value in (0.0, 7.0):
        hidden = torch.where(mask, value, y)
        out = impl.edit(Watched(), hidden, identity, identity, mask, f64(TIMES), Noise(seed), T_MIN)
        results.append(is_tensor(out, y.shape, y.dtype, "edit"))
    missed = (results[0] - y)[:, ~mask].abs().max().item()
    if missed:
        raise Wrong(f"edit with the identity changes the known part by {missed:.1e}: it must be kept bit for bit; put it back last, unchanged")  # fmt: skip
    if not torch.equal(*results):
        raise Wrong("edit depends on what y holds in its masked part, which nobody knows")
    y, f = y[:2], Watched()  # coefficients of another shape: (2, 48) of (2, 3, 4, 4)
    flat, back = (lambda x: x.flatten(1)), (lambda z: z.reshape(2, 3, 4, 4))
    out = impl.edit(f, y, flat, back, mask.flatten(), f64(TIMES), Noise(seed), T_MIN)
    is_tensor(out, y.shape, y.dtype, "edit with coefficients of another shape than y's")


# -------------------------------------------------------------------------------------------------- slerp
def slerp_shape(impl: Impl, seed: int) -> None:
    """slerp keeps shape and dtype"""
    for shape in SHAPES:
        a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))
        is_tensor(impl.slerp(a, b, 0.3), shape, torch.float32, f"slerp of two float32 {shape}")


def slerp_values(impl: Impl, seed: int) -> None:
    """slerp has Shoemake's weights, by the angle of each sample"""
    a = f64([[[1.0, 2.0], [0.5, -1.0]], [[0.5, 0.0], [3.0, 1.0]], [[1.0, 0.5], [0.2, 0.0]]])
    b = f64([[[0.0, 1.0], [2.0, 1.0]], [[1.0, 1.0], [-2.0, 1.0]], [[0.3, -1.0], [0.5, 2.0]]])
    pairs = list(zip(a.flatten(1).tolist(), b.flatten(1).tolist()))
    whole = math.acos((a * b).sum().item() / (a.norm() * b.norm()).item())
    for u in (0.3, 0.5, 0.0, 1.0):
        want = f64([spec_slerp(p, q, u) for p, q in pairs]).reshape(a.shape)
        causes: dict[str, Tensor | list] = {
            "the fraction is reversed: 0 is a": f64([spec_slerp(q, p, u) for p, q in pairs]).reshape(a.shape),
            "one angle for the whole batch: each sample has its own": (
                math.sin((1 - u) * whole) * a + math.sin(u * whole) * b
            ) / math.sin(whole),
            "a straight mix is shorter than noise": (1 - u) * a + u * b,
            "root weights suit right angles alone": math.sqrt(1 - u) * a + math.sqrt(u) * b,
            "cosine and sine as weights suit right angles alone": (
                math.cos(u * math.pi / 2) * a + math.sin(u * math.pi / 2) * b
            ),
            "a and b are brought to length 1: the arc goes from a itself to b itself": f64(
                [spec_slerp([v / math.hypot(*p) for v in p], [v / math.hypot(*q) for v in q], u) for p, q in pairs]
            ).reshape(a.shape),
            "the angle is taken along the last axis, not over the sample": [
                [spec_slerp(p, q, u) for p, q in zip(*images)] for images in zip(a.tolist(), b.tolist())
            ]
        }  # fmt: skip
        got = is_tensor(impl.slerp(a, b, u), a.shape, None, "slerp")
        same(got, want, f"slerp of (3, 2, 2) is wrong at fraction {u}", rtol=1e-9, atol=1e-11, causes=causes,
             otherwise="the cosine of the angle is that of two whole samples, both normalised")  # fmt: skip


def slerp_parallel(impl: Impl, seed: int) -> None:
    """slerp of a noise with itself is that noise, not NaN"""
    generator = torch.Generator().manual_seed(seed)
    for dtype in (torch.float32, torch.float64):
        a = torch.randn(200, 5, generator=generator, dtype=dtype)  # rounding lifts the cosine of some above 1
        got = is_tensor(impl.slerp(a, a.clone(), 0.4), (200, 5), dtype, "slerp of a noise with itself")
        # 2e-3: for float32 the angle of a cosine that misses 1 by 1e-7 is some 5e-4
        same(got, a, "slerp of a noise with itself is another noise", rtol=2e-3, atol=2e-3)
    a, b = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    b[2] = a[2]
    want = torch.stack(
        [p if i == 2 else f64(spec_slerp(p.tolist(), q.tolist(), 0.4)) for i, (p, q) in enumerate(zip(a, b))]
    )
    causes = {
        "the straight mix is taken for all where one pair is parallel": 0.6 * a + 0.4 * b,
        "a is taken for all where one pair is parallel": a,
    }
    same(is_tensor(impl.slerp(a, b, 0.4), (4, 5), None, "slerp"), want, "slerp of four pairs, the third of equal noises, is wrong",
         rtol=1e-6, atol=1e-6, causes=causes)  # fmt: skip


# --------------------------------------------------------------------------------------------- real thing
class ExactRing:
    """The exact consistency function of eight Gaussians on a ring."""

    schedule, t_min, mixture = EDM(), 0.002, GaussianMixture.ring()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.mixture.consistency(x, t)


class ExactGaussian:
    """The exact consistency function of N(0, [[.25, .2], [.2, .25]]): (S + t_min^2)^(1/2) (S + t^2)^(-1/2) x."""

    schedule, t_min = EDM(), 0.002

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        axes = f64([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
        shrink = ((f64([0.45, 0.05]) + self.t_min**2) / (f64([0.45, 0.05]) + t.reshape(-1)[0] ** 2)).sqrt()
        return (x @ axes) * shrink @ axes


def samples_ring(impl: Impl, seed: int) -> None:
    """your sampler with the exact f of a ring, at 80 and 0.6: samples on the modes, as wide as these, on all alike

    1,000 samples. Four standard deviations are left by exp(-8) of a mode: more than 7 outliers are one false alarm in 10^8
    runs; a mode has 125 with standard deviation 10.5, 63 away is one in 10^7; the mean of the eight modes' variances
    is 0.99 with standard deviation .025 (20 seeds), so that 20 % off are seven of them.
    """
    f, generator = ExactRing(), torch.Generator().manual_seed(seed)
    eps = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    got = impl.multistep(f, eps, f64([80.0, 0.6]), Noise(seed + 1), 0.002)
    x = is_tensor(got, (1000, 2), None, "multistep").double()
    far, counts = 1000 * outlier_fraction(x, f.mixture), 1000 * mode_occupancy(x, f.mixture)
    width = mode_covariance_ratio(x, f.mixture).mean().item()
    if far > 7.5:
        raise Wrong(
            f"{far:.0f} of 1,000 samples lie off the modes, not at most 7: the noise does not fit the time that f is told"
        )
    if (counts - 125).abs().max() > 63:
        raise Wrong(f"the modes hold {[round(c) for c in counts.tolist()]} of 1,000 samples, not about 125 each")
    if abs(width - 1) > 0.2:
        raise Wrong(f"the samples' variance inside a mode is {width:.2f} of the true one: too little noise makes samples look too good")  # fmt: skip


def completes(impl: Impl, seed: int) -> None:
    """your editing with an exact f: the second coordinate, the first known, follows the exact conditional law

    x2 given x1 = 1/2 is N(.4, .3^2). Algorithm 4 reaches it as the times get dense: with 320 times its law is N(.381, .307^2).
    4,000 samples: six standard errors, .029 and .021, on top of that: one false alarm in 10^8 runs.
    """
    y = f64([[0.5, 0.0]]).repeat(4000, 1)
    times, mask = karras_grid(320).flip(0), torch.tensor([False, True])
    got = impl.edit(ExactGaussian(), y, identity, identity, mask, times, Noise(seed), 0.002)
    x = is_tensor(got, (4000, 2), None, "edit")[:, 1].double()
    mean, std = x.mean().item(), x.std().item()
    if abs(mean - 0.4) > 0.02 + 0.029 or abs(std - 0.3) > 0.007 + 0.021:
        raise Wrong(f"given x1 = 0.5, x2 has mean {mean:.3f} and standard deviation {std:.3f} after 320 times; the exact conditional is 0.4 and 0.3")  # fmt: skip


ASSIGNMENT = Assignment(
    name="a5",
    title="Sampling in a few steps, and editing",
    functions=("renoise", "multistep", "gamma_step", "orthogonal", "mix", "unmix", "edit", "slerp"),
    forbidden=("minicm.sampling", "minicm.editing"),
    tasks=(
        Task("1 re-noise", ((1, renoise_shape), (1, renoise_values)), hints=(
            "f's answer already holds noise of t_min. What adds up when independent noises are added?",
            "Variances add: x has t_min^2, s^2 is wanted."
        )),
        Task("2 multistep", ((1, multistep_shape), (1, multistep_calls), (2, multistep_noise), (1, multistep_end)), hints=(
            "Write down, for three times, what happens in order: how many evaluations, how many draws?",
            "CM, Algorithm 1: evaluate; then for each further time: renoise, evaluate. Two draws for three times."
        )),
        Task("3 gamma", ((1, gamma_shape), (1, gamma_ends), (2, gamma_values)), hints=(
            "Two moves: to u = (1 - gamma) s without noise (assignment 2), then from u to s by the forward process.",
            "x_s = r x_u + noise with r = alpha_s/alpha_u. The noise in r x_u has standard deviation r sigma_u; which variance is missing to sigma_s^2?",
            "f's answer lives at t_min: put the larger of sigma_u and t_min for sigma_u in the variance."
        )),
        Task("4 operator", ((1, operator_shape), (1, orthogonal_values), (1, mix_values), (1, unmix_values)), hints=(
            "torch.linalg.qr keeps the direction of the first column, up to its sign.",
            "einsum says which index is summed: i for mix, j for unmix."
        )),
        Task("5 editing", ((1, edit_shape), (1, edit_start), (2, edit_steps), (1, edit_keeps)), hints=(
            "It is multistep sampling with another f: one that puts the known coefficients back before it answers.",
            "where(mask, forward(f(x, t)), forward(y)), then inverse: after every evaluation, before the noise.",
            "The start is no sample at t_min but y itself, and noise of the first time."
        )),
        Task("6 slerp", ((1, slerp_shape), (1, slerp_values), (1, slerp_parallel)), hints=(
            "Flatten all axes but the first, and take one angle for each row.",
            "0/0 where the angle is 0: torch.sinc(x) is sin(pi x)/(pi x) with its limit 1. And acos needs its argument within [-1, 1]."
        )),
        Task("7 the real thing", ((2, samples_ring), (1, completes)), hints=("Mend what the tasks above report first.",), real_thing=True)
    )
)  # fmt: skip
