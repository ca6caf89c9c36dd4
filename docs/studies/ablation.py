"""What each setting bought, on the ring of 8: from the published CD and CT to the 2-D recipes, and from CD to its limit.

    python -m docs.studies.ablation cd       # and ct: one change after another, at 4,000 updates
    python -m docs.studies.ablation limit    # finer grids, and what sCD, their limit, needs: at 2 M evaluations each

prints one row a training; docs/results.md holds a run. "limit" is of a small network, with the exact denoiser as teacher.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from minicm.data.mixtures import GaussianMixture
from minicm.data.trajectories import Regression, Trajectories
from minicm.denoiser import Denoiser
from minicm.evaluate.budget import steps_within
from minicm.metrics import consistency_error
from minicm.metrics.rows import line, markdown
from minicm.nets.mlp import MLP
from minicm.objectives.base import Objective, gentle_gap
from minicm.objectives.cd import CD
from minicm.objectives.ct import CT
from minicm.objectives.scm import SCM
from minicm.recipes.points import HUBER, INDEX, student
from minicm.runs.run import Recipe
from minicm.schedules import TrigFlow
from minicm.times import T_MIN, karras_grid
from minicm.train import TrainConfig, train

RING, CLOCK = GaussianMixture.ring(), TrigFlow()
LADDER = TrainConfig(steps=4000, batch=512, lr=2e-3)
LIMIT, EVALUATIONS = TrainConfig(steps=1562, batch=256, lr=2e-3), 2_000_000
Trials = Iterator[tuple[str, Recipe]]


def cd(**options: Any) -> CD:
    """CD from the exact denoiser, with the settings found for 2-D but for those that are given."""
    found: dict[str, Any] = {"grid": karras_grid(33, T_MIN), "index_law": INDEX, "weight": gentle_gap}
    return CD(RING.denoiser(), **found | options)


def climb(make: Callable[..., Objective], rungs: dict[str, dict[str, Any]], config: TrainConfig) -> Trials:
    """A training a rung; each keeps the options of those before it."""
    options: dict[str, Any] = {}
    for name, change in rungs.items():
        options |= change
        yield name, Recipe(student(config.seed), make(**options), RING, config)


def cd_ladder() -> Trials:
    """From CD as published for CIFAR-10 to the recipe mixture-cd."""
    rungs: dict[str, dict[str, Any]] = {
        "published: N = 18, uniform index, weight 1, l2": {"grid": karras_grid(18, T_MIN)},
        "+ index ln t ~ N(-.5, 2)": {"index_law": INDEX},
        "+ weight (t + 1/2)/(t - s)": {"weight": gentle_gap},
        "+ N = 33: the recipe mixture-cd": {"grid": karras_grid(33, T_MIN)},
        "+ pseudo-Huber, c = .03: not taken": {"distance": HUBER},
    }
    yield from climb(lambda **options: CD(RING.denoiser(), **options), rungs, LADDER)
    plain = Denoiser(net(128, features=0), t_min=T_MIN)
    yield "the last, without Fourier features of x", Recipe(plain, cd(distance=HUBER), RING, LADDER)


def ct_ladder() -> Trials:
    """From CT as published for CIFAR-10 to the recipe mixture-ct."""
    rungs: dict[str, dict[str, Any]] = {
        "published: N(k) 2..150, mu(k), uniform index, weight 1, l2": {},
        "+ no average in the target, mu = 0": {"mu0": 0.0},
        "+ index ln t ~ N(-.5, 2)": {"index_law": INDEX},
        "+ pseudo-Huber, c = .03": {"distance": HUBER},
        "+ weight (t + 1/2)/(t - s): the recipe mixture-ct": {"weight": gentle_gap},
    }
    yield from climb(CT, rungs, replace(LADDER, batch=1024))


def limit() -> Trials:
    """CD on finer and finer grids, sCD with one setting changed after another, regression; all at one budget."""

    def trial(f: Denoiser, objective: Objective, data: Any = RING, lr: float = LIMIT.lr) -> Recipe:
        recipe = Recipe(f, objective, data, replace(LIMIT, lr=lr))
        return recipe._replace(config=replace(recipe.config, steps=steps_within(EVALUATIONS, recipe)))

    def edm(scale: float = 0.5) -> Denoiser:
        return Denoiser(net(64, scale=scale), t_min=T_MIN)

    def scd(c: float, scale: float = 0.5, learn_weight: bool = False, lr: float = LIMIT.lr) -> Recipe:
        objective = SCM(RING.denoiser(CLOCK), warmup=LIMIT.steps // 10, c=c, learn_weight=learn_weight)
        return trial(Denoiser(net(64, octaves=3, scale=scale), CLOCK), objective, lr=lr)

    known = Trajectories(RING, n=4096)
    yield "regression on f*", trial(edm(), Regression(known), known)
    for n in (33, 129, 1025):
        yield f"CD, N = {n}", trial(edm(), cd(grid=karras_grid(n, T_MIN)))
    yield "CD, N = 33, scale .3", trial(edm(0.3), cd())
    yield "CD, N = 33, lr 4e-3", trial(edm(), cd(), lr=4e-3)
    yield "CD, N = 33, scale .3, lr 4e-3", trial(edm(0.3), cd(), lr=4e-3)
    yield "sCD, c = .1, weight learnt", scd(0.1, learn_weight=True)
    yield "sCD, c = .1", scd(0.1)
    yield "sCD, c = .1, scale .3", scd(0.1, 0.3)
    yield "sCD, c = .03, scale .3", scd(0.03, 0.3)
    yield "sCD, c = .03, lr 4e-3", scd(0.03, lr=4e-3)
    yield "sCD, c = .03, scale .3, lr 4e-3", scd(0.03, 0.3, lr=4e-3)


def net(width: int, **options: Any) -> MLP:
    """A network of seed 0; options: octaves of the time, features of x and the spread (scale) of their frequencies."""
    torch.manual_seed(0)
    return MLP(2, width, 4, **options)


STUDIES = {"cd": cd_ladder, "ct": ct_ladder, "limit": limit}


def main(*names: str) -> None:
    """Train every trial of the studies, all if none is named, and print its errors as they come."""
    torch.set_num_threads(1)
    print(markdown(("setting", "steps", "1-step RMSE", "1-step median", "all times RMSE", "all times median"), []))
    for study in names or STUDIES:
        for name, recipe in STUDIES[study]():
            *_, last = train(*recipe)
            e = consistency_error(last.ema, RING, n=2000, generator=torch.Generator().manual_seed(1))
            errors = (e.one_step_rmse, e.one_step_median, e.overall_rmse, e.overall_median)
            print(line([name, str(recipe.config.steps), *(f"{error:.3f}" for error in errors)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
