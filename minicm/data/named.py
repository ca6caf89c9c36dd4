"""The data sets that go by a name: what a checkpoint's header and the command call them.

Points are made here; digits and CIFAR-10, whose makers take folders and devices, say their names themselves.
"""

from collections.abc import Callable
from typing import Literal, overload

import torch

from minicm.data import toy
from minicm.data.mixtures import GaussianMixture
from minicm.train import Data

ExactName = Literal["ring", "grid", "random"]
MixtureName = Literal["ring", "grid", "random", "tilted", "turned"]
DataName = Literal["ring", "grid", "random", "moons", "checkerboard", "pinwheel", "spiral"]

CLASSES = 2  # of mixtures with classes

MIXTURES: dict[str, Callable[[int], GaussianMixture]] = {  # their modes are in turn of class 0, 1, ...
    "ring": lambda classes: GaussianMixture.ring(classes=classes),
    "grid": lambda classes: GaussianMixture.grid(classes=classes),
    "random": lambda classes: GaussianMixture.random(classes=classes),
    "tilted": lambda classes: turned(GaussianMixture.ring(classes=classes), 10.0),
    "turned": lambda classes: turned(GaussianMixture.ring(classes=classes), 22.5),  # half the angle between neighbours
}
SHAPES: dict[str, Callable[[], Data]] = {
    "moons": toy.TwoMoons,
    "checkerboard": toy.Checkerboard,
    "pinwheel": toy.Pinwheel,
    "spiral": toy.Spiral,
}
NAMES = (*MIXTURES, *SHAPES, "digits", "cifar10")


@overload
def points_named(name: MixtureName, classes: int = 1) -> GaussianMixture: ...


@overload
def points_named(name: str, classes: int = 1) -> Data: ...


def points_named(name: str, classes: int = 1) -> Data:
    """The data set of a name: a mixture, with an exact answer, in one class or more; or a shape without one.

    Raises ValueError for a name that there is not.
    """
    if name in SHAPES:
        return SHAPES[name]()
    if name not in MIXTURES:
        raise ValueError(f"data must be one of {', '.join([*MIXTURES, *SHAPES])}, got {name!r}")
    mixture = MIXTURES[name](classes)
    mixture.name = name
    return mixture


def classed(name: MixtureName) -> GaussianMixture:
    """A mixture in two classes."""
    return points_named(name, CLASSES)


def turned(mixture: GaussianMixture, degrees: float) -> GaussianMixture:
    """A mixture in the plane, turned about the origin."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return GaussianMixture(mixture.means @ turn.T, turn @ mixture.covs @ turn.T, mixture.weights, mixture.labels)
