"""Assignment 3: the boundary condition and consistency distillation (arXiv:2303.01469). What is asked, and how it is checked."""

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
    Impl,
    Linear,
    StudentModel,
    Task,
    Wrong,
    alike_within,
    asks_net_once,
    can_learn,
    draws_anew,
    f64,
    held_fixed,
    is_tensor,
    keep_times,
    pairs,
    reaches,
    same,
    two,
)
from minicm.data.mixtures import GaussianMixture
from minicm.distances import l1, l2
from minicm.metrics.consistency import paired_error
from minicm.nets.mlp import MLP
from minicm.objectives.base import Draw, Objective, dropout_seeds, unit_noise
from minicm.schedules import EDM, Schedule
from minicm.solvers import euler_step, heun_step
from minicm.times import karras_grid
from minicm.train import TrainConfig, train

TIMES = (0.002, 0.01, 0.5, 2.0, 80.0)
WIDTHS = (0.5, 1.75, 0.3)  # sigma_data; the textbook form of c_skip misses 1 for 1.75, and for one in eight at random


# ---------------------------------------------------------------------------------------------- boundary
def scalings_shape(impl: Impl, seed: int) -> None:
    """c_skip and c_out map (B,) to (B,) in t's dtype"""
    keep_times(impl, ("c_skip", "c_out"), TIMES)


def scaling(
    name: str, spec: Callable, causes: Callable[[float, float, float], dict[str, float]]
) -> Callable[[Impl, int], None]:
    """The check of one scaling: three widths of data, two values of t_min."""

    def check(impl: Impl, seed: int) -> None:
        for sd, t_min in ((0.5, 0.002), (1.75, 0.002), (0.3, 0.1)):
            times = [t for t in TIMES if t >= t_min]
            others: dict[str, list[float]] = {}
            for t in times:
                for cause, other in causes(t, sd, t_min).items():
                    others.setdefault(cause, []).append(other)
            what = f"{name} is wrong for t = {times}, sigma_data = {sd}, t_min = {t_min}"
            want = [spec(t, sd, t_min) for t in times]
            given = () if (sd, t_min) == (0.5, 0.002) else (sd, t_min)  # the defaults
            got = getattr(impl, name)(f64(times), *given)
            same(
                got, want, what, rtol=EXACT, atol=1e-15, causes=others, otherwise=f"compare {name} with CM, appendix C"
            )

    check.__doc__ = f"{name} has the values of CM's appendix C, also for other sigma_data and t_min"
    return check


c_skip_values = scaling("c_skip", specs.c_skip, lambda t, sd, t_min: {
    "t_min is missing: this is the diffusion model's c_skip": specs.c_skip(t, sd),
    "sigma_data in the numerator is not squared": sd / ((t - t_min) ** 2 + sd * sd),
    "t and t_min are squared before they are subtracted": sd * sd / (t * t - t_min**2 + sd * sd),
    "t_min is fixed at 0.002": specs.c_skip(t, sd, 0.002), "sigma_data is fixed at 0.5": specs.c_skip(t, 0.5, t_min)
})  # fmt: skip
c_out_values = scaling("c_out", specs.c_out, lambda t, sd, t_min: {
    "t_min is missing: this is the diffusion model's c_out, which is not 0 at t_min": specs.c_out(t, sd),
    "sigma_data is squared": sd * specs.c_out(t, sd, t_min), "sigma_data is missing": specs.c_out(t, sd, t_min) / sd,
    "t_min belongs into the numerator only": sd * (t - t_min) / math.hypot(t - t_min, sd),
    "t_min is fixed at 0.002": specs.c_out(t, sd, 0.002), "sigma_data is fixed at 0.5": specs.c_out(t, 0.5, t_min)
})  # fmt: skip


def boundary_exact(impl: Impl, seed: int) -> None:
    """f(x, t_min) = x bit for bit, in float32 and float64, for any sigma_data, whatever the network says"""
    for dtype in (torch.float64, torch.float32):
        for sd in (0.5, 1.75, 0.3, 0.82, 2.15):
            for t_min in (0.002, 0.0625, 0.01):
                t = torch.full((3,), t_min, dtype=dtype)
                x = torch.tensor([[1.5, -0.7], [80.0, 3e-5], [0.3, 1.1]], dtype=dtype)
                given = f"t_min = {t_min}, sigma_data = {sd}, {str(dtype).removeprefix('torch.')}"
                got = is_tensor(
                    impl.consistency(lambda y, c: 1e3 + y, x, t, sd, t_min), (3, 2), dtype, "consistency at t_min"
                )
                if not torch.equal(got, x):
                    missed = (got - x).abs().max().item()
                    raise Wrong(
                        f"f(x, t_min) misses x by {missed:.1e} for {given}; {_missed(impl, t, sd, t_min, missed)}"
                    )


def _missed(impl: Impl, t: Tensor, sd: float, t_min: float, missed: float) -> str:
    skip, out = impl.c_skip(t, sd, t_min)[0].item(), impl.c_out(t, sd, t_min)[0].item()
    if abs(out) > 1e-6 or abs(skip - 1) > 1e-5:
        return "is t_min subtracted in c_skip and in c_out?"
    if out != 0:
        return f"c_out is {out:.1e}, not 0: t_min in Python's float64 is not t_min in t's dtype"
    if skip != 1:
        return f"c_skip is 1 - {1 - skip:.1e}: a number over a tensor is computed as its reciprocal times the number"
    if missed > 1e-3:
        return "are t_min and sigma_data passed on to c_skip and c_out?"
    return "x or the output passes through another dtype"


def consistency_shape(impl: Impl, seed: int) -> None:
    """consistency keeps shape and dtype, gives net (B, *D) and (B,), and evaluates it once"""
    asks_net_once(impl, "consistency")


def skip(t: float, sd: float) -> float:
    """c_skip with the boundary at 0.002."""
    return specs.c_skip(t, sd, 0.002)


def out(t: float, sd: float) -> float:
    """c_out with the boundary at 0.002."""
    return specs.c_out(t, sd, 0.002)


def consistency_values(impl: Impl, seed: int) -> None:
    """f = c_skip x + c_out F(c_in x, ln(t)/4), worked by hand for F(x, c) = 2 x + c"""
    for sd in WIDTHS:
        x, t = f64([[1.5, -0.5]] * 5), f64(TIMES)

        def points(c_skip: Callable, c_out: Callable, c_in: Callable = specs.c_in, sd: float = sd) -> list[list[float]]:
            rows = []
            for v in TIMES:
                F = [2 * c_in(v, sd) * a + specs.c_noise(v) for a in (1.5, -0.5)]
                rows.append([c_skip(v, sd) * a + c_out(v, sd) * f for a, f in zip((1.5, -0.5), F)])
            return rows

        causes = {
            "the network's input is not scaled by c_in": points(skip, out, lambda v, s: 1.0),
            "t_min has crept into c_in, which stays EDM's": points(skip, out, lambda v, s: specs.c_in(v - 0.002, s)),
            "sigma_data is not passed on": points(lambda v, s: skip(v, 0.5), lambda v, s: out(v, 0.5)),
            "these are the diffusion model's scalings": points(specs.c_skip, specs.c_out),
            "these are the diffusion model's scalings with x put in at t_min: f jumps there": [
                [1.5, -0.5],
                *points(specs.c_skip, specs.c_out)[1:],
            ],
        }
        given = () if sd == 0.5 else (sd,)  # 0.5 is the default
        got = impl.consistency(lambda y, c: 2 * y + c[:, None], x, t, *given)
        same(got, points(skip, out), f"consistency is wrong for sigma_data = {sd}", rtol=1e-10, atol=1e-11, causes=causes,
             otherwise="put c_skip x + c_out F(c_in x, ln(t)/4) together again")  # fmt: skip


# -------------------------------------------------------------------------------------------- intervals
def interval_shape(impl: Impl, seed: int) -> None:
    """draw_interval returns (t, s), both (n,), neighbours on the grid with s below t"""
    grid = f64(specs.grid(6, 0.002, 80.0, 7.0))
    drawn = two(impl.draw_interval(grid, 200, torch.Generator().manual_seed(seed)), "draw_interval")
    t, s = (is_tensor(v, (200,), torch.float64, f"draw_interval's {name}") for name, v in zip("ts", drawn))
    if (t < s).any():
        raise Wrong("draw_interval returns t below s: t is the later time, with more noise, and comes first")
    if not (torch.isin(t, grid) & torch.isin(s, grid)).all():
        raise Wrong("draw_interval returns times that are not on the grid")
    if not torch.equal((grid[:, None] < t).sum(0), (grid[:, None] < s).sum(0) + 1):
        raise Wrong("draw_interval's t and s are not neighbours on the grid")
    if (t == t[0]).all():
        raise Wrong("draw_interval draws one interval for all: each sample has its own")


def interval_law(impl: Impl, seed: int) -> None:
    """every interval of the grid is drawn, the first and the last included, equally often

    3,000 draws from 5 intervals: each comes up 600 times with standard deviation 22; a bound of 6 of them gives one
    false alarm in 10^8 runs; that all five come up 600 times is one in 6 10^6. The same generator gives the same draw.
    """
    grid = f64(specs.grid(6, 0.002, 80.0, 7.0))
    t = impl.draw_interval(grid, 3000, torch.Generator().manual_seed(seed))[0]
    counts = [(t == edge).sum().item() for edge in grid[1:]]
    if 0 in counts:
        i = len(counts) - 1 - counts[::-1].index(0)
        which = {4: "the last", 0: "the first"}.get(i, f"number {i} of the")
        raise Wrong(
            f"draw_interval never draws {which} interval of a grid of 6 times: N points have N - 1 intervals, and "
            "randint does not draw its upper end"
        )
    if max(abs(count - 600) for count in counts) > 6 * 22:
        raise Wrong(f"draw_interval draws the intervals {counts} times of 3,000: each should come up about 600 times")
    draws_anew(lambda generator: impl.draw_interval(grid, 200, generator)[0], "draw_interval", seed)
    if max(counts) == min(counts):
        raise Wrong("draw_interval shares the samples out evenly: each is a draw of its own")


# --------------------------------------------------------------------------------------------- distance
def distance_shape(impl: Impl, seed: int) -> None:
    """l2 returns one number a sample, (B,)"""
    for shape in SHAPES:
        is_tensor(impl.l2(torch.ones(shape), torch.zeros(shape)), shape[:1], torch.float32, f"l2 of {shape}")


def distance_values(impl: Impl, seed: int) -> None:
    """l2 is the squared distance, summed over the sample"""
    a, b = (
        f64([[[1.0, 2.0], [0.0, -1.0]], [[0.5, 0.0], [3.0, 0.0]]]),
        f64([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 4.0]]]),
    )
    want = [1 + 4 + 4, 0.25 + 9 + 16]
    causes = {
        "it is averaged over the sample: the factor ends up in the learning rate": [w / 4 for w in want],
        "the root is taken: the papers' l2 is the squared distance": [math.sqrt(w) for w in want],
        "it is the sum of absolute differences": [5.0, 7.5],
        "it is the mean over the batch": [sum(want) / 2] * 2,
        "it is the sum over the batch": [sum(want)] * 2,
        "it is halved": [w / 2 for w in want],
        "one axis is left out of the sum": [4.0, 16.0],
    }
    what = "l2 of two samples of shape (2, 2) is wrong"
    same(impl.l2(a, b), want, what, rtol=EXACT, causes=causes, otherwise="sum the squares over all axes but the first")


# ------------------------------------------------------------------------------------------------- loss
def models() -> tuple[Linear, Linear, Linear]:
    """f, f_target and teacher, all different."""
    return Linear(0.8, 0.3), Linear(0.6, 0.2), Linear(0.1, 0.05)


def loss_shape(impl: Impl, seed: int) -> None:
    """cd_loss returns (B,), also where the batch is as long as the image is wide"""
    for shape in SHAPES:
        t = torch.arange(1.0, shape[0] + 1).double()
        call = f"cd_loss of x0 {shape}"
        x0, eps = torch.zeros(shape), torch.ones(shape)
        f, f_target, teacher = models()
        is_tensor(impl.cd_loss(f, f_target, teacher, x0, eps, t, t / 2, euler_step, l2), shape[:1], torch.float32, call)
        for name, model in (("f", f), ("f_target", f_target)):
            for x, _ in model.seen:
                alike_within(x, f"the point that {call} gives to {name}")


def loss_solver(impl: Impl, seed: int) -> None:
    """the solver goes from (x_t, t) to s along the teacher's flow"""
    f, f_target, teacher = models()
    steps: list[tuple] = []

    def step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        steps.append((x.clone(), t.clone(), s.clone(), denoise(x, t).detach()))
        return euler_step(denoise, schedule, x, t, s)

    x0, eps, t, s = pairs(seed)
    impl.cd_loss(f, f_target, teacher, x0, eps, t, s, step, l2)
    if len(steps) != 1:
        raise Wrong(
            f"cd_loss calls step {len(steps)} times, not once: the point at s lies on the trajectory of x_t only if the "
            "solver takes it there"
        )
    start, t_start, t_end, estimate = (v.clone() for v in steps[0])  # they may come out of inference mode
    same(t_start, t, "the solver in cd_loss does not start at t", rtol=EXACT, causes={"t and s are exchanged": s})
    same(t_end, s, "the solver in cd_loss does not go to s", rtol=EXACT, otherwise="look at step's arguments")
    causes = {"x0 + s eps lies on another path": x0 + s[:, None] * eps, "eps is not scaled by t": x0 + eps}
    what = "the solver in cd_loss does not start from x_t = x0 + t eps"
    same(start, x0 + t[:, None] * eps, what, rtol=EXACT, atol=EXACT, causes=causes)
    causes = {
        "it is given f: a student must not teach itself": f(start, t).detach(),
        "it is given f_target, which is no teacher": f_target(start, t).detach(),
    }
    what = "the solver in cd_loss does not follow the teacher's flow"
    same(estimate, teacher(start, t), what, rtol=EXACT, atol=EXACT, causes=causes)


def loss_calls(impl: Impl, seed: int) -> None:
    """f sees (x_t, t), f_target sees the solver's point at s, once each"""
    f, f_target, teacher = models()
    x0, eps, t, s = pairs(seed)
    impl.cd_loss(f, f_target, teacher, x0, eps, t, s, euler_step, l2)
    if (len(f.seen), len(f_target.seen)) != (1, 1):
        raise Wrong(f"cd_loss evaluates f {len(f.seen)} and f_target {len(f_target.seen)} times, not once each")
    x_t = x0 + t[:, None] * eps
    x_s = euler_step(teacher, EDM(), x_t, t, s)
    points = {
        "it is the solver's point": x_s,
        "it is x_t again: no step was taken": x_t,
        "it is x0 + s eps, consistency training's point, which needs no teacher": x0 + s[:, None] * eps,
    }
    for name, (x, time), x_right, right in (("f", f.seen[0], x_t, t), ("f_target", f_target.seen[0], x_s, s)):
        times = {
            "it is s" if name == "f" else "it is t: both predictions are made at one time": s if name == "f" else t
        }
        same(time, right, f"the time that {name} sees is wrong", rtol=EXACT, causes=times)
        what = f"the point that {name} sees is wrong"
        same(x, x_right, what, rtol=EXACT, atol=EXACT, causes=points, otherwise="is new noise drawn for it?")


def loss_values(impl: Impl, seed: int) -> None:
    """the loss is distance(f(x_t, t), f_target(x_s, s)), with the distance that is given"""
    x0, eps, t, s = pairs(seed)
    x_t = x0 + t[:, None] * eps
    for name, distance in (("squared l2", l2), ("l1", l1)):
        f, f_target, teacher = models()
        y, y_target = f(x_t, t).detach(), f_target(euler_step(teacher, EDM(), x_t, t, s), s).detach()
        want = distance(y, y_target)
        causes = {
            "it is compared with x0: that trains a diffusion model": distance(y, x0),
            "the distance that was given is not used": l2(y, y_target),
            "it is averaged over the batch": want.mean().expand(4),
            "it is weighted by 1/(t - s); lambda = 1 is asked for": want / (t - s),
        }
        got = is_tensor(impl.cd_loss(f, f_target, teacher, x0, eps, t, s, euler_step, distance), (4,), None, "cd_loss")
        what = f"cd_loss with the distance {name} is wrong"
        same(got, want.detach(), what, rtol=1e-10, causes=causes, otherwise="look at what each model is called with")


def loss_gradient(impl: Impl, seed: int) -> None:
    """gradients reach f alone, and are those of the loss with the target held fixed"""
    f, f_target, teacher = models()
    x0, eps, t, s = pairs(seed)
    loss = impl.cd_loss(f, f_target, teacher, x0, eps, t, s, euler_step, l2)
    can_learn(loss, "cd_loss")
    held_fixed("f_target", f_target.a)
    held_fixed("the teacher", teacher.a)
    x_t = x0 + t[:, None] * eps
    with torch.no_grad():
        residual = f(x_t, t) - f_target(euler_step(teacher, EDM(), x_t, t, s), s)
    if f.a.grad is None:
        raise Wrong("no gradient reaches f's weights")
    what = "the gradient of cd_loss is not the loss's own"
    other = "is a part of f's prediction detached?"
    same(f.a.grad, [2 * (residual * x_t).sum().item()], what, rtol=1e-9, otherwise=other)


def loss_shared(impl: Impl, seed: int) -> None:
    """where f is its own target, as with mu = 0, the target is held fixed all the same"""
    f, _, teacher = models()
    x0, eps, t, s = pairs(seed)
    impl.cd_loss(f, f, teacher, x0, eps, t, s, euler_step, l2).sum().backward()
    x_t = x0 + t[:, None] * eps
    with torch.no_grad():
        residual = f(x_t, t) - f(euler_step(teacher, EDM(), x_t, t, s), s)
    if f.a.grad is None:
        raise Wrong("no gradient reaches f's weights where f is its own target")
    what, want = ("where f is its own target the gradient of cd_loss is wrong", [2 * (residual * x_t).sum().item()])
    same(f.a.grad, want, what, rtol=1e-9, otherwise="a gradient flows through the target")


def loss_vanishes(impl: Impl, seed: int) -> None:
    """at the exact solution the loss vanishes with the solver's error: as N^-4 with Euler, N^-6 with Heun

    One Gaussian of standard deviation 1/2: f*(x, t) = x sqrt((t_min^2 + 1/4)/(t^2 + 1/4)). Means over all intervals of
    N = 40 and 80; the slopes are 4.0 to 4.1 and 6.0 to 6.2.
    """

    class Exact:
        schedule, t_min = EDM(), 0.002

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return x * ((0.002**2 + 0.25) / (t**2 + 0.25)).sqrt()[:, None]

    class Teacher:
        schedule = EDM()

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return x * (0.25 / (0.25 + t**2))[:, None]

    generator = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(200, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    for name, step, wanted in (("Euler", euler_step, 4), ("Heun", heun_step, 6)):
        losses = []
        for n in (40, 80):
            grid = karras_grid(n)
            total = f64([0.0])
            for s, t in zip(grid[:-1:4], grid[1::4]):  # every fourth interval: enough for the slope
                times = [v.expand(200) for v in (t, s)]
                values = impl.cd_loss(Exact(), Exact(), Teacher(), 0.5 * x0, eps, *times, step, l2)
                total = total + is_tensor(values, (200,), None, "cd_loss").detach().mean()
            losses.append(total.item() / len(grid[1::4]))
        found = math.log2(max(losses[0], 1e-300) / max(losses[1], 1e-300))
        if not abs(found - wanted) < 0.5:
            raise Wrong(
                f"at the exact solution cd_loss with {name}'s step falls as N^-{found:.1f}, not N^-{wanted}: {losses[0]:.1e} and "
                f"{losses[1]:.1e} for N = 40 and 80; the two points do not lie on one trajectory"
            )


# ----------------------------------------------------------------------------------------------- target
def target_in_place(impl: Impl, seed: int) -> None:
    """target_update changes the target's tensors in place, the online ones not, and needs no gradient"""
    target = [torch.ones(2, 3), torch.zeros(4)]
    online = [torch.full((2, 3), 2.0, requires_grad=True), torch.ones(4, requires_grad=True)]
    weights = list(target)  # a model holds its tensors, not the list
    if impl.target_update(target, online, 0.75) is not None:
        raise Wrong("target_update must return nothing: it works in place")
    if torch.equal(weights[0], torch.ones(2, 3)):
        cause = (
            "the online weights move instead"
            if not (online[0] == 2).all()
            else "an assignment gives a name to a new tensor; the old one stays"
        )
        raise Wrong(f"target_update leaves the target as it is: {cause}")
    if not ((online[0] == 2).all() and (online[1] == 1).all()):
        raise Wrong("target_update changes the online weights: those belong to the optimiser")
    impl.target_update([torch.ones(2, requires_grad=True)], [torch.ones(2, requires_grad=True)], 0.5)


def target_values(impl: Impl, seed: int) -> None:
    """theta-minus <- mu theta-minus + (1 - mu) theta, worked by hand over three updates"""
    for mu in (0.95, 0.0, 0.5):
        target, online = [f64([1.0, -2.0]), f64([[4.0]])], [f64([2.0, 6.0]), f64([[0.0]])]
        start, goal = f64([1.0, -2.0]), f64([2.0, 6.0])
        for k in range(1, 4):
            impl.target_update(target, online, mu)
            kept = mu**k  # the closed form
            causes = {
                "the average is reversed: it moves by mu towards theta": (1 - mu) ** k * start
                + (1 - (1 - mu) ** k) * goal,
                "the bracket is misplaced: (1 - mu theta)": mu * start + 1 - mu * goal if k == 1 else start,
                "mu is left out: the target is copied": goal,
                "it has not moved: are weights that want no gradient left out?": start,
                "the old target is added whole": start + (1 - mu) * goal if k == 1 else start,
            }
            what = f"after {k} update(s) with mu = {mu} the target is wrong"
            same(
                target[0],
                kept * start + (1 - kept) * goal,
                what,
                rtol=1e-9,
                atol=EXACT,
                causes=causes,
                otherwise="CM, Eq. 8",
            )
        what = f"the second tensor's target is wrong for mu = {mu}"
        same(target[1], [[4 * mu**3]], what, rtol=1e-9, atol=EXACT, otherwise="are all weights updated?")


# ------------------------------------------------------------------------------------------ real thing
class StudentCD(Objective):
    """Consistency distillation by a student's draw_interval, cd_loss and l2; the target's update is called by the loop below."""

    def __init__(self, impl: Impl, teacher: Callable) -> None:
        super().__init__()
        self.parts = (impl, teacher)  # in a tuple: no weights of ours

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        t, s = self.parts[0].draw_interval(karras_grid(18), len(x0), generator)
        return Draw(t=t, s=s, eps=unit_noise(x0, generator), seed=dropout_seeds(len(x0), k, generator))

    def loss(
        self, f: Callable, f_target: Callable, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        impl, teacher = self.parts
        return impl.cd_loss(f, f_target, teacher, x0, draw.eps, draw.t, draw.s, heun_step, impl.l2)

    def target_decay(self, k: int, K: int) -> float:
        return 1.0  # the loop leaves the target to target_update


def distils(impl: Impl, seed: int) -> None:
    """a consistency model distilled with your loss, your target and your boundary reaches the exact answer"""
    ring = GaussianMixture.ring()
    f = StudentModel(impl.consistency, MLP(2, width=48, depth=3))
    config = TrainConfig(steps=400, batch=256, lr=4e-3, warmup=20, ema=0.98, seed=seed)
    for step in train(f, StudentCD(impl, ring.denoiser()), ring, config):
        impl.target_update(list(step.f_target.parameters()), list(step.f.parameters()), 0.5)
    generator = torch.Generator().manual_seed(seed)
    x_T = EDM().prior((500, 2), generator)
    with torch.no_grad():
        x0 = step.ema(x_T, torch.full((500,), 80.0))
    error = paired_error(x0, ring.flow(x_T, 80.0, 0.002), ring.sigma_data).median().item()
    reaches(error, DISTILLED_BOUND, "one step of the distilled model")


DISTILLED_BOUND = 0.35  # sigma_d; the solution reaches .21 to .26 on 20 seeds

ASSIGNMENT = Assignment(
    name="a3",
    title="Boundary condition and consistency distillation",
    functions=("c_skip", "c_out", "consistency", "draw_interval", "l2", "cd_loss", "target_update"),
    forbidden=("minicm.denoiser", "minicm.objectives", "minicm.distances", "minicm.ema", "minicm.times", "minicm.solvers"),
    tasks=(
        Task("1 scalings", ((1, scalings_shape), (1, c_skip_values), (1, c_out_values)), hints=(
            "At t_min the whole of x must be kept and nothing added. What must stand in place of t?",
            "CM, appendix C: t - t_min in c_skip and in the numerator of c_out, and nowhere else."
        )),
        Task("2 consistency function", ((1, consistency_shape), (1, consistency_values), (3, boundary_exact)), hints=(
            "The formulas are right and f(x, t_min) still misses x in the last digit? Print c_skip - 1 and c_out at t_min for sigma_data = 1.75.",
            "0.002 has no exact binary form, and its nearest float32 and float64 differ. Bring t_min into t's dtype before you subtract.",
            "Divide numerator and denominator of c_skip by sigma_data^2: 1 over a tensor that is exactly 1 is exact."
        )),
        Task("3 intervals", ((1, interval_shape), (1, interval_law)), hints=("How many intervals lie between N points? torch.randint(high) draws 0..high - 1.",)),
        Task("4 distance", ((1, distance_shape), (1, distance_values)), hints=("Flatten all axes but the first, then sum the squares.",)),
        Task("5 loss", (
            (1, loss_shape), (1, loss_solver), (1, loss_calls), (1, loss_values), (2, loss_gradient), (1, loss_shared), (1, loss_vanishes)
        ), hints=(
            "Draw four boxes: x_t, x_s, f(x_t, t), f_target(x_s, s). Who makes x_s out of x_t?",
            "Algorithm 2 of the paper: x_t = x0 + t eps; one step of the teacher from t to s; compare. eps is used once.",
            "Everything but f(x_t, t) is computed under torch.no_grad()."
        )),
        Task("6 target", ((1, target_in_place), (1, target_values)), hints=(
            "Which of the two should hardly move in one update when mu = 0.95?",
            "mul_ and add_ change a tensor in place; torch.no_grad() allows that for weights that want gradients."
        )),
        Task("7 the real thing", ((3, distils),), hints=("Mend what the tasks above report first.",), real_thing=True)
    )
)  # fmt: skip
