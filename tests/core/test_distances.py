"""The distances against values worked by hand; one number a sample, over the whole sample."""

import math

import pytest
import torch
from exact import normal, refused

from minicm.distances import l1, l2, pseudo_huber

A = torch.tensor([[3.0, -4.0], [0.0, 0.0]], dtype=torch.float64)
O = torch.zeros_like(A)
EVERY = {"l1": l1, "l2": l2, "huber": pseudo_huber(0.3), "norm": pseudo_huber(0.0)}


def test_values_worked_by_hand():
    assert l1(A, O).tolist() == [7, 0]
    assert l2(A, O).tolist() == [25, 0]
    assert pseudo_huber(0.0)(A, O).tolist() == [5, 0]
    assert pseudo_huber(12.0)(A, O).tolist() == pytest.approx([13 - 12, 0], rel=1e-15)  # 5, 12, 13; a rounding


def test_pseudo_huber_is_taken_over_the_whole_image():
    # iCT's c for CIFAR-10 and a residual of .05 everywhere: 2.74 an image, where the mean over elements would be .028
    c = 0.00054 * math.sqrt(3072)
    image = torch.full((2, 3, 32, 32), 0.05, dtype=torch.float64)
    assert c == pytest.approx(0.02993, abs=5e-6)  # the last printed digit
    value = pseudo_huber(c)(image, torch.zeros_like(image))
    # from the definition, to the rounding of a sum of 3072 numbers
    assert value.tolist() == pytest.approx([math.sqrt(3072 * 0.05**2 + c * c) - c] * 2, rel=1e-12)


@pytest.mark.parametrize("distance", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("shape", [(5, 2), (8, 3, 8, 8), (4, 7)], ids=str)
def test_one_number_a_sample(distance, shape):
    a, b = normal(*shape, seed=1), normal(*shape, seed=2)
    d = distance(a, b)
    assert d.shape == shape[:1] and (d > 0).all()
    torch.testing.assert_close(distance(b, a), d)  # symmetric; the default float64 tolerance, 1e-7
    for i in range(len(a)):
        torch.testing.assert_close(distance(a[i : i + 1], b[i : i + 1]), d[i : i + 1], rtol=1e-13, atol=0)
    assert distance(a, a).abs().max() == 0


def test_pseudo_huber_lies_between_its_limits():
    c, b = 0.3, torch.zeros(1, 2, dtype=torch.float64)
    near, far = torch.full((1, 2), 1e-6 * c), torch.full((1, 2), 1e6 * c)
    # r^2/(2c) for r << c, to (r/c)^2 = 1e-12, and r - c for r >> c, to c/r = 1e-6 of it
    assert pseudo_huber(c)(near.double(), b).item() == pytest.approx(l2(near.double(), b).item() / (2 * c), rel=1e-11)
    r = l2(far.double(), b).sqrt().item()
    assert pseudo_huber(c)(far.double(), b).item() == pytest.approx(r - c, rel=1e-6)


def test_pseudo_huber_does_not_cancel_in_float32():
    c, r = 1.0, 1e-4  # sqrt(r^2 + c^2) - c is 5e-9, below the float32 rounding of c
    exact = r * r / (math.sqrt(r * r + c * c) + c)
    got = pseudo_huber(c)(torch.tensor([[r]]), torch.tensor([[0.0]])).item()
    assert got == pytest.approx(exact, rel=1e-6)  # some float32 roundings, 6e-8 each


@pytest.mark.parametrize("distance", EVERY.values(), ids=EVERY)
def test_the_slope_at_zero_is_zero_not_infinite(distance):
    a = torch.zeros(3, 2, requires_grad=True)
    distance(a, torch.zeros(3, 2)).sum().backward()
    assert a.grad.abs().max() == 0


@pytest.mark.parametrize("distance", EVERY.values(), ids=EVERY)
def test_shapes_that_would_broadcast_are_refused(distance):
    refused(r"one shape, got \(4, 1\), \(1, 4\)", lambda: distance(torch.ones(4, 1), torch.ones(1, 4)))


@pytest.mark.parametrize("c", [-1.0, math.nan])
def test_a_negative_c_is_refused(c):
    refused(f"got {c}", lambda: pseudo_huber(c))
