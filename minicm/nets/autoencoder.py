"""A tiny autoencoder: images to a latent space of half their width and back, for consistency models of latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minicm.nets.unet import conv, norm


class Autoencoder(nn.Module):
    """encode: images (B, channels, H, W) -> latents (B, latent, H/2, W/2); decode: the way back. H, W even.

    Latent diffusion, arXiv:2112.10752, section 3.1, which LCM builds on, with the simplest of regularisations: in
    training, noise of a fixed size is added to the latent, so that the decoder bears what a sampler misses, and the
    latent's square is held down, so that the encoder cannot drown the noise.
    After `standardise` the latents have mean 0 and standard deviation `std` in every channel.
    Left out: the adversarial and perceptual losses, which sharpen large images.
    """

    shift: Tensor
    spread: Tensor

    def __init__(
        self,
        channels: int = 1,
        latent: int = 2,
        *,
        width: int = 32,  # channels of the first layer; a multiple of 8
        noise: float = 0.1,  # added to the latent in training; its own spread comes out near 1
        penalty: float = 1e-3,  # on the latent's mean square
        std: float = 0.5,  # of the latents after `standardise`: sigma_data of what is trained on them
    ) -> None:
        super().__init__()
        self.options = dict(channels=channels, latent=latent, width=width, noise=noise, penalty=penalty, std=std)
        self.noise, self.penalty, self.std = noise, penalty, std
        self.encoder = nn.Sequential(
            *(conv(channels, width), norm(width), nn.SiLU()),
            *(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), norm(2 * width), nn.SiLU()),
            *(conv(2 * width, 2 * width), norm(2 * width), nn.SiLU()),
            conv(2 * width, latent),
        )
        self.decoder = nn.Sequential(
            *(conv(latent, 2 * width), norm(2 * width), nn.SiLU()),
            *(conv(2 * width, 2 * width), norm(2 * width), nn.SiLU()),
            *(nn.Upsample(scale_factor=2.0), conv(2 * width, width), norm(width), nn.SiLU()),
            conv(width, channels),
        )
        self.register_buffer("shift", torch.zeros(latent, 1, 1))  # of the encoder's output
        self.register_buffer("spread", torch.full((latent, 1, 1), std))

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) -> latents (B, latent, H/2, W/2)."""
        return self.std * (self.encoder(x) - self.shift) / self.spread

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, latent, h, w) -> images (B, channels, 2h, 2w), in z's dtype."""
        weights = self.spread.dtype
        return self.decoder(self.shift + self.spread * z.to(weights) / self.std).to(z.dtype)

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Squared error a pixel of what comes back from the latent and its noise, plus the penalty; (B,)."""
        z = self.encoder(x)
        eps = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        error = F.mse_loss(self.decoder(z + self.noise * eps), x, reduction="none")
        return error.flatten(1).mean(1) + self.penalty * z.square().flatten(1).mean(1)

    @torch.no_grad()
    def standardise(self, x: Tensor) -> Autoencoder:
        """Shift and scale each channel so that the latents of x have mean 0 and standard deviation `std`."""
        z = self.encoder(x)
        self.shift.copy_(z.mean((0, 2, 3)).reshape(-1, 1, 1))
        self.spread.copy_(z.std((0, 2, 3)).reshape(-1, 1, 1))
        return self
