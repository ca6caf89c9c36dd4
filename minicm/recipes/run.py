"""A run: one recipe trained in a folder of its own, with a log, checkpoints, a progress bar and a clean way to stop."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn
from tqdm import tqdm

from minicm.checkpoint import CheckpointError, describe, load_checkpoint, save_checkpoint
from minicm.denoiser import Denoiser
from minicm.objectives.base import Objective
from minicm.train import Data, Step, TrainConfig, train


class Recipe(NamedTuple):
    """All that a training needs; every recipe is a plain function that returns one."""

    model: Denoiser
    objective: Objective
    data: Data
    config: TrainConfig


@dataclass(frozen=True)
class RunOptions:
    """Where a run lives and how often it is saved."""

    runs: Path = Path("runs")  # folder of all runs
    folder: Path | None = None  # this run's folder; RUNS/RECIPE-NNN with the next number if not given
    resume: Path | None = None  # a run folder or checkpoint to go on from
    overwrite: bool = False  # start again in a folder that holds a run already
    save_every: int = 1000  # updates between checkpoints
    log_every: int = 50  # updates between log records
    quiet: bool = False  # no progress bar


class Finished(NamedTuple):
    """What a run leaves: its folder, the evaluation average, how many updates it has seen and its own seconds."""

    folder: Path
    ema: nn.Module
    k: int
    seconds: float


def run(name: str, recipe: Recipe, options: dict[str, Any], where: RunOptions = RunOptions()) -> Finished:
    """Train a recipe in its run folder: config.json, log.jsonl (one record a line), checkpoint.safetensors.

    options: the recipe's own arguments, kept in every checkpoint. Ctrl-C stops after the running step, with a
    checkpoint. Raises FileExistsError for a folder that holds a run, CheckpointError for a checkpoint of another
    recipe, Diverged (after which the last checkpoint stands).
    """
    header = {"recipe": name, "options": plain(options), "model": describe(recipe.model)}
    state, folder = _open(name, header, where)
    print(f"{name}: {folder}", file=sys.stderr)
    (folder / "config.json").write_text(
        json.dumps(header | {"config": asdict(recipe.config)}, indent=1) + "\n"
    )
    started = time.perf_counter()
    with stoppable() as stop, open(folder / "log.jsonl", "a") as log:
        bar = _bar(name, recipe.config.steps, state, where.quiet)
        step, saved = None, None
        for step in train(*recipe, resume=state):
            bar.update()
            if step.k % where.log_every == 0 or step.k == recipe.config.steps:
                _record(step, recipe.config, started, log, bar)
            if step.k % where.save_every == 0:
                saved = _save(folder, step, header)
            if stop.asked:
                break
        bar.close()
    if step is None:
        raise CheckpointError(
            f"{folder} has done all its {recipe.config.steps} steps: nothing is left to resume"
        )
    if saved != step.k:
        _save(folder, step, header)
    if step.k < recipe.config.steps:
        print(
            f"stopped after step {step.k} of {recipe.config.steps}; go on with --resume {folder}",
            file=sys.stderr,
        )
    return Finished(folder, step.ema, step.k, time.perf_counter() - started)


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


class Stop:
    """Whether a stop was asked for; a second Ctrl-C stops at once."""

    asked = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Turn the first Ctrl-C into a wish, so that a step can end and be saved."""
    stop = Stop()

    def ask(signum: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        print("\nstopping after this step (again: at once)", file=sys.stderr)

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread, where no Ctrl-C arrives
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def plain(value: Any) -> Any:
    """Options as JSON values: dataclasses become dicts, paths strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _open(name: str, header: dict[str, Any], where: RunOptions) -> tuple[dict[str, Any] | None, Path]:
    """The state to go on from (None for a fresh start) and the run's folder."""
    if where.resume is not None:
        state = load_checkpoint(where.resume)
        for part in ("recipe", "model", "options"):
            if state.get(part) != json.loads(json.dumps(header[part])):
                raise CheckpointError(
                    f"{where.resume} has {part} {state.get(part)}, this run {header[part]}: give the same"
                )
        folder = where.resume if where.resume.is_dir() else where.resume.parent
        _forget(folder / "log.jsonl", state["k"])
        return state, folder
    folder = where.folder or new_folder(where.runs, name)
    if where.folder is not None:
        if (folder / "config.json").exists() and not where.overwrite:
            raise FileExistsError(
                f"{folder} holds a run already: --resume it, --overwrite it or choose another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.jsonl").unlink(missing_ok=True)
    return None, folder


def _forget(log: Path, k: int) -> None:
    """Drop the records of steps after k, which a killed run logged but did not save."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["k"] <= k]
        log.write_text("".join(line + "\n" for line in lines))


def _bar(name: str, steps: int, state: dict[str, Any] | None, quiet: bool) -> tqdm:
    return tqdm(
        total=steps, initial=state["k"] if state else 0, desc=name, unit="step", disable=quiet, leave=False
    )


def _record(step: Step, config: TrainConfig, started: float, log: Any, bar: tqdm) -> None:
    loss, seconds = step.loss.item(), time.perf_counter() - started
    record = {"k": step.k, "loss": loss, "lr": config.lr_at(step.k - 1), "seconds": round(seconds, 3)}
    log.write(json.dumps(record) + "\n")
    log.flush()
    bar.set_postfix(loss=f"{loss:.4g}")


def _save(folder: Path, step: Step, header: dict[str, Any]) -> int:
    save_checkpoint(folder / "checkpoint.safetensors", step.state() | header)
    return step.k
