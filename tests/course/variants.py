"""What the graders are graded by: the assignments of this repository, their solutions, known mistakes, odd but right solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from minicm.course.load import assignment_in, module_at

ROOT = Path(__file__).resolve().parents[2]
HANDOUTS = ROOT / "notebooks" / "assignments"
ASSIGNMENTS = {path.parent.name: assignment_in(path.parent) for path in sorted(HANDOUTS.glob("*/checks.py"))}


def checks(name: str) -> ModuleType:
    """The module that holds the checks of an assignment."""
    return module_at(HANDOUTS / name / "checks.py")


def solution(name: str) -> ModuleType:
    """The worked solution of an assignment."""
    return module_at(HANDOUTS / name / "solution.py")


def variants(name: str, kind: str) -> tuple[Variant, ...]:
    """The MUTANTS of an assignment, or its odd but RIGHT solutions."""
    return getattr(module_at(ROOT / "tests" / "course" / "mutants" / f"{name}.py"), kind)


@dataclass(frozen=True)
class Variant:
    """A solution in which some functions are replaced: a mistake, or another way of being right (then says is empty)."""

    what: str  # the mistake, and where it has been seen
    says: str  # what the grader's first complaint must contain
    functions: dict[str, Callable]

    def on(self, solution: Any, names: tuple[str, ...]) -> SimpleNamespace:
        """The implementation: the solution's functions but for the replaced ones."""
        return SimpleNamespace(**{name: getattr(solution, name) for name in names} | self.functions)


def mutant(what: str, says: str, **functions: Callable) -> Variant:
    """A known mistake, and what the grader must say about it."""
    return Variant(what, says, functions)


def right(what: str, **functions: Callable) -> Variant:
    """An odd solution that must pass."""
    return Variant(what, "", functions)
