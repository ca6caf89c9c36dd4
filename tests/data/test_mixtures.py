"""The exact answer, held against formulas that share no code with it, and against itself.

Noise is float64 and seeded. TIGHT is the promise of the flow, 1e-8, with room: on the points used here it is met
with one or two digits to spare. ROUND is for what should agree to rounding.
"""

import math

import numpy as np
import pytest
import torch
from exact import normal, refused, seeded
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from minicm import EDM, VP, GaussianMixture, Guided, InClock, TrigFlow
from minicm.data import exact_flow
from minicm.data.closed_forms import gaussian_flow, product_flow, quantile_flow

TIGHT = dict(rtol=0, atol=1e-8)
ROUND = dict(rtol=1e-11, atol=1e-11)
VP_CLOCK, ANGLES = VP.scaled_linear(), TrigFlow()
CLOCKS = [EDM(), VP_CLOCK, ANGLES]
NAMES = ["EDM", "VP", "TrigFlow"]
# clock, from, to: noise to data, data to noise, a part of the way, and the two ends themselves
WAYS = [(EDM(), 80.0, 0.002), (EDM(), 0.002, 80.0), (EDM(), 3.0, 0.3), (EDM(), 80.0, 0.0)]
WAYS += [(VP_CLOCK, 1000, 0), (VP_CLOCK, 0, 1000), (VP_CLOCK, 400, 20)]
WAYS += [(ANGLES, ANGLES.t_max, 0.0), (ANGLES, 0.0, ANGLES.t_max), (ANGLES, 1.2, 0.1)]


def noisy(mixture: GaussianMixture, schedule, t: float | Tensor, n: int, seed: int = 0) -> Tensor:
    """n points of p_t, in float64."""
    x0 = mixture.sample(n, seeded(seed))[0].double()
    t = torch.as_tensor(t, dtype=torch.float64).expand(n)
    return schedule.add_noise(x0, normal(n, mixture.dim, seed=seed + 1), t)


def line(mixture: GaussianMixture) -> tuple[Tensor, Tensor, Tensor]:
    """A 1-D mixture's weights, means, standard deviations."""
    return mixture.weights, mixture.means[:, 0], mixture.covs[:, 0, 0].sqrt()


def naive_denoise(mixture: GaussianMixture, x: Tensor, a: float, b: float, keep=None) -> Tensor:
    """facts 12.2, one point and one component at a time: sum r_k (mu_k + a S_k C_k^-1 (x - a mu_k))."""
    keep = range(len(mixture.weights)) if keep is None else keep
    out = []
    for point in x:
        density, guess = [], []
        for k in keep:
            mu, S = mixture.means[k], mixture.covs[k]
            C = a * a * S + b * b * torch.eye(mixture.dim, dtype=torch.float64)
            pull = torch.linalg.solve(C, point - a * mu)
            density.append(mixture.weights[k].log() - (torch.logdet(C) + (point - a * mu) @ pull) / 2)
            guess.append(mu + a * S @ pull)
        out.append(torch.stack(density).softmax(0) @ torch.stack(guess))
    return torch.stack(out)


def scipy_flow(denoise, x: Tensor, t: float, s: float) -> Tensor:
    """dx/dt = (x - D(x, t))/t in log t by SciPy, in the EDM clock: other variables and another error norm."""
    from scipy.integrate import solve_ivp

    def rate(log_t: float, flat: np.ndarray) -> np.ndarray:
        points = torch.from_numpy(flat).view_as(x)
        return (points - denoise(points, math.exp(log_t))).flatten().numpy()

    span = (math.log(t), math.log(s))
    run = solve_ivp(rate, span, x.flatten().numpy(), method="DOP853", rtol=1e-12, atol=1e-13)
    assert run.success
    return torch.from_numpy(run.y[:, -1]).view_as(x)


# ---------------------------------------------------------------- the flow against closed forms
@pytest.mark.parametrize(
    "x, t, expected", [(37.0, 80.0, 1.2322572867), (-1.1, 3.0, 0.2459619417), (0.3, 0.5, 0.6749097340)]
)
def test_values_of_the_facts_sheet(x, t, expected):
    mixture = GaussianMixture([[-1.0], [1.2]], [[[0.2**2]], [[0.35**2]]], [0.3, 0.7])
    point = torch.tensor([[x]], dtype=torch.float64)
    assert abs(mixture.consistency(point, t).item() - expected) < 1e-9  # ten decimals are printed
    assert abs(quantile_flow(point[:, 0], line(mixture), t, 0.002).item() - expected) < 1e-9


@pytest.mark.parametrize("schedule, t, s", WAYS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_one_gaussian(dim, schedule, t, s):
    mixture = GaussianMixture.random(1, dim=dim, seed=dim)
    mixture = GaussianMixture(mixture.means + 0.3, mixture.covs, mixture.weights)  # not centred
    x = noisy(mixture, schedule, t, 16)
    expected = gaussian_flow(x, mixture.means[0], mixture.covs[0], t, s, schedule)
    # On the way up a narrow axis is stretched more than the whole, and errors with it: they count beside the largest x.
    sure = 1e-10 * expected.abs().max().item()
    torch.testing.assert_close(mixture.flow(x, t, s, schedule), expected, rtol=0, atol=sure)


@pytest.mark.parametrize("schedule, t, s", WAYS)
def test_quantiles_of_a_1d_mixture(schedule, t, s):
    mixture = GaussianMixture.random(5, dim=1, seed=3)
    x = noisy(mixture, schedule, t, 200)
    expected = quantile_flow(x[:, 0], line(mixture), t, s, schedule)[:, None]
    torch.testing.assert_close(mixture.flow(x, t, s, schedule), expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("side, dim, n", [(5, 2, 300), (2, 2, 300), (2, 3, 300)])
@pytest.mark.parametrize("schedule, t, s", [WAYS[0], WAYS[4], WAYS[7]], ids=NAMES)
def test_grid_as_a_product(side, dim, n, schedule, t, s):
    mixture = GaussianMixture.grid(side, dim=dim)
    one = GaussianMixture.grid(side, dim=1)
    x = schedule.prior((n, dim), seeded(2), dtype=torch.float64)
    scale = mixture.covs[0, 0, 0].sqrt() / one.covs[0, 0, 0].sqrt()  # the same grid, whatever was scaled
    axis = (one.weights, scale * one.means[:, 0], scale * one.covs[:, 0, 0].sqrt())
    torch.testing.assert_close(mixture.flow(x, t, s, schedule), product_flow(x, [axis] * dim, t, s, schedule), **TIGHT)


def test_product_of_unlike_axes():
    a, b = GaussianMixture.random(3, dim=1, seed=1), GaussianMixture.random(2, dim=1, seed=2)
    pairs = [(i, j) for i in range(3) for j in range(2)]
    means = torch.stack([torch.cat([a.means[i], b.means[j]]) for i, j in pairs])
    covs = torch.stack([torch.diag(torch.cat([a.covs[i, 0], b.covs[j, 0]])) for i, j in pairs])
    mixture = GaussianMixture(means, covs, torch.stack([a.weights[i] * b.weights[j] for i, j in pairs]))
    x = 80 * normal(200, 2)
    torch.testing.assert_close(mixture.consistency(x, 80.0), product_flow(x, [line(a), line(b)], 80.0, 0.002), **TIGHT)


def test_closed_forms_of_one_component_agree():
    x, s2 = normal(50, 1), torch.tensor([[0.09]], dtype=torch.float64)
    m = torch.tensor([0.4], dtype=torch.float64)
    one = (torch.ones(1), m, s2[0].sqrt())
    for schedule, t, s in WAYS:
        expected = gaussian_flow(x, m, s2, t, s, schedule)
        # Two different rounding paths of numbers up to 300.
        torch.testing.assert_close(quantile_flow(x[:, 0], one, t, s, schedule)[:, None], expected, **ROUND)
    f = m + math.sqrt((0.002**2 + 0.09) / (80**2 + 0.09)) * (x - m)  # facts 12.4
    torch.testing.assert_close(gaussian_flow(x, m, s2, 80.0, 0.002), f, **ROUND)


# ---------------------------------------------------------------- the flow against an independent integration
def test_ring_by_another_integrator():
    mixture = GaussianMixture.ring()
    x = 80 * normal(24, 2)
    expected = scipy_flow(lambda p, t: batch_denoise(mixture, p, t), x, 80.0, 0.002)
    torch.testing.assert_close(mixture.consistency(x, 80.0), expected, **TIGHT)


@pytest.mark.parametrize("w", [0.5, 8.0])
def test_guided_flow_by_another_integrator(w):
    mixture = GaussianMixture.random(6, classes=3, seed=4)
    x = 80 * normal(8, 2, seed=1)

    def denoise(points: Tensor, t: float) -> Tensor:
        conditional = batch_denoise(mixture, points, t, mixture.labels == 1)
        return conditional + w * (conditional - batch_denoise(mixture, points, t))

    expected = scipy_flow(denoise, x, 80.0, 0.002)
    torch.testing.assert_close(mixture.flow(x, 80.0, 0.002, label=1, w=w), expected, **TIGHT)


def batch_denoise(mixture: GaussianMixture, x: Tensor, t: float, keep=slice(None)) -> Tensor:
    """x + t^2 score, the score by autograd through torch's own mixture density: nothing shared with ours."""
    covs = mixture.covs[keep] + t * t * torch.eye(mixture.dim, dtype=torch.float64)
    parts = MultivariateNormal(mixture.means[keep], covs, validate_args=False)
    density = MixtureSameFamily(Categorical(mixture.weights[keep]), parts, validate_args=False)
    x = x.detach().requires_grad_()
    (score,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    return (x + t * t * score).detach()


@pytest.mark.slow  # half a minute
@pytest.mark.parametrize("seed", range(3))
def test_the_worst_of_ten_thousand(seed, monkeypatch):
    x = 80 * normal(10_000, 2, seed=seed)
    grid, one = GaussianMixture.grid(), GaussianMixture.grid(dim=1)
    torch.testing.assert_close(grid.consistency(x, 80.0), product_flow(x, [line(one)] * 2, 80.0, 0.002), **TIGHT)
    for mixture in (GaussianMixture.ring(), GaussianMixture.random(seed=seed)):
        found = mixture.consistency(x, 80.0)
        with monkeypatch.context() as patch:
            patch.setattr(exact_flow, "TOL", 3e-15)
            torch.testing.assert_close(found, mixture.consistency(x, 80.0), **TIGHT)


# ---------------------------------------------------------------- the flow against itself
@pytest.mark.parametrize("make", [GaussianMixture.ring, GaussianMixture.random], ids=["ring", "random"])
def test_three_clocks_one_flow(make):
    mixture = make()
    t, s = torch.tensor([1000, 640, 90]).repeat(20), torch.tensor([0, 13, 500]).repeat(20)
    level = {time: VP_CLOCK.sigma(time) / VP_CLOCK.alpha(time) for time in (t, s)}
    y = noisy(mixture, EDM(), level[t], 60)
    expected = mixture.flow(y, level[t], level[s])
    for schedule in (VP_CLOCK, ANGLES):
        begin, end = (schedule.t_of(level[time]) for time in (t, s))
        x = schedule.alpha(begin)[:, None] * y
        found = mixture.flow(x, begin, end, schedule) / schedule.alpha(end)[:, None]
        torch.testing.assert_close(found, expected, **TIGHT)


@pytest.mark.parametrize("schedule, t, s", [WAYS[1], WAYS[5], WAYS[8]], ids=NAMES)
@pytest.mark.parametrize("label", [None, 1])
def test_there_and_back(schedule, t, s, label):
    mixture = GaussianMixture.random(4, dim=2, classes=2, seed=5)
    x = mixture.sample(50, seeded(0))[0].double()
    there = mixture.flow(x, t, s, schedule, label)
    assert not torch.allclose(there, x)
    torch.testing.assert_close(mixture.flow(there, s, t, schedule, label), x, **TIGHT)


@pytest.mark.parametrize("t, s", [(5.0, 0.5), (0.5, 5.0)])
def test_there_and_back_guided(t, s):
    # Not from clean data: points that guidance does not lead to are thrown far out on the way up.
    mixture = GaussianMixture.random(4, dim=2, classes=2, seed=5)
    x = noisy(mixture, EDM(), t, 50)
    there = mixture.flow(x, t, s, label=1, w=1.0)
    torch.testing.assert_close(mixture.flow(there, s, t, label=1, w=1.0), x, **TIGHT)


def test_trajectory_visits_times_in_the_order_given():
    mixture = GaussianMixture.ring()
    x = 80 * normal(20, 2)
    times = torch.tensor([80.0, 5.0, 0.4, 0.002, 1.0])
    points = mixture.trajectory(x, times)
    assert points.shape == (5, 20, 2) and torch.equal(points[0], x)
    for time, point in zip(times, points):
        torch.testing.assert_close(point, mixture.flow(x, 80.0, time), **TIGHT)
        torch.testing.assert_close(mixture.consistency(point, time), points[3], **TIGHT)  # consistent


def test_a_trajectory_may_be_of_a_class_and_guided_in_any_clock():
    mixture, x = GaussianMixture.ring(classes=4), normal(10, 2)
    points = mixture.trajectory(x, [1000, 500, 0], VP_CLOCK, label=2, w=1.5)
    expected = mixture.flow(x, 1000, 0, VP_CLOCK, label=2, w=1.5)
    torch.testing.assert_close(points[-1], expected, **TIGHT)


def test_no_time_no_change_bit_for_bit():
    mixture = GaussianMixture.random()
    for dtype in (torch.float64, torch.float32, torch.float16):
        x = (80 * normal(30, 2)).to(dtype)
        assert torch.equal(mixture.consistency(x, 0.002), x)
        assert torch.equal(mixture.flow(x, 700, 700, VP_CLOCK), x)


def test_each_sample_has_its_own_times_labels_and_scales():
    mixture = GaussianMixture.random(6, classes=3)
    n = 12
    t = torch.logspace(1.9, -0.5, n, dtype=torch.float64)
    s = t.flip(0)
    x, label, w = noisy(mixture, EDM(), t, n), torch.arange(n) % 4, torch.linspace(0, 2, n)
    together = mixture.flow(x, t, s, label=label, w=w)
    for i in range(n):
        alone = mixture.flow(x[i : i + 1], t[i].item(), s[i].item(), label=int(label[i]), w=w[i].item())
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)  # rounding, amplified


@pytest.mark.parametrize("dim", [2, 3])
def test_batch_as_large_as_the_dimension(dim):
    mixture = GaussianMixture.random(4, dim=dim, classes=2)
    t = torch.linspace(0.2, 3, dim, dtype=torch.float64)
    x, label, w = noisy(mixture, EDM(), t, dim), torch.arange(dim) % 2, torch.linspace(1, 2, dim)
    denoise, rows = mixture.denoiser(), [slice(i, i + 1) for i in range(dim)]
    calls = {
        "flow": lambda i: mixture.flow(x[i], t[i], t[i] / 9, label=label[i], w=w[i]),
        "denoiser": lambda i: denoise(x[i], t[i], label=label[i], w=w[i]),
        "score": lambda i: mixture.score(x[i], t[i], label=label[i]),
        "log_prob": lambda i: mixture.log_prob(x[i], t[i], label=label[i]),
        "mahalanobis2": lambda i: mixture.mahalanobis2(x[i], t[i]),
    }
    for name, call in calls.items():
        expected = torch.cat([call(row) for row in rows])
        torch.testing.assert_close(call(slice(None)), expected, rtol=1e-9, atol=1e-9, msg=name)


def test_permuting_the_batch_permutes_the_answer(monkeypatch):
    monkeypatch.setattr(exact_flow, "CHUNK", 32)  # so that samples change their chunk, too
    mixture = GaussianMixture.ring(classes=2)
    x, label, order = 80 * normal(100, 2), torch.arange(100) % 3, torch.randperm(100)
    found = mixture.flow(x[order], 80.0, 0.002, label=label[order], w=1.0)
    expected = mixture.flow(x, 80.0, 0.002, label=label, w=1.0)[order]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)  # rounding, amplified up to 1e4


def test_an_empty_batch_and_a_single_point():
    mixture = GaussianMixture.ring()
    assert mixture.consistency(torch.zeros(0, 2), 80.0).shape == (0, 2)
    assert mixture.denoiser()(torch.zeros(0, 2), torch.zeros(0)).shape == (0, 2)
    assert mixture.consistency(80 * torch.ones(1, 2), torch.tensor([80.0])).shape == (1, 2)


def test_angles_close_to_a_right_one():
    mixture, schedule = GaussianMixture.random(), TrigFlow(sigma_max=1e9)
    x = schedule.prior((50, 2), seeded(0), dtype=torch.float64)
    x0 = mixture.flow(x, schedule.t_max, 0.0, schedule)
    # At sigma = 1e9 and at 1e4 sigma_d x is the same noise but for the data's share, 1e-4 of it.
    lower = TrigFlow(sigma_max=5e3)
    torch.testing.assert_close(lower.sigma(torch.tensor(lower.t_max)).item(), 0.5, rtol=1e-7, atol=0)
    expected = mixture.flow(mixture.flow(x, schedule.t_max, lower.t_max, schedule), lower.t_max, 0.0, lower)
    torch.testing.assert_close(x0, expected, **TIGHT)
    # Back up the angle is 5e-10 short of a right one and rounded to 1e-16: seven digits are left of y.
    torch.testing.assert_close(mixture.flow(x0, 0.0, schedule.t_max, schedule), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtype_of_x_is_kept_and_arithmetic_is_not_in_it(dtype):
    mixture = GaussianMixture.ring()
    x = (5 * normal(40, 2)).to(dtype)
    for call in (
        lambda x: mixture.consistency(x, 5.0),
        lambda x: mixture.denoiser()(x, torch.full((40,), 5.0)),
        lambda x: mixture.score(x, 5.0),
        lambda x: mixture.log_prob(x, 5.0),
        lambda x: mixture.mahalanobis2(x),
    ):
        assert call(x).dtype == dtype
        assert torch.equal(call(x), call(x.double()).to(dtype))


def test_the_flow_has_no_gradient_and_leaves_x_alone():
    x = normal(5, 2).requires_grad_()
    before = x.detach().clone()
    assert not GaussianMixture.ring().consistency(x.detach(), 1.0).requires_grad
    assert torch.equal(x, before)


# ---------------------------------------------------------------- density, score, denoiser
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("t", [0.0, 0.002, 0.3, 80.0])
def test_density_against_torch(dim, t):
    mixture = GaussianMixture.random(4, dim=dim, classes=2, seed=7)
    x = noisy(mixture, EDM(), t, 30)
    covs = mixture.covs + t * t * torch.eye(dim, dtype=torch.float64)
    for label, keep in ((None, slice(None)), (2, slice(None)), (0, mixture.labels == 0)):
        parts = MultivariateNormal(mixture.means[keep], covs[keep])
        expected = MixtureSameFamily(Categorical(mixture.weights[keep]), parts).log_prob(x)
        torch.testing.assert_close(mixture.log_prob(x, t, label), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("label", [None, 1])
def test_score_and_tweedie_by_autograd(dim, label):
    mixture = GaussianMixture.random(5, dim=dim, classes=2, seed=8)
    t = torch.tensor([0.01, 0.1, 0.5, 2.0, 80.0], dtype=torch.float64).repeat(8)
    x = noisy(mixture, EDM(), t, 40).requires_grad_()
    (slope,) = torch.autograd.grad(mixture.log_prob(x, t, label).sum(), x)
    x = x.detach()
    torch.testing.assert_close(mixture.score(x, t, label), slope, rtol=1e-9, atol=1e-9)
    x0_hat = x + t.square()[:, None] * slope  # Tweedie's formula
    torch.testing.assert_close(mixture.denoiser()(x, t, label=label), x0_hat, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule, times", list(zip(CLOCKS, [(0.0, 0.3, 80.0), (0, 300, 1000), (0.0, 0.5, 1.56)])))
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_denoiser_in_every_clock(schedule, times, dim):
    mixture = GaussianMixture.random(5, dim=dim, classes=2, seed=9)
    denoise = mixture.denoiser(schedule)
    for time in times:
        t = torch.full((4,), time, dtype=torch.float64)
        a, b = schedule.alpha(t)[0].item(), schedule.sigma(t)[0].item()
        x = noisy(mixture, schedule, time, 4)
        null = naive_denoise(mixture, x, a, b)
        own = naive_denoise(mixture, x, a, b, keep=[1, 3])
        torch.testing.assert_close(denoise(x, t), null, **ROUND)
        torch.testing.assert_close(denoise(x, time, label=1), own, **ROUND)
        torch.testing.assert_close(denoise(x, t, label=1, w=2.5), own + 2.5 * (own - null), **ROUND)
        if time == 0:
            torch.testing.assert_close(denoise(x, t), x, **ROUND)  # clean already


def test_denoiser_far_up_does_not_cancel():
    mixture, schedule = GaussianMixture.random(), TrigFlow(sigma_max=1e9)
    x = 0.5 * normal(10, 2)
    found = mixture.denoiser(schedule)(x, schedule.t_max)
    # There r = pi and C^-1 (y - mu) = y/lambda^2 of order 1e-9: the mean of the data is left, which is 0.
    assert found.abs().max() < 1e-8


def test_denoiser_is_called_like_a_denoiser():
    mixture = GaussianMixture.ring(classes=2)
    x, t = normal(6, 2), torch.full((6,), 0.7, dtype=torch.float64)
    label, w = torch.tensor([0, 1, 2, 0, 1, 2]), torch.linspace(0, 2, 6)
    for schedule in (EDM(), ANGLES):
        denoise = mixture.denoiser(schedule)
        assert denoise.schedule == schedule and denoise.t_min == 0 and denoise.sigma_data == mixture.sigma_data
        assert torch.equal(denoise(x, t, label=None), denoise(x, t, label=2))
        assert torch.equal(denoise(x, t, label=label, u=t / 2), denoise(x, t, label=label))
        by_hand = Guided(denoise, label, w)(x, t)
        torch.testing.assert_close(denoise(x, t, label=label, w=w), by_hand, **ROUND)
        torch.testing.assert_close(InClock(mixture.denoiser(), schedule)(x, t), denoise(x, t), **ROUND)


# ---------------------------------------------------------------- classes and guidance
def part(mixture: GaussianMixture, label: int) -> GaussianMixture:
    own = mixture.labels == label
    weights = mixture.weights[own] / mixture.weights[own].sum()
    return GaussianMixture(mixture.means[own], mixture.covs[own], weights)


def test_a_class_is_the_mixture_of_its_components():
    mixture = GaussianMixture.random(7, classes=3, seed=12)  # classes of 3, 2 and 2 components
    x, t = 80 * normal(30, 2), torch.full((30,), 0.5)
    label = torch.arange(30) % 4
    flow, denoised = mixture.flow(x, 80.0, 0.002, label=label), mixture.denoiser()(x / 80, t, label=label)
    for c in range(4):
        alone, own = (mixture if c == 3 else part(mixture, c)), label == c
        torch.testing.assert_close(flow[own], alone.consistency(x[own], 80.0), **TIGHT)
        torch.testing.assert_close(denoised[own], alone.denoiser()(x[own] / 80, t[own]), **ROUND)


def test_scales_of_guidance_that_are_known():
    mixture, x = GaussianMixture.ring(classes=4), 80 * normal(20, 2)
    null, own = mixture.consistency(x, 80.0), mixture.consistency(x, 80.0, label=1)
    assert (null - own).abs().max() > 0.1
    torch.testing.assert_close(mixture.consistency(x, 80.0, label=1, w=0.0), own, **TIGHT)
    torch.testing.assert_close(mixture.consistency(x, 80.0, label=1, w=-1.0), null, **TIGHT)
    torch.testing.assert_close(mixture.consistency(x, 80.0, label=4, w=5.0), null, **TIGHT)
    torch.testing.assert_close(mixture.consistency(x, 80.0, w=5.0), null, **TIGHT)


# ---------------------------------------------------------------- samples and constructors
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_moments_of_samples(dim):
    """False alarms: 26 numbers beyond 5 standard errors, 26 x 6e-7 = 2e-5 (one seed, so never by chance)."""
    mixture, n = GaussianMixture.random(4, dim=dim, classes=2, seed=13), 200_000
    x0, label = mixture.sample(n, seeded(1))
    assert x0.shape == (n, dim) and x0.dtype == torch.get_default_dtype()
    assert label.shape == (n,) and label.dtype == torch.int64
    x0 = x0.double()
    sure = 5 * (mixture.cov.diagonal() / n).sqrt()
    assert ((x0.mean(0) - mixture.mean).abs() < sure).all()
    products = (x0 - mixture.mean)[:, :, None] * (x0 - mixture.mean)[:, None]
    sure = 5 * products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - mixture.cov).abs() < sure).all()
    share = mixture.weights[mixture.labels == 0].sum()
    assert abs((label == 0).double().mean() - share) < 5 * (share * (1 - share) / n).sqrt()


def test_samples_belong_to_their_components_and_classes():
    mixture = GaussianMixture.ring(classes=8)
    x0, label = mixture.sample(5000, seeded(0))
    # Nearest is right unless a point is 6 standard deviations out: 5000 exp(-18) = 8e-5.
    assert torch.equal(mixture.components(x0), label)
    # chi^2 with 2 degrees of freedom: P(> 16) = exp(-8) = 3.4e-4, 1.7 of 5000 expected; P(> 12 of them) = 1e-7.
    distance2 = mixture.mahalanobis2(x0)
    assert distance2.shape == (5000, 8)
    assert (distance2.amin(1) > 16).sum() <= 12
    assert abs(distance2.amin(1).mean().item() - 2) < 5 * 2 / math.sqrt(5000)  # 5 standard errors, 6e-7


def test_mahalanobis_by_its_definition():
    mixture, x = GaussianMixture.random(3, dim=3), normal(10, 3)
    away = x[:, None] - mixture.means
    for t in (0.0, 0.7):
        C = mixture.covs + t * t * torch.eye(3, dtype=torch.float64)
        expected = torch.einsum("bki,kij,bkj->bk", away, torch.linalg.inv(C), away)
        torch.testing.assert_close(mixture.mahalanobis2(x, t), expected, rtol=1e-9, atol=1e-9)


def test_seeds_repeat_and_differ():
    mixture = GaussianMixture.ring()
    first, again, other = (mixture.sample(10, seeded(s))[0] for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.manual_seed(3)
    unseeded = mixture.sample(10)[0]
    torch.manual_seed(3)
    assert torch.equal(unseeded, mixture.sample(10)[0])
    means = [GaussianMixture.random(seed=s).means for s in (0, 0, 1)]
    assert torch.equal(means[0], means[1]) and not torch.equal(means[0], means[2])


@pytest.mark.parametrize(
    "mixture, modes, dim, classes",
    [
        (GaussianMixture.ring(), 8, 2, 1),
        (GaussianMixture.ring(5, std=0.1, sigma_data=1.5, classes=2), 5, 2, 2),
        (GaussianMixture.grid(), 25, 2, 1),
        (GaussianMixture.grid(3, dim=3, classes=27), 27, 3, 27),
        (GaussianMixture.grid(1, dim=1), 1, 1, 1),
        (GaussianMixture.random(), 6, 2, 1),
        (GaussianMixture.random(9, dim=4, seed=3, sigma_data=1.5, classes=4), 9, 4, 4),
    ],
)
def test_constructors_are_normalised(mixture, modes, dim, classes):
    sigma_data = 1.5 if modes in (5, 9) else 0.5
    assert mixture.means.shape == (modes, dim) and mixture.dim == dim and mixture.classes == classes
    assert mixture.labels.tolist() == [i % classes for i in range(modes)]
    assert abs(mixture.weights.sum() - 1) < 1e-12
    assert mixture.mean.abs().max() < 1e-12  # rounding
    assert abs(mixture.cov.trace() / dim - sigma_data**2) < 1e-12 and abs(mixture.sigma_data - sigma_data) < 1e-12


def test_shape_of_ring_and_random():
    ring = GaussianMixture.ring()
    radius = ring.means.norm(dim=1)
    torch.testing.assert_close(radius, radius[:1].expand(8))
    torch.testing.assert_close(ring.covs[0], (0.06 * radius[0]) ** 2 * torch.eye(2, dtype=torch.float64))
    eig = torch.linalg.eigvalsh(GaussianMixture.random(20).covs)
    assert (eig[:, 1] / eig[:, 0]).median() > 2  # anisotropic


def test_parameters_may_be_lists_or_single_precision():
    a = GaussianMixture([[0.0, 1.0]], [[[1.0, 0.5], [0.5, 1.0]]], [1.0])
    b = GaussianMixture(a.means.float(), a.covs.float(), a.weights.float())
    assert a.covs.dtype == b.covs.dtype == torch.float64 and torch.equal(a.covs, b.covs)
    third = torch.full((3,), 1 / 3)  # sums to one in float32 only
    assert abs(GaussianMixture(torch.zeros(3, 1), torch.ones(3, 1, 1), third).weights.sum() - 1) < 1e-15


# ---------------------------------------------------------------- bad input


EYE = torch.eye(2).expand(2, 2, 2)
MEANS = torch.zeros(2, 2)
HALF = [0.5, 0.5]
RING = GaussianMixture.ring(classes=2)
POINTS = torch.zeros(4, 2)


def with_entry(tensor: Tensor, where: tuple[int, ...], value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[where] = value
    return tensor


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: GaussianMixture(MEANS, torch.stack([EYE[0], -EYE[0]]), HALF), "component 1.*positive definite"),
        (lambda: GaussianMixture(MEANS, torch.stack([EYE[0], 0 * EYE[0]]), HALF), "component 1.*positive definite"),
        (lambda: GaussianMixture(MEANS, torch.stack([torch.ones(2, 2), EYE[0]]), HALF), "component 0.*positive"),
        (lambda: GaussianMixture(MEANS, with_entry(EYE, (1, 0, 1), 0.5), HALF), "component 1.*symmetric"),
        (lambda: GaussianMixture(MEANS, with_entry(EYE, (1, 0, 0), math.nan), HALF), "component 1.*finite"),
        (lambda: GaussianMixture(with_entry(MEANS, (1, 0), math.inf), EYE, HALF), "component 1.*finite"),
        (lambda: GaussianMixture(MEANS, EYE, [0.5, 0.6]), "sum to one, got 1.1"),
        (lambda: GaussianMixture(MEANS, EYE, [0.5, 0.50001]), "sum to one"),
        (lambda: GaussianMixture(MEANS, EYE, [1.5, -0.5]), "component 1.*weight.*-0.5"),
        (lambda: GaussianMixture(MEANS, EYE, [0.5, math.nan]), "component 1.*weight"),
        (lambda: GaussianMixture(MEANS, EYE, [1.0]), "weights"),
        (lambda: GaussianMixture(MEANS, EYE[0], HALF), "covs"),
        (lambda: GaussianMixture(MEANS[0], EYE, HALF), "means"),
        (lambda: GaussianMixture(torch.zeros(0, 2), torch.zeros(0, 2, 2), []), "one component at least"),
        (lambda: GaussianMixture(MEANS, EYE, HALF, [0]), "labels"),
        (lambda: GaussianMixture(MEANS, EYE, HALF, [0, -1]), "component 1.*label"),
        (lambda: GaussianMixture(MEANS, EYE, HALF, [0, 0.5]), "component 1.*label"),
        (lambda: GaussianMixture(MEANS, EYE, HALF, [0, 2]), "class 1 of 0..2"),
        (lambda: GaussianMixture(MEANS, EYE, [1.0, 0.0], [0, 1]), "class 1 of 0..1"),
        (lambda: GaussianMixture.ring(0), "0 components"),
        (lambda: GaussianMixture.ring(4, classes=5), "classes = 5"),
        (lambda: GaussianMixture.random(classes=0), "classes = 0"),
        (lambda: GaussianMixture.ring(std=0.0), "component 0.*positive definite"),
        (lambda: RING.normalised(0.0), "component 0.*positive definite"),
        (lambda: RING.sample(0), "n = 0"),
        (lambda: RING.flow(POINTS, 81.0, 1.0), r"t = 81 is outside \[0, 80\]"),
        (lambda: RING.flow(POINTS, 1.0, -1.0), "t = -1"),
        (lambda: RING.flow(POINTS, math.nan, 1.0), "nan"),
        (lambda: RING.flow(POINTS, 10.5, 1, VP_CLOCK), "whole number"),
        (lambda: RING.flow(POINTS, torch.ones(3), 1.0), r"t has shape \(3,\)"),
        (lambda: RING.flow(POINTS, torch.ones(4, 1), 1.0), r"t has shape \(4, 1\)"),
        (lambda: RING.flow(POINTS, 1.0, 0.1, label=1, w=torch.ones(3)), r"w.*\(3,\)"),
        (lambda: RING.flow(with_entry(POINTS, (2, 0), math.nan), 1.0, 0.1), "NaN"),
        (lambda: RING.flow(torch.zeros(4, 3), 1.0, 0.1), r"\(B, 2\).*\(4, 3\)"),
        (lambda: RING.flow(torch.zeros(2), 1.0, 0.1), r"\(B, 2\).*\(2,\)"),
        (lambda: RING.score(torch.zeros(4, 2, dtype=torch.int64), 1.0), "floats"),
        (lambda: RING.denoiser()(POINTS, torch.ones(2)), r"t has shape \(2,\)"),
        (lambda: RING.denoiser()(POINTS, torch.ones(4), label=3), r"0..2.*3"),
        (lambda: RING.denoiser()(POINTS, torch.ones(4), label=torch.tensor([0, 1, -1, 2])), "-1"),
        (lambda: RING.denoiser()(POINTS, torch.ones(4), label=torch.zeros(3).long()), r"\(3,\)"),
        (lambda: RING.denoiser()(POINTS, torch.ones(4), label=torch.zeros(4)), "int64"),
        (lambda: RING.trajectory(POINTS, []), "at least one"),
    ],
)
def test_bad_input_is_named(call, words):
    refused(words, call)


def test_a_flow_that_cannot_end_says_so(monkeypatch):
    monkeypatch.setattr(exact_flow, "MAX_STEPS", 3)
    refused("3 steps", lambda: RING.consistency(80 * normal(4, 2), 80.0), RuntimeError)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_the_cpu():
    mixture = GaussianMixture.random(6, classes=3)
    x, label = 80 * normal(500, 2), torch.arange(500) % 4
    x0, _ = mixture.sample(10, torch.Generator("cuda").manual_seed(0))
    assert x0.device.type == "cuda"
    for call in (
        lambda x, label: mixture.flow(x, 80.0, 0.002, label=label, w=1.0),
        lambda x, label: mixture.denoiser(VP_CLOCK)(x / 80, torch.full_like(label, 300), label=label),
        lambda x, label: mixture.log_prob(x, 80.0, label),
    ):
        found = call(x.cuda(), label.cuda())
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), call(x, label), rtol=1e-9, atol=1e-8)
