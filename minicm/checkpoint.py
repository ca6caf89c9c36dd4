"""Checkpoints: one safetensors file, tensors inside and everything else as JSON in its header. Nothing is unpickled.

The header says what the model is (`FACTS`), so that nobody has to read it from the name of a file or recipe.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from minicm.denoiser import Denoiser
from minicm.nets.autoencoder import Autoencoder
from minicm.nets.lora import add_lora, lora_scales
from minicm.nets.mlp import MLP
from minicm.nets.unet import UNet
from minicm.schedules import EDM, VP, Schedule, TrigFlow

NETS = {"MLP": MLP, "UNet": UNet}
SCHEDULES = {"EDM": EDM, "VP": VP, "TrigFlow": TrigFlow}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
FACTS = ("kind", "data", "shape", "model", "decoder", "teacher")  # `minicm.runs.run.facts` says what each is

State = dict[str, Any]  # all of a checkpoint, flat: tensors, and JSON values for its header
Models = dict[str, nn.Module]  # by the names that their weights have in a state: f, f_target, ema


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, with the reason in one line."""


# ----------------------------------------------------------------------------------------- write, read
def save_checkpoint(path: str | Path, state: State) -> None:
    """Write a state (name -> tensor or JSON value) as one file, all or nothing.

    The file is written beside its place, synced and renamed, so that a crash or a full disk leaves the old one.
    Raises CheckpointError where the folder cannot be written.
    """
    path = Path(path)
    tensors = {name: v.contiguous().cpu() for name, v in state.items() if isinstance(v, torch.Tensor)}
    header = {name: v for name, v in state.items() if name not in tensors}
    packed = save(tensors, metadata={"minicm": json.dumps(header)})
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")  # two processes never write into one file
    try:
        with open(beside, "wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path} ({error.strerror}): free space or choose another folder") from None
    finally:  # also after a Ctrl-C in the middle
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> State:
    """Read back what save_checkpoint wrote, on the CPU; of a run folder, its checkpoint.

    Raises CheckpointError for a file that is missing, truncated or not one of minicm's.
    """
    path = Path(path)
    path = path / "checkpoint.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file: give a run folder, or a file such as its checkpoint.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # cloned, as they are views of the file, which a resumed run replaces
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or no safetensors file ({error})") from None
    if "minicm" not in metadata:
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of minicm")
    try:
        return {**json.loads(metadata["minicm"]), **tensors}
    except (ValueError, TypeError):
        raise CheckpointError(f"{path} has a header that this version of minicm cannot read") from None


# ------------------------------------------------------------------------- what a model is, and the model
def describe(model: Denoiser) -> dict[str, Any]:
    """A model's blueprint as JSON values; `build` makes the model again, with new weights."""
    clock: Any = model.schedule  # a dataclass, as all clocks are
    scales = lora_scales(model.net)
    return ({} if set(scales) <= {1.0} else {"lora_scales": scales}) | {
        "net": type(model.net).__name__,
        "options": getattr(model.net, "options", {}),  # a network of one's own may have none
        "schedule": type(clock).__name__,
        "clock": {field.name: getattr(clock, field.name) for field in fields(clock) if field.init},
        "sigma_data": model.sigma_data,
        "t_min": model.t_min,
    }


def decoder_state(autoencoder: Any) -> State:
    """An autoencoder as a part of a state: "decoder" for the header, tensors "decoder/..."; None where it has no weights."""
    if not isinstance(autoencoder, nn.Module):
        return {"decoder": None}
    about = {"options": getattr(autoencoder, "options", {}), "fingerprint": fingerprint(autoencoder)}
    return {"decoder": about} | {f"decoder/{key}": value for key, value in autoencoder.state_dict().items()}


def fingerprint(model: Any) -> str | None:
    """The first 16 hexadecimal digits of the SHA-256 of a model's weights; "exact" for one without any, None for None."""
    if model is None:
        return None
    inner = getattr(model, "denoiser", model)  # of one that was put into another clock
    if not isinstance(inner, nn.Module):
        return "exact"
    digest = hashlib.sha256()
    for name, value in sorted(inner.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def build(blueprint: dict[str, Any]) -> Denoiser:
    """The model that `describe` described. Raises CheckpointError for a network that this version lacks."""
    try:
        net: nn.Module = NETS[blueprint["net"]](**blueprint["options"])
        schedule = SCHEDULES[blueprint["schedule"]](**blueprint["clock"])
        return Denoiser(net, schedule, blueprint["sigma_data"], blueprint["t_min"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"the checkpoint's model cannot be built by this version of minicm ({error}): build it yourself "
            "and load its weights, load_checkpoint(path) names them ema/..."
        ) from None


def load_model(path: str | Path, weights: str = "ema") -> Denoiser:
    """The model of a checkpoint, ready to sample; adapters that it was trained with are apart, as `add_lora` left them.

    weights: "ema" for the evaluation average, "f" for the trained weights, "f_target" for the target's.
    Raises CheckpointError.
    """
    return _model(load_checkpoint(path), path, weights)


def _model(state: State, path: str | Path, weights: str) -> Denoiser:
    if "model" not in state:
        raise CheckpointError(f"{path} holds no model description")
    model, kept, adapters = build(state["model"]), _part(state, f"{weights}/"), 0
    scales = state["model"].get("lora_scales", [])
    while ranks := {len(v) for k, v in kept.items() if k.endswith(f".weight.{adapters}.A")}:
        add_lora(model.net, min(ranks), scales[adapters] if scales else 1.0)
        adapters += 1
    try:
        model.load_state_dict(kept)
    except RuntimeError:
        raise CheckpointError(f"{path} has no weights {weights!r} that fit the model that it describes") from None
    return model.eval().requires_grad_(False)


def load_decoder(path: str | Path) -> Autoencoder:
    """The autoencoder that a run of latents carries, or a file of its own. Raises CheckpointError where there is none."""
    return _decoder(load_checkpoint(path), path)


def _decoder(state: State, path: str | Path) -> Autoencoder:
    try:
        net = Autoencoder(**state["decoder"]["options"])
        net.load_state_dict(_part(state, "decoder/"))
    except (KeyError, TypeError, RuntimeError):
        raise CheckpointError(f"{path} holds no autoencoder: digits-latent-teacher makes one") from None
    return net.eval().requires_grad_(False)


@dataclass(frozen=True)
class Trained:
    """A model, ready to sample, with the facts that its checkpoint states."""

    model: Denoiser
    kind: str  # "diffusion" or "consistency"
    data: str | None  # the name of what it was trained on, None for data of one's own
    shape: tuple[int, ...]  # of one sample
    decoder: Autoencoder | None  # of latents
    header: dict[str, Any]  # all that the checkpoint says: recipe, options, teacher, ...

    @property
    def pictures(self) -> bool:
        """Whether its samples are pictures, or become some."""
        return len(self.shape) == 3

    def decode(self, x: Tensor) -> Tensor:
        """Samples (n, *shape) -> points (n, dim) or pictures (n, C, H, W)."""
        return x if self.decoder is None else self.decoder.decode(x)


def load_trained(path: str | Path) -> Trained:
    """The evaluation average of a run folder, checkpoint or export, with what it is.

    Raises CheckpointError for a file that is none, and for one of a former version, which does not say what it is.
    """
    state = load_checkpoint(path)
    model = _model(state, path, "ema")
    if missing := [fact for fact in FACTS if fact not in state]:
        raise CheckpointError(
            f"{path} is of a former version and lacks its {', '.join(missing)}: train or export it anew"
        )
    decoder = _decoder(state, path) if state["decoder"] else None
    header = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
    return Trained(model, state["kind"], state["data"], tuple(state["shape"]), decoder, header)


def load_teacher(
    path: str | Path,
    *,
    recipe: str,  # one that trains what is asked for: the way out
    shape: tuple[int, ...],  # of one sample
    schedule: Schedule = EDM(),
    classes: int | None = None,  # that it knows; None where any will do
) -> Denoiser:
    """A trained diffusion model's evaluation average, to learn from or to start from.

    Raises CheckpointError for a consistency model, another clock, and samples or classes that are not those asked for.
    """
    found = load_trained(path)
    model, knows = found.model, getattr(found.model.net, "classes", 0)
    wrong = None
    if found.kind != "diffusion":
        wrong = "a consistency model, no diffusion teacher"
    elif model.schedule != schedule:
        wrong = f"a teacher in another clock ({type(model.schedule).__name__}) than this {type(schedule).__name__}"
    elif found.shape != shape:
        wrong = f"a teacher of samples of shape {found.shape}, not {shape}"
    elif classes is not None and knows != classes:
        wrong = f"a teacher that knows {knows} classes, not {classes}"
    if wrong:
        raise CheckpointError(f"{path} holds {wrong}: give one that minicm train {recipe} has trained")
    return model


# -------------------------------------------------------------------------------------- resume
def state_of(
    k: int, models: Models, optimiser: torch.optim.Optimizer, generator: torch.Generator, config: State
) -> State:
    """Everything a resumed run needs after k updates, flat: tensors, and plain values for the header."""
    state: State = {"k": k, "config": config, "generator": generator.get_state()}
    for name, model in models.items():
        state |= {f"{name}/{key}": value.detach().clone() for key, value in model.state_dict().items()}
    for i, slots in optimiser.state_dict()["state"].items():
        state |= {f"optimiser/{i}/{key}": value.detach().clone() for key, value in slots.items()}
    return state


def restore(
    state: State, models: Models, optimiser: torch.optim.Optimizer, generator: torch.Generator, config: State
) -> int:
    """Put a state back; returns the number of updates it has seen. Raises ValueError if it does not fit."""
    for name, then in state.get("config", {}).items():
        if name != "device" and config.get(name) != then:
            raise ValueError(f"the checkpoint was trained with {name} = {then}, not with this run's {config.get(name)}")
    try:
        for name, model in models.items():
            model.load_state_dict(_part(state, f"{name}/"))
        packed, slots = optimiser.state_dict(), _part(state, "optimiser/")
        parameters = optimiser.param_groups[0]["params"]
        for key, value in slots.items():
            i, slot = key.split("/")
            like = None if slot == "step" else parameters[int(i)]
            packed["state"].setdefault(int(i), {})[slot] = _laid_out(value, like)
        optimiser.load_state_dict(packed)
        generator.set_state(state["generator"])
        return int(state["k"])
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        # torch's first line says only that something is wrong, its second what
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise ValueError(f"the checkpoint does not fit this model: {reason}") from None


def _laid_out(value: Tensor, like: Tensor | None) -> Tensor:
    """A copy (the optimiser works in place) laid out in memory as its parameter is: fused Adam goes by position."""
    return value.clone() if like is None else torch.empty_like(like).copy_(value)


def _part(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


# -------------------------------------------------------------------------------------- export
def export(checkpoint: Path, /, *, out: Path | None = None, dtype: Literal["bf16", "fp32"] = "bf16") -> Path:
    """Write the evaluation average alone, to sample from or start from; it cannot be resumed.

    Buffers keep their dtype. Returns the file. Raises CheckpointError for a checkpoint without an average and for a
    file that exists.

    Args:
        checkpoint: a run folder or its checkpoint
        out: the file to write; weights-DTYPE.safetensors in the run folder if not given
        dtype: of the weights; bf16 halves the size, fp32 keeps them as trained
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    out = out or folder / f"weights-{dtype}.safetensors"
    if dtype not in DTYPES:
        raise ValueError(f'dtype must be "bf16" or "fp32", got {dtype!r}')
    if out.exists():
        raise CheckpointError(f"{out} exists: choose another --out")
    run = load_trained(checkpoint)
    kept = {key: run.header[key] for key in ("recipe", "options", *FACTS) if key in run.header}
    kept["exported"] = {"dtype": dtype, "steps": run.header.get("k")}
    weights = dict(run.model.named_parameters())
    state = {k: v.to(DTYPES[dtype]) if k in weights else v for k, v in run.model.state_dict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, kept | decoder_state(run.decoder) | {f"ema/{key}": value for key, value in state.items()})
    return out
