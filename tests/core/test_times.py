"""Grids, time laws and curricula, against the published values of facts.md (CM, iCT, ECT, EDM, sCM)."""

import math

import pytest
import torch
from exact import refused, seeded

from minicm import LogNormalIndex, LogNormalTimes, karras_grid, skip_grid
from minicm.times import LogNormalAngles, UniformIndex, UniformSteps, ct_decay, ct_points, doubling_points

# ---------------------------------------------------------------------------------------------- grids
KARRAS_18 = """80 57.586 40.7856 28.3746 19.3525 12.9101 8.40094 5.31519 3.25682
               1.92334 1.08817 0.58535 0.29644 0.13952 0.05995 0.02293 0.00753 0.002"""


def test_the_karras_grid_has_its_published_values():
    grid = karras_grid(18)
    assert grid.dtype == torch.float64 and grid.shape == (18,)
    for value, printed in zip(grid.flip(0).tolist(), KARRAS_18.split(), strict=True):
        digits = len(printed.partition(".")[2])
        assert value == pytest.approx(float(printed), abs=0.51 * 10**-digits)  # the last printed digit


@pytest.mark.parametrize("n", [2, 3, 18, 151, 1281, 20481])
def test_a_karras_grid_ascends_between_the_ends_it_was_given(n):
    for low, high in ((0.002, 80.0), (0.0, 80.0), (0.003, 1.7), (1e-5, 1e-4)):
        for rho in (1.0, 3.0, 7.0):
            grid = karras_grid(n, low, high, rho)
            assert grid[0].item() == low and grid[-1].item() == high  # set, not computed
            assert (grid.diff() > 0).all()
            gaps = (grid ** (1 / rho)).diff()
            # equal, to the roundings of a power and a root of numbers up to 80: some 1e-14, whatever the gap
            torch.testing.assert_close(gaps, gaps.mean().expand(n - 1), rtol=1e-12, atol=1e-13)


# index counted from t_max, points of the grid, noise: the released two-step times (facts, section 2.5)
RELEASED = [(11, 18, 0.5853), (22, 40, 1.3824), (106, 201, 1.9128), (17, 40, 4.3656), (18, 40, 3.5197)]
RELEASED += [(67, 151, 3.9912), (62, 151, 5.2485), (16, 40, 5.38), (20, 40, 2.24)]


@pytest.mark.parametrize(("index", "n", "level"), RELEASED)
def test_released_two_step_times_lie_on_the_grid(index, n, level):
    digits = 10 ** -len(str(level).partition(".")[2])
    assert karras_grid(n).flip(0)[index].item() == pytest.approx(level, abs=0.51 * digits)


def test_icts_grid():
    grid = karras_grid(1281)
    for level in (0.8209, 1.5258):  # iCT's two-step times lie on it
        assert (grid - level).abs().min() < 0.5e-4  # the last printed digit
    weight = 1 / grid.diff()
    assert weight[0].item() == pytest.approx(25_585, abs=1)  # facts, section 11: as printed
    assert weight[-1].item() == pytest.approx(2.9, abs=0.05)


def test_the_skip_grid_counts_whole_steps():
    assert skip_grid(50)[:3].tolist() == [0, 20, 40]
    assert skip_grid(50)[-1] == 1000 and len(skip_grid(50)) == 51
    assert skip_grid(4).tolist() == [0, 250, 500, 750, 1000]
    for n in (1, 3, 7, 999, 1000):  # also where n does not divide T
        grid = skip_grid(n)
        assert grid.dtype == torch.float64 and torch.equal(grid, grid.round())
        assert (grid.diff() > 0).all() and grid[0] == 0 and grid[-1] == 1000


# ------------------------------------------------------------------------------------------ time laws
N = 40_000  # draws; each bound below is 5 standard errors of such a sample: false alarms 6e-7 each


def test_edms_training_noise_is_log_normal():
    log_t = LogNormalTimes()(N, seeded()).log()
    assert log_t.dtype == torch.float64
    # clamping to [1e-3, 80] cuts off what is beyond 4.7 standard deviations: 3e-6 of the draws
    assert abs(log_t.mean().item() + 1.2) < 5 * 1.2 / math.sqrt(N)
    assert log_t.std().item() == pytest.approx(1.2, rel=5 / math.sqrt(2 * N))
    wide = LogNormalTimes(std=9.0)(N, seeded())
    assert wide.min() == 1e-3 and wide.max() == 80


def test_scms_angles_are_those_of_log_normal_noise():
    t = LogNormalAngles()(N, seeded())
    log_level = (0.5 * t.tan()).log()
    assert abs(log_level.mean().item() + 1.0) < 5 * 1.4 / math.sqrt(N)  # 80 is 3.8 of them away: 6e-5 are cut
    assert log_level.std().item() == pytest.approx(1.4, rel=5 / math.sqrt(2 * N))
    assert (t > 0).all() and (t <= math.atan(80 / 0.5)).all()


def test_ddpms_steps_are_uniform_and_never_clean():
    t = UniformSteps(10)(N, seeded())
    assert t.dtype == torch.float64
    count = torch.bincount(t.long(), minlength=11)
    assert count[0] == 0 and len(count) == 11
    assert ((count[1:] - N / 10).abs() < 5 * math.sqrt(N * 0.1 * 0.9)).all()


def test_the_uniform_index_meets_every_interval_alike():
    grid = karras_grid(9)
    count = torch.bincount(UniformIndex()(grid, N, seeded()), minlength=8)
    assert len(count) == 8  # N points hold N - 1 intervals
    assert ((count - N / 8).abs() < 5 * math.sqrt(N / 8 * 7 / 8)).all()


def test_the_log_normal_index_follows_its_mass():
    grid, law = karras_grid(9), LogNormalIndex()
    mass = law.mass(grid)
    assert mass.sum().item() == pytest.approx(1, rel=1e-14)  # eight roundings
    count = torch.bincount(law(grid, N, seeded()), minlength=8)
    assert ((count - N * mass).abs() < 5 * (N * mass * (1 - mass)).sqrt()).all()
    assert law.mass(karras_grid(9, t_min=0.0)).isfinite().all()  # ln 0 = -inf has the mass that it should


def test_icts_noise_law_looks_at_small_noise():
    grid = karras_grid(1281)
    cumulative = LogNormalIndex().mass(grid).cumsum(0)
    below = (grid[1:] < 1).sum() - 1  # the last interval that ends below 1
    # facts, section 3: P(sigma < 1) is 71 %, the median .334, and 40 % for a uniform index. Half a unit of the last digit.
    assert cumulative[below].item() == pytest.approx(0.71, abs=0.005)
    assert (below + 1).item() / 1280 == pytest.approx(0.40, abs=0.005)
    assert grid[(cumulative < 0.5).sum()].item() == pytest.approx(0.334, abs=0.004)  # intervals are .002 wide there


@pytest.mark.parametrize("law", [LogNormalTimes(), LogNormalAngles(), UniformSteps()], ids=str)
def test_time_laws_repeat_with_their_seed(law):
    assert torch.equal(law(100, seeded(1)), law(100, seeded(1)))
    assert not torch.equal(law(100, seeded(1)), law(100, seeded(2)))


# ------------------------------------------------------------------------------------------ curricula
CT_POINTS = {0: 2, 1: 3, 1000: 6, 8000: 16, 100_000: 54, 400_000: 107, 792_000: 151, 800_000: 151}


def test_cts_number_of_points():
    assert {k: ct_points(k, 800_000, s0=2, s1=150) for k in CT_POINTS} == CT_POINTS
    assert all(ct_points(k // 8, 100_000, 2, 150) == n for k, n in CT_POINTS.items() if k % 8000 == 0)  # shares of K


@pytest.mark.parametrize(("k", "mu"), [(0, 0.9), (1000, 0.96549), (800_000, 0.998605)])
def test_cts_decay_is_the_papers_not_the_codes(k, mu):
    assert ct_decay(k, 800_000) == pytest.approx(mu, abs=5e-6 if k < 2000 else 5e-7)  # the last printed digit


def test_the_other_curricula_of_cm():
    assert ct_points(800_000, 800_000, s0=2, s1=200) == 201
    assert ct_decay(0, 800_000, s1=200, mu0=0.95) == pytest.approx(0.95, rel=1e-15)


def test_ct_never_goes_back():
    points = [ct_points(k, 1000, 2, 150) for k in range(1001)]
    assert points == sorted(points) and points[0] == 2 and points[-1] == 151


def test_icts_points_double_in_eight_equal_stages():
    K = 400_000
    expected = [11, 21, 41, 81, 161, 321, 641, 1281]
    assert [doubling_points(50_000 * stage, K) for stage in range(8)] == expected
    assert [doubling_points(50_000 * (stage + 1) - 1, K) for stage in range(8)] == expected
    assert doubling_points(K, K) == 1281  # min(..., s1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: karras_grid(1), "n >= 2 points, got n = 1"),
        (lambda: karras_grid(5, 1.0, 1.0), "t_min = 1, t_max = 1"),
        (lambda: karras_grid(5, 2.0, 1.0), "t_min = 2, t_max = 1"),
        (lambda: karras_grid(5, -0.1, 1.0), "t_min = -0.1"),
        (lambda: karras_grid(5, math.nan, 1.0), "t_min = nan"),
        (lambda: karras_grid(5, rho=0.0), "rho > 0"),
        (lambda: skip_grid(0), "got n = 0"),
        (lambda: LogNormalTimes(low=5.0, high=1.0), "low = 5.0, high = 1.0"),
        (lambda: LogNormalTimes(std=-1.0), "std = -1.0"),
        (lambda: skip_grid(1001), "got n = 1001"),
    ],
)
def test_bad_grids_are_refused_in_one_line(make, words):
    refused(words, make)
