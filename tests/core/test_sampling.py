"""Multistep sampling: Algorithm 1 and its gamma knob, what is drawn and evaluated, EDM's sampler, outside numbers."""

import math

import pytest
import torch
from contracts import randomise
from exact import Gaussian, normal, refused, seeded
from torch import nn

from minicm import EDM, MLP, VP, Denoiser, TrigFlow, euler_step, heun_step, karras_grid, solve
from minicm.sampling import Counted, edm_sample, sample

# float64: numbers of order 80 that differ by some hundred roundings of 2e-16
CLOSE = {"rtol": 1e-11, "atol": 1e-11}
N = 20_000  # samples of a moment; bounds are 5 standard errors: false alarms 6e-7 each


def decreasing(clock, *shares: float) -> list[float]:
    times = [share * clock.t_max for share in shares]
    return [float(round(t)) for t in times] if isinstance(clock, VP) else times


class Recorded:
    """A consistency function that keeps the points, times and conditioning that it is called with."""

    def __init__(self, f, schedule, t_min: float = 0.0, second_time: bool = False) -> None:
        self.f, self.schedule, self.t_min, self.second_time = f, schedule, t_min, second_time
        self.x, self.t, self.cond = [], [], []

    def __call__(self, x, t, **cond):
        self.x.append(x), self.t.append(t), self.cond.append(cond)
        return self.f(x, t)


def network(clock=EDM(), t_min: float = 0.0, **options) -> Denoiser:
    return Denoiser(randomise(MLP(2, 16, 3, **options), 1), clock, t_min=t_min).double()


# ----------------------------------------------------------------------------------------- Algorithm 1
@pytest.mark.parametrize("times", [[80.0], [80.0, 5.0, 0.7, 0.002]], ids=["one step", "four"])
def test_it_is_cms_algorithm_1_and_draws_no_more(times):
    f, x_T, generator, ours = network(t_min=0.002), 80 * normal(5, 2), seeded(3), seeded(3)
    x = f(x_T, torch.full((5,), 80.0, dtype=torch.float64))
    for tau in times[1:]:
        z = torch.randn(5, 2, generator=generator, dtype=torch.float64)
        x = f(x + math.sqrt(tau**2 - 0.002**2) * z, torch.full((5,), tau, dtype=torch.float64))
    torch.testing.assert_close(sample(f, x_T, times, generator=ours), x, **CLOSE)
    assert torch.equal(generator.get_state(), ours.get_state())


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_there_is_no_noise_after_the_last_time(clock, gamma):
    generator, other = seeded(), seeded()
    sample(network(clock), normal(5, 2), decreasing(clock, 1, 0.5, 0.2), gamma, generator=generator)
    for _ in range(2):  # three times: two draws
        torch.randn(5, 2, generator=other, dtype=torch.float64)
    assert torch.equal(generator.get_state(), other.get_state())


def test_with_the_exact_f_every_step_count_draws_from_the_data():
    # f* maps N(0, t^2 + std^2) to N(0, t_min^2 + std^2), and Algorithm 1 adds sqrt(tau^2 - t_min^2) to that
    exact, t_min = Gaussian(0.2, 0.5), 0.002
    f = Recorded(lambda x, t: exact.consistency(x, t, t_min), EDM(), t_min)
    x_T = 0.2 + math.sqrt(80**2 + 0.5**2) * normal(N, 1)
    for times in ([80.0], [80.0, 0.8], [80.0, 24.0, 5.0, 0.8, 0.1]):
        x0 = sample(f, x_T, times, generator=seeded(1))
        std = math.sqrt(0.5**2 + t_min**2)
        assert x0.mean().item() == pytest.approx(0.2, abs=5 * std / math.sqrt(N))
        assert x0.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * N))
    for x, t in zip(f.x[-4:], f.t[-4:], strict=True):  # and on the way, the noised data
        std = math.sqrt(t[0].item() ** 2 + 0.5**2)
        assert x.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * N))


@pytest.mark.parametrize("gamma", [0.0, 0.2, 0.5, 1.0])
def test_every_gamma_keeps_the_right_amount_of_noise(clock, gamma):
    # data in one point m: f* = m everywhere, trajectories are straight, and x at s is N(alpha m, sigma^2) for every gamma
    m = 0.3
    f = Recorded(lambda x, t: torch.full_like(x, m), clock)
    times = decreasing(clock, 1, 0.6, 0.5, 0.1)
    eps, T = normal(N, 1), torch.full((N,), times[0], dtype=torch.float64)
    x_T = clock.add_noise(torch.full((N, 1), m, dtype=torch.float64), eps, T)
    sample(f, x_T, times, gamma, generator=seeded(1))
    for x, t in zip(f.x, f.t, strict=True):
        a, b = clock.alpha(t[:1]).item(), clock.sigma(t[:1]).item()
        assert x.mean().item() == pytest.approx(a * m, abs=5 * b / math.sqrt(N))
        assert x.std().item() == pytest.approx(b, rel=5 / math.sqrt(2 * N))


def test_gamma_one_forgets_the_old_noise_and_gamma_zero_keeps_it(clock):
    f, times = Recorded(lambda x, t: 0 * x, clock), decreasing(clock, 1, 0.5)
    eps = normal(N, 1)
    x_T = clock.sigma(torch.tensor([times[0]], dtype=torch.float64)) * eps
    kept = {}
    for gamma in (0.0, 0.5, 1.0):
        sample(f, x_T, times, gamma, generator=seeded(1))
        kept[gamma] = torch.corrcoef(torch.stack([f.x[-1][:, 0], eps[:, 0]]))[0, 1].item()
    assert kept[0.0] == pytest.approx(1, abs=1e-12)  # a multiple of it, to rounding
    assert abs(kept[1.0]) < 5 / math.sqrt(N)
    assert 0.1 < kept[0.5] < 0.9


# ------------------------------------------------------------------------------------- the gamma knob
def test_gamma_zero_is_the_euler_solver(clock):
    # identity 4 of the design
    f, x_T, times = network(clock), normal(5, 2), decreasing(clock, 1, 0.7, 0.4, 0.1)
    generator = seeded()
    out = sample(f, x_T, times, gamma=0, generator=generator)
    torch.testing.assert_close(out, solve(f, clock, x_T, [*times, 0], euler_step), **CLOSE)
    assert torch.equal(generator.get_state(), seeded().get_state()), "a deterministic sampler draws noise"


@pytest.mark.parametrize("gamma", [0.2, 0.3, 0.5])
def test_between_it_is_tcds_strategic_stochastic_sampling(gamma):
    # facts, section 7: s' = (1 - gamma) s, then x_s = alpha_s/alpha_s' x_s' + sqrt(1 - alpha_s^2/alpha_s'^2) n
    clock, x = VP.scaled_linear(), normal(5, 2)
    f, times, generator = network(clock), [1000.0, 700.0, 333.0], seeded(1)
    for t, s in zip(times, [*times[1:], None], strict=True):
        t = torch.full((5,), t, dtype=torch.float64)
        x0_hat = f(x, t)
        if s is None:
            break
        u = torch.tensor([math.floor((1 - gamma) * s + 1e-9)], dtype=torch.float64)
        s = torch.tensor([s], dtype=torch.float64)
        eps_hat = (x - clock.alpha(t)[:, None] * x0_hat) / clock.sigma(t)[:, None]
        x = clock.alpha(u) * x0_hat + clock.sigma(u) * eps_hat
        ratio = clock.alpha(s) / clock.alpha(u)
        x = ratio * x + (1 - ratio**2).sqrt() * torch.randn(5, 2, generator=generator, dtype=torch.float64)
    out = sample(f, normal(5, 2), times, gamma, generator=seeded(1))
    torch.testing.assert_close(out, x0_hat, **CLOSE)


@pytest.mark.parametrize(
    ("gamma", "goals"), [(0.0, [20.0, 2.0, 0.002]), (0.25, [15.0, 1.5, 0.002]), (1.0, [0.002] * 3)]
)
def test_an_f_with_a_second_time_is_told_where_the_step_ends(gamma, goals):
    f = Recorded(lambda x, t: 0 * x, EDM(), 0.002, second_time=True)
    sample(f, normal(5, 2), [80.0, 20.0, 2.0], gamma, generator=seeded())
    assert [cond["u"].tolist() for cond in f.cond] == [pytest.approx([goal] * 5, rel=1e-15) for goal in goals]
    plain = Recorded(lambda x, t: 0 * x, EDM(), 0.002)
    sample(plain, normal(5, 2), [80.0, 20.0, 2.0], gamma, generator=seeded())
    assert plain.cond == [{}] * 3


# ------------------------------------------------------------------------ what is passed on and counted
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_n_times_are_n_evaluations(n, gamma):
    f = Counted(network(t_min=0.002))
    assert f.t_min == 0.002 and f.schedule == EDM()
    sample(f, normal(5, 2), karras_grid(n + 1)[1:].flip(0), gamma, generator=seeded())
    assert f.evaluations == n


def test_conditioning_is_passed_on():
    f = Recorded(lambda x, t: 0 * x, EDM())
    label, w = torch.arange(5), torch.ones(5)
    sample(f, normal(5, 2), [80.0, 1.0], label=label, w=w, generator=seeded())
    assert all(cond == {"label": label, "w": w} for cond in f.cond)


def test_it_repeats_with_its_seed_and_keeps_dtype_and_shape(clock):
    f = Recorded(lambda x, t: 0.5 * x, clock)
    for dtype in (torch.float32, torch.float64, torch.float16):
        x_T, times = normal(8, 3, 8, 8).to(dtype), decreasing(clock, 1, 0.5)
        one, two = (sample(f, x_T, times, generator=seeded(s)) for s in (1, 1))
        assert torch.equal(one, two) and one.dtype == dtype and one.shape == x_T.shape
        assert not torch.equal(one, sample(f, x_T, times, generator=seeded(2)))
        assert not one.requires_grad


def test_schedule_and_t_min_may_be_given():
    def f(x, t):
        return 0 * x

    f.schedule = EDM()
    x = [Recorded(f, EDM()), Recorded(f, EDM())]
    for g, t_min in zip(x, (0.0, 0.5), strict=True):
        sample(g, normal(5, 2), [80.0, 1.0], schedule=EDM(), t_min=t_min, generator=seeded())
    ratio = x[1].x[1] / x[0].x[1]  # sqrt(1 - .5^2), to rounding
    assert ratio.flatten().tolist() == pytest.approx([math.sqrt(0.75)] * 10, rel=1e-14)


@pytest.mark.parametrize(
    ("times", "gamma", "words"),
    [
        ([1.0, 80.0], 1.0, r"must decrease, from noise to data, got \[1.0, 80.0\]"),
        ([80.0, 1.0, 1.0], 1.0, "must decrease"),
        ([80.0, 0.001], 1.0, "at least t_min = 0.002, got 0.001"),
        ([81.0], 1.0, "t = 81 is outside"),
        ([], 1.0, "at least one time"),
        ([80.0], 1.5, r"gamma must lie in \[0, 1\] .* got 1.5"),
        ([80.0], -0.1, "got -0.1"),
        ([80.0], math.nan, "got nan"),
    ],
)
def test_bad_input_is_refused_in_one_line(times, gamma, words):
    refused(words, lambda: sample(network(t_min=0.002), normal(5, 2), times, gamma))


# ------------------------------------------------------------------------------------- outside numbers
def scheduler_scene():
    """The fake network and points of the test of diffusers' consistency scheduler (lessons, section 5)."""
    x = torch.arange(768, dtype=torch.float64).reshape(3, 8, 8, 4) / 768
    net = nn.Identity()

    def forward(x, c_noise, **cond):
        t = (1000 * c_noise).reshape(-1, 1, 1, 1)  # 250 ln sigma
        return x * t / (t + 1)

    net.forward = forward
    f = Denoiser(net, EDM(), sigma_data=0.5, t_min=0.002)
    clamped = Recorded(lambda x, t: f(x, t).clamp(-1, 1), EDM(), 0.002)
    return clamped, 80 * x.permute(3, 0, 1, 2), karras_grid(201).flip(0)


def test_one_step_agrees_with_the_diffusers_scheduler():
    f, x_T, grid = scheduler_scene()
    total = sample(f, x_T, grid[[0]]).abs().sum().item()
    assert total == pytest.approx(192.7614, abs=1e-2)  # the tolerance of their own test, for their float32


def test_two_steps_agree_with_the_diffusers_scheduler():
    f, x_T, grid = scheduler_scene()
    noise = torch.Generator().manual_seed(0)
    # They draw at every step, in float32, and multiply the last draw by zero: the first is the one that counts.
    total = sample(f, x_T.float(), grid[[0, 106]], generator=noise).abs().sum().item()
    assert total == pytest.approx(347.6357, abs=1e-2)


# ------------------------------------------------------------------------------------ EDM's Algorithm 2
def algorithm_2(D, x, times, s_churn, s_min, s_max, s_noise, generator):
    """EDM, Algorithm 2, line by line, for scalars and without minicm."""
    n = len(times) - 1
    for i in range(n):
        gamma = min(s_churn / n, math.sqrt(2) - 1) if s_min <= times[i] <= s_max else 0
        t_hat = times[i] + gamma * times[i]
        if gamma > 0:
            eps = s_noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + math.sqrt(t_hat**2 - times[i] ** 2) * eps
        d = (x - D(x, torch.full((len(x),), t_hat, dtype=torch.float64))) / t_hat
        x_next = x + (times[i + 1] - t_hat) * d
        if times[i + 1] != 0:
            d_next = (x_next - D(x_next, torch.full((len(x),), times[i + 1], dtype=torch.float64))) / times[i + 1]
            x_next = x + (times[i + 1] - t_hat) * (d + d_next) / 2
        x = x_next
    return x


@pytest.mark.parametrize(
    ("s_churn", "s_min", "s_max", "s_noise"),
    [(0, 0, math.inf, 1), (4, 0, math.inf, 1), (30, 0.01, 1, 1.007), (80, 0.05, 1, 1.007), (1e9, 0.05, 50, 1.003)],
)
def test_it_is_edms_algorithm_2(s_churn, s_min, s_max, s_noise):
    D, x = Recorded(lambda x, t: (0.3 * x + t[:, None].log()).sin() / 2, EDM()), 50 * normal(5, 2)  # smooth
    times = [*karras_grid(18, 0.002, 50.0).flip(0).tolist(), 0.0]  # from 50, so that churn stays below 80
    knobs = dict(s_churn=s_churn, s_min=s_min, s_max=s_max, s_noise=s_noise)
    expected = algorithm_2(D, x, times, **knobs, generator=seeded(1))
    torch.testing.assert_close(edm_sample(D, x, times, **knobs, generator=seeded(1)), expected, **CLOSE)


def test_without_churn_it_is_the_heun_solver_and_draws_nothing():
    D, x, generator = network(), 80 * normal(5, 2), seeded()
    times = [*karras_grid(18).flip(0).tolist(), 0.0]
    assert torch.equal(edm_sample(D, x, times, generator=generator), solve(D, EDM(), x, times, heun_step))
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_churn_keeps_the_distribution():
    # An exact denoiser: churn adds noise and takes it away. 100 steps, Heun: the variance is right to 1e-3.
    x_T = math.sqrt(80**2 + 0.25) * normal(N, 1)
    x0 = edm_sample(Gaussian(), x_T, [*karras_grid(100).flip(0).tolist(), 0.0], s_churn=20, generator=seeded(2))
    assert x0.std().item() == pytest.approx(0.5, rel=5 / math.sqrt(2 * N) + 1e-3)
    undisturbed = edm_sample(Gaussian(), x_T, [*karras_grid(100).flip(0).tolist(), 0.0])
    assert (x0 - undisturbed).abs().mean() > 0.1  # and yet it is another sample


def test_no_point_is_lifted_above_t_max():
    D = Recorded(Gaussian(), EDM())
    edm_sample(D, normal(5, 2), [80.0, 70.0, 1.0, 0.0], s_churn=10, generator=seeded())
    assert max(t.max().item() for t in D.t) == 80


@pytest.mark.parametrize("odd", [{"s_churn": -1.0}, {"s_churn": math.nan}, {"s_noise": -1.0}], ids=str)
def test_edms_sampler_refuses_negative_noise(odd):
    refused("s_churn and s_noise must be 0", lambda: edm_sample(network(), normal(5, 2), [1.0, 0.0], **odd))


@pytest.mark.parametrize("clock", [VP.linear(), TrigFlow()], ids=["VP", "TrigFlow"])
def test_edms_sampler_needs_its_clock_and_times_that_decrease(clock):
    refused(r"EDM clock.*InClock\(..., EDM\(\)\)", lambda: edm_sample(network(clock), normal(5, 2), [1.0, 0.0]))
    refused("must decrease", lambda: edm_sample(network(), normal(5, 2), [1.0, 2.0]))
