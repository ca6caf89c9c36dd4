"""Measures: closed forms, planted faults, and what exact samples score.

Seeds are fixed. A tolerance of z standard deviations says how often another seed would fail: 5 is one in 1.7 million.
"""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from exact import normal, refused, seeded

from minicm import metrics
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import InClock
from minicm.metrics import ExactConsistency, consistency_error, floor, measure_samples
from minicm.schedules import EDM, VP, TrigFlow

RING, OVERLAPPING = GaussianMixture.ring(), GaussianMixture.random(6)
CLOCKS = [(EDM(), 0.002), (VP.scaled_linear(), 0.0), (TrigFlow(), 0.0)]
IDS = ["EDM", "VP", "TrigFlow"]


class Altered:
    """A consistency function and what is done to its output, with all calls kept."""

    def __init__(self, f, change=lambda y, x, t: y):
        self.f, self.change, self.schedule, self.t_min, self.calls = f, change, f.schedule, f.t_min, []

    def __call__(self, x, t, **cond):
        self.calls.append((x, t, cond))
        return self.change(self.f(x, t, **cond), x, t)


# ------------------------------------------------------------------------------- against the exact answer
@pytest.mark.parametrize("shape", [(2,), (3, 5, 5)])  # (5, 3, 5, 5): width and batch are equal
def test_a_paired_error_is_per_sample_per_dimension_and_in_the_unit(shape):
    a = normal(5, *shape)
    shift = torch.arange(5.0).reshape(-1, *[1] * len(shape))
    errors = metrics.paired_error(a, a + 0.5 * shift, unit=0.5)
    assert torch.allclose(errors, torch.arange(5.0, dtype=torch.float64))  # every coordinate is i units off
    assert metrics.rms(errors) == pytest.approx(math.sqrt(30 / 5))


@pytest.mark.parametrize("schedule, t_min", CLOCKS, ids=IDS)
def test_a_time_grid_rises_to_t_max_within_the_clock(schedule, t_min):
    times = metrics.time_grid(schedule, 10, t_min)
    schedule.check(times)  # VP: whole numbers
    assert times[-1] == schedule.t_max and times[0] > t_min and (times.diff() > 0).all()
    assert 8 <= len(times) <= 10  # VP's grid may have fallen together at the low end


@pytest.mark.parametrize("schedule, t_min", CLOCKS, ids=IDS)
def test_the_exact_function_has_no_error(schedule, t_min):
    f = InClock(ExactConsistency(RING), schedule) if schedule == TrigFlow() else ExactConsistency(RING, schedule, t_min)
    error = consistency_error(f, RING, n=20, generator=seeded())
    # float32 in and out: 6e-8 of values near 1; InClock also rounds x_t, of order 80, on its way to the other clock.
    assert error.overall_rmse < (1e-4 if schedule == TrigFlow() else 1e-6)
    assert error.times[-1] == schedule.t_max and len(error.times) == len(error.rmse) == len(error.levels)


def test_a_known_deviation_is_measured_as_it_is():
    shift = Altered(ExactConsistency(RING), lambda y, x, t: y + torch.tensor([0.3, 0.4]))
    error = consistency_error(shift, RING, n=20, generator=seeded())
    expected = 0.5 / math.sqrt(2) / RING.sigma_data  # |(.3, .4)| = .5
    assert error.rmse == pytest.approx([expected] * 10, rel=1e-5)  # 1e-5: float32
    assert error.median == pytest.approx([expected] * 10, rel=1e-5)
    assert error.overall_rmse == pytest.approx(expected, rel=1e-5)


def test_the_median_forgives_a_tenth_and_the_rmse_does_not():
    def spoil(y, x, t):
        y[::10] += 1
        return y

    error = consistency_error(Altered(ExactConsistency(RING), spoil), RING, n=20, generator=seeded())
    assert error.one_step_rmse == pytest.approx(math.sqrt(0.1) / 0.5, rel=1e-5)
    assert error.one_step_median < 1e-6 and error.overall_median < 1e-6


def test_the_mean_of_the_data_is_as_wrong_as_the_data_are_wide():
    # A denoiser at t_max: the f of someone who regresses to x0. For one Gaussian the flow has a closed form.
    gaussian = GaussianMixture(torch.zeros(1, 2), 0.25 * torch.eye(2)[None], [1.0])
    f = gaussian.denoiser()
    error = consistency_error(f, gaussian, n=4000, times=torch.tensor([80.0]), generator=seeded())
    # 8,000 standard normals: their RMS scatters by 1/sqrt(16000) = .0079; 5 of these.
    assert error.one_step_rmse == pytest.approx(1, abs=0.04)


def test_trial_points_have_the_law_of_the_process_and_of_the_prior():
    f = Altered(ExactConsistency(RING))
    consistency_error(f, RING, n=1000, times=torch.tensor([0.5, 80.0]), generator=seeded())
    (x, t, _), *others = f.calls
    assert not others and x.dtype == torch.float32 and t.dtype == torch.float64
    for level, std in ((0.5, math.hypot(0.5, RING.sigma_data)), (80.0, 80.0)):
        # 2,000 numbers, at most as heavy-tailed as a Gaussian: 5/sqrt(4000) relative.
        assert x[t == level].square().mean().sqrt() == pytest.approx(std, rel=0.08)


@pytest.mark.parametrize("schedule, t_min", CLOCKS[:2], ids=IDS[:2])
def test_guided_and_conditional_functions_are_held_against_the_guided_flow(schedule, t_min):
    ring = GaussianMixture.ring(classes=2)
    f = Altered(ExactConsistency(ring, schedule, t_min))
    times = torch.tensor([float(schedule.t_max) / 2, schedule.t_max], dtype=torch.float64)
    conditional = consistency_error(f, ring, n=10, times=times, label=1, generator=seeded())
    guided = consistency_error(f, ring, n=10, times=times, label=1, w=2.0, generator=seeded())
    assert conditional.overall_rmse < 1e-6 and guided.overall_rmse < 1e-6
    (_, _, first), (_, _, second) = f.calls
    assert first["label"].tolist() == [1] * 20 and "w" not in first and second["w"].tolist() == [2.0] * 20
    unguided = Altered(ExactConsistency(ring, schedule, t_min))
    unguided.f = lambda x, t, label, w: ExactConsistency(ring, schedule, t_min)(x, t, label=label)
    assert consistency_error(unguided, ring, n=10, label=1, w=2.0, times=times, generator=seeded()).overall_rmse > 0.01


def test_conditional_trial_points_are_of_the_class():
    ring = GaussianMixture.ring(classes=2)
    f = Altered(ExactConsistency(ring))
    consistency_error(f, ring, n=200, times=torch.tensor([0.01]), label=1, generator=seeded())
    assert ring.labels[ring.components(f.calls[0][0])].unique().tolist() == [1]


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"times": torch.tensor([0.001])}, r"\(0.002, 80\]"),
        ({"times": torch.tensor([81.0])}, "81"),
        ({"w": 2.0}, "label"),
        ({"label": 3}, "label = 3"),
    ],
)
def test_consistency_error_refuses(options, complaint):
    refused(complaint, lambda: consistency_error(ExactConsistency(RING), RING, n=5, **options))


def test_the_order_is_the_slope():
    steps = [10, 20, 40, 80]
    assert metrics.order(steps, [3 / n**2 for n in steps]) == pytest.approx(2)
    assert metrics.order(torch.tensor(steps), torch.tensor([3 / n for n in steps])) == pytest.approx(1)


# ------------------------------------------------------------------------------------ modes of a mixture
def test_outliers_are_counted_exactly():
    assert metrics.exact_outliers(2) == pytest.approx(math.exp(-8))
    x, n = RING.sample(100_000, seeded())[0], 100_000
    expected = n * math.exp(-8)  # 33.5, Poisson
    assert abs(n * metrics.outlier_fraction(x, RING) - expected) < 5 * math.sqrt(expected)
    x[:1000] = 0  # the middle of the ring is far from all modes
    assert metrics.outlier_fraction(x, RING) == pytest.approx(0.01 + 0.99 * expected / n, abs=3e-4)


def test_occupancy_of_exact_samples_is_the_weights_even_where_modes_overlap():
    n = 20_000
    share = metrics.mode_occupancy(OVERLAPPING.sample(n, seeded())[0], OVERLAPPING)
    scatter = (OVERLAPPING.weights * (1 - OVERLAPPING.weights) / n).sqrt()  # of hard counts; soft ones scatter less
    assert share.sum() == pytest.approx(1)
    assert ((share - OVERLAPPING.weights).abs() < 5 * scatter).all()


def test_missing_modes_are_missed():
    assert metrics.occupancy_variation(RING.means, RING) < 1e-12
    assert metrics.mode_occupancy(RING.means[:2], RING).tolist() == pytest.approx([0.5, 0.5] + [0] * 6, abs=1e-12)
    assert metrics.occupancy_variation(RING.means[:2], RING) == pytest.approx(6 / 8)


@pytest.mark.parametrize("mixture", [RING, OVERLAPPING], ids=["ring", "overlapping"])
def test_covariance_of_exact_samples_is_right(mixture):
    n = 40_000
    ratio = metrics.mode_covariance_ratio(mixture.sample(n, seeded())[0], mixture)
    # The root of a 2-D determinant of m points scatters by about 1/sqrt(m) of itself; smallest weight .1: 4,000 points.
    assert ((ratio - 1).abs() < 5 / math.sqrt(4000)).all()


def test_collapsed_modes_are_seen_and_outliers_do_not_hide_them():
    x = RING.sample(8000, seeded())[0].double()
    centre = RING.means[RING.components(x)]
    apart = x - centre
    for factor in (0.5, 1.1):
        ratio = metrics.mode_covariance_ratio(centre + factor * apart, RING)
        # 1,000 points a mode: 5/sqrt(1000) = .16; a blob 1.1 times as wide loses .8 % of its variance by the cut, too.
        assert torch.allclose(ratio, torch.full((8,), factor**2, dtype=torch.float64), rtol=0.17)
    assert (metrics.mode_covariance_ratio(centre, RING) < 1e-12).all()
    outward = centre / centre.norm(dim=1, keepdim=True)
    polygon = x - (apart * outward).sum(1, keepdim=True) * outward  # every blob a line across the radius
    assert (metrics.mode_covariance_ratio(polygon, RING) < 1e-6).all()
    spoilt = torch.cat([centre + 0.5 * apart, torch.zeros(80, 2, dtype=torch.float64)])
    assert (metrics.mode_covariance_ratio(spoilt, RING) < 0.3).all()
    assert metrics.mode_covariance_ratio(x[RING.components(x) != 3], RING)[3] == 0


# ------------------------------------------------------------------------------------------------ clouds
@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
def test_moving_a_cloud_costs_the_distance_it_was_moved(shape):
    a, shift = normal(60, *shape), normal(*shape, seed=1)
    length = shift.norm().item()
    assert metrics.wasserstein2(a, (a + shift)[torch.randperm(60, generator=seeded())]) == pytest.approx(length)
    assert metrics.frechet_distance(a, a + shift) == pytest.approx(length**2)
    sliced = metrics.sliced_wasserstein(a, a + shift, projections=4000, generator=seeded())
    # The mean of cos^2 over directions is 1/d; for 4,000 of them in d = 2 it scatters by .5 * sqrt(.5/4000), 1.1 %.
    assert sliced == pytest.approx(length / math.sqrt(shift.numel()), rel=0.06)


@pytest.mark.parametrize("distance", [metrics.energy_distance, metrics.wasserstein2, metrics.sliced_wasserstein])
def test_a_cloud_is_at_no_distance_from_itself(distance):
    a = normal(50, 3)
    assert distance(a, a.flip(0)) < 1e-7  # the root of rounding errors


def test_in_one_dimension_the_distances_agree_with_scipy_at_unequal_sizes():
    a, b = normal(12, 1), 0.5 * normal(18, 1, seed=1) + 1
    assert metrics.energy_distance(a, b) == pytest.approx(scipy.stats.energy_distance(a[:, 0], b[:, 0]))
    # 36 points each: every quantile stair is then cut at the same levels.
    brute = metrics.wasserstein2(a.repeat_interleave(3, 0), b.repeat_interleave(2, 0))
    assert metrics.sliced_wasserstein(a, b, generator=seeded()) == pytest.approx(brute)


def test_one_seed_repeats_and_another_differs():
    a, b = normal(30, 2), normal(30, 2, seed=1)
    f = Altered(ExactConsistency(RING), lambda y, x, t: 1.1 * y)
    for measure in (
        lambda generator: metrics.sliced_wasserstein(a, b, generator=generator),
        lambda generator: consistency_error(f, RING, n=5, generator=generator),
    ):
        one, again, other = (measure(seeded(seed)) for seed in (0, 0, 1))
        assert one == again != other


def test_frechet_agrees_with_the_closed_forms():
    first, second = torch.diag(torch.tensor([1.0, 4.0, 0.0])), torch.diag(torch.tensor([9.0, 1.0, 4.0]))
    zero, ones = torch.zeros(3), torch.ones(3)
    assert metrics.frechet_of_moments(zero, first, ones, second) == pytest.approx(3 + 4 + 1 + 4)  # sum of (s_a - s_b)^2
    a, b = normal(40, 6) @ normal(6, 6, seed=1), normal(50, 6, seed=2) @ normal(6, 6, seed=3)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = (a.mean(0) - b.mean(0)).square().sum() + np.trace(cov_a + cov_b - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected.item())


def test_frechet_bears_singular_covariances():
    a = normal(10, 64)  # fewer samples than features, as FID's 2,048 often have
    # The eigenvalues that should be 0 come out near 1e-15 of the largest, and there are 55 roots of them.
    assert metrics.frechet_distance(a, a) < 1e-4
    assert metrics.frechet_distance(normal(10, 1), normal(10, 1)) < 1e-12


@pytest.mark.parametrize(
    "call, complaint",
    [
        (lambda: metrics.wasserstein2(normal(3, 2), normal(4, 2)), "3 and 4"),
        (lambda: metrics.energy_distance(normal(3, 2), normal(3, 3)), r"\(3,\)|\(3, 2\)"),
        (lambda: metrics.sliced_wasserstein(normal(3, 2), normal(3, 2) * torch.nan), "3 of 3 samples hold NaN"),
        (lambda: metrics.frechet_distance(normal(1, 2), normal(3, 2)), "at least 2"),
        (lambda: metrics.outlier_fraction(torch.empty(0, 2), RING), "no samples"),
        (lambda: metrics.paired_error(normal(3, 2), normal(4, 2)), "one shape"),
        (lambda: floor(lambda x: 0.0, RING, 10, repeats=1), "at least 2"),
    ],
)
def test_bad_input_is_named(call, complaint):
    refused(complaint, call)


def test_any_dtype_will_do():
    a, b = normal(20, 2), normal(20, 2, seed=1)
    for distance in (metrics.energy_distance, metrics.wasserstein2, metrics.frechet_distance):
        assert distance(a.bfloat16(), b.bfloat16()) == pytest.approx(distance(a, b), rel=0.1)  # bfloat16: 3 digits


# ------------------------------------------------------------------------------------------------ floors
def test_a_floor_is_the_mean_and_spread_of_what_exact_samples_score():
    scores = iter([1.0, 2.0, 6.0])
    found = floor(lambda x: next(scores), RING, 5, repeats=3)
    assert found == pytest.approx((3, math.sqrt(7)))


def test_the_floor_of_w2_on_a_mixture_is_chance_in_the_mode_counts():
    # The same cloud with equal counts in every mode is far nearer: the floor is not about the shape of the modes.
    data, _ = RING.sample(4000, seeded())
    whole = floor(lambda x: metrics.sliced_wasserstein(x, data, generator=seeded()), RING, 4000, 5, seeded(1))
    one_mode = GaussianMixture(RING.means[:1], RING.covs[:1], [1.0])
    alone = one_mode.sample(4000, seeded(2))[0]
    within = floor(lambda x: metrics.sliced_wasserstein(x, alone, generator=seeded()), one_mode, 4000, 5, seeded(3))
    assert within[0] < whole[0] / 3


def test_exact_samples_score_their_floor_and_faults_score_beyond_it():
    def measured(x):
        return {row.name: row for row in measure_samples(x, RING)}

    x, _ = RING.sample(1000, seeded(7))
    # A spread from 10 repeats: beyond 8 of them is one in 40,000 (Student's t, 9 degrees of freedom).
    assert all(abs(row.value - row.floor) < 8 * max(row.spread, 1e-4) for row in measured(x).values())
    centre = RING.means[RING.components(x)]
    shrunk = measured((centre + 0.7 * (x - centre)).float())
    assert shrunk["narrowest mode"].value < shrunk["narrowest mode"].floor - 5 * shrunk["narrowest mode"].spread
    bridged = measured(torch.cat([x[:990], torch.zeros(10, 2)]))
    assert bridged["outliers"].value > bridged["outliers"].floor + 5 * bridged["outliers"].spread
    # And both go unseen by the distances between samples, which is why the others are there.
    assert all(abs(m["sliced W2"].value / m["sliced W2"].floor - 1) < 1.5 for m in (shrunk, bridged))
    halved = measured(x[RING.components(x) < 4])
    for name in ("occupancy", "sliced W2", "energy distance"):
        assert halved[name].value > 5 * halved[name].floor
