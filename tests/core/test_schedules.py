"""The three clocks: their formulas, that t = 0 is clean, steps that compose, inverses, and refusals."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from exact import normal, refused, seeded, times

from minicm.schedules import EDM, VP, TrigFlow, expand, readable

SHAPES = [(64, 2), (8, 3, 8, 8)]  # in the second the batch is as large as an image is wide
# float64 throughout: results of order up to 80 that differ by some tens of roundings of 2e-16, divided by sigma >= 1e-3
CLOSE = {"rtol": 1e-11, "atol": 1e-11}


@pytest.fixture(params=SHAPES, ids=str)
def scene(request, clock):
    """x0, eps, t and an earlier s for one clock and shape."""
    n = request.param[0]
    a, b = times(clock, n, 0.02, seed=1), times(clock, n, 0.02, seed=2)
    t, s = torch.maximum(a, b), torch.minimum(a, b)
    return normal(*request.param, seed=3), normal(*request.param, seed=4), t, s


def test_edm_is_its_own_noise_level():
    t = torch.tensor([0.0, 0.002, 1.0, 80.0], dtype=torch.float64)
    assert torch.equal(EDM().alpha(t), torch.ones(4, dtype=torch.float64))
    assert torch.equal(EDM().sigma(t), t)
    # c_noise = ln(t)/4, computed once more by math.log: two roundings
    expected = [math.log(v) / 4 for v in t[1:].tolist()]
    assert EDM().c_noise(t)[1:].tolist() == pytest.approx(expected, rel=1e-15)
    assert EDM().t_max == 80


def test_scaled_linear_is_stable_diffusions_chain():
    alpha_bar = torch.tensor(VP.scaled_linear().alpha_bar)
    # facts, section 5.2, where i counts from 0: our t = i + 1. Half a unit of the last printed digit.
    for i, value in ((0, 0.99915), (19, 0.98224), (999, 0.00466)):
        assert alpha_bar[i + 1].item() == pytest.approx(value, abs=5e-6)
    assert alpha_bar[0] == 1 and len(alpha_bar) == 1001


def test_linear_is_ddpms_chain():
    alpha_bar = 1.0
    for i in range(1000):
        alpha_bar *= 1 - (1e-4 + i / 999 * (0.02 - 1e-4))
    # the same 1000 factors in another order of operations: 1000 roundings of 1e-16
    assert VP.linear().alpha_bar[-1] == pytest.approx(alpha_bar, rel=1e-12)


def test_vp_reads_its_table():
    clock = VP((1.0, 0.64, 0.36))
    t = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    # roots of decimal fractions: a rounding of each
    assert clock.alpha(t).tolist() == pytest.approx([1, 0.8, 0.6], rel=1e-15)
    assert clock.sigma(t).tolist() == pytest.approx([0, 0.6, 0.8], rel=1e-15)
    assert clock.c_noise(t).tolist() == [0, 0.5, 1]
    assert clock.t_max == 2 and clock.prior_std == 1


def test_trigflow_is_an_angle():
    t = torch.tensor([0.0, 0.3, 1.1], dtype=torch.float64)
    clock = TrigFlow(0.5, 80.0)
    assert clock.alpha(t).tolist() == pytest.approx([math.cos(v) for v in t.tolist()], rel=1e-15)
    assert clock.sigma(t).tolist() == pytest.approx([0.5 * math.sin(v) for v in t.tolist()], rel=1e-15)
    assert clock.c_noise(t) is t
    # sCM samples from arctan(80/.5) = 1.56455, and its two-step time 1.1 is sigma = .982 (facts, section 9; last digit)
    assert clock.t_max == pytest.approx(1.56455, abs=5e-6)
    assert (clock.sigma(t) / clock.alpha(t))[2].item() == pytest.approx(0.982, abs=5e-4)


def test_time_zero_is_clean_and_noise_only_grows(clock):
    zero = torch.zeros(1, dtype=torch.float64)
    assert clock.alpha(zero) == 1 and clock.sigma(zero) == 0  # exactly
    t = torch.linspace(0, clock.t_max, 101, dtype=torch.float64)
    t = t.round() if isinstance(clock, VP) else t
    level = clock.sigma(t) / clock.alpha(t)
    assert (level.diff() > 0).all()
    told = clock.c_noise(t)
    assert told.isfinite().all() and (told.diff() > 0).all()


def test_dtypes_are_kept(clock):
    for dtype in (torch.float32, torch.float64):
        t = times(clock, 5).to(dtype)
        for of_t in (clock.alpha, clock.sigma, clock.c_noise):
            assert of_t(t).dtype == dtype and of_t(t).shape == (5,)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = normal(4, 3, dtype=torch.float64).to(dtype)
        t, s = times(clock, 4, 0.5, seed=1), times(clock, 4, 0.0, seed=2) / 2
        s = s.round() if isinstance(clock, VP) else s
        assert clock.add_noise(x, x, t).dtype == dtype
        assert clock.eps_hat(x, x, t).dtype == dtype
        assert clock.step(x, x, t, s).dtype == dtype


def test_t_of_is_the_inverse(clock):
    t = times(clock, 50)
    back = clock.t_of(clock.sigma(t) / clock.alpha(t))
    torch.testing.assert_close(back, t, **CLOSE)


def test_vp_rounds_to_the_nearest_angle():
    clock = VP.scaled_linear()
    level = torch.linspace(0, 20, 500, dtype=torch.float64)
    every = torch.arange(1001, dtype=torch.float64)
    angle = (clock.sigma(every) / clock.alpha(every)).atan()
    nearest = (level.atan()[:, None] - angle[None, :]).abs().argmin(1)
    assert torch.equal(clock.t_of(level), nearest.double())
    assert clock.floor(torch.tensor([299.9999999999, 300.4])).tolist() == [300, 300]


def test_noise_is_found_again(clock, scene):
    x0, eps, t, _ = scene
    x = clock.add_noise(x0, eps, t)
    torch.testing.assert_close(clock.eps_hat(x, x0, t), eps, **CLOSE)
    # and the definition, sample by sample, so that no t can have been broadcast along another axis
    for i in range(len(x)):
        one = clock.alpha(t)[i] * x0[i] + clock.sigma(t)[i] * eps[i]
        torch.testing.assert_close(x[i], one, **CLOSE)


def test_a_step_with_the_true_x0_reaches_the_same_noise_at_s(clock, scene):
    x0, eps, t, s = scene
    x_s = clock.step(clock.add_noise(x0, eps, t), x0, t, s)
    torch.testing.assert_close(x_s, clock.add_noise(x0, eps, s), **CLOSE)


def test_steps_compose_and_a_step_nowhere_stays(clock, scene):
    x, x0_hat, t, s = scene
    middle = clock.t_of((clock.sigma(t) / clock.alpha(t) + clock.sigma(s) / clock.alpha(s)) / 2)
    twice = clock.step(clock.step(x, x0_hat, t, middle), x0_hat, middle, s)
    torch.testing.assert_close(twice, clock.step(x, x0_hat, t, s), **CLOSE)
    torch.testing.assert_close(clock.step(x, x0_hat, t, t), x, **CLOSE)
    assert torch.equal(clock.step(x, x0_hat, t, torch.zeros_like(t)), x0_hat)  # exactly


def test_a_step_is_eulers_in_edm(scene):
    x, x0_hat, t, s = scene
    t, s = t.clamp(max=80), s.clamp(max=80)
    expected = x + expand((s - t) / t, x) * (x - x0_hat)  # CM, Eq. 6 with Phi = -t score
    torch.testing.assert_close(EDM().step(x, x0_hat, t, s), expected, **CLOSE)


def test_a_step_is_ddim_in_vp():
    clock, x, x0_hat = VP.scaled_linear(), normal(64, 2, seed=1), normal(64, 2, seed=2)
    t, s = times(clock, 64, 0.6, seed=1), (times(clock, 64, seed=2) / 2).round().clamp(min=1)
    a_t, b_t, a_s, b_s = (expand(v, x) for v in (clock.alpha(t), clock.sigma(t), clock.alpha(s), clock.sigma(s)))
    eps = (x - a_t * x0_hat) / b_t
    lcm = a_s / a_t * x - b_s * (b_t * a_s / (a_t * b_s) - 1) * eps  # z + Psi_DDIM of LCM, section 4.3
    h = (a_s / b_s).log() - (a_t / b_t).log()
    tcd = b_s / b_t * x - a_s * ((-h).exp() - 1) * x0_hat  # TCF(1) of TCD
    torch.testing.assert_close(clock.step(x, x0_hat, t, s), lcm, **CLOSE)
    torch.testing.assert_close(clock.step(x, x0_hat, t, s), tcd, **CLOSE)


def test_a_step_is_a_rotation_in_trigflow():
    clock, x, x0_hat = TrigFlow(), normal(64, 2, seed=1), normal(64, 2, seed=2)
    t, s = times(clock, 64, 0.5, seed=1), times(clock, 64, seed=2) / 2
    slope = clock.velocity(x, x0_hat, t)
    expected = expand((t - s).cos(), x) * x - expand((t - s).sin(), x) * slope  # sCM, section 3
    torch.testing.assert_close(clock.step(x, x0_hat, t, s), expected, **CLOSE)


@pytest.mark.parametrize("clock", [EDM(), TrigFlow(), TrigFlow(1.3, 30.0)], ids=str)
def test_the_velocity_is_the_derivative_of_a_step(clock):
    x, x0_hat, t = normal(64, 2, seed=1), normal(64, 2, seed=2), times(clock, 64, 0.1)
    h = torch.full_like(t, 1e-5) * t
    there, back = clock.step(x, x0_hat, t, t + h), clock.step(x, x0_hat, t, t - h)
    difference = (there - back) / expand(2 * h, x)
    # central difference: 1e-10 of curvature, and 1e-16/1e-5/t of rounding, times values up to 10
    torch.testing.assert_close(clock.velocity(x, x0_hat, t), difference, rtol=1e-8, atol=1e-8)


def test_vp_whose_times_are_whole_has_no_velocity():
    with pytest.raises(NotImplementedError, match="VP's times are whole numbers: there is no dx/dt"):
        VP.linear().velocity(normal(4, 2), normal(4, 2), torch.ones(4))


def test_the_prior_has_the_spread_that_sampling_starts_with(clock):
    n = 20_000
    x_T = clock.prior((n, 2), seeded(), dtype=torch.float64)
    assert x_T.shape == (n, 2) and x_T.dtype == torch.float64
    spread = {EDM: clock.t_max, VP: 1.0}.get(type(clock)) or clock.sigma_data
    # 2n numbers: the standard error of a standard deviation is 1/sqrt(4n) of it; 5 of them, false alarms 6e-7
    assert x_T.std().item() == pytest.approx(spread, rel=5 / math.sqrt(4 * n))
    assert abs(x_T.mean().item()) < 5 * spread / math.sqrt(2 * n)
    assert torch.equal(x_T, clock.prior((n, 2), seeded(), dtype=torch.float64))
    assert clock.prior((2, 3, 4, 4), seeded()).dtype == torch.float32


def test_clocks_are_values():
    assert EDM() == EDM(80.0) != EDM(81.0)
    assert VP.linear() == VP.linear() != VP.scaled_linear()
    assert TrigFlow() != TrigFlow(1.0)
    assert len({EDM(), EDM(), VP.linear(), VP.linear(), TrigFlow()}) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        EDM().t_max = 1.0


@pytest.mark.parametrize(
    ("t", "words"),
    [
        (torch.tensor(1.0), r"t has shape \(\) .*t.shape == \(4,\)"),
        (torch.ones(4, 1), r"t has shape \(4, 1\)"),
        (torch.ones(3), r"t has shape \(3,\)"),
        (torch.tensor([1.0, 2.0, 3.0, 1e9]), r"t = 1e\+09 is outside \[0, "),
        (torch.tensor([1.0, -0.1, 1.0, 1.0]), r"t = -0.1 is outside"),
        (torch.tensor([1.0, math.nan, 1.0, 1.0]), "t = nan is outside"),
    ],
)
def test_bad_times_are_refused_in_one_line(clock, t, words):
    refused(words, lambda: clock.check(t, normal(4, 2)))


def test_the_last_time_is_within_range_even_in_float32(clock):
    clock.check(torch.tensor([clock.t_max], dtype=torch.float32))
    clock.check(torch.zeros(1))
    clock.check(torch.zeros(0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VP((0.9, 0.5)), "begin with 1.0"),
        (lambda: VP((1.0,)), "begin with 1.0"),
        (lambda: VP((1.0, 0.5, 0.5)), "fall strictly"),
        (lambda: VP((1.0, 0.5, 0.0)), "stay above 0"),
        (lambda: VP((1.0, math.nan)), "fall strictly"),
        (lambda: VP.linear().check(torch.tensor([0.5])), "t = 0.5 must be a whole number"),
        (lambda: EDM().eps_hat(normal(2, 2), normal(2, 2), torch.tensor([1.0, 0.0])), "got t = 0"),
        (lambda: EDM().add_noise(normal(2, 2), normal(2, 3), torch.ones(2)), "one shape"),
    ],
)
def test_other_bad_input_is_refused_in_one_line(make, words):
    refused(words, make)


def test_nothing_is_looked_at_on_an_accelerator():
    t = SimpleNamespace(device=torch.device("cuda"), shape=(3,))  # it has no values: a look would be an error
    EDM().check(t)
    assert not readable(t)
