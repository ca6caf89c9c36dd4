"""What all tests share: one thread, so that sums round the same everywhere; no deadlines, as machines are busy."""

import shutil
from pathlib import Path

import pytest
import torch
from exact import CLOCKS
from hypothesis import settings
from tiny import tiny

from minicm import GaussianMixture

torch.set_num_threads(1)
settings.register_profile("minicm", deadline=None)
settings.load_profile("minicm")


@pytest.fixture
def tiny_recipe():
    """The maker of tiny recipes: tiny_recipe(seed, steps=..., ...)."""
    return tiny


@pytest.fixture(params=CLOCKS.values(), ids=CLOCKS)
def clock(request):
    """Every clock of exact.py in turn."""
    return request.param


class Faulty:
    """A data set whose n-th batch (from 1) goes through a function; a single sample is no batch."""

    def __init__(self, n, fault):
        self.data, self.n, self.fault, self.calls = GaussianMixture.ring(), n, fault, 0

    def sample(self, n, generator):
        self.calls += n > 1
        x0, label = self.data.sample(n, generator)
        return (self.fault(x0) if n > 1 and self.calls == self.n else x0), label


@pytest.fixture
def faulty():
    return Faulty


@pytest.fixture
def hand_in_solution(tmp_path):
    """The folder of a student who has handed in the solution of an assignment."""

    def write(name):
        assignments = Path(__file__).parents[1] / "notebooks" / "assignments"
        shutil.copy(assignments / name / "solution.py", tmp_path / "student.py")
        return tmp_path

    return write
