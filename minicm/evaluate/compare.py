"""Every method on every mixture at one budget of network evaluations: what each reaches, with its spread over seeds."""

import json
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicm.data.mixtures import GaussianMixture, Label, Scale, Time
from minicm.data.named import ExactName, points_named
from minicm.evaluate.budget import cost, steps_within
from minicm.evaluate.points import against_teacher, evaluate, evaluate_teacher
from minicm.metrics.rows import Row, markdown, mean_and_deviation
from minicm.plots import comparison
from minicm.recipes import points
from minicm.runs.folder import alone
from minicm.runs.run import Recipe, RunOptions, run
from minicm.schedules import EDM, Schedule

METHODS: dict[str, Callable[..., Recipe]] = {
    "teacher": points.mixture_teacher,
    "regression on f*": points.mixture_regression,
    "CD exact": points.mixture_cd,
    "CD": points.mixture_cd,
    "CD published": points.mixture_cd_published,
    "sCD exact": points.mixture_scd,
    "sCD": points.mixture_scd,
    "TCD exact": points.mixture_tcd,
    "CT": points.mixture_ct,
    "CT published": points.mixture_ct_published,
    "iCT": points.mixture_ict,
    "ECT": points.mixture_ect,
    "sCT": points.mixture_sct,
}
FROM_TEACHER = {"CD", "sCD"}  # these distil the learned teacher of the same data and seed, others the exact denoiser
BOUND = "regression on f*"  # no method, but what the network can hold
COLUMNS = {  # heading -> measure of a student; a teacher's is that of its flow, 40 Heun steps
    "RMSE, 1 step": "1-step RMSE",
    "median, 1 step": "1-step median",
    "2 steps": "2-step median",
    "4 steps": "4-step median",
    "outliers": "1-step outliers",
    "sliced W2": "1-step sliced W2",
    "RMSE to its teacher": "1-step RMSE to the teacher",
}
Record = dict[str, Any]


def compare(
    *,
    methods: tuple[str, ...] = tuple(METHODS),
    data: tuple[ExactName, ...] = ("ring", "random", "grid"),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    evaluations: int | None = 6_000_000,
    folder: Path = Path("runs/compare"),
    also: tuple[Path, ...] | None = None,
) -> int:
    """Train methods x data x seeds, each for an equal number of network evaluations, and measure the exact error.

    A forward pass of one sample is one evaluation, with its gradient three (minicm/evaluate/budget.py). What is done is
    kept in FOLDER and not done again, so an interrupted comparison goes on. Several processes take a folder each, with
    seeds of their own; ALSO names the folders of the others, whose results the table holds, too. At the end the table of
    all trainings with this budget is printed and left in FOLDER, with a figure.

    Args:
        methods: which methods; "CD exact" and others distil the true denoiser, "CD" and "sCD" the teacher of the same seed
        data: which mixtures
        seeds: of weights, data and noise
        evaluations: of a network, by each training; None for every recipe's own number of steps
        folder: where results and runs are kept, by one process at a time
        also: folders of other comparisons to show in the table, if there are any
    """
    if unknown := set(methods) - set(METHODS):
        raise ValueError(f"unknown methods {sorted(unknown)}: choose from {', '.join(METHODS)}")
    if not (methods and data and seeds):
        raise ValueError("nothing to compare: methods, data and seeds need at least one each")
    exact = {name: Remembered(points_named(name)) for name in data}
    with alone(folder):
        for task in _tasks(methods, data, seeds, evaluations):
            if not task.record(folder).exists():
                _do(task, folder, exact[task.data])
    found = [record for record in read(folder, *(also or ())) if record["evaluations"] == evaluations]
    records = [record for name in data for record in found if record["data"] == name]
    table = comparison_table(records, list(METHODS))
    (folder / "table.md").write_text(table + "\n")
    comparison_figure(records, list(METHODS)).savefig(folder / "compare.png")
    print(table)
    return 0


class Task(NamedTuple):
    """One training of a comparison."""

    method: str
    data: ExactName
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


def read(*folders: Path) -> Iterator[Record]:
    """The records of some comparisons, one a finished training; of two of the same training, the first."""
    files = {file.name: file for folder in reversed(folders) for file in sorted(folder.glob("*.json"))}
    yield from (json.loads(files[name].read_text()) for name in sorted(files))


def _tasks(
    methods: tuple[str, ...], data: tuple[ExactName, ...], seeds: tuple[int, ...], evaluations: int | None
) -> Iterator[Task]:
    """Seed by seed, so that one cut short compares all methods; a teacher before its students."""
    for seed in seeds:
        for name in data:
            for method in (*(["teacher"] if FROM_TEACHER & set(methods) else []), *methods):
                yield Task(method, name, seed, evaluations)


def _do(task: Task, folder: Path, exact: GaussianMixture) -> None:
    """One training, its measures and its record. Raises KeyboardInterrupt, and leaves none, where it was stopped."""
    make = METHODS[task.method]
    config = replace(signature(make).parameters["config"].default, seed=task.seed)
    options: dict[str, Any] = {"data": task.data, "config": config}
    if task.method in FROM_TEACHER:
        options["teacher"] = task._replace(method="teacher").folder(folder)
    recipe = make(**options)
    if task.evaluations is not None:
        options["config"] = replace(config, steps=steps_within(task.evaluations, recipe))
        recipe = make(**options)
    steps = recipe.config.steps
    where = RunOptions(folder=task.folder(folder), overwrite=True, save_every=steps)
    done = run(f"compare-{task.slug}", recipe, options, where)
    if done.k < steps:
        raise KeyboardInterrupt
    rows = _measure(task.method, done.ema, recipe, exact)
    record = task._asdict() | {"steps": steps, "batch": config.batch, "cost": cost(recipe)}
    record |= {"seconds": round(done.seconds, 1), "threads": torch.get_num_threads()}
    record["rows"] = {row.name: row.value for row in rows}
    record["floors"] = {row.name: row.floor for row in rows if row.floor is not None}
    unfinished = task.record(folder).with_suffix(".part")
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(unfinished, task.record(folder))


def _measure(method: str, f: Any, recipe: Recipe, exact: GaussianMixture) -> list[Row]:
    if method == "teacher":
        return evaluate_teacher(f, exact)
    rows = evaluate(f, exact)
    if method in FROM_TEACHER:
        objective: Any = recipe.objective  # one that distils, and so has a teacher
        rows += against_teacher(f, objective.teacher)
    return rows


# ---------------------------------------------------------------------------------- what is reported
def comparison_table(records: list[Record], methods: list[str]) -> str:
    """Mean ± standard deviation over seeds of each method on each mixture, under the floor of exact samples."""
    lines = []
    for data, groups in _grouped(records, methods):
        floors = {
            name: value for record in records if record["data"] == data for name, value in record["floors"].items()
        }
        best = (f"{floors[name]:.3f}" if name in floors else "" for name in COLUMNS.values())
        lines.append([data, "exact f*", "", "", "", "", *best])
        lines += [[data, method, *_cells(method, group)] for method, group in groups.items()]
    return markdown(("data", "method", "seeds", "steps x batch", "evaluations", "s", *COLUMNS), lines, left=2)


def comparison_figure(records: list[Record], methods: list[str]) -> Figure:
    """The one-, two- and four-step median errors of all methods on all mixtures, every seed."""
    errors: dict[str, dict[str, dict[int, list[float]]]] = {}
    floors: dict[str, float] = {}
    for data, groups in _grouped(records, methods):
        if teachers := groups.pop("teacher", []):
            floors[data] = teachers[0]["floors"]["Heun-40 median"]
        errors[data] = {
            method: {n: [record["rows"][f"{n}-step median"] for record in group] for n in (1, 2, 4)}
            for method, group in groups.items()
        }
    return comparison(errors, bound=BOUND, floors=floors)


def _grouped(records: list[Record], methods: list[str]) -> Iterator[tuple[str, dict[str, list[Record]]]]:
    """For each mixture the records of each method that has any, in the order of `methods`."""
    for data in dict.fromkeys(record["data"] for record in records):
        groups = {m: [r for r in records if (r["data"], r["method"]) == (data, m)] for m in methods}
        yield data, {method: group for method, group in groups.items() if group}


def _cells(method: str, group: list[Record]) -> Iterator[str]:
    first = group[0]
    yield str(len(group))
    yield f"{first['steps']} x {first['batch']}"
    yield f"{first['steps'] * first['batch'] * first['cost'] / 1e6:.1f} M"
    yield f"{statistics.mean(record['seconds'] for record in group):.0f}"
    for name in COLUMNS.values():
        name = name.replace("1-step", "Heun-40") if method == "teacher" else name
        yield mean_and_deviation([record["rows"][name] for record in group if name in record["rows"]])
