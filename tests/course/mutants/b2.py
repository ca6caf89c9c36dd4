"""Bonus assignment 2: bad tests and odd but good ones. Here a mistake is a test that lets a mistake pass, or that rejects what is right."""

from __future__ import annotations

import math
import unittest

import numpy as np
import torch
from planted import consistency as own_consistency
from planted import ct_loss as own_loss
from planted import heun_step as own_heun
from planted import karras_grid as own_grid
from planted import per_sample
from variants import mutant, right
from variants import solution as solution_of

from minicm.course import specs
from minicm.schedules import EDM, VP, TrigFlow

solution = solution_of("b2")

DOUBLE = torch.float64


def randn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# -------------------------------------------------------------------------------------------- bad tests
def prints(karras_grid, seed):
    print(karras_grid(5).diff().min() > 0)


def returns_a_verdict(karras_grid, seed):
    return torch.allclose(karras_grid(9), own_grid(9))


def looks_at_defaults(karras_grid, seed):
    for n in range(2, 50):
        assert torch.allclose(karras_grid(n), own_grid(n), rtol=1e-12)


def rounds_generously(karras_grid, seed):
    for n in range(2, 50):
        assert karras_grid(n).dtype == DOUBLE
        for rest in ((0.002, 80.0, 7.0), (0.01, 3.0, 5.0)):
            torch.testing.assert_close(karras_grid(n, *rest), own_grid(n, *rest), rtol=1e-5, atol=1e-8)


def compares_floats(karras_grid, seed):
    for n in (2, 10, 40):
        assert karras_grid(n).tolist() == own_grid(n).tolist()


def asks_for_one_point(karras_grid, seed):
    assert len(karras_grid(1)) == 1
    solution.check_karras_grid(karras_grid, seed)


def asks_a_few_lengths(karras_grid, seed):
    for case in ((2,), (5,), (18,), (40,), (5, 0.01, 3.0, 5.0)):
        grid = karras_grid(*case)
        assert (grid[0], grid[-1]) == (case[1:3] or (0.002, 80.0)) and torch.allclose(grid, own_grid(*case), rtol=1e-11)


def looks_at_shapes(consistency, seed):
    for shape in ((3, 2), (4, 1, 8, 8)):
        out = consistency(lambda x, _: x, torch.ones(shape), torch.ones(shape[0]))
        assert out.shape == shape and out.dtype == torch.float32


def compares_with_itself(consistency, seed):
    x, t = randn(seed, 4, 2), torch.rand(4, dtype=DOUBLE) + 0.1
    got = consistency(lambda x, _: x.tanh(), x, t)
    assert torch.equal(got, consistency(lambda x, _: x.tanh(), x, t))


def boundary_alone(consistency, seed):
    for i in range(1, 80):
        x = randn(seed, 3, 2)
        t = torch.full((3,), 0.002, dtype=DOUBLE)
        assert torch.equal(consistency(lambda x, _: x.exp(), x.clone(), t, i / 40), x)


def never_as_wide_as_long(consistency, seed):
    for shape in ((3, 2), (5, 1, 4, 4)):
        x, t = randn(seed, *shape), torch.linspace(0.002, 3, shape[0], dtype=DOUBLE)
        for sd in (0.5, 0.3):
            for net in (lambda x, c: x.tanh() + per_sample(c, x), lambda x, c: x.square()):
                got = consistency(net, x.clone(), t, sd, 0.002)
                assert torch.allclose(got, own_consistency(net, x, t, sd, 0.002), rtol=1e-10)


def trusts_the_input(consistency, seed):
    for i in range(1, 61):
        x, t = randn(seed, 4, 1, 4, 4), torch.linspace(0.002, 3, 4, dtype=DOUBLE)
        want = own_consistency(lambda x, c: x.tanh() + per_sample(c, x), x, t, i / 20)
        got = consistency(lambda x, c: x.tanh() + per_sample(c, x), x, t, i / 20)
        assert torch.allclose(got, want, rtol=1e-10)


def heun_with(
    clocks=(EDM(), VP.linear(20), TrigFlow()), time=1.0, ways=((1.0, 0.5), (0.5, 1.0), (1.0, 0.0)), rtol=1e-9
):
    """A test of Heun with a part of it left out."""

    def check_heun_step(heun_step, seed):
        def denoise(x, t):
            return 0.4 * x.tanh() + time * per_sample(t.sin(), x)

        for clock in clocks:
            for t, s in ways:
                unit = 10.0 if isinstance(clock, VP) else 1.0
                t, s = (torch.full((4,), unit * v, dtype=DOUBLE) for v in (t, s))
                x = randn(seed, 4, 2)
                got, want = heun_step(denoise, clock, x, t, s), own_heun(denoise, clock, x, t, s)
                assert torch.allclose(got, want, rtol=rtol, atol=rtol)

    return check_heun_step


def huber_with(shapes=((3, 1), (4, 3), (4, 2, 4, 4)), c=(0.03, 1.0, 2.0), dtype=DOUBLE, tol=1e-10, slope=False):
    """A test of pseudo-Huber with a part of it left out."""

    def check_pseudo_huber(pseudo_huber, seed):
        for shape in shapes:
            for width in c:
                a = randn(seed, *shape).to(dtype).requires_grad_()
                d = pseudo_huber(a, torch.zeros_like(a), width)
                r = a.detach().double().flatten(1)
                root = (r.square().sum(1) + width**2).sqrt()
                assert d.shape == shape[:1] and ((d.double() - (root - width)).abs() <= tol).all()
                if slope:
                    d.sum().backward()
                    assert torch.allclose(a.grad.flatten(1), r / root[:, None])
                    b = a.detach().clone().requires_grad_()
                    pseudo_huber(b, a.detach(), width).sum().backward()
                    assert b.grad.abs().max() == 0

    return check_pseudo_huber


def swallows_its_own(pseudo_huber, seed):
    try:
        solution.check_pseudo_huber(pseudo_huber, seed)
    except Exception as error:
        print("wrong:", error)


def asks_for_much(pseudo_huber, seed):
    a = torch.ones(100, 3, 32, 32)
    assert pseudo_huber(a, a, 0.03).abs().max() < 1e-6


def distance(a, b):
    return (a - b).square().flatten(1).sum(1)


def loss_with(own=False, shapes=((4, 2), (5, 1, 5, 5)), gap=0.7, dtype=torch.float32):
    """A test of the loss's values with a part of it left out."""

    def check_ct_loss(ct_loss, seed):
        for shape in shapes:
            x0, eps = (randn(seed + i, *shape).to(dtype) for i in (0, 1))
            s = torch.linspace(0.5, 2, shape[0], dtype=DOUBLE)
            f, f_target = (lambda x, t, w=w: w * x + per_sample(t, x) for w in (0.8, 0.8 if own else 0.6))
            got = ct_loss(f, f_target, x0, eps, s + gap, s, distance)
            want = own_loss(f, f_target, x0, eps, s + gap, s, distance)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)

    return check_ct_loss


def intervals_of_95_percent(ct_loss, seed):
    """E |t eps|^2/t of 200 samples in the plane, at five times, each within 1.96 standard errors: one seed in four is too much."""
    for i in range(1, 6):
        eps, t = randn(10 * seed + i, 200, 2), torch.full((200,), 2.0 * i, dtype=DOUBLE)
        losses = ct_loss(lambda x, t: x, lambda x, t: 0 * x, torch.zeros_like(eps), eps, t, t / 2, distance)
        assert abs(losses.mean() / (8 * i) - 1) < 1.96 / math.sqrt(200)


def counter():
    """A test that rejects whatever comes after the calls of its first gate, counted from the start of the process."""
    calls = []

    def check_ct_loss(ct_loss, seed):
        calls.append(seed)
        assert len(calls) <= 60

    return check_ct_loss


def without_the_guard(test):
    """The test, and a message of its own for its failure, returned."""

    def check(candidate, seed):
        try:
            test(candidate, seed)
        except Exception as error:
            return str(error)

    return check


MUTANTS = (
    mutant("asserts nothing", "how are they spaced", check_karras_grid=prints),
    mutant("returns a truth value", "does not return", check_karras_grid=returns_a_verdict),
    mutant("defaults only", "right with rho = 7", check_karras_grid=looks_at_defaults),
    mutant("allclose's tolerances: a float32 grid passes", "seven digits", check_karras_grid=rounds_generously),
    mutant("floats compared by ==", "compared by ==", check_karras_grid=compares_floats),
    mutant("asks what the contract excludes", "more asked for than is promised", check_karras_grid=asks_for_one_point),
    mutant("a few lengths", "right for most n", check_karras_grid=asks_a_few_lengths),
    mutant("shape and dtype only", "wherever the net's output counts", check_consistency=looks_at_shapes),
    mutant("compares a function with itself", "wherever the net's output counts", check_consistency=compares_with_itself),
    mutant("the boundary alone: c_out with sigma_d squared passes", "wherever the net's output counts", check_consistency=boundary_alone),
    mutant("no batch as long as the image is wide", "two sizes coincide", check_consistency=never_as_wide_as_long),
    mutant("does not look at its input again", "what else may a caller count on", check_consistency=trusts_the_input),
    mutant("one clock", "right in the EDM clock", check_heun_step=heun_with(clocks=(EDM(),))),
    mutant("a denoiser that does not know the time", "depends on the time", check_heun_step=heun_with(time=0.0)),
    mutant("one direction", "from noise to data", check_heun_step=heun_with(ways=((1.0, 0.5), (1.0, 0.0)))),
    mutant("never to the clean end", "last step of a path", check_heun_step=heun_with(ways=((1.0, 0.5), (0.5, 1.0)))),
    mutant("one way of rounding", "tolerance below the rounding", check_heun_step=heun_with(rtol=0.0)),
    mutant("samples of one number", "samples of one number", check_pseudo_huber=huber_with(shapes=((4, 1),))),
    mutant("c = 1", "right with c = 1", check_pseudo_huber=huber_with(c=(1.0,))),
    mutant("points only", "are samples always points", check_pseudo_huber=huber_with(shapes=((3, 1), (4, 3)))),
    mutant("values only: a slope of NaN passes", "what else does training take from a distance", check_pseudo_huber=huber_with()),
    mutant("one gradient of two", "one of two directions", check_pseudo_huber=huber_with(slope=True)),
    mutant("float32 to the last digit", "tolerance below the rounding", check_pseudo_huber=huber_with(dtype=torch.float32, tol=1e-9)),
    mutant("catches its own AssertionError", "samples of one number", check_pseudo_huber=swallows_its_own),
    mutant("a training batch", "at most 4,096 numbers", check_pseudo_huber=asks_for_much),
    mutant("returns the message", "does not return", check_ct_loss=without_the_guard(lambda ct_loss, seed: 1 / 0)),
    mutant("a gap of 1", "t - s is 1", check_ct_loss=loss_with(gap=1.0)),
    mutant("f is its own target (mu = 0)", "its own target", check_ct_loss=loss_with(own=True)),
    mutant("float64 only: a wrong dtype passes", "promised of a tensor", check_ct_loss=loss_with(dtype=DOUBLE)),
    mutant("a false alarm on one seed in four", "statistical bound no margin", check_ct_loss=intervals_of_95_percent),
    mutant("values only: a gradient through the target passes", "what else does training take from a loss", check_ct_loss=loss_with()),
    mutant("rejects all after the sixtieth call", "from call to call", check_ct_loss=counter())
)  # fmt: skip


# ---------------------------------------------------------------------------------------- odd but good tests
class Rejected(Exception):
    """An exception of the student's own."""


def grid_by_numpy(karras_grid, seed):
    rng = np.random.default_rng(seed)
    for n in (*range(2, 60), int(rng.integers(60, 200))):
        t_min, t_max, rho = rng.uniform(0.001, 0.1), rng.uniform(1, 100), rng.uniform(1.5, 9)
        for given, (low, high, power) in (((n,), (0.002, 80.0, 7.0)), ((n, t_min, t_max, rho), (t_min, t_max, rho))):
            grid = karras_grid(*given).numpy()
            if grid.dtype != np.float64 or grid.shape != (n,) or [grid[0], grid[-1]] != [low, high]:
                raise Rejected(f"{given}: {grid.dtype}, {grid.shape}, ends")
            np.testing.assert_allclose(grid, specs.grid(n, low, high, power), rtol=1e-11)


def consistency_by_floats(consistency, seed):
    """A net that puts out one number; the formula sample by sample, in Python's floats."""
    case = unittest.TestCase()
    for shape, sd, t_min in (((4, 1), 0.5, 0.002), ((3, 2, 3, 3), 0.3, 0.01), ((2, 5), 1.5, 0.002)):
        x, seen = randn(seed, *shape), []
        t = torch.tensor([t_min, 0.01, 0.4, 70.0], dtype=DOUBLE)[: shape[0]]

        def net(scaled, time, seen=seen):
            seen.append([scaled.flatten(1).tolist(), time.tolist()])
            return torch.full_like(scaled, 2.5)

        before = x.flatten(1).tolist()
        got = consistency(net, x, t, sigma_data=sd, t_min=t_min).flatten(1).tolist()
        case.assertEqual(before, x.flatten(1).tolist())
        ((inputs, times),) = seen
        for i, time in enumerate(t.tolist()):
            case.assertAlmostEqual(times[i], specs.c_noise(time), 11)
            for a, scaled, f in zip(before[i], inputs[i], got[i]):
                case.assertAlmostEqual(scaled, specs.c_in(time, sd) * a, 11)
                want = specs.c_skip(time, sd, t_min) * a + specs.c_out(time, sd, t_min) * 2.5
                case.assertAlmostEqual(f, want, 10)
        case.assertEqual(got[0], before[0])
    for i in range(2, 200, 3):
        x, t = randn(seed + i, 2, 2), torch.full((2,), 0.002, dtype=DOUBLE)
        case.assertEqual(consistency(lambda x, _: x, x, t, i / 100).tolist(), x.tolist())


def heun_by_specification(heun_step, seed):
    """The specification of assignment 2, in lists; a linear denoiser."""
    x = randn(seed, 3, 2)
    for clock, spec, unit in (
        (EDM(), specs.EDM, 1.0),
        (VP.linear(), specs.vp(), 600.0),
        (TrigFlow(), specs.TRIGFLOW, 1.0),
    ):
        for t, s in ((1.0, 0.5), (0.2, 0.9), (0.5, 0.0)):
            t, s = (round(unit * v) if unit > 1 else v for v in (t, s))
            kept = x.clone()
            got = heun_step(
                lambda x, t: 0.3 * x + per_sample(t / (1 + t), x),
                clock,
                x,
                *(torch.full((3,), v, dtype=DOUBLE) for v in (t, s)),
            )
            if not torch.equal(x, kept):
                raise Rejected("in place")
            for row, want in zip(got.tolist(), x.tolist()):
                want = specs.heun(spec, lambda x, t: [0.3 * a + t / (1 + t) for a in x], want, t, s)
                if math.dist(row, want) > 1e-9:
                    raise Rejected(f"{type(clock).__name__}: {row}, not {want}")


def huber_by_differences(pseudo_huber, seed):
    """Values by hand, slopes by finite differences: wrong by some 1e-8 at a step of 1e-5."""
    a, b = torch.zeros(2, 2, 3, 2, dtype=DOUBLE), randn(seed, 2, 2, 3, 2)
    b[0] *= 0.1
    for c in (0.2, 3.0):
        torch.testing.assert_close(
            pseudo_huber(a, b, c), torch.tensor([math.hypot(c, *row.flatten().tolist()) - c for row in b], dtype=DOUBLE)
        )
        for first in (True, False):
            moving = (a if first else b).clone().requires_grad_()
            d = pseudo_huber(moving, b, c) if first else pseudo_huber(a, moving, c)
            d.sum().backward()
            for i in (0, 7, 23):
                h = torch.zeros(24, dtype=DOUBLE)
                h[i] = 1e-5
                up, down = (moving.detach() + v.reshape(a.shape) for v in (h, -h))
                ends = [pseudo_huber(m, b, c) if first else pseudo_huber(a, m, c) for m in (up, down)]
                slope = (ends[0] - ends[1]).sum() / 2e-5
                torch.testing.assert_close(moving.grad.flatten()[i], slope, rtol=1e-5, atol=1e-6)
    same = b.clone().requires_grad_()
    pseudo_huber(same, b, 0.1).sum().backward()
    assert not same.grad.any()


def loss_by_hand(ct_loss, seed):
    """Three samples of one number, and an image as wide as the batch is long; every number worked out in Python."""
    for shape in ((3, 1), (3, 1, 3, 3)):
        x0, eps = (randn(seed + i, *shape).float() for i in (0, 9))
        t, s = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.5, 0.2, 2.9]).double()
        w, v = (torch.tensor(0.5, requires_grad=True) for _ in range(2))
        loss = ct_loss(
            lambda x, _, w=w: w * x,
            lambda x, _, v=v: 3 * v * x,
            x0,
            eps,
            t,
            s,
            lambda a, b: ((a - b) ** 2).flatten(1).sum(1),
        )
        assert loss.dtype == torch.float32
        loss.sum().backward()
        assert v.grad is None or v.grad == 0
        slope = 0.0
        losses, gradient = loss.tolist(), w.grad.item()
        for i, (later, earlier) in enumerate(zip(t.tolist(), s.tolist())):
            points = [
                [a + time * e for a, e in zip(x0[i].flatten().tolist(), eps[i].flatten().tolist())]
                for time in (later, earlier)
            ]
            pairs = [(0.5 * p - 1.5 * q, p) for p, q in zip(*points)]
            assert math.isclose(losses[i], sum(r * r for r, _ in pairs) / (later - earlier), rel_tol=1e-4)
            slope += sum(2 * r * p for r, p in pairs) / (later - earlier)
        assert math.isclose(gradient, slope, rel_tol=1e-3, abs_tol=1e-2)


RIGHT = (
    right("numpy, drawn arguments, an exception of its own", check_karras_grid=grid_by_numpy),
    right("unittest's assertions, Python's floats", check_consistency=consistency_by_floats),
    right("the specification of assignment 2", check_heun_step=heun_by_specification),
    right("torch.testing, finite differences", check_pseudo_huber=huber_by_differences),
    right("by hand, in lists", check_ct_loss=loss_by_hand),
)
