"""The graders are graded: of every assignment the solution passes, the stub fails cleanly, every known mistake is
named, every odd but right solution passes. Deterministic checks, in this process; `slow`: all checks on 20 seeds."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from variants import ASSIGNMENTS, HANDOUTS, solution, variants

from minicm.course.grade import grade
from minicm.course.kit import run
from minicm.course.load import module_at


def cases(kind):
    return [pytest.param(a, v, id=f"{name}: {v.what}") for name, a in ASSIGNMENTS.items() for v in variants(name, kind)]


def stubs(name):
    return module_at(HANDOUTS / name / "student.py")


def quick(assignment):
    """The assignment without the training at its end."""
    return dataclasses.replace(assignment, tasks=tuple(t for t in assignment.tasks if not t.real_thing))


def complaints(assignment, impl, seed=0):
    return [result.message for result in run(assignment, impl, seed) if not result.passed]


def first_complaint(assignment, impl, seed=0):
    """What is said first, or nothing; the checks after it are not run."""
    return next((result.message for result in run(assignment, impl, seed) if not result.passed), "")


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_solution_passes(name):
    assert complaints(ASSIGNMENTS[name], solution(name)) == []


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_solution_passes_in_a_process_of_its_own(name, hand_in_solution):
    """As it is graded: every value, callable and gradient of the assignment crosses the pipe. The training is `slow`."""
    report = grade(quick(ASSIGNMENTS[name]), hand_in_solution(name))
    assert [result.message for result in report.results if not result.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_solution_earns_all_points(name, hand_in_solution):
    report = grade(ASSIGNMENTS[name], hand_in_solution(name))
    assert report.score == ASSIGNMENTS[name].points, [r.message for r in report.results if not r.passed]


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_stub_fails_cleanly(name):
    """Every first check of a task says that something is not written yet, and nothing else is run."""
    for result in run(ASSIGNMENTS[name], stubs(name)):
        assert not result.passed and result.score == 0
        assert "is not written yet" in result.message or result.message.startswith("not run"), result


@pytest.mark.parametrize("assignment, variant", cases("MUTANTS"))
def test_every_mistake_is_caught_and_named(assignment, variant):
    said = first_complaint(quick(assignment), variant.on(solution(assignment.name), assignment.functions))
    assert said, f"nothing was said about: {variant.what}"
    assert variant.says in said, f"{variant.what}: the first complaint is {said!r}"
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("assignment, variant", cases("RIGHT"))
def test_odd_but_right_passes(assignment, variant):
    assert complaints(quick(assignment), variant.on(solution(assignment.name), assignment.functions)) == []


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_each_function_has_five_mutants_and_every_check_is_needed(name):
    """At least five mistakes an assignment, every function has one, and every check but the gates catches some."""
    assignment, mutants = ASSIGNMENTS[name], variants(name, "MUTANTS")
    assert len(mutants) >= 5 and all(v.says for v in mutants)
    assert {f for v in mutants for f in v.functions} == set(assignment.functions)


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_signatures_agree(name):
    """Stub and solution take the same arguments with the same defaults; stubs say what they are for."""
    for function in ASSIGNMENTS[name].functions:
        stub = getattr(stubs(name), function)
        assert stub.__doc__ and not str(inspect.signature(stub)).count("_empty")
        assert inspect.signature(getattr(solution(name), function)) == inspect.signature(stub), function


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_no_false_alarm_on_twenty_seeds(name):
    for seed in range(20):
        assert complaints(ASSIGNMENTS[name], solution(name), seed) == [], f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("assignment, variant", cases("MUTANTS"))
def test_every_mistake_is_caught_on_twenty_seeds(assignment, variant):
    for seed in range(20):
        assert complaints(quick(assignment), variant.on(solution(assignment.name), assignment.functions), seed), seed
