"""Recipes of the LCM family in two dimensions: a teacher that can be guided, LCD, fine-tuning on data, and both LoRAs.

Each is a plain function: `model, objective, data, config = mixture_lcd(data="grid")`. The data are mixtures in two classes,
in Stable Diffusion's VP clock. The guided flow of a mixture is exact, so a student is held against it pointwise, at every
w: what LCM's own paper could not show.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minicm.checkpoint import CheckpointError, load_teacher, load_trained
from minicm.data.labels import LabelDropout
from minicm.data.mixtures import GaussianMixture
from minicm.data.named import CLASSES, MixtureName, classed
from minicm.denoiser import Denoiser
from minicm.nets.lora import add_lora, load_lora
from minicm.objectives.base import gentle_gap
from minicm.objectives.dsm import DSM
from minicm.objectives.lcd import LCD
from minicm.recipes.points import HUBER, small_mlp
from minicm.runs.run import Recipe
from minicm.schedules import VP, Denoise
from minicm.times import LogNormalTimes, quadratic_grid
from minicm.train import TrainConfig

CLOCK = VP.scaled_linear()
W_RANGE = (0.0, 8.0)  # guidance that a student learns, LCM's convention

# How long and how fast.
TEACHER_RUN = TrainConfig(steps=8000, batch=1024, lr=2e-3)
LCD_RUN = TrainConfig(steps=9000, batch=256, lr=2e-3)
LCF_RUN = replace(LCD_RUN, steps=3000, lr=5e-4)
LORA_RUN = replace(LCD_RUN, steps=5000)
STYLE_RUN = replace(LCD_RUN, steps=3000, batch=512)


def gentle_level_gap(t: Tensor, s: Tensor) -> Tensor:
    """`gentle_gap` in the noise levels sigma/alpha, EDM's times."""
    level_t, level_s = (CLOCK.sigma(time) / CLOCK.alpha(time) for time in (t, s))
    return gentle_gap(level_t, level_s)


# The settings found for 2-D.
FOUND: dict[str, Any] = dict(skip=1, grid=quadratic_grid(), distance=HUBER, weight=gentle_level_gap, mu=0.0)


def level_times(n: int, generator: torch.Generator) -> Tensor:
    """EDM's training noise in the VP clock: the whole time whose sigma/alpha is nearest, 1 at least."""
    return CLOCK.t_of(LogNormalTimes()(n, generator)).clamp(min=1)


def lcd(teacher: Denoise | None, w_range: tuple[float, float] = W_RANGE) -> LCD:
    """The objective with the settings found for 2-D; without a teacher, LCF's."""
    return LCD(teacher, w_range=w_range, **FOUND)


def guided_student(seed: int) -> Denoiser:
    """A consistency function with label and w, in the VP clock."""
    return Denoiser(small_mlp(seed, classes=CLASSES, guidance=True), CLOCK)


def guided_model(path: Path) -> Denoiser:
    """A trained mixture-guided-teacher. Raises CheckpointError for all but diffusion models with classes in this clock."""
    return load_teacher(path, recipe="mixture-guided-teacher", shape=(2,), schedule=CLOCK, classes=CLASSES)


def guided_teacher_of(path: Path | None, data: GaussianMixture) -> Denoise:
    """A trained mixture-guided-teacher, or without a path the exact denoiser of the data."""
    return data.denoiser(CLOCK) if path is None else guided_model(path)


def mixture_guided_teacher(*, data: MixtureName = "ring", config: TrainConfig = TEACHER_RUN) -> Recipe:
    """A diffusion teacher for guidance: classes as labels, a tenth of them dropped."""
    model = Denoiser(small_mlp(config.seed, classes=CLASSES), CLOCK)
    points = LabelDropout(classed(data), p=0.1, classes=CLASSES)
    return Recipe(model, DSM(time_law=level_times), points, config)


def mixture_lcd(*, data: MixtureName = "ring", teacher: Path | None = None, config: TrainConfig = LCD_RUN) -> Recipe:
    """Latent consistency distillation with the settings found for 2-D.

    Args:
        teacher: run folder or checkpoint of a mixture-guided-teacher; the exact denoiser if not given
    """
    points = classed(data)
    return Recipe(guided_student(config.seed), lcd(guided_teacher_of(teacher, points)), points, config)


def mixture_lcd_published(
    *, data: MixtureName = "ring", teacher: Path | None = None, skip: int = 20, config: TrainConfig = LCD_RUN
) -> Recipe:
    """Latent consistency distillation as published: equal skips of 20, uniform index, weight 1, the script's mu.

    Args:
        teacher: run folder or checkpoint of a mixture-guided-teacher; the exact denoiser if not given
        skip: skipping step, of 1000
    """
    points = classed(data)
    objective = LCD(guided_teacher_of(teacher, points), skip=skip, w_range=W_RANGE)
    return Recipe(guided_student(config.seed), objective, points, config)


def mixture_lcf(*, student: Path, data: MixtureName = "turned", config: TrainConfig = LCF_RUN) -> Recipe:
    """Latent consistency fine-tuning: a trained mixture-lcd goes on with new data alone, w and k as before.

    Args:
        student: run folder or checkpoint of a mixture-lcd
        data: which mixture to go on with
    """
    trained = load_trained(student)
    if trained.kind != "consistency" or not trained.header["model"]["options"]["guidance"]:
        raise CheckpointError(f"{student} holds no student with a w: train mixture-lcd")
    return Recipe(trained.model.requires_grad_(True), lcd(None), classed(data), config)


def mixture_lcm_lora(
    *, teacher: Path, data: MixtureName = "ring", rank: int = 32, w: float = 1.0, config: TrainConfig = LORA_RUN
) -> Recipe:
    """LCM-LoRA, the acceleration: adapters that make a teacher a consistency model, at one scale of guidance.

    Args:
        teacher: run folder or checkpoint of a mixture-guided-teacher, the base
        data: which mixture, that of the teacher
        rank: of the adapters
        w: the guidance scale that they take in, since the network has no input for it
    """
    base = guided_model(teacher)
    return Recipe(adapted(base, rank, config.seed), lcd(base, w_range=(w, w)), classed(data), config)


def mixture_style_lora(
    *, teacher: Path, data: MixtureName = "turned", rank: int = 32, config: TrainConfig = STYLE_RUN
) -> Recipe:
    """The style: adapters that fine-tune a teacher to another mixture.

    Args:
        teacher: run folder or checkpoint of a mixture-guided-teacher, the base
        data: which mixture, the style
        rank: of the adapters
    """
    labelled = LabelDropout(classed(data), p=0.1, classes=CLASSES)
    return Recipe(adapted(guided_model(teacher), rank, config.seed), DSM(time_law=level_times), labelled, config)


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
