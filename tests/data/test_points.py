"""Drawing from what is kept as tensors: data of one's own, digits and CIFAR-10, by one and the same rule."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from archive import write_folder
from exact import normal, refused, seeded
from torch.utils._python_dispatch import TorchDispatchMode

from minicm.data.cifar10 import Cifar10
from minicm.data.digits import Digits
from minicm.data.points import Points


class NoLooking(TorchDispatchMode):
    """Refuses every operation that needs a value on the host: on a GPU each would wait for it."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "equal.default", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in self.FORBIDDEN), f"{func} looks at values"
        return func(*args, **(kwargs or {}))


def own(device: str = "cpu") -> Points:
    return Points(torch.arange(24.0, device=device).reshape(8, 3), torch.arange(8, device=device))


@pytest.fixture(params=["own", "digits", "dequantised", "cifar10"])
def make(request, tmp_path) -> Callable[..., Any]:
    """A maker of the data, on a device."""
    if request.param == "cifar10":
        return partial(Cifar10, write_folder(tmp_path))
    return {"own": own, "digits": Digits, "dequantised": partial(Digits, dequantise=True)}[request.param]


def test_one_seed_repeats_and_two_differ(make):
    data = make()
    a, b, c = (data.sample(16, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])
    assert len(data.sample(2)[0]) == 2  # torch's own generator


def test_sampling_looks_at_no_value(make):
    data, generator = make(), seeded()
    with NoLooking():
        data.sample(8, generator)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_sampling_on_a_gpu_never_waits(make):
    data = make(device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        x0, label = data.sample(8, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert x0.is_cuda and label.is_cuda
    x0, label = data.sample(8, seeded())  # a CPU generator: slower, and the result is on the CPU
    assert not x0.is_cuda and not label.is_cuda


def test_an_empty_draw_is_refused(make):
    refused("n = 0: ask for at least one sample", lambda: make().sample(0))


def test_drawing_leaves_what_is_kept_alone(make):
    data = make()
    kept = data.x if isinstance(data, Points) else data.images
    before = kept.clone()
    data.sample(50, seeded())[0].zero_()
    assert torch.equal(kept, before)


@pytest.mark.parametrize("name", ["digits", "dequantised", "cifar10"])
def test_default_dtype_is_followed(name, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        data = Cifar10(write_folder(tmp_path)) if name == "cifar10" else Digits(dequantise=name == "dequantised")
        assert data.sample(2, seeded())[0].dtype == torch.float64
        assert name == "cifar10" or data.images.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_rows_come_with_their_labels_and_every_one_of_them():
    x0, label = own().sample(500, seeded())
    assert torch.equal(x0, own().x[label]) and x0.dtype == torch.float32
    # a row is missed by all of 500 draws with probability 8 (7/8)^500 = 8e-29
    assert label.unique().tolist() == list(range(8)) and len(own()) == 8


def test_labels_may_be_missing():
    x0, label = Points(normal(5, 2)).sample(3, seeded())
    assert x0.shape == (3, 2) and x0.dtype == torch.float64 and label is None
