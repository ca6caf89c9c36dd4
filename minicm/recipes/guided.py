"""Recipes of the LCM family in two dimensions: a teacher that can be guided, its distillation, fine-tuning on data.

The data are a ring of 8 modes in two classes, in Stable Diffusion's VP clock. The guided flow of a mixture is exact, so
a student is held against it pointwise, at every w: what LCM's own paper could not show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from minicm.checkpoint import load_model
from minicm.data.labels import LabelDropout
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.distances import pseudo_huber
from minicm.metrics import ExactConsistency, paired_error, rms
from minicm.objectives.dsm import DSM
from minicm.objectives.lcd import LCD
from minicm.recipes.evaluate import Row
from minicm.recipes.mixtures import small_mlp
from minicm.recipes.run import Recipe
from minicm.sampling import sample
from minicm.schedules import VP
from minicm.times import LogNormalTimes
from minicm.train import TrainConfig

CLOCK = VP.scaled_linear()
CLASSES = 2
W_RANGE = (0.0, 8.0)
SAMPLING = {  # times of few-step sampling: LCM's, the scheduler's 999, 759, 499, 259 for four steps
    n: [1000.0 - 20 * (50 * i // n) for i in range(n)] for n in (1, 2, 4, 8)
}


def classed_ring() -> GaussianMixture:
    """The ring of 8, its modes in turn of class 0 and class 1."""
    return GaussianMixture.ring(classes=CLASSES)


def quadratic_grid(n: int = 30) -> Tensor:
    """The times T (i/n)^2 for i = 0..n, rounded: close together near the data, where sigma falls fast.

    DDIM, arXiv:2010.02502, appendix D.2 ("quadratic"). With equal skips of 20 the last one, from sigma/alpha = .13 to
    0 in one Euler step, alone costs .05 here; these 30 steps cost .02 in all.
    """
    return ((torch.arange(n + 1, dtype=torch.float64) / n).square() * CLOCK.t_max).round()


def gentle_level_gap(t: Tensor, s: Tensor) -> Tensor:
    """The weight (l_t + 1/2)/(l_t - l_s) in the noise levels l = sigma/alpha: `gentle_gap` of the EDM clock."""
    level_t, level_s = (CLOCK.sigma(time) / CLOCK.alpha(time) for time in (t, s))
    return (level_t + 0.5) / (level_t - level_s)


def level_times(n: int, generator: torch.Generator) -> Tensor:
    """EDM's training noise in the VP clock: the whole time whose sigma/alpha is nearest, 1 at least."""
    return CLOCK.t_of(LogNormalTimes()(n, generator)).clamp(min=1)


def guided_teacher_of(path: Path | None) -> Callable:
    """A trained mixture-guided-teacher, or without a path the exact denoiser of the ring."""
    return classed_ring().denoiser(CLOCK) if path is None else load_model(path)


def mixture_guided_teacher(*, config: TrainConfig = TrainConfig(steps=8000, batch=1024, lr=2e-3)) -> Recipe:
    """A diffusion teacher for guidance: classes as labels, a tenth of them dropped.

    Args:
        config: how long and how fast
    """
    model = Denoiser(small_mlp(config.seed, classes=CLASSES), CLOCK)
    return Recipe(
        model, DSM(time_law=level_times), LabelDropout(classed_ring(), p=0.1, classes=CLASSES), config
    )


def mixture_lcd(
    *,
    teacher: Path | None = None,
    config: TrainConfig = TrainConfig(steps=9000, batch=256, lr=2e-3),
) -> Recipe:
    """Latent consistency distillation with the settings found for 2-D.

    Args:
        teacher: run folder or checkpoint of a mixture-guided-teacher; the exact denoiser if not given
        config: how long and how fast
    """
    objective = LCD(
        guided_teacher_of(teacher),
        k=1,
        grid=quadratic_grid(),
        w_range=W_RANGE,
        distance=pseudo_huber(0.03),
        weight=gentle_level_gap,
        mu=0.0,
    )
    return Recipe(guided_student(config.seed), objective, classed_ring(), config)


def mixture_lcd_published(
    *,
    teacher: Path | None = None,
    k: int = 20,
    config: TrainConfig = TrainConfig(steps=9000, batch=256, lr=2e-3),
) -> Recipe:
    """Latent consistency distillation as published: equal skips of k, uniform index, weight 1, the script's mu.

    Args:
        teacher: run folder or checkpoint of a mixture-guided-teacher; the exact denoiser if not given
        k: skipping step, of 1000
        config: how long and how fast
    """
    objective = LCD(guided_teacher_of(teacher), k=k, w_range=W_RANGE)
    return Recipe(guided_student(config.seed), objective, classed_ring(), config)


def mixture_lcf(
    *, student: Path, config: TrainConfig = TrainConfig(steps=3000, batch=256, lr=5e-4)
) -> Recipe:
    """Latent consistency fine-tuning: a trained mixture-lcd goes on with data alone, w and k as before.

    Args:
        student: run folder or checkpoint of a mixture-lcd
        config: how long and how fast
    """
    objective = LCD(
        None,
        k=1,
        grid=quadratic_grid(),
        w_range=W_RANGE,
        distance=pseudo_huber(0.03),
        weight=gentle_level_gap,
        mu=0.0,
    )
    model = load_model(student).requires_grad_(True)
    return Recipe(model, objective, classed_ring(), config)


def guided_student(seed: int) -> Denoiser:
    """A consistency function with label and w, in the VP clock."""
    return Denoiser(small_mlp(seed, classes=CLASSES, guidance=True), CLOCK)


@torch.no_grad()
def evaluate_guided(
    f: Callable,
    data: GaussianMixture,
    *,
    ws: Sequence[float] = (0, 1, 3, 8),  # guidance; w + 1 in Imagen's convention
    steps: Sequence[int] = (1, 2, 4, 8),
    n: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Paired errors against the exact guided flow: f and f* go through one sampler with the same noise and labels.

    LCM, arXiv:2310.04378, section 5, with an exact answer. Per dimension, in units of sigma_d.
    """
    generator = torch.Generator().manual_seed(seed)
    x_T = f.schedule.prior((n, data.dim), generator)
    label = torch.randint(data.classes, (n,), generator=generator)
    exact, rows = ExactConsistency(data, f.schedule, f.t_min), []
    for guidance in ws:
        given = {"label": label, "w": torch.full((n,), float(guidance), dtype=torch.float64)}
        for k in steps:
            x, truth = (
                sample(g, x_T, SAMPLING[k], generator=torch.Generator().manual_seed(seed + 1), **given)
                for g in (f, exact)
            )
            error, name = paired_error(x, truth, data.sigma_data), f"w = {guidance:g}, {k}-step"
            rows += [Row(f"{name} RMSE", rms(error)), Row(f"{name} median", error.median().item())]
    return rows
