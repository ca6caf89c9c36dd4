"""Measures of pictures: closed forms and planted faults, on pictures and features made by hand."""

import dataclasses
import sys
import types

import pytest
import torch
from exact import normal, refused, seeded
from torch import nn

from minicm.data.digits import Digits
from minicm.evaluate.pictures import class_reference
from minicm.metrics import frechet_distance, images
from minicm.metrics.images import Reference, copied, label_agreement, measure_images, nearest, precision_recall
from minicm.metrics.inception import inception_features, levels
from minicm.nets.classifier import Classifier


class ByCorner(nn.Module):
    """Pictures are of class 0..2 by the value 0, 1 or 2 of their first pixel."""

    def forward(self, x):
        return 20 * nn.functional.one_hot(x[:, 0, 0, 0].round().clamp(0, 2).long(), 3).double()

    def features(self, x):
        return x.flatten(1)[:, :5]


def of_classes(*classes: int) -> torch.Tensor:
    x = normal(len(classes), 1, 2, 3)
    x[:, 0, 0, 0] = torch.tensor(classes, dtype=torch.float64)
    return x


def test_label_agreement_counts():
    x = of_classes(0, 1, 2, 2)
    assert label_agreement(ByCorner(), x, torch.tensor([0, 1, 2, 2])) == 1
    assert label_agreement(ByCorner(), x, torch.tensor([0, 2, 1, 2])) == 0.5


def test_class_variation_is_half_the_sum_of_the_gaps():
    train = of_classes(0, 1, 2, 2)
    assert images.class_variation(ByCorner(), of_classes(0, 1, 2, 2, 2, 2, 0, 1), train) == 0
    assert images.class_variation(ByCorner(), of_classes(2, 2), train) == pytest.approx(0.5)


def test_sure_is_the_share_above_a_probability():
    logits = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0]])  # best: .5, .953, .881
    assert images.sure(lambda x: logits, torch.zeros(3, 1)) == pytest.approx(1 / 3)
    assert images.sure(lambda x: logits, torch.zeros(3, 1), least=0.88) == pytest.approx(2 / 3)


def test_nearest_finds_the_nearest():
    x, train = normal(5, 1, 4, 4), normal(700, 1, 4, 4, seed=1)
    distance, index = nearest(x, train)
    every = (x[:, None] - train).square().sum((2, 3, 4)).sqrt()
    torch.testing.assert_close(distance, every.min(1).values, rtol=1e-12, atol=0)
    assert torch.equal(index, every.min(1).indices)
    again, index = nearest(train, train)
    assert torch.equal(index, torch.arange(700)) and again.max() == 0


def test_copies_are_seen():
    data = normal(600, 1, 3, 3)
    train, held_out, new = data[:200], data[200:400], data[400:]
    assert copied(train, train, held_out) == 1
    assert copied(torch.cat([train, held_out]), train, held_out) == pytest.approx(0.525, abs=0.005)
    # 200 new pictures, of which .05 are expected; their own and the limit's scatter are each sqrt(.05 .95/200) = .015
    # and .015: five of both together, false alarms about 1e-6
    assert copied(new, train, held_out) == pytest.approx(0.05, abs=5 * 0.022)
    assert copied(3 * new, train, held_out) == 0


def test_precision_and_recall_on_a_line():
    real = torch.tensor([0.0, 1.0, 2.0, 10.0]).reshape(-1, 1)  # distances to the first neighbour: 1, 1, 1, 8
    fake = torch.tensor([0.5, 3.5, 2.5, 30.0]).reshape(-1, 1)  # 2, 1, 1, 26.5
    # 0.5, 3.5 (within 8 of 10), 2.5 lie in the real set; 30 does not. 0 (within 2 of .5), 1, 2, 10 in the fake set.
    assert precision_recall(real, fake, k=1) == (0.75, 1.0)
    assert precision_recall(fake, real, k=1) == (1.0, 0.75)
    refused("more than k = 3 points, got 4 and 3", lambda: precision_recall(real, fake[:3]))


def test_precision_and_recall_tell_blur_from_lost_modes():
    real = torch.cat([normal(200, 4), normal(200, 4, seed=1) + 20])
    one_mode = normal(400, 4, seed=2)
    far = normal(400, 4, seed=3) * 5
    precision, recall = precision_recall(real, one_mode)
    assert precision > 0.9 and recall < 0.6
    assert precision_recall(real, far)[0] < 0.5


def measured(x, reference, **options):
    """The rows by name."""
    rows = measure_images(x, reference, **{"generator": seeded()} | options)
    return {row.name: row for row in rows}


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(0)
    net = Classifier(1, 10, width=8, features=6).eval()
    train, held_out = Digits(), Digits(train=False)
    return Reference(train.images, held_out.images, held_out.labels, net, net.features)


def test_measures_of_copies_stand_out(reference):
    x = reference.train[:400]
    m = measured(x, reference)
    assert m["copied"].value == 1 and m["nearest"].value == 0
    assert m["precision"].value == 1
    assert "label agreement" not in m


def test_measures_of_noise_are_far_from_their_floors(reference):
    x = normal(400, 1, 8, 8, dtype=torch.float32)
    label = torch.arange(400) % 10
    m = measured(x, reference, label=label)
    assert m["class Frechet"].value > 10 * m["class Frechet"].floor
    assert m["nearest"].value > 1.5 and m["copied"].value == 0
    assert 0 <= m["label agreement"].value < 0.3


def test_measures_of_held_out_pictures_are_their_floors(reference):
    m = measured(reference.held_out, reference, label=reference.held_out_label)
    for name in ("precision", "recall", "classifier sure", "nearest", "label agreement"):
        assert m[name].value == m[name].floor, name
    assert m["copied"].value == pytest.approx(0.05, abs=1 / 355)
    # drawn with replacement the classes are uneven, in order they are not: the floor is no smaller
    assert m["class Frechet"].value < m["class Frechet"].floor + 3 * m["class Frechet"].spread


def test_pictures_are_clamped_before_they_are_measured(reference):
    x = reference.held_out + 5 * (reference.held_out.sign()) * (reference.held_out.abs() == 1)
    m = measured(x, reference)
    assert m["nearest"].value == 1


def test_the_classifier_gives_logits_and_features_for_any_size():
    net = Classifier(3, 7, width=8, stages=3, features=5)
    for size in (8, 16, 32):
        x = normal(2, 3, size, size)
        assert net(x).shape == (2, 7) and net.features(x).shape == (2, 5)


# ------------------------------------------------------------------------------- another feature network
def test_levels_are_those_of_a_file_and_grey_has_three_channels():
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]).reshape(1, 1, 1, 5)
    assert levels(x).dtype == torch.uint8 and levels(x).shape == (1, 3, 1, 5)
    assert levels(x)[0, 2, 0].tolist() == [0, 0, 128, 255, 255]  # 127.5 rounds to the even 128
    every = torch.arange(256, dtype=torch.float32).reshape(1, 1, 16, 16)
    assert torch.equal(levels(every / 127.5 - 1)[:, 0], every[:, 0].to(torch.uint8)), "a level moved"


def test_inception_is_optional_and_says_so_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"FID needs torch-fidelity .*minicm\[gpu\]") as failure:
        inception_features()
    assert "\n" not in str(failure.value)


def test_another_feature_network_gives_its_own_name_and_number(reference, monkeypatch):
    """A stand-in for Inception, which is never fetched in a test: what reaches it, and what comes of its answers."""
    seen = []

    class Extractor(nn.Module):
        def __init__(self, name, features_list):
            super().__init__()
            assert features_list == ["2048"]

        def forward(self, x):
            seen.append(x)
            return (x[:, 0].flatten(1)[:, 18:22].float(),)

    fake = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    fake.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    fid = dataclasses.replace(reference, features=inception_features(), distance="FID")
    m = measured(reference.held_out, fid)
    assert "FID" in m and "class Frechet" not in m
    real, some = (levels(x)[:, 0].flatten(1)[:, 18:22].float() for x in (reference.train, reference.held_out))
    assert m["FID"].value == pytest.approx(frechet_distance(some, real), rel=1e-9)
    assert all(x.dtype == torch.uint8 and x.shape[1:] == (3, 8, 8) for x in seen)


def test_a_reference_of_colour_pictures_is_made_from_arrays():
    """Three classes, told apart by a colour channel, of 16x16: the classifier learns them, and floors are those of chance."""
    generator = seeded(1)
    label = torch.randint(3, (240,), generator=generator)
    x = 0.3 * torch.randn(240, 3, 16, 16, generator=generator) - 0.5
    x[torch.arange(240), label] += 1.0
    x = x.clamp(-1, 1)
    r = class_reference(x[:160], label[:160], x[160:], label[160:], classes=3, width=8, stages=3, flips=True, steps=60)
    # channels 1 apart, noise of .3 over 256 pixels
    assert label_agreement(r.classifier, r.held_out, r.held_out_label) == 1
    m = measured(x[160:], r, label=label[160:], generator=generator)
    wrong = measured(x[160:], r, label=(label[160:] + 1) % 3, generator=generator)
    assert m["label agreement"].value == 1 and wrong["label agreement"].value == 0
    noise = measured(torch.randn(80, 3, 16, 16, generator=generator), r, generator=generator)
    assert noise["class Frechet"].value > 10 * m["class Frechet"].floor
