"""Checkpoints: one safetensors file, tensors inside and everything else as JSON in its header. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from contextlib import suppress
from dataclasses import fields
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
        raise CheckpointError(f"cannot write {path} ({error.strerror}): free space or choose another folder") from None
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
            raise CheckpointError(f"{shard} is missing: {shard.parent} needs all {shards} files of the export")
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
        raise CheckpointError(f"{path} has no weights {weights!r} that fit the model that it describes") from None
    return model.eval().requires_grad_(False)


def autoencoder_of(path: Path) -> Autoencoder:
    """The autoencoder that lies at a path. Raises CheckpointError where there is none."""
    state = load_checkpoint(path)
    if "options" not in state or "spread" not in state:
        raise CheckpointError(f"{path} holds no autoencoder: digits-latent-teacher makes one")
    net = Autoencoder(**state.pop("options"))
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def state_of(
    k: int,
    models: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    config: dict[str, Any],
) -> dict[str, Any]:
    """Everything a resumed run needs after k updates, flat: tensors, and plain values for the header."""
    state: dict[str, Any] = {"k": k, "config": config, "generator": generator.get_state()}
    for name, model in models.items():
        state |= {f"{name}/{key}": value.detach().clone() for key, value in model.state_dict().items()}
    for i, slots in optimiser.state_dict()["state"].items():
        state |= {f"optimiser/{i}/{key}": value.detach().clone() for key, value in slots.items()}
    return state


def restore(
    state: dict[str, Any],
    models: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    config: dict[str, Any],
) -> int:
    """Put a state back; returns the number of updates it has seen. Raises ValueError if it does not fit."""
    for name, then in state.get("config", {}).items():
        if name != "device" and config.get(name) != then:
            raise ValueError(
                f"the checkpoint was trained with {name} = {then}, this run has {name} = {config.get(name)}"
            )
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


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


MIB = 2**20  # bytes


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    dtype: Literal["bf16", "fp32"] = "bf16",  # of the weights; buffers stay as they are
    shard_mib: float = 15.0,  # largest size of a file, in MiB (2^20 bytes)
) -> list[Path]:
    """Write a checkpoint's evaluation average into the new folder `out`, all or nothing; returns its files.

    bf16 keeps 8 bits of a weight: half the size of fp32, which keeps it as trained. Raises CheckpointError for a
    checkpoint without an average, a folder that exists, and a tensor larger than a file may be; ValueError for a size
    that is not positive and finite.
    """
    out = Path(out)
    if not 0 < shard_mib < math.inf:
        raise ValueError(f"shard_mib must be positive and finite, got {shard_mib:g}")
    if dtype not in DTYPES:
        raise ValueError(f'dtype must be "bf16" or "fp32", got {dtype!r}')
    if out.exists():
        raise CheckpointError(f"{out} exists: choose another folder")
    state = load_checkpoint(checkpoint)
    header: dict[str, Any] = {key: state.get(key) for key in ("recipe", "options", "model")}
    shards = _shards(_average(state, DTYPES[dtype], checkpoint), int(shard_mib * MIB) - len(json.dumps(header)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as scratch:
        beside = Path(scratch) / out.name
        beside.mkdir()
        for number, tensors in enumerate(shards, 1):
            about = {"dtype": dtype, "shards": len(shards), "steps": state.get("k")}
            save_checkpoint(beside / SHARD.format(number, len(shards)), header | {"exported": about} | tensors)
        beside.rename(out)
    return sorted(out.iterdir())


def _average(state: dict[str, Any], dtype: torch.dtype, path: str | Path) -> dict[str, Tensor]:
    """The evaluation average's tensors; its weights in the given dtype, its buffers as they are."""
    average = {key: value for key, value in state.items() if key.startswith("ema/")}
    if not average or "model" not in state:
        raise CheckpointError(f"{path} holds no evaluation average: export the checkpoint of a training run")
    buffers = {f"ema/{name}" for name, _ in build(state["model"]).named_buffers()}
    return {key: value if key in buffers else value.to(dtype) for key, value in average.items()}


def _shards(tensors: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """The tensors in order, in as few parts as go without parting a tensor, each of at most `limit` bytes as a file."""
    shards: list[dict[str, Tensor]] = [{}]
    room = limit - 1024  # of the file's own frame
    left = room
    for name, value in tensors.items():
        size = value.nbytes + len(name) + 128  # its entry in the header: name, dtype, shape and place
        if size > room:
            raise CheckpointError(f"{name} alone takes {size / MIB:.2f} MiB: raise shard_mib")
        if size > left:
            shards.append({})
            left = room
        shards[-1][name] = value
        left -= size
    return shards
