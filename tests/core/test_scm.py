"""sCM (arXiv:2410.11081): the tangent against differences and closed forms, and the loss against the paper's own signs."""

import math

import pytest
import torch
from exact import Gaussian, refused
from torch import Tensor

from minicm import MLP, Denoiser, GaussianMixture
from minicm.objectives.base import Draw
from minicm.objectives.scm import SCM, LogWeight, tangent
from minicm.schedules import EDM, TrigFlow, expand

CLOCK, SD = TrigFlow(), 0.5


def small_f(seed: int = 0, dim: int = 2) -> Denoiser:
    torch.manual_seed(seed)
    net = MLP(dim, 16, 2)
    torch.nn.init.normal_(net.out.weight)
    return Denoiser(net, CLOCK).double()


def batch(n: int = 64, dim: int = 2) -> tuple[Tensor, Draw]:
    generator = torch.Generator().manual_seed(1)
    x0 = SD * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return x0, SCM().draw(x0, None, 0, 1, generator)


def along_the_line(x0: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """x_t and its derivative for fixed x0 and noise: the direction of sCT."""
    cos, sin = expand(draw.t.cos(), x0), expand(draw.t.sin(), x0)
    return cos * x0 + sin * SD * draw.eps, cos * SD * draw.eps - sin * x0


class Closed(torch.nn.Module):
    """A consistency function of known form as a network: raw is what a Denoiser would have to hold."""

    schedule, sigma_data, t_min = CLOCK, SD, 0.0

    def __init__(self, f) -> None:
        super().__init__()
        self.f, self.weight = f, torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def raw(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.weight * (self.f(x, t) - expand(t.cos(), x) * x) / (SD * expand(t.sin(), x))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return expand(t.cos(), x) * x + SD * expand(t.sin(), x) * self.raw(x, t)


# ------------------------------------------------------------------------------------------ the tangent
@pytest.mark.parametrize("dim", [1, 2, 5])  # a "JVP" that multiplies elementwise is right in 1-D only
def test_the_tangent_is_the_derivative_of_f_along_the_trajectory(dim):
    f, (x0, draw) = small_f(dim=dim), batch(dim=dim)
    x, dx = along_the_line(x0, draw)
    _, g = tangent(f, x, dx, draw.t)
    h = 1e-5
    ahead, behind = (f(x + step * dx, draw.t + step) for step in (h, -h))
    difference = expand(draw.t.cos(), x) * (ahead - behind) / (2 * h)
    # h^2 f''' = 1e-10 times a third derivative of up to a few thousand (octaves of t), rounding 2e-16/h = 2e-11
    torch.testing.assert_close(g, difference, rtol=1e-6, atol=1e-6)


def test_with_a_teacher_the_trajectory_is_the_teachers():
    mixture, f = GaussianMixture.ring(), small_f()
    x, t = batch()[0], torch.linspace(0.05, 1.5, 64, dtype=torch.float64)
    x0_hat = mixture.denoiser(CLOCK)(x, t)
    _, g = tangent(f, x, CLOCK.velocity(x, x0_hat, t), t)
    h = 1e-4
    ahead, behind = (mixture.flow(x, t, t + step, CLOCK) for step in (h, -h))
    difference = (f(ahead, t + h) - f(behind, t - h)) / (2 * h)
    # the flow's own error 1e-9/h = 1e-5; h^2 = 1e-8 times third derivatives of up to a thousand
    torch.testing.assert_close(g, expand(t.cos(), x) * difference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (0.3, 0.2)])
def test_the_tangent_vanishes_at_the_exact_solution_of_a_gaussian(mean, std):
    data = Gaussian(mean, std, CLOCK)
    f = Closed(lambda x, t: data.flow(x, t, torch.zeros_like(t)))
    x, draw = batch()
    dx = CLOCK.velocity(x, data(x, draw.t), draw.t)
    if std == SD:  # then nothing moves: f*(x, t) = x (facts, section 9)
        assert dx.abs().max() < 1e-12  # rounding over the smallest t, 2e-16/1e-3
        torch.testing.assert_close(f(x, draw.t), x)
    _, g = tangent(f, x, dx, draw.t)
    assert g.abs().max() < 1e-10  # as above, through one more division by sin(t)


def test_warm_up_fades_in_the_unstable_part_alone():
    f, (x0, draw) = small_f(), batch()
    x, dx = along_the_line(x0, draw)
    F, start = tangent(f, x, dx, draw.t, warm=0.0)
    torch.testing.assert_close(start, expand(draw.t.cos().square(), x) * (SD * F + dx))
    end, half = tangent(f, x, dx, draw.t)[1], tangent(f, x, dx, draw.t, warm=0.5)[1]
    torch.testing.assert_close(half, (start + end) / 2)  # float64: rounding
    objective = SCM(warmup=10)
    at = [objective.loss(f, f, x0, None, draw, k, 100) for k in (0, 10, 99)]
    assert torch.equal(at[1], at[2]) and not torch.isclose(at[0], at[1]).any()


# --------------------------------------------------------------------------------------------- the loss
@pytest.mark.parametrize("distil", [True, False])
def test_the_loss_is_algorithm_1_with_the_papers_signs(distil):
    """F of the paper is -raw; its Algorithm 1, written out with that F and plain central differences."""
    f, minus, (x0, draw), k = small_f(2), small_f(3), batch(), 30
    teacher = small_f(4)
    objective = SCM(teacher if distil else None, c=0.1, warmup=100)
    torch.nn.init.normal_(objective.log_weight.out.weight)
    t, (x, dx) = draw.t, along_the_line(x0, draw)
    if distil:
        dx = SD * -teacher.raw(x, t)
    cos, sin = expand(t.cos(), x), expand(t.sin(), x)
    F, F_minus, h = -f.raw(x, t), -minus.raw(x, t), 1e-6
    dF = -(minus.raw(x + h * dx, t + h) - minus.raw(x - h * dx, t - h)) / (2 * h)
    g = -(cos**2) * (SD * F_minus - dx) - k / 100 * cos * sin * (x + SD * dF)
    g = g / (g.norm(dim=1, keepdim=True) + 0.1)
    w = objective.log_weight(t).double()
    expected = w.exp() / 2 * (F - F_minus - g).square().sum(1) - w
    # differences: h^2 and 2e-16/h are both below 1e-9; the weight net is float32, 1e-7
    torch.testing.assert_close(objective.loss(f, minus, x0, None, draw, k, 200), expected, rtol=1e-5, atol=1e-6)


def test_the_goal_is_less_than_one_away():
    f, (x0, draw) = small_f(), batch()
    losses = SCM(learn_weight=False, warmup=0).loss(f, f, x0, None, draw, 0, 1)  # |g/(|g| + c)|^2/D
    assert (losses > 0).all() and (losses < 1 / 2).all()


def test_at_the_exact_solution_the_loss_is_zero():
    f, (x0, draw) = Closed(lambda x, t: x), batch()
    objective = SCM(Gaussian(0.0, SD, CLOCK), warmup=0)
    loss = objective.loss(f, f, x0, None, draw, 0, 1)
    assert loss.abs().max() < 1e-16  # the square of the rounding above, over c^2; w = 0 at the start


def test_the_learnt_weight_has_its_optimum_at_the_inverse_loss():
    """min over w of e^w R/D - w is w = ln(D/R), where the loss is 1 + ln(R/D): every t counts alike."""
    f, (x0, draw) = small_f(), batch()
    plain = SCM(learn_weight=False, warmup=0).loss(f, f, x0, None, draw, 0, 1).detach()  # R/D
    objective = SCM(warmup=0).double()
    objective.log_weight.forward = lambda t: -plain.log() + offset
    values = {}
    for offset in (-0.1, 0.0, 0.1):
        values[offset] = objective.loss(f, f, x0, None, draw, 0, 1)
    torch.testing.assert_close(values[0.0], 1 + plain.log())  # float64: rounding
    assert (values[-0.1] > values[0.0]).all() and (values[0.1] > values[0.0]).all()


def test_the_weight_learns():
    torch.manual_seed(0)
    weight, t = LogWeight(), torch.linspace(0.01, 1.56, 200, dtype=torch.float64)
    residual = (0.1 + t).square()  # any smooth positive function of t
    optimiser = torch.optim.Adam(weight.parameters(), lr=0.03)
    assert (weight(t) == 0).all()
    for _ in range(500):
        w = weight(t)
        loss = (w.exp() * residual - w).mean()
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    gap = (weight(t) + residual.log()).square().mean().sqrt()
    assert gap < 0.2  # the optimum spans 5.6; nine sinusoids leave .1


def test_times_at_both_ends_are_finite_in_float32():
    f = small_f().float()
    t = torch.tensor([1e-4, 1e-3, CLOCK.t_max], dtype=torch.float64)
    x0 = SD * torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    draw = Draw(t=t, eps=torch.ones(3, 2), seed=torch.zeros(3).long())
    objective = SCM(warmup=0)
    objective.loss(f, f, x0, None, draw, 0, 1).sum().backward()
    assert all(p.grad.isfinite().all() for p in (*f.parameters(), *objective.parameters()))


def test_the_teacher_is_not_trained_and_the_weight_is():
    teacher = small_f()
    objective = SCM(teacher)
    assert objective.teacher is teacher
    assert [name for name, _ in objective.named_parameters()] == ["log_weight.out.weight", "log_weight.out.bias"]
    assert not list(SCM(learn_weight=False).parameters())
    assert SCM().target_decay(0, 1) == 0


def test_bad_input_is_refused():
    (x0, draw), net = batch(), MLP(2, 8, 1).double()
    refused("c > 0", lambda: SCM(c=0))
    refused("warm-up", lambda: SCM(warmup=-1))
    for f, message in ((Denoiser(net, EDM()), "TrigFlow"), (Denoiser(net, CLOCK, sigma_data=1.0), "sigma_data")):
        with pytest.raises(ValueError, match=message):
            SCM().loss(f, f, x0, None, draw, 0, 1)
    assert math.isclose(CLOCK.t_max, 1.56455, abs_tol=1e-5)  # facts, section 9: where sampling starts
