"""What a finer grid costs: CD with more and more times, sCD, which is its limit, and regression on f*, at one budget.

Every row is one training of a small network on the ring with the exact denoiser, for the same number of network evaluations
(`budget`). The rows of sCD change one setting of the first at a time. Run with
`python -m minicm.recipes.limit`; docs/results.md holds a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.metrics import consistency_error
from minicm.nets.mlp import MLP
from minicm.objectives.base import Objective
from minicm.objectives.cd import CD
from minicm.objectives.scm import SCM
from minicm.recipes.budget import steps_within
from minicm.recipes.mixtures import T_MIN, gentle_gap
from minicm.recipes.run import Recipe
from minicm.recipes.upper_bound import Regression, Trajectories
from minicm.schedules import TrigFlow
from minicm.times import LogNormalAngles, LogNormalIndex, karras_grid
from minicm.train import Data, TrainConfig, train

EVALUATIONS = 2_000_000  # of each training
CONFIG = TrainConfig(steps=1562, batch=256, lr=2e-3, ema=0.993)  # ten times the average's reach
GRIDS = (33, 129, 1025)  # times of CD
RING, CLOCK = GaussianMixture.ring(), TrigFlow()
SCD: dict[str, Any] = {"time_law": LogNormalAngles(mean=-1.0, std=1.4), "warmup": CONFIG.steps // 10}


def small(clock: TrigFlow | None = None, octaves: int = 3, scale: float = 0.5) -> Denoiser:
    """A network of width 64, in the EDM clock with 6 octaves of the time, or in TrigFlow with 3."""
    torch.manual_seed(CONFIG.seed)
    if clock is None:
        return Denoiser(MLP(2, 64, 4), t_min=T_MIN)
    return Denoiser(MLP(2, 64, 4, octaves=octaves, scale=scale), clock)


def rows() -> Iterator[tuple[str, Denoiser, Objective, Data]]:
    """Name, model, objective and data of every row."""
    for n in GRIDS:
        index = LogNormalIndex(mean=-0.5, std=2.0)
        objective = CD(RING.denoiser(), grid=karras_grid(n, T_MIN), index_law=index, weight=gentle_gap)
        yield f"CD, N = {n}", small(), objective, RING
    teacher = RING.denoiser(CLOCK)
    yield "sCD: c = .1, weight learnt", small(CLOCK), SCM(teacher, **SCD), RING
    yield "sCD, weight 1", small(CLOCK), SCM(teacher, **SCD, learn_weight=False), RING
    yield "sCD, smoother features of x, .3", small(CLOCK, scale=0.3), SCM(teacher, **SCD), RING
    known = Trajectories(RING, n=4096)
    yield "regression on f*", small(), Regression(known), known
    yield "sCD, c = 1", small(CLOCK), SCM(teacher, **SCD, c=1.0), RING
    yield "sCD, no warm-up", small(CLOCK), SCM(teacher, **SCD | {"warmup": 0}), RING
    wide = LogNormalAngles(mean=-0.5, std=2.0)
    yield "sCD, ln sigma ~ N(-.5, 2) as CD", small(CLOCK), SCM(teacher, **SCD | {"time_law": wide}), RING
    yield "sCD, 6 octaves", small(CLOCK, octaves=6), SCM(teacher, **SCD), RING


def main() -> None:
    """Train every row and print its errors as they come."""
    torch.set_num_threads(1)
    print("| | steps | 1-step RMSE | 1-step median | all times median |\n|---|---:|---:|---:|---:|")
    for name, model, objective, data in rows():
        recipe = Recipe(model, objective, data, CONFIG)
        steps = steps_within(EVALUATIONS, recipe)
        *_, last = train(model, objective, data, replace(CONFIG, steps=steps))
        error = consistency_error(last.ema, RING, generator=torch.Generator().manual_seed(1))
        numbers = (error.one_step_rmse, error.one_step_median, error.overall_median)
        print(f"| {name} | {steps} | " + " | ".join(f"{x:.3f}" for x in numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
