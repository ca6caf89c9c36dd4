"""The embedded digits: what they are, how they are split, how they are drawn."""

from pathlib import Path

import pytest
import torch
from exact import seeded

import minicm.data.digits as module
from minicm.data.digits import Digits

# class counts of the test part in the UCI documentation (optdigits.names)
UCI_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_all_1797_are_there_once_in_their_published_numbers():
    train, test = Digits(train=True), Digits(train=False)
    labels = torch.cat([train.labels, test.labels])
    assert torch.bincount(labels).tolist() == UCI_COUNTS
    images = torch.cat([train.images, test.images])
    # all 1,797 pictures differ, so none is in both parts
    assert len(images.flatten(1).unique(dim=0)) == len(train) + len(test) == 1797
    levels = (images + 1) * 8
    assert torch.equal(levels.unique(), torch.arange(17.0))
    assert levels.sum() == 561_718  # the sum of scikit-learn's copy


def test_the_file_is_small_and_credited():
    folder = Path(module.__file__).parent
    assert (folder / "digits.npz").stat().st_size < 40_000
    credit = (folder / "NOTICE").read_text()
    assert all(word in credit for word in ("Alpaydin", "Kaynak", "UCI", "CC BY 4.0", "10.24432"))


@pytest.mark.parametrize("train", [True, False])
def test_split_is_fixed_and_every_class_has_its_share(train):
    data = Digits(train)
    assert data.images.shape == (len(data), 1, 8, 8) and data.images.dtype == torch.float32
    assert data.labels.shape == (len(data),) and data.labels.dtype == torch.int64
    assert len(data) == (1442 if train else 355)
    share = torch.bincount(data.labels) / torch.tensor(UCI_COUNTS)
    # every fifth of about 180: off by less than one picture
    assert ((share - (0.8 if train else 0.2)).abs() < 1 / 170).all()
    assert torch.equal(data.images, Digits(train).images)


def test_they_look_like_digits():
    """A picture's nearest neighbour in the other part has its label: rows, columns and labels fit."""
    train, test = Digits(True), Digits(False)
    nearest = torch.cdist(test.images.flatten(1), train.images.flatten(1)).argmin(1)
    # measured: .992; shuffled labels give .1
    assert (train.labels[nearest] == test.labels).float().mean() > 0.97
    zero = test.images[test.labels == 0].mean(0)[0]
    assert zero[3:5, 3:5].mean() < -0.5 < zero[3:5, 1:3].mean()  # a hole with ink at its left


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dequantise", [True, False])
def test_sigma_data_is_the_standard_deviation(train, dequantise):
    data = Digits(train, dequantise=dequantise)
    x0, _ = data.sample(20_000, seeded())
    # .005: sigma_data is rounded to two places; the draw adds less than .001 (1.3 million pixels,
    # but 20,000 pictures, whose mean squares have a standard deviation of about .1)
    assert abs(x0.std() - data.sigma_data) < 0.005
    assert abs(data.images.std() - data.sigma_data) < 0.005


@pytest.mark.parametrize("dequantise", [True, False])
def test_samples_are_pictures_with_their_labels(dequantise):
    data = Digits(dequantise=dequantise)
    x0, label = data.sample(500, seeded(3))
    assert x0.shape == (500, 1, 8, 8) and x0.dtype == torch.float32 and label.dtype == torch.int64
    assert x0.min() >= -1 and x0.max() <= 1
    # the nearest picture in every pixel: half a bin away at most when dequantised, else itself
    distance = torch.cdist(x0.flatten(1), data.images.flatten(1), p=torch.inf)
    value, index = distance.min(1)
    assert value.max() <= (0.5 / 8.5 + 1e-6 if dequantise else 0)  # 1e-6: float32
    assert torch.equal(data.labels[index], label)


def test_dequantised_levels_fill_their_bins():
    x0, _ = Digits(dequantise=True).sample(2000, seeded())
    paper = x0[x0 < -1 + 2 / 17] + 1  # level 0: uniform on [0, 2/17)
    # more than 50,000 pixels: mean 1/17 with standard error below 1.6e-4; 5 of them
    assert abs(paper.mean() - 1 / 17) < 8e-4
    assert paper.min() < 1e-4 and paper.max() > 2 / 17 - 1e-4
