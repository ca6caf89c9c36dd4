"""Assignment 5: mistakes and odd but right solutions. Sources: public code (named), known pitfalls, slips of students."""

from __future__ import annotations

import math

import torch
from variants import mutant, right
from variants import solution as solution_of

from minicm.editing import orthogonal as package_orthogonal
from minicm.editing import slerp as package_slerp
from minicm.sampling import sample as package_sample
from minicm.schedules import EDM

solution = solution_of("a5")
per_sample, renoise = solution.per_sample, solution.renoise


# ---------------------------------------------------------------------------------------------- mistakes
def level(of):
    """renoise with another noise level of (s, t_min)."""
    return lambda x, s, eps, t_min=0.002: x + per_sample(of(s, t_min), x) * eps


def along_the_width(x, s, eps, t_min=0.002):
    if x.ndim == 2:
        return renoise(x, s, eps, t_min)
    return x + (s**2 - t_min**2).sqrt().to(x) * eps


def in_place(x, s, eps, t_min=0.002):
    return x.add_(per_sample((s**2 - t_min**2).sqrt(), x) * eps)


def sampler(*, start=None, order=None, noise=None, point=renoise, last=False, once=False, told=None, again=False):
    """multistep with a part of it exchanged."""

    def multistep(f, eps, times, draw, t_min=0.002):
        if order:
            times = order(times)
        batch = len(eps)
        x = f(start(eps, times, t_min) if start else times[0].item() * eps, times[0].expand(batch))
        kept = draw(x) if once else None
        for before, time in zip(times, times[1:]):
            z = kept if once else noise(x) if noise else draw(x)
            s = time.expand(batch)
            x = f(point(x, s, z, t_min), (told(before, time) if told else time).expand(batch))
        if last:
            x = renoise(x, times[-1].expand(batch), draw(x), t_min)
        return f(x, times[-1].expand(batch)) if again else x

    return multistep


def renoised_to_where_it_was(f, eps, times, draw, t_min=0.002):
    x = f(times[0].item() * eps, times[0].expand(len(eps)))
    for before, time in zip(times, times[1:]):
        x = f(renoise(x, before.expand(len(eps)), draw(x), t_min), time.expand(len(eps)))
    return x


def a_number_for_t(f, eps, times, draw, t_min=0.002):
    return solution.multistep(lambda x, t: f(x, t[:1]), eps, times, draw, t_min)


def float64_all_through(f, eps, times, draw, t_min=0.002):
    return solution.multistep(f, eps.double(), times, draw, t_min)


def gamma_with(u=None, scale=None, variance=None, root=True, keep=True, width=False):
    """gamma_step with a part of it exchanged."""

    def gamma_step(schedule, x, x0_hat, t, s, gamma, eps, t_min=0.002):
        goal = u(t, s, gamma) if u else (1 - gamma) * s
        spread = (lambda v, x: v.to(x)) if width and x.ndim > 2 else per_sample
        alpha, sigma = schedule.alpha, schedule.sigma
        eps_hat = (x - per_sample(alpha(t), x) * x0_hat) / per_sample(sigma(t), x)
        x_u = per_sample(alpha(goal), x) * x0_hat + keep * per_sample(sigma(goal), x) * eps_hat
        ratio = alpha(s) / alpha(goal)
        low = sigma(goal).clamp(min=t_min)
        missing = variance(sigma(s), low, ratio) if variance else sigma(s) ** 2 - (ratio * low) ** 2
        missing = missing.clamp(min=0)
        factor = scale(ratio) if scale else ratio
        return per_sample(factor, x) * x_u + spread(missing.sqrt() if root else missing, x) * eps

    return gamma_step


def no_floor(schedule, x, x0_hat, t, s, gamma, eps, t_min=0.002):
    return solution.gamma_step(schedule, x, x0_hat, t, s, gamma, eps, 0.0)


def qr_sign(first):
    Q = solution.orthogonal(first)
    return torch.cat([-Q[:, :1], Q[:, 1:]], dim=1)


def not_normalised(first):
    Q = solution.orthogonal(first)
    return torch.cat([first[:, None], Q[:, 1:]], dim=1)


def only_the_first(first):
    Q = torch.eye(len(first), dtype=first.dtype)
    Q[:, 0] = first / first.norm()
    return Q


def last_axis(x, Q):
    return x @ Q.to(x) if x.shape[-1] == len(Q) else solution.mix(x, Q)


def editor(*, mask=None, start=None, back=None, noise=None, put=True, end=True, blank=True, clean=False, once=False):
    """edit with a part of it exchanged."""

    def edit(f, y, forward, inverse, omega, times, draw, t_min=0.002):
        omega = mask(omega) if mask else omega
        known = forward(y)

        def put_back(x):
            return back(x, y, omega) if back else inverse(torch.where(omega, forward(x), known))

        x = inverse(known.masked_fill(omega, 0)) if blank else y
        x = f(start(x, times, draw(y), t_min) if start else x + times[0].item() * draw(y), times[0].expand(len(y)))
        x = put_back(x) if (put and len(times) > 1) or end else x
        for k, time in enumerate(times[1:], 2):
            s = time.expand(len(y))
            x = (noise or renoise)(x, s, draw(y), t_min)
            x = f(put_back(x) if clean else x, s)
            if (put and k < len(times)) or (end and k == len(times)):
                x = put_back(x)
        return x

    return edit


def arithmetic(blend):
    """edit by another way of putting the known part back."""

    def edit(f, y, forward, inverse, mask, times, draw, t_min=0.002):
        m, known = mask.to(y), forward(y)
        t = times[0].expand(len(y))
        x = blend(f(inverse(known * (1 - m)) + times[0].item() * draw(y), t), known, m, forward, inverse)
        for time in times[1:]:
            s = time.expand(len(y))
            x = blend(f(renoise(x, s, draw(x), t_min), s), known, m, forward, inverse)
        return x

    return edit


def rounded(x, known, m, forward, inverse):
    z = forward(x)
    return inverse(z + (1 - m) * (known - z))


def no_inverse(f, y, forward, inverse, mask, times, draw, t_min=0.002):
    return solution.edit(f, y, forward, lambda z: z, mask, times, draw, t_min)


def batch_angle(a, b, fraction):
    w = (torch.sum(a * b) / (a.norm() * b.norm())).clamp(-1, 1).acos()
    return (torch.sin((1 - fraction) * w) * a + torch.sin(fraction * w) * b) / torch.sin(w)


def slerp_by(angle):
    """Shoemake's weights as they are written, by another angle."""

    def slerp(a, b, fraction):
        w = angle(a, b)
        return (torch.sin((1 - fraction) * w) * a + torch.sin(fraction * w) * b) / torch.sin(w)

    return slerp


def cosine(a, b):
    return torch.cosine_similarity(a.flatten(1), b.flatten(1))


def up_to_t_min(schedule, x, x0_hat, t, s, gamma, eps, t_min=0.002):
    u = (1 - gamma) * s
    sigma_u = schedule.sigma(u).clamp(min=t_min)
    eps_hat = (x - per_sample(schedule.alpha(t), x) * x0_hat) / per_sample(schedule.sigma(t), x)
    x_u = per_sample(schedule.alpha(u), x) * x0_hat + per_sample(sigma_u, x) * eps_hat
    ratio = schedule.alpha(s) / schedule.alpha(u)
    level = (schedule.sigma(s) ** 2 - (ratio * sigma_u) ** 2).clamp(min=0).sqrt()
    return per_sample(ratio, x) * x_u + per_sample(level, x) * eps


def without_clamp(schedule, x, x0_hat, t, s, gamma, eps, t_min=0.002):
    below = schedule.sigma(s) < t_min
    return solution.gamma_step(schedule, x, x0_hat, t, s, gamma, eps, t_min) + per_sample(0 / (~below).double(), x)


def unsigned_axis(first):
    columns = torch.eye(len(first), dtype=first.dtype)
    others = columns[:, [i for i in range(len(first)) if i != first.argmax()]]
    Q, R = torch.linalg.qr(torch.cat([first[:, None], others], dim=1))
    return Q * R.diag().sign()


def noise_in_the_blank(f, y, forward, inverse, mask, times, draw, t_min=0.002):
    return solution.edit(f, y, forward, inverse, mask, times, blanked(forward, inverse, mask, draw), t_min)


def blanked(forward, inverse, mask, draw):
    """draw, whose first noise stands in the masked coefficients alone."""
    calls = []

    def first_blanked(x):
        calls.append(x)
        return inverse(torch.where(mask, draw(x), 0)) if len(calls) == 1 else draw(x)

    return first_blanked


def noise_of_coefficients(f, y, forward, inverse, mask, times, draw, t_min=0.002):
    return solution.edit(f, y, forward, inverse, mask, times, lambda x: draw(forward(x)), t_min)


def threshold(a, b, fraction):
    cosine = torch.cosine_similarity(a.flatten(1), b.flatten(1))
    return torch.lerp(a, b, fraction) if (cosine.abs() > 0.9995).any() else solution.slerp(a, b, fraction)


def edit_of_nothing(f, eps, times, draw, t_min=0.002):
    noises = [eps]
    everything = torch.ones(eps.shape[1:], dtype=torch.bool)
    return solution.edit(
        f, 0 * eps, lambda x: x, lambda z: z, everything, times, lambda x: noises.pop() if noises else draw(x), t_min
    )


def unit(v):
    """Each sample over its own length."""
    return v / per_sample(v.flatten(1).norm(dim=1), v)


MUTANTS = (
    mutant("no re-noise", "no noise is added", renoise=lambda x, s, eps, t_min=0.002: x.clone()),
    mutant("re-noise without t_min^2 (ECT)", "t_min is not subtracted", renoise=level(lambda s, m: s)),
    mutant("t_min fixed at 0.002", "fixed at 0.002", renoise=level(lambda s, m: (s**2 - 0.002**2).sqrt())),
    mutant("variance for standard deviation", "root is missing", renoise=level(lambda s, m: s**2 - m**2)),
    mutant("s - t_min", "not a difference", renoise=level(lambda s, m: s - m)),
    mutant("squares added", "squares are added", renoise=level(lambda s, m: (s**2 + m**2).sqrt())),
    mutant("s along the width", "broadcast", renoise=along_the_width),
    mutant("x changed in place", "in place", renoise=in_place),
    mutant("no re-noise between the steps (looks better)", "no noise is added", multistep=sampler(point=lambda x, s, z, m: x)),
    mutant("re-noise without t_min^2 in the sampler (ECT)", "t_min is not subtracted", multistep=sampler(point=level(lambda s, m: s))),
    mutant("variance for standard deviation in the sampler", "root is missing", multistep=sampler(point=level(lambda s, m: s**2 - m**2))),
    mutant("noise up to the time that was left", "time that was left", multistep=renoised_to_where_it_was),
    mutant("noise after the last", "after the last", multistep=sampler(last=True)),
    mutant("n steps, n + 1 evaluations (junhsss)", "n times are n evaluations", multistep=sampler(again=True)),
    mutant("x_T unscaled", "not scaled", multistep=sampler(start=lambda eps, times, m: eps)),
    mutant("x_T times 1.5 (toy_task)", "not more", multistep=sampler(start=lambda eps, times, m: 1.5 * times[0].item() * eps)),
    mutant("x_T with the noise of the last time (index 0)", "last time's noise", multistep=sampler(start=lambda eps, times, m: times[-1].item() * eps)),
    mutant("the same noise at every step", "each step needs its own", multistep=sampler(once=True)),
    mutant("eps for all noise", "new noise was drawn 0 times", multistep=sampler(noise=torch.ones_like)),
    mutant("times from data to noise", "from data to noise", multistep=sampler(order=lambda times: times.flip(0))),
    mutant("f told the time before", "other times", multistep=sampler(told=lambda before, time: before)),
    mutant("starts anew each time", "answer is lost", multistep=sampler(point=lambda x, s, z, m: renoise(torch.zeros_like(x), s, z, m))),
    mutant("f told (1,)", "must have shape", multistep=a_number_for_t),
    mutant("float64 all through", "must be torch.float32", multistep=float64_all_through),
    mutant("gamma reversed", "reversed", gamma_step=gamma_with(u=lambda t, s, g: g * s)),
    mutant("a part of t, not of s", "part of s", gamma_step=gamma_with(u=lambda t, s, g: (1 - g) * t)),
    mutant("variance for standard deviation in gamma's step", "root is missing", gamma_step=gamma_with(root=False)),
    mutant("all noise of s", "all noise of s", gamma_step=gamma_with(variance=lambda s, u, r: s**2)),
    mutant("alpha ratio missing", "mean and variance", gamma_step=gamma_with(scale=torch.ones_like, variance=lambda s, u, r: s**2 - u**2)),
    mutant("alpha ratio missing from the variance", "from the variance", gamma_step=gamma_with(variance=lambda s, u, r: s**2 - u**2)),
    mutant("alpha ratio missing from the mean", "from the mean", gamma_step=gamma_with(scale=torch.ones_like)),
    mutant("VP's variance in every clock (TCDScheduler)", "VP alone", gamma_step=gamma_with(variance=lambda s, u, r: 1 - r**2)),
    mutant("eps_hat left out", "eps_hat", gamma_step=gamma_with(keep=False)),
    mutant("gamma's noise without t_min^2", "t_min is not subtracted", gamma_step=no_floor),
    mutant("noise along the width", "broadcast", gamma_step=gamma_with(width=True)),
    mutant("QR's sign", "points the other way", orthogonal=qr_sign),
    mutant("first column not normalised", "not normalised", orthogonal=not_normalised),
    mutant("first as a row", "first row", orthogonal=lambda first: solution.orthogonal(first).T),
    mutant("only the first column exchanged", "not orthonormal", orthogonal=only_the_first),
    mutant("Q transposed in mix", "Q is transposed", mix=lambda x, Q: solution.mix(x, Q.T)),
    mutant("the last axis mixed", "last axis", mix=last_axis),
    mutant("unmix mixes again", "mixes once more", unmix=solution.mix),
    mutant("mask inverted", "mask is inverted", edit=editor(mask=torch.logical_not)),
    mutant("known part put back only once, at the end", "after every evaluation", edit=editor(put=False)),
    mutant("not put back at the end", "after the last evaluation", edit=editor(end=False)),
    mutant("put back after the noise: f sees a clean known part", "sees it clean", edit=editor(put=False, clean=True)),
    mutant("noise of the index 0 (jcm's notebook)", "noise of the last time", edit=editor(start=lambda x, times, z, m: x + times[-1].item() * z)),
    mutant("unit noise at the start", "not scaled", edit=editor(start=lambda x, times, z, m: x + z)),
    mutant("no noise at the start", "must see the known part", edit=editor(start=lambda x, times, z, m: x)),
    mutant("the masked part of y left in", "left in", edit=editor(blank=False)),
    mutant("start from noise alone", "missing from the start", edit=editor(start=lambda x, times, z, m: times[0].item() * z)),
    mutant("editing without t_min^2", "t_min is not subtracted", edit=editor(noise=level(lambda s, m: s))),
    mutant("editing without re-noise", "no noise is added", edit=editor(noise=lambda x, s, z, m: x)),
    mutant("mask on x, not on its coefficients", "not on its coefficients", edit=editor(back=lambda x, y, m: torch.where(m, x, y))),
    mutant("no way back", "taken back by inverse", edit=no_inverse),
    mutant("the known part through a difference", "bit for bit", edit=arithmetic(rounded)),
    mutant("one angle for the batch (Kinyugo)", "whole batch", slerp=batch_angle),
    mutant("straight mix", "straight mix", slerp=lambda a, b, u: (1 - u) * a + u * b),
    mutant("root weights", "root weights", slerp=lambda a, b, u: math.sqrt(1 - u) * a + math.sqrt(u) * b),
    mutant("fraction reversed", "reversed", slerp=lambda a, b, u: solution.slerp(b, a, u)),
    mutant("angle along the last axis", "last axis", slerp=slerp_by(lambda a, b: torch.cosine_similarity(a, b, dim=-1).acos()[..., None])),
    mutant("0/0 for parallel noises", "NaN", slerp=slerp_by(lambda a, b: per_sample(cosine(a, b).clamp(-1, 1).acos(), a))),
    mutant("u itself moved up to t_min", "u itself is moved", gamma_step=up_to_t_min),
    mutant("t_min^2 beside the noise of u", "t_min^2 is subtracted beside", gamma_step=gamma_with(variance=lambda ss, low, r: ss**2 - (r * low) ** 2 - 0.1**2)),
    mutant("gamma: NaN at s = 0", "gamma_step to s = 0", gamma_step=without_clamp),
    mutant("the axis nearest to first, without its sign", "independent", orthogonal=unsigned_axis),
    mutant("noise in the masked coefficients alone", "masked coefficients alone", edit=noise_in_the_blank),
    mutant("noise of the coefficients' shape", "raised", edit=noise_of_coefficients),
    mutant("straight for the batch where a pair is parallel (diffusers' threshold)", "straight mix is taken for all", slerp=threshold),
    mutant("slerp of unit vectors", "length 1", slerp=lambda a, b, u: solution.slerp(unit(a), unit(b), u)),
    mutant("slerp for right angles", "cosine and sine", slerp=lambda a, b, u: math.cos(u * math.pi / 2) * a + math.sin(u * math.pi / 2) * b)
)  # fmt: skip


# ------------------------------------------------------------------------------------------ odd but right
class InEDM:
    """A function with what the package reads of one."""

    schedule = EDM()

    def __init__(self, f, t_min):
        self.f, self.t_min = f, t_min

    def __call__(self, x, t):
        return self.f(x, t)


def all_noise_first(f, eps, times, draw, t_min=0.002):
    noises = [draw(eps) for _ in times]
    x = times[0].to(eps) * eps
    for i, t in enumerate(times):
        x = f(x, torch.full((len(eps),), t.item()))
        if i + 1 < len(times):
            x = x + math.sqrt(times[i + 1].item() ** 2 - t_min**2) * noises[i]
    return x


def recursive(f, eps, times, draw, t_min=0.002):
    if len(times) == 1:
        return f(times.item() * eps, times.expand(len(eps)))
    x = recursive(f, eps, times[:-1], draw, t_min)
    s = times[-1:].expand(len(eps))
    return f(renoise(x, s, draw(x), t_min), s)


def by_the_clock(schedule, x, x0_hat, t, s, gamma, eps, t_min=0.002):
    u = s - gamma * s
    ratio = schedule.alpha(s) / schedule.alpha(u)
    fill = schedule.sigma(s).square() - (ratio * schedule.sigma(u).clamp(min=t_min)).square()
    return per_sample(ratio, x) * schedule.step(x, x0_hat, t, u) + per_sample(fill.relu().sqrt(), x) * eps


def gram_schmidt(first):
    columns = [first / first.norm()]
    for e in torch.eye(len(first), dtype=first.dtype):
        rest = e
        for _ in range(2):
            rest = rest - sum(((c @ rest) * c for c in columns), torch.zeros_like(rest))
        if rest.norm() > 1e-6 and len(columns) < len(first):
            columns.append(rest / rest.norm())
    return torch.stack(columns, dim=1)


def by_package(f, y, forward, inverse, mask, times, draw, t_min=0.002):
    known, f = forward(y), InEDM(f, t_min)
    x, fill = inverse(torch.where(mask, 0.0, known)), times[0].item()
    for i, time in enumerate(times):
        x = package_sample(f, x + fill * draw(y), time[None])
        x = inverse(torch.where(mask, forward(x), known))
        fill = math.sqrt(max(times[min(i + 1, len(times) - 1)].item() ** 2 - t_min**2, 0))
    return x


def literal(x, known, m, forward, inverse):
    return inverse(known * (1 - m) + forward(x) * m)


def shoemake_with_cases(a, b, fraction):
    w = cosine(a, b).clamp(-1, 1).double().acos()
    safe = w.where(w > 1e-6, 1.0)
    p, q = (torch.where(w > 1e-6, (v * safe).sin() / safe.sin(), v) for v in (1 - fraction, fraction))
    return per_sample(p, a) * a + per_sample(q, b) * b


RIGHT = (
    right("hypot's inverse: a product of sum and difference", renoise=level(lambda s, m: ((s - m) * (s + m)).sqrt())),
    right("all noise drawn first, one more than needed, and times as float32", multistep=all_noise_first),
    right("by recursion", multistep=recursive),
    right("the clock's own step", gamma_step=by_the_clock),
    right("Gram and Schmidt, twice", orthogonal=gram_schmidt),
    right("the package's Householder reflection", orthogonal=lambda first: package_orthogonal(first.tolist())),
    right("matrices on the last axis", mix=lambda x, Q: (x.movedim(1, -1) @ Q.to(x)).movedim(-1, 1), unmix=lambda z, Q: torch.tensordot(z, Q.to(z), ([1], [1])).movedim(-1, 1)),
    right("the paper's arithmetic with Omega", edit=arithmetic(literal)),
    right("the package's sampler, one time after another", edit=by_package),
    right("Shoemake's quotient, linear for small angles, in float64", slerp=shoemake_with_cases),
    right("the package's slerp", slerp=package_slerp),
    right("matrices without a word on dtypes", mix=lambda x, Q: (Q.T @ x.flatten(2)).reshape(x.shape) if x.ndim > 2 else x @ Q, unmix=lambda z, Q: torch.einsum("cj,bj...->bc...", Q, z)),
    right("multistep as an edit of nothing", multistep=edit_of_nothing)
)  # fmt: skip
