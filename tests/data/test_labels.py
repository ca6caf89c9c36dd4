"""Label dropout: the null label comes with probability p, and nothing else changes."""

from types import SimpleNamespace

import pytest
import torch
from exact import refused, seeded

from minicm import DSM, MLP, Denoiser, Guided, TwoMoons
from minicm.data.labels import LabelDropout


def test_the_points_are_those_of_the_data_whatever_p_is():
    plain, label = TwoMoons().sample(500, seeded())
    for p in (0.0, 0.3, 1.0):
        x0, dropped = LabelDropout(TwoMoons(), p, classes=2).sample(500, seeded())
        assert torch.equal(x0, plain)
        kept = dropped != 2
        assert torch.equal(dropped[kept], label[kept]), "a label was changed instead of dropped"
        assert dropped.dtype == torch.int64 and dropped.shape == (500,)


def test_the_null_label_comes_with_probability_p():
    assert (LabelDropout(TwoMoons(), 0.0, 2).sample(500, seeded())[1] < 2).all()
    assert (LabelDropout(TwoMoons(), 1.0, 2).sample(500, seeded())[1] == 2).all()
    n, p = 100_000, 0.1
    _, label = LabelDropout(TwoMoons(), p, 2).sample(n, seeded())
    # five standard deviations of a binomial: false alarm below 1e-6, and the seed is fixed
    assert abs((label == 2).double().mean().item() - p) < 5 * (p * (1 - p) / n) ** 0.5


def test_a_seed_gives_one_sample():
    data = LabelDropout(TwoMoons(), 0.5, 2)
    assert torch.equal(data.sample(50, seeded(3))[1], data.sample(50, seeded(3))[1])
    assert not torch.equal(data.sample(50, seeded(3))[1], data.sample(50, seeded(4))[1])


def test_a_teacher_learns_both_branches_from_it():
    """Labels with and without a class reach one network, and guidance mixes the two."""
    data = LabelDropout(TwoMoons(), 0.5, classes=2)
    torch.manual_seed(0)
    f = Denoiser(MLP(2, 32, 2, classes=2))
    optimiser, source = torch.optim.Adam(f.parameters(), lr=3e-3), seeded()
    for _ in range(300):
        x0, label = data.sample(256, source)
        optimiser.zero_grad()
        DSM()(f, f, x0, label, generator=source).mean().backward()
        optimiser.step()
    far = torch.full((2,), 20.0)  # where x says next to nothing: D is the mean, of the class or of all
    with torch.no_grad():
        x, label = torch.zeros(2, 2), torch.tensor([0, 1])
        by_class, by_none, pushed = f(x, far, label=label), f(x, far), Guided(f, label, 1.0)(x, far)
    # the moons' means are (-+.25, +-.27); the network is trained for a second, so the means are told apart, not met
    assert by_class[0, 1] - by_class[1, 1] > 0.3 and by_none[:, 1].abs().max() < 0.12
    assert torch.allclose(pushed, 2 * by_class - by_none, atol=1e-6)  # rounding in float32


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_p_must_be_a_probability(p):
    refused("probability", lambda: LabelDropout(TwoMoons(), p, 2))


def test_bad_classes_and_labels_are_refused():
    refused("at least one class", lambda: LabelDropout(TwoMoons(), 0.1, 0))
    five, none = (SimpleNamespace(sample=lambda n, _, y=y: (torch.zeros(n, 2), y)) for y in (torch.full((4,), 5), None))
    refused("labels go from 0", lambda: LabelDropout(five, 0.1, 3).sample(4))
    refused("no labels to drop", lambda: LabelDropout(none, 0.1, 3).sample(4))
