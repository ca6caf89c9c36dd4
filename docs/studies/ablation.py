"""What each change bought: from the published settings of CD and CT to those of the 2-D recipes, one at a time.

Run with `python -m docs.studies.ablation`; docs/results.md holds a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.distances import pseudo_huber
from minicm.metrics import consistency_error
from minicm.nets.mlp import MLP
from minicm.objectives.base import Objective, gentle_gap
from minicm.objectives.cd import CD
from minicm.objectives.ct import CT
from minicm.recipes.points import small_mlp
from minicm.times import T_MIN, LogNormalIndex, karras_grid
from minicm.train import TrainConfig, train

INDEX, HUBER = LogNormalIndex(mean=-0.5, std=2.0), pseudo_huber(0.03)


Ladder = Sequence[tuple[str, dict[str, Any]]]  # each rung keeps the options of those before it


CD_LADDER: Ladder = (
    ("published: N = 18, uniform index, weight 1, l2", {"grid": karras_grid(18, T_MIN)}),
    ("+ index ln t ~ N(-.5, 2)", {"index_law": INDEX}),
    ("+ weight (t + 1/2)/(t - s)", {"weight": gentle_gap}),
    ("+ N = 33: the recipe mixture-cd", {"grid": karras_grid(33, T_MIN)}),
    ("+ pseudo-Huber, c = .03: not taken", {"distance": HUBER}),
)


CT_LADDER: Ladder = (
    ("published: N(k) 2..150, mu(k), uniform index, weight 1, l2", {}),
    ("+ no average in the target, mu = 0", {"mu0": 0.0}),
    ("+ index ln t ~ N(-.5, 2)", {"index_law": INDEX}),
    ("+ pseudo-Huber, c = .03", {"distance": HUBER}),
    ("+ weight (t + 1/2)/(t - s): the recipe mixture-ct", {"weight": gentle_gap}),
)


def climb(ladder: Ladder, make: Callable[..., Objective], config: TrainConfig) -> None:
    """Train at every rung, and print the one-step error against the exact answer."""
    options: dict[str, Any] = {}
    for name, change in ladder:
        options |= change
        measure(name, make(**options), small_mlp(config.seed), config)


def measure(name: str, objective: Objective, net: MLP, config: TrainConfig) -> None:
    """Train a network on the ring with an objective, and print one row."""
    ring = GaussianMixture.ring()
    *_, last = train(Denoiser(net, t_min=T_MIN), objective, ring, config)
    error = consistency_error(last.ema, ring, n=2000, generator=torch.Generator().manual_seed(1))
    print(
        f"| {name} | {error.one_step_rmse:.3f} | {error.one_step_median:.3f} | {error.overall_rmse:.3f} |",
        flush=True,
    )


def main(steps: int = 4000) -> None:
    """Both ladders, and CD's last rung without Fourier features, at an equal number of steps and samples."""
    torch.set_num_threads(1)
    teacher = GaussianMixture.ring().denoiser()
    config = TrainConfig(steps=steps, batch=512, lr=2e-3)
    print("| setting | 1-step RMSE | 1-step median | all times RMSE |\n|---|---:|---:|---:|")
    climb(CD_LADDER, lambda **options: CD(teacher, **options), config)
    every = {key: value for _, change in CD_LADDER for key, value in change.items()}
    torch.manual_seed(config.seed)
    plain = MLP(2, width=128, depth=4, features=0)
    measure("the last, without Fourier features of x", CD(teacher, **every), plain, config)
    climb(CT_LADDER, CT, replace(config, batch=1024))


if __name__ == "__main__":
    main()
