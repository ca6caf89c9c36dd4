"""Four usual 2-D shapes that are no Gaussian mixtures: two moons, checkerboard, pinwheel, spiral.

They have no exact answer (that is what `mixtures` is for), but everybody knows how they should look. Each has mean 0 and
standard deviation 0.5 in each of its two dimensions, exactly: the moments of the shape are known in closed form (derived in
each class) and divided out. A blur is added after that, in the data's own unit, and the shape gives way for it:
0.5^2 = shape^2 + noise^2.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Source = dict[str, Any]  # where random numbers come from, as keywords of torch.rand and its like
Drawn = tuple[Tensor, Tensor, tuple[float, float], Tensor]  # x (n,), y (n,), their variances, label (n,)


class Shape:
    """What the four share: each draws centred points in a unit of its own, which are then scaled and blurred.

    Raises ValueError for noise outside [0, 0.5).
    """

    noise = 0.0  # standard deviation of the blur, in the unit of x0
    sigma_data = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.noise < self.sigma_data:
            raise ValueError(f"noise = {self.noise}: the blur must be in [0, 0.5), 0.5 being all the data's")

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points: x0 (n, 2) in torch's default dtype, label (n,) int64 in [0, classes), on the generator's device.

        Without a generator torch's own is taken. Raises ValueError for n < 1.
        """
        if n < 1:
            raise ValueError(f"n = {n}: ask for at least one sample")
        source: Source = {"generator": generator, "device": None if generator is None else generator.device}
        x, y, variances, label = self.points(n, source)
        room = math.sqrt(self.sigma_data**2 - self.noise**2)
        x0 = torch.stack([z * (room / math.sqrt(var)) for z, var in zip((x, y), variances)], dim=1)
        return (x0 + self.noise * torch.randn(x0.shape, **source) if self.noise else x0), label

    def points(self, n: int, source: Source) -> Drawn:
        """n points of mean 0, in the shape's own unit."""
        raise NotImplementedError


@dataclass(frozen=True)
class TwoMoons(Shape):
    """Two interlocking half circles; label 0 is the upper moon, 1 the lower.

    The upper moon is (cos a, sin a), the lower (1 - cos a, 1/2 - sin a), a uniform on [0, pi]. About their common centre
    (1/2, 1/4) they are plus and minus (cos a - 1/2, sin a - 1/4): the mean is 0, the variances are 1/2 + 1/4 = 3/4 and
    1/2 - (2/pi)/2 + 1/16 = 9/16 - 1/pi. Raises ValueError for noise outside [0, 0.5).
    """

    noise: float = 0.04  # standard deviation of the blur, in the unit of x0
    name = "moons"
    classes = 2

    def points(self, n: int, source: Source) -> Drawn:
        label = torch.randint(2, (n,), **source)
        angle = math.pi * torch.rand(n, **source)
        sign = 1 - 2 * label
        x, y = sign * (angle.cos() - 1 / 2), sign * (angle.sin() - 1 / 4)
        return x, y, (3 / 4, 9 / 16 - 1 / math.pi), label


@dataclass(frozen=True)
class Checkerboard(Shape):
    """Uniform on every other square of a board, the one at lower left among them; label 0.

    Every row and every column holds as many filled squares, so x and y are each uniform over a side of `cells` squares:
    mean 0 about the middle, variance cells^2/12. Once scaled, the board is [-sqrt(3)/2, sqrt(3)/2]^2 whatever `cells` is.
    Raises ValueError unless `cells` is even and at least 2.
    """

    cells: int = 4  # squares along a side, filled and empty together
    name = "checkerboard"
    classes = 1

    def __post_init__(self) -> None:
        if self.cells < 2 or self.cells % 2:
            raise ValueError(f"cells = {self.cells}: a side needs an even number of squares, >= 2")

    def points(self, n: int, source: Source) -> Drawn:
        column = torch.randint(self.cells, (n,), **source)
        row = 2 * torch.randint(self.cells // 2, (n,), **source) + column % 2
        x = column + torch.rand(n, **source) - self.cells / 2
        y = row + torch.rand(n, **source) - self.cells / 2
        return x, y, (self.cells**2 / 12, self.cells**2 / 12), torch.zeros_like(column)


@dataclass(frozen=True)
class Pinwheel(Shape):
    """Gaussian blades around the middle, bent the more the farther out; the label is the blade, counter-clockwise.

    The usual pinwheel (Johnson et al., arXiv:1603.06277, draw it): a point (1 + radial z1, tangential z2) is turned by
    2 pi label/arms + twist exp(its first coordinate). With three arms or more, the turns by 2 pi label/arms make the mean 0
    and the covariance a multiple of the identity; turning keeps lengths, so the variance is half the mean squared length,
    (1 + radial^2 + tangential^2)/2. Raises ValueError for fewer than 3 arms.
    """

    arms: int = 5  # number of blades
    radial: float = 0.3  # standard deviation along a blade, in units of its distance from the middle
    tangential: float = 0.08  # standard deviation across a blade, same unit
    twist: float = 0.25  # radians, times exp(distance)
    name = "pinwheel"

    def __post_init__(self) -> None:
        if self.arms < 3:
            raise ValueError(f"arms = {self.arms}: a pinwheel needs 3 or more to be round")

    @property
    def classes(self) -> int:
        """Number of labels: one a blade."""
        return self.arms

    def points(self, n: int, source: Source) -> Drawn:
        label = torch.randint(self.arms, (n,), **source)
        along = 1 + self.radial * torch.randn(n, **source)
        across = self.tangential * torch.randn(n, **source)
        turn = 2 * math.pi / self.arms * label + self.twist * along.exp()
        x = turn.cos() * along - turn.sin() * across
        y = turn.sin() * along + turn.cos() * across
        variance = (1 + self.radial**2 + self.tangential**2) / 2
        return x, y, (variance, variance), label


@dataclass(frozen=True)
class Spiral(Shape):
    """One arm of Archimedes' spiral: (a cos a, a sin a), a in [0, A], A = 2 pi turns; label 0.

    a = A sqrt(u), u uniform on [0, 1], has density 2a/A^2: even along the arm, but for the middle. Integrating by parts,
    the mean is (4/A, -2), E[x^2] = A^2/4 + 3/4 and E[y^2] = A^2/4 - 3/4.
    Raises ValueError for noise outside [0, 0.5), and unless turns is a whole number, at least 1.
    """

    turns: int = 2  # full turns of the arm
    noise: float = 0.02  # standard deviation of the blur, in the unit of x0
    name = "spiral"
    classes = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.turns < 1 or self.turns % 1:
            raise ValueError(f"turns = {self.turns}: a spiral needs a whole number of turns, >= 1")

    def points(self, n: int, source: Source) -> Drawn:
        end = 2 * math.pi * self.turns
        angle = end * torch.rand(n, **source).sqrt()
        x, y = angle * angle.cos() - 4 / end, angle * angle.sin() + 2
        variance = end**2 / 4 + 3 / 4 - 16 / end**2, end**2 / 4 - 3 / 4 - 4
        return x, y, variance, torch.zeros_like(angle, dtype=torch.int64)
