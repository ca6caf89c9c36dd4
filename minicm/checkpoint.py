"""Checkpoints: one safetensors file, tensors inside and everything else as JSON in its header. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from minicm.denoiser import Denoiser
from minicm.nets.lora import add_lora, lora_scales
from minicm.nets.mlp import MLP
from minicm.nets.unet import UNet
from minicm.schedules import EDM, VP, TrigFlow

NETS = {"MLP": MLP, "UNet": UNet}
SHARD = "weights-{}-of-{}.safetensors"  # of exported weights
SCHEDULES = {"EDM": EDM, "VP": VP, "TrigFlow": TrigFlow}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, with the reason in one line."""


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
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
        raise CheckpointError(
            f"cannot write {path} ({error.strerror}): free space or choose another folder"
        ) from None
    finally:  # also after a Ctrl-C in the middle
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read back what save_checkpoint wrote, on the CPU; of a run folder, its checkpoint; of exported weights, all shards.

    Raises CheckpointError for a file that is missing, truncated or not one of minicm's.
    """
    path = Path(path)
    if path.is_dir():
        shards = sorted(path.glob(SHARD.format("*", "*")))  # any of them names all
        path = shards[0] if shards else path / "checkpoint.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not a file: give the path of a checkpoint, such as runs/.../checkpoint.safetensors"
        )
    state = _read(path)
    shards = state.get("exported", {}).get("shards", 1)
    for number in range(1, shards + 1) if shards > 1 else ():
        shard = path.with_name(SHARD.format(number, shards))
        if not shard.is_file():
            raise CheckpointError(
                f"{shard} is missing: {shard.parent} needs all {shards} files of the export"
            )
        state |= _read(shard)
    return state


def _read(path: Path) -> dict[str, Any]:
    """One file: its tensors, and the values of its header."""
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


def fingerprint(model: Any) -> str | None:
    """The first 16 hexadecimal digits of the SHA-256 of a model's weights; None for one that has none (the exact denoiser)."""
    inner = getattr(model, "denoiser", model)  # of one that was put into another clock
    if not isinstance(inner, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, value in sorted(inner.state_dict().items()):
        digest.update(
            name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
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
    state = load_checkpoint(path)
    if "model" not in state:
        raise CheckpointError(f"{path} holds no model description")
    model = build(state["model"])
    prefix, adapters = f"{weights}/", 0
    kept = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    scales = state["model"].get("lora_scales", [])
    while ranks := {len(v) for k, v in kept.items() if k.endswith(f".weight.{adapters}.A")}:
        add_lora(model.net, min(ranks), scales[adapters] if scales else 1.0)
        adapters += 1
    try:
        model.load_state_dict(kept)
    except RuntimeError:
        raise CheckpointError(
            f"{path} has no weights {weights!r} that fit the model that it describes"
        ) from None
    return model.eval().requires_grad_(False)
