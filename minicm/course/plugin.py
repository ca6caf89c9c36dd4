"""The pytest view: `pytest --assignment FOLDER --submission PATH` shows each check of an assignment as a test.

Where minicm is installed pytest finds this by itself; elsewhere: pytest -p minicm.course.plugin ...
It is loaded at every start of pytest there, so what it needs it imports where an assignment is asked for.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def pytest_addoption(parser: Any) -> None:
    """The two options."""
    group = parser.getgroup("minicm", "grading an assignment of minicm")
    group.addoption("--assignment", help="a folder with checks.py: run these and nothing else")
    group.addoption("--submission", default=".", help="the folder with student.py (default: here)")


def pytest_collection(session: Any) -> bool | None:
    """With --assignment: the checks in place of the tests that pytest would look for."""
    folder = session.config.getoption("--assignment")
    if not folder:
        return None
    import pytest

    from minicm.course.load import assignment_in
    from minicm.course.session import Submission

    try:
        assignment = assignment_in(Path(folder))
        submission = Submission(assignment, Path(session.config.getoption("--submission")))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    session.config.add_cleanup(lambda: submission.__exit__())
    session.items = items(session, assignment, submission)
    session.config.hook.pytest_collection_modifyitems(session=session, config=session.config, items=session.items)
    session.testscollected = len(session.items)
    return True


def items(session: Any, assignment: Any, submission: Any) -> list[Any]:
    """A pytest item for each check; their outcomes are computed in order, and only as far as they are asked for."""
    import pytest

    from minicm.course.kit import Result, run, title

    rest: Iterator[Result] = run(assignment, submission.impl)
    known: dict[tuple[str, str], Result] = {}

    class Complaint(Exception):
        """A check that failed; the text is all there is to show."""

    class Check(pytest.Item):
        """One check of an assignment as a test."""

        def __init__(self, *, key: tuple[str, str], **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.key = key

        def runtest(self) -> None:
            while self.key not in known:
                result = next(rest)
                known[result.task, result.check] = result
            if not known[self.key].passed:
                raise Complaint(known[self.key].message)

        def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
            ours = isinstance(excinfo.value, Complaint)
            return str(excinfo.value) if ours else super().repr_failure(excinfo, style)

        def reportinfo(self) -> tuple[Path, None, str]:
            return self.path, None, self.name

    pairs = [(task.name, title(check)) for task in assignment.tasks for _, check in task.checks]
    return [Check.from_parent(session, name=": ".join(pair), key=pair) for pair in pairs]
