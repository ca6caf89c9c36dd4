"""TODO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

import torch

from minicm.data import toy
from minicm.data.mixtures import GaussianMixture
from minicm.train import Data

DataName = Literal["ring", "grid", "random", "moons", "checkerboard", "pinwheel", "spiral"]


@overload
def points_named(name: Literal["ring", "grid", "random"]) -> GaussianMixture: ...


@overload
def points_named(name: DataName) -> Data: ...


def points_named(name: DataName) -> Data:
    """The data set of a name: three mixtures with an exact answer, four shapes without."""
    makers: dict[str, Callable[[], Data]] = {
        "ring": GaussianMixture.ring,
        "grid": GaussianMixture.grid,
        "random": GaussianMixture.random,
        "moons": toy.TwoMoons,
        "checkerboard": toy.Checkerboard,
        "pinwheel": toy.Pinwheel,
        "spiral": toy.Spiral,
    }
    if name not in makers:
        raise ValueError(f"data must be one of {', '.join(makers)}, got {name!r}")
    return makers[name]()


CLASSES = 2


MixtureName = Literal["ring", "grid", "random", "tilted", "turned"]


def classed(name: MixtureName) -> GaussianMixture:
    """A mixture whose modes are in turn of class 0 and class 1; the ring, tilted by 10 and turned by 22.5 degrees.

    22.5 degrees is half the angle between neighbours, as far as a ring of eight can be turned.
    """
    makers: dict[str, Callable[..., GaussianMixture]] = {
        "ring": GaussianMixture.ring,
        "grid": GaussianMixture.grid,
        "random": GaussianMixture.random,
        "tilted": lambda classes: turned(GaussianMixture.ring(classes=classes), 10.0),
        "turned": lambda classes: turned(GaussianMixture.ring(classes=classes), 22.5),
    }
    if name not in makers:
        raise ValueError(f"data must be one of {', '.join(makers)}, got {name!r}")
    return makers[name](classes=CLASSES)


def turned(mixture: GaussianMixture, degrees: float) -> GaussianMixture:
    """A mixture in the plane, turned about the origin."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return GaussianMixture(mixture.means @ turn.T, turn @ mixture.covs @ turn.T, mixture.weights, mixture.labels)


ExactName = Literal["ring", "grid", "random"]
