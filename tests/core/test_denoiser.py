"""The preconditioning against the papers' tables, the boundary bit for bit, guidance, and changes of clock."""

import copy
import math
from collections.abc import Callable
from typing import get_type_hints

import pytest
import safetensors.torch
import torch
from contracts import Dropped, randomise
from exact import CLOCKS, Gaussian, normal, refused, seeded, times
from torch import nn

from minicm import DSM, MLP, Denoiser, FromPrediction, GaussianMixture, Guided, InClock, Objective
from minicm.metrics.pairs import ExactTrajectory
from minicm.objectives.lcd import LCMBoundary
from minicm.objectives.tcd import SecondOrder
from minicm.schedules import EDM, VP, TrigFlow, expand
from minicm.times import LogNormalAngles, LogNormalTimes, UniformSteps

SHAPES = [(5, 2), (8, 3, 8, 8)]  # in the second the batch is as large as an image is wide
# float64: results of order 1 that differ by some hundred roundings of 2e-16
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def boundary_times(n: int, t_min: float):
    """t_min in the forms it comes in: from a float64 grid, from a float32 tensor, from a bfloat16 one."""
    return [torch.full((n,), t_min, dtype=dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)]


def random_net(shape, scale: float = 1.0, **options) -> nn.Module:
    return randomise(MLP(math.prod(shape[1:]), 16, 3, **options), 1, scale)


# ------------------------------------------------------------------------------------------ boundary
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("clock", ["EDM", "VP", "TrigFlow"])
def test_f_at_t_min_is_x_bit_for_bit(clock, dtype, shape):
    x = normal(*shape).to(dtype)
    x[0] *= 1000  # also for a point that is far out
    for scale in (0.0, 1.0, 1e4):  # a new, a random and a huge network
        net = Dropped(random_net(shape, scale), 0.5)
        for sigma_data in (0.1, 0.5, 0.7, 1.3, 4.9):
            for t_min in (1e-5, 0.002, 0.0625, 0.3) if clock == "EDM" else (0.0,):
                f = Denoiser(net, CLOCKS[clock], sigma_data, t_min)
                for t in boundary_times(shape[0], t_min):
                    assert torch.equal(f.train()(x, t), x), (scale, sigma_data, t_min, t.dtype)
                    assert torch.equal(f.eval()(x, t), x), (scale, sigma_data, t_min, t.dtype)


def test_the_boundary_is_exact_for_hundreds_of_constants():
    # sd**2/((t - t_min)**2 + sd**2) would miss in 13 % of these: seeing none of them by luck has probability .87^600
    draw = torch.rand(600, 2, generator=seeded(), dtype=torch.float64)
    net, x = nn.Identity(), torch.linspace(-3, 3, 7)[:, None]
    net.forward = lambda x, c_noise, **cond: 1e4 * x  # cheap, and huge
    for a, b in draw.tolist():
        sigma_data, t_min = 0.05 * 100**a, 1e-4 * 1e4**b  # .05 to 5, 1e-4 to 1
        f = Denoiser(net, EDM(), sigma_data, t_min)
        for t in boundary_times(1, t_min):
            assert f.c_skip(t).item() == 1 and f.c_out(t).item() == 0, (sigma_data, t_min, t.dtype)
            assert torch.equal(f(x, t.expand(7)), x), (sigma_data, t_min, t.dtype)


def test_the_boundary_is_exact_in_other_clocks_for_hundreds_of_sigma_data():
    for sigma_data in (0.05 * 100 ** torch.rand(300, generator=seeded(), dtype=torch.float64)).tolist():
        for clock in (VP.scaled_linear(), VP.linear(), TrigFlow(sigma_data)):
            f = Denoiser(nn.Identity(), clock, sigma_data)
            for t in boundary_times(1, 0.0):
                assert f.c_skip(t).item() == 1 and f.c_out(t).item() == 0, (clock, sigma_data, t.dtype)


def test_the_boundary_holds_after_training_and_after_loading():
    f = Denoiser(random_net((5, 2)), EDM(), t_min=0.002)
    x, t = normal(5, 2).float(), torch.tensor([0.002, 0.002, 0.01, 1.0, 80.0])
    for _ in range(10):
        for p, g in zip(f.parameters(), torch.autograd.grad(f(x, t).square().sum(), f.parameters()), strict=True):
            p.data.sub_(1e-2 * g.sign())  # a step of the gradient's own length may run away
    assert torch.equal(f(x, t)[:2], x[:2]) and not torch.equal(f(x, t)[2:], x[2:])
    file = safetensors.torch.save(f.state_dict())
    again = Denoiser(random_net((5, 2), 3.0), EDM(), t_min=0.002)
    again.load_state_dict(safetensors.torch.load(file))
    assert torch.equal(again(x, t), f(x, t)) and torch.equal(again(x, t)[:2], x[:2])


def test_only_a_consistency_function_has_the_boundary():
    f = Denoiser(random_net((5, 2)), EDM(), t_min=0.0)
    t = torch.full((5,), 0.002, dtype=torch.float64)
    assert f.c_out(t)[0].item() == pytest.approx(0.002, rel=1e-4)  # 1/sqrt(1 + (.002/.5)^2) = 1 - 8e-6
    assert not torch.equal(f(normal(5, 2), t), normal(5, 2))


# ----------------------------------------------------------------------------------- preconditioning
@pytest.mark.parametrize("sd", [0.3, 0.5, 2.0])  # c_out with sd^2 for sd is right at sd = 1 alone
@pytest.mark.parametrize("e", [0.0, 0.002, 0.05])
def test_cms_appendix_c(sd, e):
    f = Denoiser(nn.Identity(), EDM(), sd, e)
    t = times(EDM(), 100) * 0.999 + e
    v = (t**2 + sd**2).sqrt()
    torch.testing.assert_close(f.c_skip(t), sd**2 / ((t - e) ** 2 + sd**2), **CLOSE)
    torch.testing.assert_close(f.c_out(t), sd * (t - e) / v, **CLOSE)
    torch.testing.assert_close(f.c_in(t), 1 / v, **CLOSE)


def test_v_prediction_is_a_special_case():
    clock = VP.scaled_linear()
    f, t = Denoiser(nn.Identity(), clock, sigma_data=1.0), times(clock, 100)
    torch.testing.assert_close(f.c_in(t), torch.ones_like(t), **CLOSE)
    torch.testing.assert_close(f.c_skip(t), clock.alpha(t), **CLOSE)
    torch.testing.assert_close(f.c_out(t), clock.sigma(t), **CLOSE)  # x0 = alpha x - sigma v: F = -v


def test_trigflow_is_a_special_case():
    clock = TrigFlow(0.7)
    f, t = Denoiser(nn.Identity(), clock, sigma_data=0.7), times(clock, 100)
    torch.testing.assert_close(f.c_in(t), torch.full_like(t, 1 / 0.7), **CLOSE)
    torch.testing.assert_close(f.c_skip(t), t.cos(), **CLOSE)
    torch.testing.assert_close(f.c_out(t), 0.7 * t.sin(), **CLOSE)  # D = cos x - sin sd F: ours is minus that F


@pytest.mark.parametrize("sd", [0.3, 0.5, 2.0])
def test_unit_variance_in_and_out(clock, sd):
    # for x0 ~ N(0, sd^2) independent of eps, exactly: no sample is needed
    f, t = Denoiser(nn.Identity(), clock, sd), times(clock, 100)
    a, b = clock.alpha(t), clock.sigma(t)
    torch.testing.assert_close(f.c_in(t) ** 2 * ((a * sd) ** 2 + b**2), torch.ones_like(t), **CLOSE)
    # the target of F is (x0 - c_skip x)/c_out, x = a x0 + b eps
    of_x0, of_eps = (1 - f.c_skip(t) * a) / f.c_out(t), -f.c_skip(t) * b / f.c_out(t)
    # 1 - c_skip a cancels to b^2: at b = .001 sd that is 1e-6, and leaves 1e-10 of the 16 digits
    torch.testing.assert_close((of_x0 * sd) ** 2 + of_eps**2, torch.ones_like(t), rtol=1e-8, atol=0)


class Zero(nn.Module):
    def forward(self, x, c_noise, **cond):
        self.heard = x, c_noise
        return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("clock", "law"),
    [(EDM(), LogNormalTimes()), (VP.scaled_linear(), UniformSteps()), (TrigFlow(), LogNormalAngles())],
    ids=lambda v: type(v).__name__,
)
def test_unit_variance_in_and_out_as_training_meets_it(clock, law):
    n, dim, sd = 20_000, 3, 0.5
    f, objective, x0 = Denoiser(Zero(), clock, sd), DSM(time_law=law), sd * normal(n, dim)
    losses = objective(f, None, x0, generator=seeded(1))
    # A network of zeros leaves the target: its square sums to a chi^2 of 3, with variance 6 if the target has unit variance.
    assert losses.mean().item() == pytest.approx(dim, abs=5 * math.sqrt(2 * dim / n))  # false alarms 6e-7
    heard = f.net.heard[0]
    assert heard.square().mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / (dim * n)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_network_hears_c_in_x_and_c_noise_and_is_scaled_sample_by_sample(clock, shape):
    heard = {}

    def net(x, c_noise, label=None, w=None, u=None):
        heard.update(x=x, c_noise=c_noise, label=label, w=w, u=u)
        return 3 * x

    f = Denoiser(nn.Identity(), clock)
    f.net.forward = net
    x, t = normal(*shape), times(clock, shape[0])
    w, label = torch.ones(shape[0]), torch.arange(shape[0])
    out = f(x, t, label=label, w=w)
    assert torch.equal(heard["c_noise"], clock.c_noise(t))
    assert heard["label"] is label and heard["w"] is w and heard["u"] is None
    for i in range(shape[0]):
        torch.testing.assert_close(heard["x"][i], f.c_in(t)[i] * x[i], **CLOSE)
        expected = f.c_skip(t)[i] * x[i] + f.c_out(t)[i] * 3 * f.c_in(t)[i] * x[i]
        torch.testing.assert_close(out[i], expected, **CLOSE)
    torch.testing.assert_close(f.raw(x, t), 3 * heard["x"], **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_prediction_has_the_dtype_of_x(dtype):
    f = Denoiser(random_net((5, 2)).float(), EDM(), t_min=0.002)
    x = normal(5, 2).to(dtype)
    for t in (times(EDM(), 5), times(EDM(), 5).float()):
        assert f(x, t).dtype == dtype


def test_scalings_are_not_computed_in_half_precision():
    f, x = Denoiser(Zero(), EDM(), t_min=0.002), torch.ones(1, 1, dtype=torch.float16)
    t = torch.tensor([0.0021], dtype=torch.float64)
    assert f.net is not None and f(x, t).item() == 1.0
    assert f.c_out(t).item() == pytest.approx(1e-4, rel=1e-4)  # in float16 t - t_min would be off by 1 %


# ------------------------------------------------------------------------------------- a second time
def test_with_a_second_time_the_point_at_u_is_a_step_and_u_equal_t_stays(clock):
    f = Denoiser(random_net((5, 2), second_time=True).double(), clock)
    x, t = normal(5, 2), times(clock, 5, 0.05)
    assert f.second_time and not Denoiser(random_net((5, 2)), clock).second_time
    x0_hat = f(x, t, u=t)
    torch.testing.assert_close(clock.step(x, x0_hat, t, t), x, rtol=1e-10, atol=1e-10)  # /sigma: a few digits more
    assert not torch.equal(x0_hat, f(x, t, u=0 * t)), "u is not heard"


def test_the_second_time_is_told_as_the_first_is(clock):
    f, heard = Denoiser(nn.Identity(), clock), []
    f.net.forward = lambda x, c_noise, u=None, **cond: heard.append(u) or x
    x, t, u = normal(5, 2), times(clock, 5, 0.5), times(clock, 5, seed=1) / 2
    u = u.round() if isinstance(clock, VP) else u
    f(x, t, u=u)
    assert torch.equal(heard[0], clock.c_noise(u))


@pytest.mark.parametrize("t_min", [0.0, 0.002])
def test_without_u_the_second_time_is_the_end_of_the_trajectory(t_min):
    f = Denoiser(random_net((5, 2), second_time=True).double(), EDM(), t_min=t_min)
    x, t = normal(5, 2), times(EDM(), 5)
    assert torch.equal(f(x, t), f(x, t, u=torch.full_like(t, t_min)))


# ------------------------------------------------------------------------------------------ guidance
def labelled(clock=EDM(), t_min: float = 0.0) -> Denoiser:
    return Denoiser(random_net((5, 2), classes=3).double(), clock, t_min=t_min)


def test_guidance_is_in_lcms_convention():
    D, x, t = labelled(), normal(5, 2), times(EDM(), 5)
    label, null, w = (torch.tensor([0, 1, 2, 0, 1]), torch.full((5,), 3), torch.tensor([0.0, 1.0, 7.5, -1.0, 2.0]))
    conditional, unconditional = D(x, t, label=label), D(x, t, label=null)
    expected = conditional + w[:, None] * (conditional - unconditional)
    torch.testing.assert_close(Guided(D, label, w)(x, t), expected, **CLOSE)
    scale = w + 1  # Imagen's
    imagen = unconditional + scale[:, None] * (conditional - unconditional)
    torch.testing.assert_close(Guided(D, label, w)(x, t), imagen, **CLOSE)
    torch.testing.assert_close(Guided(D, 2, 3.0)(x, t), 4 * D(x, t, label=0 * label + 2) - 3 * D(x, t), **CLOSE)
    torch.testing.assert_close(Guided(D, label, 0.0)(x, t), conditional, **CLOSE)
    torch.testing.assert_close(Guided(D, label, -1.0)(x, t), unconditional, **CLOSE)


def test_guidance_mixes_images_sample_by_sample():
    D = Denoiser(random_net((8, 3, 8, 8), classes=3).double())
    x, t, label, w = (normal(8, 3, 8, 8), times(EDM(), 8), torch.arange(8) % 3, torch.linspace(0, 7, 8).double())
    whole = Guided(D, label, w)(x, t)
    for i in range(8):
        alone = Guided(D, int(label[i]), w[i].item())(x[i : i + 1], t[i : i + 1])[0]
        torch.testing.assert_close(alone, whole[i], **CLOSE)


def test_a_guided_consistency_function_keeps_its_boundary():
    f = Guided(labelled(t_min=0.002), 1, 7.5)
    x = normal(5, 2)
    assert f.t_min == 0.002 and f.schedule == EDM()
    assert torch.equal(f(x, torch.full((5,), 0.002, dtype=torch.float64)), x)


def test_guidance_is_given_once():
    D = Guided(labelled(), 1, 2.0)
    refused("given to Guided", lambda: D(normal(5, 2), times(EDM(), 5), label=torch.zeros(5).long()))


# --------------------------------------------------------------------------------- changes of clock
@pytest.mark.parametrize("outer", CLOCKS.values(), ids=CLOCKS)
def test_a_denoiser_means_the_same_in_every_clock(outer):
    exact = Gaussian(0.3, 0.4, EDM())
    x, t = normal(50, 2), times(outer, 50, 0.05)
    x, t = x[outer.sigma(t) / outer.alpha(t) < 80], t[outer.sigma(t) / outer.alpha(t) < 80]
    expected = Gaussian(0.3, 0.4, outer)(x, t)
    torch.testing.assert_close(InClock(exact, outer)(x, t), expected, **CLOSE)


def test_there_and_back_is_the_same_denoiser():
    D, x, t = labelled(), normal(5, 2), times(EDM(), 5, 0.01) * 0.99
    label = torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(InClock(InClock(D, TrigFlow()), EDM())(x, t, label=label), D(x, t, label=label), **CLOSE)


def test_an_inner_vp_clock_rounds_to_its_steps():
    inner, outer = VP.scaled_linear(), EDM()
    D = Denoiser(random_net((5, 2)).double(), inner)
    t = torch.tensor([0.1, 0.5, 1.0, 3.0, 10.0], dtype=torch.float64)
    x, t_inner = normal(5, 2), inner.t_of(t)
    expected = D(expand(inner.alpha(t_inner), x) * x, t_inner)
    torch.testing.assert_close(InClock(D, outer)(x, t), expected, **CLOSE)


def test_t_min_is_carried_over():
    f = InClock(labelled(t_min=0.002), TrigFlow())
    assert f.t_min == pytest.approx(math.atan(0.002 / 0.5), rel=1e-15) and f.schedule == TrigFlow()
    assert InClock(labelled(), TrigFlow()).t_min == 0


def test_wrappers_compose():
    D, x, t = labelled(), normal(5, 2), times(TrigFlow(), 5) * 0.9
    one, other = Guided(InClock(D, TrigFlow()), 1, 2.0), InClock(Guided(D, 1, 2.0), TrigFlow())
    torch.testing.assert_close(one(x, t), other(x, t), **CLOSE)
    assert one.schedule == other.schedule == TrigFlow()
    second = InClock(Denoiser(random_net((5, 2), second_time=True)), TrigFlow())
    assert second.second_time and Guided(second, 1, 2.0).second_time


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_pretrained_networks_of_every_kind(clock, kind):
    x0, eps, t = normal(5, 2), normal(5, 2, seed=1), times(clock, 5)
    a, b = expand(clock.alpha(t), x0), expand(clock.sigma(t), x0)
    truth = {"eps": eps, "v": a * eps - b * x0, "x0": x0}[kind]
    D = FromPrediction(lambda x, t: truth, clock, kind)
    # (x - b eps)/a loses as many digits as b/a is large: up to 1e2
    torch.testing.assert_close(D(a * x0 + b * eps, t), x0, rtol=1e-10, atol=1e-10)
    assert D.t_min == 0 and D.schedule == clock


def test_conditioning_reaches_a_pretrained_network_by_name():
    D = FromPrediction(lambda x, t, label: label[:, None] + 0 * x, EDM(), "x0")
    assert D(normal(5, 2), times(EDM(), 5), label=torch.arange(5))[:, 0].tolist() == [0, 1, 2, 3, 4]


# ------------------------------------------------------------------------------------- conditioning by name
RING = GaussianMixture.ring()
VP_MODEL = Denoiser(random_net((5, 2), classes=3).double(), VP.scaled_linear())
CALLABLES = {
    "Denoiser": labelled(),
    "Guided": Guided(labelled(), 1, 2.0),
    "InClock": InClock(labelled(), TrigFlow()),
    "FromPrediction": FromPrediction(Zero(), EDM(), "x0"),
    "LCMBoundary": LCMBoundary(VP_MODEL),
    "SecondOrder": SecondOrder(labelled()),
    "ExactTrajectory": ExactTrajectory(RING, EDM(), 0.002),
}


@pytest.mark.parametrize("f", CALLABLES.values(), ids=CALLABLES)
def test_a_misspelt_name_is_refused_and_none_means_none(f):
    x, t = normal(5, 2), torch.ones(5, dtype=torch.float64)
    with pytest.raises(TypeError, match='takes label, w and u by name, got "labels"'):
        f(x, t, labels=torch.zeros(5, dtype=torch.int64))
    refused("positional", lambda: f(x, t, torch.zeros(5, dtype=torch.int64)), TypeError)
    assert torch.equal(f(x, t), f(x, t, label=None, w=None, u=None))


# ----------------------------------------------------------------------------------------- bad input
X, ONE, Y = normal(5, 2), torch.ones(5), normal(4, 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Denoiser(Zero(), sigma_data=0.0), "sigma_data must be positive .* got 0.0"),
        (lambda: Denoiser(Zero(), sigma_data=math.nan), "got nan"),
        (lambda: Denoiser(Zero(), t_min=-0.1), "t_min must lie in .* got -0.1"),
        (lambda: Denoiser(Zero(), t_min=80.0), "t_min must lie in .* got 80.0"),
        (lambda: Denoiser(Zero(), VP.linear(), t_min=1.0), "t_min = 1.0 needs the EDM clock"),
        (lambda: Denoiser(Zero(), TrigFlow(), t_min=0.004), "t_min = 0.004 needs the EDM clock"),
        (lambda: Denoiser(Zero())(Y, torch.tensor(1.0)), r"t has shape \(\)"),
        (lambda: Denoiser(Zero())(Y, torch.ones(4, 1)), r"t has shape \(4, 1\)"),
        (lambda: Denoiser(Zero())(Y, torch.full((4,), 81.0)), "t = 81 is outside"),
        (lambda: Denoiser(Zero(), t_min=0.002)(Y, torch.full((4,), 0.0019)), "t = 0.0019 lies before t_min = 0.002"),
        (lambda: InClock(Denoiser(Zero()), TrigFlow())(Y, torch.ones(3)), r"t has shape \(3,\)"),
        (lambda: Denoiser(Zero())(Y, 1.0), "t = 1.0 is no tensor: give one time a sample"),
        (lambda: Denoiser(Zero())(normal(4, 2).byte(), torch.ones(4)), "x has dtype torch.uint8"),
        (lambda: Denoiser(Zero(), t_min=0.002)(Y, torch.zeros(4).long()), "t = 0 lies before t_min"),
        (lambda: labelled()(X, ONE, label=torch.full((5,), 9)), r"labels must be in 0\.\."),
        (lambda: labelled()(X, ONE, label=torch.full((5,), -1)), r"got -1\.\.-1"),
        (lambda: labelled()(X, ONE, label=1), r"int64 of shape \(5,\), got 1"),
        (lambda: labelled()(X, ONE, label=torch.ones(5)), "got torch.float32"),
        (lambda: labelled()(X, ONE, label=torch.ones(5, 1).long()), r"got torch.int64 \(5, 1"),
        (lambda: Denoiser(Zero())(Y, torch.ones(4), u=-torch.ones(4)), "t = -1 is outside"),
        (lambda: FromPrediction(Zero(), EDM(), "score"), "got 'score'"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, words):
    refused(words, make)


def test_whole_times_mean_the_same_as_floats():
    f = Denoiser(random_net((4, 2)), EDM(), t_min=0.3)  # .3 would become 0 in a tensor of whole numbers
    t = torch.tensor([1, 2, 3, 80])
    assert torch.equal(f(normal(4, 2), t), f(normal(4, 2), t.double()))


@pytest.mark.parametrize("kind", [Denoiser, Guided, InClock, FromPrediction, Objective])
def test_type_checkers_know_what_a_call_returns(kind):
    assert get_type_hints(kind)["__call__"] == Callable[..., torch.Tensor]  # nn.Module's own returns Any


def test_compiling_it_whole_meets_no_graph_break():
    f = labelled(t_min=0.002)
    batch, label = (normal(5, 2), times(EDM(), 5)), torch.zeros(5, dtype=torch.int64)
    traced = torch.compile(f, backend="eager", fullgraph=True)  # traces, and raises at a break; makes no kernels
    assert torch.equal(traced(*batch, label=label), f(*batch, label=label))


def test_a_denoiser_can_be_copied():
    f = labelled()
    assert torch.equal(copy.deepcopy(f)(normal(5, 2), times(EDM(), 5)), f(normal(5, 2), times(EDM(), 5)))
