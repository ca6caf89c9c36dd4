"""What the tests know exactly without minicm: the single Gaussian under every clock, the clocks to try, and refusals.

Written from the closed forms alone, so that it is independent of minicm.data.mixtures.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minicm import EDM, VP, Schedule, TrigFlow, karras_grid, skip_grid

CLOCKS = {
    "EDM": EDM(),
    "EDM to 20": EDM(20.0),
    "VP": VP.scaled_linear(),
    "VP linear": VP.linear(),
    "TrigFlow": TrigFlow(),
    "TrigFlow 1.3": TrigFlow(1.3, 30.0),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def times(clock: Schedule, n: int, low: float = 0.0, seed: int = 0) -> Tensor:
    """(n,) times spread over [low, 1] of the clock's range, whole in VP, never 0."""
    share = low + (1 - low) * torch.rand(n, generator=seeded(seed), dtype=torch.float64)
    t = share * clock.t_max
    return t.round().clamp(min=1) if isinstance(clock, VP) else t.clamp(min=1e-3)


def refused(words: str, call: Callable[[], object], kind: type[Exception] = ValueError) -> None:
    """The call raises one clear line in which the regular expression `words` is found."""
    with pytest.raises(kind, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def same(a: dict, b: dict) -> bool:
    """Whether two states are bit for bit the same."""
    return a.keys() == b.keys() and all(
        torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k] for k, v in a.items()
    )


def grid_of(schedule: Schedule, n: int) -> Tensor:
    """The usual grid of a clock: skips in VP, Karras's noises in the others."""
    if isinstance(schedule, VP):
        return skip_grid(n)
    return karras_grid(n) if isinstance(schedule, EDM) else (karras_grid(n) / 0.5).atan()


class Gaussian:
    """p0 = N(mean, std^2 I): the exact denoiser, called like a Denoiser, and the exact flow and consistency function.

    Bishop, conditional Gaussians; the flow keeps (x - alpha mean)/sqrt(alpha^2 std^2 + sigma^2) constant.
    """

    def __init__(self, mean: float | Tensor = 0.0, std: float = 0.5, schedule: Schedule = CLOCKS["EDM"]) -> None:
        self.mean, self.std, self.schedule, self.t_min = mean, std, schedule, 0.0

    def __call__(self, x: Tensor, t: Tensor, **cond: Tensor | None) -> Tensor:
        a, b = self._scales(x, t)
        variance = (a * self.std) ** 2 + b**2
        return self.mean + a * self.std**2 / variance * (x - a * self.mean)

    def flow(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        (a_t, b_t), (a_s, b_s) = self._scales(x, t), self._scales(x, s)
        width_t = ((a_t * self.std) ** 2 + b_t**2).sqrt()
        width_s = ((a_s * self.std) ** 2 + b_s**2).sqrt()
        return a_s * self.mean + width_s / width_t * (x - a_t * self.mean)

    def consistency(self, x: Tensor, t: Tensor, t_min: float = 0.002) -> Tensor:
        return self.flow(x, t, torch.full_like(t, t_min))

    def _scales(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        one_a_sample = (-1, *[1] * (x.ndim - 1))
        a, b = self.schedule.alpha(t), self.schedule.sigma(t)
        return a.reshape(one_a_sample).to(x.dtype), b.reshape(one_a_sample).to(x.dtype)
