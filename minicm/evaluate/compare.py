"""Every method on every mixture at one budget of network evaluations: what each reaches, with its spread over seeds."""

from __future__ import annotations

import copy
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.autograd import forward_ad

from minicm.data.mixtures import GaussianMixture, Label, Scale, Time
from minicm.data.named import ExactName
from minicm.denoiser import Denoiser, InClock
from minicm.ema import frozen_copy
from minicm.evaluate.points import against_teacher, evaluate, evaluate_teacher
from minicm.evaluate.rows import Row
from minicm.plots import comparison
from minicm.recipes import points
from minicm.runs.folder import claimed
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


FROM_TEACHER = {
    "CD",
    "sCD",
}  # these distil the learned teacher of the same data and seed, others the exact denoiser


def compare(
    *,
    methods: tuple[str, ...] = tuple(METHODS),
    data: tuple[ExactName, ...] = ("ring", "random", "grid"),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    evaluations: int | None = 6_000_000,
    folder: Path = Path("runs/compare"),
) -> int:
    """Train methods x data x seeds, each for an equal number of network evaluations, and measure the exact error.

    A forward pass of one sample is one evaluation, with its gradient three (minicm/evaluate/compare.py). What is done is
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
    known = {name: Remembered(points.points_named(name)) for name in data}
    tasks = list(dict.fromkeys(_tasks(methods, data, seeds, evaluations)))
    while todo := [task for task in tasks if not task.record(folder).exists()]:
        if not any(_do(task, folder, known[task.data]) for task in todo):
            time.sleep(1)  # all that is left is in the hands of other processes
    records = [json.loads(task.record(folder).read_text()) for task in tasks]
    (folder / "table.md").write_text(comparison_table(records, list(METHODS)) + "\n")
    comparison_figure(records, list(METHODS)).savefig(folder / "compare.png")
    print(comparison_table(records, list(METHODS)))
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


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a comparison, one a finished training."""
    yield from (json.loads(file.read_text()) for file in sorted(folder.glob("*.json")))


def _tasks(
    methods: tuple[str, ...], data: tuple[ExactName, ...], seeds: tuple[int, ...], evaluations: int | None
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


GRADIENT, DERIVATIVE = 3, 2  # passes that a forward pass costs with its backward pass, with its tangent


PROBE = 8  # samples of the one loss that is counted


def cost(recipe: Recipe) -> float:
    """Evaluations of a network for each sample of an update; the recipe is left as it was."""
    model, objective = copy.deepcopy(recipe.model), recipe.objective
    generator = torch.Generator().manual_seed(0)
    x0, label = recipe.data.sample(PROBE, generator)
    target = frozen_copy(model)
    with counted(model, target, *_networks(getattr(objective, "teacher", None))) as count:
        objective(model, target, x0, label, 0, recipe.config.steps, generator)
    return count[0] / PROBE


def steps_within(evaluations: int, recipe: Recipe) -> int:
    """The number of updates that a budget of evaluations allows. Raises ValueError where it is less than one."""
    update = cost(recipe) * recipe.config.batch
    if evaluations < update:
        raise ValueError(f"the budget of {evaluations:,} evaluations is less than one update, {update:,.0f}")
    return int(evaluations / update)


@contextmanager
def counted(*models: Denoiser) -> Iterator[list[float]]:
    """Count what the networks of these models are called for, as the head of this page says."""
    count = [0.0]

    def note(net: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        tangent = forward_ad.unpack_dual(args[0]).tangent is not None
        learning = torch.is_grad_enabled() and any(p.requires_grad for p in net.parameters())
        count[0] += len(out) * (DERIVATIVE if tangent else GRADIENT if learning else 1)

    handles = [model.net.register_forward_hook(note) for model in models]
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()


def _networks(teacher: Any) -> list[Denoiser]:
    """The learned teacher as a model with a .net, or nothing where the teacher is exact or there is none."""
    while isinstance(teacher, InClock):
        teacher = teacher.denoiser
    return [teacher] if isinstance(getattr(teacher, "net", None), nn.Module) else []


Record = dict[str, Any]


BOUND = "regression on f*"  # what the network can hold


COLUMNS = {  # heading -> measure of a student; a teacher's is that of its flow, 40 Heun steps
    "RMSE, 1 step": "1-step RMSE",
    "median, 1 step": "1-step median",
    "2 steps": "2-step median",
    "4 steps": "4-step median",
    "outliers": "1-step outliers",
    "sliced W2": "1-step sliced W2",
    "RMSE to its teacher": "1-step RMSE to the teacher",
}


def comparison_table(records: list[Record], methods: list[str]) -> str:
    """Mean ± standard deviation over seeds of each method on each mixture, under the floor of exact samples."""
    lines = [
        "| data | method | seeds | steps x batch | evaluations | s | " + " | ".join(COLUMNS) + " |",
        "|---|---|---:|---:|---:|---:|" + "---:|" * len(COLUMNS),
    ]
    for data in dict.fromkeys(record["data"] for record in records):
        lines.append(_floor(data, [record for record in records if record["data"] == data]))
        for method in methods:
            group = [r for r in records if r["data"] == data and r["method"] == method]
            if group:
                lines.append(_line(data, method, group))
    return "\n".join(lines)


def comparison_figure(records: list[Record], methods: list[str]) -> Figure:
    """The one-, two- and four-step median errors of all methods on all mixtures, every seed."""
    errors: dict[str, dict[str, dict[int, list[float]]]] = {}
    floors: dict[str, float] = {}
    for data in dict.fromkeys(record["data"] for record in records):
        for method in methods:
            group = [r for r in records if r["data"] == data and r["method"] == method]
            if group and method != "teacher":
                values = {n: [r["rows"][f"{n}-step median"] for r in group] for n in (1, 2, 4)}
                errors.setdefault(data, {})[method] = values
            elif group:
                floors[data] = group[0]["floors"]["Heun-40 median"]
    return comparison(errors, bound=BOUND, floors=floors)


def _line(data: str, method: str, group: list[Record]) -> str:
    first, seconds = group[0], statistics.mean(record["seconds"] for record in group)
    spent = first["steps"] * first["batch"] * first["cost"] / 1e6
    start = (
        f"| {data} | {method} | {len(group)} | {first['steps']} x {first['batch']} | {spent:.1f} M | {seconds:.0f} | "
    )
    return start + " | ".join(_cells(method, group)) + " |"


def _cells(method: str, group: list[Record]) -> Iterator[str]:
    for name in COLUMNS.values():
        name = name.replace("1-step", "Heun-40") if method == "teacher" else name
        values = [record["rows"][name] for record in group if name in record["rows"]]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        yield f"{statistics.mean(values):.3f}{spread}" if values else ""


def _floor(data: str, group: list[Record]) -> str:
    """The row of exact samples; paired, they have no error at all."""
    floors: dict[str, float] = {}
    for record in group:
        floors |= record["floors"]
    cells = (f"{floors[name]:.3f}" if name in floors else "" for name in COLUMNS.values())
    return f"| {data} | exact f* | | | | | " + " | ".join(cells) + " |"
