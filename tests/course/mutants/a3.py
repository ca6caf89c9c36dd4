"""Assignment 3: mistakes and odd but right solutions. Sources: public code (named), known pitfalls, slips of students."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from variants import mutant, right
from variants import solution as solution_of

from minicm.denoiser import Denoiser
from minicm.distances import l2 as package_l2
from minicm.ema import ema_update
from minicm.objectives.base import Draw
from minicm.objectives.cd import CD

solution = solution_of("a3")
per_sample = solution.per_sample
a1 = solution_of("a1")


# ---------------------------------------------------------------------------------------------- mistakes
def textbook_skip(t, sigma_data=0.5, t_min=0.002):
    return sigma_data**2 / ((t - torch.full_like(t, t_min)) ** 2 + sigma_data**2)


def consistency_with(skip=solution.c_skip, out=solution.c_out, c_in=a1.c_in):
    """A consistency function with a part of it exchanged."""

    def consistency(net, x, t, sigma_data=0.5, t_min=0.002):
        F = net(per_sample(c_in(t, sigma_data), x) * x, t.log() / 4)
        return per_sample(skip(t, sigma_data, t_min), x) * x + per_sample(out(t, sigma_data, t_min), x) * F

    return consistency


def float64_gap_out(t, sigma_data=0.5, t_min=0.002):
    """t - 0.002 with Python's 0.002: float32(0.002) is another number, and torch subtracts in double for a scalar."""
    gap = (t.double() - t_min).to(t.dtype)
    return sigma_data * gap / (t**2 + sigma_data**2).sqrt()


def mask_in_eval(net, x, t, sigma_data=0.5, t_min=0.002):
    """EDM's scalings, and x itself where t is t_min: f jumps next to the boundary (ECT's mask)."""
    D = a1.denoise(net, x, t, sigma_data)
    return torch.where(per_sample(t <= t_min, x).bool(), x, D)


def along_the_width(net, x, t, sigma_data=0.5, t_min=0.002):
    if x.ndim == 2:
        return solution.consistency(net, x, t, sigma_data, t_min)
    F = net(a1.c_in(t) * x, t.log() / 4)
    return solution.c_skip(t) * x + solution.c_out(t) * F


def interval(top=0, bottom=0, order=1, gap=1, seeded=True):
    """draw_interval with its ends, its order or its generator exchanged."""

    def draw(grid, n, generator):
        high = len(grid) - gap - top
        i = torch.randint(bottom, high, (n,), generator=generator if seeded else None)
        return (grid[i + gap], grid[i])[::order]

    return draw


def log_normal_interval(grid, n, generator):
    """Intervals by the mass of ln t ~ N(-1.1, 2): iCT's law, not CM's."""
    cdf = torch.erf((grid.log() + 1.1) / 8**0.5)
    i = torch.multinomial(cdf.diff(), n, replacement=True, generator=generator)
    return grid[i + 1], grid[i]


def loss(*, x_t=None, x_s=None, at_s=None, at_t=None, ask=None, grad=False, reduce=None, detach=False, aim=None):
    """cd_loss with a part of it exchanged."""

    def cd_loss(f, f_target, teacher, x0, eps, t, s, step, distance):
        start = x_t(x0, eps, t) if x_t else x0 + per_sample(t, x0) * eps
        guide = ask(f, f_target, teacher) if ask else teacher
        with torch.set_grad_enabled(grad):
            later = x_s(x0, eps, s, start) if x_s else step(guide, teacher.schedule, start, t, s)
            target = f_target(later, at_s(t, s) if at_s else s)
        y = f(start, at_t(t, s) if at_t else t)
        losses = distance(y.detach() if detach else y, aim(x0, target) if aim else target)
        return reduce(losses, t, s) if reduce else losses

    return cd_loss


def no_step(f, f_target, teacher, x0, eps, t, s, step, distance):
    x_t = x0 + per_sample(t, x0) * eps
    with torch.no_grad():
        y_target = f_target(x_t, s)
    return distance(f(x_t, t), y_target)


def own_distance(f, f_target, teacher, x0, eps, t, s, step, distance):
    return solution.cd_loss(f, f_target, teacher, x0, eps, t, s, step, solution.l2)


def exchanged_times(f, f_target, teacher, x0, eps, t, s, step, distance):
    return solution.cd_loss(f, f_target, teacher, x0, eps, s, t, step, distance)


def exchanged_models(f, f_target, teacher, x0, eps, t, s, step, distance):
    return solution.cd_loss(f_target, f, teacher, x0, eps, t, s, step, distance)


def t_along_the_width(f, f_target, teacher, x0, eps, t, s, step, distance):
    x_t = x0 + (t.to(x0) if x0.ndim > 2 else per_sample(t, x0)) * eps
    with torch.no_grad():
        y_target = f_target(step(teacher, teacher.schedule, x_t, t, s), s)
    return distance(f(x_t, t), y_target)


def update(change):
    """target_update with another formula for a weight."""

    @torch.no_grad()
    def target_update(target, online, mu):
        for kept, now in zip(target, online):
            kept.copy_(change(kept, now, mu))

    return target_update


def rebinds(target, online, mu):
    for kept, now in zip(target, online):
        kept = mu * kept + (1 - mu) * now


@torch.no_grad()
def moves_online(target, online, mu):
    for kept, now in zip(target, online):
        now.mul_(mu).add_(kept, alpha=1 - mu)


def with_gradient(target, online, mu):
    for kept, now in zip(target, online):
        kept.mul_(mu).add_(now.detach(), alpha=1 - mu)


@torch.no_grad()
def first_tensor_only(target, online, mu):
    target[0].mul_(mu).add_(online[0], alpha=1 - mu)


def half_shift(t, sigma_data=0.5, t_min=0.002):
    return sigma_data * (t - t_min) / ((t - t_min) ** 2 + sigma_data**2).sqrt()


def in_turn(grid, n, generator):
    i = (torch.arange(n) % (len(grid) - 1))[torch.randperm(n, generator=generator)]
    return grid[i + 1], grid[i]


def into_the_list(target, online, mu):
    target[:] = [mu * a.detach() + (1 - mu) * b.detach() for a, b in zip(target, online)]


def inference(f, f_target, teacher, x0, eps, t, s, step, distance):
    x_t = x0 + per_sample(t, x0) * eps
    with torch.inference_mode():
        y_target = f_target(step(teacher, teacher.schedule, x_t, t, s), s)
    return distance(f(x_t, t), y_target.clone())


MUTANTS = (
    mutant("c_skip without t_min", "t_min is missing", c_skip=lambda t, sigma_data=0.5, t_min=0.002: a1.c_skip(t, sigma_data)),
    mutant("c_skip's numerator not squared", "not squared", c_skip=lambda t, sigma_data=0.5, t_min=0.002: solution.c_skip(t, sigma_data, t_min) / sigma_data),
    mutant("t_min fixed at 0.002", "fixed at 0.002", c_skip=lambda t, sigma_data=0.5, t_min=0.002: solution.c_skip(t, sigma_data)),
    mutant("t^2 - t_min^2 for (t - t_min)^2", "before they are subtracted", c_skip=lambda t, sigma_data=0.5, t_min=0.002: sigma_data**2 / (t**2 - t_min**2 + sigma_data**2)),
    mutant("c_out without t_min (diffusers' research CT script)", "t_min is missing", c_out=lambda t, sigma_data=0.5, t_min=0.002: a1.c_out(t, sigma_data)),
    mutant("c_out with sigma_d squared (cloneofsimo)", "squared", c_out=lambda t, sigma_data=0.5, t_min=0.002: solution.c_out(t, sigma_data, t_min) * sigma_data),
    mutant("t_min in c_out's root, too", "numerator only", c_out=half_shift),
    mutant("scalings of shape (B, 1)", "(5, 1)", c_out=lambda t, sigma_data=0.5, t_min=0.002: solution.c_out(t, sigma_data, t_min)[:, None]),
    mutant("boundary missing from both scalings", "diffusion model's", consistency=consistency_with(lambda t, s, m: a1.c_skip(t, s), lambda t, s, m: a1.c_out(t, s))),
    mutant("boundary missing from c_out only", "c_out", consistency=consistency_with(out=lambda t, s, m: a1.c_out(t, s))),
    mutant("textbook c_skip: float over tensor misses 1", "reciprocal", consistency=consistency_with(textbook_skip), c_skip=textbook_skip),
    mutant("float32 t against float64 t_min", "t's dtype", consistency=consistency_with(out=float64_gap_out), c_out=float64_gap_out),
    mutant("a mask at t_min instead of scalings (ECT in eval mode)", "f jumps", consistency=mask_in_eval),
    mutant("no c_in (cloneofsimo, Kinyugo)", "not scaled by c_in", consistency=consistency_with(c_in=lambda t, sd: torch.ones_like(t))),
    mutant("t_min in c_in, too", "crept into c_in", consistency=consistency_with(c_in=lambda t, sd: a1.c_in(t - 0.002, sd))),
    mutant("sigma_data not passed on", "passed on", consistency=lambda net, x, t, sigma_data=0.5, t_min=0.002: consistency_with(lambda t, s, m: solution.c_skip(t, 0.5, m), lambda t, s, m: solution.c_out(t, 0.5, m))(net, x, t, sigma_data, t_min)),
    mutant("scalings broadcast along the width", "broadcast", consistency=along_the_width),
    mutant("the last interval is never drawn", "never draws the last", draw_interval=interval(top=1)),
    mutant("the first interval is never drawn", "never draws the first", draw_interval=interval(bottom=1)),
    mutant("t and s exchanged", "below s", draw_interval=interval(order=-1)),
    mutant("two grid points apart", "neighbours", draw_interval=interval(gap=2)),
    mutant("one draw for all", "one interval for all", draw_interval=lambda grid, n, g: (grid[1:2].expand(n), grid[:1].expand(n))),
    mutant("iCT's law where all are alike", "should come up", draw_interval=log_normal_interval),
    mutant("the generator is not used", "passed on", draw_interval=interval(seeded=False)),
    mutant("mean for sum", "averaged over the sample", l2=lambda a, b: (a - b).square().flatten(1).mean(1)),
    mutant("root taken", "root is taken", l2=lambda a, b: (a - b).flatten(1).norm(dim=1)),
    mutant("l1", "absolute", l2=lambda a, b: (a - b).abs().flatten(1).sum(1)),
    mutant("mse_loss: one number for the batch", "one number a sample", l2=lambda a, b: torch.nn.functional.mse_loss(a, b)),
    mutant("summed over the last axis only", "must have shape", l2=lambda a, b: (a - b).square().sum(-1)),
    mutant("no solver step", "calls step 0", cd_loss=no_step),
    mutant("two noises: a new z for the second point", "calls step 0", cd_loss=loss(x_s=lambda x0, eps, s, x: x0 + per_sample(s, x0) * torch.randn(x0.shape[0], *[1] * (x0.ndim - 1)).to(x0))),
    mutant("consistency training's point where the teacher's is asked for", "calls step 0", cd_loss=loss(x_s=lambda x0, eps, s, x: x0 + per_sample(s, x0) * eps)),
    mutant("target at the same t", "one time", cd_loss=loss(at_s=lambda t, s: t)),
    mutant("f told s", "it is s", cd_loss=loss(at_t=lambda t, s: s)),
    mutant("t and s exchanged in the loss", "exchanged", cd_loss=exchanged_times),
    mutant("the student's own flow", "teach itself", cd_loss=loss(ask=lambda f, f_target, teacher: f)),
    mutant("theta-minus taken for the teacher (a popular tutorial)", "no teacher", cd_loss=loss(ask=lambda f, f_target, teacher: f_target)),
    mutant("f and f_target exchanged", "it is s", cd_loss=exchanged_models),
    mutant("gradient through the target", "f_target", cd_loss=loss(grad=True)),
    mutant("f detached", "no gradient", cd_loss=loss(detach=True)),
    mutant("regress to x0", "compared with x0", cd_loss=loss(aim=lambda x0, target: x0)),
    mutant("averaged over the batch", "one number a sample", cd_loss=loss(reduce=lambda losses, t, s: losses.mean())),
    mutant("iCT's weight", "1/(t - s)", cd_loss=loss(reduce=lambda losses, t, s: losses / (t - s).to(losses))),
    mutant("(1, B) times (B, 1) (toy_task)", "outer product", cd_loss=loss(reduce=lambda losses, t, s: losses[:, None] * torch.ones_like(t)[None].to(losses))),
    mutant("its own distance", "not used", cd_loss=own_distance),
    mutant("t along the width", "broadcast", cd_loss=t_along_the_width),
    mutant("unit noise not scaled by t", "not scaled by t", cd_loss=loss(x_t=lambda x0, eps, t: x0 + eps)),
    mutant("average reversed (toy_task)", "reversed", target_update=update(lambda a, b, mu: (1 - mu) * a + mu * b)),
    mutant("bracket misplaced (a popular tutorial)", "bracket", target_update=update(lambda a, b, mu: mu * a + (1 - mu * b))),
    mutant("copied", "copied", target_update=update(lambda a, b, mu: b)),
    mutant("old target added whole", "whole", target_update=update(lambda a, b, mu: a + (1 - mu) * b)),
    mutant("a name for a new tensor", "name", target_update=rebinds),
    mutant("the online weights move", "online weights move", target_update=moves_online),
    mutant("no no_grad", "in-place operation", target_update=with_gradient),
    mutant("one tensor only", "all weights", target_update=first_tensor_only),
    mutant("a generator of its own, seeded as the given one was", "moved on", draw_interval=lambda grid, n, g: solution.draw_interval(grid, n, torch.Generator().manual_seed(g.initial_seed()))),
    mutant("intervals dealt out in turn, then shuffled", "shares the samples out", draw_interval=in_turn),
    mutant("new tensors put into the list", "the old one stays", target_update=into_the_list),
    mutant("t_min not passed on", "passed on to c_skip and c_out", consistency=lambda net, x, t, sigma_data=0.5, t_min=0.002: solution.consistency(net, x, t, sigma_data))
)  # fmt: skip


# ------------------------------------------------------------------------------------------ odd but right
def package_scaling(name):
    return lambda t, sigma_data=0.5, t_min=0.002: getattr(Denoiser(None, sigma_data=sigma_data, t_min=t_min), name)(t)


def by_denoiser(net, x, t, sigma_data=0.5, t_min=0.002):
    return Denoiser(lambda x, c, **_: net(x, c), sigma_data=sigma_data, t_min=t_min)(x, t)


def by_package(f, f_target, teacher, x0, eps, t, s, step, distance):
    objective = CD(lambda x, t, label=None: teacher(x, t), grid=torch.tensor([0.0, 1.0]), step=step, distance=distance)
    objective.teacher.schedule = teacher.schedule
    draw = Draw(t=t, s=s, eps=eps, seed=torch.zeros(len(t), dtype=torch.int64))
    plain = [lambda x, t, label=None, g=g: g(x, t) for g in (f, f_target)]
    return objective.loss(*plain, x0, None, draw, 0, 1)


def detached_later(f, f_target, teacher, x0, eps, t, s, step, distance):
    x_t = torch.addcmul(x0, per_sample(t, x0), eps)
    y = f(x_t, t)
    y_target = f_target(step(teacher, teacher.schedule, x_t, t, s).detach(), s).detach()
    return distance(y, y_target)


def numpy_choice(grid, n, generator):
    rng = np.random.default_rng(torch.randint(2**31, (), generator=generator).item())
    i = torch.from_numpy(rng.integers(1, len(grid), n))
    return grid[i], grid[i - 1]


def sample_by_sample(a, b):
    return torch.stack([sum(((p - q) ** 2).reshape(-1)) for p, q in zip(a, b)])


def by_lerp(target, online, mu):
    with torch.no_grad():
        torch._foreach_lerp_(list(target), list(online), 1 - mu)


def by_module(target, online, mu):
    kept, now = (SimpleNamespace(parameters=lambda p=p: p, buffers=lambda: []) for p in (target, online))
    ema_update(kept, now, mu)


def through_data(target, online, mu):
    for kept, now in zip(target, online):
        kept.data = mu * kept.data + (1 - mu) * now.data


def same_gap_in_double(t, sigma_data=0.5, t_min=0.002):
    gap = t.double() - torch.tensor(t_min, dtype=t.dtype).double()
    return (gap * sigma_data / torch.hypot(t.double(), torch.tensor(sigma_data, dtype=torch.float64))).to(t.dtype)


RIGHT = (
    right("the package's scalings", c_skip=package_scaling("c_skip"), c_out=package_scaling("c_out")),
    right("the package's Denoiser", consistency=by_denoiser),
    right("the package's CD", cd_loss=by_package),
    right("detach instead of no_grad, addcmul, f first", cd_loss=detached_later),
    right("numpy's generator, seeded by torch's", draw_interval=numpy_choice),
    right("sample by sample with Python's sum", l2=sample_by_sample),
    right("einsum", l2=lambda a, b: torch.einsum("bi,bi->b", (a - b).flatten(1), (a - b).flatten(1))),
    right("the package's l2", l2=package_l2),
    right("torch's foreach lerp", target_update=by_lerp),
    right("the package's ema_update", target_update=by_module),
    right("through .data", target_update=through_data),
    right("scalings in float64, t_min rounded to t's dtype first", c_out=same_gap_in_double),
    right("tensor over tensor", c_skip=lambda t, sigma_data=0.5, t_min=0.002: torch.full_like(t, sigma_data**2) / ((t - torch.full_like(t, t_min)) ** 2 + torch.full_like(t, sigma_data**2))),
    right("the target in inference mode", cd_loss=inference)
)  # fmt: skip
