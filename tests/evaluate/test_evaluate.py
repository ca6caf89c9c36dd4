"""The reports of 2-D models: the exact function scores its floor, a wrong one far above, and the table says so."""

import pytest
import torch

from minicm import EDM, GaussianMixture, TrigFlow, TwoMoons
from minicm.evaluate.points import evaluate, evaluate_teacher
from minicm.evaluate.rows import table
from minicm.metrics import ExactConsistency, Row
from minicm.metrics.rows import line, markdown
from minicm.sampling import LEVELS, sampling_times

RING = GaussianMixture.ring()


def values(rows):
    return {row.name: row for row in rows}


def test_the_exact_function_has_no_error_and_scores_its_floors():
    rows = values(evaluate(ExactConsistency(RING, EDM(), 0.002), RING, n=300))
    for name, row in rows.items():
        if name.endswith(("RMSE", "median")):
            assert row.value < 1e-5  # one sampler, one noise, float32
        elif row.spread is not None:
            # six spreads of the floor, which is itself estimated from few repeats
            assert abs(row.value - row.floor) <= 6 * row.spread + 0.02, name
    assert {f"{k}-step RMSE" for k in LEVELS} <= set(rows)


def test_a_wrong_function_is_seen():
    class Zero(ExactConsistency):
        def __call__(self, x, t, **cond):
            return torch.zeros_like(x)

    rows = values(evaluate(Zero(RING, EDM(), 0.002), RING, n=300))
    # zero against data of deviation 1 in its own units; 300 points of two coordinates, a twentieth either way
    assert rows["1-step RMSE"].value == pytest.approx(1, abs=0.1)


def test_the_exact_denoiser_misses_only_what_the_solver_misses():
    rows = values(evaluate_teacher(RING.denoiser(), RING, n=200))
    assert rows["Heun-40 RMSE"].value == rows["Heun-40 RMSE"].floor
    assert rows["Heun-40 median"].value < 0.01


def test_data_without_an_exact_answer_are_compared_as_clouds():
    rows = evaluate(ExactConsistency(RING, EDM(), 0.002), TwoMoons(), n=300)
    assert {row.name for row in rows} == {f"{k}-step {m}" for k in LEVELS for m in ("sliced W2", "energy distance")}
    assert all(row.value > row.floor for row in rows)  # a ring is not two moons


@pytest.mark.parametrize("schedule", [EDM(), TrigFlow()])
@pytest.mark.parametrize("steps", LEVELS)
def test_sampling_times_begin_at_t_max_and_fall(schedule, steps):
    times = sampling_times(schedule, steps)
    assert times[0] == schedule.t_max and len(times) == steps
    assert (times.diff() < 0).all()


@pytest.mark.parametrize(
    "value, verdict",
    [(0.01, "as expected"), (0.03, "as expected"), (0.044, "as expected"), (0.05, "worse than expected")],
)
def test_a_verdict_is_half_as_much_again_as_the_farthest_seed(value, verdict):
    assert Row("1-step RMSE", value, 0.0, band=(0.02, 0.03)).verdict == verdict
    assert Row("1-step RMSE", value).verdict == ""


def test_the_table_shows_value_floor_band_and_verdict():
    line = table([Row("energy", 0.012344, 0.01, 0.002, (0.01, 0.02))]).splitlines()[-1]
    assert line == "| energy | 0.01234 | 0.01 ± 0.002 | 0.01 .. 0.02 | as expected |"


def test_a_markdown_table_has_words_on_the_left_and_numbers_on_the_right():
    text = markdown(("a", "b", "c"), [("x", "y", "1")], left=2)
    assert text.splitlines() == ["| a | b | c |", "|---|---|---:|", "| x | y | 1 |"]
    assert markdown(("a", "b"), []) + "\n" + line(("x", "1")) == markdown(("a", "b"), [("x", "1")])
