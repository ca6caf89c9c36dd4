"""Grading: one submission or a folder of them, told as a table, as Gradescope's results.json, or as CSV."""

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minicm.course.kit import Assignment, Result, run
from minicm.course.session import Limits, Submission


@dataclass(frozen=True)
class Report:
    """What grading a submission gave."""

    assignment: Assignment
    results: tuple[Result, ...]
    notices: tuple[str, ...]  # about the submission as a whole
    printed: str  # the beginning of what it printed
    seconds: float

    @property
    def score(self) -> int:
        """The points earned."""
        return sum(result.score for result in self.results)


def grade(assignment: Assignment, path: Path, seed: int = 0, limits: Limits = Limits()) -> Report:
    """Grade the submission in a folder, in a process of its own. Raises ValueError where there is none."""
    start = time.monotonic()
    with Submission(assignment, path, limits) as submission:
        results = tuple(run(assignment, submission.impl, seed))
        printed = submission.printed
    notices = (*filter(None, [assignment.note]), *submission.notices)
    return Report(assignment, results, notices, printed, time.monotonic() - start)


def grade_all(assignment: Assignment, folder: Path, seed: int = 0) -> Iterator[tuple[str, Report | str]]:
    """Grade every folder in a folder: (name, report), or (name, why there is none). Raises ValueError for no folders."""
    paths = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if not paths:
        raise ValueError(f"{folder} holds no folders: give the one that has a folder for each submission")

    def graded(path: Path) -> Report | str:
        try:
            return grade(assignment, path, seed)
        except (ValueError, OSError) as error:
            return str(error)

    return ((path.name, graded(path)) for path in paths)


def table(report: Report, hints: int = 0) -> str:
    """The report as a student reads it: tasks, checks, what is wrong, and as many hints as asked for."""
    about = report.assignment
    lines = [f"{about.name}  {about.title}: {report.score} of {about.points} points"]
    for task in about.tasks:
        own = [result for result in report.results if result.task == task.name]
        lines += ["", f"{task.name}: {sum(r.score for r in own)} of {task.points}"]
        for result in own:
            lines.append(f"  {'ok  ' if result.passed else 'FAIL'} {result.score}/{result.points}  {result.check}")
            lines += [] if result.passed else [f"            {result.message}"]
        if not all(result.passed for result in own):
            lines += [f"       hint {i}: {hint}" for i, hint in enumerate(task.hints[:hints], 1)]
            more = len(task.hints) - hints
            lines += [f"       ({more} more: --hint {hints + 1})"] if more > 0 else []
    lines += ["", *(f"note: {notice}" for notice in report.notices)]
    lines += [f"printed by the submission (the beginning):\n{report.printed}"] if report.printed else []
    return "\n".join(lines).rstrip()


def gradescope(report: Report) -> dict[str, Any]:
    """The report in the form of Gradescope's results.json (its autograder specification)."""
    shown, tests = {"output_format": "text", "visibility": "visible"}, []
    for r in report.results:
        what = {"name": f"{r.task}: {r.check}", "status": "passed" if r.passed else "failed", "output": r.message}
        tests.append(what | shown | {"score": r.score, "max_score": r.points})
    output = "\n".join([f"{report.score} of {report.assignment.points} points", *report.notices])
    whole = {"score": report.score, "execution_time": round(report.seconds, 1), "output": output}
    return whole | shown | {"stdout_visibility": "hidden", "tests": tests}


def write_csv(path: Path, assignment: Assignment, rows: Iterator[tuple[str, Report | str]]) -> None:
    """One row a submission: name, score, points of every task, seconds, the first complaint. Written as grading goes.

    Raises FileExistsError rather than writing over a file.
    """
    with open(path, "x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        tasks = (task.name for task in assignment.tasks)
        writer.writerow(["submission", "score", "of", *tasks, "seconds", "first complaint"])
        for name, report in rows:
            if isinstance(report, str):
                writer.writerow([name, 0, assignment.points, *(0 for _ in assignment.tasks), 0, report])
            else:
                own = [sum(r.score for r in report.results if r.task == t.name) for t in assignment.tasks]
                first = next((r.message for r in report.results if not r.passed), "")
                writer.writerow([name, report.score, assignment.points, *own, round(report.seconds, 1), first])
            file.flush()
