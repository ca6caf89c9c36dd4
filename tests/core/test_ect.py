"""ECT (arXiv:2406.14548): its mapping, its stages, and the clean target at s = 0."""

import math

import pytest
import torch
from exact import refused

from minicm import ECT, MLP, Denoiser, pseudo_huber
from minicm.objectives.base import Draw
from minicm.times import ect_gap

TIMES = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 80.0)
SHARES = {  # s/t by stage: facts, section 4
    0: (0, 0, 0, 0, 0.023, 0.473, 0.5),
    1: (0, 0, 0, 0.212, 0.512, 0.737, 0.75),
    2: (0.378, 0.400, 0.498, 0.606, 0.756, 0.868, 0.875),
    4: (0.844, 0.850, 0.874, 0.901, 0.939, 0.967, 0.969),
    7: (0.980, 0.981, 0.984, 0.988, 0.992, 0.996, 0.996),
}


def small_f(seed: int = 0) -> Denoiser:
    torch.manual_seed(seed)
    net = MLP(2, 16, 2)
    torch.nn.init.normal_(net.out.weight)
    return Denoiser(net, t_min=0.002).double()


def batch(objective: ECT, k: int, K: int, n: int = 512):
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return x0, objective.draw(x0, None, k, K, generator)


@pytest.mark.parametrize("stage", SHARES)
def test_the_mapping_has_the_tabulated_values(stage):
    t = torch.tensor(TIMES, dtype=torch.float64)
    share = ect_gap(t, stage) / t
    expected = torch.tensor(SHARES[stage], dtype=torch.float64)
    torch.testing.assert_close(share, expected, rtol=0, atol=6e-4)  # three digits, a few of them rounded twice


def test_stage_0_is_diffusion_training_below_ln_7():
    below, above = math.log(7) - 1e-9, math.log(7) + 1e-6  # 1 + 8 sigmoid(-t) = 2 where e^t = 7
    s = ect_gap(torch.tensor([0.002, 1.0, below, above], dtype=torch.float64), 0)
    assert (s[:3] == 0).all() and s[3] > 0
    assert ect_gap(s.float(), 3).dtype == torch.float32
    draw = batch(ECT(), 0, 8)[1]
    assert torch.equal(draw.s == 0, draw.t <= math.log(7))


def test_stages_are_equal_parts_of_the_training():
    objective = ECT(stages=8)
    stages = [objective.stage(k, 200_000) for k in range(0, 200_001, 12_500)]
    assert stages == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7]  # every 25,000 steps, as in the code
    for k, K in ((0, 200), (60, 200), (199, 200)):
        draw = batch(objective, k, K)[1]
        assert torch.equal(draw.s, ect_gap(draw.t, objective.stage(k, K)))
    assert objective.stage(0, 3) == 0 and objective.stage(2, 3) == 5  # fewer steps than stages


@pytest.mark.parametrize("train", [True, False])
def test_where_s_is_0_the_target_is_the_clean_data(train):
    objective, f = ECT(distance=pseudo_huber(0.1)), small_f().train(train)
    x0, draw = batch(objective, 0, 8)
    loss = objective.loss(f, f, x0, None, draw, 0, 8)
    clean = draw.s == 0
    assert 0.8 < clean.double().mean() < 1  # P(t < ln 7) = .81, and .07 above its spread
    denoising = pseudo_huber(0.1)(f(x0 + draw.t[:, None] * draw.eps, draw.t), x0) / draw.t
    torch.testing.assert_close(loss[clean], denoising[clean])  # float64: rounding
    assert not torch.isclose(loss[~clean], denoising[~clean]).any()


def test_below_t_min_the_target_is_the_point_itself_and_nothing_is_nan():
    t, s = torch.tensor([0.002, 0.003]).double(), torch.tensor([0.0, 0.0015]).double()
    draw = Draw(t=t, s=s, eps=torch.ones(2, 2).double(), seed=torch.zeros(2).long())
    x0, f = torch.full((2, 2), 0.3).double(), small_f()
    loss = ECT().loss(f, f, x0, None, draw, 0, 8)
    x_t, x_s = x0 + t[:, None], x0 + s[:, None]
    expected = torch.linalg.vector_norm(f(x_t, t) - x_s, dim=1) / (t - s)
    torch.testing.assert_close(loss, expected)  # float64: rounding
    loss.sum().backward()
    assert all(p.grad.isfinite().all() for p in f.parameters())


def test_the_root_of_a_zero_distance_has_a_finite_slope():
    f = Denoiser(MLP(2, 8, 1), t_min=0.002)  # f(x, t_min) = x: at s = t = t_min the two sides are equal
    t = torch.full((4,), 0.002, dtype=torch.float64)
    draw = Draw(t=t, s=t, eps=torch.randn(4, 2), seed=torch.zeros(4).long())
    loss = ECT(weight=lambda t, s: torch.ones_like(t)).loss(f, f, torch.randn(4, 2), None, draw, 0, 8)
    loss.sum().backward()
    assert (loss == 0).all() and all(p.grad.isfinite().all() for p in f.parameters())


def test_bad_options_are_refused():
    refused("stage", lambda: ECT(stages=0))
    refused("q > 1", lambda: ECT(q=1.0))
