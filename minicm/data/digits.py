"""1,797 real handwritten digits of 8x8 pixels, shipped with the package.

Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine
Learning Repository, doi 10.24432/C50P49, CC BY 4.0: its test part, by 13 writers, as in
scikit-learn's `load_digits` (NOTICE, beside this file, gives the credit). A pixel counts the inked
dots of a 4x4 block of the scan: a whole number from 0 to 16.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minicm.data.points import drawn


class Digits:
    """The digits as pictures in [-1, 1], -1 paper and 1 ink, with labels 0..9.

    `images` (N, 1, 8, 8) in torch's default dtype, `labels` (N,) int64. The split is fixed: of each
    class every fifth picture in file order is for testing, 355 in all, the other 1,442 for training;
    both by the same writers. (Every fifth of the whole file would not do: its pages repeat 0..9, so
    that the test set would hold 21 ones and 52 threes.)

    The pixels' mean is -0.39, their standard deviation 0.75 (`sigma_data`), their root mean square
    0.85. Dequantised, where 17 bins instead of 17 points span [-1, 1], it is 0.71 about -0.37.
    """

    name = "digits"
    classes = 10

    def __init__(
        self,
        train: bool = True,
        *,
        dequantise: bool = False,  # spread each level evenly over its bin, afresh at each draw
        device: torch.device | str = "cpu",  # where the pictures are kept
    ) -> None:
        with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
            # pixel by pixel in the file (8, 8, N), where they compress best: a pixel's values are alike
            levels, labels = np.ascontiguousarray(file["images"].transpose(2, 0, 1)), file["labels"].astype(np.int64)
        turn = np.empty_like(labels)  # 0, 1, 2, ... within each class
        for digit in range(self.classes):
            turn[labels == digit] = np.arange((labels == digit).sum())
        chosen = turn % 5 != 4 if train else turn % 5 == 4
        x0 = torch.from_numpy(levels[chosen]).unsqueeze(1).to(device, torch.get_default_dtype())
        self.images = (x0 + 0.5) / 8.5 - 1 if dequantise else x0 / 8 - 1  # middles of bins; points
        self.labels = torch.from_numpy(labels[chosen]).to(device)
        self.dequantise = dequantise
        self.sigma_data = 0.71 if dequantise else 0.75

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n pictures with replacement: x0 (n, 1, 8, 8) and label (n,), where `drawn` has them."""
        x0, label = drawn(n, generator, self.images, self.labels)
        if self.dequantise:
            u = torch.rand(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
            x0 = (x0 + (u - 0.5) / 8.5).clamp(-1, 1)  # clamp: rounding may step over by 1e-7
        return x0, label
