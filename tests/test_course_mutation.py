"""Mistakes that nobody thought of: each operator, number and name of the solutions changed, one at a time, by a machine.

A change that the checks do not see is either no mistake (listed below, each with its reason) or a hole in the grader.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
from test_course import first_complaint, quick, solution

from minicm.course.assignments import ASSIGNMENTS
from minicm.course.mutation import changes

EQUIVALENT = {  # no mistakes: what the changed solution computes is the same
    "a1": {
        "c_in(t, sigma_data) (arguments exchanged): c_in(sigma_data, t)": "1/sqrt(t^2 + sigma_d^2) is symmetric",
        "c_out(t, sigma_data) (arguments exchanged): c_out(sigma_data, t)": "t sigma_d/sqrt(t^2 + sigma_d^2) is symmetric",
    },
    "a2": {
        "y - y.mean() (operator): y + y.mean()": "a slope over a centred x does not see y's mean",
        "0 (number halved): 0.0": "the same number",
    },
    "a3": {
        "distance(f(x_t, t), y_target) (arguments exchanged): distance(y_target, f(x_t, t))": "a distance is symmetric",
        "a - b (operands exchanged): b - a": "squared",
    },
}

SWAPS = {
    "t": "s",
    "s": "t",
    "x": "x_t",
    "x_t": "x0",
    "x_s": "x_t",
    "f": "f_target",
    "f_target": "f",
    "eps": "x0",
}
SWAPS |= {
    "low": "high",
    "kept": "now",
    "now": "kept",
    "slope_s": "slope_t",
    "slope_t": "slope_s",
    "a": "b",
    "b": "a",
    "alpha_s": "alpha_t",
}


def changed(name):
    """(what was changed, implementation) for every change of a solution."""
    for change in changes(inspect.getsource(solution(name)), SWAPS):
        functions = {f: change.space[f] for f in ASSIGNMENTS[name].functions}
        yield str(change), SimpleNamespace(**functions)


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUIVALENT)
def test_every_change_of_a_solution_is_caught_or_no_change(name):
    count, survivors = 0, set()
    for what, impl in changed(name):
        count += 1
        if not first_complaint(quick(ASSIGNMENTS[name]), impl):
            survivors.add(what)
    print(f"{name}: {count} changes, {len(survivors)} kinds that change nothing")
    assert count > 100 and survivors == set(EQUIVALENT[name])
