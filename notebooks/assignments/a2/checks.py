"""Assignment 2: solvers of the probability-flow ODE: Euler, Heun, their order, DDIM. What is asked, and how it is checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from minicm.course import specs
from minicm.course.kit import (
    Assignment,
    Impl,
    Task,
    Wrong,
    alike_within,
    f64,
    is_tensor,
    keeps_shape,
    plain,
    reaches,
    same,
    untouched,
)
from minicm.data.closed_forms import gaussian_flow
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.metrics.consistency import paired_error
from minicm.nets.mlp import MLP
from minicm.objectives.cd import CD
from minicm.schedules import EDM, VP, Schedule, TrigFlow
from minicm.times import LogNormalIndex, karras_grid
from minicm.train import TrainConfig, train


class Case(NamedTuple):
    """A clock, its specification, and steps in it: three samples, t -> s, both directions."""

    schedule: Schedule
    clock: specs.Clock
    t: tuple[float, ...]
    s: tuple[float, ...]

    @property
    def name(self) -> str:
        """How a complaint names it."""
        return f"in the {type(self.schedule).__name__} clock from t = {self.t} to s = {self.s}"


CASES = (
    Case(EDM(), specs.EDM, (80.0, 2.0, 0.5), (20.0, 0.5, 2.0)),
    Case(VP.linear(), specs.vp(), (900.0, 300.0, 100.0), (700.0, 20.0, 400.0)),
    Case(TrigFlow(), specs.TRIGFLOW, (1.5, 0.4, 0.2), (1.0, 0.1, 0.9)),
)
POINTS = ([1.5, -0.7], [-2.0, 0.4], [0.3, 1.1])  # x, three samples
CLOSE = 1e-10  # float64: the same numbers in another order differ by some 1e-14, and 1e-12 where tan is large


def d(x: Tensor, t: Tensor) -> Tensor:
    """A denoiser that depends on both arguments; `d_spec` is the same for one sample."""
    return 0.3 + 0.5 * x.tanh() + (0.1 * t.sin()).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def d_spec(x: list[float], t: float) -> list[float]:
    """A denoiser in plain Python, curved in x and t, for one sample."""
    return [0.3 + 0.5 * math.tanh(a) + 0.1 * math.sin(t) for a in x]


def rows(step: Callable, case: Case) -> list[list[float]]:
    """A specification, sample by sample."""
    return [step(x, t, s) for x, t, s in zip(POINTS, case.t, case.s)]


def shape_and_calls(name: str, evaluations: int) -> Callable[[Impl, int], None]:
    """The gate of a step: shape, dtype, how often denoise is evaluated, and nothing written into x."""

    def check(impl: Impl, seed: int) -> None:
        for shape, dtype in (((3, 2), torch.float64), ((4, 3, 4, 4), torch.float32)):
            calls: list[int] = []

            def denoise(x: Tensor, t: Tensor, calls: list = calls) -> Tensor:
                calls.append(len(x))
                return torch.zeros_like(x)

            x, t = torch.ones(shape, dtype=dtype), torch.arange(1.0, shape[0] + 1).double()
            call = f"{name} of x {shape}, t ({shape[0]},)"
            out = is_tensor(getattr(impl, name)(denoise, EDM(), x, t, t - 0.5), shape, dtype, call)
            if len(calls) != evaluations:
                raise Wrong(f"{call} must evaluate denoise {evaluations} time(s), it did {len(calls)} times")
            alike_within(out, call, "times")
            untouched(torch.ones_like(x), x, name)

    check.__doc__ = f"{name} keeps shape and dtype and evaluates denoise {evaluations} time(s)"
    return check


# ------------------------------------ specifications: slow and obvious, in plain Python, one number at a time
def spec_ddim(x: float, eps: float, bar_t: float, bar_s: float) -> float:
    """DDIM, arXiv:2010.02502, Eq. 12 with sigma = 0: predicted x0, then the direction pointing to x_t."""
    predicted = (x - math.sqrt(1 - bar_t) * eps) / math.sqrt(bar_t)
    return math.sqrt(bar_s) * predicted + math.sqrt(1 - bar_s) * eps


def spec_slope(x: list[float], y: list[float]) -> float:
    """The least-squares slope of y over x."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


# --------------------------------------------------------------------------------------------- the noise
eps_shape = keeps_shape("eps_hat", lambda x, t: (EDM(), x, 0 * x, t.float()), "times")


def eps_values(impl: Impl, seed: int) -> None:
    """alpha x0_hat + sigma eps_hat gives x back, in all three clocks"""
    x, x0 = f64(POINTS), f64([[0.2, -0.1], [1.0, 0.5], [-0.4, 0.3]])
    for case in CASES:
        alpha, sigma = (f64([c(t) for t in case.t])[:, None] for c in case.clock)
        want = [specs.eps_hat(case.clock, a, b, t) for a, b, t in zip(x.tolist(), x0.tolist(), case.t)]
        causes = {
            "this is minus the score, eps/sigma": (x - alpha * x0) / sigma**2,
            "x0_hat is not scaled by alpha": (x - x0) / sigma,
            "the sign is turned": (alpha * x0 - x) / sigma,
            "the noise is not brought to unit size by sigma": x - alpha * x0,
            "x is divided by alpha, sigma is not": (x / alpha - x0) / sigma,
        }
        got = impl.eps_hat(case.schedule, x, x0, f64(case.t))
        what = f"eps_hat is wrong {case.name}"
        other = "solve x = alpha x0_hat + sigma eps for eps"
        same(got, want, what, rtol=CLOSE, atol=CLOSE, causes=causes, otherwise=other)


# ----------------------------------------------------------------------------------------------- Euler
def euler_values(impl: Impl, seed: int) -> None:
    """Euler's step keeps x0_hat and eps_hat and puts them together at s, in all three clocks"""
    for case in CASES:
        x, t, s = f64(POINTS), f64(case.t), f64(case.s)
        alpha, sigma = case.clock

        def again(x: list[float], t: float, s: float, alpha: Callable = alpha, sigma: Callable = sigma) -> list[float]:
            x0 = d_spec(x, t)
            return [a + (s - t) * (a - b) / t for a, b in zip(x, x0)]

        step = rows(lambda x, t, s, c=case.clock: specs.euler(c, d_spec, x, t, s), case)
        mirrored = (2 * x - f64(step)).tolist()
        late = rows(lambda x, t, s, c=case.clock: specs.euler(c, lambda y, _: d_spec(y, s), x, t, s), case)
        causes = {
            "the sign of the step is turned: it moves away from s": mirrored,
            "denoise is asked at s, where x does not live": late,
            "this formula holds in the EDM clock only": rows(again, case),
            "x0_hat alone is returned: the noise that belongs to s is missing": [
                d_spec(x, t) for x, t in zip(POINTS, case.t)
            ],
            "t and s are exchanged": rows(lambda x, t, s, c=case.clock: specs.euler(c, d_spec, x, s, t), case),
        }
        got = impl.euler_step(d, case.schedule, x, t, s)
        what = f"euler_step is wrong {case.name}"
        other = "is new noise drawn, or a factor of alpha missing?"
        same(got, step, what, rtol=CLOSE, atol=CLOSE, causes=causes, otherwise=other)


def euler_straight(impl: Impl, seed: int) -> None:
    """where x0_hat never changes the path is straight: one Euler step is as good as two"""
    t, m, s = (torch.full((3,), v, dtype=torch.float64) for v in (10.0, 3.0, 0.5))

    def constant(x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, 0.7)

    x = f64(POINTS)
    once = impl.euler_step(constant, EDM(), x, t, s)
    twice = impl.euler_step(constant, EDM(), impl.euler_step(constant, EDM(), x, t, m), m, s)
    what = "two Euler steps 10 -> 3 -> 0.5 do not meet one step 10 -> 0.5 though x0_hat is constant"
    other = "the new point must hold the same x0_hat and the same noise"
    same(twice, once, what, rtol=CLOSE, atol=CLOSE, otherwise=other)


# ------------------------------------------------------------------------------------------------ Heun
def heun_points(impl: Impl, seed: int) -> None:
    """the second evaluation is at s, at the point that Euler reaches"""
    seen: list[tuple[Tensor, Tensor]] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x.detach().clone(), t.detach().clone()))
        return d(x, t)

    case = CASES[0]
    x, t, s = f64(POINTS), f64(case.t), f64(case.s)
    impl.heun_step(denoise, EDM(), x, t, s)
    euler = rows(lambda x, t, s: specs.euler(specs.EDM, d_spec, x, t, s), case)
    (first, t_1), (second, t_2) = seen
    same(t_1, t, f"heun_step's first evaluation is not at t {case.name}", rtol=CLOSE)
    same(first, x, f"heun_step's first evaluation is not at x {case.name}", rtol=CLOSE, atol=CLOSE)
    causes = {"it is at t again": t, "it is in the middle: that is the midpoint rule": (t + s) / 2}
    same(t_2, s, f"heun_step's second evaluation is not at s {case.name}", rtol=CLOSE, causes=causes)
    causes = {"it is at the old point": x}
    what = f"heun_step's second evaluation is not at Euler's point {case.name}"
    same(second, euler, what, rtol=CLOSE, atol=CLOSE, causes=causes)


def heun_values(impl: Impl, seed: int) -> None:
    """Heun's step averages the slopes at both ends, in all three clocks"""
    for case in CASES:
        x = f64(POINTS)
        euler = f64(rows(lambda x, t, s, c=case.clock: specs.euler(c, d_spec, x, t, s), case))
        want = f64(rows(lambda x, t, s, c=case.clock: specs.heun(c, d_spec, x, t, s), case))
        alpha_t, alpha_s = (f64([case.clock[0](v) for v in times])[:, None] for times in (case.t, case.s))
        causes = {
            "this is Euler's step: the second slope is not used": euler,
            "the second slope alone is used: that is no average": 2 * want - euler,
            "the slopes are added, not averaged": 2 * want - alpha_s / alpha_t * x,
            "the correction has the wrong sign": 2 * euler - want,
            "x0_hats are averaged instead of slopes": f64(
                rows(lambda x, t, s, c=case.clock: _heun_of_x0(c, x, t, s), case)
            ),
        }
        got = impl.heun_step(d, case.schedule, x, f64(case.t), f64(case.s))
        other = "work in y = x/alpha and lambda = sigma/alpha"
        same(got, want, f"heun_step is wrong {case.name}", rtol=CLOSE, atol=CLOSE, causes=causes, otherwise=other)


def _heun_of_x0(clock: specs.Clock, x: list[float], t: float, s: float) -> list[float]:
    """Euler with the mean of the two estimates of x0: another method, of order 2 only in a variable of its own."""
    first = specs.euler(clock, d_spec, x, t, s)
    mean = [(a + b) / 2 for a, b in zip(d_spec(x, t), d_spec(first, s))]
    return specs.euler(clock, lambda *_: mean, x, t, s)


def heun_to_clean(impl: Impl, seed: int) -> None:
    """a step to sigma(s) = 0 is Euler's, with one evaluation"""
    calls: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return d(x, t)

    x, t = f64(POINTS), f64([2.0, 2.0, 2.0])
    got = is_tensor(impl.heun_step(denoise, EDM(), x, t, 0 * t), (3, 2), None, "heun_step to s = 0")
    want = [specs.euler(specs.EDM, d_spec, row, 2.0, 0.0) for row in POINTS]
    what = "heun_step to s = 0 is not Euler's"
    same(got, want, what, rtol=CLOSE, atol=CLOSE, otherwise="at s = 0 there is no slope to average with")
    if len(calls) != 1:
        raise Wrong(
            f"heun_step to s = 0 must evaluate denoise once, it did {len(calls)} times: a clean point has no slope"
        )
    impl.heun_step(denoise, EDM(), x, t, 0 * t + 0.002)
    if len(calls) != 3:
        raise Wrong("heun_step to s = 0.002 must evaluate denoise twice: only where sigma(s) = 0 there is no slope")


# ----------------------------------------------------------------------------------------- a whole path
def solve_visits(impl: Impl, seed: int) -> None:
    """solve steps through all times in the order given, with (B,) times in float64"""
    for times in ([80.0, 5.0, 1.0, 0.002], [0.002, 1.0, 80.0], [3.0, 1.0, 0.0]):
        seen: list[tuple[float, float]] = []

        def step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor, seen: list = seen) -> Tensor:
            for name, time in (("t", t), ("s", s)):
                is_tensor(time, (len(x),), torch.float64, f"the {name} that solve gives to step")
            seen.append((t[0].item(), s[0].item()))
            return x + 1

        x = torch.zeros(3, 2)
        out = is_tensor(impl.solve(d, EDM(), x, times, step), (3, 2), torch.float32, "solve")
        pairs = list(zip(times[:-1], times[1:]))
        if seen != pairs:
            cause = (
                "one is missing"
                if len(seen) < len(pairs)
                else "the order is the caller's to choose"
                if sorted(seen) != seen
                else "check the pairs"
            )
            raise Wrong(f"solve through {times} must take the steps {pairs}, it took {seen}: {cause}")
        if not (out == len(pairs)).all():
            raise Wrong(
                f"solve through {times} does not return the point after its last step: is x replaced by what step returns?"
            )


def solve_composes(impl: Impl, seed: int) -> None:
    """solve with your Euler step is the specification's, step after step"""
    times, point = [80.0, 20.0, 5.0, 1.0, 0.2, 0.0], [30.0, -50.0]
    want = point
    for t, s in zip(times, times[1:]):
        want = specs.euler(specs.EDM, d_spec, want, t, s)
    got = impl.solve(d, EDM(), f64([point]), times, impl.euler_step)
    what = f"solve with euler_step through {times} is wrong"
    same(got, [want], what, rtol=1e-9, atol=1e-9, otherwise="mend task 2, then look at what solve passes on")


# ----------------------------------------------------------------------------------------------- order
def order_values(impl: Impl, seed: int) -> None:
    """order is minus the slope of the logarithms, by least squares"""
    steps, errors = [10, 20, 40, 80], [0.1, 0.03, 0.008, 0.0017]
    want = -spec_slope([math.log(n) for n in steps], [math.log(e) for e in errors])
    got = plain(impl.order(steps, errors))
    if not isinstance(got, float):
        raise Wrong(f"order must return a float, got {type(got).__name__}")
    causes = {
        "the sign is turned: errors that fall have a positive order": [-want],
        "only the first and the last error are used": [math.log(errors[0] / errors[-1]) / math.log(8)],
        "the two logarithms have different bases": [
            want * math.log(10),
            want / math.log(10),
            want * math.log(2),
            want / math.log(2),
        ],
        "the errors' logarithm is missing": [-spec_slope([math.log(n) for n in steps], errors)],
        "the logarithm of the steps is missing": [-spec_slope(list(map(float, steps)), [math.log(e) for e in errors])],
    }
    fits = {cause: [other] for cause, others in causes.items() for other in others if abs(got - other) < 1e-6}
    same(
        f64([got]),
        [want],
        f"order({steps}, {errors}) is wrong",
        rtol=1e-6,  # float32 will do
        causes=fits,
        otherwise="regress ln(error) on ln(steps)",
    )


def order_measured(impl: Impl, seed: int) -> None:
    """your Euler converges with order 1, your Heun with order 2, against the exact flow of a Gaussian

    At 20 to 160 steps their slopes are .97 to 1.0 and 1.98 to 2.06, whatever the starting points.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, cov = f64([0.3, -0.2]), f64([[0.3, 0.1], [0.1, 0.15]])
    gaussian = GaussianMixture(mean[None], cov[None], f64([1.0])).denoiser()
    x = 80 * torch.randn(50, 2, generator=generator, dtype=torch.float64)
    truth = gaussian_flow(x, mean, cov, 80.0, 0.002)
    for name, step, wanted, tolerance in (
        ("euler_step", impl.euler_step, 1, 0.1),
        ("heun_step", impl.heun_step, 2, 0.15),
    ):
        steps = [20, 40, 80, 160]
        paths = [impl.solve(gaussian, EDM(), x, karras_grid(n + 1).flip(0).tolist(), step) for n in steps]
        errors = [paired_error(is_tensor(p, (50, 2), None, "solve"), truth).median().item() for p in paths]
        found = -spec_slope([math.log(n) for n in steps], [math.log(max(e, 1e-300)) for e in errors])
        if not abs(found - wanted) < tolerance:
            raise Wrong(
                f"{name} converges with order {found:.2f}, not {wanted}: errors {[f'{e:.1e}' for e in errors]} with {steps} steps"
            )


# ------------------------------------------------------------------------------------------------ DDIM
def ddim_values(impl: Impl, seed: int) -> None:
    """ddim_step is DDIM's Eq. 12 without noise"""
    x, eps = f64(POINTS), f64([[0.5, -1.0], [0.1, 0.3], [2.0, -0.4]])
    is_tensor(impl.ddim_step(x, eps, 0.3, 0.8), (3, 2), torch.float64, "ddim_step")
    for bar_t, bar_s in ((0.3, 0.8), (0.05, 1.0), (0.9, 0.2)):
        want = [[spec_ddim(a, e, bar_t, bar_s) for a, e in zip(*pair)] for pair in zip(x.tolist(), eps.tolist())]
        x0 = (x - (1 - bar_t) ** 0.5 * eps) / bar_t**0.5
        causes = {
            "the roots of alpha_bar are missing": bar_s * (x - (1 - bar_t) * eps) / bar_t + (1 - bar_s) * eps,
            "predicted x0 is returned: the noise of s is missing": x0,
            "the noise of t is put back, not that of s": bar_s**0.5 * x0 + (1 - bar_t) ** 0.5 * eps,
            "t and s are exchanged": [
                [spec_ddim(a, e, bar_s, bar_t) for a, e in zip(*p)] for p in zip(x.tolist(), eps.tolist())
            ],
            "alpha_bar stands where its root belongs, beside x0": bar_s * (x - (1 - bar_t) ** 0.5 * eps) / bar_t
            + (1 - bar_s) ** 0.5 * eps,
            "1 - alpha_bar stands where its root belongs, beside eps": (bar_s / bar_t) ** 0.5 * (x - (1 - bar_t) * eps)
            + (1 - bar_s) * eps,
            "it is the mean of DDPM's step: DDIM puts the noise of s back": (
                x - (1 - bar_t / bar_s) / (1 - bar_t) ** 0.5 * eps
            )
            / (bar_t / bar_s) ** 0.5,
            "predicted x0 is clipped to [-1, 1]": bar_s**0.5 * x0.clamp(-1, 1) + (1 - bar_s) ** 0.5 * eps,
        }
        got = impl.ddim_step(x, eps, bar_t, bar_s)
        what = f"ddim_step is wrong for alpha_bar {bar_t} -> {bar_s}"
        same(got, want, what, rtol=CLOSE, atol=CLOSE, causes=causes, otherwise="is alpha_bar the cumulative product?")


def ddim_is_euler(impl: Impl, seed: int) -> None:
    """DDIM is your Euler step in the VP clock: the same point, to rounding"""
    vp, x = VP.linear(), f64(POINTS)
    for t, s in ((900, 700), (300, 20), (100, 400)):
        times = [torch.full((3,), float(v), dtype=torch.float64) for v in (t, s)]
        noise = f64([[0.5, -1.0], [0.1, 0.3], [2.0, -0.4]])
        bar_t, bar_s = vp.alpha_bar[t], vp.alpha_bar[s]

        def denoise(x: Tensor, _: Tensor, noise: Tensor = noise, bar: float = bar_t) -> Tensor:
            return (x - (1 - bar) ** 0.5 * noise) / bar**0.5

        ddim, euler = impl.ddim_step(x, noise, bar_t, bar_s), impl.euler_step(denoise, vp, x, *times)
        what = f"ddim_step and euler_step in the VP clock part ways from t = {t} to s = {s}"
        same(euler, ddim, what, rtol=1e-8, atol=1e-8, otherwise="both keep x0_hat and eps")


# ------------------------------------------------------------------------------------------ real thing
def distils(impl: Impl, seed: int) -> None:
    """consistency distillation with your heun_step reaches the exact answer, and so do 18 steps of your solver"""
    ring = GaussianMixture.ring()
    generator = torch.Generator().manual_seed(seed)
    x_T = EDM().prior((400, 2), generator)
    truth = ring.flow(x_T, 80.0, 0.002)
    solved = impl.solve(ring.denoiser(), EDM(), x_T, karras_grid(18).flip(0).tolist(), impl.heun_step)
    f = Denoiser(MLP(2, width=48, depth=3), t_min=0.002)
    law = LogNormalIndex(mean=-0.5, std=2.0)
    objective = CD(
        ring.denoiser(),
        grid=karras_grid(18),
        step=impl.heun_step,
        index_law=law,
        weight=lambda t, s: (t + 0.5) / (t - s),
    )
    *_, last = train(f, objective, ring, TrainConfig(steps=300, batch=256, lr=4e-3, warmup=20, ema=0.98, seed=seed))
    with torch.no_grad():
        learned = last.ema(x_T, torch.full((400,), 80.0, dtype=torch.float64))
    for what, x0, bound in (
        ("18 steps of solve with heun_step", solved, SOLVED_BOUND),
        ("one step of the distilled model", learned, DISTILLED_BOUND),
    ):
        error = paired_error(x0, truth, ring.sigma_data).median().item()
        reaches(error, bound, what)


SOLVED_BOUND, DISTILLED_BOUND = 0.05, 0.3  # sigma_d; the solution reaches .02 and .11 to .16 on 20 seeds

ASSIGNMENT = Assignment(
    name="a2",
    title="Solvers",
    functions=("eps_hat", "euler_step", "heun_step", "solve", "order", "ddim_step"),
    forbidden=("minicm.solvers", "minicm.sampling", "minicm.metrics"),
    withheld=("step", "eps_hat", "velocity"),
    tasks=(
        Task("1 noise estimate", ((1, eps_shape), (1, eps_values)), hints=(
            "One equation, x = alpha x0 + sigma eps, and everything in it but eps is given.",
        )),
        Task("2 Euler", ((1, shape_and_calls("euler_step", 1)), (2, euler_values), (1, euler_straight)), hints=(
            "You know x0_hat, and with task 1 the noise. Which point at s has both?",
            "In the EDM clock it is x + (s - t)(x - x0_hat)/t. Write it with alpha and sigma, and it holds in every clock."
        )),
        Task("3 Heun", (
            (1, shape_and_calls("heun_step", 2)), (1, heun_points), (2, heun_values), (1, heun_to_clean)
        ), hints=(
            "First take Euler's step. What is the slope where you arrive?",
            "In the EDM clock: x + (s - t) times the mean of eps_hat at (x, t) and eps_hat at (x_s, s).",
            "For the other clocks divide x by alpha first, use lambda = sigma/alpha for t and s, and multiply by alpha(s) at the end."
        )),
        Task("4 the whole path", ((1, solve_visits), (1, solve_composes)), hints=(
            "Neighbouring times are zip(times[:-1], times[1:]). Do not sort them: the caller chooses the direction.",
        )),
        Task("5 order of convergence", ((1, order_values), (2, order_measured)), hints=(
            "error = C N^-p is a straight line in logarithms. Which sign has its slope?",
        )),
        Task("6 DDIM", ((1, ddim_values), (1, ddim_is_euler)), hints=(
            "Predict x0 from x and eps at t; put it together with the same eps at s.",
            "alpha_bar is a variance: alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar)."
        )),
        Task("7 the real thing", ((3, distils),), hints=("Mend what the tasks above report first.",), real_thing=True)
    )
)  # fmt: skip
