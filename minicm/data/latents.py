"""Data seen through an autoencoder: what latent consistency models train on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Latents:
    """The latents of a data set, drawn like any data; LCM, arXiv:2310.04378, section 4.1.

    data: anything with .sample(n, generator) -> (x0, label); decoder: the autoencoder, anything with encode and decode,
    such as `Autoencoder`, on the generator's device.
    """

    data: Any
    decoder: Any

    @property
    def name(self) -> str | None:
        """The data's own, None where they have none."""
        return getattr(self.data, "name", None)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """n latents (n, *E) and the labels of their images (n,)."""
        x0, label = self.data.sample(n, generator)
        with torch.no_grad():
            return self.decoder.encode(x0), label

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, *E) -> images (B, *D)."""
        return self.decoder.decode(z)
