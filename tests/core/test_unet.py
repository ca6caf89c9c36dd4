"""The U-Net, beside what test_nets.py holds for every network: shapes, attention, derivatives, dropout, memory format, sizes, and what is refused."""

import copy
import json

import pytest
import torch
from contracts import randomise
from exact import normal, refused

from minicm import EDM, Denoiser, UNet
from minicm.checkpoint import build, describe

# float64, so that two ways to the same number agree to some thousand roundings of 2e-16
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
ALL = dict(classes=3, guidance=True, second_time=True)
SHAPES = [(2, 1, 8, 8), (2, 3, 16, 16), (1, 3, 32, 32), (8, 3, 8, 8), (3, 1, 8, 12)]


def unet(channels: int = 1, **options) -> UNet:
    """A small one with random weights: as built, it returns zero."""
    options = dict(blocks=1, attention=(2,)) | options
    return randomise(UNet(channels, 8, (1, 2), **options), seed=1).double()


def inputs(n: int = 4, channels: int = 1):
    """x, c_noise, label, w, u for a batch of n images of 8x8."""
    label = torch.arange(n) % 3
    return normal(n, channels, 8, 8), normal(n, seed=1), label, normal(n, seed=2).abs(), normal(n, seed=3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_output_has_the_shape_of_the_input_and_starts_at_zero(shape):
    x, c_noise = normal(*shape), normal(shape[0])
    assert torch.equal(UNet(shape[1], 8, (1, 2)).double()(x, c_noise), torch.zeros_like(x))
    out = unet(shape[1])(x, c_noise)
    assert out.shape == shape and out.abs().min() > 0


def test_one_network_takes_images_of_all_sizes_and_many_levels():
    net = randomise(UNet(3, 8, (1, 1, 2), attention=(1, 4)), 0).double()
    for size in (8, 16, 32):
        assert net(normal(2, 3, size, size), normal(2)).shape == (2, 3, size, size)


def test_every_pixel_sees_every_other_through_attention():
    # Without attention a 3x3 convolution at 4x4 sees far, too, but not from corner to corner of a wide image.
    x, c = normal(1, 1, 8, 64), normal(1)
    far = x.clone()
    far[..., -1] += 1
    for attention, sees in (((), False), ((2,), True)):
        net = unet(attention=attention)
        for module in net.modules():  # group norm sees the whole image: take it out
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda h: h
        change = (net(far, c) - net(x, c))[..., 0].abs().max().item()
        assert (change > 0) is sees


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # from within torch.func
def test_forward_mode_derivatives_pass_through_attention_and_all():
    # sCM needs them; against a central difference: h^2 = 1e-10 of curvature, 1e-16/h = 1e-11 of rounding
    net, (x, c, label, w, u) = unet(attention=(1, 2), **ALL), inputs()
    dx, dc, du = normal(4, 1, 8, 8, seed=8), normal(4, seed=9), normal(4, seed=10)
    _, tangent = torch.func.jvp(lambda x, c, u: net(x, c, label, w, u), (x, c, u), (dx, dc, du))
    h = 1e-5
    ahead, behind = (net(x + s * dx, c + s * dc, label, w, u + s * du) for s in (h, -h))
    torch.testing.assert_close(tangent, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-5)  # third derivatives


def test_gradients_reach_every_parameter():
    net, batch = unet(3, attention=(1, 2), **ALL), inputs(8, 3)
    net(*batch).square().sum().backward()
    norms = {name: p.grad.norm().item() for name, p in net.named_parameters()}
    # a parameter that the function does not depend on (a bias that a norm takes out again) has rounding alone, 1e-13
    assert min(norms.values()) > 1e-6 * max(norms.values()), min(norms, key=norms.get)


def test_as_built_the_network_learns():
    # The last layer starts at zero, so only it has a gradient at first; after one step all layers have.
    net = UNet(1, 8, (1, 2), blocks=1, attention=(2,), **ALL).double()
    batch, goal = inputs(), normal(4, 1, 8, 8, seed=5)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        (net(*batch) - goal).square().mean().backward()
        optimiser.step()
    assert all(p.grad.abs().max() > 0 for p in net.parameters())


def test_dropout_is_active_in_training_alone():
    net, batch = unet(dropout=0.5), inputs()
    torch.manual_seed(0)
    first, second = net(*batch), net(*batch)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(net(*batch), first), "dropout does not follow torch's generator"
    net.eval()
    assert torch.equal(net(*batch), net(*batch))
    assert torch.equal(net(*batch), unet().eval()(*batch)), "evaluation differs from a net without dropout"
    assert torch.equal(unet()(*batch), unet().eval()(*batch)), "training mode changes more than dropout"


def test_channels_last_gives_the_same_result():
    net, batch = unet(3, attention=(1, 2), **ALL), inputs(4, 3)
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)
    x = batch[0].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(other(x, *batch[1:]), net(*batch), **CLOSE)
    inside = []
    other.enter.register_forward_hook(lambda module, args, out: inside.append(out))
    other(*batch)  # x itself may be in the usual format
    assert inside[0].is_contiguous(memory_format=torch.channels_last)


def test_a_model_is_rebuilt_from_its_description():
    net = UNet(1, 16, (1, 2, 2), blocks=1, attention=(2, 4), dropout=0.1, **ALL)
    f = Denoiser(net, EDM(), 0.85, 0.002)
    again = build(json.loads(json.dumps(describe(f))))
    again.load_state_dict(f.state_dict())
    assert describe(again) == describe(f) and again.net.factor == 4


def test_sizes_go_from_laptop_to_paper():
    # Millions of parameters, at most 4 % off: the docstrings and docs name these sizes.
    with torch.device("meta"):  # counted, not made
        nets = (
            (0.31, 8, UNet(1, 24, (1, 2), blocks=1, attention=(2,))),
            (16.4, 32, UNet(3, 96, (1, 2, 2), blocks=3, attention=(2,))),
            (47.3, 32, UNet(3, 128, (2, 2, 2), blocks=4, attention=(2,))),
            (60.0, 32, UNet(3, 144, (2, 2, 2), blocks=4, attention=(2,))),
        )
        for expected, size, net in nets:
            assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(expected, rel=0.04)
            x = torch.empty(2, net.channels, size, size)
            assert net(x, torch.empty(2)).shape == x.shape


def test_a_smoother_embedding_of_time_is_an_option_and_part_of_the_description():
    for octaves in (3, 6):
        net = build(describe(Denoiser(unet(octaves=octaves)))).net
        assert net.conditioning.octaves == octaves and net.conditioning.time.in_features == 1 + 2 * octaves


def test_compiling_meets_no_graph_break():
    net, batch = unet(3, attention=(1, 2), **ALL), inputs(4, 3)
    traced = torch.compile(net, backend="eager", fullgraph=True)  # traces, and raises at a break; makes no kernels
    assert torch.equal(traced(*batch), net(*batch))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: UNet(1, 20), "width = 20: .* a multiple of 8"),
        (lambda: UNet(1, 0), "width = 0"),
        (lambda: UNet(1, 8, ()), r"at least 1, got 1, 2, \(\)"),
        (lambda: UNet(0), "at least 1, got 0, 2"),
        (lambda: UNet(1, blocks=0), "at least 1, got 1, 0"),
        (lambda: UNet(1, 8, (1, 2), attention=(8,)), r"attention = \(8,\).* the levels are \[1, 2\]"),
        (lambda: unet()(normal(2, 1, 9, 8), normal(2)), r"multiples of 2, got x of shape \(2, 1, 9, 8\)"),
        (lambda: unet()(normal(2, 3, 8, 8), normal(2)), r"images \(B, 1, H, W\)"),
        (lambda: unet()(normal(2, 64), normal(2)), r"images \(B, 1, H, W\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(make, complaint):
    refused(complaint, make)


@pytest.mark.slow
def test_the_compiled_network_is_the_same_without_graph_breaks():
    net, batch = unet(3, attention=(1, 2), **ALL).float(), list(inputs(4, 3))
    compiled = torch.compile(net, fullgraph=True)
    # float32: sums of some hundred terms in another order
    torch.testing.assert_close(compiled(*batch), net(*batch), rtol=1e-3, atol=1e-3)
