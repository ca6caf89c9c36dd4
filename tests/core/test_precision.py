"""Training for a GPU, as far as a processor can tell: bfloat16 inside the network alone, layouts, compiling, accumulating."""

import copy

import pytest
import torch
from exact import refused, same
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from minicm import CD, CT, DSM, ECT, LCD, MLP, SCM, Denoiser, TrainConfig, TrigFlow, UNet, train
from minicm.ema import frozen_copy
from minicm.nets.embeddings import Conditioning
from minicm.objectives.base import Draw, predict_pair
from minicm.runs.run import Recipe
from minicm.times import LogNormalIndex, karras_grid

HALF = (torch.bfloat16, torch.float16)


class Pictures:
    """Random pictures of two classes, 8x8, made where the generator lives."""

    def sample(self, n, generator):
        label = torch.randint(2, (n,), generator=generator, device=generator.device)
        x0 = torch.rand(n, 1, 8, 8, generator=generator, device=generator.device)
        return x0 + label[:, None, None, None] - 1, label


def small_unet(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = UNet(1, 8, (1, 2), blocks=1, attention=(2,), classes=2, **options)
        for p in net.parameters():  # a last layer of zeros would hide what stands before it
            p.data += 0.05 * torch.randn_like(p)
    return net


def images(objective=None, *, net=None, t_min=0.002, **config) -> Recipe:
    settings = dict(steps=4, batch=8, lr=1e-3, warmup=0, ema=0.9) | config
    model = Denoiser(small_unet() if net is None else net, t_min=t_min)
    return Recipe(model, objective or CT(), Pictures(), TrainConfig(**settings))


def last(recipe, resume=None):
    *_, step = train(*recipe, resume=resume)
    return step.state()


# ------------------------------------------------------------------------------------------- bfloat16
def test_only_the_inner_network_is_in_half_precision():
    seen = []
    handle = register_module_forward_hook(lambda module, args, out: seen.append((module, out.dtype)))
    try:
        (step,) = train(*images(bf16=True, steps=1))
    finally:
        handle.remove()
    assert {dtype for module, dtype in seen if isinstance(module, nn.Conv2d)} == {torch.bfloat16}
    assert {dtype for module, dtype in seen if isinstance(module, Conditioning)} == {torch.float32}
    assert {dtype for module, dtype in seen if isinstance(module, Denoiser)} == {torch.float32}
    assert step.loss.dtype == torch.float32
    kept = {v.dtype for k, v in step.state().items() if isinstance(v, torch.Tensor) and "/" in k}
    assert not kept & set(HALF)  # weights, averages and the optimiser's


def test_the_time_embedding_stays_in_full_precision():
    embed = Conditioning(16, classes=3, guidance=True, second_time=True)
    given = torch.linspace(-1, 1, 5), torch.arange(5) % 3, torch.rand(5), torch.rand(5)
    plain = embed(*given)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embed(*given), plain)
        assert torch.nn.functional.linear(plain, plain).dtype == torch.bfloat16  # autocast is on all the same


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("net", [MLP(2, width=8, depth=1, features=4), small_unet(dropout=0.5)])
def test_the_boundary_is_exact_under_bf16(net, training):
    f = Denoiser(net, t_min=0.002).train(training)
    f.autocast = torch.bfloat16
    x = torch.randn(6, *((2,) if isinstance(net, MLP) else (1, 8, 8)))
    for dtype in (torch.float32, torch.float64):
        t = torch.full((6,), 0.002, dtype=dtype)
        with torch.no_grad():
            assert torch.equal(f(x, t), x)
            assert f(x, t * 1000).dtype == x.dtype and not torch.equal(f(x, t * 1000), x)


def test_the_teacher_computes_in_bf16_too():
    teacher = Denoiser(small_unet(1))
    next(iter(train(*images(CD(teacher, grid=karras_grid(8)), bf16=True))))
    assert teacher.autocast == torch.bfloat16


def test_bf16_changes_the_result_by_its_rounding_only():
    full, half = (torch.cat([p.flatten() for p in trained(bf16)]) for bf16 in (False, True))
    start = torch.cat([p.flatten() for p in images().model.parameters()])
    moved, apart = (full - start).norm(), (half - full).norm()
    # Adam's first updates are lr times a sign: those of gradients near 0 differ, the rest do not
    assert 0 < apart < 0.5 * moved


def trained(bf16):
    recipe = images(DSM(), t_min=0.0, bf16=bf16)
    *_, step = train(*recipe)
    return [p.detach() for p in step.f.parameters()]


# --------------------------------------------------------------------------------- layout and compiling
@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("options", [{}, {"channels_last": True}, {"bf16": True}, {"accumulate": 3}])
def test_a_resumed_run_is_bit_for_bit_the_one_that_never_stopped(options, stop):
    """channels_last: the optimiser's averages come from a file, contiguous, and fused Adam goes by position."""
    whole = last(images(**options))
    for step in train(*images(**options)):
        if step.k == stop:
            state = {k: v.contiguous() if torch.is_tensor(v) else v for k, v in step.state().items()}
            break
    assert same(last(images(net=small_unet(3), **options), state), whole)


def test_channels_last_is_another_layout_of_the_same_training():
    plain, other = last(images(DSM(), t_min=0.0)), last(images(DSM(), t_min=0.0, channels_last=True))
    name = "f/net.down.0.conv1.weight"
    assert other[name].is_contiguous(memory_format=torch.channels_last)
    assert not other[name].is_contiguous()
    # 4 updates of Adam with lr 1e-3, whose sign is uncertain where a gradient is near 0: a few weights at most
    apart = (plain[name] - other[name]).abs()
    assert apart.median() < 1e-5 and apart.max() < 8e-3


def test_compiling_asks_every_network_once(monkeypatch):
    """What torch.compile does is its own matter; that each network asks for it, the teacher's included, is ours."""
    asked = []
    monkeypatch.setattr(UNet, "compile", lambda self: asked.append(self))
    teacher = Denoiser(small_unet(1))
    recipe = images(CD(teacher, grid=karras_grid(8)), compile=True)
    train(*recipe)
    assert asked == [recipe.model.net, teacher.net]


@pytest.mark.slow
def test_a_compiled_training_is_the_eager_one():
    eager, compiled = (last(images(DSM(), t_min=0.0, compile=c)) for c in (False, True))
    for name, value in eager.items():
        if name.startswith("ema/"):
            # the averages' share of 4 updates of 1e-3 whose sign is uncertain where a gradient is near 0
            assert (value - compiled[name]).abs().max() < 4e-3, name


@pytest.mark.slow
def test_compiled_networks_draw_the_same_dropout_mask_for_f_and_its_target():
    f = Denoiser(small_unet(dropout=0.5)).train()
    f_target = frozen_copy(f).train()
    for model in (f, f_target):
        model.net.compile()
    x, t = torch.randn(4, 1, 8, 8), torch.rand(4) + 0.5
    y, y_target = predict_pair(lambda: f(x, t), lambda: f_target(x, t), torch.tensor([7]))
    assert y.requires_grad and not y_target.requires_grad
    torch.testing.assert_close(y, y_target, rtol=1e-4, atol=1e-4)  # float32 in two different programs
    other, _ = predict_pair(lambda: f(x, t), lambda: f_target(x, t), torch.tensor([8]))
    assert (other - y).abs().max() > 1e-2  # the mask does matter


# ------------------------------------------------------------------------------------------ accumulating
OBJECTIVES = {
    "DSM": lambda: DSM(),
    "CD": lambda: CD(Denoiser(small_unet(1)), grid=karras_grid(8), index_law=LogNormalIndex()),
    "CT": lambda: CT(),
    "ECT": lambda: ECT(),
    "LCD": lambda: LCD(Denoiser(small_unet(1)), skip=2, w_range=(0.0, 3.0), grid=karras_grid(17)),
}


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_accumulated_gradients_are_those_of_the_whole_batch(name, parts):
    whole, split = (gradients(OBJECTIVES[name](), n) for n in (1, parts))
    scale = max(g.abs().max() for g in whole[1])
    assert split[0] == pytest.approx(whole[0], rel=1e-5)  # a sum of 8 float32 numbers, in another order
    for a, b in zip(whole[1], split[1], strict=True):
        assert (a - b).abs().max() < 1e-4 * scale  # float32 convolutions of another batch size


def gradients(objective, parts):
    recipe = images(objective, t_min=0.0 if isinstance(objective, DSM) else 0.002, accumulate=parts)
    step = next(iter(train(*recipe)))
    return step.loss.item(), [p.grad.clone() for p in step.f.parameters() if p.grad is not None]


def test_accumulating_reaches_an_objectives_own_weights():
    def own(parts):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            objective = SCM()
        model = Denoiser(copy.deepcopy(NET), TrigFlow())
        recipe = Recipe(model, objective, Pictures(), TrainConfig(steps=1, batch=8, lr=1e-3, accumulate=parts))
        next(iter(train(*recipe)))
        return torch.cat([p.grad.flatten() for p in objective.parameters()])

    torch.testing.assert_close(own(4), own(1), rtol=1e-3, atol=1e-5)  # float32, through a forward derivative


NET = small_unet()


def test_a_batch_that_has_fewer_samples_than_parts_is_refused():
    refused("a batch of 3 has no 4 parts", lambda: TrainConfig(steps=1, batch=3, lr=1.0, accumulate=4))
    refused("accumulate must be at least 1", lambda: TrainConfig(steps=1, batch=3, lr=1.0, accumulate=0))


# ------------------------------------------------------------------------------------------------- a GPU
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_and_its_gradient_never_look_at_a_value(name):
    """Tensors of device "meta" have no values: whatever would wait for a GPU to read one raises here."""
    objective, generator = OBJECTIVES[name](), torch.Generator().manual_seed(0)
    x0, label = Pictures().sample(4, generator)
    draw = objective.draw(x0, label, 0, 10, generator)
    x0, label, t, eps, s, w = (v if v is None else v.to("meta") for v in (x0, label, draw.t, draw.eps, draw.s, draw.w))
    f, f_target = (Denoiser(small_unet(), t_min=0.0 if name == "DSM" else 0.002).to("meta") for _ in range(2))
    if hasattr(objective, "frozen"):
        objective.teacher.to("meta")
    loss = objective.loss(f, f_target, x0, label, Draw(t=t, eps=eps, seed=draw.seed, s=s, w=w), 0, 10)
    loss.sum().backward()
    assert loss.shape == (4,) and all(p.grad is not None for p in f.net.down.parameters())
    with pytest.raises((RuntimeError, NotImplementedError)):
        loss.sum().item()  # the test can fail


@pytest.mark.gpu
@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_in_the_loop_waits_for_the_gpu(name):
    objective = OBJECTIVES[name]()
    recipe = images(objective, t_min=0.0 if name == "DSM" else 0.002, device="cuda", bf16=True, steps=20)
    steps = iter(train(*recipe))
    for _ in range(3):
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_the_boundary_is_exact_on_a_gpu():
    f = Denoiser(small_unet(), t_min=0.002).cuda()
    f.autocast = torch.bfloat16
    x = torch.randn(6, 1, 8, 8, device="cuda")
    with torch.no_grad():
        assert torch.equal(f(x, torch.full((6,), 0.002, device="cuda")), x)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"channels_last": True, "bf16": True}])
def test_a_gpu_run_goes_on_from_its_state(options):
    """To rounding: a GPU's convolutions need not repeat bit for bit."""
    whole = last(images(device="cuda", **options))
    for step in train(*images(device="cuda", **options)):
        if step.k == 2:
            state = {k: v.cpu().contiguous() if torch.is_tensor(v) else v for k, v in step.state().items()}
            break
    again = last(images(net=small_unet(3), device="cuda", **options), state)
    for name, value in whole.items():
        if name.startswith("ema/"):
            assert (value - again[name]).abs().max() < 4e-3, name  # as above: signs of gradients near 0
