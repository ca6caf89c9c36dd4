"""Assignment 4: consistency training. Write the bodies; keep the names.

x0 and eps are batches (B, *D) of any number of dimensions, eps being unit noise; t and s < t are (B,), in the EDM clock. f is trained, f_target
is its target; there is no teacher. Read with it: Consistency Models (Song et al. 2023, arXiv:2303.01469), section 5, Algorithm 3 and
appendix C; iCT (Song and Dhariwal 2023, arXiv:2310.14189), section 3 and Table 1; ECT (Geng et al. 2024, arXiv:2406.14548), section 3.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def ct_points(k: int, K: int, s0: int = 2, s1: int = 150) -> int:
    """N(k), the number of points of the grid at training step k of K: CM, appendix C."""
    raise NotImplementedError


def ct_decay(k: int, K: int, s0: int = 2, s1: int = 150, mu0: float = 0.9) -> float:
    """mu(k), the target's decay at step k of K, 0 < mu0 < 1: CM, appendix C, with the paper's N(k)."""
    raise NotImplementedError


def pair(x0: Tensor, eps: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The two points (x_t, x_s) at which CM's Algorithm 3 compares f with its target; both (B, *D), in x0's dtype."""
    raise NotImplementedError


def pseudo_huber(a: Tensor, b: Tensor, c: float) -> Tensor:
    """The pseudo-Huber distance of each pair, c > 0: iCT, section 3.3. (B, *D), (B, *D) -> (B,)."""
    raise NotImplementedError


def interval_mass(grid: Tensor, mean: float = -1.1, std: float = 2.0) -> Tensor:
    """iCT's probability of each interval of an ascending grid (N,): section 3.5. They sum to 1. Returns (N - 1,), float64."""
    raise NotImplementedError


def ect_earlier(t: Tensor, step: int, d: int, q: float = 2.0, k: float = 8.0, b: float = 1.0) -> Tensor:
    """ECT's earlier time s for t at a training step; a stage lasts d steps. Section 3.3:

    s = t (1 - n(t)/q^(stage + 1)), n(t) = 1 + k sigmoid(-b t), never below 0; the first stage is 0. (B,) -> (B,).
    """
    raise NotImplementedError


def ct_loss(
    f: Callable, f_target: Callable, x0: Tensor, eps: Tensor, t: Tensor, s: Tensor, distance: Callable
) -> Tensor:
    """The consistency training loss of each sample, (B,), in x0's dtype: CM, Algorithm 3, with iCT's weight 1/(t - s).

    f and f_target are called (x, t), once each; distance(a, b) gives (B,). Gradients reach f, and not f_target.
    """
    raise NotImplementedError
