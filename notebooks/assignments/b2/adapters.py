"""Where the grader looks for your functions. If your code is built differently, edit this file and nothing else.

Each function here has the signature that the checks call; how it reaches your code is up to you.
"""

from __future__ import annotations

from collections.abc import Callable

import student
from torch import Tensor


def check_karras_grid(karras_grid: Callable[..., Tensor], seed: int) -> None:
    return student.check_karras_grid(karras_grid, seed)


def check_consistency(consistency: Callable[..., Tensor], seed: int) -> None:
    return student.check_consistency(consistency, seed)


def check_heun_step(heun_step: Callable[..., Tensor], seed: int) -> None:
    return student.check_heun_step(heun_step, seed)


def check_pseudo_huber(pseudo_huber: Callable[..., Tensor], seed: int) -> None:
    return student.check_pseudo_huber(pseudo_huber, seed)


def check_ct_loss(ct_loss: Callable[..., Tensor], seed: int) -> None:
    return student.check_ct_loss(ct_loss, seed)
