"""What leaves the house: handouts for students, a zip for Gradescope, an autograder for Classroom 50.

None holds a worked solution or a mutant; the graders' bundles hold the package, which is what a student installs, too.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import minicm
from minicm.course.kit import Assignment

PACKAGE = Path(minicm.__file__).resolve().parent
REPOSITORY = PACKAGE.parent
HANDOUTS = REPOSITORY / "notebooks" / "assignments"
PRIVATE = ("course/solutions", "course/mutants")  # of the package: never part of a bundle
PROJECT = ("pyproject.toml", "README.md", "LICENSE")  # what pip needs to install the package
CPU_TORCH = "https://download.pytorch.org/whl/cpu"


def export(assignments: list[Assignment], dest: Path) -> list[Path]:
    """Copy the handouts, a folder each, to a new folder. Returns the files; raises FileExistsError if dest exists."""
    if dest.exists():
        raise FileExistsError(f"{dest} exists: choose a new folder, so that nobody's work is written over")
    files = [path for assignment in assignments for path in handout(assignment)]
    for path in files:
        to = dest / path.relative_to(HANDOUTS)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    return [dest / path.relative_to(HANDOUTS) for path in files]


def handout(assignment: Assignment) -> list[Path]:
    """The files that a student receives. Raises ValueError where the repository is not at hand."""
    folder = HANDOUTS / assignment.name
    if not folder.is_dir():
        raise ValueError(f"{folder} is not there: the handouts are in minicm's repository; run this in a clone of it")
    return [folder / name for name in (f"{assignment.name}.ipynb", "student.py", "adapters.py")]


def gradescope_zip(assignment: Assignment, dest: Path, torch_index: str = CPU_TORCH) -> None:
    """The zip that Gradescope's autograder takes: setup.sh, run_autograder and the package.

    torch_index: where setup.sh gets torch from. Raises FileExistsError rather than writing over a file.
    """
    with zipfile.ZipFile(dest, "x", zipfile.ZIP_DEFLATED) as archive:
        for name, mode in (("setup.sh", 0o755), ("run_autograder", 0o755)):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, filled(f"gradescope_{name.removesuffix('.sh')}.sh", assignment, torch_index))
        for path, inside in package_files():
            archive.write(path, f"package/{inside}")


def classroom50(assignment: Assignment, dest: Path, torch_index: str = CPU_TORCH) -> None:
    """The folder CLASSROOM/autograders/ASSIGNMENT of Classroom 50: autograder.py and the package beside it.

    Raises FileExistsError if dest exists.
    """
    dest.mkdir(parents=True)
    (dest / "autograder.py").write_text(filled("classroom50.py", assignment, torch_index), encoding="utf-8")
    (dest / "runtime.json").write_text('{"runs-on": "ubuntu-latest", "python": "3.13"}\n', encoding="utf-8")
    for path, inside in package_files():
        to = dest / "package" / inside
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)


def package_files() -> Iterator[tuple[Path, str]]:
    """The files that pip needs to install minicm, without solutions and mutants, and their place in a bundle."""
    for name in PROJECT:
        if not (REPOSITORY / name).exists():
            raise ValueError(f"{REPOSITORY / name} is not there: run this in a clone of minicm's repository")
        yield REPOSITORY / name, name
    for path in sorted(PACKAGE.rglob("*")):
        inside = path.relative_to(PACKAGE).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and not inside.startswith(PRIVATE):
            yield path, f"minicm/{inside}"


def filled(template: str, assignment: Assignment, torch_index: str) -> str:
    """A template of this package with the assignment's name and torch's index filled in."""
    text = (resources.files("minicm.course") / "templates" / template).read_text(encoding="utf-8")
    return text.replace("@ASSIGNMENT@", assignment.name).replace("@TORCH_INDEX@", torch_index)
