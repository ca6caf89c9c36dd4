"""The assignments by name."""

from __future__ import annotations

from minicm.course.a1 import A1
from minicm.course.a2 import A2
from minicm.course.a3 import A3
from minicm.course.a4 import A4
from minicm.course.a5 import A5
from minicm.course.a6 import A6
from minicm.course.b1 import B1
from minicm.course.b2 import B2
from minicm.course.kit import Assignment

ASSIGNMENTS: dict[str, Assignment] = {a.name: a for a in (A1, A2, A3, A4, A5, A6, B1, B2)}


def assignment_named(name: str) -> Assignment:
    """The assignment of a name. Raises ValueError for an unknown one."""
    if name not in ASSIGNMENTS:
        raise ValueError(f"there is no assignment {name!r}: choose from {', '.join(ASSIGNMENTS)}")
    return ASSIGNMENTS[name]
