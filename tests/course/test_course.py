"""The graders are graded: of every assignment the solution passes, the stub fails cleanly, every known mistake is
named, every odd but right solution passes. Deterministic checks, in this process; `slow`: all checks on 20 seeds."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import shutil
import sys
from pathlib import Path

import pytest

from minicm.course.assignments import ASSIGNMENTS
from minicm.course.grade import grade
from minicm.course.kit import run

HANDOUTS = Path(__file__).resolve().parents[2] / "notebooks" / "assignments"


def solution(name):
    return importlib.import_module(f"minicm.course.solutions.{name}")


def variants(name, kind):
    return getattr(importlib.import_module(f"minicm.course.mutants.{name}"), kind)


def cases(kind):
    return [pytest.param(a, v, id=f"{name}: {v.what}") for name, a in ASSIGNMENTS.items() for v in variants(name, kind)]


def quick(assignment):
    """The assignment without the training at its end."""
    return dataclasses.replace(assignment, tasks=tuple(t for t in assignment.tasks if not t.real_thing))


def complaints(assignment, impl, seed=0):
    return [result.message for result in run(assignment, impl, seed) if not result.passed]


@pytest.fixture
def hand_in(tmp_path):
    """The folder of a student who has handed in the solution."""

    def write(name):
        shutil.copy(solution(name).__file__, tmp_path / "student.py")
        shutil.copy(HANDOUTS / name / "adapters.py", tmp_path)
        return tmp_path

    return write


def handout(name, file, monkeypatch):
    """A module of a handout, loaded as a student's Python would."""
    monkeypatch.syspath_prepend(HANDOUTS / name)
    for loaded in ("student", "adapters"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    return importlib.import_module(file)


def first_complaint(assignment, impl, seed=0):
    """What is said first, or nothing; the checks after it are not run."""
    return next((result.message for result in run(assignment, impl, seed) if not result.passed), "")


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_solution_passes(name):
    assert complaints(ASSIGNMENTS[name], solution(name)) == []


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_solution_passes_in_a_process_of_its_own(name, hand_in):
    """As it is graded: every value, callable and gradient of the assignment crosses the pipe. The training is `slow`."""
    report = grade(quick(ASSIGNMENTS[name]), hand_in(name))
    assert [result.message for result in report.results if not result.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_solution_earns_all_points(name, hand_in):
    report = grade(ASSIGNMENTS[name], hand_in(name))
    assert report.score == ASSIGNMENTS[name].points, [r.message for r in report.results if not r.passed]


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_stub_fails_cleanly(name, monkeypatch):
    """Every first check of a task says that something is not written yet, and nothing else is run."""
    for result in run(ASSIGNMENTS[name], handout(name, "adapters", monkeypatch)):
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
def test_signatures_agree(name, monkeypatch):
    """Stub, adapter and solution take the same arguments with the same defaults; stubs say what they are for."""
    student, adapters = (handout(name, file, monkeypatch) for file in ("student", "adapters"))
    for function in ASSIGNMENTS[name].functions:
        stub = getattr(student, function)
        assert stub.__doc__ and not str(inspect.signature(stub)).count("_empty")
        for other in (adapters, solution(name)):
            assert inspect.signature(getattr(other, function)) == inspect.signature(stub), (
                function,
                other.__name__,
            )


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
