"""The published settings for CIFAR-10, for somebody with a cluster: EDM's teacher, CD, CT, ECT, and LCM's of text carried over.

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

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from minicm.data.cifar10 import Cifar10
from minicm.denoiser import Denoiser
from minicm.distances import l2
from minicm.objectives.cd import CD
from minicm.objectives.ct import CT
from minicm.objectives.dsm import DSM
from minicm.objectives.ect import ECT
from minicm.objectives.lcd import LCD
from minicm.recipes.cifar10 import DROPPED, T_MIN, Size, Source, consistency_model, diffusion_model
from minicm.recipes.digits import tuned_net
from minicm.recipes.run import Recipe
from minicm.times import karras_grid
from minicm.train import TrainConfig

PUBLISHED = Size(width=128, mults=(2, 2, 2), blocks=4, attention=(2,))  # EDM, Table 7
CM = TrainConfig(
    steps=800_000, batch=512, lr=4e-4, warmup=0, final_lr=1.0, beta2=0.999, ema=0.9999, radam=True
)


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


def cifar10_ct_published(
    *, source: Source = Source(), size: Size = PUBLISHED, config: TrainConfig = CM
) -> Recipe:
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
    objective = LCD(
        teaching, k=20, w_range=(2.0, 14.0), grid=karras_grid(1001, T_MIN), distance=l2, mu=0.999943
    )
    model = consistency_model(tuned_net(teaching, dropout=0.0, guidance=True))
    return Recipe(model, objective, source.labelled(config.device, dropped=0.0), config)
