"""Labels that are dropped at random: how the teacher of guidance learns both with a class and without one."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelDropout:
    """Data whose labels are replaced by the null label with probability p.

    Ho and Salimans, arXiv:2207.12598, Algorithm 1: one network then knows D_c and D_null, and `guided` mixes them.
    data: anything with .sample(n, generator) -> (x0, label), labels in 0..classes - 1; the null label is `classes`.
    x0 is the data's own, whatever p is. Raises ValueError for p outside [0, 1] and classes < 1; `sample` for data
    without labels and for a label above `classes`.
    """

    data: Any
    p: float  # how often the label is dropped; .1 or .2 in the paper
    classes: int  # how many there are

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p = {self.p}: labels are dropped with a probability, in [0, 1]; .1 is usual")
        if self.classes < 1:
            raise ValueError(f"classes = {self.classes}: dropping labels needs at least one class")

    @property
    def name(self) -> str | None:
        """The data's own, None where they have none."""
        return getattr(self.data, "name", None)

    @property
    def decoder(self) -> Any:
        """Of data that are latents, their autoencoder."""
        return getattr(self.data, "decoder", None)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n points (n, *D) and their labels (n,) int64 in 0..classes, on the generator's device."""
        x0, label = self.data.sample(n, generator)
        if label is None:
            raise ValueError("the data have no labels to drop: give data whose sample returns (x0, label)")
        if label.device.type == "cpu" and label.max() > self.classes:  # a look would stall an accelerator
            raise ValueError(
                f"label {int(label.max())} in data said to have classes = {self.classes}: "
                f"labels go from 0 to classes - 1, and {self.classes} is the null label"
            )
        dropped = torch.rand(n, generator=generator, device=label.device) < self.p
        return x0, label.masked_fill(dropped, self.classes)
