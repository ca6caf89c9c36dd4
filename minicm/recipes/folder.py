"""Folders of runs: each run has its own, one process at a time trains in it, and nothing that lies there is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILES = ("config.json", "log.jsonl", "checkpoint.safetensors")


def new_folder(runs: Path, name: str) -> Path:
    """Make runs/NAME-NNN with the first number that is free. Raises OSError where it cannot be made."""
    taken = [
        int(p.name.rpartition("-")[2])
        for p in runs.glob(f"{name}-[0-9]*")
        if p.name.rpartition("-")[2].isdigit()
    ]
    number = max(taken, default=0) + 1
    while True:
        folder = runs / f"{name}-{number:03d}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:  # another run took it in between
            number += 1


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process got the lock of a file or folder, which it then keeps for the block; who dies lets go of it.

    On Windows and on file systems without such locks always true: give each process its own there.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    held = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = True
    except BlockingIOError:
        mine = False
    except OSError:
        mine = True
    try:
        yield mine
    finally:
        os.close(held)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder and keep it for the block. Raises FileExistsError while another process trains there."""
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder) as mine:
        if not mine:
            raise FileExistsError(
                f"another process trains in {folder}: wait for its end, or choose another folder"
            )
        yield


def emptied(folder: Path, overwrite: bool) -> None:
    """Remove a former run. Raises FileExistsError for one that may not go."""
    former = [folder / file for file in FILES]
    if any(file.exists() for file in former) and not overwrite:
        raise FileExistsError(
            f"{folder} holds a run already: --resume it, --overwrite it or choose another folder"
        )
    for file in former:
        file.unlink(missing_ok=True)
    swept(folder)


def shortened(folder: Path, k: int) -> None:
    """Drop what a killed run left after its last checkpoint, that of step k: log records, a line cut short, half a save."""
    forget(folder / "log.jsonl", k)
    swept(folder)


def swept(folder: Path) -> None:
    """Remove what a run that was killed while it saved has left."""
    for part in folder.glob("checkpoint.safetensors.*.part"):
        part.unlink(missing_ok=True)


def forget(log: Path, k: int) -> None:
    """Drop the records of steps after k, which a killed run logged but did not save, and a line cut short."""
    if log.exists():
        lines = log.read_text().splitlines(keepends=True)
        kept = (line for line in lines if line.endswith("}\n") and json.loads(line)["k"] <= k)
        beside = log.with_name("log.jsonl.part")
        beside.write_text("".join(kept))  # a full disk leaves the log as it was
        os.replace(beside, log)
