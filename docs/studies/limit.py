"""What a finer grid costs, and what sCD, its limit, needs: CD and sCD at one budget of network evaluations.

Every row is one training of a small network on the ring of 8 with the exact denoiser as teacher, all with the same number
of evaluations (`budget`). Run with `python -m docs.studies.limit`; docs/results.md holds a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from minicm.data.mixtures import GaussianMixture
from minicm.data.trajectories import Regression, Trajectories
from minicm.denoiser import Denoiser
from minicm.evaluate.compare import steps_within
from minicm.metrics import consistency_error
from minicm.nets.mlp import MLP
from minicm.objectives.base import Objective, gentle_gap
from minicm.objectives.cd import CD
from minicm.objectives.scm import SCM
from minicm.runs.run import Recipe
from minicm.schedules import TrigFlow
from minicm.times import T_MIN, LogNormalAngles, LogNormalIndex, karras_grid
from minicm.train import Data, TrainConfig, train

EVALUATIONS = 2_000_000  # of each training


CONFIG = TrainConfig(steps=1562, batch=256, lr=2e-3)


RING, CLOCK = GaussianMixture.ring(), TrigFlow()


class Row(NamedTuple):
    """One training of the table."""

    name: str
    model: Denoiser
    objective: Objective
    data: Data = RING
    lr: float = CONFIG.lr


def net(octaves: int = 6, scale: float = 0.5) -> MLP:
    """A network of width 64: octaves of the time, spread of the frequencies of x."""
    torch.manual_seed(CONFIG.seed)
    return MLP(2, 64, 4, octaves=octaves, scale=scale)


def rows() -> Iterator[Row]:
    """All trainings: CD on finer and finer grids, sCD with one setting changed after another, regression."""

    def cd(n: int) -> CD:
        index = LogNormalIndex(mean=-0.5, std=2.0)
        return CD(RING.denoiser(), grid=karras_grid(n, T_MIN), index_law=index, weight=gentle_gap)

    def scd(c: float, learn_weight: bool) -> SCM:
        law, warmup = LogNormalAngles(mean=-1.0, std=1.4), CONFIG.steps // 10
        return SCM(RING.denoiser(CLOCK), time_law=law, warmup=warmup, c=c, learn_weight=learn_weight)

    def trig(scale: float) -> Denoiser:
        return Denoiser(net(octaves=3, scale=scale), CLOCK)

    known = Trajectories(RING, n=4096)
    yield Row("regression on f*", Denoiser(net(), t_min=T_MIN), Regression(known), known)
    for n in (33, 129, 1025):
        yield Row(f"CD, N = {n}", Denoiser(net(), t_min=T_MIN), cd(n))
    yield Row("CD, N = 33, scale .3", Denoiser(net(scale=0.3), t_min=T_MIN), cd(33))
    yield Row("CD, N = 33, lr 4e-3", Denoiser(net(), t_min=T_MIN), cd(33), lr=4e-3)
    yield Row("CD, N = 33, scale .3, lr 4e-3", Denoiser(net(scale=0.3), t_min=T_MIN), cd(33), lr=4e-3)
    yield Row("sCD, c = .1, weight learnt", trig(0.5), scd(0.1, True))
    yield Row("sCD, c = .1", trig(0.5), scd(0.1, False))
    yield Row("sCD, c = .1, scale .3", trig(0.3), scd(0.1, False))
    yield Row("sCD, c = .03, scale .3", trig(0.3), scd(0.03, False))
    yield Row("sCD, c = .03, lr 4e-3", trig(0.5), scd(0.03, False), lr=4e-3)
    yield Row("sCD, c = .03, scale .3, lr 4e-3", trig(0.3), scd(0.03, False), lr=4e-3)


def main() -> None:
    """Train every row and print its errors as they come."""
    torch.set_num_threads(1)
    print("| | steps | 1-step RMSE | 1-step median | all times median |\n|---|---:|---:|---:|---:|")
    for name, model, objective, data, lr in rows():
        steps = steps_within(EVALUATIONS, Recipe(model, objective, data, CONFIG))
        *_, last = train(model, objective, data, replace(CONFIG, steps=steps, lr=lr))
        error = consistency_error(last.ema, RING, generator=torch.Generator().manual_seed(1))
        numbers = (error.one_step_rmse, error.one_step_median, error.overall_median)
        print(f"| {name} | {steps} | " + " | ".join(f"{x:.3f}" for x in numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
