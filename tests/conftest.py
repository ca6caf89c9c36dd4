"""What all tests share: one thread, so that sums round the same everywhere; no deadlines, as machines are busy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from tiny import tiny

from minicm.data.mixtures import GaussianMixture

torch.set_num_threads(1)
settings.register_profile("minicm", deadline=None)
settings.load_profile("minicm")


@pytest.fixture
def tiny_recipe():
    """The maker of tiny recipes: tiny_recipe(seed, steps=..., ...)."""
    return tiny


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
