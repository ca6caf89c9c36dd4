"""The data sets that go by a name: each says its own, and in classes it is the same data."""

from typing import get_args

import pytest
import torch
from exact import refused

from minicm.data.digits import Digits
from minicm.data.labels import LabelDropout
from minicm.data.named import MIXTURES, SHAPES, DataName, ExactName, MixtureName, classed, points_named


@pytest.mark.parametrize("name", [*MIXTURES, *SHAPES])
def test_a_data_set_says_its_name(name):
    data = points_named(name)
    assert data.name == LabelDropout(data, 0.1, 2).name == name
    assert data.sample(3, torch.Generator())[0].shape == (3, 2)


def test_what_the_command_offers_is_there():
    assert set(get_args(DataName)) | set(get_args(MixtureName)) | set(get_args(ExactName)) == {*MIXTURES, *SHAPES}
    assert set(get_args(MixtureName)) == set(MIXTURES)
    refused(r"data must be one of ring, grid, .*, spiral, got 'rings'", lambda: points_named("rings"))


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_in_classes_is_the_same_mixture(name):
    plain, both = points_named(name), classed(name)
    assert (plain.classes, both.classes) == (1, 2) and both.name == name
    assert torch.equal(plain.means, both.means) and torch.equal(plain.covs, both.covs)


def test_data_of_ones_own_have_no_name():
    assert LabelDropout(object(), 0.1, 2).name is None and LabelDropout(object(), 0.1, 2).decoder is None
    assert LabelDropout(Digits(), 0.1, 10).name == "digits"
