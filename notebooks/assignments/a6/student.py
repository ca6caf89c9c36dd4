"""Assignment 6: guidance, the skipping step and LoRA. Write the bodies; keep the names.

x is a batch (B, *D) of any number of dimensions; t, s < t, w and label are (B,). The clock is VP: t is a whole number from 0 (clean) to T = 1000,
x_t = alpha x0 + sigma eps with alpha = sqrt(alpha_bar), and schedule.alpha(t), schedule.sigma(t) give (B,). w is LCM's guidance: 0 is the
conditional estimate, and Imagen's scale is w + 1. Read with it: LCM (Luo et al. 2023, arXiv:2310.04378), sections 4.2 and 4.3, Algorithm 1;
LoRA (Hu et al. 2021, arXiv:2106.09685), section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minicm.schedules import Schedule


def guide(D_c: Tensor, D_null: Tensor, w: Tensor) -> Tensor:
    """The guided estimate of x0, in LCM's w. D_c with the label, D_null without: (B, *D), w (B,) -> (B, *D), in D_c's dtype."""
    raise NotImplementedError


def guided_step(
    teacher: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor, label: Tensor, w: Tensor
) -> Tensor:
    """One DDIM step from t to s with the guided estimate: the same x0_hat and the same eps_hat at s.

    teacher(x, t, label=label) and teacher(x, t), without a label, are estimates of x0. (B, *D) -> (B, *D), in x's dtype. Of the schedule use
    alpha and sigma; s may be 0.
    """
    raise NotImplementedError


def skipping_grid(T: int, k: int) -> Tensor:
    """Every k-th time, counted down from T, and 0: ascending, float64. Where k does not divide T the lowest skip is shorter.

    LCM's 50 skips of k = 20 are 51 times. (In `diffusers`, whose timestep i is our t = i + 1, T is 999.)
    """
    raise NotImplementedError


def w_embedding(w: Tensor, dim: int) -> Tensor:
    """LCM's sinusoids of w: dim/2 sines, then dim/2 cosines, of u f_j; (B,) -> (B, dim), in w's dtype, dim even and at least 4.

    u = 1000 w; the frequencies f_j fall from 1 (j = 0) to 1/10000 (j = dim/2 - 1), equally spaced in the logarithm.
    """
    raise NotImplementedError


def draw_w(low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    """n guidance scales, uniform from low to high, one a sample: (n,)."""
    raise NotImplementedError


def lcd_loss(
    f: Callable,
    f_target: Callable,
    teacher: Callable,
    x0: Tensor,
    eps: Tensor,
    label: Tensor,
    t: Tensor,
    s: Tensor,
    w: Tensor,
    step: Callable,
    distance: Callable,
) -> Tensor:
    """The latent consistency distillation loss of each sample, (B,): LCM, Algorithm 1, without its autoencoder.

    f and f_target are called (x, t, label=label, w=w); step(teacher, teacher.schedule, x, t, s, label, w) is your `guided_step`;
    distance(a, b) gives (B,). Gradients reach f, and neither f_target nor the teacher.
    """
    raise NotImplementedError


def lora_start(W: Tensor, rank: int, scale: float, generator: torch.Generator) -> dict[str, Any]:
    """A layer y = x W^T with a new adapter: {"W": W, "A": A, "B": B, "scale": scale}, W (out, in), A (rank, in), B (out, rank).

    The adapter stands for W + scale B A. It must change nothing before it is trained, and be able to learn; A comes from the generator,
    as wide as you like.
    """
    raise NotImplementedError


def lora_apply(layer: dict[str, Any], x: Tensor) -> Tensor:
    """The layer's output for x (n, in), merged or not: (n, out). Reads A and B in place of W + scale B A where it can."""
    raise NotImplementedError


def lora_merge(layer: dict[str, Any]) -> dict[str, Any]:
    """A new layer whose W is W + scale B A, with the same output. A layer that is merged already stays as it is.

    What you get is not changed. You may put more entries into the new layer.
    """
    raise NotImplementedError


def lora_unmerge(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer as it was before `lora_merge`: W bit for bit, and A, B and scale. A layer that is not merged stays as it is."""
    raise NotImplementedError
