"""Weights to hand on: the evaluation average alone, in bfloat16 or float32, in files of a given size.

An export is for sampling and for starting from: `load_model` reads it. It is not resumable, as the trained weights, the
target, the optimiser and the generators stay behind in the run's checkpoint.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from minicm.checkpoint import SHARD, CheckpointError, build, load_checkpoint, save_checkpoint

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
    shards = _shards(
        _average(state, DTYPES[dtype], checkpoint), int(shard_mib * MIB) - len(json.dumps(header))
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as scratch:
        beside = Path(scratch) / out.name
        beside.mkdir()
        for number, tensors in enumerate(shards, 1):
            about = {"dtype": dtype, "shards": len(shards), "steps": state.get("k")}
            save_checkpoint(
                beside / SHARD.format(number, len(shards)), header | {"exported": about} | tensors
            )
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
