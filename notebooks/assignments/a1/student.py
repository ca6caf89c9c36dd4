"""Assignment 1: the noise schedule and the preconditioning. Write the bodies; keep the names.

Throughout, x is a batch (B, *D) of any number of dimensions, and t is (B,): one noise level for each sample. sigma_data is the
standard deviation of the data. Read with it: EDM (Karras et al. 2022, arXiv:2206.00364), sections 2, 3 and 5, Table 1.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def add_noise(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """The noisy point x_t = x0 + t eps.

    x0 and eps (B, *D), t (B,) -> (B, *D), in x0's dtype. eps is unit noise, given: draw nothing here.
    """
    raise NotImplementedError


def karras_grid(n: int, t_min: float = 0.002, t_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """The n noise levels of EDM's Eq. 5, but ascending: equally spaced in t^(1/rho).

    Returns (n,), float64. The ends are exact: grid[0] == t_min and grid[-1] == t_max.
    """
    raise NotImplementedError


def c_in(t: Tensor, sigma_data: float = 0.5) -> Tensor:
    """The factor that brings the network's input x_t to unit variance. (B,) -> (B,), in t's dtype."""
    raise NotImplementedError


def c_skip(t: Tensor, sigma_data: float = 0.5) -> Tensor:
    """How much of x_t goes past the network into the prediction. (B,) -> (B,), in t's dtype."""
    raise NotImplementedError


def c_out(t: Tensor, sigma_data: float = 0.5) -> Tensor:
    """How much of the network's output goes into the prediction. (B,) -> (B,), in t's dtype."""
    raise NotImplementedError


def c_noise(t: Tensor) -> Tensor:
    """How the network is told the noise level: ln(t)/4. (B,) -> (B,), in t's dtype."""
    raise NotImplementedError


def denoise(net: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, sigma_data: float = 0.5) -> Tensor:
    """The denoiser D(x, t) of EDM's Eq. 7: the estimate of the clean point, from one evaluation of net(input, c_noise).

    x (B, *D), t (B,) -> (B, *D), in x's dtype. net takes (B, *D) and (B,) and returns (B, *D).
    """
    raise NotImplementedError


def network_target(x0: Tensor, x: Tensor, t: Tensor, sigma_data: float = 0.5) -> Tensor:
    """What net should have put out at x = x0 + t eps for D(x, t) to be x0 (EDM, Eq. 8). (B, *D) -> (B, *D)."""
    raise NotImplementedError
