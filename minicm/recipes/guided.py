"""Recipes of the LCM family in two dimensions: a teacher that can be guided, its distillation, fine-tuning on data.

The data are mixtures in two classes, in Stable Diffusion's VP clock. The guided flow of a mixture is exact, so a student is
held against it pointwise, at every w: what LCM's own paper could not show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

import torch
from torch import Tensor

from minicm.checkpoint import CheckpointError, load_checkpoint, load_model
from minicm.data.labels import LabelDropout
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser, guided
from minicm.distances import pseudo_huber
from minicm.metrics import ExactConsistency, paired_error, rms
from minicm.objectives.dsm import DSM
from minicm.objectives.lcd import LCD
from minicm.recipes.evaluate import Row
from minicm.recipes.mixtures import small_mlp
from minicm.recipes.run import Recipe, is_teacher
from minicm.sampling import sample
from minicm.schedules import VP, Denoise, Schedule
from minicm.solvers import euler_step, solve
from minicm.times import LogNormalTimes
from minicm.train import TrainConfig

CLOCK = VP.scaled_linear()
CLASSES = 2
W_RANGE = (0.0, 8.0)
SAMPLING: dict[
    int, Sequence[float]
] = {  # times of few-step sampling: LCM's, the scheduler's 999, 759, 499, 259 for four steps
    n: [1000.0 - 20 * (50 * i // n) for i in range(n)] for n in (1, 2, 4, 8)
}


MixtureName = Literal["ring", "grid", "random", "tilted", "turned"]


def classed(name: MixtureName) -> GaussianMixture:
    """A mixture whose modes are in turn of class 0 and class 1; the ring, tilted by 10 and turned by 22.5 degrees.

    22.5 degrees is half the angle between neighbours, as far as a ring of eight can be turned.
    """
    makers: dict[str, Callable[..., GaussianMixture]] = {
        "ring": GaussianMixture.ring,
        "grid": GaussianMixture.grid,
        "random": GaussianMixture.random,
        "tilted": lambda classes: turned(GaussianMixture.ring(classes=classes), 10.0),
        "turned": lambda classes: turned(GaussianMixture.ring(classes=classes), 22.5),
    }
    if name not in makers:
        raise ValueError(f"data must be one of {', '.join(makers)}, got {name!r}")
    return makers[name](classes=CLASSES)


def turned(mixture: GaussianMixture, degrees: float) -> GaussianMixture:
    """A mixture in the plane, turned about the origin."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return GaussianMixture(
        mixture.means @ turn.T, turn @ mixture.covs @ turn.T, mixture.weights, mixture.labels
    )


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


@overload
def guided_teacher_of(path: Path, data: GaussianMixture) -> Denoiser: ...
@overload
def guided_teacher_of(path: Path | None, data: GaussianMixture) -> Denoise: ...
def guided_teacher_of(path: Path | None, data: GaussianMixture) -> Denoise:
    """A trained mixture-guided-teacher, or without a path the exact denoiser of the data.

    Raises CheckpointError for a model that is no diffusion model with classes in the recipes' clock.
    """
    if path is None:
        return data.denoiser(CLOCK)
    model = load_model(path)
    if not is_teacher(load_checkpoint(path)) or model.net.classes == 0 or model.schedule != CLOCK:
        raise CheckpointError(f"{path} holds no teacher that can be guided: train mixture-guided-teacher")
    return model


def mixture_guided_teacher(
    *,
    data: MixtureName = "ring",
    config: TrainConfig = TrainConfig(steps=8000, batch=1024, lr=2e-3),
) -> Recipe:
    """A diffusion teacher for guidance: classes as labels, a tenth of them dropped.

    Args:
        data: which mixture
        config: how long and how fast
    """
    model = Denoiser(small_mlp(config.seed, classes=CLASSES), CLOCK)
    points = LabelDropout(classed(data), p=0.1, classes=CLASSES)
    return Recipe(model, DSM(time_law=level_times), points, config)


def mixture_lcd(
    *,
    data: MixtureName = "ring",
    teacher: Path | None = None,
    config: TrainConfig = TrainConfig(steps=9000, batch=256, lr=2e-3),
) -> Recipe:
    """Latent consistency distillation with the settings found for 2-D.

    Args:
        data: which mixture
        teacher: run folder or checkpoint of a mixture-guided-teacher; the exact denoiser if not given
        config: how long and how fast
    """
    points = classed(data)
    objective = LCD(
        guided_teacher_of(teacher, points),
        k=1,
        grid=quadratic_grid(),
        w_range=W_RANGE,
        distance=pseudo_huber(0.03),
        weight=gentle_level_gap,
        mu=0.0,
    )
    return Recipe(guided_student(config.seed), objective, points, config)


def mixture_lcd_published(
    *,
    data: MixtureName = "ring",
    teacher: Path | None = None,
    k: int = 20,
    config: TrainConfig = TrainConfig(steps=9000, batch=256, lr=2e-3),
) -> Recipe:
    """Latent consistency distillation as published: equal skips of k, uniform index, weight 1, the script's mu.

    Args:
        data: which mixture
        teacher: run folder or checkpoint of a mixture-guided-teacher; the exact denoiser if not given
        k: skipping step, of 1000
        config: how long and how fast
    """
    points = classed(data)
    objective = LCD(guided_teacher_of(teacher, points), k=k, w_range=W_RANGE)
    return Recipe(guided_student(config.seed), objective, points, config)


def mixture_lcf(
    *,
    student: Path,
    data: MixtureName = "turned",
    config: TrainConfig = TrainConfig(steps=3000, batch=256, lr=5e-4),
) -> Recipe:
    """Latent consistency fine-tuning: a trained mixture-lcd goes on with new data alone, w and k as before.

    Args:
        student: run folder or checkpoint of a mixture-lcd
        data: which mixture to go on with
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
    if is_teacher(load_checkpoint(student)) or not model.net.options["guidance"]:
        raise CheckpointError(f"{student} holds no student with a w: train mixture-lcd")
    return Recipe(model, objective, classed(data), config)


def guided_student(seed: int) -> Denoiser:
    """A consistency function with label and w, in the VP clock."""
    return Denoiser(small_mlp(seed, classes=CLASSES, guidance=True), CLOCK)


# ------------------------------------------------------------------------------------------ evaluation
def evaluate_run(path: Path, *, n: int = 2000, seed: int = 0) -> list[Row]:
    """What `minicm evaluate` reports of a run of these recipes: against the exact guided flow of its data.

    A fine-tuned student saw data and no guidance: it is held against the flow of its class, whatever w it is told.
    """
    state, model = load_checkpoint(path), load_model(path)
    data = classed(state["options"]["data"])
    if is_teacher(state):
        return evaluate_guided_teacher(model, data, n=n, seed=seed)
    towards = 0.0 if state["recipe"] == "mixture-lcf" else None
    return evaluate_guided(model, data, n=n, seed=seed, towards=towards)


@torch.no_grad()
def evaluate_guided(
    f: Denoise,
    data: GaussianMixture,
    *,
    ws: Sequence[float] = (0, 1, 3, 8),  # guidance; w + 1 in Imagen's convention
    steps: Sequence[int] = (1, 2, 4, 8),
    times: Mapping[int, Sequence[float]] = SAMPLING,  # of each number of steps
    towards: float | None = None,  # the w of the exact flow, where it is not the one that f is told
    n: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Paired errors against the exact guided flow: f and f* go through one sampler with the same noise and labels.

    LCM, arXiv:2310.04378, section 5, with an exact answer. Per dimension, in units of sigma_d.
    """
    x_T, label = (
        part.repeat(len(ws), *[1] * (part.ndim - 1)) for part in guided_noise(f.schedule, data, n, seed)
    )
    w = torch.tensor(ws, dtype=torch.float64).repeat_interleave(n)
    exact = ExactConsistency(data, f.schedule, f.t_min)
    scales = ((f, w), (exact, w if towards is None else torch.full_like(w, towards)))
    errors = {}
    for k in steps:
        x, truth = (
            sample(
                g,
                x_T,
                times[k],
                generator=torch.Generator().manual_seed(seed + 1),
                label=label,
                w=scale,
            )
            for g, scale in scales
        )
        errors[k] = paired_error(x, truth, data.sigma_data).reshape(len(ws), n)
    return [
        Row(f"w = {w:g}, {k}-step {name}", value)
        for i, w in enumerate(ws)
        for k, error in errors.items()
        for name, value in (("RMSE", rms(error[i])), ("median", error[i].median().item()))
    ]


@torch.no_grad()
def evaluate_guided_teacher(
    denoiser: Denoise,
    data: GaussianMixture,
    *,
    ws: Sequence[float] = (0, 1, 3, 8),
    n: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """The teacher's guided flow, 30 DDIM steps from x_T, against the exact one; beside it what the solver alone misses."""
    schedule, times = denoiser.schedule, quadratic_grid().flip(0)
    x_T, label = guided_noise(schedule, data, n, seed)
    rows = []
    for w in ws:
        truth = data.flow(x_T, schedule.t_max, 0.0, schedule, label, float(w))
        error, alone = (
            paired_error(
                solve(guided(g, label, float(w)), schedule, x_T, times, euler_step), truth, data.sigma_data
            )
            for g in (denoiser, data.denoiser(schedule))
        )
        rows += [
            Row(f"w = {w:g}, DDIM-30 RMSE", rms(error), rms(alone)),
            Row(f"w = {w:g}, DDIM-30 median", error.median().item(), alone.median().item()),
        ]
    return rows


def guided_noise(schedule: Schedule, data: GaussianMixture, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise x_T (n, d) to start from, and a class for each, drawn evenly: label (n,)."""
    generator = torch.Generator().manual_seed(seed)
    x_T = schedule.prior((n, data.dim), generator)
    return x_T, torch.randint(data.classes, (n,), generator=generator)
