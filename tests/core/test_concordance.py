"""The concordance: every formula of the core beside the equation of the paper that it comes from.

One row a formula: its name, its source, our value, and the paper's formula written out once more in plain Python from
the paper's letters. A later method adds its rows to the list. Published numbers, as far as the papers print them, are
in the tests of the modules.
"""

from __future__ import annotations

from collections.abc import Callable
from math import atan, ceil, cos, erf, exp, log, sin, sqrt, tan
from typing import NamedTuple

import pytest
import torch
from exact import seeded
from torch import nn

from minicm import CD, CT, DSM, EDM, VP, GaussianMixture, TrigFlow, euler_step, heun_step, sample
from minicm.denoiser import Denoiser, FromPrediction, Guided
from minicm.distances import l1, l2, pseudo_huber
from minicm.ema import ema_update
from minicm.nets.embeddings import guidance_embedding
from minicm.objectives.base import Draw, inverse_gap
from minicm.times import LogNormalIndex, ct_decay, ct_points, doubling_points, ect_gap, karras_grid

EDM_PAPER = "EDM, arXiv:2206.00364"
CM_PAPER = "CM, arXiv:2303.01469"
ICT_PAPER = "iCT, arXiv:2310.14189"
SCM_PAPER = "sCM, arXiv:2410.11081"

# One point and one of each constant; none is 0, 1 or equal to another, so that no two formulas agree by luck.
x, x0, z, t, s, sd, e, w = 1.7, 0.4, -0.9, 2.3, 1.1, 0.6, 0.05, 3.5
CHAIN, n, m = VP.linear(), 300, 120  # VP's t and s; below, its alpha and sigma there
(a, b), (c, d) = ((sqrt(v), sqrt(1 - v)) for v in (CHAIN.alpha_bar[n], CHAIN.alpha_bar[m]))
MU, S = 0.3, 0.45  # of the single Gaussian


def T(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def P(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def D(x: float, sigma: float) -> float:
    """The denoiser of N(MU, S^2) in plain Python."""
    return (S**2 * x + sigma**2 * MU) / (S**2 + sigma**2)


def f_star(x: float, sigma: float, to: float) -> float:
    return MU + sqrt((to**2 + S**2) / (sigma**2 + S**2)) * (x - MU)


def denoise(x, t, label=None):
    return (S**2 * x + t[:, None] ** 2 * MU) / (S**2 + t[:, None] ** 2)


def consistency(x, t, label=None):
    return MU + ((e**2 + S**2) / (t[:, None] ** 2 + S**2)).sqrt() * (x - MU)


denoise.schedule = consistency.schedule = EDM()
consistency.t_min = e


def heun(x: float, t: float, s: float) -> float:
    d = (x - D(x, t)) / t
    there = x + (s - t) * d
    return x + (s - t) * (d + (there - D(there, s)) / s) / 2


def half_net(F: float) -> nn.Module:
    """A network whose output is F everywhere."""
    net = nn.Identity()
    net.forward = lambda x, c_noise, **cond: torch.full_like(x, F)
    return net


def averaged() -> float:
    theta_minus, theta = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()
    theta_minus.weight.data.fill_(x), theta.weight.data.fill_(x0)
    ema_update(theta_minus, theta, 0.95)
    return theta_minus.weight.item()


def loss(objective) -> float:
    draw = Draw(t=T(t), s=T(s), eps=P(z), seed=torch.zeros(1, dtype=torch.int64))
    return objective.loss(consistency, consistency, P(x0), None, draw, 0, 1).item()


def two_steps() -> float:
    return sample(consistency, P(x), [t, s], generator=seeded(5)).item()


def algorithm_1() -> float:
    first = f_star(x, t, e)
    noise = torch.randn(1, 1, generator=seeded(5), dtype=torch.float64).item()
    return f_star(first + sqrt(s**2 - e**2) * noise, s, e)


def dsm_loss() -> float:
    f = Denoiser(half_net(0.8), EDM(), sd)
    return DSM().loss(f, None, P(x0), None, Draw(T(t), P(z), torch.zeros(1).long()), 0, 1).item()


def guided_x0() -> float:
    net = nn.Identity()
    net.forward = lambda x, c, label=None, **cond: 0 * x + (x0 if label is None else z)
    return Guided(Denoiser(net, EDM(), sd), 0, w)(P(x), T(t)).item()


def guided_x0_paper() -> float:
    c_skip, c_out = sd**2 / (t**2 + sd**2), t * sd / sqrt(t**2 + sd**2)
    eps_c, eps_null = ((x - c_skip * x - c_out * F) / t for F in (z, x0))
    return x - t * ((1 + w) * eps_c - w * eps_null)


edm, cm = Denoiser(nn.Identity(), EDM(), sd), Denoiser(nn.Identity(), EDM(), sd, e)
trig = TrigFlow(sd, 80.0)
angle, earlier = 0.9, 0.4
mixture = GaussianMixture([[MU]], [[[S**2]]], [1.0])


class Formula(NamedTuple):
    name: str
    source: str
    ours: Callable[[], float]
    paper: Callable[[], float]


CONCORDANCE = [
    # the clocks
    Formula(
        "p(x; sigma)", f"{EDM_PAPER}, section 2", lambda: EDM().add_noise(P(x0), P(z), T(t)).item(), lambda: x0 + t * z
    ),
    Formula(
        "dx/dt in EDM",
        f"{EDM_PAPER}, Eqs. 1 and 3",
        lambda: EDM().velocity(P(x), P(x0), T(t)).item(),
        lambda: (x - x0) / t,
    ),
    Formula(
        "q(x_t | x_0)",
        "DDPM, arXiv:2006.11239, Eq. 4",
        lambda: CHAIN.add_noise(P(x0), P(z), T(n)).item(),
        lambda: a * x0 + b * z,
    ),
    Formula(
        "x_t of TrigFlow",
        f"{SCM_PAPER}, section 3",
        lambda: trig.add_noise(P(x0), P(z), T(angle)).item(),
        lambda: cos(angle) * x0 + sin(angle) * sd * z,
    ),
    Formula(
        "dx/dt in TrigFlow",
        f"{SCM_PAPER}, section 3",
        lambda: trig.velocity(P(x), P(x0), T(angle)).item(),
        lambda: (cos(angle) * x - x0) / sin(angle),
    ),
    Formula("EDM's t of TrigFlow", f"{SCM_PAPER}, section 3", lambda: trig.t_of(T(t)).item(), lambda: atan(t / sd)),
    Formula(
        "x0 of v",
        "arXiv:2202.00512, appendix D",
        lambda: FromPrediction(lambda x, t: P(a * z - b * x0), CHAIN, "v")(P(a * x0 + b * z), T(n)).item(),
        lambda: x0,
    ),
    # preconditioning
    Formula("c_skip", f"{EDM_PAPER}, Table 1", lambda: edm.c_skip(T(t)).item(), lambda: sd**2 / (t**2 + sd**2)),
    Formula("c_out", f"{EDM_PAPER}, Table 1", lambda: edm.c_out(T(t)).item(), lambda: t * sd / sqrt(sd**2 + t**2)),
    Formula("c_in", f"{EDM_PAPER}, Table 1", lambda: edm.c_in(T(t)).item(), lambda: 1 / sqrt(t**2 + sd**2)),
    Formula("c_noise", f"{EDM_PAPER}, Table 1", lambda: EDM().c_noise(T(t)).item(), lambda: log(t) / 4),
    Formula(
        "D of F",
        f"{EDM_PAPER}, Eq. 7",
        lambda: Denoiser(half_net(0.8), EDM(), sd)(P(x), T(t)).item(),
        lambda: sd**2 / (t**2 + sd**2) * x + 0.8 * t * sd / sqrt(sd**2 + t**2),
    ),
    Formula(
        "c_skip with the boundary",
        f"{CM_PAPER}, appendix C",
        lambda: cm.c_skip(T(t)).item(),
        lambda: sd**2 / ((t - e) ** 2 + sd**2),
    ),
    Formula(
        "c_out with the boundary",
        f"{CM_PAPER}, appendix C",
        lambda: cm.c_out(T(t)).item(),
        lambda: sd * (t - e) / sqrt(sd**2 + t**2),
    ),
    Formula(
        "D of F in TrigFlow",
        f"{SCM_PAPER}, section 3",
        lambda: Denoiser(half_net(-0.8), trig, sd)(P(x), T(angle)).item(),
        lambda: cos(angle) * x - sin(angle) * sd * 0.8,
    ),
    Formula("guidance", "arXiv:2207.12598, Eq. 6", guided_x0, guided_x0_paper),
    Formula(
        "embedding of w",
        "LCM, arXiv:2310.04378, its training script",
        lambda: guidance_embedding(T(w), 256)[0, 128 + 5].item(),
        lambda: cos(1000 * w * exp(-5 * log(10000) / 127)),
    ),
    # steps
    Formula(
        "Euler's step",
        f"{CM_PAPER}, after Eq. 6",
        lambda: euler_step(denoise, EDM(), P(x), T(t), T(s)).item(),
        lambda: x - (s - t) * t * (D(x, t) - x) / t**2,
    ),
    Formula(
        "Heun's step",
        f"{EDM_PAPER}, Algorithm 1",
        lambda: heun_step(denoise, EDM(), P(x), T(t), T(s)).item(),
        lambda: heun(x, t, s),
    ),
    Formula(
        "DDIM",
        "arXiv:2010.02502, Eq. 12",
        lambda: CHAIN.step(P(x), P(x0), T(n), T(m)).item(),
        lambda: c * x0 + d * (x - a * x0) / b,
    ),
    Formula(
        "a step of TrigFlow",
        f"{SCM_PAPER}, section 3",
        lambda: trig.step(P(x), P(x0), T(angle), T(earlier)).item(),
        lambda: cos(angle - earlier) * x - sin(angle - earlier) * (cos(angle) * x - x0) / sin(angle),
    ),
    Formula(
        "x0 of eps",
        "DDPM, arXiv:2006.11239, Eq. 15",
        lambda: CHAIN.eps_hat(P(x), P((x - b * z) / a), T(n)).item(),
        lambda: z,
    ),
    # the exact answer
    Formula("score", f"{EDM_PAPER}, Eq. 3", lambda: mixture.score(P(x), T(t)).item(), lambda: (D(x, t) - x) / t**2),
    Formula("f*", f"{CM_PAPER}, section 3", lambda: mixture.consistency(P(x), T(t), e).item(), lambda: f_star(x, t, e)),
    # grids and curricula
    Formula(
        "t_i",
        f"{EDM_PAPER}, Eq. 5",
        lambda: karras_grid(18)[4].item(),
        lambda: (0.002 ** (1 / 7) + 4 / 17 * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7,
    ),
    Formula(
        "N(k)",
        f"{CM_PAPER}, appendix C",
        lambda: ct_points(123, 1000, 2, 150),
        lambda: ceil(sqrt(0.123 * ((150 + 1) ** 2 - 2**2) + 2**2) - 1) + 1,
    ),
    Formula(
        "mu(k)",
        f"{CM_PAPER}, appendix C",
        lambda: ct_decay(123, 1000, 2, 150, 0.9),
        lambda: exp(2 * log(0.9) / (ceil(sqrt(0.123 * (151**2 - 4) + 4) - 1) + 1)),
    ),
    Formula(
        "p(sigma_i)",
        f"{ICT_PAPER}, section 3.5",
        lambda: (lambda m: (m[3] / m[2]).item())(LogNormalIndex().mass(karras_grid(11))),
        lambda: (lambda q: (q[4] - q[3]) / (q[3] - q[2]))(
            [erf((log(v) + 1.1) / (sqrt(2) * 2.0)) for v in karras_grid(11).tolist()]
        ),
    ),
    Formula(
        "N(k) of iCT",
        f"{ICT_PAPER}, Table 1",
        lambda: doubling_points(123, 1000),
        lambda: min(10 * 2 ** (123 // (1000 // 8)), 1280) + 1,
    ),
    Formula("lambda of iCT", f"{ICT_PAPER}, section 3.1", lambda: inverse_gap(T(t), T(s)).item(), lambda: 1 / (t - s)),
    Formula(
        "r(t) of ECT",
        "ECT, arXiv:2406.14548, section 3.3",
        lambda: ect_gap(T(t), 3).item(),
        lambda: t * (1 - (1 + 8 / (1 + exp(t))) / 2**4),
    ),
    # distances and losses
    Formula("l1", f"{CM_PAPER}, section 4", lambda: l1(P(x), P(x0)).item(), lambda: abs(x - x0)),
    Formula("l2", f"{CM_PAPER}, section 4", lambda: l2(P(x), P(x0)).item(), lambda: (x - x0) ** 2),
    Formula(
        "pseudo-Huber",
        f"{ICT_PAPER}, section 3.3",
        lambda: pseudo_huber(0.7)(P(x), P(x0)).item(),
        lambda: sqrt((x - x0) ** 2 + 0.7**2) - 0.7,
    ),
    Formula(
        "lambda(sigma) of DSM",
        f"{EDM_PAPER}, Eqs. 2 and 8",
        dsm_loss,
        lambda: (
            (t**2 + sd**2)
            / (t * sd) ** 2
            * (sd**2 / (t**2 + sd**2) * (x0 + t * z) + 0.8 * t * sd / sqrt(sd**2 + t**2) - x0) ** 2
        ),
    ),
    Formula(
        "L_CD",
        f"{CM_PAPER}, Eq. 7",
        lambda: loss(CD(denoise, grid=karras_grid(18))),
        lambda: (f_star(x0 + t * z, t, e) - f_star(heun(x0 + t * z, t, s), s, e)) ** 2,
    ),
    Formula(
        "L_CT",
        f"{CM_PAPER}, Eq. 10",
        lambda: loss(CT()),
        lambda: (f_star(x0 + t * z, t, e) - f_star(x0 + s * z, s, e)) ** 2,
    ),
    Formula("theta^-", f"{CM_PAPER}, Eq. 8", averaged, lambda: 0.95 * x + 0.05 * x0),
    # sampling
    Formula("two steps", f"{CM_PAPER}, Algorithm 1", two_steps, algorithm_1),
    Formula("last angle", f"{SCM_PAPER}, section 3", lambda: tan(trig.t_max) * sd, lambda: 80.0),
]


@pytest.mark.parametrize("formula", CONCORDANCE, ids=lambda formula: f"{formula.name} | {formula.source}")
def test_a_formula_is_its_papers(formula):
    # float64 both times: some ten roundings of numbers of order 1, a few more where they are divided by 1e-2; the mixture's
    # flow is integrated to 1e-8
    tolerance = 1e-7 if formula.name == "f*" else 1e-11
    assert formula.ours() == pytest.approx(formula.paper(), rel=tolerance, abs=tolerance)


def test_every_formula_has_a_name_and_a_source():
    names = [formula.name for formula in CONCORDANCE]
    assert all(names) and all("arXiv:" in formula.source for formula in CONCORDANCE)
    assert len(set(zip(names, (f.source for f in CONCORDANCE), strict=True))) == len(names)
