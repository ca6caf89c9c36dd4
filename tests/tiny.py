"""A recipe of a second. Not in conftest.py: there are several of that name, and an import finds the one loaded last."""

import torch

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.nets.mlp import MLP
from minicm.objectives.ct import CT
from minicm.runs.run import Recipe
from minicm.train import TrainConfig


def tiny(seed: int = 0, **config) -> Recipe:
    """Consistency training of a network of a hundred weights, with an averaged target: a millisecond or two a step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Denoiser(MLP(2, width=8, depth=1, features=4), t_min=0.002)
    settings = {"steps": 12, "batch": 16, "lr": 1e-2, "warmup": 4, "ema": 0.9, "seed": seed} | config
    return Recipe(model, CT(), GaussianMixture.ring(), TrainConfig(**settings))
