"""Every method on every mixture at one budget of network evaluations: what each reaches, with its spread over seeds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minicm.data.mixtures import GaussianMixture, Label, Scale, Time
from minicm.recipes import family, mixtures, trajectory, upper_bound
from minicm.recipes.budget import cost, steps_within
from minicm.recipes.evaluate import Row, against_teacher, evaluate, evaluate_teacher
from minicm.recipes.folder import claimed
from minicm.recipes.report import figure, table
from minicm.recipes.run import Recipe, RunOptions, run
from minicm.recipes.trajectory import MixtureName
from minicm.schedules import EDM, Schedule

METHODS: dict[str, Callable[..., Recipe]] = {
    "teacher": mixtures.mixture_teacher,
    "regression on f*": upper_bound.mixture_regression,
    "CD exact": mixtures.mixture_cd,
    "CD": mixtures.mixture_cd,
    "CD published": mixtures.mixture_cd_published,
    "sCD exact": family.mixture_scd,
    "sCD": family.mixture_scd,
    "TCD exact": trajectory.mixture_tcd,
    "CT": mixtures.mixture_ct,
    "CT published": mixtures.mixture_ct_published,
    "iCT": family.mixture_ict,
    "ECT": family.mixture_ect,
    "sCT": family.mixture_sct,
}
FROM_TEACHER = {
    "CD",
    "sCD",
}  # these distil the learned teacher of the same data and seed, others the exact denoiser


def compare(
    *,
    methods: tuple[str, ...] = tuple(METHODS),
    data: tuple[MixtureName, ...] = ("ring", "random", "grid"),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    evaluations: int | None = 6_000_000,
    folder: Path = Path("runs/compare"),
) -> int:
    """Train methods x data x seeds, each for an equal number of network evaluations, and measure the exact error.

    A forward pass of one sample is one evaluation, with its gradient three (minicm/recipes/budget.py). What is done is
    kept in FOLDER and not done again, so an interrupted comparison goes on, and several processes may share a folder.
    At the end a table is printed and left there, with a figure.

    Args:
        methods: which methods; "CD exact" and others distil the true denoiser, "CD" and "sCD" the teacher of the same seed
        data: which mixtures
        seeds: of weights, data and noise
        evaluations: of a network, by each training; None for every recipe's own number of steps
        folder: where results and runs are kept
    """
    if unknown := set(methods) - set(METHODS):
        raise ValueError(f"unknown methods {sorted(unknown)}: choose from {', '.join(METHODS)}")
    if not (methods and data and seeds):
        raise ValueError("nothing to compare: methods, data and seeds need at least one each")
    known = {name: Remembered(mixtures.points_named(name)) for name in data}
    tasks = list(dict.fromkeys(_tasks(methods, data, seeds, evaluations)))
    while todo := [task for task in tasks if not task.record(folder).exists()]:
        if not any(_do(task, folder, known[task.data]) for task in todo):
            time.sleep(1)  # all that is left is in the hands of other processes
    records = [json.loads(task.record(folder).read_text()) for task in tasks]
    (folder / "table.md").write_text(table(records, list(METHODS)) + "\n")
    figure(records, list(METHODS)).savefig(folder / "compare.png")
    print(table(records, list(METHODS)))
    return 0


class Task(NamedTuple):
    """One training of a comparison."""

    method: str
    data: MixtureName
    seed: int
    evaluations: int | None  # its budget; None for the recipe's own steps

    @property
    def slug(self) -> str:
        """The method as a name of files and runs."""
        return self.method.replace(" ", "-").replace("*", "")

    def folder(self, parent: Path) -> Path:
        """The folder of its run; a name that says all of the task."""
        return parent / f"{self.slug}-{self.data}-{self.seed}-{self.evaluations or 'own'}"

    def record(self, parent: Path) -> Path:
        """The file of its result, there once it is done."""
        return self.folder(parent).with_suffix(".json")


class Remembered(GaussianMixture):
    """A mixture that solves no flow twice: the truths are the same for all methods and seeds of a comparison."""

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__(mixture.means, mixture.covs, mixture.weights, mixture.labels)
        self.answers: dict[tuple, Tensor] = {}

    def flow(
        self, x: Tensor, t: Time, s: Time, schedule: Schedule = EDM(), label: Label = None, w: Scale = None
    ) -> Tensor:
        parts = (x, t, s, label, w)
        key = (schedule, x.dtype, *(p.numpy().tobytes() if isinstance(p, Tensor) else p for p in parts))
        if key not in self.answers:
            self.answers[key] = super().flow(x, t, s, schedule, label, w)
        return self.answers[key]


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a comparison, one a finished training."""
    yield from (json.loads(file.read_text()) for file in sorted(folder.glob("*.json")))


def _tasks(
    methods: tuple[str, ...], data: tuple[MixtureName, ...], seeds: tuple[int, ...], evaluations: int | None
) -> Iterator[Task]:
    """Seed by seed, so that one cut short compares all methods; a teacher before its students."""
    for seed in seeds:
        for name in data:
            for method in (*(["teacher"] if FROM_TEACHER & set(methods) else []), *methods):
                yield Task(method, name, seed, evaluations)


def _do(task: Task, folder: Path, exact: GaussianMixture) -> bool:
    """Do a task, unless it is done, another process is at it, or its teacher is not there yet; whether it was done."""
    teacher = task._replace(method="teacher")
    if task.method in FROM_TEACHER and not teacher.record(folder).exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(task.folder(folder).with_suffix(".lock")) as mine:
        if not mine or task.record(folder).exists():
            return False
        record = _train(task, folder, teacher.folder(folder), exact)
        unfinished = task.record(folder).with_suffix(".part")
        unfinished.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(unfinished, task.record(folder))
    return True


def _train(task: Task, folder: Path, teacher: Path, exact: GaussianMixture) -> dict[str, Any]:
    """One training and its measures. Raises KeyboardInterrupt where it was stopped."""
    make = METHODS[task.method]
    config = replace(signature(make).parameters["config"].default, seed=task.seed)
    options: dict[str, Any] = {"data": task.data, "config": config}
    options |= {"teacher": teacher} if task.method in FROM_TEACHER else {}
    recipe = make(**options)
    if task.evaluations is not None:
        options["config"] = replace(config, steps=steps_within(task.evaluations, recipe))
        recipe = make(**options)
    rate, steps = matmul_rate(), recipe.config.steps
    where = RunOptions(folder=task.folder(folder), overwrite=True, save_every=steps)
    done = run(f"compare-{task.slug}", recipe, options, where)
    if done.k < steps:
        raise KeyboardInterrupt
    rows = _measure(task.method, done.ema, recipe, exact)
    return task._asdict() | {
        "steps": steps,
        "batch": config.batch,
        "cost": cost(recipe),
        "seconds": round(done.seconds, 1),
        "matmul_gflops": round(rate, 1),
        "threads": torch.get_num_threads(),
        "rows": {row.name: row.value for row in rows},
        "floors": {row.name: row.floor for row in rows if row.floor is not None},
    }


def _measure(method: str, f: Any, recipe: Recipe, exact: GaussianMixture) -> list[Row]:
    if method == "teacher":
        return evaluate_teacher(f, exact)
    rows = evaluate(f, exact)
    if method in FROM_TEACHER:
        objective: Any = recipe.objective  # one that distils, and so has a teacher
        rows += against_teacher(f, objective.teacher)
    return rows


def matmul_rate(seconds: float = 0.3) -> float:
    """GFLOP/s of a float32 product (1024, 128) x (128, 128), the shape that the 2-D networks spend their time in."""
    a, b = torch.randn(1024, 128), torch.randn(128, 128)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(20):
            a @ b
        count += 20
    return count * 2 * a.shape[0] * b.numel() / (time.perf_counter() - start) / 1e9
