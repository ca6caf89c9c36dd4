"""Recipes in two dimensions for the methods after CT: iCT, ECT, and sCM from data or from a teacher.

Settings were found on the ring of 8 with a network of width 64 (5000 steps of 512), most of them with one seed.
"""

from __future__ import annotations

from pathlib import Path

from minicm.denoiser import Denoiser, in_clock
from minicm.distances import pseudo_huber
from minicm.objectives.ect import ECT
from minicm.objectives.ict import ICT
from minicm.objectives.scm import SCM
from minicm.recipes.mixtures import (
    T_MIN,
    DataName,
    gentle_gap,
    points_named,
    small_mlp,
    teacher_of,
    trained_teacher,
)
from minicm.recipes.run import Recipe
from minicm.schedules import TrigFlow
from minicm.times import LogNormalAngles, LogNormalIndex, LogNormalTimes
from minicm.train import TrainConfig


def mixture_ict(
    *, data: DataName = "ring", config: TrainConfig = TrainConfig(steps=6000, batch=512, lr=2e-3)
) -> Recipe:
    """Improved consistency training: as published but for the index law and a weight that does not starve large t.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        config: how long and how fast
    """
    objective = ICT(
        s0=10,
        s1=1280,  # 40, 160, 640, 1280 intervals at the end: median .103, .069, .052, .047
        index_law=LogNormalIndex(mean=-0.5, std=2.0),
        distance=pseudo_huber(0.03),
        weight=gentle_gap,
    )
    return Recipe(Denoiser(small_mlp(config.seed), t_min=T_MIN), objective, points_named(data), config)


def mixture_ect(
    *,
    data: DataName = "ring",
    teacher: Path | None = None,
    config: TrainConfig = TrainConfig(steps=6000, batch=512, lr=2e-3),
) -> Recipe:
    """Easy consistency tuning: from a diffusion model's weights, or without one from scratch.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        teacher: run folder or checkpoint of a mixture-teacher to start from; random weights if not given
        config: how long and how fast
    """
    net = small_mlp(config.seed) if teacher is None else trained_teacher(teacher).net.requires_grad_(True)
    objective = ECT(
        stages=8,
        time_law=LogNormalTimes(mean=-0.5, std=2.0, low=T_MIN),
        distance=pseudo_huber(0.03),
        weight=gentle_gap,
    )
    return Recipe(Denoiser(net, t_min=T_MIN), objective, points_named(data), config)


def mixture_sct(
    *, data: DataName = "ring", config: TrainConfig = TrainConfig(steps=5000, batch=512, lr=2e-3)
) -> Recipe:
    """Continuous-time consistency training (sCM without a teacher), from scratch.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        config: how long and how fast
    """
    objective = SCM(time_law=LogNormalAngles(mean=-1.0, std=1.4), warmup=config.steps // 10)
    return Recipe(
        Denoiser(small_mlp(config.seed, octaves=3), TrigFlow()), objective, points_named(data), config
    )


def mixture_scd(
    *,
    data: DataName = "ring",
    teacher: Path | None = None,
    config: TrainConfig = TrainConfig(steps=5000, batch=512, lr=4e-3),
) -> Recipe:
    """Continuous-time consistency distillation (sCM with a teacher), from scratch.

    Args:
        data: what to learn; ring, grid and random have an exact answer
        teacher: run folder or checkpoint of a mixture-teacher; the exact denoiser if not given
        config: how long and how fast
    """
    points, clock = points_named(data), TrigFlow()
    guide = in_clock(teacher_of(teacher, points), clock)
    objective = SCM(
        guide,
        time_law=LogNormalAngles(mean=-1.0, std=1.4),
        c=0.03,
        warmup=config.steps // 10,
        learn_weight=False,
    )
    # few octaves, low frequencies: the tangent holds the network's own derivative by t and x
    net = small_mlp(config.seed, octaves=3, scale=0.3)
    return Recipe(Denoiser(net, clock), objective, points, config)
