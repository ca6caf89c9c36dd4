"""How a network is told where it is: Fourier features, sinusoids, and the conditioning that all nets share."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """Fixed random features cos(2 pi x B), sin(2 pi x B), with B ~ N(0, scale^2).

    Tancik et al., arXiv:2006.10739, the Gaussian mapping. (B, dim) -> (B, 2 features); scale in cycles per unit of x.
    The frequencies are a buffer, so they are saved with the weights.
    """

    frequencies: Tensor

    def __init__(self, dim: int, features: int, *, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * scale * torch.randn(dim, features))

    def forward(self, x: Tensor) -> Tensor:
        phase = x @ self.frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=1)


def octaves(t: Tensor, n: int) -> Tensor:
    """The number itself and sin, cos of 1, 2, 4, ... 2^(n-1) times it: (B,) -> (B, 1 + 2n)."""
    phase = t[:, None] * 2.0 ** torch.arange(n, device=t.device, dtype=t.dtype)
    return torch.cat([t[:, None], phase.sin(), phase.cos()], dim=1)


def guidance_embedding(w: Tensor, dim: int) -> Tensor:
    """LCM's sinusoids of the guidance scale: sin and cos of 1000 w 10000^(-j/(dim/2 - 1)); (B,) -> (B, dim).

    Source: LCM, arXiv:2310.04378, section 4.2, with the constants of its published training script.
    """
    half = dim // 2
    exponents = torch.arange(half, device=w.device, dtype=w.dtype) / max(half - 1, 1)
    phase = 1000 * w[:, None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat([phase.sin(), phase.cos()], dim=1)


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Inside it, products are made in the precision of the weights, also under `torch.autocast`."""
    lowered = device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if lowered else nullcontext()


class Conditioning(nn.Module):
    """All that is not x, as one vector: time, and where the network has them label, guidance w, second time u.

    c_noise (B,), label (B,) int64 in 0..classes with `classes` the null label, w (B,), u (B,) -> (B, width).
    A missing label is all null, a missing w is 0, a missing u is 0. An input that the network was not built
    for is ignored: data always carry labels, and LCM-LoRA draws w for a network without a w input.
    """

    def __init__(
        self,
        width: int,
        *,
        classes: int = 0,
        guidance: bool = False,
        second_time: bool = False,
        octaves: int = 6,  # of c_noise: the shortest period is 2 pi/2^(octaves - 1) of its unit
    ) -> None:
        super().__init__()
        if classes < 0:
            raise ValueError(f"classes must be 0 (no labels) or more, got {classes}")
        self.classes, self.guidance, self.second_time, self.octaves = classes, guidance, second_time, octaves
        self.time = nn.Linear(1 + 2 * self.octaves, width)
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.w = nn.Linear(64, width, bias=False) if guidance else None
        self.u = nn.Linear(1 + 2 * self.octaves, width, bias=False) if second_time else None

    def forward(
        self, c_noise: Tensor, label: Tensor | None = None, w: Tensor | None = None, u: Tensor | None = None
    ) -> Tensor:
        with without_autocast(c_noise.device):  # bf16 would tell noise levels 1 % apart as the same
            dtype = self.time.weight.dtype
            h = self.time(octaves(c_noise, self.octaves).to(dtype))
            if self.label is not None:
                h = h + self.label(torch.full_like(c_noise, self.classes).long() if label is None else label)
            if self.w is not None:
                h = h + self.w(guidance_embedding(torch.zeros_like(c_noise) if w is None else w, 64).to(dtype))
            if self.u is not None:
                h = h + self.u(octaves(torch.zeros_like(c_noise) if u is None else u, self.octaves).to(dtype))
            return h
