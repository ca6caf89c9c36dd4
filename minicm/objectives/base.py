"""What all objectives share: the draw, the target without gradient, the same dropout mask on both sides.

An objective has two halves. `draw` makes everything that is random; `loss` is then a pure function. So a loss can be
compared with another implementation on the same draw, and permuting the batch permutes the losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minicm.denoiser import Guided
from minicm.schedules import VP, Denoise
from minicm.times import IndexLaw


@dataclass(frozen=True)
class Draw:
    """All that is random in one training step; every field is (B, ...) or None."""

    t: Tensor  # (B,) where the online prediction is made
    eps: Tensor  # (B, *D) unit noise
    seed: Tensor  # (B,) int64 on the CPU, for dropout; the first one is used
    # Of these each objective draws what it needs and leaves the others None; Any: its loss need not ask again.
    s: Tensor | Any = None  # (B,) where the target's prediction is made, s < t
    w: Tensor | Any = None  # (B,) guidance scale
    u: Tensor | Any = None  # (B,) third time, the end of the step

    def __getitem__(self, index: Any) -> Draw:
        """The draw of some of the samples: a permutation, a slice of a global batch."""
        index = index.cpu() if isinstance(index, Tensor) else index  # where the seeds are
        parts: dict[str, Any] = {name: None if part is None else part[index] for name, part in vars(self).items()}
        return Draw(**parts)


class Objective(nn.Module):
    """A training objective: `draw` what is random, then `loss`, one number a sample."""

    __call__: Callable[..., Tensor]  # for type checkers: nn.Module's own returns Any
    kind = "consistency"  # of the model that it trains; or "diffusion"

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        """All that is random for the batch x0 (B, *D) at step k of K, from the generator on x0's device."""
        raise NotImplementedError

    def loss(self, f: Any, f_target: Any, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int) -> Tensor:
        """The losses (B,), with no randomness of their own; gradients reach f alone.

        What f and f_target must offer is said by each objective: most take any `Denoise`, some a `Denoiser`.
        """
        raise NotImplementedError

    def target_decay(self, k: int, K: int) -> float:
        """mu in theta_minus <- mu theta_minus + (1 - mu) theta; 0 makes the target a stop-gradient copy."""
        return 0.0

    def forward(
        self,
        f: Denoise,
        f_target: Denoise,
        x0: Tensor,
        label: Tensor | None = None,
        k: int = 0,
        K: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """draw, then loss: (B, *D) -> (B,). Raises ValueError for an empty batch."""
        if len(x0) == 0:
            raise ValueError("the batch is empty: an objective needs at least one sample")
        generator = default_generator(x0.device) if generator is None else generator
        return self.loss(f, f_target, x0, label, self.draw(x0, label, k, K, generator), k, K)


class Distillation(Objective):
    """An objective with a teacher: the frozen model, guided or not, one clock for it and f, a target of constant decay.

    teacher: a diffusion model called (x, t, label=...) with a `schedule`, or None where the data take its place.
    Raises ValueError unless 0 <= mu < 1, for a w_range that is not 0 <= low <= high and, with one, a teacher without classes.
    """

    def __init__(self, teacher: Denoise | None, mu: float = 0.0, w_range: tuple[float, float] | None = None) -> None:
        super().__init__()
        if not 0 <= mu < 1:
            raise ValueError(f"the target's decay mu must lie in [0, 1), got {mu}: at 1 the target never moves")
        if w_range is not None and not 0 <= w_range[0] <= w_range[1] < float("inf"):
            raise ValueError(f"w_range = {w_range}: guidance is drawn from [low, high] with 0 <= low <= high")
        if w_range is not None and getattr(getattr(teacher, "net", None), "classes", None) == 0:
            raise ValueError("the teacher's net has no classes: guidance needs one built with classes=...")
        self.frozen = (teacher,)  # in a tuple, so that its weights are not taken for the objective's own
        self.mu, self.w_range = mu, w_range

    @property
    def teacher(self) -> Any:
        """The frozen diffusion model, or None."""
        return self.frozen[0]

    def guided(self, label: Tensor | None, w: Tensor | None) -> Callable:
        """The teacher with its label and, where there is one and a w, guided; no label is all null: nothing to guide."""
        return partial(self.teacher, label=label) if label is None or w is None else Guided(self.teacher, label, w)

    def draw_w(self, n: int, generator: torch.Generator) -> Tensor | None:
        """w ~ U[low, high] for n samples (LCM, arXiv:2310.04378, Algorithm 1); (n,), float64; None without a w_range."""
        if self.w_range is None:
            return None
        low, high = self.w_range
        return low + (high - low) * torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)

    def check_clock(self, f: Denoise) -> None:
        """Raises ValueError where f and the teacher count time differently: the teacher's point would not be f's."""
        if self.teacher is not None and getattr(f, "schedule", self.teacher.schedule) != self.teacher.schedule:
            raise ValueError("f and the teacher have different clocks: use InClock(teacher, f.schedule)")

    def target_decay(self, k: int, K: int) -> float:
        return self.mu


def unit_noise(x0: Tensor, generator: torch.Generator) -> Tensor:
    """eps ~ N(0, I) in the shape and dtype of x0."""
    return torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)


def noisy_draw(x0: Tensor, k: int, generator: torch.Generator, *, t: Tensor, s: Tensor | None = None) -> Draw:
    """The draw at given times (B,): beside them unit noise in x0's shape and dtype, and the seeds of dropout."""
    return Draw(t=t, s=s, eps=unit_noise(x0, generator), seed=dropout_seeds(len(x0), k, generator))


def dropout_seeds(n: int, k: int, generator: torch.Generator) -> Tensor:
    """(n,) seeds on the CPU, made from the generator's own seed and k: reading a GPU's draw would stall it."""
    start = (generator.initial_seed() * 1_000_003 + k * 1_009) % 2**62
    return start + torch.arange(n)


def interval_draw(grid: Tensor, index_law: IndexLaw, x0: Tensor, k: int, generator: torch.Generator) -> Draw:
    """One interval [s, t] of an ascending grid (N,) and one noise for each sample of x0 (B, *D).

    CM, arXiv:2303.01469, Algorithms 2 and 3: n from the index law, t = grid[n + 1], s = grid[n].
    """
    grid = grid.to(generator.device, non_blocking=True)  # a blocking copy would wait for the GPU
    n = index_law(grid, len(x0), generator)
    return noisy_draw(x0, k, generator, t=grid[n + 1], s=grid[n])


def whole_times(teacher: Denoise | None) -> Tensor:
    """The times 0..T of a teacher in the VP clock, (T + 1,). Raises ValueError for another clock and for None."""
    schedule = getattr(teacher, "schedule", None)
    if not isinstance(schedule, VP):
        reason = "there is no teacher" if teacher is None else f"the teacher's clock is {schedule}"
        raise ValueError(f"skips are counted on 0..T of a VP clock, but {reason}: give it a grid of times")
    return torch.arange(len(schedule.alpha_bar), dtype=torch.float64)


def default_generator(device: torch.device) -> torch.Generator:
    """A generator seeded from torch's global one, for calls that bring none."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**31, ())))


@contextmanager
def dropout_from(seed: Tensor) -> Iterator[None]:
    """Draw dropout masks from the first of the seeds, on the CPU and a GPU in use, and restore their global state."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed would queue a call, with its stack, for every kind of device not in use: each step 1 ms
        for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)):
            generator.manual_seed(int(seed[0]))
        yield


def predict_pair(online: Callable[[], Tensor], target: Callable[[], Tensor], seed: Tensor) -> tuple[Tensor, Tensor]:
    """(online, target), each (B, *D): first the target without gradient, then the network, under one dropout mask.

    The stop-gradient is CM's (arXiv:2303.01469, Eq. 7), the shared mask iCT's (arXiv:2310.14189, section 3.1).
    """
    with dropout_from(seed), torch.no_grad():
        y_target = target()
    with dropout_from(seed):
        y = online()
    return y, y_target


def constant(t: Tensor, s: Tensor) -> Tensor:
    """The weight lambda = 1 of CM (arXiv:2303.01469, section 4); (B,), (B,) -> (B,)."""
    return torch.ones_like(t)


def inverse_gap(t: Tensor, s: Tensor) -> Tensor:
    """The weight 1/(t - s) of iCT and ECT (arXiv:2310.14189, section 3.1); (B,), (B,) -> (B,)."""
    return 1 / (t - s)


def gentle_gap(t: Tensor, s: Tensor, sigma_data: float = 0.5) -> Tensor:
    """The weight (t + sigma_d)/(t - s): iCT's 1/(t - s), which starves large t, with the growth of t given back.

    t, s (B,) -> (B,). With sigma_data, functools.partial(gentle_gap, sigma_data=...) is a weight.
    """
    return (t + sigma_data) / (t - s)
