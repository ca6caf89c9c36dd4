"""Bonus assignment 2, solved: five tests, each of what the docstring promises and of nothing else."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minicm.schedules import EDM, VP, Schedule, TrigFlow

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}  # float64: some 1e-13 after cancellation; float32: some 1e-6
SHAPES = ((5, 2), (4, 2, 4, 4))  # points, and images as wide as the batch is long


def near(got: Tensor, want: Tensor, what: str, dtype: torch.dtype = torch.float64) -> None:
    """One shape and dtype, and the same numbers within the rounding of the dtype, relative to the largest."""
    assert got.shape == want.shape and got.dtype == dtype, f"{what}: {got.shape}, {got.dtype}"
    worst = (got.double() - want.double()).abs().max()
    assert worst <= CLOSE[dtype] * (1 + want.abs().max()), f"{what}: off by {worst:.1e}"


def column(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) as it multiplies x (B, *D)."""
    return t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def noise(seed: int) -> Callable[..., Tensor]:
    """A source of float64 noise of any shape."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def check_karras_grid(karras_grid: Callable[..., Tensor], seed: int) -> None:
    others = ((6, 0.01, 3.0, 7.0), (9, 0.1, 20.0, 3.0), (8, 0.002, 80.0, 2.0))
    for n, t_min, t_max, rho in (*((n, 0.002, 80.0, 7.0) for n in range(2, 41)), *others):
        default = (t_min, t_max, rho) == (0.002, 80.0, 7.0)
        grid = karras_grid(n) if default else karras_grid(n, t_min, t_max, rho)
        assert grid.shape == (n,) and grid.dtype == torch.float64, f"{n} points"
        assert grid[0].item() == t_min and grid[-1].item() == t_max, "the ends, exactly"
        steps = (grid ** (1 / rho)).diff()
        wanted = (t_max ** (1 / rho) - t_min ** (1 / rho)) / (n - 1)
        assert (steps / wanted - 1).abs().max() < 1e-10, "float64 leaves 1e-13, float32 1e-6"


def check_consistency(consistency: Callable[..., Tensor], seed: int) -> None:
    randn = noise(seed)
    kinds = ((torch.float64, torch.float64), (torch.float32, torch.float64), (torch.float32, torch.float32))
    for shape in SHAPES:  # three kinds of numbers, three settings
        for (dtype, of_t), (sd, t_min) in zip(kinds, ((0.5, 0.002), (1.3, 0.002), (0.3, 0.1))):
            x = (2 * randn(*shape)).to(dtype)
            t = (t_min + 2 * randn(shape[0]).abs()).to(of_t)
            kept = x.clone()
            seen: list[tuple[Tensor, Tensor]] = []

            def net(scaled: Tensor, c_noise: Tensor, seen: list = seen) -> Tensor:
                seen.append((scaled, c_noise))
                return scaled.cos() + column(c_noise, scaled)

            got = consistency(net, x, t) if (sd, t_min) == (0.5, 0.002) else consistency(net, x, t, sd, t_min)
            assert torch.equal(x, kept) and len(seen) == 1, "x is the caller's, and net is asked once"
            v = (t.double() ** 2 + sd**2).sqrt()
            near(seen[0][0], kept.double() / column(v, x).double(), "what the net is given", dtype)
            near(seen[0][1], t.double().log() / 4, "the time that the net is told", of_t)
            F = seen[0][0].double().cos() + column(seen[0][1], x).double()
            skip, out = sd**2 / ((t.double() - t_min) ** 2 + sd**2), sd * (t.double() - t_min) / v
            want = column(skip, F) * kept + column(out, F) * F
            near(got, want, f"f for sigma_data {sd}, t_min {t_min}", dtype)
    for i in range(1, 31):  # a formula that misses 1 by a rounding does so for one sigma_data in eight
        x, t = 2 * randn(3, 2), torch.full((3,), 0.002, dtype=torch.float64)
        f = consistency(lambda x, _: x.exp(), x, t, i / 20)
        assert torch.equal(f, x), f"f(x, t_min) = x for sigma_data {i / 20}"


CLOCKS: tuple[tuple[Schedule, float, float, float], ...] = (  # three times each
    (EDM(), 0.5, 3.0, 60.0),
    (VP.linear(20), 2.0, 9.0, 18.0),
    (TrigFlow(), 0.2, 0.9, 1.4),
)


def check_heun_step(heun_step: Callable[..., Tensor], seed: int) -> None:
    randn = noise(seed)

    def denoise(x: Tensor, t: Tensor) -> Tensor:  # bent in x, and changing with t
        calls.append(t)
        return 0.4 * x.tanh() + column((0.2 * t + 0.1).sin(), x)

    for clock, low, middle, high in CLOCKS:
        for shape, (t, s) in zip(2 * SHAPES, ((high, middle), (middle, low), (low, high), (middle, 0.0))):
            calls: list[Tensor] = []
            times = [torch.full(shape[:1], v, dtype=torch.float64) for v in (t, s)]
            if s and not isinstance(clock, VP):  # a time for each sample; VP's are whole numbers
                times = [time * (1 + 0.02 * torch.arange(shape[0])) for time in times]
            x = randn(*shape)
            kept, got = x.clone(), heun_step(denoise, clock, x, *times)
            assert torch.equal(x, kept), "x is the caller's"
            assert len(calls) == (2 if s else 1), "two evaluations; one to a clean end"
            near(got, heun(denoise, clock, kept, *times), f"Heun from {t} to {s} in {type(clock).__name__}")
    x, two = randn(4, 2).float(), torch.full((4,), 2.0, dtype=torch.float64)
    got = heun_step(denoise, EDM(), x, two, two / 2)
    near(got, heun(denoise, EDM(), x.double(), two, two / 2), "Heun in float32", torch.float32)


def heun(denoise: Callable, clock: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """dy/dlambda = eps_hat for y = x/alpha, lambda = sigma/alpha: by Heun, or where s is clean by Euler."""
    alpha_t, sigma_t, alpha_s, sigma_s = (
        column(v, x) for v in (clock.alpha(t), clock.sigma(t), clock.alpha(s), clock.sigma(s))
    )
    y, step = x / alpha_t, sigma_s / alpha_s - sigma_t / alpha_t
    first = (x - alpha_t * denoise(x, t)) / sigma_t
    euler = alpha_s * (y + step * first)
    if not sigma_s.any():
        return euler
    return alpha_s * (y + step * (first + (euler - alpha_s * denoise(euler, s)) / sigma_s) / 2)


def check_pseudo_huber(pseudo_huber: Callable[..., Tensor], seed: int) -> None:
    randn = noise(seed)
    for shape in SHAPES:
        for c, dtype in ((0.03, torch.float64), (1.7, torch.float64), (0.5, torch.float32)):
            a, b = (randn(*shape).to(dtype).requires_grad_() for _ in range(2))
            r = (a - b).detach().double().flatten(1)
            root = (r.square().sum(1) + c * c).sqrt()
            distances = pseudo_huber(a, b, c)
            near(distances, root - c, f"the distance for c = {c}", dtype)
            distances.sum().backward()
            assert a.grad is not None and b.grad is not None, "training may need its slope in either"
            slope = (r / root[:, None]).reshape(shape)
            near(a.grad, slope, "its gradient in a", dtype)
            near(b.grad, -slope, "its gradient in b", dtype)
    a = randn(3, 2).requires_grad_()
    zero = pseudo_huber(a, a.detach().clone(), 0.5)
    zero.sum().backward()
    assert zero.abs().max() < 1e-12 and a.grad is not None and not a.grad.any(), "at a = b both are 0"


def check_ct_loss(ct_loss: Callable[..., Tensor], seed: int) -> None:
    randn = noise(seed)

    def distance(a: Tensor, b: Tensor) -> Tensor:  # not symmetric: which is which shows
        return ((a - 2 * b).square() + a).flatten(1).sum(1)

    for shape in SHAPES:
        for dtype in (torch.float64, torch.float32):
            x0, eps = (randn(*shape).to(dtype) for _ in range(2))
            s = 0.5 + torch.arange(shape[0], dtype=torch.float64)
            t = s + 0.3 + 0.1 * s
            seen: dict[str, list] = {"f": [], "f_target": []}
            weights = {
                name: torch.tensor(w, dtype=dtype, requires_grad=True) for name, w in (("f", 0.8), ("f_target", 0.6))
            }

            def model(name: str, seen: dict = seen, weights: dict = weights) -> Callable:
                def f(x: Tensor, at: Tensor) -> Tensor:
                    seen[name].append((x, at))
                    return weights[name] * x + column(at, x)

                return f

            losses = ct_loss(model("f"), model("f_target"), x0, eps, t, s, distance)
            for name, time in (("f", t), ("f_target", s)):
                assert len(seen[name]) == 1, f"{name} is asked once"
                point, told = seen[name][0]
                assert torch.equal(told, time), f"the time of {name}"
                near(point, x0 + column(time, x0) * eps, f"the point of {name}", dtype)
            x_t, x_s = (x0 + column(time, x0) * eps for time in (t, s))
            w = weights["f"].detach().clone().requires_grad_()
            want = distance(w * x_t + column(t, x0), 0.6 * x_s + column(s, x0)) / (t - s).to(dtype)
            near(losses, want, "the loss", dtype)
            slope, leak = torch.autograd.grad(losses.sum(), list(weights.values()), allow_unused=True)
            assert leak is None or leak == 0, "the target is held fixed"
            near(slope, torch.autograd.grad(want.sum(), w)[0], "the gradient in f", dtype)
