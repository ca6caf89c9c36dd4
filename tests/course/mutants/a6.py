"""Assignment 6: mistakes and odd but right solutions. Sources: public code (named), known pitfalls, slips of students."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from variants import mutant, right
from variants import solution as solution_of

from minicm.denoiser import Guided
from minicm.nets.embeddings import guidance_embedding
from minicm.nets.lora import LoRA
from minicm.objectives.base import Draw
from minicm.objectives.lcd import LCD
from minicm.solvers import euler_step
from minicm.times import with_skip

solution = solution_of("a6")
guide, per_sample = solution.guide, solution.per_sample


# ---------------------------------------------------------------------------------------------- mistakes
def along_the_width(D_c, D_null, w):
    w = w.to(D_c) if D_c.ndim > 2 else per_sample(w, D_c)
    return D_c + w * (D_c - D_null)


def moved(schedule, x, x0_hat, whose, t, s, power=1, early=0):
    """DDIM's step with eps_hat of another estimate, powers of alpha and sigma, or another row of the table."""
    t, s = (t - early).clamp(min=0), (s - early).clamp(min=0)
    a_t, b_t, a_s, b_s = (
        per_sample(part(time), x) ** power for time in (t, s) for part in (schedule.alpha, schedule.sigma)
    )
    return a_s * x0_hat + b_s * (x - a_t * whose) / b_t


def step(estimate=guide, x0=None, whose=None, asked=lambda label: (label, None), **how):
    """guided_step with a part of it exchanged; x0 and whose choose among (D_c, the guided estimate)."""

    def guided_step(teacher, schedule, x, t, s, label, w):
        D_c, D_null = (teacher(x, t, which) for which in asked(label))
        D = estimate(D_c, D_null, w)
        return moved(schedule, x, x0(D_c, D) if x0 else D, whose(D_c, D) if whose else D, t, s, **how)

    return guided_step


def w_along_the_width(teacher, schedule, x, t, s, label, w):
    D = along_the_width(teacher(x, t, label), teacher(x, t), w)
    return moved(schedule, x, D, D, t, s)


def no_noise(teacher, schedule, x, t, s, label, w):
    return guide(teacher(x, t, label), teacher(x, t), w)


def at_s(teacher, schedule, x, t, s, label, w):
    D = guide(teacher(x, s, label), teacher(x, s), w)
    return moved(schedule, x, D, D, t, s)


def embedding(last=-1, factor=1000.0, order=1, alternate=False, shift=0.0):
    """w_embedding with a constant exchanged."""

    def w_embedding(w, dim):
        half = dim // 2
        j = torch.arange(half, dtype=w.dtype)
        phase = factor * (w + shift)[:, None] * torch.exp(-j * math.log(10000) / (half + last))
        parts = [phase.sin(), phase.cos()][::order]
        return torch.stack(parts, 2).flatten(1) if alternate else torch.cat(parts, 1)

    return w_embedding


def loss(*, noised=None, ask=None, told=None, told_target=None, at_t=None, at_s=None, x_s=None, grad=False, aim=None, reduce=None, detach=False):  # fmt: skip
    """lcd_loss with a part of it exchanged; told gives the (label, w) that a model sees."""

    def lcd_loss(f, f_target, teacher, x0, eps, label, t, s, w, step, distance):
        clock = teacher.schedule
        add = noised or (lambda c, x0, eps, t, s: per_sample(c.alpha(t), x0) * x0 + per_sample(c.sigma(t), x0) * eps)
        x_t = add(clock, x0, eps, t, s)
        seen = [dict(zip(("label", "w"), g(label, w) if g else (label, w))) for g in (told, told_target or told)]
        with torch.set_grad_enabled(grad):
            later = (
                x_s(x_t, teacher, t, s, x0, eps)
                if x_s
                else step(teacher, clock, x_t, t, s, *(ask(label, w) if ask else (label, w)))
            )
            y_target = f_target(later, at_s(t, s) if at_s else s, **seen[1])
        y = f(x_t, at_t(t, s) if at_t else t, **seen[0])
        losses = distance(y.detach() if detach else y, aim(x0, later) if aim else y_target)
        return reduce(losses) if reduce else losses

    return lcd_loss


def own_distance(f, f_target, teacher, x0, eps, label, t, s, w, step, distance):
    l2 = lambda a, b: (a - b).square().flatten(1).sum(1)  # noqa: E731
    return solution.lcd_loss(f, f_target, teacher, x0, eps, label, t, s, w, step, l2)


def t_along_the_width(f, f_target, teacher, x0, eps, label, t, s, w, step, distance):
    def wide(c, x0, eps, t, s):
        a, b = (part(t).to(x0) if x0.ndim > 2 else per_sample(part(t), x0) for part in (c.alpha, c.sigma))
        return a * x0 + b * eps

    return loss(noised=wide)(f, f_target, teacher, x0, eps, label, t, s, w, step, distance)


def start(A=None, B=None, exchanged=False, seeded=True):
    """lora_start with other starting values; A and B are functions of the right ones."""

    def lora_start(W, rank, scale, generator):
        layer = solution.lora_start(W, rank, scale, generator if seeded else None)
        if exchanged:
            return {**layer, "A": layer["B"], "B": layer["A"]}
        return {**layer, "A": A(layer["A"]) if A else layer["A"], "B": B(layer["B"]) if B else layer["B"]}

    return lora_start


def merge_forgets_scale(layer):
    return layer if "base" in layer else {**solution.lora_merge(layer), "W": layer["W"] + layer["B"] @ layer["A"]}


def merge_again(layer):
    """Each merge adds the adapter; unmerge, which takes the first W, works."""
    base = layer.get("base", layer["W"])
    return {**layer, "W": layer["W"] + layer["scale"] * layer["B"] @ layer["A"], "base": base}


def merge_in_place(layer):
    base = layer["W"].clone()
    return {**layer, "W": layer["W"].add_(layer["scale"] * layer["B"] @ layer["A"]), "base": base}


def apply_always(layer, x):
    return x @ layer["W"].T + layer["scale"] * (x @ layer["A"].T) @ layer["B"].T


def unmerge_by_subtraction(layer):
    if "base" not in layer:
        return layer
    W = layer["W"] - layer["scale"] * layer["B"] @ layer["A"]
    return {name: layer[name] for name in ("A", "B", "scale")} | {"W": W}


def unmerge_keeps_mark(layer):
    return {**layer, "W": layer.get("base", layer["W"])}


def unmerge_always_subtracts(layer):
    W = layer["W"] - layer["scale"] * layer["B"] @ layer["A"]
    return {name: layer[name] for name in ("A", "B", "scale")} | {"W": layer.get("base", W)}


def unmerge_drops_adapter(layer):
    return {"W": layer.get("base", layer["W"]), "scale": layer["scale"]}


def cfg_plus_plus(teacher, schedule, x, t, s, label, w):
    D_c, D_null = teacher(x, t, label), teacher(x, t)
    eps_hat = (x - per_sample(schedule.alpha(t), x) * D_null) / per_sample(schedule.sigma(t), x)
    return per_sample(schedule.alpha(s), x) * guide(D_c, D_null, w) + per_sample(schedule.sigma(s), x) * eps_hat


def with_memory(layer):
    if "base" in layer:
        return layer
    merged = layer.get("merged", solution.lora_merge(layer)["W"])
    return {**layer, "W": merged, "base": layer["W"], "merged": merged}


def keeps_memory(layer):
    return {k: v for k, v in layer.items() if k != "base"} | {"W": layer.get("base", layer["W"])}


def exponential(teacher, schedule, x, t, s, label, w):
    level_t, level_s = ((schedule.alpha(v) / schedule.sigma(v)).log() for v in (t, s))
    ratio, share = schedule.sigma(s) / schedule.sigma(t), -torch.expm1(level_t - level_s) * schedule.alpha(s)
    return per_sample(ratio, x) * x + per_sample(share, x) * guide(teacher(x, t, label), teacher(x, t), w)


def plain_apply(layer, x):
    return x @ layer["W"].T + layer["scale"] * (x @ layer["A"].T) @ layer["B"].T


def layer_in_layer(layer):
    if "before" in layer:
        return layer
    W, zeros = solution.lora_merge(layer)["W"], {name: torch.zeros_like(layer[name]) for name in "AB"}
    return {**zeros, "W": W, "scale": layer["scale"], "before": layer}


MUTANTS = (
    mutant("Imagen's scale: uncond + w (cond - uncond) (diffusers pipelines)", "Imagen", guide=lambda c, n, w: n + per_sample(w, c) * (c - n)),
    mutant("w + 1 for w, on top of D_c", "stands already", guide=lambda c, n, w: guide(c, n, w + 1)),
    mutant("the difference reversed", "reversed", guide=lambda c, n, w: guide(c, n, -w)),
    mutant("the estimates exchanged", "exchanged", guide=lambda c, n, w: guide(n, c, w)),
    mutant("w of the first sample for all", "first sample", guide=lambda c, n, w: guide(c, n, w[:1].expand(len(w)))),
    mutant("the mean of w for all", "mean", guide=lambda c, n, w: guide(c, n, w.mean().expand(len(w)))),
    mutant("w along the width", "broadcast", guide=along_the_width),
    mutant("float64 in, float64 out", "float64", guide=lambda c, n, w: c + w.reshape(-1, *[1] * (c.ndim - 1)) * (c - n)),
    mutant("the conditional estimate twice", "once without", guided_step=step(asked=lambda label: (label, label))),
    mutant("the label rolled by one sample", "once with the label", guided_step=step(asked=lambda label: (label.roll(1), None))),
    mutant("class 0 for the null label", "once without", guided_step=step(asked=lambda label: (label, 0 * label))),
    mutant("the teacher asked at s", "another point or time", guided_step=at_s),
    mutant("w along the width in the step", "broadcast", guided_step=w_along_the_width),
    mutant("no guidance in the step", "not guided", guided_step=step(lambda c, n, w: c)),
    mutant("Imagen's scale in the step", "Imagen", guided_step=step(lambda c, n, w: n + per_sample(w, c) * (c - n))),
    mutant("w + 1 in the step", "stands already", guided_step=step(lambda c, n, w: guide(c, n, w + 1))),
    mutant("label and null exchanged in the step", "exchanged", guided_step=step(lambda c, n, w: guide(n, c, w))),
    mutant("one w for the batch in the step", "whole batch", guided_step=step(lambda c, n, w: guide(c, n, w[:1].expand(len(w))))),
    mutant("eps guided, x0 not", "eps_hat is guided and x0_hat is not", guided_step=step(x0=lambda c, D: c)),
    mutant("x0 guided, eps not", "x0_hat is guided and eps_hat is not", guided_step=step(whose=lambda c, D: c)),
    mutant("alpha_bar for alpha", "root", guided_step=step(power=2)),
    mutant("alpha_bar of the timestep before", "too early", guided_step=step(early=1)),
    mutant("x0 for the point at s", "noise of s", guided_step=no_noise),
    mutant("the timesteps of diffusers: 19, 39, ..., 999", "diffusers", skipping_grid=lambda T, k: torch.arange(k - 1, T, k, dtype=torch.float64)),
    mutant("these with 0", "diffusers", skipping_grid=lambda T, k: torch.cat([torch.zeros(1).double(), torch.arange(k - 1, T, k, dtype=torch.float64)])),
    mutant("0 missing", "where the data are", skipping_grid=lambda T, k: solution.skipping_grid(T, k)[1:]),
    mutant("counted from below, T put at the end", "counted from 0", skipping_grid=lambda T, k: torch.tensor([*range(0, T, k), T]).double()),
    mutant("counted from below, T missed", "counted from 0", skipping_grid=lambda T, k: torch.arange(0, T, k, dtype=torch.float64)),
    mutant("k for the number of skips", "number of skips", skipping_grid=lambda T, k: torch.linspace(0, T, k + 1, dtype=torch.float64)),
    mutant("descending", "does not ascend", skipping_grid=lambda T, k: solution.skipping_grid(T, k).flip(0)),
    mutant("whole numbers", "float64", skipping_grid=lambda T, k: solution.skipping_grid(T, k).long()),
    mutant("half for half - 1", "half - 1", w_embedding=embedding(last=0)),
    mutant("cosines first (DDPM's flip_sin_to_cos)", "cosines stand", w_embedding=embedding(order=-1)),
    mutant("sines and cosines alternate", "alternate", w_embedding=embedding(alternate=True)),
    mutant("no 1000", "multiplied by 1000", w_embedding=embedding(factor=1.0)),
    mutant("w + 1 embedded", "w + 1", w_embedding=embedding(shift=1.0)),
    mutant("guidance_scale - 1 of what is w already", "w - 1", w_embedding=embedding(shift=-1.0)),
    mutant("half as many numbers", "must have shape", w_embedding=lambda w, dim: solution.w_embedding(w, dim // 2)),
    mutant("float32 whatever w is", "float64", w_embedding=lambda w, dim: solution.w_embedding(w.float(), dim)),
    mutant("one w for the batch", "one w for the whole batch", draw_w=lambda low, high, n, g: solution.draw_w(low, high, 1, g).expand(n)),
    mutant("low forgotten", "outside its range", draw_w=lambda low, high, n, g: high * torch.rand(n, generator=g)),
    mutant("high added, not reached", "outside its range", draw_w=lambda low, high, n, g: low + high * torch.rand(n, generator=g)),
    mutant("whole numbers from too small a range", "not uniform", draw_w=lambda low, high, n, g: low + (high - low) * torch.rand(n, generator=g) ** 2),
    mutant("the generator is not used", "passed on", draw_w=lambda low, high, n, g: low + (high - low) * torch.rand(n)),
    mutant("averaged over the batch", "one number a sample", lcd_loss=loss(reduce=lambda losses: losses.mean())),
    mutant("t along the width", "broadcast", lcd_loss=t_along_the_width),
    mutant("no step", "calls step 0", lcd_loss=loss(x_s=lambda x_t, teacher, t, s, x0, eps: x_t)),
    mutant("consistency training's point", "calls step 0", lcd_loss=loss(x_s=lambda x_t, teacher, t, s, x0, eps: per_sample(teacher.schedule.alpha(s), x0) * x0 + per_sample(teacher.schedule.sigma(s), x0) * eps)),
    mutant("the EDM clock's noise", "EDM clock", lcd_loss=loss(noised=lambda c, x0, eps, t, s: x0 + per_sample(t, x0) * eps)),
    mutant("alpha_bar for alpha in x_t", "root", lcd_loss=loss(noised=lambda c, x0, eps, t, s: per_sample(c.alpha(t) ** 2, x0) * x0 + per_sample(c.sigma(t) ** 2, x0) * eps)),
    mutant("noised for s", "noised for s", lcd_loss=loss(noised=lambda c, x0, eps, t, s: per_sample(c.alpha(s), x0) * x0 + per_sample(c.sigma(s), x0) * eps)),
    mutant("teacher unguided", "not guided", lcd_loss=loss(ask=lambda label, w: (label, 0 * w))),
    mutant("w + 1 for the teacher", "Imagen", lcd_loss=loss(ask=lambda label, w: (label, w + 1))),
    mutant("one w for the teacher", "whole batch", lcd_loss=loss(ask=lambda label, w: (label, w[:1].expand(len(w))))),
    mutant("w + c added (a popular tutorial)", "added", lcd_loss=loss(told=lambda label, w: (label + w, None))),
    mutant("w + c in place of w", "added", lcd_loss=loss(told=lambda label, w: (label, label + w))),
    mutant("the label is not passed on", "label that f sees is missing", lcd_loss=loss(told=lambda label, w: (None, w))),
    mutant("w is not passed on to the target", "w that f_target sees is missing", lcd_loss=loss(told_target=lambda label, w: (label, None), told=lambda label, w: (label, w))),
    mutant("the student is told w + 1", "Imagen", lcd_loss=loss(told=lambda label, w: (label, w + 1))),
    mutant("the target at t", "other point", lcd_loss=loss(at_s=lambda t, s: t)),
    mutant("f told s", "other point", lcd_loss=loss(at_t=lambda t, s: s)),
    mutant("compared with x0", "with x0", lcd_loss=loss(aim=lambda x0, x_s: x0)),
    mutant("compared with the teacher's point", "teacher's point", lcd_loss=loss(aim=lambda x0, x_s: x_s)),
    mutant("its own distance", "not used", lcd_loss=own_distance),
    mutant("gradient through the target", "f_target", lcd_loss=loss(grad=True)),
    mutant("f detached", "no gradient", lcd_loss=loss(detach=True)),
    mutant("B random, too", "B is not zero", lora_start=start(B=lambda B: B + 0.01)),
    mutant("A and B both zero", "A and B are both zero", lora_start=start(A=torch.zeros_like)),
    mutant("A and B exchanged", "exchanges A and B", lora_start=start(exchanged=True)),
    mutant("the generator is not used for A", "generator", lora_start=start(seeded=False)),
    mutant("scale forgotten", "scale is forgotten", lora_apply=lambda layer, x: solution.lora_apply({**layer, "scale": 1.0}, x)),
    mutant("scale divided by the rank again", "divided by the rank", lora_apply=lambda layer, x: solution.lora_apply({**layer, "scale": layer["scale"] / len(layer["A"])}, x)),
    mutant("W left out", "W is left out", lora_apply=lambda layer, x: layer["scale"] * x @ layer["A"].T @ layer["B"].T),
    mutant("adapter applied beside a merged W", "counts twice", lora_apply=apply_always),
    mutant("scale forgotten on merging", "scale is forgotten", lora_merge=merge_forgets_scale),
    mutant("merged twice", "twice", lora_merge=merge_again),
    mutant("merged in place", "in place", lora_merge=merge_in_place),
    mutant("unmerged by subtraction", "rounding", lora_unmerge=unmerge_by_subtraction),
    mutant("still marked as merged", "again", lora_unmerge=unmerge_keeps_mark),
    mutant("unmerged without having been merged", "never merged", lora_unmerge=unmerge_always_subtracts),
    mutant("the adapter is gone", "must return a torch.Tensor", lora_unmerge=unmerge_drops_adapter),
    mutant("eps_hat of the estimate without a label (CFG++)", "CFG++", guided_step=cfg_plus_plus),
    mutant("whole numbers", "whole numbers", draw_w=lambda low, high, n, g: torch.randint(int(low), int(high) + 1, (n,), generator=g).double()),
    mutant("the range dealt out, then shuffled", "in another order", draw_w=lambda low, high, n, g: torch.linspace(low, high, n)[torch.randperm(n, generator=g)]),
    mutant("a generator of its own, seeded as the given one was", "moved on", draw_w=lambda low, high, n, g: solution.draw_w(low, high, n, torch.Generator().manual_seed(g.initial_seed()))),
    mutant("one row for all of A", "multiples of one", lora_start=start(A=lambda A: A[:1].expand_as(A).clone())),
    mutant("B A remembered from the first merge", "older B A", lora_merge=with_memory, lora_unmerge=keeps_memory)
)  # fmt: skip


# ------------------------------------------------------------------------------------------ odd but right
def by_package_step(teacher, schedule, x, t, s, label, w):
    return euler_step(Guided(teacher, label, w), schedule, x, t, s)


def null_first(teacher, schedule, x, t, s, label, w):
    """The paper's form: the step of each estimate, then (1 + w) times one minus w times the other."""
    D_null, D_c = teacher(x, t, None), teacher(x, t, label=label)
    null, conditional = (moved(schedule, x, D, D, t, s) for D in (D_null, D_c))
    return (1 + per_sample(w, x)) * conditional - per_sample(w, x) * null


def eps_form(teacher, schedule, x, t, s, label, w):
    """Both eps are guided, and x0_hat is computed from the guided eps, as in the training script."""
    a_t, b_t, a_s, b_s = (per_sample(part(v), x) for v in (t, s) for part in (schedule.alpha, schedule.sigma))
    eps = guide(*((x - a_t * D) / b_t for D in (teacher(x, t, label), teacher(x, t))), w)
    return a_s * (x - b_t * eps) / a_t + b_s * eps


def by_package_loss(f, f_target, teacher, x0, eps, label, t, s, w, step, distance):
    objective = LCD(
        _Called(teacher), skip=1, w_range=(0, 1), grid=torch.tensor([0.0, 1.0]), distance=distance,
        step=lambda denoise, schedule, x, t, s: step(teacher, schedule, x, t, s, label, w)
    )  # fmt: skip
    draw = Draw(t=t, s=s, eps=eps, seed=torch.zeros(len(t), dtype=torch.int64), w=w)
    return objective.loss(*map(_Called, (f, f_target)), x0, label, draw, 0, 1)


class _Called(nn.Module):
    """A callable with the attributes that the package looks at."""

    t_min = 0.0

    def __init__(self, model):
        super().__init__()
        self.model, self.schedule = (model,), model.schedule

    def forward(self, x, t, label=None, w=None):
        return self.model[0](x, t, label) if w is None else self.model[0](x, t, label, w)


def detached_later(f, f_target, teacher, x0, eps, label, t, s, w, step, distance):
    x_t = teacher.schedule.add_noise(x0, eps, t)
    y = f(x_t, t, label, w)
    x_s = step(teacher, teacher.schedule, x_t, t, s, label=label, w=w).detach()
    return distance(y, f_target(x_s, s, label, w).detach())


def numpy_uniform(low, high, n, generator):
    rng = np.random.default_rng(torch.randint(2**31, (), generator=generator).item())
    return torch.from_numpy(rng.uniform(low, high, n))


def lora_of_package(layer, x):
    """The package's adapter, which makes the weight first."""
    if "base" in layer:
        return x @ layer["W"].T
    adapter = LoRA(layer["W"], len(layer["A"]), layer["scale"])
    adapter.A.data, adapter.B.data = layer["A"], layer["B"]
    return nn.functional.linear(x, adapter(layer["W"])).detach()


def merge_at_once(layer):
    """A merged layer is marked by a flag, and the adapter by a sum over its ranks."""
    if layer.get("base") is not None:
        return dict(layer)
    delta = sum(torch.outer(b, a) for a, b in zip(layer["A"], layer["B"].T))
    return {**layer, "base": layer["W"].clone(), "W": layer["W"] + layer["scale"] * delta}


RIGHT = (
    right("Imagen's form with g = w + 1", guide=lambda c, n, w: n + per_sample(w + 1, c) * (c - n)),
    right("the paper's form (1 + w) D_c - w D_null", guide=lambda c, n, w: (1 + per_sample(w, c)) * c - per_sample(w, c) * n),
    right("torch.lerp", guide=lambda c, n, w: torch.lerp(n, c, per_sample(w + 1, c))),
    right("the package's guided and euler_step", guided_step=by_package_step),
    right("two steps, combined afterwards", guided_step=null_first),
    right("guidance of eps, x0 from it", guided_step=eps_form),
    right("the package's with_skip", skipping_grid=lambda T, k: with_skip(torch.arange(T + 1.0), k)),
    right("sorted Python numbers", skipping_grid=lambda T, k: torch.tensor(sorted({0, *range(T, 0, -k)}), dtype=torch.float64)),
    right("the package's embedding", w_embedding=guidance_embedding),
    right("powers of 10000", w_embedding=lambda w, dim: torch.cat([part(torch.outer(1000 * w, torch.logspace(0, -4, dim // 2, dtype=w.dtype))) for part in (torch.sin, torch.cos)], -1)),
    right("numpy's generator, seeded by torch's", draw_w=numpy_uniform),
    right("uniform_ in float32", draw_w=lambda low, high, n, g: torch.empty(n).uniform_(low, high, generator=g)),
    right("the package's LCD", lcd_loss=by_package_loss),
    right("detach instead of no_grad, add_noise, positions instead of names", lcd_loss=detached_later),
    right("A uniform, as a Linear starts", lora_start=start(A=lambda A: A.abs() + 0.01)),
    right("the package's LoRA", lora_apply=lora_of_package),
    right("the weight first, scale on x", lora_apply=lambda layer, x: solution.lora_apply(layer, x) if "base" in layer else x @ (layer["W"] + layer["B"] @ (layer["scale"] * layer["A"])).T),
    right("outer products", lora_merge=merge_at_once),
    right("the exponential form, whose logarithm of the ratio is infinite at s = 0", guided_step=exponential),
    right("A and B at zero while merged, the old layer in the new one", lora_apply=plain_apply, lora_merge=layer_in_layer, lora_unmerge=lambda layer: layer.get("before", layer))
)  # fmt: skip
