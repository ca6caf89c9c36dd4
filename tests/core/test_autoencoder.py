"""The autoencoder, latents as data, and the plain loop that trains it."""

import pytest
import torch
from contracts import randomise
from exact import normal, seeded

from minicm.data.digits import Digits
from minicm.data.latents import Latents
from minicm.nets.autoencoder import Autoencoder
from minicm.runs.fit import fit


def autoencoder(**options) -> Autoencoder:
    """A small one with random weights."""
    return randomise(Autoencoder(1, 2, width=8, **options), 1).double()


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 16), (3, 32)])
def test_latents_are_half_as_wide_and_images_come_back_in_their_shape(channels, size):
    net = Autoencoder(channels, 4, width=8)
    x = normal(5, channels, size, size, dtype=torch.float32)
    z = net.encode(x)
    assert z.shape == (5, 4, size // 2, size // 2)
    assert net.decode(z).shape == x.shape


@pytest.mark.parametrize("std", [0.5, 1.0])
def test_standardised_latents_have_mean_0_and_the_standard_deviation_asked_for(std):
    net, x = autoencoder(std=std), normal(50, 1, 8, 8)
    z = net.standardise(x).encode(x)
    zero = torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(z.mean((0, 2, 3)), zero, rtol=0, atol=1e-12)  # some hundred roundings
    torch.testing.assert_close(z.std((0, 2, 3)), zero + std, rtol=1e-12, atol=0)


def test_standardising_does_not_change_what_comes_back():
    net, x = autoencoder(), normal(50, 1, 8, 8)
    before = net.decode(net.encode(x))
    torch.testing.assert_close(net.standardise(x).decode(net.encode(x)), before, rtol=1e-9, atol=1e-9)


def test_the_loss_is_the_squared_error_a_pixel_of_what_comes_back_and_the_penalty():
    net, x = autoencoder(noise=0.0, penalty=0.0), normal(6, 1, 8, 8)
    error = (net.decode(net.encode(x)) - x).square().mean((1, 2, 3))
    torch.testing.assert_close(net.loss(x, seeded()), error, rtol=1e-10, atol=0)
    size = net.encoder(x).square().mean((1, 2, 3))
    held = autoencoder(noise=0.0, penalty=0.1).loss(x, seeded())
    torch.testing.assert_close(held, error + 0.1 * size, rtol=1e-10, atol=0)


def test_the_noise_comes_from_the_generator():
    net, x = autoencoder(), normal(6, 1, 8, 8)
    assert torch.equal(net.loss(x, seeded(1)), net.loss(x, seeded(1)))
    assert not torch.equal(net.loss(x, seeded(1)), net.loss(x, seeded(2)))


def test_latents_are_those_of_the_data():
    data, net = Digits(dequantise=True), autoencoder().float()
    z, label = Latents(data, net).sample(7, seeded(3))
    x0, same = data.sample(7, seeded(3))
    assert torch.equal(z, net.encode(x0)) and torch.equal(label, same)
    assert not z.requires_grad and z.shape == (7, 2, 4, 4)
    assert torch.equal(Latents(data, net).decode(z), net.decode(z))
    assert net.decode(z.double()).dtype == torch.float64


def test_a_few_steps_of_training_bring_digits_back():
    # Returning the mean picture alone leaves an error of .54 a pixel; 60 steps reach about .1 whatever the seed.
    torch.manual_seed(0)
    data, net = Digits(), Autoencoder(1, 2, width=16)
    x = data.images
    mean_alone = (x - x.mean(0)).square().mean()
    net = fit(net, lambda x0, label, generator: net.loss(x0, generator), data, steps=60, batch=64, lr=5e-3)
    assert (net.decode(net.encode(x)) - x).square().mean() < mean_alone / 2
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_fitting_is_seeded():
    def once(seed: int) -> torch.Tensor:
        net = autoencoder().float()
        net = fit(net, lambda x0, label, g: net.loss(x0, g), Digits(), steps=3, batch=8, seed=seed)
        return next(net.parameters())

    assert torch.equal(once(0), once(0)) and not torch.equal(once(0), once(1))
