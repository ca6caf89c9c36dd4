"""What leaves the house: handouts for students, a zip for Gradescope, a folder for Classroom 50.

A handout is the notebook, the stubs and the checks; an autograder gets the package, the checks and what these find beside them.
"""

import shutil
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import minicm
from minicm.course.load import assignment_in

PACKAGE = Path(minicm.__file__).resolve().parent
REPOSITORY = PACKAGE.parent
HANDOUTS = REPOSITORY / "notebooks" / "assignments"
PROJECT = ("pyproject.toml", "README.md", "LICENSE")  # what pip needs to install the package
CPU_TORCH = "https://download.pytorch.org/whl/cpu"


def all_assignments() -> list[Path]:
    """The folders of the assignments in minicm's repository. Raises ValueError where it is not at hand."""
    if not HANDOUTS.is_dir():
        raise ValueError(f"{HANDOUTS} is not there: run this in a clone of minicm's repository, or give --assignment")
    return [path.parent for path in sorted(HANDOUTS.glob("*/checks.py"))]


def export(folders: list[Path], dest: Path) -> list[Path]:
    """Copy the handouts, a folder each, to a new folder; returns the files.

    Raises ValueError where a file is missing, FileExistsError if dest exists.
    """
    if dest.exists():
        raise FileExistsError(f"{dest} exists: choose a new folder, so that nobody's work is written over")
    files = [path for folder in folders for path in handout(folder.resolve())]
    for path in files:
        copy(path, dest / path.parent.name / path.name)
    return [dest / path.parent.name / path.name for path in files]


def handout(folder: Path) -> list[Path]:
    """The files of an assignment that a student receives. Raises ValueError where one is missing."""
    files = [folder / name for name in (f"{folder.name}.ipynb", "student.py", "checks.py")]
    for path in files:
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: a handout is a notebook named as its folder, student.py and checks.py"
            )
    return files


def gradescope_zip(folder: Path, dest: Path, torch_index: str = CPU_TORCH) -> None:
    """The zip that Gradescope's autograder takes: setup.sh, run_autograder, the package and the assignment.

    torch_index: where setup.sh gets torch from. Raises FileExistsError rather than writing over a file.
    """
    files = list(bundled(folder))
    with zipfile.ZipFile(dest, "x", zipfile.ZIP_DEFLATED) as archive:
        for name in ("setup.sh", "run_autograder"):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o755 << 16
            archive.writestr(info, filled(f"gradescope_{name.removesuffix('.sh')}.sh", torch_index))
        for path, inside in files:
            archive.write(path, inside)


def classroom50(folder: Path, dest: Path, torch_index: str = CPU_TORCH) -> None:
    """The folder CLASSROOM/autograders/ASSIGNMENT of Classroom 50: autograder.py, the package and the assignment.

    Raises FileExistsError if dest exists.
    """
    files = list(bundled(folder))
    dest.mkdir(parents=True)
    (dest / "autograder.py").write_text(filled("classroom50.py", torch_index), encoding="utf-8")
    (dest / "runtime.json").write_text('{"runs-on": "ubuntu-latest", "python": "3.13"}\n', encoding="utf-8")
    for path, inside in files:
        copy(path, dest / inside)


def bundled(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files that grade an assignment, and their place in a bundle: package/ for pip, assignment/ for the checks."""
    for path in (folder / "checks.py", *assignment_in(folder).beside):
        yield path, f"assignment/{path.name}"
    for name in PROJECT:
        if not (REPOSITORY / name).exists():
            raise ValueError(f"{REPOSITORY / name} is not there: run this in a clone of minicm's repository")
        yield REPOSITORY / name, f"package/{name}"
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path, f"package/minicm/{path.relative_to(PACKAGE).as_posix()}"


def copy(path: Path, to: Path) -> None:
    """Copy a file, with the folders that it needs."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def filled(template: str, torch_index: str) -> str:
    """A template of this package with torch's index filled in."""
    text = (resources.files("minicm.course") / "templates" / template).read_text(encoding="utf-8")
    return text.replace("@TORCH_INDEX@", torch_index)
