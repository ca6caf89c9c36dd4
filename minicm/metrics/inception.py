"""The feature network of real FID, where somebody has installed it: Inception-v3 as ported by torch-fidelity.

    reference = dataclasses.replace(reference, features=inception_features("cuda"), distance="FID")

Optional on purpose: it brings torchvision, and on first use that library fetches 95 MB of weights and loads them in its
own way (a pickle; minicm itself unpickles nothing). No test needs it. Published FIDs are of 50,000 samples against the
whole training set; 10,000 samples give a number that is larger by a unit or more.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def inception_features(device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """Pictures (B, C, H, W) in [-1, 1], C = 1 or 3, to FID's features (B, 2048), computed on `device`.

    Heusel et al., arXiv:1706.08500, with the weights and the resizing of the published TensorFlow code. Pictures are
    rounded to whole levels 0..255 first, as files are. Raises ImportError where torch-fidelity is not installed.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError(
            f"FID needs torch-fidelity ({error}): pip install 'minicm[gpu]', or use the class Frechet distance"
        ) from None
    net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device)

    def features(x: Tensor) -> Tensor:
        return net(levels(x).to(device))[0].to(x.device)

    return features


def levels(x: Tensor) -> Tensor:
    """Pictures in [-1, 1], clamped, as whole levels 0..255 of three equal or given channels; uint8."""
    whole = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return whole.expand(-1, 3, -1, -1) if x.shape[1] == 1 else whole
