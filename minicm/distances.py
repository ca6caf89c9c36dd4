"""Distances between two batches of points, one number a sample.

CM (arXiv:2303.01469) trains with l1, squared l2 and LPIPS; iCT (arXiv:2310.14189) with pseudo-Huber.
Every distance maps two tensors (B, *D) to (B,), summing over the whole sample, never averaging over its
elements: the factor between the two is the dimension, and it ends up in the learning rate.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]


def l1(a: Tensor, b: Tensor) -> Tensor:
    """The sum of absolute differences: (B, *D), (B, *D) -> (B,)."""
    return _residual(a, b).abs().sum(1)


def l2(a: Tensor, b: Tensor) -> Tensor:
    """The *squared* Euclidean distance, as the papers write l2: (B, *D), (B, *D) -> (B,)."""
    return _residual(a, b).square().sum(1)


def pseudo_huber(c: float) -> Distance:
    """The distance sqrt(|a - b|^2 + c^2) - c, quadratic well inside c and linear well outside.

    iCT, arXiv:2310.14189, section 3.3, with the norm over the whole sample; c >= 0 in data units.
    c = 0 is the plain norm (ECT's default). Raises ValueError for a negative c.
    """
    if not c >= 0:
        raise ValueError(f"pseudo_huber needs c >= 0, got {c}")

    def distance(a: Tensor, b: Tensor) -> Tensor:
        if c == 0:
            return torch.linalg.vector_norm(_residual(a, b), dim=1)  # its slope at zero is 0, a root's infinite
        squared = l2(a, b)
        return squared / ((squared + c * c).sqrt() + c)  # equal to the definition, without its cancellation

    return distance


def _residual(a: Tensor, b: Tensor) -> Tensor:
    if a.shape != b.shape:
        raise ValueError(f"a distance needs two batches of one shape, got {tuple(a.shape)}, {tuple(b.shape)}")
    return (a - b).flatten(1)
