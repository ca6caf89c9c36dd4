"""The commands `minicm grade` and `minicm course`, as functions."""

from json import dumps
from pathlib import Path
from typing import Literal

from minicm.course import grade as grading
from minicm.course.export import CPU_TORCH, all_assignments, classroom50, export, gradescope_zip
from minicm.course.load import assignment_in


def grade(
    folder: Path, path: Path, /, *, json: Path | None = None, csv: Path | None = None, hint: int = 0, seed: int = 0
) -> int:
    """Grade a submission of an assignment, in a process of its own.

    Args:
        folder: of the assignment, the one that holds checks.py
        path: of the submission, the folder with student.py; with --csv a folder of such folders
        json: write the report as Gradescope's results.json to this file
        csv: grade every folder in path, a line each in this new file
        hint: how many hints to show for what is not passed yet
        seed: of the statistical checks
    """
    assignment = assignment_in(folder)
    if csv is not None:
        grading.write_csv(csv, assignment, grading.grade_all(assignment, path, seed))
        print(csv)
        return 0
    report = grading.grade(assignment, path, seed)
    print(grading.table(report, hint))
    if json is not None:
        json.write_text(dumps(grading.gradescope(report), indent=1), encoding="utf-8")
    return 0


def course(
    what: Literal["export", "gradescope", "classroom50"],
    dest: Path,
    /,
    *,
    assignment: Path | None = None,
    torch_index: str = CPU_TORCH,
) -> int:
    """Write the handouts (export), or what an autograder needs (gradescope, classroom50).

    Args:
        what: export: notebooks, stubs and checks; gradescope: a zip; classroom50: a folder
        dest: what to write; never over something that exists
        assignment: its folder, which holds checks.py; export takes all in minicm's repository where none is given
        torch_index: where an autograder gets torch from; PyTorch's own index of CPU builds if not given
    """
    if what == "export":
        chosen = [assignment] if assignment else all_assignments()
        print("\n".join(map(str, export(chosen, dest))))
        return 0
    if assignment is None:
        raise ValueError(f"{what} grades one assignment: give its folder by --assignment")
    {"gradescope": gradescope_zip, "classroom50": classroom50}[what](assignment, dest, torch_index)
    print(dest)
    return 0
