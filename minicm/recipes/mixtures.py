"""Recipes in two dimensions: a teacher, consistency distillation and consistency training on mixtures.

Each is a plain function: `model, objective, data, config = mixture_cd(data="grid")`. The published settings stand beside
those that were found to suit a 60-second budget; docs/results.md tells what each change bought.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from minicm.checkpoint import CheckpointError, load_checkpoint, load_model
from minicm.data import toy
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.distances import pseudo_huber
from minicm.nets.mlp import MLP
from minicm.objectives.cd import CD
from minicm.objectives.ct import CT
from minicm.objectives.dsm import DSM
from minicm.recipes.run import Recipe, is_teacher
from minicm.schedules import EDM, Denoise
from minicm.times import LogNormalIndex, LogNormalTimes, karras_grid
from minicm.train import Data, TrainConfig

DataName = Literal["ring", "grid", "random", "moons", "checkerboard", "pinwheel", "spiral"]
T_MIN = 0.002  # the papers' epsilon


@overload
def points_named(name: Literal["ring", "grid", "random"]) -> GaussianMixture: ...
@overload
def points_named(name: DataName) -> Data: ...
def points_named(name: DataName) -> Data:
    """The data set of a name: three mixtures with an exact answer, four shapes without."""
    makers: dict[str, Callable[[], Data]] = {
        "ring": GaussianMixture.ring,
        "grid": GaussianMixture.grid,
        "random": GaussianMixture.random,
        "moons": toy.TwoMoons,
        "checkerboard": toy.Checkerboard,
        "pinwheel": toy.Pinwheel,
        "spiral": toy.Spiral,
    }
    if name not in makers:
        raise ValueError(f"data must be one of {', '.join(makers)}, got {name!r}")
    return makers[name]()


def small_mlp(seed: int, **options: Any) -> MLP:
    """The network of all 2-D recipes: width 128, 4 hidden layers, 64 Fourier features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MLP(2, width=128, depth=4, features=64, **options)


def teacher_of(path: Path | None, data: Data) -> Denoise:
    """A trained teacher's average, or, without a path, the exact denoiser of a mixture.

    Raises CheckpointError for a model that is no diffusion model, ValueError where there is no exact denoiser.
    """
    if path is None:
        if not isinstance(data, GaussianMixture):
            raise ValueError("only ring, grid and random have an exact denoiser: give a trained --teacher")
        return data.denoiser()
    return trained_teacher(path)


def trained_teacher(path: Path) -> Denoiser:
    """A trained mixture-teacher's average. Raises CheckpointError for a student, pictures and another clock."""
    if not is_teacher(load_checkpoint(path)):
        raise CheckpointError(f"{path} holds a consistency model, no diffusion teacher")
    model = load_model(path)
    if not isinstance(model.net, MLP) or model.schedule != EDM():
        raise CheckpointError(f"{path} holds no teacher of points in the EDM clock: train mixture-teacher")
    return model


def gentle_gap(t: Tensor, s: Tensor) -> Tensor:
    """The weight (t + 1/2)/(t - s): iCT's 1/(t - s), which starves large t, with the growth of t given back."""
    return (t + 0.5) / (t - s)


def mixture_teacher(
    *, data: DataName = "ring", config: TrainConfig = TrainConfig(steps=9000, batch=1024, lr=2e-3)
) -> Recipe:
    """A diffusion teacher by denoising score matching (EDM).

    Args:
        data: what to learn; ring, grid and random have an exact answer
        config: how long and how fast
    """
    return Recipe(
        Denoiser(small_mlp(config.seed)), DSM(time_law=LogNormalTimes()), points_named(data), config
    )


def mixture_cd(
    *,
    data: DataName = "ring",
    teacher: Path | None = None,
    config: TrainConfig = TrainConfig(steps=10000, batch=512, lr=2e-3),
) -> Recipe:
    """Consistency distillation with the settings found for 2-D: N = 33, log-normal index, weight (t + 1/2)/(t - s).

    Args:
        data: what to learn; ring, grid and random have an exact answer
        teacher: run folder or checkpoint of a mixture-teacher; the exact denoiser if not given
        config: how long and how fast
    """
    points = points_named(data)
    objective = CD(
        teacher_of(teacher, points),
        grid=karras_grid(33, T_MIN),
        index_law=LogNormalIndex(mean=-0.5, std=2.0),
        weight=gentle_gap,
    )
    return Recipe(Denoiser(small_mlp(config.seed), t_min=T_MIN), objective, points, config)


def mixture_cd_published(
    *,
    data: DataName = "ring",
    teacher: Path | None = None,
    config: TrainConfig = TrainConfig(steps=10000, batch=512, lr=2e-3),
) -> Recipe:
    """Consistency distillation as published for CIFAR-10: N = 18, Heun, uniform index, weight 1, l2, mu = 0.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        teacher: run folder or checkpoint of a mixture-teacher; the exact denoiser if not given
        config: how long and how fast
    """
    points = points_named(data)
    objective = CD(teacher_of(teacher, points), grid=karras_grid(18, T_MIN))
    return Recipe(Denoiser(small_mlp(config.seed), t_min=T_MIN), objective, points, config)


def mixture_ct(
    *, data: DataName = "ring", config: TrainConfig = TrainConfig(steps=6000, batch=1024, lr=2e-3)
) -> Recipe:
    """Consistency training on data alone, with the settings found for 2-D: mu = 0, pseudo-Huber, log-normal index.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        config: how long and how fast
    """
    objective = CT(
        mu0=0.0,
        index_law=LogNormalIndex(mean=-0.5, std=2.0),
        distance=pseudo_huber(0.03),
        weight=gentle_gap,
    )
    return Recipe(Denoiser(small_mlp(config.seed), t_min=T_MIN), objective, points_named(data), config)


def mixture_ct_published(
    *, data: DataName = "ring", config: TrainConfig = TrainConfig(steps=6000, batch=1024, lr=2e-3)
) -> Recipe:
    """Consistency training as published for CIFAR-10: N(k) from 2 to 150, mu(k), uniform index, weight 1, l2.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        config: how long and how fast
    """
    return Recipe(Denoiser(small_mlp(config.seed), t_min=T_MIN), CT(), points_named(data), config)
