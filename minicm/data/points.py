"""Data of one's own: whatever is at hand as tensors, drawn at random for `train`."""

import torch
from torch import Tensor


class Points:
    """Samples x (N, *D) and their labels (N,), if there are any, drawn with replacement from where they are kept."""

    def __init__(self, x: Tensor, labels: Tensor | None = None) -> None:
        self.x, self.labels = x, labels

    def __len__(self) -> int:
        return len(self.x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """Draw n of them: x0 (n, *D) and label (n,) or None, as `drawn` does."""
        if self.labels is None:
            return drawn(n, generator, self.x)[0], None
        x0, label = drawn(n, generator, self.x, self.labels)
        return x0, label


def drawn(n: int, generator: torch.Generator | None, *kept: Tensor) -> list[Tensor]:
    """The same n rows of each tensor (N, ...), with replacement: (n, ...).

    They come on the generator's device (without one, where they are kept); if they are kept there, nothing waits
    for the device. Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}: ask for at least one sample")
    home = kept[0].device
    device = home if generator is None else generator.device
    index = torch.randint(len(kept[0]), (n,), generator=generator, device=device).to(home)
    return [part[index].to(device) for part in kept]
