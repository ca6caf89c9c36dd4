"""Orders of convergence of Euler and Heun against the exact flow, on every mixture and clock.

`python -m docs.studies.orders` prints a table; docs/results.md holds a run.
"""

import torch
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.data.named import ExactName, points_named
from minicm.metrics import order, paired_error
from minicm.metrics.rows import line, markdown
from minicm.schedules import EDM, VP, Schedule, TrigFlow
from minicm.solvers import Step, euler_step, heun_step, solve
from minicm.times import karras_grid, skip_grid

STEPS = {"EDM": (80, 160, 320, 640), "TrigFlow": (80, 160, 320, 640), "VP": (50, 100, 200, 400)}


def grid(schedule: Schedule, n: int) -> Tensor:
    """The decreasing times of n steps: Karras, its image in TrigFlow, whole times from T down to 20 in VP."""
    if isinstance(schedule, VP):
        return (20 + 0.98 * skip_grid(n)).round().flip(0)
    return schedule.t_of(karras_grid(n + 1)).flip(0)


def measured_order(mixture: GaussianMixture, schedule: Schedule, step: Step, n: int = 500) -> float:
    """The slope of the median error over the number of steps: p for a method of order p."""
    x = schedule.prior((n, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
    steps, errors = STEPS[type(schedule).__name__], []
    denoise = mixture.denoiser(schedule)
    for count in steps:
        times = grid(schedule, count)
        truth = mixture.flow(x, times[0].item(), times[-1].item(), schedule)
        errors.append(paired_error(solve(denoise, schedule, x, times, step), truth).median())
    return order(torch.tensor(steps), torch.stack(errors))


def main() -> None:
    """A Markdown table of all orders."""
    torch.set_num_threads(1)
    print(markdown(("mixture", "clock", "Euler", "Heun"), [], left=2))
    names: tuple[ExactName, ...] = ("ring", "grid", "random")
    for name in names:
        for schedule in (EDM(), TrigFlow(), VP.scaled_linear()):
            orders = (measured_order(points_named(name), schedule, step) for step in (euler_step, heun_step))
            print(line([name, type(schedule).__name__, *(f"{order:.3f}" for order in orders)]), flush=True)


if __name__ == "__main__":
    main()
