"""What the tests of several assignments share."""

from __future__ import annotations

import shutil

import pytest
from variants import solution


@pytest.fixture
def hand_in_solution(tmp_path):
    """The folder of a student who has handed in the solution of an assignment."""

    def write(name):
        shutil.copy(solution(name).__file__, tmp_path / "student.py")
        return tmp_path

    return write
