"""Recipes in two dimensions: a teacher, CD, CT, iCT, ECT, sCM and TCD; and regression on f*, what the network can hold.

Each is a plain function: `model, objective, data, config = mixture_cd(data="grid")`. The published settings stand beside
those that were found to suit a 60-second budget; docs/results.md tells what each change bought.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minicm.checkpoint import load_teacher
from minicm.data.mixtures import GaussianMixture
from minicm.data.named import DataName, ExactName, points_named
from minicm.data.trajectories import Regression, Trajectories
from minicm.denoiser import Denoiser, InClock
from minicm.distances import pseudo_huber
from minicm.nets.mlp import MLP
from minicm.objectives.base import gentle_gap
from minicm.objectives.cd import CD
from minicm.objectives.ct import CT
from minicm.objectives.dsm import DSM
from minicm.objectives.ect import ECT
from minicm.objectives.ict import ICT
from minicm.objectives.scm import SCM
from minicm.objectives.tcd import TCD
from minicm.runs.run import Recipe
from minicm.schedules import Denoise, TrigFlow
from minicm.solvers import heun_step
from minicm.times import T_MIN, LogNormalIndex, LogNormalTimes, karras_grid
from minicm.train import Data, TrainConfig

# The settings found for 2-D.
INDEX = LogNormalIndex(mean=-0.5, std=2.0)  # which pair of times: ln t ~ N(-.5, 2)
HUBER = pseudo_huber(0.03)  # c in data units
FOUND: dict[str, Any] = dict(index_law=INDEX, distance=HUBER, weight=gentle_gap)

# How long and how fast.
TEACHER_RUN = TrainConfig(steps=9000, batch=1024, lr=2e-3)
CD_RUN = TrainConfig(steps=10000, batch=512, lr=2e-3)
CT_RUN = TrainConfig(steps=6000, batch=1024, lr=2e-3)
ICT_RUN = TrainConfig(steps=6000, batch=512, lr=2e-3)
SCT_RUN = replace(ICT_RUN, steps=5000)
SCD_RUN = replace(ICT_RUN, steps=5000, lr=4e-3)
TCD_RUN = replace(ICT_RUN, steps=7000)


def small_mlp(seed: int, **options: Any) -> MLP:
    """The network of all 2-D recipes: width 128, 4 hidden layers, 64 Fourier features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MLP(2, width=128, depth=4, features=64, **options)


def student(seed: int, **options: Any) -> Denoiser:
    """A consistency function in the EDM clock, from scratch; options of its network."""
    return Denoiser(small_mlp(seed, **options), t_min=T_MIN)


def teacher_of(path: Path | None, data: Data) -> Denoise:
    """A trained teacher's average, or, without a path, the exact denoiser of a mixture.

    Raises CheckpointError for a model that is no teacher of points in the EDM clock, ValueError where no denoiser is exact.
    """
    if path is None:
        if not isinstance(data, GaussianMixture):
            raise ValueError("only ring, grid and random have an exact denoiser: give a trained --teacher")
        return data.denoiser()
    return load_teacher(path, recipe="mixture-teacher", shape=(2,))


def mixture_teacher(*, data: DataName = "ring", config: TrainConfig = TEACHER_RUN) -> Recipe:
    """A diffusion teacher by denoising score matching (EDM).

    Args:
        data: what to learn; ring, grid and random have an exact answer
    """
    return Recipe(Denoiser(small_mlp(config.seed)), DSM(time_law=LogNormalTimes()), points_named(data), config)


def mixture_cd(*, data: DataName = "ring", teacher: Path | None = None, config: TrainConfig = CD_RUN) -> Recipe:
    """Consistency distillation with the settings found for 2-D: N = 33, log-normal index, weight (t + 1/2)/(t - s).

    Args:
        data: what to learn; ring, grid and random have an exact answer
        teacher: run folder or checkpoint of a mixture-teacher; the exact denoiser if not given
    """
    points = points_named(data)
    objective = CD(teacher_of(teacher, points), grid=karras_grid(33, T_MIN), index_law=INDEX, weight=gentle_gap)
    return Recipe(student(config.seed), objective, points, config)


def mixture_cd_published(
    *, data: DataName = "ring", teacher: Path | None = None, config: TrainConfig = CD_RUN
) -> Recipe:
    """Consistency distillation as published for CIFAR-10: N = 18, Heun, uniform index, weight 1, l2, mu = 0.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        teacher: run folder or checkpoint of a mixture-teacher; the exact denoiser if not given
    """
    points = points_named(data)
    objective = CD(teacher_of(teacher, points), grid=karras_grid(18, T_MIN))
    return Recipe(student(config.seed), objective, points, config)


def mixture_ct(*, data: DataName = "ring", config: TrainConfig = CT_RUN) -> Recipe:
    """Consistency training on data alone, with the settings found for 2-D: mu = 0, pseudo-Huber, log-normal index.

    Args:
        data: what to learn; ring, grid and random have an exact answer
    """
    return Recipe(student(config.seed), CT(mu0=0.0, **FOUND), points_named(data), config)


def mixture_ct_published(*, data: DataName = "ring", config: TrainConfig = CT_RUN) -> Recipe:
    """Consistency training as published for CIFAR-10: N(k) from 2 to 150, mu(k), uniform index, weight 1, l2.

    Args:
        data: what to learn; ring, grid and random have an exact answer
    """
    return Recipe(student(config.seed), CT(), points_named(data), config)


def mixture_ict(*, data: DataName = "ring", config: TrainConfig = ICT_RUN) -> Recipe:
    """Improved consistency training: as published but for the index law and a weight that does not starve large t.

    Args:
        data: what to learn; ring, grid and random have an exact answer
    """
    # 40, 160, 640, 1280 intervals at the end: median .103, .069, .052, .047
    return Recipe(student(config.seed), ICT(s0=10, s1=1280, **FOUND), points_named(data), config)


def mixture_ect(*, data: DataName = "ring", teacher: Path | None = None, config: TrainConfig = ICT_RUN) -> Recipe:
    """Easy consistency tuning: from a diffusion model's weights, or without one from scratch.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        teacher: run folder or checkpoint of a mixture-teacher to start from; random weights if not given
    """
    net = small_mlp(config.seed)
    if teacher is not None:
        net = load_teacher(teacher, recipe="mixture-teacher", shape=(2,)).net.requires_grad_(True)
    law = LogNormalTimes(INDEX.mean, INDEX.std, low=T_MIN)
    objective = ECT(stages=8, time_law=law, distance=HUBER, weight=gentle_gap)
    return Recipe(Denoiser(net, t_min=T_MIN), objective, points_named(data), config)


def mixture_sct(*, data: DataName = "ring", config: TrainConfig = SCT_RUN) -> Recipe:
    """Continuous-time consistency training (sCM without a teacher), from scratch.

    Args:
        data: what to learn; ring, grid and random have an exact answer
    """
    objective = SCM(warmup=config.steps // 10)
    return Recipe(Denoiser(small_mlp(config.seed, octaves=3), TrigFlow()), objective, points_named(data), config)


def mixture_scd(*, data: DataName = "ring", teacher: Path | None = None, config: TrainConfig = SCD_RUN) -> Recipe:
    """Continuous-time consistency distillation (sCM with a teacher), from scratch.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        teacher: run folder or checkpoint of a mixture-teacher; the exact denoiser if not given
    """
    points, clock = points_named(data), TrigFlow()
    guide = InClock(teacher_of(teacher, points), clock)
    objective = SCM(guide, c=0.03, warmup=config.steps // 10, learn_weight=False)
    # few octaves, low frequencies: the tangent holds the network's own derivative by t and x
    net = small_mlp(config.seed, octaves=3, scale=0.3)
    return Recipe(Denoiser(net, clock), objective, points, config)


def closing_grid(k: int, K: int) -> Tensor:
    """Karras grids of 9, 17, 33 and 65 times, a quarter of the training each: long steps spread consistency fast."""
    return karras_grid(2 ** (3 + min(3, 4 * k // K)) + 1, T_MIN)


def mixture_tcd(*, data: ExactName = "ring", teacher: Path | None = None, config: TrainConfig = TCD_RUN) -> Recipe:
    """Trajectory consistency distillation: from any time to any earlier one, with the settings found for 2-D.

    Args:
        teacher: run folder or checkpoint of a mixture-teacher; the exact denoiser if not given
    """
    points = points_named(data)
    objective = TCD(teacher_of(teacher, points), skip=1, grid=closing_grid, step=heun_step, mu=0.0, **FOUND)
    return Recipe(student(config.seed, second_time=True), objective, points, config)


@cache  # every seed learns from the same trajectories: about 10 s of one core
def trajectories_of(name: DataName) -> Trajectories:
    """The trajectories of a mixture by name. Raises ValueError where there is no exact flow."""
    mixture = points_named(name)
    if not isinstance(mixture, GaussianMixture):
        raise ValueError(f"only ring, grid and random have an exact f*, not {name}")
    return Trajectories(mixture)


def mixture_regression(*, data: DataName = "ring", config: TrainConfig = CD_RUN) -> Recipe:
    """Regression on the exact f*: no method, but what this network can hold.

    Args:
        data: what to learn; ring, grid or random, which have an exact answer
    """
    known = trajectories_of(data)
    return Recipe(student(config.seed), Regression(known), known, config)
