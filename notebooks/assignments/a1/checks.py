"""Assignment 1: the noise schedule and EDM's preconditioning (arXiv:2206.00364). What is asked, and how it is checked."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from minicm.course import specs
from minicm.course.kit import (
    EXACT,
    SHAPES,
    Assignment,
    Causes,
    Impl,
    StudentModel,
    Task,
    Wrong,
    asks_net_once,
    f64,
    is_tensor,
    keep_times,
    keeps_shape,
    reaches,
    same,
    untouched,
)
from minicm.data.mixtures import GaussianMixture
from minicm.metrics.consistency import paired_error
from minicm.nets.mlp import MLP
from minicm.objectives.base import Draw
from minicm.objectives.dsm import DSM
from minicm.schedules import EDM
from minicm.solvers import solve
from minicm.times import LogNormalTimes
from minicm.train import TrainConfig, train

TIMES = (0.002, 0.1, 0.5, 2.0, 80.0)  # below, at and above sigma_data
WIDTHS = (0.5, 1.0, 0.3)  # sigma_data: 0.5 hides a square (its half is its square's double), 1 a missing factor


# -------------------------------------------------------------------------------------------------- noise
def noise_shape(impl: Impl, seed: int) -> None:
    """add_noise keeps shape and dtype, also where the batch is as long as the image is wide"""
    for shape in SHAPES:
        x0, eps, t = torch.zeros(shape), torch.ones(shape), torch.arange(1.0, shape[0] + 1).double()
        if impl.add_noise(x0, x0, t).any():
            raise Wrong("add_noise of x0 = 0 and eps = 0 is not 0: is new noise drawn, where eps was given?")
        x_t = is_tensor(
            impl.add_noise(x0, eps, t),
            shape,
            torch.float32,
            f"add_noise of x0 {shape} float32, t ({shape[0]},) float64",
        )
        rows = x_t.flatten(1)
        if not (rows == rows[:, :1]).all():
            raise Wrong(
                f"add_noise of x0 {shape} gives the points of one sample different noise levels: t (B,) has broadcast "
                "along the last axis; it must be spread over all axes of its own sample"
            )
        untouched(torch.zeros(shape), x0, "add_noise")
    double = impl.add_noise(torch.zeros(2, 2).double(), torch.ones(2, 2).double(), torch.ones(2).double())
    is_tensor(double, (2, 2), torch.float64, "add_noise of float64 points")


def noise_values(impl: Impl, seed: int) -> None:
    """x_t = x0 + t eps, from the eps that is given"""
    x0, eps = (f64([[1.0, -2.0], [0.5, 3.0]]), f64([[0.5, 1.0], [-2.0, 0.25]]))
    t = f64([4.0, 0.25])
    kept = eps.clone()
    want = [[1 + 4 * 0.5, -2 + 4 * 1.0], [0.5 - 0.25 * 2, 3 + 0.25 * 0.25]]
    got = impl.add_noise(x0, eps, t)
    causes = {
        "t is taken for a variance: it is the noise's standard deviation": x0 + t.sqrt()[:, None] * eps,
        "the data shrink as in a variance-preserving chain: in EDM's clock x0 keeps its size": (x0 + t[:, None] * eps)
        / (1 + t[:, None] ** 2).sqrt(),
    }
    other = "is new noise drawn, where eps was given?"
    same(got, want, "add_noise is not x0 + t eps", rtol=EXACT, atol=EXACT, causes=causes, otherwise=other)
    untouched(kept, eps, "add_noise")


# --------------------------------------------------------------------------------------------------- grid
def grid_shape(impl: Impl, seed: int) -> None:
    """karras_grid returns n float64 times, ascending"""
    for n in (2, 18, 40):
        grid = impl.karras_grid(n)
        if isinstance(grid, Tensor) and grid.ndim == 1 and len(grid) != n:
            raise Wrong(
                f"karras_grid({n}) has {len(grid)} times, not {n}: n counts points, not intervals, and no 0 is appended"
            )
        grid = is_tensor(grid, (n,), torch.float64, f"karras_grid({n})")
        if not (grid.diff() > 0).all():
            raise Wrong(
                f"karras_grid({n}) does not ascend: EDM counts down from t_max, consistency models up from t_min"
            )


def grid_ends(impl: Impl, seed: int) -> None:
    """its ends are exactly t_min and t_max"""
    for n, t_min, t_max in ((18, 0.002, 80.0), (5, 0.01, 3.0), (40, 0.002, 80.0)):
        grid = impl.karras_grid(n) if (t_min, t_max) == (0.002, 80.0) else impl.karras_grid(n, t_min, t_max)
        ends = (("first", grid[0].item(), t_min), ("last", grid[-1].item(), t_max))
        name, got, want = max(ends, key=lambda end: abs(end[1] / end[2] - 1))
        if got != want:
            miss = abs(got / want - 1)
            cause = "are t_min and t_max used, and n points, n - 1 steps?"
            if miss < 1e-12:
                cause = "root and power do not cancel in floating point: set the ends"
            elif miss < 1e-5:
                cause = "a part of it was computed in float32, and a cast at the end cannot mend that"
            raise Wrong(f"the {name} time of karras_grid({n}, {t_min}, {t_max}) is {got!r}, not {want!r}; {cause}")


def grid_values(impl: Impl, seed: int) -> None:
    """between them the times are equally spaced in t^(1/rho)"""
    for n, t_min, t_max, rho in ((5, 0.002, 80.0, 7.0), (12, 0.01, 20.0, 3.0), (151, 0.002, 80.0, 7.0)):
        ramp, ratio = [i / (n - 1) for i in range(n)], t_max / t_min
        causes = {
            "they are equally spaced in t itself": [t_min + r * (t_max - t_min) for r in ramp],
            "they are equally spaced in ln t": [t_min * ratio**r for r in ramp],
            "root and power are exchanged": specs.grid(n, t_min, t_max, 1 / rho),
            "rho is fixed at 7, where another was given": specs.grid(n, t_min, t_max, 7.0),
            "they run from t_max down": specs.grid(n, t_min, t_max, rho)[::-1],
        }
        given = (n,) if (t_min, t_max, rho) == (0.002, 80.0, 7.0) else (n, t_min, t_max, rho)  # the defaults
        same(
            impl.karras_grid(*given), specs.grid(n, t_min, t_max, rho),
            f"the times of karras_grid({n}, {t_min}, {t_max}, {rho}) are not equally spaced in t^(1/rho)",
            rtol=1e-10, causes=causes,  # float64 holds 1e-14 here; float32 misses by 1e-6
            otherwise="is something computed in float32, or one index off?",
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------- scalings
def scalings_shape(impl: Impl, seed: int) -> None:
    """c_in, c_skip, c_out and c_noise map (B,) to (B,) in t's dtype"""
    keep_times(impl, ("c_in", "c_skip", "c_out", "c_noise"), TIMES)


def scaling(
    name: str, spec: Callable, causes: Callable[[float, float], dict[str, float]]
) -> Callable[[Impl, int], None]:
    """The check of one scaling at five noise levels and three widths of data."""

    def check(impl: Impl, seed: int) -> None:
        t = f64(TIMES)
        for sd in WIDTHS:
            others: dict[str, list[float]] = {}
            for value in TIMES:
                for cause, other in causes(value, sd).items():
                    others.setdefault(cause, []).append(other)
            want, what = (
                [spec(value, sd) for value in TIMES],
                f"{name} is wrong for t = {TIMES} and sigma_data = {sd}",
            )
            given = (t,) if sd == 0.5 else (t, sd)  # 0.5 is the default
            same(
                getattr(impl, name)(*given),
                want,
                what,
                rtol=EXACT,
                causes=others,
                otherwise=f"compare {name} with EDM's Table 1",
            )

    check.__doc__ = f"{name} has the values of EDM's Table 1 for sigma_data = 0.5, 1 and 0.3"
    return check


c_in_values = scaling("c_in", specs.c_in, lambda t, sd: {
    "the root is missing: a variance is taken for a standard deviation": 1 / (t * t + sd * sd),
    "sigma_data is missing": 1 / t, "standard deviations are added instead of variances": 1 / (t + sd),
    "sigma_data is fixed at 0.5": specs.c_in(t, 0.5)
})  # fmt: skip
c_skip_values = scaling("c_skip", specs.c_skip, lambda t, sd: {
    "sigma_data in the numerator is not squared": sd / (t * t + sd * sd),
    "the root belongs to c_in and c_out": sd / math.hypot(t, sd),
    "c_skip is how much of x is signal, this is how much is noise": t * t / (t * t + sd * sd),
    "sigma_data is fixed at 0.5": specs.c_skip(t, 0.5)
})  # fmt: skip
c_out_values = scaling("c_out", specs.c_out, lambda t, sd: {
    "sigma_data is squared": sd * sd * t / math.hypot(t, sd), "sigma_data is missing": t / math.hypot(t, sd),
    "the root is missing": sd * t / (t * t + sd * sd), "the sign is turned": -specs.c_out(t, sd),
    "sigma_data is fixed at 0.5": specs.c_out(t, 0.5)
})  # fmt: skip


def c_noise_values(impl: Impl, seed: int) -> None:
    """c_noise is ln(t)/4"""
    causes = {
        "the noise level goes in raw: from 0.002 to 80 it spans five decades": list(TIMES),
        "the quarter is missing": [math.log(t) for t in TIMES],
        "the logarithm is not the natural one": [math.log10(t) / 4 for t in TIMES],
        "the logarithm is that to the base 2": [math.log2(t) / 4 for t in TIMES],
        "it is half, not a quarter": [math.log(t) / 2 for t in TIMES],
        "the factor 1000 is that of CM's code": [250 * math.log(t) for t in TIMES],
        "this is t/4": [t / 4 for t in TIMES],
    }
    t = f64(TIMES)
    what = "c_noise is not ln(t)/4"
    same(impl.c_noise(t), [specs.c_noise(v) for v in TIMES], what, rtol=EXACT, atol=EXACT, causes=causes)


def scalings_identity(impl: Impl, seed: int) -> None:
    """c_out is the size of what the network has to add: c_out^2 = (1 - c_skip)^2 sigma_d^2 + c_skip^2 t^2"""
    t = f64(TIMES)
    for sd in (0.7, 2.0):  # other widths than above
        skip, out = impl.c_skip(t, sd), impl.c_out(t, sd)
        want = ((1 - skip) ** 2 * sd**2 + skip**2 * t**2).sqrt()  # EDM, appendix B.6
        what = (
            f"c_skip and c_out do not belong together for sigma_data = {sd}: the network's target has not unit variance"
        )
        same(
            out, want, what, rtol=1e-9, otherwise="c_out is the standard deviation of x0 - c_skip x_t"
        )  # 1 - c_skip cancels


# ----------------------------------------------------------------------------------------- unit variance
target_shape = keeps_shape("network_target", lambda x, t: (x, x, t.float()))


def target_inverts(impl: Impl, seed: int) -> None:
    """a network that puts out network_target makes the denoiser give back x0"""
    generator = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(5, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    t = f64(TIMES)
    x = x0 + t[:, None] * eps
    target = impl.network_target(x0, x, t)
    skip, out = (f64([c(v, 0.5) for v in TIMES])[:, None] for c in (specs.c_skip, specs.c_out))
    causes = {
        "the division by c_out is missing": x0 - skip * x,
        "the skip connection is forgotten": x0 / out,
        "x0 and x are exchanged": (x - skip * x0) / out,
        "the noise is taken for the target": eps,
    }
    what = "network_target is not the F for which c_skip x + c_out F = x0"
    same(target, (x0 - skip * x) / out, what, rtol=1e-9, atol=1e-9, causes=causes, otherwise="solve EDM's Eq. 7 for F")


def unit_variance(impl: Impl, seed: int) -> None:
    """c_in x_t and network_target have unit variance at every noise level

    4,000 numbers have a sample standard deviation of 1 within 5/sqrt(8,000) = .056 but for once in 1.7 million
    times; ten such tests: a false alarm in 170,000 runs.
    """
    generator, n, sd = torch.Generator().manual_seed(seed), 4000, 0.3
    x0, eps = (torch.randn(n, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    for value in TIMES:
        t = torch.full((n,), value, dtype=torch.float64)
        x = impl.add_noise(sd * x0, eps, t)
        scaled = {
            "c_in x_t": is_tensor(impl.c_in(t, sd), (n,), None, "c_in")[:, None] * x,
            "network_target": impl.network_target(sd * x0, x, t, sd),
        }
        for name, numbers in scaled.items():
            std = numbers.std().item()
            if not abs(std - 1) < 0.056:
                raise Wrong(
                    f"{name} has standard deviation {std:.3f}, not 1, at t = {value} for data of sigma_data = {sd}: "
                    "is sigma_data passed on to every scaling?"
                )


# ----------------------------------------------------------------------------------------------- denoiser
def denoise_shape(impl: Impl, seed: int) -> None:
    """denoise keeps shape and dtype, gives net (B, *D) and (B,), and evaluates it once"""
    asks_net_once(impl, "denoise")


def denoise_input(impl: Impl, seed: int) -> None:
    """the network sees c_in x and c_noise"""
    seen: list[Tensor] = []

    def net(x: Tensor, noise: Tensor) -> Tensor:
        seen.extend((x.detach().clone(), noise.detach().clone()))
        return torch.zeros_like(x)

    t = f64(TIMES)
    x = f64([[3.0, -1.0]] * 5)
    impl.denoise(net, x, t)
    scale = f64([specs.c_in(v, 0.5) for v in TIMES])[:, None]
    causes = {"x goes in unscaled": x, "it is scaled by the variance, not the standard deviation": scale**2 * x}
    what = "the network's input is not c_in x"
    same(seen[0], scale * x, what, rtol=EXACT, causes=causes, otherwise="check the scaling")
    causes = {"it is t itself": t, "it is ln t, without the quarter": t.log()}
    same(seen[1], t.log() / 4, "the network is not told c_noise(t)", rtol=EXACT, atol=EXACT, causes=causes)


def denoise_values(impl: Impl, seed: int) -> None:
    """D = c_skip x + c_out F, worked by hand for F(x, c) = 2 x + c"""
    for sd in (0.5, 0.3):
        t = f64(TIMES)
        x = f64([[1.5, -0.5]] * 5)

        def rows(out: Callable[[float, float], float], skip: Callable, sd: float = sd, inside: float = sd) -> list[list[float]]:  # fmt: skip
            points = []
            for v in TIMES:
                F = [2 * specs.c_in(v, inside) * a + specs.c_noise(v) for a in (1.5, -0.5)]
                points.append([skip(v, sd) * a + out(v, sd) * f for a, f in zip((1.5, -0.5), F)])
            return points

        causes: Causes = {
            "the network's output is not scaled by c_out": rows(lambda v, s: 1.0, specs.c_skip),
            "x is not scaled by c_skip": rows(specs.c_out, lambda v, s: 1.0),
            "the skip connection is missing": rows(specs.c_out, lambda v, s: 0.0),
            "c_skip and c_out are exchanged": rows(specs.c_skip, specs.c_out),
            "the network's part is subtracted": rows(lambda v, s: -specs.c_out(v, s), specs.c_skip),
            "sigma_data is not passed on": rows(lambda v, s: specs.c_out(v, 0.5), lambda v, s: specs.c_skip(v, 0.5)),
            "sigma_data is not passed on to c_in": rows(specs.c_out, specs.c_skip, inside=0.5),
            "sigma_data is not passed on to c_out": rows(lambda v, s: specs.c_out(v, 0.5), specs.c_skip),
            "sigma_data is not passed on to c_skip": rows(specs.c_out, lambda v, s: specs.c_skip(v, 0.5)),
            "c_skip multiplies c_in x, not x": rows(specs.c_out, lambda v, s: specs.c_skip(v, s) * specs.c_in(v, s)),
            "the estimate is clipped to [-1, 1]": f64(rows(specs.c_out, specs.c_skip)).clamp(-1, 1),
        }
        what = f"denoise is not c_skip x + c_out F for sigma_data = {sd}"
        got = impl.denoise(lambda x, c: 2 * x + c[:, None], x, t, sd)
        other = "put EDM's Eq. 7 together again"
        same(got, rows(specs.c_out, specs.c_skip), what, rtol=1e-11, atol=1e-12, causes=causes, otherwise=other)
    weight = torch.ones(1, requires_grad=True)
    if not impl.denoise(lambda x, c: weight * x, torch.ones(3, 2), torch.ones(3)).requires_grad:
        raise Wrong("denoise gives the network's weights no gradient, so that it cannot be trained")


# -------------------------------------------------------------------------------------------- real thing
class StudentDSM(DSM):
    """Denoising score matching in EDM's own form: mean square of F minus the student's network_target."""

    def __init__(self, add_noise: Callable, target: Callable) -> None:
        super().__init__(time_law=LogNormalTimes())
        self.add_noise, self.target = add_noise, target

    def loss(
        self, f: Callable, f_target: Callable, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        t = draw.t.to(x0.dtype)
        x = self.add_noise(x0, draw.eps, t)
        target = self.target(x0, x, t)
        F = self.target(f(x, t), x, t)  # D taken through the same line gives F back
        return (F - target).square().sum(1)


def teacher(impl: Impl, seed: int, steps: int = 300) -> tuple[nn.Module, GaussianMixture]:
    """A small diffusion model of the ring, trained with the student's preconditioning."""
    ring = GaussianMixture.ring()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        f = StudentModel(impl.denoise, MLP(2, width=48, depth=3), t_min=0.0)
    config = TrainConfig(steps=steps, batch=256, lr=4e-3, warmup=20, ema=0.98, seed=seed)
    *_, last = train(f, StudentDSM(impl.add_noise, impl.network_target), ring, config)
    return last.ema, ring


def trains_a_teacher(impl: Impl, seed: int) -> None:
    """a diffusion model trained with your preconditioning samples the ring on your grid"""
    f, ring = teacher(impl, seed)
    generator = torch.Generator().manual_seed(seed)
    x_T = EDM().prior((500, 2), generator)
    x0 = solve(f, EDM(), x_T, impl.karras_grid(18).flip(0))
    error = paired_error(x0, ring.flow(x_T, 80.0, 0.002), ring.sigma_data).median().item()
    reaches(error, TEACHER_BOUND, "sampling with the trained model")


TEACHER_BOUND = 0.1  # sigma_d; the solution reaches .03 on each of 20 seeds

ASSIGNMENT = Assignment(
    name="a1",
    title="Schedule and preconditioning",
    functions=("add_noise", "karras_grid", "c_in", "c_skip", "c_out", "c_noise", "denoise", "network_target"),
    forbidden=("minicm.times", "minicm.denoiser"),
    tasks=(
        Task("1 noise", ((1, noise_shape), (1, noise_values)), hints=(
            "t holds one number for each sample. Which shape must it have, to multiply a batch of images?",
            "Reshape t to (B, 1, 1, ...), with as many ones as x0 has axes after the first; x0.ndim tells how many."
        )),
        Task("2 grid", ((1, grid_shape), (1, grid_ends), (2, grid_values)), hints=(
            "EDM's Eq. 5 counts down from t_max with i = 0..N-1. Read it from the other end.",
            "Take the rho-th root of both ends, put n equally spaced numbers between, and raise them to the power rho.",
            "Do it in float64 from the start, and write the two ends into the result: they are known exactly."
        )),
        Task("3 scalings", (
            (1, scalings_shape), (1, c_in_values), (1, c_skip_values), (1, c_out_values), (1, c_noise_values), (1, scalings_identity)
        ), hints=(
            "The variance of x_t = x0 + t eps is the sum of two variances. c_in is what brings it to 1.",
            "Ask for the c_skip that makes x0 - c_skip x_t as small as possible, on average over x0 and eps.",
            "c_out is then the standard deviation of what is left, x0 - c_skip x_t."
        )),
        Task("4 unit variance", ((1, target_shape), (2, target_inverts), (1, unit_variance)), hints=(
            "Write D = c_skip x + c_out F, set D = x0, and solve for F.",
        )),
        Task("5 denoiser", ((1, denoise_shape), (1, denoise_input), (1, denoise_values)), hints=(
            "Four factors, one evaluation of net. Which of them multiply x, which the output, and which goes in as the second argument?",
            "Every (B,) factor needs the reshaping of task 1 before it multiplies x."
        )),
        Task("6 the real thing", ((2, trains_a_teacher),), hints=("Mend what the tasks above report first.",), real_thing=True)
    )
)  # fmt: skip
