"""Recipes on CIFAR-10: small ones for minutes on one GPU, and the published settings for somebody with a cluster.

Each is a plain function: `model, objective, data, config = cifar10_cd(teacher=Path("runs/cifar10-teacher-001"))`. The models of
the small ones know the ten classes and, since a tenth of the labels is dropped, pictures at large (label None). Their
settings are those found in two dimensions and on digits, carried over: leads, not results. They were not yet run on a
GPU, and on a processor a training of this size takes days.

| recipe                      | iterations x batch | optimiser    | average | dropout | published FID, 1 / 2 steps        |
|-----------------------------|--------------------|--------------|---------|---------|-----------------------------------|
| cifar10-teacher-published   | 390,625 x 512      | Adam 1e-3    | .99929  | .13     | 1.97 in 35 evaluations (EDM)      |
| cifar10-cd-published        | 800,000 x 512      | RAdam 4e-4   | .9999   | 0       | 3.55 / 2.93 with LPIPS (CM)       |
| cifar10-ct-published        | 800,000 x 512      | RAdam 4e-4   | .9999   | 0       | 8.70 / 5.83 with LPIPS (CM)       |
| cifar10-ect-published       | 200,000 x 128      | RAdam 1e-4   | .9999   | .2      | 3.86 / 2.15 (ECT)                 |
| cifar10-lcd-published       | 100,000 x 72       | Adam 8e-6    | .999943 | 0       | none: LCM's is of text to picture |

None was trained here: the FIDs are the papers'. What is left out on purpose, and stands between those numbers and ours:

- LPIPS, CM's distance, needs pretrained VGG weights and torchvision; squared l2 stands in its place. CM reports it far ahead of
  l1 and l2, so its 3.55 / 2.93 is out of reach of these recipes.
- EDM's augmentation (probability .12: flips, scale, rotation, anisotropy, translation, told to the network) but for mirroring;
  the ramp-up of EDM's average; zero in place of NaN in gradients.
- The network is `UNet` at EDM's size, 47 M parameters, attention at 16x16. DDPM++ (55.7 M, EDM, ECT) also resamples inside
  residual blocks, has one block more on the way up, and scales skips by sqrt(1/2); NCSN++ (56.4 M, CM) adds Fourier time
  features of scale 16, the filter [1, 3, 3, 1] and a residual encoder. iCT and sCM report that such Fourier features harm.
- ECT's code uses EDM's unshifted preconditioning in training and t_min = .003 in evaluation alone: ours is one, with .002.

With --accumulate N or several processes (torchrun) the batches stay the published ones on smaller memory.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

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
from minicm.recipes.digits import doubling_karras, tuned_net
from minicm.runs.run import Recipe
from minicm.times import T_MIN, LogNormalIndex, LogNormalTimes, karras_grid
from minicm.train import TrainConfig, device_named

HUBER = pseudo_huber(0.03)  # iCT's .00054 sqrt(3072), of a whole picture's difference
FOUND: dict[str, Any] = dict(index_law=LogNormalIndex(-0.5, 2.0), distance=HUBER, weight=gentle_gap)  # for 2-D
DROPPED = 0.1  # share of labels that are dropped

TEACHER = TrainConfig(steps=20_000, batch=256, lr=1e-3, warmup=500)
SCRATCH = replace(TEACHER, lr=4e-4)
TUNED = TrainConfig(steps=8000, batch=256, lr=4e-4, warmup=200)  # a student that starts from its teacher
CM_TABLE_3 = TrainConfig(steps=800_000, batch=512, lr=4e-4, warmup=0, final_lr=1.0, beta2=0.999, ema=0.9999, radam=True)
ECT_TUNING = replace(CM_TABLE_3, steps=200_000, batch=128, lr=1e-4)
LCM_SECTION_5 = replace(CM_TABLE_3, steps=100_000, batch=72, lr=8e-6, ema=0.999943, radam=False)
EDM_TABLE_7 = replace(CM_TABLE_3, steps=390_625, lr=1e-3, warmup=19_531, ema=0.99929, radam=False)


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
            return UNet(3, classes=classes, **asdict(self))


PUBLISHED = Size(width=128, mults=(2, 2, 2), blocks=4, attention=(2,))  # EDM, Table 7


@dataclass(frozen=True)
class Source:
    """Where the pictures are."""

    data: Path = Path("data")  # the folder cifar-10-batches-bin, or the one that holds it
    download: bool = False  # fetch the official archive (170 MB) into it, if it is not there

    def labelled(self, device: str, dropped: float = DROPPED) -> LabelDropout:
        """The pictures to train on, as bytes on a device, mirrored at random, a share of their labels dropped."""
        if self.download:
            download(self.data)
        return LabelDropout(Cifar10(self.data, device=device_named(device)), dropped, Cifar10.classes)


def student(teacher: Denoiser, **inputs: float) -> Denoiser:
    """A consistency function that starts from its teacher's weights; see `tuned_net`."""
    return Denoiser(tuned_net(teacher, **inputs), t_min=T_MIN)


def diffusion_model(path: Path) -> Denoiser:
    """A trained teacher's average. Raises CheckpointError for a consistency model and for another kind of picture."""
    return load_teacher(path, recipe="cifar10-teacher", shape=(3, 32, 32))


def cifar10_teacher(*, source: Source = Source(), size: Size = Size(), config: TrainConfig = TEACHER) -> Recipe:
    """A diffusion teacher of CIFAR-10, with classes (EDM)."""
    model = Denoiser(size.net(Cifar10.classes, config.seed))
    return Recipe(model, DSM(), source.labelled(config.device), config)


def cifar10_cd(*, teacher: Path, source: Source = Source(), config: TrainConfig = TUNED) -> Recipe:
    """Consistency distillation from a cifar10-teacher's weights, with the settings found for 2-D and digits.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher
    """
    teaching = diffusion_model(teacher)
    objective = CD(teaching, grid=partial(doubling_karras, s1=64), **FOUND)
    return Recipe(student(teaching), objective, source.labelled(config.device), config)


def cifar10_ct(*, source: Source = Source(), size: Size = Size(), config: TrainConfig = SCRATCH) -> Recipe:
    """Consistency training on CIFAR-10 from random weights, with the settings found for 2-D."""
    model = Denoiser(size.net(Cifar10.classes, config.seed), t_min=T_MIN)
    return Recipe(model, CT(mu0=0.0, **FOUND), source.labelled(config.device), config)


def cifar10_ect(*, teacher: Path, source: Source = Source(), config: TrainConfig = TUNED) -> Recipe:
    """Easy consistency tuning: from a cifar10-teacher's weights, on the pictures alone.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher
    """
    # with eight stages, down to a gap of 1/256, digits_ect kept noise in its samples
    objective = ECT(stages=4, time_law=LogNormalTimes(-1.1, 2.0, low=T_MIN), distance=HUBER, weight=gentle_gap)
    return Recipe(student(diffusion_model(teacher)), objective, source.labelled(config.device), config)


def cifar10_lcd(
    *, teacher: Path, source: Source = Source(), w_range: tuple[float, float] = (0.0, 3.0), config: TrainConfig = TUNED
) -> Recipe:
    """Guided distillation (LCD, here in pixels): the class and the guidance scale are inputs of the student.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher
        w_range: guidance is drawn from it; D_c + w (D_c - D_null)
    """
    teaching = diffusion_model(teacher)
    objective = LCD(teaching, skip=20, w_range=w_range, grid=karras_grid(641, T_MIN))  # 32 skips
    pictures = source.labelled(config.device, dropped=0.0)
    return Recipe(student(teaching, guidance=True), objective, pictures, config)


# ------------------------------------------------------------------------------------------- as published
def cifar10_teacher_published(
    *,
    source: Source = Source(),
    size: Size = replace(PUBLISHED, dropout=0.13),
    conditional: bool = False,
    config: TrainConfig = EDM_TABLE_7,
) -> Recipe:
    """EDM's CIFAR-10 model, configuration F (arXiv:2206.00364, Table 7): 200 M pictures, warm-up over 10 M.

    Args:
        conditional: with classes, a tenth of the labels dropped as guidance needs it (EDM drops none)
    """
    model = Denoiser(size.net(Cifar10.classes if conditional else 0, config.seed))
    return Recipe(model, DSM(), source.labelled(config.device), config)


def cifar10_cd_published(*, teacher: Path, source: Source = Source(), config: TrainConfig = CM_TABLE_3) -> Recipe:
    """CM's distillation (arXiv:2303.01469, Table 3): N = 18, Heun, uniform index, mu = 0; l2 in place of LPIPS.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher-published
    """
    teaching = diffusion_model(teacher)
    objective = CD(teaching, grid=karras_grid(18, T_MIN))
    return Recipe(student(teaching, dropout=0.0), objective, source.labelled(config.device), config)


def cifar10_ct_published(
    *, source: Source = Source(), size: Size = PUBLISHED, config: TrainConfig = CM_TABLE_3
) -> Recipe:
    """CM's training from random weights (arXiv:2303.01469, Table 3): N(k) from 2 to 150, mu(k); l2 in place of LPIPS."""
    model = Denoiser(size.net(0, config.seed), t_min=T_MIN)
    return Recipe(model, CT(s0=2, s1=150, mu0=0.9), source.labelled(config.device), config)


def cifar10_ect_published(*, teacher: Path, source: Source = Source(), config: TrainConfig = ECT_TUNING) -> Recipe:
    """ECT's tuning (arXiv:2406.14548 and its code): q = 2, a stage each 25,000 iterations, weight 1/(t - s), dropout .2.

    Args:
        teacher: run folder, checkpoint or exported weights of a cifar10-teacher-published
        config: how long and how fast; the published runs have 100,000, 200,000 and 400,000 iterations
    """
    model = student(diffusion_model(teacher), dropout=0.2)
    objective = ECT(stages=max(config.steps // 25_000, 1), q=2.0, k=8.0, b=1.0)
    return Recipe(model, objective, source.labelled(config.device), config)


def cifar10_lcd_published(*, teacher: Path, source: Source = Source(), config: TrainConfig = LCM_SECTION_5) -> Recipe:
    """LCM's settings (arXiv:2310.04378, section 5) on pictures and classes: k = 20 of 1000 steps, w in [2, 14], squared l2.

    LCM trained text-to-image models in a latent space; its DDPM clock became 1000 Karras steps of the teacher's.

    Args:
        teacher: run folder, checkpoint or exported weights of a conditional cifar10-teacher-published
    """
    teaching = diffusion_model(teacher)
    objective = LCD(teaching, skip=20, w_range=(2.0, 14.0), grid=karras_grid(1001, T_MIN), distance=l2, mu=0.999943)
    model = student(teaching, dropout=0.0, guidance=True)
    return Recipe(model, objective, source.labelled(config.device, dropped=0.0), config)
