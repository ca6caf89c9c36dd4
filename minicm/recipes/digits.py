"""Recipes on 8x8 digits: in pixels a diffusion teacher, CD, ECT, iCT and sCD; in a latent space a teacher, LCD, TCD and LCM-LoRA.

Each is a plain function: `model, objective, data, config = digits_cd(teacher=Path("runs/digits-teacher-001"))`. All models
know the ten classes, the teachers and students in pixels also, since a fifth of the labels is dropped, the digits at large
(label None).

The pixels lie in [-1, 1] as they are, about a mean of -0.39. The preconditioning asks for E|x0|^2 = D sigma_d^2, so that
c_in x has mean square 1: sigma_d is the root mean square about zero, .85, not the standard deviation, .75. Noise
levels that the papers choose for sigma_d = .5 are carried over by the factor .85/.5.

The latents (LCM, arXiv:2310.04378, section 4.1) are 2x4x4 numbers in place of 8x8, of standard deviation .5 in each
channel. The class takes the place of the text, w the place that it has there.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minicm.checkpoint import decoder_state, load_decoder, load_teacher, save_checkpoint
from minicm.data.digits import Digits
from minicm.data.labels import LabelDropout
from minicm.data.latents import Latents
from minicm.denoiser import Denoiser, InClock
from minicm.distances import pseudo_huber
from minicm.nets.autoencoder import Autoencoder
from minicm.nets.embeddings import octaves
from minicm.nets.lora import add_lora
from minicm.nets.unet import UNet
from minicm.objectives.base import gentle_gap
from minicm.objectives.cd import CD
from minicm.objectives.dsm import DSM
from minicm.objectives.ect import ECT
from minicm.objectives.ict import ICT
from minicm.objectives.scm import SCM
from minicm.objectives.tcd import TCD
from minicm.recipes.guided import CLOCK, FOUND, lcd, level_times
from minicm.runs.fit import fit
from minicm.runs.run import Recipe
from minicm.schedules import TrigFlow
from minicm.times import T_MIN, LogNormalAngles, LogNormalIndex, LogNormalTimes, TimeLaw, doubling_points, karras_grid
from minicm.train import TrainConfig

RMS = 0.85  # of the pixels about zero: sigma_d in pixel space
SHIFT = math.log(RMS / 0.5)  # of the mean ln sigma, against the papers' sigma_d
HUBER = pseudo_huber(0.3)  # a sample has 64 numbers, not 2
WEIGHT = partial(gentle_gap, sigma_data=RMS)
DROPPED = 0.2  # share of labels that are dropped
AUTOENCODER = Path("runs/digits-autoencoder.safetensors")


# ------------------------------------------------------------------------------------------ in pixels
def digits_teacher(*, config: TrainConfig = TrainConfig(steps=2000, batch=64, lr=2e-3)) -> Recipe:
    """A diffusion teacher of the digits, with classes (EDM)."""
    model = Denoiser(new_net(config.seed), sigma_data=RMS)
    return Recipe(model, DSM(time_law=LogNormalTimes(-1.2 + SHIFT, 1.2)), pixels(), config)


def digits_cd(*, teacher: Path, config: TrainConfig = TrainConfig(steps=2000, batch=64, lr=5e-4)) -> Recipe:
    """Consistency distillation of a digits-teacher, from its weights, with the settings found for 2-D but for c.

    Args:
        teacher: run folder or checkpoint of a digits-teacher
    """
    teaching = diffusion_model(teacher)
    law = LogNormalIndex(-0.5, 2.0)
    objective = CD(teaching, grid=doubling_karras, index_law=law, distance=HUBER, weight=WEIGHT)
    return Recipe(Denoiser(tuned_net(teaching), sigma_data=RMS, t_min=T_MIN), objective, pixels(), config)


def digits_ect(*, teacher: Path, config: TrainConfig = TrainConfig(steps=1200, batch=64, lr=1e-3)) -> Recipe:
    """Easy consistency tuning: from a digits-teacher's weights, on the data alone.

    Args:
        teacher: run folder or checkpoint of a digits-teacher
    """
    law = LogNormalTimes(-1.1 + SHIFT, 2.0, low=T_MIN)
    # eight stages, down to a gap of 1/256, are too many for so few steps: noise stays in the samples
    objective = ECT(stages=4, time_law=law, distance=pseudo_huber(0.03), weight=WEIGHT)
    model = Denoiser(tuned_net(diffusion_model(teacher)), sigma_data=RMS, t_min=T_MIN)
    return Recipe(model, objective, pixels(), config)


def digits_ict(*, config: TrainConfig = TrainConfig(steps=1600, batch=64, lr=1e-3)) -> Recipe:
    """Improved consistency training of the digits: no teacher, random weights."""
    # 32 intervals at the end, as ECT's four stages: a finer grid does not converge in so few steps
    objective = ICT(s0=8, s1=32, index_law=LogNormalIndex(-1.1 + SHIFT, 2.0), distance=HUBER, weight=WEIGHT)
    return Recipe(Denoiser(new_net(config.seed), sigma_data=RMS, t_min=T_MIN), objective, pixels(), config)


def digits_scm(*, teacher: Path, config: TrainConfig = TrainConfig(steps=300, batch=64, lr=1e-3)) -> Recipe:
    """Continuous-time distillation (sCD) of a digits-teacher, whose EDM clock is turned into TrigFlow.

    Args:
        teacher: run folder or checkpoint of a digits-teacher
    """
    clock, law = TrigFlow(RMS), LogNormalAngles(-1.0 + SHIFT, 1.4, RMS)
    teaching = InClock(diffusion_model(teacher), clock)
    objective = SCM(teaching, time_law=law, warmup=config.steps // 4)
    return Recipe(Denoiser(retimed_net(teaching, law), clock, RMS), objective, pixels(), config)


# -------------------------------------------------------------------------------- in the latent space
def digits_latent_teacher(
    *, autoencoder: Path = AUTOENCODER, config: TrainConfig = TrainConfig(steps=3000, batch=128, lr=2e-3)
) -> Recipe:
    """A diffusion teacher of the digits' latents, with classes, in the VP clock of latent consistency models.

    Args:
        autoencoder: its checkpoint; trained and saved there, in some 15 seconds, if there is none
    """
    if not autoencoder.exists():
        make_autoencoder(autoencoder)
    net = new_net(config.seed, channels=2, attention=(1,))
    return Recipe(Denoiser(net, CLOCK), DSM(time_law=level_times), latents(autoencoder), config)


def digits_lcd(*, teacher: Path, config: TrainConfig = TrainConfig(steps=1500, batch=128, lr=1e-3)) -> Recipe:
    """Latent consistency distillation: the class and the guidance scale are inputs of the student.

    Args:
        teacher: run folder or checkpoint of a digits-latent-teacher, whose autoencoder it takes over
    """
    teaching = latent_model(teacher)
    model = Denoiser(tuned_net(teaching, guidance=True), CLOCK)
    return Recipe(model, lcd(teaching, w_range=(0.0, 3.0)), latents(teacher, dropped=0.0), config)


def digits_tcd(*, teacher: Path, config: TrainConfig = TrainConfig(steps=1500, batch=128, lr=1e-3)) -> Recipe:
    """Trajectory consistency distillation in the latent space, guided: from any time to any earlier one.

    Args:
        teacher: run folder or checkpoint of a digits-latent-teacher, whose autoencoder it takes over
    """
    teaching = latent_model(teacher)
    model = Denoiser(tuned_net(teaching, guidance=True, second_time=True), CLOCK)
    return Recipe(model, TCD(teaching, w_range=(0.0, 3.0), **FOUND), latents(teacher, dropped=0.0), config)


def digits_lcm_lora(
    *, teacher: Path, rank: int = 8, w: float = 1.0, config: TrainConfig = TrainConfig(steps=1000, batch=128, lr=2e-3)
) -> Recipe:
    """LCM-LoRA: the latent teacher itself, made fast by low-rank adapters.

    Args:
        teacher: run folder or checkpoint of a digits-latent-teacher, whose autoencoder it takes over
        rank: of the adapters
        w: the guidance scale that they take in, since the network has no input for it
    """
    teaching = latent_model(teacher)
    net = add_lora(tuned_net(teaching), rank, generator=torch.Generator().manual_seed(config.seed))
    return Recipe(Denoiser(net, CLOCK), lcd(teaching, w_range=(w, w)), latents(teacher, dropped=0.0), config)


# ------------------------------------------------------------------------------------- what they share
def pixels() -> LabelDropout:
    """The digits to train on, each grey level spread over its bin, a fifth of the labels dropped."""
    return LabelDropout(Digits(dequantise=True), DROPPED, Digits.classes)


def latents(path: Path, dropped: float = DROPPED) -> LabelDropout:
    """The latents of the digits by the autoencoder of a file or run, to train on; a share of the labels dropped."""
    return LabelDropout(Latents(Digits(dequantise=True), load_decoder(path)), dropped, Digits.classes)


def make_autoencoder(path: Path) -> None:
    """Train an autoencoder of the digits, in some 15 seconds, and save it at a path."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Autoencoder()
    net = fit(net, lambda x0, label, generator: net.loss(x0, generator), Digits(dequantise=True), steps=600)
    net.standardise(Digits().images)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, decoder_state(net))


def new_net(seed: int, *, channels: int = 1, attention: tuple[int, ...] = (2,)) -> UNet:
    """The network of all digits recipes, .32 M parameters, with the ten classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(channels, 24, (1, 2), blocks=1, attention=attention, classes=Digits.classes)


def tuned_net(teacher: Denoiser, **inputs: float) -> UNet:
    """A network that starts from the teacher's weights; inputs that the teacher lacks start silent."""
    net = UNet(**(teacher.net.options | inputs))
    missing = net.load_state_dict(teacher.net.state_dict(), strict=False).missing_keys
    for name in missing:
        torch.nn.init.zeros_(net.get_parameter(name))
    return net


def retimed_net(teacher: InClock, law: TimeLaw) -> UNet:
    """A network that starts from the weights of a teacher of another clock, and from a smooth embedding of the new time.

    c_in x and F are the same in all clocks, so only what the network hears of the time changes. That layer is fitted by
    least squares to say what the teacher's says at the same noise level, where the law puts its times. Three
    octaves instead of six: see objectives/scm.py.
    """
    model: Any = teacher.denoiser  # a Denoiser: no other has a network to start from
    old = model.net
    net = UNet(**(old.options | {"octaves": 3}))
    weights = {k: v for k, v in old.state_dict().items() if not k.startswith("conditioning.time")}
    net.load_state_dict(weights, strict=False)
    t = law(2000, torch.Generator().manual_seed(0))
    new, inner = teacher.schedule, model.schedule
    t_inner = inner.t_of(new.sigma(t) / new.alpha(t))
    said = old.conditioning.time(octaves(inner.c_noise(t_inner).float(), old.conditioning.octaves))
    heard = torch.cat([octaves(new.c_noise(t).float(), 3), torch.ones(len(t), 1)], dim=1)
    fitted = torch.linalg.lstsq(heard, said).solution  # (8, width)
    net.conditioning.time.weight.data.copy_(fitted[:-1].T)
    net.conditioning.time.bias.data.copy_(fitted[-1])
    return net


def diffusion_model(path: Path) -> Denoiser:
    """The average of a teacher of pixels. Raises CheckpointError for a model that is none."""
    return load_teacher(path, recipe="digits-teacher", shape=(1, 8, 8), classes=Digits.classes)


def latent_model(path: Path) -> Denoiser:
    """The average of a teacher of latents. Raises CheckpointError for a model that is none."""
    return load_teacher(path, recipe="digits-latent-teacher", shape=(2, 4, 4), schedule=CLOCK, classes=Digits.classes)


def doubling_karras(k: int, K: int, s1: int = 32) -> Tensor:
    """A Karras grid whose intervals double from 8 to s1 in equal stages, as iCT's do from 10 to 1280."""
    return karras_grid(doubling_points(k, K, s0=8, s1=s1), T_MIN)
