"""Recipes on digits in the latent space of a tiny autoencoder: a teacher that can be guided, LCD, TCD and LCM-LoRA.

LCM, arXiv:2310.04378, section 4.1. The latents are 2x4x4 numbers in place of 8x8, of standard deviation .5 in each channel. The class
takes the place of the text, w the place that it has there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minicm.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from minicm.data.digits import Digits
from minicm.data.labels import LabelDropout
from minicm.data.latents import Latents
from minicm.denoiser import Denoiser
from minicm.distances import pseudo_huber
from minicm.nets.autoencoder import Autoencoder
from minicm.nets.lora import add_lora
from minicm.objectives.dsm import DSM
from minicm.objectives.lcd import LCD
from minicm.objectives.tcd import TCD
from minicm.recipes.digits import DROPPED, diffusion_model, new_net, tuned_net
from minicm.recipes.fit import fit
from minicm.recipes.guided import CLOCK, gentle_level_gap, level_times, quadratic_grid
from minicm.recipes.run import Recipe
from minicm.train import TrainConfig

AUTOENCODER = Path("runs/digits-autoencoder.safetensors")


def digits_latent_teacher(
    *, autoencoder: Path = AUTOENCODER, config: TrainConfig = TrainConfig(steps=3000, batch=128, lr=2e-3)
) -> Recipe:
    """A diffusion teacher of the digits' latents, with classes, in the VP clock of latent consistency models.

    Args:
        autoencoder: its checkpoint; trained and saved there, in some 15 seconds, if there is none
        config: how long and how fast
    """
    if not autoencoder.exists():
        make_autoencoder(autoencoder)
    net = new_net(config.seed, channels=2, attention=(1,))
    return Recipe(Denoiser(net, CLOCK), DSM(time_law=level_times), latents(autoencoder), config)


def digits_lcd(
    *,
    teacher: Path,
    autoencoder: Path = AUTOENCODER,
    config: TrainConfig = TrainConfig(steps=1500, batch=128, lr=1e-3),
) -> Recipe:
    """Latent consistency distillation: the class and the guidance scale are inputs of the student.

    Args:
        teacher: run folder or checkpoint of a digits-latent-teacher
        autoencoder: that of the teacher
        config: how long and how fast
    """
    teaching = diffusion_model(teacher, "digits-latent-teacher")
    objective = LCD(teaching, w_range=(0.0, 3.0), **few_skips())
    model = Denoiser(tuned_net(teaching, guidance=True), CLOCK)
    return Recipe(model, objective, latents(autoencoder, dropped=0.0), config)


def digits_tcd(
    *,
    teacher: Path,
    autoencoder: Path = AUTOENCODER,
    config: TrainConfig = TrainConfig(steps=1500, batch=128, lr=1e-3),
) -> Recipe:
    """Trajectory consistency distillation in the latent space, guided: from any time to any earlier one.

    Args:
        teacher: run folder or checkpoint of a digits-latent-teacher
        autoencoder: that of the teacher
        config: how long and how fast
    """
    teaching = diffusion_model(teacher, "digits-latent-teacher")
    objective = TCD(teaching, w_range=(0.0, 3.0), **few_skips())
    model = Denoiser(tuned_net(teaching, guidance=True, second_time=True), CLOCK)
    return Recipe(model, objective, latents(autoencoder, dropped=0.0), config)


def digits_lcm_lora(
    *,
    teacher: Path,
    autoencoder: Path = AUTOENCODER,
    rank: int = 8,
    w: float = 1.0,
    config: TrainConfig = TrainConfig(steps=1000, batch=128, lr=2e-3),
) -> Recipe:
    """LCM-LoRA: the latent teacher itself, made fast by low-rank adapters.

    Args:
        teacher: run folder or checkpoint of a digits-latent-teacher
        autoencoder: that of the teacher
        rank: of the adapters
        w: the guidance scale that they take in, since the network has no input for it
        config: how long and how fast
    """
    teaching = diffusion_model(teacher, "digits-latent-teacher")
    net = add_lora(tuned_net(teaching), rank, generator=torch.Generator().manual_seed(config.seed))
    objective = LCD(teaching, w_range=(w, w), **few_skips())
    return Recipe(Denoiser(net, CLOCK), objective, latents(autoencoder, dropped=0.0), config)


def few_skips() -> dict[str, Any]:
    """The settings found for guided students in 2-D: 30 skips, close together near the data, and a target that does not lag."""
    return dict(k=1, grid=quadratic_grid(), distance=pseudo_huber(0.03), weight=gentle_level_gap, mu=0.0)


def latents(path: Path, dropped: float = DROPPED) -> LabelDropout:
    """The latents of the digits to train on, a share of the labels dropped."""
    return LabelDropout(Latents(Digits(dequantise=True), autoencoder_of(path)), dropped, Digits.classes)


def autoencoder_of(path: Path) -> Autoencoder:
    """The autoencoder that lies at a path. Raises CheckpointError where there is none."""
    state = load_checkpoint(path)
    if "options" not in state or "spread" not in state:
        raise CheckpointError(f"{path} holds no autoencoder: digits-latent-teacher makes one")
    net = Autoencoder(**state.pop("options"))
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def make_autoencoder(path: Path) -> None:
    """Train an autoencoder of the digits, in some 15 seconds, and save it at a path."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Autoencoder()
    net = fit(net, lambda x0, label, generator: net.loss(x0, generator), Digits(dequantise=True), steps=600)
    net.standardise(Digits().images)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, net.state_dict() | {"options": net.options})
