"""minicm: the family of consistency models, readable, runnable and checkable against exact answers.

`import minicm as cm` hands out the names below, each from its module, which is loaded when the name is first used.
"""

import sys
from importlib import import_module
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
__all__ += ["Denoiser", "FromPrediction", "Guided", "InClock", "edm_sample", "euler_step", "heun_step", "sample"]
__all__ += ["CD", "CT", "DSM", "ECT", "ICT", "LCD", "SCM", "TCD", "Objective", "TrainConfig", "gentle_gap", "train"]
__all__ += ["consistency_error", "load_checkpoint", "load_model", "order", "plots", "save_checkpoint", "solve"]

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
HOME = {name: home for home, names in HOMES.items() for name in names.split()}


class FrontDoor(ModuleType):
    """The package itself, as a module whose public names are loaded when they are first used."""

    def __getattr__(self, name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module minicm has no {name!r}{near(name)}")
        module = import_module(f"minicm.{HOME.get(name, name)}")
        setattr(self, name, getattr(module, name, module))  # `plots` is its module
        return self.__dict__[name]

    def __setattr__(self, name: str, value: object) -> None:
        """As ever, but the module minicm.train, which Python sets here once it is loaded, does not hide `train`."""
        super().__setattr__(name, getattr(value, name) if name in HOME and isinstance(value, ModuleType) else value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


def near(name: str) -> str:
    """A hint at the public name that a misspelt one is near to."""
    from difflib import get_close_matches

    found = [n for n in __all__ if n.lower() == name.lower()] or get_close_matches(name, __all__, 1)
    return f": did you mean {found[0]}?" if found else ""


sys.modules[__name__].__class__ = FrontDoor
