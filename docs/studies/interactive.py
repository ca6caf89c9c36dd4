"""The models of the interactive page: consistency functions of the ring, small enough to be computed while one drags.

`python -m docs.studies.interactive` trains them, in some four minutes of one core, and writes
docs/_static/interactive/models.js: the mixture, the noises of the multistep sampler and the weights, in float32.
docs/_static/interactive/page.js computes with them, in float64; the tests compare it with Python.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.nets.mlp import MLP
from minicm.objectives.base import gentle_gap
from minicm.objectives.cd import CD
from minicm.objectives.ct import CT
from minicm.recipes.points import HUBER, INDEX
from minicm.sampling import LEVELS
from minicm.times import T_MIN, karras_grid
from minicm.train import TrainConfig, train

POINTS = (5, 9, 17, 33)  # N, the times of the training grid
CONFIG = TrainConfig(steps=4000, batch=256, lr=2e-3)


def new_model(seed: int = 0) -> Denoiser:
    """A consistency function of 12,000 weights in the EDM clock."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Denoiser(MLP(2, width=48, depth=4, features=32), t_min=T_MIN)


def distilled(points: int, config: TrainConfig = CONFIG) -> Denoiser:
    """CD from the exact score, with Heun steps on a grid of so many times."""
    data = GaussianMixture.ring()
    objective = CD(data.denoiser(), grid=karras_grid(points, T_MIN), index_law=INDEX, weight=gentle_gap)
    return trained(objective, config, f"CD, N = {points}")


def from_data(points: int, config: TrainConfig = CONFIG) -> Denoiser:
    """CT on a grid of so many times all along: no teacher."""
    gaps = points - 1
    objective = CT(s0=gaps, s1=gaps, mu0=0.0, index_law=INDEX, distance=HUBER, weight=gentle_gap)
    return trained(objective, config, f"CT, N = {points}")


def trained(objective: CD | CT, config: TrainConfig, name: str) -> Denoiser:
    """The evaluation average after training on the ring."""
    steps = train(new_model(config.seed), objective, GaussianMixture.ring(), config)
    *_, last = tqdm(steps, total=config.steps, desc=name, leave=False)
    return last.ema


def packed(tensor: Tensor) -> dict[str, Any]:
    """A tensor as its shape and its float32 numbers, little-endian, in base64."""
    numbers = tensor.detach().float().contiguous().numpy().astype("<f4").tobytes()
    return {"shape": list(tensor.shape), "data": base64.b64encode(numbers).decode()}


def unpacked(tensors: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    """What `packed` packed, tensor by tensor."""
    return {
        name: torch.frombuffer(bytearray(base64.b64decode(part["data"])), dtype=torch.float32).reshape(part["shape"])
        for name, part in tensors.items()
    }


def contents(models: dict[str, dict[int, Denoiser]]) -> dict[str, Any]:
    """All that the page needs to know; `models` by method and N."""
    ring = GaussianMixture.ring()
    noise = torch.randn(8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {
        "mixture": {"means": ring.means.tolist(), "std": ring.covs[0, 0, 0].sqrt().item()},
        "sigma_data": ring.sigma_data,
        "t_min": T_MIN,
        "t_max": 80.0,
        "levels": {str(steps): list(times) for steps, times in LEVELS.items()},
        "noise": noise.tolist(),  # of the steps after the first, in the order of use
        "models": {
            method: {
                str(n): {name: packed(value) for name, value in f.net.state_dict().items()}
                for n, f in by_points.items()
            }
            for method, by_points in models.items()
        },
    }


def main(path: Path = Path("docs/_static/interactive/models.js"), *, config: TrainConfig = CONFIG) -> None:
    """Train all models and write them where the page looks for them."""
    torch.set_num_threads(1)
    models = {
        "CD": {n: distilled(n, config) for n in POINTS},
        "CT": {n: from_data(n, config) for n in POINTS},
    }
    path.write_text(f"const MINICM = {json.dumps(contents(models))};\n")
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
