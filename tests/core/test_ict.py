"""iCT (arXiv:2310.14189): its curriculum, its draw, its loss by hand, and why its target must not lag."""

import math

import pytest
import torch
from exact import refused

from minicm import EDM, ICT, l2, pseudo_huber
from minicm.objectives.base import Draw
from minicm.times import LogNormalIndex, doubling_points, karras_grid


def times_drawn(objective: ICT, k: int, K: int, n: int = 4000) -> Draw:
    return objective.draw(torch.zeros(n, 1), None, k, K, torch.Generator().manual_seed(0))


class Linear:
    """f(x, t) = slope x in the EDM clock: no boundary condition, so that each side can be told apart."""

    schedule, t_min = EDM(), 0.002

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def __call__(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        return self.slope * x


@pytest.mark.parametrize("K", [1, 3, 7, 100, 12_345])
def test_the_curriculum_never_leaves_its_range_and_never_shrinks(K):
    points = [doubling_points(k, K, 10, 160) for k in range(K + 1)]
    assert points[0] == 11 and max(points) <= 161 and points == sorted(points)


def test_draws_are_neighbours_on_the_grid_of_the_day():
    objective = ICT(s0=10, s1=40)
    for k, intervals in ((0, 10), (1, 20), (2, 40)):
        draw, grid = times_drawn(objective, k, 3), karras_grid(intervals + 1)
        n = torch.searchsorted(grid, draw.t)
        assert torch.equal(grid[n], draw.t) and torch.equal(grid[n - 1], draw.s)
        assert draw.s.min() == 0.002 and set(n.tolist()) <= set(range(1, intervals + 1))


def test_intervals_have_the_mass_of_the_log_normal_law():
    n = 20_000
    drawn = times_drawn(ICT(s0=10, s1=10), 0, 1, n).t
    mass = LogNormalIndex().mass(karras_grid(11))
    counts = torch.stack([(drawn == t).sum() for t in karras_grid(11)[1:]])
    chi2 = ((counts - n * mass).square() / (n * mass)).sum().item()
    assert chi2 < 33.7  # nine degrees of freedom: exceeded with probability 1e-4 (and the seed is fixed)


def test_the_loss_by_hand():
    x0 = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    eps = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    t, s = torch.tensor([2.0], dtype=torch.float64), torch.tensor([1.5], dtype=torch.float64)
    draw = Draw(t=t, s=s, eps=eps, seed=torch.zeros(1, dtype=torch.int64))
    objective = ICT(distance=pseudo_huber(0.25))
    # x_t = (2, 0), x_s = (1.75, -.5); f halves, f_target doubles: (1, 0) - (3.5, -1) = (-2.5, 1), its square 7.25
    loss = objective.loss(Linear(0.5), Linear(2.0), x0, None, draw, 0, 1)
    assert loss.item() == pytest.approx((math.sqrt(7.25 + 0.25**2) - 0.25) / 0.5, rel=1e-12)  # rounding only


def test_the_target_is_a_copy_without_lag():
    assert {ICT().target_decay(k, 10) for k in range(11)} == {0.0}


@pytest.mark.parametrize(("lag", "expected"), [(0.0, -0.0111552), (-0.01, None)])
def test_with_a_lagging_target_the_gradient_forgets_the_data(lag, expected):
    """The paper's toy (section 3.2): data at xi = 1 and f = (t_min/t) x + (1 - t_min/t) theta, with theta = .3."""
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    class Toy(Linear):
        def __call__(self, x, t, label=None):
            keep = (0.002 / t)[:, None]
            return keep * x + (1 - keep) * self.slope

    gradients = []
    for gap in (1e-4, 1e-6):
        s = torch.tensor([0.5], dtype=torch.float64)
        draw = Draw(t=s + gap, s=s, eps=torch.full((1, 1), 0.7, dtype=torch.float64), seed=torch.zeros(1).long())
        x0 = torch.ones(1, 1, dtype=torch.float64)
        target = Toy((theta + lag).detach())
        loss = ICT(distance=l2).loss(Toy(theta), target, x0, None, draw, 0, 1).sum()
        gradients.append(torch.autograd.grad(loss, theta)[0].item())
    if expected is None:  # grows as lag/gap, whatever xi: hundredfold here, to the share of the data's own 1e-2/200
        assert gradients[1] / gradients[0] == pytest.approx(100, rel=1e-3)
    else:  # the limit; the gap leaves a relative error of order gap/s = 2e-6, the printed value 1e-6
        assert gradients[1] == pytest.approx(expected, rel=1e-5)


def test_bad_curricula_are_refused():
    refused("s0 <= s1", lambda: ICT(s0=20, s1=10))
    with pytest.raises(TypeError):
        ICT(lambda x, t: x)  # a teacher: there is none
