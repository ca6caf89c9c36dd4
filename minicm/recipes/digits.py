"""Recipes on 8x8 digits: a teacher and its students in pixels, and in the latent space of a tiny autoencoder.

Each is a plain function: `model, objective, data, config = digits_cd(teacher=Path("runs/digits-teacher-001"))`. All models
know the ten classes and, since a fifth of the labels is dropped, the digits at large (label None).

The pixels lie in [-1, 1] as they are, about a mean of -0.39. The preconditioning asks for E|x0|^2 = D sigma_d^2, so that
c_in x has mean square 1: sigma_d is the root mean square about zero, .85, not the standard deviation, .75. Noise
levels that the papers choose for sigma_d = .5 are carried over by the factor .85/.5.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from minicm.checkpoint import CheckpointError, build, load_checkpoint, load_model, save_checkpoint
from minicm.data.digits import Digits
from minicm.data.labels import LabelDropout
from minicm.data.latents import Latents
from minicm.denoiser import Denoiser, in_clock
from minicm.distances import pseudo_huber
from minicm.nets.autoencoder import Autoencoder
from minicm.nets.lora import add_lora
from minicm.nets.unet import UNet
from minicm.objectives.cd import CD
from minicm.objectives.dsm import DSM
from minicm.objectives.ect import ECT
from minicm.objectives.ict import ICT
from minicm.objectives.lcd import LCD
from minicm.objectives.scm import SCM
from minicm.objectives.tcd import TCD
from minicm.recipes.fit import fit
from minicm.recipes.run import Recipe
from minicm.schedules import VP, TrigFlow
from minicm.times import (
    LogNormalAngles,
    LogNormalIndex,
    LogNormalTimes,
    UniformSteps,
    doubling_points,
    karras_grid,
)
from minicm.train import TrainConfig

T_MIN = 0.002  # the papers' epsilon
RMS = 0.85  # of the pixels about zero: sigma_d in pixel space
SHIFT = math.log(RMS / 0.5)  # of the mean ln sigma, against the papers' sigma_d
DROPPED = 0.2  # share of labels that are dropped
LATENT_CLOCK = VP.scaled_linear()  # LCM's and TCD's
AUTOENCODER = Path("runs/digits-autoencoder.safetensors")


# --------------------------------------------------------------------------------------------- in pixels
def digits_teacher(*, config: TrainConfig = TrainConfig(steps=2000, batch=64, lr=2e-3, ema=0.998)) -> Recipe:
    """A diffusion teacher of the digits, with classes (EDM).

    Args:
        config: how long and how fast
    """
    model = Denoiser(new_net(config.seed), sigma_data=RMS)
    return Recipe(model, DSM(time_law=LogNormalTimes(-1.2 + SHIFT, 1.2)), pixels(), config)


def digits_cd(
    *, teacher: Path, config: TrainConfig = TrainConfig(steps=1000, batch=64, lr=1e-3, ema=0.995)
) -> Recipe:
    """Consistency distillation of a digits-teacher, from its weights, with the settings found for 2-D.

    Args:
        teacher: run folder or checkpoint of a digits-teacher
        config: how long and how fast
    """
    teaching = diffusion_model(teacher)
    objective = CD(
        teaching,
        grid=doubling_karras,
        index_law=LogNormalIndex(-0.5, 2.0),
        distance=pseudo_huber(0.03),
        weight=gentle_gap,
    )
    return Recipe(consistency_model(tuned_net(teaching)), objective, pixels(), config)


def digits_ect(
    *, teacher: Path, config: TrainConfig = TrainConfig(steps=2000, batch=64, lr=1e-3, ema=0.995)
) -> Recipe:
    """Easy consistency tuning: from a digits-teacher's weights, on the data alone.

    Args:
        teacher: run folder or checkpoint of a digits-teacher
        config: how long and how fast
    """
    objective = ECT(time_law=LogNormalTimes(-1.1 + SHIFT, 2.0, low=T_MIN), weight=gentle_gap)
    return Recipe(consistency_model(tuned_net(diffusion_model(teacher))), objective, pixels(), config)


def digits_ict(*, config: TrainConfig = TrainConfig(steps=4000, batch=64, lr=1e-3, ema=0.998)) -> Recipe:
    """Improved consistency training of the digits: no teacher, random weights.

    Args:
        config: how long and how fast
    """
    objective = ICT(s0=8, s1=64, index_law=LogNormalIndex(-1.1 + SHIFT, 2.0), weight=gentle_gap)
    return Recipe(consistency_model(new_net(config.seed)), objective, pixels(), config)


def digits_scm(
    *, teacher: Path, config: TrainConfig = TrainConfig(steps=3000, batch=64, lr=1e-3, ema=0.998)
) -> Recipe:
    """Continuous-time distillation (sCD) of a digits-teacher, whose EDM clock is turned into TrigFlow.

    Args:
        teacher: run folder or checkpoint of a digits-teacher
        config: how long and how fast
    """
    clock = TrigFlow(RMS)
    teaching = diffusion_model(teacher)
    objective = SCM(
        in_clock(teaching, clock), time_law=LogNormalAngles(-1.0 + SHIFT, 1.4, RMS), warmup=config.steps // 4
    )
    return Recipe(Denoiser(tuned_net(teaching), clock, RMS), objective, pixels(), config)


# ---------------------------------------------------------------------------------- in the latent space
def digits_latent_teacher(
    *, autoencoder: Path = AUTOENCODER, config: TrainConfig = TrainConfig(steps=4000, batch=128, lr=2e-3)
) -> Recipe:
    """A diffusion teacher of the digits' latents, with classes, in the VP clock of latent consistency models.

    Args:
        autoencoder: its checkpoint; trained and saved there, in some 15 seconds, if there is none
        config: how long and how fast
    """
    net = new_net(config.seed, channels=2, attention=(1,))
    return Recipe(Denoiser(net, LATENT_CLOCK), DSM(time_law=UniformSteps()), latents(autoencoder), config)


def digits_lcd(
    *,
    teacher: Path,
    autoencoder: Path = AUTOENCODER,
    config: TrainConfig = TrainConfig(steps=3000, batch=128, lr=1e-3, ema=0.998),
) -> Recipe:
    """Latent consistency distillation: the class and the guidance scale are inputs of the student.

    Args:
        teacher: run folder or checkpoint of a digits-latent-teacher
        autoencoder: that of the teacher
        config: how long and how fast
    """
    teaching = diffusion_model(teacher)
    objective = LCD(teaching, k=20, w_range=(0.0, 3.0))
    model = Denoiser(tuned_net(teaching, guidance=True), LATENT_CLOCK)
    return Recipe(model, objective, latents(autoencoder, dropped=0.0), config)


def digits_tcd(
    *,
    teacher: Path,
    autoencoder: Path = AUTOENCODER,
    config: TrainConfig = TrainConfig(steps=3000, batch=128, lr=1e-3, ema=0.998),
) -> Recipe:
    """Trajectory consistency distillation in the latent space, guided: from any time to any earlier one.

    Args:
        teacher: run folder or checkpoint of a digits-latent-teacher
        autoencoder: that of the teacher
        config: how long and how fast
    """
    teaching = diffusion_model(teacher)
    objective = TCD(teaching, k=20, w_range=(0.0, 3.0))
    model = Denoiser(tuned_net(teaching, guidance=True, second_time=True), LATENT_CLOCK)
    return Recipe(model, objective, latents(autoencoder, dropped=0.0), config)


def digits_lcm_lora(
    *,
    teacher: Path,
    autoencoder: Path = AUTOENCODER,
    rank: int = 8,
    w: float = 1.0,
    config: TrainConfig = TrainConfig(steps=2000, batch=128, lr=2e-3, ema=0.998),
) -> Recipe:
    """LCM-LoRA: the latent teacher itself, made fast by low-rank adapters; `load_adapted` reads the run's checkpoint.

    Args:
        teacher: run folder or checkpoint of a digits-latent-teacher
        autoencoder: that of the teacher
        rank: of the adapters
        w: the guidance scale that they take in, since the network has no input for it
        config: how long and how fast
    """
    teaching = diffusion_model(teacher)
    net = add_lora(tuned_net(teaching), rank, generator=torch.Generator().manual_seed(config.seed))
    objective = LCD(teaching, k=20, w_range=(w, w))
    return Recipe(Denoiser(net, LATENT_CLOCK), objective, latents(autoencoder, dropped=0.0), config)


# ---------------------------------------------------------------------------------------------- parts
def new_net(seed: int, *, channels: int = 1, attention: tuple[int, ...] = (2,)) -> UNet:
    """The network of all digits recipes, .56 M parameters, with the ten classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(channels, 32, (1, 2), blocks=1, attention=attention, classes=Digits.classes)


def tuned_net(teacher: Denoiser, **inputs: bool) -> UNet:
    """A network that starts from the teacher's weights; inputs that the teacher lacks start silent."""
    net = UNet(**(teacher.net.options | inputs))
    missing = net.load_state_dict(teacher.net.state_dict(), strict=False).missing_keys
    for name in missing:
        torch.nn.init.zeros_(net.get_parameter(name))
    return net


def consistency_model(net: UNet) -> Denoiser:
    """A consistency function of the digits in the EDM clock."""
    return Denoiser(net, sigma_data=RMS, t_min=T_MIN)


def diffusion_model(path: Path) -> Denoiser:
    """A trained teacher's average. Raises CheckpointError for a consistency model."""
    teacher = load_model(path)
    if teacher.t_min > 0:
        raise CheckpointError(f"{path} holds a consistency model, no diffusion teacher: train digits-teacher")
    return teacher


def load_adapted(path: Path) -> Denoiser:
    """The averaged model of a digits-lcm-lora run, adapters apart; merge_lora and lora_state take it from there.

    Raises CheckpointError for a checkpoint without adapters.
    """
    state = load_checkpoint(path / "checkpoint.safetensors" if path.is_dir() else path)
    weights = {k.removeprefix("ema/"): v for k, v in state.items() if k.startswith("ema/")}
    ranks = {len(v) for k, v in weights.items() if k.endswith(".0.A")}
    if not ranks:
        raise CheckpointError(f"{path} holds no adapters: it is no run of digits-lcm-lora")
    model = build(state["model"])
    add_lora(model.net, ranks.pop())
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def pixels() -> LabelDropout:
    """The digits to train on, each grey level spread over its bin, a fifth of the labels dropped."""
    return LabelDropout(Digits(dequantise=True), DROPPED, Digits.classes)


def latents(path: Path, dropped: float = DROPPED) -> LabelDropout:
    """The latents of the digits to train on, a share of the labels dropped."""
    return LabelDropout(Latents(Digits(dequantise=True), autoencoder_of(path)), dropped, Digits.classes)


def autoencoder_of(path: Path) -> Autoencoder:
    """The autoencoder that lies at a path, or, where there is none, a new one, trained and saved there."""
    if path.exists():
        state = load_checkpoint(path)
        net = Autoencoder(**state.pop("options"))
        net.load_state_dict(state)
        return net.eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Autoencoder()
    net = fit(net, lambda x0, label, generator: net.loss(x0, generator), Digits(dequantise=True), steps=600)
    net.standardise(Digits().images)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, net.state_dict() | {"options": net.options})
    return net


def gentle_gap(t: Tensor, s: Tensor) -> Tensor:
    """The weight (t + sigma_d)/(t - s): iCT's 1/(t - s), which starves large t, with the growth of t given back."""
    return (t + RMS) / (t - s)


def doubling_karras(k: int, K: int) -> Tensor:
    """A Karras grid whose intervals double from 8 to 64 in four equal stages, as iCT's do from 10 to 1280."""
    return karras_grid(doubling_points(k, K, s0=8, s1=64), T_MIN)
