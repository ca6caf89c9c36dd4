"""A trained model together with what its checkpoint does not hold: the shape of a sample, and how it becomes data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from minicm.checkpoint import CheckpointError, load_checkpoint, load_model
from minicm.denoiser import Denoiser
from minicm.recipes.digits_latent import autoencoder_of

SIZES = {"digits": 8, "cifar10": 32}  # height and width of the pictures of recipes digits-..., cifar10-...


@dataclass(frozen=True)
class Trained:
    """A model, ready to sample."""

    model: Denoiser
    shape: tuple[int, ...]  # of one sample
    decode: Callable[[Tensor], Tensor]  # samples (n, *shape) -> points (n, dim) or pictures (n, C, H, W)

    @property
    def pictures(self) -> bool:
        """Whether its samples are pictures."""
        return len(self.shape) == 3


def trained(path: Path) -> Trained:
    """The model of a run folder or checkpoint. Raises CheckpointError where it, or the autoencoder it needs, is not there."""
    state, model = load_checkpoint(path), load_model(path)
    if hasattr(model.net, "dim"):
        return Trained(model, (model.net.dim,), lambda x: x)
    kind = str(state.get("recipe")).partition("-")[0]
    if kind not in SIZES:
        raise CheckpointError(
            f"{path} does not say what pictures it was trained on: recipe {state.get('recipe')}"
        )
    autoencoder = state.get("options", {}).get("autoencoder")
    if autoencoder is None:
        return Trained(model, (model.net.channels, SIZES[kind], SIZES[kind]), lambda x: x)
    half = SIZES[kind] // 2
    return Trained(model, (model.net.channels, half, half), autoencoder_of(Path(autoencoder)).decode)
