"""LCM-LoRA in two dimensions: an adapter that makes a teacher fast, an adapter for a style, and their sum.

Both are trained on the same base, a mixture-guided-teacher: the first distils the base, the second fine-tunes it to another
mixture, the style. theta_base + lambda1 tau_style + lambda2 tau_LCM then samples the style in a few steps, though
nothing was distilled for it (LCM-LoRA, arXiv:2311.05556, section 3.2). The style's flow is exact, so the sum is measured.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from minicm.checkpoint import load_checkpoint, load_model
from minicm.data.labels import LabelDropout
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.denoiser import guided as guided_by
from minicm.distances import pseudo_huber
from minicm.metrics import paired_error, rms
from minicm.nets.lora import add_lora, load_lora
from minicm.objectives.dsm import DSM
from minicm.objectives.lcd import LCD
from minicm.recipes.evaluate import Row
from minicm.recipes.guided import (
    CLASSES,
    SAMPLING,
    MixtureName,
    classed,
    evaluate_guided,
    evaluate_guided_teacher,
    gentle_level_gap,
    guided_noise,
    guided_teacher_of,
    level_times,
    quadratic_grid,
)
from minicm.recipes.run import Recipe
from minicm.schedules import Denoise
from minicm.solvers import euler_step, solve
from minicm.train import TrainConfig


def mixture_lcm_lora(
    *,
    teacher: Path,
    data: MixtureName = "ring",
    rank: int = 32,
    w: float = 1.0,
    config: TrainConfig = TrainConfig(steps=5000, batch=256, lr=2e-3),
) -> Recipe:
    """LCM-LoRA, the acceleration: adapters that make a teacher a consistency model, at one scale of guidance.

    Args:
        teacher: run folder or checkpoint of a mixture-guided-teacher, the base
        data: which mixture, that of the teacher
        rank: of the adapters
        w: the guidance scale that they take in, since the network has no input for it
        config: how long and how fast
    """
    points = classed(data)
    base = guided_teacher_of(teacher, points)
    objective = LCD(
        base,
        k=1,
        grid=quadratic_grid(),
        w_range=(w, w),
        distance=pseudo_huber(0.03),
        weight=gentle_level_gap,
        mu=0.0,
    )
    return Recipe(adapted(base, rank, config.seed), objective, points, config)


def mixture_style_lora(
    *,
    teacher: Path,
    data: MixtureName = "turned",
    rank: int = 32,
    config: TrainConfig = TrainConfig(steps=3000, batch=512, lr=2e-3),
) -> Recipe:
    """The style: adapters that fine-tune a teacher to another mixture.

    Args:
        teacher: run folder or checkpoint of a mixture-guided-teacher, the base
        data: which mixture, the style
        rank: of the adapters
        config: how long and how fast
    """
    points = classed(data)
    base = guided_teacher_of(teacher, points)
    labelled = LabelDropout(points, p=0.1, classes=CLASSES)
    return Recipe(adapted(base, rank, config.seed), DSM(time_law=level_times), labelled, config)


def adapted(base: Denoiser, rank: int, seed: int) -> Denoiser:
    """A copy of a model with new adapters, which change nothing yet and alone are trained."""
    model = copy.deepcopy(base)
    add_lora(model.net, rank, generator=torch.Generator().manual_seed(seed))
    return model


def composed(base: Denoiser, *adapters: tuple[dict[str, Tensor], float]) -> Denoiser:
    """A copy of the base with saved adapters (`lora_state`), each times its lambda: theta_base + sum lambda_i tau_i.

    LCM-LoRA, arXiv:2311.05556, section 3.2: composed(base, (style, 0.8), (lcm, 1.0)) there.
    """
    model = copy.deepcopy(base)
    for state, weight in adapters:
        load_lora(model.net, state, weight)
    return model.eval().requires_grad_(False)


def evaluate_run(path: Path, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """What `minicm evaluate` reports of a run of these recipes: against the exact guided flow of its data."""
    state, model = load_checkpoint(path), load_model(path)
    data = classed(state["options"]["data"])
    if state["recipe"] == "mixture-style-lora":
        return evaluate_guided_teacher(model, data, n=n, seed=seed)
    return evaluate_guided(model, data, ws=(state["options"]["w"],), n=n, seed=seed)


@torch.no_grad()
def evaluate_chain(
    teacher: Denoise, data: GaussianMixture, *, w: float, steps: int = 4, n: int = 2000, seed: int = 0
) -> list[Row]:
    """What a teacher reaches in a few steps without any distillation: DDIM at LCM's times, against the exact guided flow."""
    x_T, label = guided_noise(teacher.schedule, data, n, seed)
    x = solve(guided_by(teacher, label, w), teacher.schedule, x_T, [*SAMPLING[steps], 0.0], euler_step)
    truth = data.flow(x_T, teacher.schedule.t_max, 0.0, teacher.schedule, label, w)
    error, name = paired_error(x, truth, data.sigma_data), f"DDIM-{steps}"
    return [Row(f"{name} RMSE", rms(error)), Row(f"{name} median", error.median().item())]
