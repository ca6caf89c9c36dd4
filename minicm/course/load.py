"""An assignment is a folder: its checks.py is loaded by path, so that nothing in minicm knows which assignments there are."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from minicm.course.kit import Assignment


def assignment_in(folder: Path) -> Assignment:
    """The assignment of a folder: ASSIGNMENT of its checks.py. Raises ValueError where there is none."""
    path = Path(folder) / "checks.py"
    if not path.is_file():
        raise ValueError(f"{folder} holds no checks.py: give the folder of an assignment")
    assignment = getattr(module_at(path), "ASSIGNMENT", None)
    if not isinstance(assignment, Assignment):
        raise ValueError(f"{path} defines no ASSIGNMENT: it must end with one")
    return dataclasses.replace(assignment, folder=path.resolve().parent)


def module_at(path: Path) -> ModuleType:
    """The module in a file, loaded once, under a name that no import statement can reach."""
    path = Path(path).resolve()
    name = f"{path.stem} in {path.parent}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def kept_from_submissions(folder: Path) -> list[str]:
    """The folders whose files a submission must not read: an assignment's, those beside it, in a clone the course's tests."""
    tests = folder.parent.parent.parent / "tests" / "course"
    return [*(str(path.parent) for path in folder.parent.glob("*/checks.py")), str(tests), str(tests / "mutants")]
