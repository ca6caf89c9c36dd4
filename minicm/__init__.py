"""minicm: the family of consistency models, readable, runnable and checkable against exact answers.

`import minicm as cm` hands out the names below, each from its module, which is loaded when the name is first used.
"""

import sys
from types import ModuleType

TYPE_CHECKING = False  # True for type checkers; `typing` itself takes longer to load than all of this
if TYPE_CHECKING:
    from minicm import plots
    from minicm.checkpoint import load_checkpoint, load_model, save_checkpoint
    from minicm.data.mixtures import GaussianMixture
    from minicm.data.toy import TwoMoons
    from minicm.denoiser import Denoiser, FromPrediction, Guided, InClock
    from minicm.distances import l2, pseudo_huber
    from minicm.metrics.consistency import consistency_error, order
    from minicm.nets.lora import add_lora, merge_lora
    from minicm.nets.mlp import MLP
    from minicm.nets.unet import UNet
    from minicm.objectives.base import Objective, gentle_gap
    from minicm.objectives.cd import CD
    from minicm.objectives.ct import CT
    from minicm.objectives.dsm import DSM
    from minicm.objectives.ect import ECT
    from minicm.objectives.ict import ICT
    from minicm.objectives.lcd import LCD
    from minicm.objectives.scm import SCM
    from minicm.objectives.tcd import TCD
    from minicm.sampling import edm_sample, sample
    from minicm.schedules import EDM, VP, Schedule, TrigFlow
    from minicm.solvers import euler_step, heun_step, solve
    from minicm.times import LogNormalIndex, LogNormalTimes, karras_grid, skip_grid
    from minicm.train import TrainConfig, train

__version__ = "0.2.0"

__all__ = ["EDM", "VP", "LogNormalIndex", "LogNormalTimes", "Schedule", "TrigFlow", "karras_grid", "skip_grid"]
__all__ += ["MLP", "GaussianMixture", "TwoMoons", "UNet", "add_lora", "l2", "merge_lora", "pseudo_huber"]
__all__ += [
    "Denoiser",
    "FromPrediction",
    "Guided",
    "InClock",
    "edm_sample",
    "euler_step",
    "heun_step",
    "sample",
    "solve",
]
__all__ += ["CD", "CT", "DSM", "ECT", "ICT", "LCD", "SCM", "TCD", "Objective", "TrainConfig", "gentle_gap", "train"]
__all__ += ["consistency_error", "load_checkpoint", "load_model", "order", "plots", "save_checkpoint"]

HOMES = {  # module: the names that it gives
    "checkpoint": "load_checkpoint load_model save_checkpoint",
    "data.mixtures": "GaussianMixture",
    "data.toy": "TwoMoons",
    "denoiser": "Denoiser FromPrediction Guided InClock",
    "distances": "l2 pseudo_huber",
    "metrics.consistency": "consistency_error order",
    "nets.lora": "add_lora merge_lora",
    "nets.mlp": "MLP",
    "nets.unet": "UNet",
    "objectives.base": "Objective gentle_gap",
    "objectives.cd": "CD",
    "objectives.ct": "CT",
    "objectives.dsm": "DSM",
    "objectives.ect": "ECT",
    "objectives.ict": "ICT",
    "objectives.lcd": "LCD",
    "objectives.scm": "SCM",
    "objectives.tcd": "TCD",
    "sampling": "edm_sample sample",
    "schedules": "EDM VP Schedule TrigFlow",
    "solvers": "euler_step heun_step solve",
    "times": "LogNormalIndex LogNormalTimes karras_grid skip_grid",
    "train": "TrainConfig train",
}
