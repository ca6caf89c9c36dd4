"""The concordance: every formula of the core beside the equation of the paper that it comes from.

One row a formula: its name, its source, our value, and the paper's formula written out once more in plain Python from
the paper's letters. A later method adds its rows to the list. Published numbers, as far as the papers print them, are
in the tests of the modules.
"""

from math import atan, ceil, cos, erf, exp, log, sin, sqrt, tan

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
CM_C = f"{CM_PAPER}, appendix C"
ICT_PAPER = "iCT, arXiv:2310.14189"
SCM_3 = "sCM, arXiv:2410.11081, section 3"

# One point and one of each constant; none is 0, 1 or equal to another, so that no two formulas agree by luck.
x, x0, z, t, s, sd, e, w = 1.7, 0.4, -0.9, 2.3, 1.1, 0.6, 0.05, 3.5
CHAIN, n, m = VP.linear(), 300, 120  # VP's t and s; below, its alpha and sigma there
(a, b), (c, d) = ((sqrt(v), sqrt(1 - v)) for v in (CHAIN.alpha_bar[n], CHAIN.alpha_bar[m]))
r, q = 0.9, 0.4  # TrigFlow's t and s
MU, S = 0.3, 0.45  # of the single Gaussian
skip, out = sd**2 / (t**2 + sd**2), t * sd / sqrt(sd**2 + t**2)  # c_skip and c_out, EDM, Table 1


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
    eps_c, eps_null = ((x - skip * x - out * F) / t for F in (z, x0))
    return x - t * ((1 + w) * eps_c - w * eps_null)


X, X0, Z = P(x), P(x0), P(z)
edm, cm = Denoiser(nn.Identity(), EDM(), sd), Denoiser(nn.Identity(), EDM(), sd, e)
trig = TrigFlow(sd, 80.0)
mixture = GaussianMixture([[MU]], [[[S**2]]], [1.0])


CONCORDANCE = [  # name, source, our value, the paper's
    # the clocks
    ("p(x; sigma)", f"{EDM_PAPER}, section 2", EDM().add_noise(X0, Z, T(t)), x0 + t * z),
    ("dx/dt in EDM", f"{EDM_PAPER}, Eqs. 1 and 3", EDM().velocity(X, X0, T(t)), (x - x0) / t),
    ("q(x_t | x_0)", "DDPM, arXiv:2006.11239, Eq. 4", CHAIN.add_noise(X0, Z, T(n)), a * x0 + b * z),
    ("x_t of TrigFlow", SCM_3, trig.add_noise(X0, Z, T(r)), cos(r) * x0 + sin(r) * sd * z),
    ("dx/dt in TrigFlow", SCM_3, trig.velocity(X, X0, T(r)), (cos(r) * x - x0) / sin(r)),
    ("EDM's t of TrigFlow", SCM_3, trig.t_of(T(t)), atan(t / sd)),
    (
        "x0 of v",
        "arXiv:2202.00512, appendix D",
        FromPrediction(lambda x, t: P(a * z - b * x0), CHAIN, "v")(P(a * x0 + b * z), T(n)),
        x0,
    ),
    # preconditioning
    ("c_skip", f"{EDM_PAPER}, Table 1", edm.c_skip(T(t)), skip),
    ("c_out", f"{EDM_PAPER}, Table 1", edm.c_out(T(t)), out),
    ("c_in", f"{EDM_PAPER}, Table 1", edm.c_in(T(t)), 1 / sqrt(t**2 + sd**2)),
    ("c_noise", f"{EDM_PAPER}, Table 1", EDM().c_noise(T(t)), log(t) / 4),
    ("D of F", f"{EDM_PAPER}, Eq. 7", Denoiser(half_net(0.8), EDM(), sd)(X, T(t)), skip * x + out * 0.8),
    ("c_skip with the boundary", CM_C, cm.c_skip(T(t)), sd**2 / ((t - e) ** 2 + sd**2)),
    ("c_out with the boundary", CM_C, cm.c_out(T(t)), sd * (t - e) / sqrt(sd**2 + t**2)),
    ("D of F in TrigFlow", SCM_3, Denoiser(half_net(-0.8), trig, sd)(X, T(r)), cos(r) * x - sin(r) * sd * 0.8),
    ("guidance", "arXiv:2207.12598, Eq. 6", guided_x0(), guided_x0_paper()),
    (
        "embedding of w",
        "LCM, arXiv:2310.04378, its training script",
        guidance_embedding(T(w), 256)[0, 128 + 5],
        cos(1000 * w * exp(-5 * log(10000) / 127)),
    ),
    # steps
    (
        "Euler's step",
        f"{CM_PAPER}, after Eq. 6",
        euler_step(denoise, EDM(), X, T(t), T(s)),
        x - (s - t) * t * (D(x, t) - x) / t**2,
    ),
    ("Heun's step", f"{EDM_PAPER}, Algorithm 1", heun_step(denoise, EDM(), X, T(t), T(s)), heun(x, t, s)),
    ("DDIM", "arXiv:2010.02502, Eq. 12", CHAIN.step(X, X0, T(n), T(m)), c * x0 + d * (x - a * x0) / b),
    ("TrigFlow's step", SCM_3, trig.step(X, X0, T(r), T(q)), cos(r - q) * x - sin(r - q) * (cos(r) * x - x0) / sin(r)),
    ("x0 of eps", "DDPM, arXiv:2006.11239, Eq. 15", CHAIN.eps_hat(X, P((x - b * z) / a), T(n)), z),
    # the exact answer
    ("score", f"{EDM_PAPER}, Eq. 3", mixture.score(X, T(t)), (D(x, t) - x) / t**2),
    ("f*", f"{CM_PAPER}, section 3", mixture.consistency(X, T(t), e), f_star(x, t, e)),
    # grids and curricula
    (
        "t_i",
        f"{EDM_PAPER}, Eq. 5",
        karras_grid(18)[4],
        (0.002 ** (1 / 7) + 4 / 17 * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7,
    ),
    ("N(k)", CM_C, ct_points(123, 1000, 2, 150), ceil(sqrt(0.123 * ((150 + 1) ** 2 - 2**2) + 2**2) - 1) + 1),
    (
        "mu(k)",
        CM_C,
        ct_decay(123, 1000, 2, 150, 0.9),
        exp(2 * log(0.9) / (ceil(sqrt(0.123 * (151**2 - 4) + 4) - 1) + 1)),
    ),
    (
        "p(sigma_i)",
        f"{ICT_PAPER}, section 3.5",
        (lambda m: (m[3] / m[2]).item())(LogNormalIndex().mass(karras_grid(11))),
        (lambda q: (q[4] - q[3]) / (q[3] - q[2]))(
            [erf((log(v) + 1.1) / (sqrt(2) * 2.0)) for v in karras_grid(11).tolist()]
        ),
    ),
    ("N(k) of iCT", f"{ICT_PAPER}, Table 1", doubling_points(123, 1000), min(10 * 2 ** (123 // (1000 // 8)), 1280) + 1),
    ("lambda of iCT", f"{ICT_PAPER}, section 3.1", inverse_gap(T(t), T(s)), 1 / (t - s)),
    ("r(t) of ECT", "ECT, arXiv:2406.14548, section 3.3", ect_gap(T(t), 3), t * (1 - (1 + 8 / (1 + exp(t))) / 2**4)),
    # distances and losses
    ("l1", f"{CM_PAPER}, section 4", l1(X, X0), abs(x - x0)),
    ("l2", f"{CM_PAPER}, section 4", l2(X, X0), (x - x0) ** 2),
    ("pseudo-Huber", f"{ICT_PAPER}, section 3.3", pseudo_huber(0.7)(X, X0), sqrt((x - x0) ** 2 + 0.7**2) - 0.7),
    (
        "lambda(sigma) of DSM",
        f"{EDM_PAPER}, Eqs. 2 and 8",
        dsm_loss(),
        (t**2 + sd**2) / (t * sd) ** 2 * (skip * (x0 + t * z) + out * 0.8 - x0) ** 2,
    ),
    (
        "L_CD",
        f"{CM_PAPER}, Eq. 7",
        loss(CD(denoise, grid=karras_grid(18))),
        (f_star(x0 + t * z, t, e) - f_star(heun(x0 + t * z, t, s), s, e)) ** 2,
    ),
    ("L_CT", f"{CM_PAPER}, Eq. 10", loss(CT()), (f_star(x0 + t * z, t, e) - f_star(x0 + s * z, s, e)) ** 2),
    ("theta^-", f"{CM_PAPER}, Eq. 8", averaged(), 0.95 * x + 0.05 * x0),
    # sampling
    ("two steps", f"{CM_PAPER}, Algorithm 1", two_steps(), algorithm_1()),
    ("last angle", SCM_3, tan(trig.t_max) * sd, 80.0),
]


@pytest.mark.parametrize("name, source, ours, paper", CONCORDANCE, ids=[f"{row[0]} | {row[1]}" for row in CONCORDANCE])
def test_a_formula_is_its_papers(name, source, ours, paper):
    # float64 both times: some ten roundings of numbers of order 1, a few more where they are divided by 1e-2; the mixture's
    # flow is integrated to 1e-8
    tolerance = 1e-7 if name == "f*" else 1e-11
    assert float(ours) == pytest.approx(paper, rel=tolerance, abs=tolerance)


def test_every_formula_has_a_name_and_a_source():
    sources = [(name, source) for name, source, *_ in CONCORDANCE]
    assert all(name and "arXiv:" in source for name, source in sources) and len(set(sources)) == len(sources)
