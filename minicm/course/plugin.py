"""The pytest view: `pytest --assignment a1 --submission PATH` shows each check of an assignment as a test.

Where minicm is installed pytest finds this by itself; elsewhere: pytest -p minicm.course.plugin ...
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options; everything else is loaded only where they are used."""
    group = parser.getgroup("minicm", "grading an assignment of minicm")
    group.addoption("--assignment", help="a1, a2, ...: run the checks of this assignment and nothing else")
    group.addoption(
        "--submission", default=".", help="the folder with student.py and adapters.py (default: here)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> bool | None:
    """With --assignment: the checks in place of the tests that pytest would look for."""
    name = session.config.getoption("--assignment")
    if not name:
        return None
    from minicm.course.assignments import assignment_named
    from minicm.course.kit import title
    from minicm.course.session import Submission

    try:
        assignment = assignment_named(name)
        submission = Submission(assignment, Path(session.config.getoption("--submission")))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    session.config.add_cleanup(lambda: submission.__exit__())
    results = Results(assignment, submission)
    session.items = [
        Check.from_parent(
            session, name=f"{task.name}: {title(check)}", key=(task.name, title(check)), results=results
        )
        for task in assignment.tasks
        for _, check in task.checks
    ]
    session.config.hook.pytest_collection_modifyitems(
        session=session, config=session.config, items=session.items
    )
    session.testscollected = len(session.items)
    return True


class Results:
    """The outcomes by task and check, computed in order and only as far as they are asked for."""

    def __init__(self, assignment: Any, submission: Any) -> None:
        from minicm.course.kit import run

        self.known: dict[tuple[str, str], Any] = {}
        self.rest: Iterator[Any] = run(assignment, submission.impl)

    def __getitem__(self, key: tuple[str, str]) -> Any:
        while key not in self.known:
            result = next(self.rest)
            self.known[result.task, result.check] = result
        return self.known[key]


class Complaint(Exception):
    """A check that failed; the text is all there is to show."""


class Check(pytest.Item):
    """One check of an assignment as a test."""

    def __init__(self, *, key: tuple[str, str], results: Results, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.key, self.results = key, results

    def runtest(self) -> None:
        result = self.results[self.key]
        if not result.passed:
            raise Complaint(result.message)

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        return (
            str(excinfo.value)
            if isinstance(excinfo.value, Complaint)
            else super().repr_failure(excinfo, style)
        )

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name
