"""The LCM family's recipes run through the one loop; what they reach is measured outside the tests."""

from __future__ import annotations

import pytest

from minicm.data.mixtures import GaussianMixture
from minicm.metrics import ExactConsistency
from minicm.recipes import guided
from minicm.train import TrainConfig, train

BRIEF = TrainConfig(steps=2, batch=16, lr=1e-3)


@pytest.mark.parametrize(
    "recipe", [guided.mixture_guided_teacher, guided.mixture_lcd, guided.mixture_lcd_published]
)
def test_a_recipe_trains(recipe):
    made = recipe(config=BRIEF)
    *_, last = train(*made)
    assert last.k == 2 and last.loss.isfinite()


def test_the_skips_close_in_on_the_data():
    grid = guided.quadratic_grid()
    assert grid[0] == 0 and grid[-1] == guided.CLOCK.t_max and (grid.diff() > 0).all()
    assert grid[1] < 20 < grid[-1] - grid[-2]  # against LCM's equal skips of 20


def test_the_exact_guided_student_scores_zero():
    data = GaussianMixture.ring(classes=guided.CLASSES)
    rows = guided.evaluate_guided(
        ExactConsistency(data, guided.CLOCK, 0.0), data, ws=(0, 3), steps=(1, 2), n=20
    )
    assert len(rows) == 8
    assert max(row.value for row in rows) < 1e-6  # the flow is good to 1e-8, twice, in float32


def test_sampling_times_are_those_of_lcms_scheduler():
    assert guided.SAMPLING[4] == [1000.0, 760.0, 500.0, 260.0]  # 999, 759, 499, 259 there: our t is one more
