"""Recipes on CIFAR-10, small enough for minutes on one GPU: a teacher, CD, CT, ECT and a guided student (LCD).

Each is a plain function: `model, objective, data, config = cifar10_cd(teacher=Path("runs/cifar10-teacher-001"))`. The pages of
the papers with their published sizes and settings are in `cifar10_published`. All models here know the ten classes and,
since a tenth of the labels is dropped, pictures at large (label None).

The settings are those found in two dimensions and on digits, carried over: leads, not results. They were not yet run on a
GPU, and on a processor a training of this size takes days.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from minicm.checkpoint import load_teacher
from minicm.data.cifar10 import Cifar10, download
from minicm.data.labels import LabelDropout
from minicm.denoiser import Denoiser
from minicm.distances import l2, pseudo_huber
from minicm.nets.unet import UNet
from minicm.objectives.base import gentle_gap
from minicm.objectives.cd import CD
from minicm.objectives.ct import CT
from minicm.objectives.dsm import DSM
from minicm.objectives.ect import ECT
from minicm.objectives.lcd import LCD
from minicm.recipes.digits import tuned_net
from minicm.runs.run import Recipe
from minicm.times import T_MIN, LogNormalIndex, LogNormalTimes, doubling_points, karras_grid
from minicm.train import TrainConfig, device_named

HUBER = 0.03  # iCT's .00054 sqrt(3072), of a whole picture's difference


DROPPED = 0.1  # share of labels that are dropped


@dataclass(frozen=True)
class Size:
    """Of the network; a student has its teacher's."""

    width: int = 96  # channels at full resolution, times mults; a multiple of 8
    mults: tuple[int, ...] = (1, 2, 3)  # a level each: 32x32, 16x16, 8x8 pixels
    blocks: int = 2  # residual blocks of a level, on the way down and up
    attention: tuple[int, ...] = (2,)  # levels where pixels attend to each other: 2 is 16x16
    dropout: float = 0.0  # probability

    def net(self, classes: int, seed: int) -> UNet:
        """The network; 18.4 M parameters as it stands."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            attention, dropout = self.attention, self.dropout
            return UNet(
                3,
                self.width,
                self.mults,
                blocks=self.blocks,
                attention=attention,
                dropout=dropout,
                classes=classes,
            )


@dataclass(frozen=True)
class Source:
    """Where the pictures are."""

    data: Path = Path("data")  # the folder cifar-10-batches-bin, or the one that holds it
    download: bool = False  # fetch the official archive (170 MB) into it, if it is not there

    def read(self, device: str, train: bool = True) -> Cifar10:
        """The pictures as bytes on a device, mirrored at random for training."""
        if self.download:
            download(self.data)
        return Cifar10(self.data, train, device=device_named(device), flip=train)

    def labelled(self, device: str, dropped: float = DROPPED) -> LabelDropout:
        """The pictures to train on, a share of their labels dropped."""
        return LabelDropout(self.read(device), dropped, Cifar10.classes)


def cifar10_teacher(
    *,
    source: Source = Source(),
    size: Size = Size(),
    config: TrainConfig = TrainConfig(steps=20_000, batch=256, lr=1e-3, warmup=500),
) -> Recipe:
    """A diffusion teacher of CIFAR-10, with classes (EDM).

    Args:
        source: where the pictures are
        size: of the network
        config: how long and how fast
    """
    model = Denoiser(size.net(Cifar10.classes, config.seed))
    return Recipe(model, DSM(), source.labelled(config.device), config)


def cifar10_cd(
    *,
    teacher: Path,
    source: Source = Source(),
    config: TrainConfig = TrainConfig(steps=8000, batch=256, lr=4e-4, warmup=200),
) -> Recipe:
    """Consistency distillation from a cifar10-teacher's weights, with the settings found for 2-D and digits.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher
        source: where the pictures are
        config: how long and how fast
    """
    teaching = diffusion_model(teacher)
    objective = CD(
        teaching,
        grid=doubling_karras,
        index_law=LogNormalIndex(-0.5, 2.0),
        distance=pseudo_huber(HUBER),
        weight=gentle_gap,
    )
    return Recipe(consistency_model(tuned_net(teaching)), objective, source.labelled(config.device), config)


def cifar10_ct(
    *,
    source: Source = Source(),
    size: Size = Size(),
    config: TrainConfig = TrainConfig(steps=20_000, batch=256, lr=4e-4, warmup=500),
) -> Recipe:
    """Consistency training on CIFAR-10 from random weights, with the settings found for 2-D.

    Args:
        source: where the pictures are
        size: of the network
        config: how long and how fast
    """
    objective = CT(mu0=0.0, index_law=LogNormalIndex(-0.5, 2.0), distance=pseudo_huber(HUBER), weight=gentle_gap)
    model = consistency_model(size.net(Cifar10.classes, config.seed))
    return Recipe(model, objective, source.labelled(config.device), config)


def cifar10_ect(
    *,
    teacher: Path,
    source: Source = Source(),
    config: TrainConfig = TrainConfig(steps=8000, batch=256, lr=4e-4, warmup=200),
) -> Recipe:
    """Easy consistency tuning: from a cifar10-teacher's weights, on the pictures alone.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher
        source: where the pictures are
        config: how long and how fast
    """
    objective = ECT(
        stages=4,  # with eight, down to a gap of 1/256, digits_ect kept noise in its samples
        time_law=LogNormalTimes(-1.1, 2.0, low=T_MIN),
        distance=pseudo_huber(HUBER),
        weight=gentle_gap,
    )
    model = consistency_model(tuned_net(diffusion_model(teacher)))
    return Recipe(model, objective, source.labelled(config.device), config)


def cifar10_lcd(
    *,
    teacher: Path,
    source: Source = Source(),
    w_range: tuple[float, float] = (0.0, 3.0),
    config: TrainConfig = TrainConfig(steps=8000, batch=256, lr=4e-4, warmup=200),
) -> Recipe:
    """Guided distillation (LCD, here in pixels): the class and the guidance scale are inputs of the student.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher
        source: where the pictures are
        w_range: guidance is drawn from it; D_c + w (D_c - D_null)
        config: how long and how fast
    """
    teaching = diffusion_model(teacher)
    objective = LCD(teaching, skip=20, w_range=w_range, grid=karras_grid(641, T_MIN))  # 32 skips
    model = consistency_model(tuned_net(teaching, guidance=True))
    return Recipe(model, objective, source.labelled(config.device, dropped=0.0), config)


def consistency_model(net: UNet) -> Denoiser:
    """A consistency function in the EDM clock, sigma_data = 0.5."""
    return Denoiser(net, t_min=T_MIN)


def diffusion_model(path: Path) -> Denoiser:
    """A trained teacher's average. Raises CheckpointError for a consistency model and for another kind of picture."""
    return load_teacher(path, recipe="cifar10-teacher", shape=(3, 32, 32))


def doubling_karras(k: int, K: int) -> Tensor:
    """A Karras grid whose intervals double from 8 to 64 in four equal stages, as iCT's do from 10 to 1280."""
    return karras_grid(doubling_points(k, K, s0=8, s1=64), T_MIN)


PUBLISHED = Size(width=128, mults=(2, 2, 2), blocks=4, attention=(2,))  # EDM, Table 7


CM = TrainConfig(steps=800_000, batch=512, lr=4e-4, warmup=0, final_lr=1.0, beta2=0.999, ema=0.9999, radam=True)


def cifar10_teacher_published(
    *,
    source: Source = Source(),
    size: Size = replace(PUBLISHED, dropout=0.13),
    conditional: bool = False,
    config: TrainConfig = TrainConfig(
        steps=390_625, batch=512, lr=1e-3, warmup=19_531, final_lr=1.0, beta2=0.999, ema=0.99929
    ),
) -> Recipe:
    """EDM's CIFAR-10 model, configuration F (arXiv:2206.00364, Table 7): 200 M pictures, warm-up over 10 M.

    Args:
        source: where the pictures are
        size: of the network
        conditional: with classes, a tenth of the labels dropped as guidance needs it (EDM drops none)
        config: how long and how fast
    """
    model = Denoiser(size.net(Cifar10.classes if conditional else 0, config.seed))
    return Recipe(model, DSM(), source.labelled(config.device, DROPPED), config)


def cifar10_cd_published(*, teacher: Path, source: Source = Source(), config: TrainConfig = CM) -> Recipe:
    """CM's distillation (arXiv:2303.01469, Table 3): N = 18, Heun, uniform index, mu = 0; l2 in place of LPIPS.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher-published
        source: where the pictures are
        config: how long and how fast
    """
    teaching = diffusion_model(teacher)
    model = consistency_model(tuned_net(teaching, dropout=0.0))
    return Recipe(model, CD(teaching, grid=karras_grid(18, T_MIN)), source.labelled(config.device), config)


def cifar10_ct_published(*, source: Source = Source(), size: Size = PUBLISHED, config: TrainConfig = CM) -> Recipe:
    """CM's training from random weights (arXiv:2303.01469, Table 3): N(k) from 2 to 150, mu(k); l2 in place of LPIPS.

    Args:
        source: where the pictures are
        size: of the network
        config: how long and how fast
    """
    model = consistency_model(size.net(0, config.seed))
    return Recipe(model, CT(s0=2, s1=150, mu0=0.9), source.labelled(config.device), config)


def cifar10_ect_published(
    *,
    teacher: Path,
    source: Source = Source(),
    config: TrainConfig = TrainConfig(
        steps=200_000, batch=128, lr=1e-4, warmup=0, final_lr=1.0, beta2=0.999, ema=0.9999, radam=True
    ),
) -> Recipe:
    """ECT's tuning (arXiv:2406.14548 and its code): q = 2, a stage each 25,000 iterations, weight 1/(t - s), dropout .2.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher-published
        source: where the pictures are
        config: how long and how fast; the published runs have 100,000, 200,000 and 400,000 iterations
    """
    model = consistency_model(tuned_net(diffusion_model(teacher), dropout=0.2))
    objective = ECT(stages=max(config.steps // 25_000, 1), q=2.0, k=8.0, b=1.0)
    return Recipe(model, objective, source.labelled(config.device), config)


def cifar10_lcd_published(
    *,
    teacher: Path,
    source: Source = Source(),
    config: TrainConfig = TrainConfig(
        steps=100_000, batch=72, lr=8e-6, warmup=0, final_lr=1.0, beta2=0.999, ema=0.999943
    ),
) -> Recipe:
    """LCM's settings (arXiv:2310.04378, section 5) on pictures and classes: k = 20 of 1000 steps, w in [2, 14], squared l2.

    LCM trained text-to-image models in a latent space; its DDPM clock became 1000 Karras steps of the teacher's.

    Args:
        teacher: run folder, checkpoint or exported weights of a conditional cifar10-teacher-published
        source: where the pictures are
        config: how long and how fast
    """
    teaching = diffusion_model(teacher)
    objective = LCD(teaching, skip=20, w_range=(2.0, 14.0), grid=karras_grid(1001, T_MIN), distance=l2, mu=0.999943)
    model = consistency_model(tuned_net(teaching, dropout=0.0, guidance=True))
    return Recipe(model, objective, source.labelled(config.device, dropped=0.0), config)
