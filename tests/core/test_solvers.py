"""Euler's and Heun's steps in every clock against the textbook, and the loop that takes them."""

import pytest
import torch
from exact import Gaussian, normal, refused, times

from minicm import euler_step, heun_step, karras_grid, skip_grid, solve
from minicm.sampling import Counted
from minicm.schedules import EDM, VP, TrigFlow, expand

SHAPES = [(5, 2), (8, 3, 8, 8)]  # in the second the batch is as large as an image is wide
# float64: numbers of order 10 that differ by some hundred roundings of 2e-16, divided by sigma/sigma_max >= 1e-2
CLOSE = {"rtol": 1e-11, "atol": 1e-11}


def wavy(x, t):
    """A denoiser with a slope in x and in t, exact for nothing: a step must be right for any."""
    return (x * 0.3).sin() + expand(0.1 * (1 + t).log(), x)


def pair(clock, n):
    a, b = times(clock, n, 0.05, seed=1), times(clock, n, 0.05, seed=2)
    return torch.maximum(a, b), torch.minimum(a, b)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_eulers_step_is_the_schedules_step(clock, shape):
    x, (t, s) = normal(*shape), pair(clock, shape[0])
    assert torch.equal(euler_step(wavy, clock, x, t, s), clock.step(x, wavy(x, t), t, s))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_heuns_step_is_edms_algorithm_1(shape):
    x, (t, s) = normal(*shape), pair(EDM(), shape[0])
    T, S = expand(t, x), expand(s, x)
    d = (x - wavy(x, t)) / T
    x_s = x + (S - T) * d
    d_s = (x_s - wavy(x_s, s)) / S
    torch.testing.assert_close(heun_step(wavy, EDM(), x, t, s), x + (S - T) * (d + d_s) / 2, **CLOSE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_heuns_step_averages_two_noises_in_normalised_coordinates(clock, shape):
    x, (t, s) = normal(*shape), pair(clock, shape[0])
    a_t, b_t, a_s, b_s = (expand(v, x) for v in (clock.alpha(t), clock.sigma(t), clock.alpha(s), clock.sigma(s)))
    eps_t = (x - a_t * wavy(x, t)) / b_t
    x_s = a_s * wavy(x, t) + b_s * eps_t
    eps_s = (x_s - a_s * wavy(x_s, s)) / b_s
    y_s = x / a_t + (b_s / a_s - b_t / a_t) * (eps_t + eps_s) / 2  # d(x/alpha)/d(sigma/alpha) = eps_hat
    torch.testing.assert_close(heun_step(wavy, clock, x, t, s), a_s * y_s, **CLOSE)


def test_steps_go_both_ways(clock):
    # a step with a constant x0_hat is exact, so there and back is where it began
    x, (t, s) = normal(5, 2), pair(clock, 5)
    for step in (euler_step, heun_step):
        there = step(lambda x, t: 0 * x + 0.3, clock, x, t, s)
        torch.testing.assert_close(step(lambda x, t: 0 * x + 0.3, clock, there, s, t), x, **CLOSE)


def test_a_heun_step_to_clean_data_is_eulers(clock):
    x, (t, _) = normal(6, 2), pair(clock, 6)
    counted = Counted(wavy)
    clean = heun_step(counted, clock, x, t, torch.zeros_like(t))
    assert torch.equal(clean, euler_step(wavy, clock, x, t, torch.zeros_like(t)))
    assert counted.evaluations == 1
    assert torch.equal(clean, wavy(x, t))  # all the way to sigma = 0 it is x0_hat


def test_clean_and_noisy_ends_may_stand_in_one_batch(clock):
    def finite(x, t):
        assert (clock.sigma(t) > 0).all(), "the denoiser is asked about clean data"
        return wavy(x, t)

    x, (t, s) = normal(6, 2), pair(clock, 6)
    s[::2] = 0
    mixed = heun_step(finite, clock, x, t, s)
    torch.testing.assert_close(mixed[::2], euler_step(wavy, clock, x, t, s)[::2], **CLOSE)
    torch.testing.assert_close(mixed[1::2], heun_step(wavy, clock, x[1::2], t[1::2], s[1::2]), **CLOSE)


def test_a_step_from_clean_data_is_refused():
    with pytest.raises(ValueError, match="no step can start from clean data"):
        euler_step(wavy, EDM(), normal(2, 2), torch.zeros(2), torch.ones(2))


# ------------------------------------------------------------------------------------ published values
@pytest.mark.parametrize(
    ("step", "errors"),
    [(euler_step, (-0.0770, -0.0401, -0.0205, -0.0103)), (heun_step, (0.0276, 0.00649, 0.00157, 0.000387))],
)
def test_errors_on_the_single_gaussian(step, errors):
    # facts, section 12.7: 1-D N(0, .5^2), x_80 = 80, the Karras grid down to .002
    exact = Gaussian(0.0, 0.5)
    x_T = torch.full((1, 1), 80.0, dtype=torch.float64)
    truth = exact.consistency(x_T, torch.full((1,), 80.0, dtype=torch.float64))
    for n, printed in zip((18, 35, 69, 137), errors, strict=True):
        error = (solve(exact, EDM(), x_T, karras_grid(n).flip(0), step) - truth).item()
        digits = len(str(printed).partition(".")[2])
        assert error == pytest.approx(printed, abs=0.51 * 10 ** -max(digits, 4))  # the last printed digit


# ----------------------------------------------------------------------------------------------- solve
def test_solve_keeps_every_point_on_request():
    x, grid = normal(3, 2) * 80, karras_grid(10).flip(0)
    kept = solve(Gaussian(), EDM(), x, grid, keep=True)
    assert kept.shape == (10, 3, 2)
    assert torch.equal(kept[0], x)
    assert torch.equal(kept[-1], solve(Gaussian(), EDM(), x, grid))
    for i in range(9):  # each point is the step from the one before
        t, s = grid[i].expand(3), grid[i + 1].expand(3)
        assert torch.equal(kept[i + 1], heun_step(Gaussian(), EDM(), kept[i], t, s))


@pytest.mark.parametrize(("step", "spent"), [(euler_step, 18), (heun_step, 35)])
def test_evaluations_are_those_of_the_literature(step, spent):
    # N = 18 points and a last step to 0: NFE 35 for Heun (EDM, Table 2)
    counted = Counted(Gaussian())
    solve(counted, EDM(), normal(3, 2), [*karras_grid(18).flip(0), 0.0], step)
    assert counted.evaluations == spent


def test_solve_encodes_and_decodes():
    exact, x = Gaussian(0.2, 0.5), normal(50, 2) * 0.5 + 0.2
    grid = karras_grid(400)
    noise = solve(exact, EDM(), x, grid)
    t_min, t_max = (torch.full((50,), edge.item(), dtype=torch.float64) for edge in (grid[0], grid[-1]))
    # 400 points: Heun's error is about .028 (18/400)^2 = 6e-5 of the point (the test of errors above), doubled for x_T = 80 x
    torch.testing.assert_close(noise, exact.flow(x, t_min, t_max), rtol=2e-4, atol=1e-3)
    torch.testing.assert_close(solve(exact, EDM(), noise, grid.flip(0)), x, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("clock", "grid"),
    [
        (EDM(), karras_grid(40).flip(0)),
        (VP.scaled_linear(), skip_grid(50).flip(0)),
        (TrigFlow(), (karras_grid(40) / 0.5).atan().flip(0)),
    ],
    ids=["EDM", "VP", "TrigFlow"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_solve_keeps_the_dtype_and_does_not_mind_the_shape(clock, grid, dtype):
    x = clock.prior((8, 3, 8, 8), torch.Generator().manual_seed(0), dtype=dtype)
    exact = Gaussian(0.1, 0.5, clock)
    out = solve(exact, clock, x, grid)
    assert out.dtype == dtype and out.shape == x.shape
    flat = solve(exact, clock, x.reshape(8, -1), grid).reshape(x.shape)
    assert torch.equal(out, flat)
    for i in range(8):
        assert torch.equal(solve(exact, clock, x[i : i + 1], grid)[0], out[i])


def test_solve_takes_a_list_and_draws_no_graph():
    x = normal(3, 2).requires_grad_()
    out = solve(Gaussian(), EDM(), x, [80.0, 1.0, 0.002])
    assert not out.requires_grad
    assert torch.equal(solve(Gaussian(), EDM(), x, [1.0]), x)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ([81.0, 1.0], "t = 81 is outside"),
        ([1.0, -1.0], "t = -1 is outside"),
        ([], "at least one time"),
        ([[1.0, 0.5]], r"shape \(1, 2\)"),
        ([1.0, float("nan")], "t = nan"),
    ],
)
def test_bad_times_are_refused_in_one_line(grid, words):
    refused(words, lambda: solve(Gaussian(), EDM(), normal(2, 2), grid))
