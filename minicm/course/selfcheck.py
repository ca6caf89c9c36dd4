"""What the handout notebooks use: check a task where you stand, and run on where something is not written yet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from minicm.course.kit import outcome, raised, title
from minicm.course.load import assignment_in


def self_check(task: str, impl: Any, hints: int = 0, folder: Path = Path()) -> None:
    """Run the checks of one task on your functions, in this process, and print what they say.

    task: its number or name; impl: your module; hints: how many to show; folder: where checks.py is, the current one if
    not given, which for a notebook is its own. Raises ValueError for a task that is not there.
    """
    assignment = assignment_in(folder)
    chosen = [t for t in assignment.tasks if t.name == task or t.name.split()[0] == task]
    if not chosen:
        known = ", ".join(t.name for t in assignment.tasks)
        raise ValueError(f"{assignment.name} has no task {task!r}: choose from {known}")
    for i, (points, check) in enumerate(chosen[0].checks):
        message = outcome(check, impl)
        print(f"{'FAIL' if message else 'ok  '} {points}  {title(check)}" + (f"\n        {message}" if message else ""))
        if message and i == 0:
            print("        (the other checks of this task are run when this one passes)")
            break
    print(*(f"hint {i}: {hint}" for i, hint in enumerate(chosen[0].hints[:hints], 1)), sep="\n", end="")


def attempt(run: Callable[[], Any]) -> Any:
    """A decorator that runs a cell's function at once and gives its result, or says which function is not written yet."""
    try:
        return run()
    except NotImplementedError as error:
        print(f"{raised(error)}: write it in student.py, then run this cell again")
        return None
