"""A small U-Net for images: residual blocks on the way down and up, and every block of the way up sees its partner.

DDPM, arXiv:2006.11239, appendix B; the "DDPM++" of EDM, arXiv:2206.00364, Table 7, is its larger relative. At each
level the image is half as wide as above and has mults[level] times `width` channels:

    x -> enter -> [blocks, 8x8] ------------------------------> [blocks, 8x8] -> leave -> F
                      | halve    each output goes across         ^ double
                      +-> [blocks, 4x4] -> middle -> [blocks, 4x4]

Left out, against DDPM++: resampling inside the blocks, a block more on the way up, skips scaled by sqrt(1/2), and the
embedding of augmentations.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minicm.nets.embeddings import Conditioning


class UNet(nn.Module):
    """net(x, c_noise, label=None, w=None, u=None) -> F for images; the last layer starts at zero.

    DDPM, arXiv:2006.11239, appendix B. x (B, channels, H, W) -> F in its shape; H and W are multiples of
    2^(len(mults) - 1). The conditioning is that of `Conditioning`. UNet(1, 32, (1, 2)) suits 8x8 digits,
    UNet(3, 128, (2, 2, 2), blocks=4, attention=(2,)) is of the size of EDM's network for CIFAR-10.
    Raises ValueError for sizes below 1, a width that is no multiple of 8, attention at a level that is not there, and
    images that do not fit.
    """

    def __init__(
        self,
        channels: int,
        width: int = 32,
        mults: Sequence[int] = (1, 2),
        *,
        blocks: int = 2,  # residual blocks of a level, on either way
        attention: Sequence[int] = (),  # where pixels attend to each other: 1 full size, 2 half, 4 a quarter, ...
        dropout: float = 0.0,  # probability, in every block
        classes: int = 0,  # labels 0..classes - 1, and the null label `classes`
        guidance: bool = False,  # an input for the guidance scale w
        second_time: bool = False,  # an input for a second time u
        octaves: int = 6,  # of the time's embedding; fewer are smoother, which sCM needs
    ) -> None:
        super().__init__()
        factors = [2**level for level in range(len(mults))]
        if width < 8 or width % 8:
            raise ValueError(f"width = {width}: the channels are normalised in groups, give a multiple of 8")
        if min(channels, blocks, *mults, len(mults)) < 1:
            raise ValueError(
                f"channels, blocks and every one of mults must be at least 1, got {channels}, {blocks}, {tuple(mults)}"
            )
        if not set(attention) <= set(factors):
            raise ValueError(f"attention = {tuple(attention)}: with mults = {tuple(mults)} the levels are {factors}")
        inputs: dict[str, Any] = dict(classes=classes, guidance=guidance, second_time=second_time, octaves=octaves)
        sizes = dict(channels=channels, width=width, mults=[*mults], blocks=blocks, attention=[*attention])
        self.options: dict[str, Any] = sizes | dict(dropout=dropout) | inputs
        self.channels, self.classes, self.second_time = channels, classes, second_time
        self.factor = factors[-1]  # of the lowest level
        self.conditioning = Conditioning(4 * width, **inputs)
        self.mix = nn.Linear(4 * width, 4 * width)

        def block(inside: int, outside: int, factor: int) -> Block:
            return Block(inside, outside, 4 * width, dropout=dropout, attend=factor in attention)

        self.enter = conv(channels, width)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        at, across = width, []  # channels here, and of each output that goes across
        for factor, mult in zip(factors, mults, strict=True):
            if factor > 1:
                self.down.append(Halve(at))
            for _ in range(blocks):
                self.down.append(block(at, mult * width, factor))
                at = mult * width
                across.append(at)
        self.middle = nn.ModuleList(block(at, at, factors[-1]) for _ in range(2))
        for factor, mult in reversed(list(zip(factors, mults, strict=True))):
            for _ in range(blocks):
                self.up.append(block(at + across.pop(), mult * width, factor))
                at = mult * width
            if factor > 1:
                self.up.append(Double(at))
        self.norm = norm(at)
        self.leave = conv(at, channels)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, w: Tensor | None = None, u: Tensor | None = None
    ) -> Tensor:
        self._check(x)
        c = F.silu(self.mix(F.silu(self.conditioning(c_noise, label, w, u))))
        h = self.enter(x.to(self.leave.weight.dtype))
        across = []
        for layer in self.down:
            h = layer(h, c)
            if isinstance(layer, Block):
                across.append(h)
        for layer in self.middle:
            h = layer(h, c)
        for layer in self.up:
            h = layer(torch.cat([h, across.pop()], dim=1) if isinstance(layer, Block) else h, c)
        return self.leave(F.silu(self.norm(h)))

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(
                f"this UNet takes images (B, {self.channels}, H, W) with H and W multiples of {self.factor}, "
                f"got x of shape {tuple(x.shape)}"
            )


class Block(nn.Module):
    """A residual block: norm, SiLU, convolution, twice; the conditioning c is added in between. Attention may follow.

    x (B, inside, H, W), c (B, embedding) -> (B, outside, H, W).
    """

    def __init__(self, inside: int, outside: int, embedding: int, *, dropout: float, attend: bool) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inside), conv(inside, outside, bias=False)  # the bias is condition's
        self.condition = nn.Linear(embedding, outside)
        self.norm2, self.conv2 = norm(outside), conv(outside, outside)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)
        self.attention = Attention(outside) if attend else nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.condition(c)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.attention(self.skip(x) + h)


class Attention(nn.Module):
    """Every pixel looks at all the others; (B, C, H, W) -> the same. One head, as in DDPM and EDM.

    Written as a plain softmax: sCM needs the forward-mode derivative, which fused attention refuses.
    No bias for the keys: softmax would not see it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)  # (B, C, HW) each
        look = (q.transpose(1, 2) @ k / math.sqrt(x.shape[1])).softmax(dim=2)  # (B, HW, HW): from, at
        return x + self.out((v @ look.transpose(1, 2)).reshape(x.shape))


class Halve(nn.Module):
    """Half the height and width, by a convolution with stride 2; c is not needed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.conv(x)


class Double(nn.Module):
    """Twice the height and width: every pixel four times, then a convolution; c is not needed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def conv(inside: int, outside: int, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width."""
    return nn.Conv2d(inside, outside, 3, padding=1, bias=bias)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (arXiv:1803.08494) with at most 32 groups of at least 4 channels each."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)
