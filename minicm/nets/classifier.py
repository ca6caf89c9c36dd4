"""A small image classifier: its answers judge class-conditional samples, its features measure how alike two sets are."""

from torch import Tensor, nn
from torch.nn import functional as F

from minicm.nets.unet import conv, norm


class Classifier(nn.Module):
    """Images (B, channels, H, W) -> logits (B, classes); `features` gives what the last layer sees, (B, features).

    Convolutions, each stage half as wide with twice the channels, and the average over all pixels; H and W are free.
    A Frechet distance on its features is no FID: its unit is this network's own, so numbers compare only with each
    other, from one and the same network.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        width: int = 32,  # channels of the first stage; a multiple of 8
        stages: int = 2,  # how often height and width are halved
        features: int = 32,  # numbers that describe an image
    ) -> None:
        super().__init__()
        layers = [conv(channels, width), norm(width), nn.SiLU()]
        for _ in range(stages):
            layers += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), norm(2 * width), nn.SiLU()]
            width = 2 * width
        self.body = nn.Sequential(*layers, conv(width, width), norm(width), nn.SiLU())
        self.describe = nn.Linear(width, features)
        self.out = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """What an image looks like to the classifier: (B, channels, H, W) -> (B, features)."""
        pixels = self.body(x.to(self.out.weight.dtype))
        return F.silu(self.describe(pixels.flatten(2).mean(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.features(x))
