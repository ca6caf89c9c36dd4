"""Known mistakes and odd but right solutions, by which the checks are tested; `minicm course export` leaves them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


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
