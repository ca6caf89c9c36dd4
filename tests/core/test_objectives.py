"""The contract that every objective keeps, over every network of contracts.py (design, section 6, item 6)."""

import copy
from functools import partial

import pytest
import torch
from contracts import NETS, OBJECTIVES, B, Scene, randomise, scene
from exact import refused

from minicm import CD, CT, LCD, TCD, Denoiser, TrigFlow, karras_grid
from minicm.objectives.base import Draw

# The whole table, each objective on each network. Everything is float64: results that differ by rounding alone agree to
CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # 1e6 roundings of 2e-16, on losses of order 1 up to 1e5


@pytest.fixture(params=NETS, ids=lambda net: net.name)
def net(request):
    return request.param


@pytest.fixture(params=OBJECTIVES, ids=lambda row: row.name)
def row(request):
    return request.param


def per_parameter(model) -> list[float]:
    return [0.0 if p.grad is None else p.grad.abs().max().item() for p in model.parameters()]


def test_one_loss_a_sample(row, net):
    for dtype in (torch.float32, torch.float64):
        it = scene(row, net, dtype=dtype)
        losses = it.objective(it.f, it.f_target, it.x0, it.label, it.k, it.K)
        assert losses.shape == (B,) and losses.dtype == dtype
        assert losses.isfinite().all() and losses.requires_grad


def test_a_draw_is_all_that_is_random(row, net):
    it = scene(row, net)
    draw, again, other = it.draw(0), it.draw(0), it.draw(1)
    for name in Draw.__dataclass_fields__:
        value = getattr(draw, name)
        if value is None:
            continue
        assert value.shape[:1] == (B,), name
        assert torch.equal(value, getattr(again, name)), f"one seed draws two values of {name}"
    assert not torch.equal(draw.eps, other.eps)
    assert not torch.equal(draw.t, other.t), "two seeds give the same times"  # B equal indices: below 1e-6
    assert not torch.equal(draw.seed, it.draw(2).seed)
    assert draw.t.dtype == torch.float64 and draw.eps.dtype == it.x0.dtype
    assert draw.seed.dtype == torch.int64 and draw.seed.device.type == "cpu"
    assert (draw.t > 0).all() and (draw.t <= row.schedule.t_max).all()
    if draw.s is not None:
        assert (draw.s < draw.t).all() and (draw.s >= (row.t_min if row.s_min is None else row.s_min)).all()
    if draw.u is not None:
        assert (draw.u >= 0).all() and (draw.u <= draw.s).all()


def test_a_loss_is_a_pure_function_of_its_draw(row, net):
    it = scene(row, net, dropout=0.5)
    draw = it.draw()
    torch.manual_seed(0)
    first = it.loss(draw)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(first, it.loss(draw)), "the loss depends on torch's global generator"
    assert torch.equal(before, torch.get_rng_state()), "the loss moves torch's global generator"
    assert not torch.equal(first, it.loss(it.draw(1)))


def test_calling_an_objective_is_draw_then_loss(row, net):
    it = scene(row, net, dropout=0.5)
    called = it.objective(it.f, it.f_target, it.x0, it.label, it.k, it.K, torch.Generator().manual_seed(5))
    assert torch.equal(called, it.loss(it.draw(5)))


def test_permuting_the_batch_permutes_the_losses(row, net):
    it = scene(row, net)
    draw, order = it.draw(), torch.randperm(B, generator=torch.Generator().manual_seed(6))
    permuted = it.loss(draw[order], x0=it.x0[order], label=it.label[order])
    torch.testing.assert_close(permuted, it.loss(draw)[order], **CLOSE)


def test_a_sample_does_not_see_its_neighbours(row, net):
    # With a batch of as many images as an image is wide, a t that broadcasts along the width goes unnoticed: alone it cannot.
    it = scene(row, net)
    draw = it.draw()
    whole = it.loss(draw)
    for i in (0, B - 1):
        alone = it.loss(draw[i : i + 1], x0=it.x0[i : i + 1], label=it.label[i : i + 1])
        torch.testing.assert_close(alone, whole[i : i + 1], **CLOSE)


def test_gradients_reach_f_and_nothing_else(row, net):
    it = scene(row, net, dropout=0.2)
    for frozen in (it.f_target, it.teacher):
        frozen.requires_grad_(True)  # they would take a gradient if the objective let one through
    graphs = []
    it.teacher.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    it.loss(it.draw()).sum().backward()
    assert not any(graphs), "the teacher builds a graph that nobody uses"
    assert all(g > 0 for g in per_parameter(it.f)), "a parameter of f gets no gradient"
    assert not any(per_parameter(it.f_target)), "a gradient reaches f_target"
    assert not any(per_parameter(it.teacher)), "a gradient reaches the teacher"
    own = {id(p) for p in it.objective.parameters()}
    assert not own & {id(p) for p in it.teacher.parameters()}, "the optimiser would train the teacher"
    assert all(g > 0 for g in per_parameter(it.objective)), "a parameter of the objective gets no gradient"


def test_the_gradient_is_that_of_the_loss_with_the_target_held_still(row, net):
    it = scene(row, net, dropout=0.2)
    draw = it.draw()
    it.loss(draw).sum().backward()
    direction = copy.deepcopy(it.f)
    randomise(direction, 7)
    pairs = list(zip(it.f.parameters(), direction.parameters(), strict=True))
    slope = sum((p.grad * d).sum() for p, d in pairs)
    h = 1e-6

    def moved(step: float) -> torch.Tensor:
        f = copy.deepcopy(it.f)
        with torch.no_grad():
            for p, (_, d) in zip(f.parameters(), pairs, strict=True):
                p.add_(step * d)
            return it.loss(draw, f=f).sum()

    difference = (moved(h) - moved(-h)) / (2 * h)
    # central difference: h^2 = 1e-12 of curvature and 2e-16/h = 2e-10 of rounding, either times a few thousand
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-5)


def test_dropout_is_the_same_in_both_passes(row, net):
    it = scene(row, net, dropout=0.5)
    it.loss(it.draw())
    online, target = it.f.net.masks, it.f_target.net.masks
    assert bool(target) == row.uses_target and online
    for mask in [*online, *target]:
        assert torch.equal(mask, online[0])
    assert 0 < online[0].count_nonzero() < online[0].numel()  # all alike: below 2^-15
    it.loss(it.draw(1))
    assert not torch.equal(it.f.net.masks[-1], online[0]), "every step has the same mask"


def test_training_and_evaluation_mode_differ_by_dropout_alone(row, net):
    it = scene(row, net)
    draw = it.draw()
    train = it.loss(draw)
    it.f.eval(), it.f_target.eval()
    assert torch.equal(train, it.loss(draw))


def test_labels_reach_the_model_and_may_be_missing(row, net):
    it = scene(row, net)
    draw = it.draw()
    assert not torch.equal(it.loss(draw), it.loss(draw, label=(it.label + 1) % 3))
    unlabelled = it.objective.loss(it.f, it.f_target, it.x0, None, draw, it.k, it.K)
    null = it.loss(draw, label=torch.full((B,), 3))
    torch.testing.assert_close(unlabelled, null, **CLOSE)


def test_labels_reach_the_teacher(row, net):
    it, heard = scene(row, net), []
    it.teacher.register_forward_pre_hook(
        lambda _, args, cond: heard.append((*args, cond.get("label"))[2]), with_kwargs=True
    )
    it.loss(it.draw())
    assert not heard or any(label is not None and torch.equal(label, it.label) for label in heard)


def test_the_target_decays_within_its_range(row):
    it = scene(row, NETS[0])
    decay = [it.objective.target_decay(k, 100) for k in range(101)]
    assert all(0 <= mu < 1 for mu in decay)


def test_an_empty_batch_is_refused(row):
    it: Scene = scene(row, NETS[0])
    refused("empty", lambda: it.objective(it.f, it.f_target, it.x0[:0], it.label[:0]))


TEACHER = Denoiser(NETS[0].make(False, False))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CD(TEACHER, grid=karras_grid(18).flip(0)), "ascending grid"),
        (lambda: CD(TEACHER, grid=torch.tensor([1.0])), "at least two times"),
        (lambda: CD(TEACHER, grid=karras_grid(18), mu=1.0), r"mu must lie in \[0, 1\), got 1.0"),
        (lambda: CT(s0=1), "needs 2 <= s0 <= s1, got 1, 150"),
        (lambda: CT(s0=10, s1=5), "got 10, 5"),
        (lambda: CT(mu0=1.0), "mu0 must lie in .* got 1.0"),
    ],
)
def test_bad_options_are_refused_in_one_line(make, words):
    refused(words, make)


@pytest.mark.parametrize("make", [CD, partial(LCD, skip=1, w_range=(0.0, 0.0)), partial(TCD, skip=1, w_range=None)])
def test_a_teacher_of_another_clock_is_refused(make):
    objective, x0 = make(TEACHER, grid=karras_grid(18, t_max=1.5)), torch.zeros(4, 2)
    f = Denoiser(NETS[0].make(False, False), TrigFlow())
    refused(r"InClock\(teacher, f.schedule\)", lambda: objective(f, f, x0, torch.zeros(4).long()))


def test_ct_takes_no_teacher():
    with pytest.raises(TypeError):
        CT(TEACHER)
