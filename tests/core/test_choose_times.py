"""The greedy choice of sampling times: finds the valley of a score, in few evaluations, the same each time."""

import math

import pytest
import torch

from minicm import EDM, VP, karras_grid, skip_grid
from minicm.sampling import choose_times


class Last:
    """An f whose samples tell the last time it was called with, so that a score can have any shape."""

    t_min = 0.0

    def __init__(self, schedule=EDM()) -> None:
        self.schedule, self.evaluations = schedule, 0

    def __call__(self, x, t):
        self.evaluations += 1
        return t[:, None].to(x.dtype).expand_as(x)


@pytest.mark.parametrize("n", [2, 3, 5, 18, 40])
@pytest.mark.parametrize("goal", [0.0021, 0.3, 2.5, 79.0])
def test_it_finds_the_bottom_of_a_valley(n, goal):
    """For the second time every candidate is tried by hand; n up to the whole grid, which leaves no choice."""
    grid, f = karras_grid(40), Last()
    times = choose_times(f, torch.zeros(1, 2), lambda x: (x[0, 0].log() - math.log(goal)).abs(), n, grid=grid)
    assert len(times) == n and times[0] == 80 and (times.diff() < 0).all()
    free = grid[n - 2 : -1]  # the n - 2 smallest are kept free for the times after
    assert times[1] == free[(free.log() - math.log(goal)).abs().argmin()]
    if n == 40:
        assert torch.equal(times, grid.flip(0))


def test_one_time_is_the_first_of_all():
    assert choose_times(Last(), torch.zeros(1, 2), lambda x: 0.0, 1, grid=karras_grid(18)).tolist() == [80]


@pytest.mark.parametrize("points", [18, 40, 1281])
def test_it_takes_logarithmically_few_scores(points):
    scores = []
    f, grid = Last(), karras_grid(points)
    choose_times(f, torch.zeros(1, 2), lambda x: scores.append(0) or (x[0, 0] - 1).abs(), 2, grid=grid)
    # a third goes at each two scores, so 2 log(N)/log(3/2); integer thirds are a little less: two rounds more
    assert len(scores) <= 2 * (math.log(points) / math.log(1.5) + 2)


def test_it_works_on_the_vp_clock():
    times = choose_times(
        Last(VP.scaled_linear()), torch.zeros(1, 2), lambda x: (x[0, 0] - 440).abs(), 3, grid=skip_grid(50)
    )
    assert times.tolist() == [1000, 440, 420]


def test_the_noise_is_the_same_for_every_candidate_and_every_call():
    class Noisy(Last):
        def __call__(self, x, t):
            return x / (1 + t[:, None])  # the second prediction sees the noise

    def score(x):
        return (x.std() - 0.8).abs()

    x_T, grid = 80 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), karras_grid(100)
    runs = [choose_times(Noisy(), x_T, score, 2, grid=grid, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_refusals():
    for grid, n in ((karras_grid(18).flip(0), 2), (karras_grid(18), 19), (karras_grid(18), 0)):
        with pytest.raises(ValueError, match="ascending grid of at least"):
            choose_times(Last(), torch.zeros(1, 2), lambda x: 0.0, n, grid=grid)
