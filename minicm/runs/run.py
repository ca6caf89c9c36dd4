"""A run: one recipe trained in a folder of its own, with a log, checkpoints, a progress bar and a clean way to stop."""

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from minicm.checkpoint import (
    CheckpointError,
    State,
    decoder_state,
    describe,
    fingerprint,
    load_checkpoint,
    save_checkpoint,
)
from minicm.denoiser import Denoiser
from minicm.objectives.base import Objective
from minicm.parallel import any_process, rank, world
from minicm.runs.folder import Pace, Stop, alone, emptied, new_folder, peak_memory, seconds_of, shortened, stoppable
from minicm.train import Data, Diverged, Step, TrainConfig, device_named, train


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
    overwrite: bool = False  # start again in a --folder that holds a run already
    save_every: int = 1000  # updates between checkpoints
    log_every: int = 50  # updates between log records
    budget: str | None = None  # stop cleanly after 90s, 9min, 1h; curricula still run to all steps
    quiet: bool = False  # no progress bar

    def __post_init__(self) -> None:
        for name in ("save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.budget is not None:
            seconds_of(self.budget)
        if self.resume is not None and self.folder is not None:
            raise ValueError("a resumed run goes on in its own folder: give --resume or --folder, not both")
        if self.overwrite and self.folder is None:
            raise ValueError("--overwrite starts a --folder again: say which; without one a run gets a new folder")


class Finished(NamedTuple):
    """What a run leaves: its folder, the evaluation average, its updates, its own seconds, whether Ctrl-C ended it."""

    folder: Path
    ema: Denoiser
    k: int
    seconds: float
    interrupted: bool


def run(name: str, recipe: Recipe, options: dict[str, Any], where: RunOptions = RunOptions()) -> Finished:
    """Train a recipe in its run folder: config.json, log.jsonl (one record a line), checkpoint.safetensors.

    options: the recipe's own arguments, kept in every checkpoint. Ctrl-C, or the end of the budget, stops after the
    running step, with a checkpoint. A budget changes nothing else: learning rate and curricula are functions of (k, K)
    with K = config.steps, so a run that it cuts short has not closed its gap; resume it, or choose the steps to fit.
    Of several processes (torchrun) number 0 alone writes, and all look for a stop when they log.
    Raises FileExistsError for a folder that holds a run or in which another process trains, CheckpointError for a
    checkpoint of another recipe, Diverged (after which the last checkpoint stands).
    """
    called = time.perf_counter()
    if world() > 1 and where.folder is None and where.resume is None:
        raise ValueError("several processes share one run: name its folder by --folder or --resume")
    kept = {"recipe": name, "options": plain(options)} | facts(recipe)
    header = {key: value for key, value in kept.items() if not isinstance(value, torch.Tensor)}
    state = None if where.resume is None else _state_of(where.resume, header)
    steps = train(*recipe, resume=state)  # a wrong device or state is refused before any folder is touched
    if state and state["k"] >= recipe.config.steps:
        raise CheckpointError(f"{where.resume} has done all its {state['k']} steps: nothing is left to resume")
    folder, K = _folder(name, where), recipe.config.steps
    with alone(folder) if rank() == 0 else nullcontext():
        if rank() == 0:
            _prepare(folder, name, where, state, header | {"config": asdict(recipe.config)})
        started = time.perf_counter()
        with stoppable(where.budget, called) as stop, _bar(name, K, state, where.quiet) as bar:
            step = _follow(steps, folder, kept, recipe.config, where, stop, bar)
    if step.k < K and rank() == 0:
        goes_on = f"to go on, give the same command and --resume {folder}"
        print(f"stopped after step {step.k} of {K}; {goes_on}", file=sys.stderr)
    interrupted = step.k < K and (stop.wished or where.budget is None)
    return Finished(folder, step.ema, step.k, time.perf_counter() - started, interrupted)


def facts(recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint says of its model, read from the recipe's objects; with the tensors of a decoder.

    kind: "diffusion" or "consistency"; data: the data set's name, None for data of one's own; shape: of one sample;
    model: its blueprint; decoder: of latents, their autoencoder; teacher: its fingerprint.
    """
    generator, name = torch.Generator(device_named(recipe.config.device)), getattr(recipe.data, "name", None)
    return {
        "kind": recipe.objective.kind,
        "data": name if isinstance(name, str) else None,
        "shape": list(recipe.data.sample(1, generator)[0].shape[1:]),
        "model": describe(recipe.model),
        "teacher": fingerprint(getattr(recipe.objective, "teacher", None)),
    } | decoder_state(getattr(recipe.data, "decoder", None))


def plain(value: Any) -> Any:
    """Options as JSON values: dataclasses become dicts, paths strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _state_of(path: Path, header: dict[str, Any]) -> State:
    """The state to go on from. Raises CheckpointError for a checkpoint of another recipe or other options."""
    state = load_checkpoint(path)
    for part, now in json.loads(json.dumps(header)).items():
        if difference := _difference(part, state.get(part), now):
            raise CheckpointError(f"{path} is of another run: {difference}")
    if "k" not in state:
        raise CheckpointError(f"{path} holds a model, but no training to go on with: resume a run's checkpoint")
    return state


def _difference(name: str, then: Any, now: Any) -> str | None:
    """The first entry in which two headers differ, in words; the device may differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = (key for key in {**now, **then} if key != "device")
        parts = (_difference(f"{name}.{key}", then.get(key), now.get(key)) for key in keys)
        return next(filter(None, parts), None)
    return None if then == now else f"its {name} is {then}, this run's {now}"


def _folder(name: str, where: RunOptions) -> Path:
    """Where the run lives: where it was, where it was told to, or in a new place."""
    if where.resume is not None:
        return where.resume if where.resume.is_dir() else where.resume.parent
    return where.folder or new_folder(where.runs, name)


def _prepare(folder: Path, name: str, where: RunOptions, state: dict[str, Any] | None, config: dict[str, Any]) -> None:
    """Free the folder of what must not stay, and write down what is run. Raises FileExistsError for a run that stays."""
    if state is None:
        emptied(folder, where.overwrite)
    else:
        shortened(folder, state["k"])
    print(f"{name}: {folder}", file=sys.stderr)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def _bar(name: str, steps: int, state: dict[str, Any] | None, quiet: bool) -> tqdm:
    done = state["k"] if state else 0
    return tqdm(total=steps, initial=done, desc=name, unit="step", disable=quiet or rank() > 0, leave=False)


def _follow(
    steps: Iterator[Step], folder: Path, kept: State, config: TrainConfig, where: RunOptions, stop: Stop, bar: tqdm
) -> Step:
    """Go through the steps, of which there is one at least, log and save them; returns the last one."""
    saved, pace = bar.n, Pace(bar.n)
    try:
        for step in steps:
            bar.update()
            last, logged = step.k == config.steps, step.k % where.log_every == 0
            stopping = any_process(stop.asked, config.device) if logged or world() == 1 else False
            if rank() == 0 and (logged or last or stopping):
                bar.set_postfix(_record(step, folder, config, pace))
            if rank() == 0 and (step.k % where.save_every == 0 or last or stopping):
                saved = _save(folder, step, kept)
            if stopping:
                break
    except Diverged as error:
        stands = f"the checkpoint of step {saved}" if saved else "no checkpoint: none was saved yet"
        raise Diverged(f"{error}; {folder} holds {stands}") from None
    return step


def _record(step: Step, folder: Path, config: TrainConfig, pace: Pace) -> dict[str, str]:
    """Append a line to the log; returns what the bar shows of it."""
    loss = step.loss.item()  # waits for a GPU, so that the pace is that of finished steps
    seconds, rate = pace(step.k, config.batch)
    memory = peak_memory(config.device)
    record: dict[str, Any] = {"k": step.k, "loss": loss, "lr": config.lr_at(step.k - 1), "seconds": round(seconds, 3)}
    record |= {"samples_per_second": round(rate, 1), "peak_memory_mb": memory and round(memory)}
    try:
        with open(folder / "log.jsonl", "a") as log:
            log.write(json.dumps(record) + "\n")
    except OSError as error:
        raise OSError(f"cannot write {folder / 'log.jsonl'} ({error.strerror}): free space") from None
    return {"loss": f"{loss:.4g}", "samples/s": f"{rate:.3g}", "MB": f"{memory or math.nan:.0f}"}


def _save(folder: Path, step: Step, kept: State) -> int:
    """Write the checkpoint, unless a weight is not finite, which on a GPU may not have been seen yet."""
    if not all(p.isfinite().all() for p in step.f.parameters()):
        raise Diverged(f"a weight is not finite after step {step.k}: lower lr, clip, or check the data")
    save_checkpoint(folder / "checkpoint.safetensors", step.state() | kept)
    return step.k
