"""What every network keeps, embeddings and the MLP: published formulas, what conditioning does, what is refused."""

import math

import pytest
import torch
from contracts import randomise
from exact import normal, refused
from torch import nn

from minicm.nets.embeddings import Conditioning, FourierFeatures, guidance_embedding, octaves
from minicm.nets.mlp import MLP
from minicm.nets.unet import UNet

# float64, so that two ways to the same number agree to some hundred roundings of 2e-16
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


ALL = dict(classes=3, guidance=True, second_time=True)


def mlp(dim: int = 2, **options) -> MLP:
    return randomise(MLP(dim, 16, 3, **options), seed=1).double()


def unet(**options) -> UNet:
    return randomise(UNet(1, 8, (1, 2), blocks=1, attention=(2,), **options), seed=1).double()


@pytest.fixture(params=[lambda **options: mlp(64, **options), unet], ids=["MLP", "UNet"])
def make(request):
    """Makes a small network of one kind with random weights, for images of 8x8: as built, it returns zero."""
    return request.param


def inputs(n: int = 4):
    """x, c_noise, label, w, u for a batch of n images of 8x8."""
    label = torch.arange(n) % 3
    return normal(n, 1, 8, 8), normal(n, seed=1), label, normal(n, seed=2).abs(), normal(n, seed=3)


# ---------------------------------------------------------------------------------- what all networks keep
def test_a_sample_does_not_see_its_neighbours(make):
    # As many images as an image is wide: a condition (B,) that broadcasts along the width goes unnoticed otherwise.
    net, batch = make(**ALL), inputs(8)
    out = net(*batch)
    for i in range(8):
        torch.testing.assert_close(net(*(part[i : i + 1] for part in batch)), out[i : i + 1], **CLOSE)


def test_every_input_is_heard(make):
    net, batch = make(**ALL), inputs()
    out = net(*batch)
    for i, move in enumerate((0.1, 0.1, 1, 0.1, 0.1)):
        other = [part + move if j == i else part for j, part in enumerate(batch)]
        assert (net(*other) != out).flatten(1).any(1).all()


def test_what_is_missing_is_null(make):
    net, (x, c, *_), zero = make(**ALL), inputs(), torch.zeros(4, dtype=torch.float64)
    assert torch.equal(net(x, c), net(x, c, torch.full((4,), 3), zero, zero))


def test_what_a_net_was_not_built_for_is_ignored(make):
    net, batch = make(), inputs()
    assert torch.equal(net(*batch[:2]), net(*batch))
    assert (net.second_time, make(second_time=True).second_time) == (False, True)
    assert (net.classes, make(classes=3).classes) == (0, 3)


def test_it_computes_in_the_dtype_of_its_weights(make):
    for dtype in (torch.float32, torch.float64):
        net = make(**ALL).to(dtype)
        for of_x in (torch.float32, torch.float64, torch.bfloat16):
            x, c, label, w, u = inputs()  # c_noise comes in float64 from a grid
            assert net(x.to(of_x), c, label, w, u.float()).dtype == dtype


# -------------------------------------------------------------------------------- embeddings and the MLP


def test_fourier_features_are_cosines_and_sines_of_fixed_directions():
    features = FourierFeatures(2, 500, scale=0.5).double()
    x = normal(4, 2)
    phase = x @ features.frequencies
    torch.testing.assert_close(features(x), torch.cat([phase.cos(), phase.sin()], 1), **CLOSE)
    # 1000 numbers: the standard error of their standard deviation is 1/sqrt(2000); 5 of them, false alarms 6e-7
    spread = features.frequencies.std().item() / (2 * math.pi)
    assert spread == pytest.approx(0.5, rel=5 / math.sqrt(2000))
    assert "frequencies" in features.state_dict() and not list(features.parameters())


def test_octaves_double():
    t = normal(5)
    expected = [t] + [(2**j * t).sin() for j in range(3)] + [(2**j * t).cos() for j in range(3)]
    torch.testing.assert_close(octaves(t, 3), torch.stack(expected, 1), **CLOSE)


def test_the_guidance_embedding_is_lcms():
    w, dim = torch.tensor([0.0, 1.0, 7.5], dtype=torch.float64), 256
    expected = torch.zeros(3, dim, dtype=torch.float64)
    for i, value in enumerate(w.tolist()):
        for j in range(128):
            phase = 1000 * value * math.exp(-j * math.log(10000) / 127)
            expected[i, j], expected[i, 128 + j] = math.sin(phase), math.cos(phase)
    # a phase of up to 7500 carries its rounding of 1e-12 into the sine
    torch.testing.assert_close(guidance_embedding(w, dim), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("dim", "shape"), [(2, (5, 2)), (192, (8, 3, 8, 8)), (7, (4, 7))], ids=str)
def test_the_output_has_the_shape_of_the_input_and_starts_at_zero(dim, shape):
    x, c_noise = normal(*shape), normal(shape[0])
    assert torch.equal(MLP(dim).double()(x, c_noise), torch.zeros(shape, dtype=torch.float64))
    out = mlp(dim)(x, c_noise)
    assert out.shape == shape and out.abs().min() > 0


def test_a_net_is_rebuilt_from_its_options_and_weights():
    net = MLP(2, 8, 2, 3, True, True, features=5, scale=0.7)
    copy = MLP(**net.options)
    copy.load_state_dict(net.state_dict())
    randomise(net, 2), randomise(copy, 2)
    x, c, label = normal(4, 2).float(), normal(4).float(), torch.arange(4)
    assert torch.equal(net(x, c, label, c.abs(), c), copy(x, c, label, c.abs(), c))


def test_no_fourier_features():
    net = mlp(features=0)
    assert net(normal(4, 2), normal(4)).shape == (4, 2)
    assert net.enter.in_features == 2


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # from within torch.func
def test_forward_mode_derivatives_pass_through():
    # sCM needs them; against a central difference: h^2 = 1e-10 of curvature, 1e-16/h = 1e-11 of rounding
    net = mlp(**ALL)
    x, c, dx, dc = normal(4, 2), normal(4), normal(4, 2, seed=8), normal(4, seed=9)
    _, tangent = torch.func.jvp(lambda x, c: net(x, c), (x, c), (dx, dc))
    h = 1e-5
    difference = (net(x + h * dx, c + h * dc) - net(x - h * dx, c - h * dc)) / (2 * h)
    torch.testing.assert_close(tangent, difference, rtol=1e-6, atol=1e-6)  # times third derivatives of 100s


def test_conditioning_is_a_sum_of_its_parts():
    full = randomise(Conditioning(8, **ALL), 3).double()
    c, label, w, u = normal(4), torch.tensor([0, 1, 2, 3]), normal(4, seed=1), normal(4, seed=2)
    expected = full.time(octaves(c, 6)) + full.label.weight[label]
    expected = expected + full.w(guidance_embedding(w, 64)) + full.u(octaves(u, 6))
    torch.testing.assert_close(full(c, label, w, u), expected, **CLOSE)
    assert full.w.bias is None  # as in LCM: w = 0 is no special case
    assert isinstance(Conditioning(8).time, nn.Linear) and Conditioning(8).label is None


@pytest.mark.parametrize("odd", [{"dim": 0}, {"width": 0}, {"depth": 0}, {"classes": -1}], ids=str)
def test_sizes_that_make_no_network_are_refused(odd):
    name, value = next(iter(odd.items()))
    refused(rf"{name}.* must be .*, got .*{value}", lambda: MLP(**{"dim": 2} | odd))


def test_samples_of_another_size_are_refused():
    refused(r"samples of 2 numbers, got x of shape \(4, 3\)", lambda: MLP(2)(normal(4, 3), normal(4)))
