"""The loop: repeatable, resumable bit for bit, its averages and rates as stated, and it stops where numbers do."""

import copy
import math

import pytest
import torch
from exact import refused, same

from minicm.ema import ema_update
from minicm.train import Diverged, TrainConfig, train


def last(recipe, resume=None):
    *_, step = train(*recipe, resume=resume)
    return step.state()


def weights(model):
    return copy.deepcopy(model.state_dict())


def test_one_seed_repeats_and_two_differ(tiny_recipe):
    first = last(tiny_recipe(0))
    assert same(first, last(tiny_recipe(0)))
    assert not same(first, last(tiny_recipe(1)))
    # the seed of data and draws alone, with the same first weights
    assert not same(first, last(tiny_recipe(0)._replace(config=tiny_recipe(1).config)))


def test_training_takes_nothing_from_the_global_generator(tiny_recipe):
    before = torch.get_rng_state()
    last(tiny_recipe())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("radam", [False, True])
@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_resumed_run_is_bit_for_bit_the_one_that_never_stopped(tiny_recipe, stop, radam):
    whole = last(tiny_recipe(radam=radam))
    for step in train(*tiny_recipe(radam=radam)):
        if step.k == stop:
            state = step.state()
            break
    kept = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
    # other first weights (seed 3), so that everything comes from the state
    other = tiny_recipe(3)._replace(config=tiny_recipe(radam=radam).config)
    assert same(last(other, state), whole)
    assert same(state, kept)  # and the state may be used again


def test_a_step_shows_the_state_at_its_time(tiny_recipe):
    states = [step.state() for step in train(*tiny_recipe(steps=3))]
    assert [s["k"] for s in states] == [1, 2, 3]
    assert not same(states[0], states[1])


def test_the_averages_follow_the_weights(tiny_recipe):
    recipe = tiny_recipe()
    target, ema = copy.deepcopy(recipe.model), copy.deepcopy(recipe.model)
    decays = []
    for step in train(*recipe):
        decays.append(recipe.objective.target_decay(step.k - 1, recipe.config.steps))
        ema_update(target, step.f, decays[-1])
        ema_update(ema, step.f, recipe.config.ema)
        assert same(weights(target), weights(step.f_target))
        assert same(weights(ema), weights(step.ema))
        assert not any(p.requires_grad for m in (step.f_target, step.ema) for p in m.parameters())
    assert 0 < decays[0] < 1  # the target is a true average here


def test_the_learning_rate_warms_up_and_decays():
    config = TrainConfig(steps=1000, batch=1, lr=0.5, warmup=10, final_lr=0.1)
    rates = [config.lr_at(k) for k in range(1000)]
    # the cosine takes less than 3e-4 of lr during the ten updates of warm-up: (pi 10/1000)^2/4
    assert rates[:10] == pytest.approx([0.05 * (k + 1) for k in range(10)], rel=3e-4)
    assert rates[500] == pytest.approx(0.5 * 0.55, rel=1e-12)  # half way: the mean of 1 and final_lr
    assert rates[-1] == pytest.approx(0.05, rel=1e-4)  # one update before the end of the cosine
    assert all(a > b for a, b in zip(rates[10:], rates[11:]))
    flat = TrainConfig(steps=7, batch=1, lr=0.5, warmup=0, final_lr=1.0)
    assert [flat.lr_at(k) for k in range(7)] == [0.5] * 7


def test_the_rate_is_the_one_that_moves_the_weights(tiny_recipe):
    """Adam's first step moves every weight that has a gradient by lr."""
    recipe = tiny_recipe(lr=1e-3, warmup=10)
    before = weights(recipe.model)
    step = next(iter(train(*recipe)))
    moved = torch.cat([(step.f.state_dict()[k] - v).abs().flatten() for k, v in before.items()])
    # lr/10; a float32 weight near 1 rounds to 6e-8, and Adam's 1e-8 beside a small gradient only shortens
    assert moved.max().item() == pytest.approx(1e-4, rel=1e-2)


def test_clipping_bounds_the_gradient(tiny_recipe):
    for clip in (1e-3, None):
        step = next(iter(train(*tiny_recipe(clip=clip))))
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in step.f.parameters() if p.grad is not None))
        assert (norm <= 1e-3 * (1 + 1e-5)) == (clip is not None)  # float32 rounding of a norm


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_data_that_are_not_finite_stop_the_run_before_the_update(tiny_recipe, faulty, value):
    recipe = tiny_recipe()._replace(data=faulty(4, lambda x0: x0.fill_(value)))
    with pytest.raises(Diverged, match="the data is not finite at step 4 of 12"):
        for step in train(*recipe):
            good = [weights(m) for m in (step.f, step.f_target, step.ema)]
    assert step.k == 3
    assert all(same(a, weights(m)) for a, m in zip(good, (step.f, step.f_target, step.ema)))


def test_a_loss_that_is_not_finite_names_its_step(tiny_recipe):
    recipe = tiny_recipe()
    steps = iter(train(*recipe))
    next(steps)
    with torch.no_grad():
        next(recipe.model.parameters()).fill_(math.nan)
    refused("the loss is not finite at step 2 of 12: lower lr", lambda: next(steps), Diverged)


def test_a_gradient_that_is_not_finite_names_its_step(tiny_recipe):
    recipe = tiny_recipe()
    next(recipe.model.parameters()).register_hook(lambda grad: grad * math.inf)
    before = weights(recipe.model)
    refused("the gradient is not finite at step 1 of 12", lambda: next(iter(train(*recipe))), Diverged)
    assert same(before, weights(recipe.model))


def test_empty_data_are_refused(tiny_recipe, faulty):
    refused("the data are empty", lambda: next(iter(train(*tiny_recipe()._replace(data=faulty(1, lambda x0: x0[:0]))))))


def test_data_of_whole_numbers_are_refused(tiny_recipe, faulty):
    with pytest.raises(ValueError, match=r"the data have dtype torch\.uint8: give floats"):
        next(iter(train(*tiny_recipe()._replace(data=faulty(1, lambda x0: x0.byte())))))


def test_a_model_without_weights_to_train_is_refused(tiny_recipe):
    recipe = tiny_recipe()
    recipe.model.requires_grad_(False)
    refused(r"nothing to train; call f.requires_grad_\(True\)", lambda: train(*recipe))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_at_once(tiny_recipe):
    refused(r'device "cuda" is not there .*: use "cpu"', lambda: train(*tiny_recipe(device="cuda")))
    refused('device "gpu" is not there', lambda: train(*tiny_recipe(device="gpu")))
    refused('device "meta" is not there', lambda: train(*tiny_recipe(device="meta")))


BAD = {"steps": 0, "batch": 0, "warmup": -1, "clip": 0.0, "ema": 1.5, "final_lr": -0.1, "beta1": 1.0, "beta2": 2.0}


@pytest.mark.parametrize(
    "name, value", [*BAD.items(), ("seed", 2**63), ("lr", 0.0), ("lr", math.nan), ("lr", math.inf)]
)
def test_a_setting_out_of_range_is_named(name, value):
    refused(name, lambda: TrainConfig(**{"steps": 1, "batch": 1, "lr": 1.0, name: value}))


def test_a_state_that_does_not_fit_is_refused_at_once(tiny_recipe):
    state = next(iter(train(*tiny_recipe()))).state()
    refused("trained with batch = 16, not with this run's 8", lambda: train(*tiny_recipe(batch=8), resume=state))
    for key in ("k", "generator", next(k for k in state if k.startswith("f/"))):
        with pytest.raises(ValueError, match="does not fit"):
            train(*tiny_recipe(), resume={k: v for k, v in state.items() if k != key})
    weight = next(k for k in state if k.startswith("f/"))
    with pytest.raises(ValueError, match=f'does not fit this model: .*"{weight.removeprefix("f/")}"'):
        train(*tiny_recipe(), resume={k: v for k, v in state.items() if k != weight})
