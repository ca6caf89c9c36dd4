"""The four toy shapes: exact moments, where the points lie, what the labels mean, seeds and refusals."""

import math

import pytest
import torch
from exact import refused, seeded

from minicm.data.toy import Checkerboard, Pinwheel, Spiral, TwoMoons

SHAPES = [TwoMoons(), TwoMoons(noise=0.3), Checkerboard(), Checkerboard(cells=2)]
SHAPES += [Pinwheel(), Pinwheel(arms=3, radial=0.5, twist=1.0), Spiral(), Spiral(turns=1, noise=0.0)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mean_is_zero_and_standard_deviation_one_half(shape):
    x0, _ = shape.sample(100_000, seeded())
    # Bounds are 5 standard errors (false alarms: 6e-7 each, 32 comparisons), measured from the sample.
    n = len(x0)
    assert (x0.mean(0).abs() < 5 * x0.std(0) / math.sqrt(n)).all()
    square = x0.square()
    assert ((square.mean(0) - 0.25).abs() < 5 * square.std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_dtypes_labels_and_seeds(shape):
    x0, label = shape.sample(1000, seeded(1))
    assert x0.shape == (1000, 2) and x0.dtype == torch.get_default_dtype()
    assert label.shape == (1000,) and label.dtype == torch.int64
    # every class is met: the rarest of 5 is missed by 1000 draws with probability 5 * .8^1000
    assert label.unique().tolist() == list(range(shape.classes))
    again, label_again = shape.sample(1000, seeded(1))
    assert torch.equal(x0, again) and torch.equal(label, label_again)
    assert not torch.equal(x0, shape.sample(1000, seeded(2))[0])
    assert shape.sample(3)[0].shape == (3, 2)  # torch's own generator


def test_default_dtype_is_followed():
    torch.set_default_dtype(torch.float64)
    try:
        assert all(shape.sample(4, seeded())[0].dtype == torch.float64 for shape in SHAPES)
    finally:
        torch.set_default_dtype(torch.float32)


def test_moons_are_the_two_half_circles_of_the_textbook():
    x0, label = TwoMoons(noise=0.0).sample(2000, seeded())
    x = x0[:, 0] * math.sqrt(3 / 4) / 0.5 + 1 / 2
    y = x0[:, 1] * math.sqrt(9 / 16 - 1 / math.pi) / 0.5 + 1 / 4
    upper = label == 0
    # 1e-5: a few float32 roundings of numbers of order 1
    torch.testing.assert_close(torch.hypot(x, y)[upper], torch.ones(upper.sum()), atol=1e-5, rtol=0)
    lower = torch.hypot(x - 1, y - 1 / 2)[~upper]
    torch.testing.assert_close(lower, torch.ones(len(lower)), atol=1e-5, rtol=0)
    assert (y[upper] > -1e-5).all() and (y[~upper] < 0.5 + 1e-5).all()


@pytest.mark.parametrize("cells", [2, 4, 6])
def test_checkerboard_fills_every_other_square_evenly(cells):
    x0, _ = Checkerboard(cells).sample(20_000, seeded())
    square = ((x0 / math.sqrt(3) + 1 / 2) * cells).floor().long()  # the board is sqrt(3) wide
    # a point within float32 rounding of an edge may be counted next door: allow 5 in 20,000
    assert (square.sum(1) % 2 == 0).float().mean() > 1 - 5 / 20_000
    count = torch.bincount(square.clamp(0, cells - 1) @ torch.tensor([cells, 1]))
    filled = count[count > 5]
    expected = 20_000 / (cells**2 / 2)
    assert len(filled) == cells**2 // 2
    # each count is binomial: 5 standard deviations, false alarms 6e-7 a square
    assert ((filled - expected).abs() < 5 * math.sqrt(expected)).all()


def test_pinwheel_blades_are_turned_copies_of_each_other():
    shape = Pinwheel()
    x0, label = shape.sample(50_000, seeded())
    back = -2 * math.pi / shape.arms * label
    x = back.cos() * x0[:, 0] - back.sin() * x0[:, 1]
    y = back.sin() * x0[:, 0] + back.cos() * x0[:, 1]
    for coordinate in (x, y):
        means = torch.stack([coordinate[label == k].mean() for k in range(shape.arms)])
        # 10,000 points a blade, standard deviation below .25: standard error < .0025; 6 of them
        assert (means - means.mean()).abs().max() < 0.015
    # a blade stays on its own side: its mean is far from the middle, its own bend apart
    assert math.hypot(x.mean(), y.mean()) > 0.4


def test_spiral_without_blur_has_its_radius_equal_to_its_angle():
    shape = Spiral(turns=3, noise=0.0)
    x0, _ = shape.sample(5000, seeded())
    end = 6 * math.pi
    x = x0[:, 0] / 0.5 * math.sqrt(end**2 / 4 + 3 / 4 - 16 / end**2) + 4 / end
    y = x0[:, 1] / 0.5 * math.sqrt(end**2 / 4 - 19 / 4) - 2
    radius = torch.hypot(x, y)
    turned = (torch.atan2(y, x) - radius) / (2 * math.pi)
    outside = radius > 1  # nearer the middle the angle is ill-conditioned
    # whole turns apart; 1e-4: float32 roundings of radii up to 19
    assert (turned - turned.round())[outside].abs().max() < 1e-4
    assert radius.max() <= end * (1 + 1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TwoMoons(noise=0.5), "noise = 0.5"),
        (lambda: TwoMoons(noise=-0.1), "noise = -0.1"),
        (lambda: Spiral(noise=math.nan), "noise = nan"),
        (lambda: Spiral(turns=0), "turns = 0"),
        (lambda: Spiral(turns=1.5), "turns = 1.5"),
        (lambda: Checkerboard(cells=3), "cells = 3"),
        (lambda: Checkerboard(cells=0), "cells = 0"),
        (lambda: Pinwheel(arms=2), "arms = 2"),
        (lambda: Pinwheel().sample(0), "n = 0"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, words):
    refused(words, make)
