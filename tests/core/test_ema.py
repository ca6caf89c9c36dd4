"""The averages: their closed form after k steps, what they copy, and that they are apart from the model."""

import pytest
import torch
from exact import refused
from torch import nn

from minicm.ema import ema_update, frozen_copy, power_decay


def constant(value: float) -> nn.Module:
    model = nn.Linear(2, 2).double()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)
    return model


def weights(model: nn.Module) -> list[float]:
    return [v for p in model.parameters() for v in p.flatten().tolist()]


@pytest.mark.parametrize("mu", [0.0, 0.1, 0.5, 0.95, 0.9999, 1.0])
@pytest.mark.parametrize("k", [1, 2, 37])
def test_the_closed_form_after_k_steps_towards_a_constant(mu, k):
    average, model = constant(1.0), constant(2.0)
    for _ in range(k):
        ema_update(average, model, mu)
    # theta_minus_k = 2 - mu^k (a misplaced bracket gives mu, an average reversed 1 + mu^k); a rounding of numbers up to 2 at each of k steps
    assert weights(average) == pytest.approx([2 - mu**k] * 6, abs=5e-16 * k)
    assert weights(model) == [2.0] * 6


def test_the_closed_form_for_a_model_that_moves():
    mu, average, model = 0.9, constant(0.0), constant(0.0)
    for k in range(1, 21):
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(float(k))
        ema_update(average, model, mu)
    expected = sum((1 - mu) * mu ** (20 - k) * k for k in range(1, 21))
    assert weights(average) == pytest.approx([expected] * 6, rel=1e-14)  # 20 roundings


def shares(k: int, gamma: float) -> list[float]:
    """How much the start and each of k updates weigh in the power-function average."""
    found = [1.0]
    for i in range(1, k + 1):
        decay = power_decay(i, gamma)
        found = [share * decay for share in found] + [1 - decay]
    return found


def test_the_default_average_forgets_the_start():
    for k, most in ((1, 0.0), (100, 1e-3), (1000, 1e-6)):
        assert shares(k, 6.94)[0] <= most
    # nor does a first tenth of the training stay behind it: (1/10)^7.94
    assert sum(shares(1000, 6.94)[:101]) == pytest.approx(0.1**7.94, rel=1e-9)


def test_the_power_function_average_has_its_published_width():
    # EDM2, section 3.1: gamma = 6.94 and 16.97 have standard deviations of .10 and .05 of the training
    for gamma, width in ((6.94, 0.10), (16.97, 0.05)):
        share, n = shares(1000, gamma), 1000
        mean = sum(i * s for i, s in enumerate(share)) / n
        spread = sum(s * (i / n - mean) ** 2 for i, s in enumerate(share)) ** 0.5
        assert spread == pytest.approx(width, rel=5e-3)  # steps of a thousandth, and three printed digits of gamma


def test_it_agrees_with_torchs_own_average():
    generator, mu = torch.Generator().manual_seed(0), 0.97
    model = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2)).double()
    ours = frozen_copy(model)
    theirs = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(mu))
    theirs.update_parameters(model)  # its first update copies
    for _ in range(10):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        ema_update(ours, model, mu)
        theirs.update_parameters(model)
    for a, b in zip(ours.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)  # ten roundings of numbers of order 1


def test_no_decay_copies_bit_for_bit():
    model = nn.Linear(50, 50)
    average = frozen_copy(nn.Linear(50, 50))
    ema_update(average, model, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), model.parameters(), strict=True))


def test_buffers_are_copied_not_averaged():
    model, average = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    model(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)))
    ema_update(average, model, 0.9)
    assert torch.equal(average.running_mean, model.running_mean)
    assert average.num_batches_tracked == 1


def test_a_frozen_copy_takes_no_gradient_and_shares_nothing():
    model = constant(1.0)
    copy = frozen_copy(model)
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        model.weight.fill_(5.0)
    assert weights(copy) == [1.0] * 6


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay):
    refused(f"got {decay}", lambda: ema_update(constant(1.0), constant(2.0), decay))
