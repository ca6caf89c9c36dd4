"""A small multilayer perceptron for points: Fourier features in, residual layers, zero-initialised out."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minicm.nets.embeddings import Conditioning, FourierFeatures


class MLP(nn.Module):
    """net(x, c_noise, label=None, w=None, u=None) -> F for samples of `dim` numbers in any shape.

    Residual layers as in arXiv:1603.05027; without the Fourier features (arXiv:2006.10739) a small network
    cannot draw the sharp borders between the modes of f. The last layer starts at zero, so a denoiser starts
    as c_skip x. x (B, *D) with prod(D) = dim -> (B, *D); the conditioning is that of `Conditioning`.
    Raises ValueError for sizes below 1 and where a sample of x does not hold `dim` numbers.
    """

    def __init__(
        self,
        dim: int,
        width: int = 64,
        depth: int = 4,
        classes: int = 0,
        guidance: bool = False,
        second_time: bool = False,
        *,
        features: int = 32,  # Fourier frequencies of x; 0 for none
        scale: float = 0.5,  # their spread, cycles per unit of c_in x
        octaves: int = 6,  # of the time; sCM, which differentiates by it, wants about 3
    ) -> None:
        super().__init__()
        if min(dim, width, depth) < 1:
            raise ValueError(f"dim, width and depth must be at least 1, got {dim}, {width}, {depth}")
        self.options: dict[str, Any] = dict(dim=dim, width=width, depth=depth, classes=classes, guidance=guidance)
        self.options |= dict(second_time=second_time, features=features, scale=scale, octaves=octaves)
        self.dim, self.classes, self.second_time = dim, classes, second_time
        self.features = FourierFeatures(dim, features, scale=scale)
        self.enter = nn.Linear(dim + 2 * features, width)
        self.conditioning = Conditioning(
            width, classes=classes, guidance=guidance, second_time=second_time, octaves=octaves
        )
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.out = nn.Linear(width, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, w: Tensor | None = None, u: Tensor | None = None
    ) -> Tensor:
        points = x.flatten(1).to(self.out.weight.dtype)
        if points.shape[1] != self.dim:
            raise ValueError(f"this MLP takes samples of {self.dim} numbers, got x of shape {tuple(x.shape)}")
        h = self.enter(torch.cat([points, self.features(points)], dim=1))
        h = h + self.conditioning(c_noise, label, w, u)
        for layer in self.layers:
            h = h + layer(F.silu(h))
        return self.out(F.silu(h)).reshape(x.shape)
