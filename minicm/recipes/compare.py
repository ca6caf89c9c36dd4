"""Many recipes, data sets and seeds, one table: what each method reaches, with its spread over seeds."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from minicm.recipes import family, mixtures
from minicm.recipes.evaluate import Row, against_teacher, evaluate, evaluate_teacher
from minicm.recipes.mixtures import DataName
from minicm.recipes.run import Recipe, RunOptions, run

METHODS: dict[str, Callable[..., Recipe]] = {
    "teacher": mixtures.mixture_teacher,
    "CD exact": mixtures.mixture_cd,
    "CD": mixtures.mixture_cd,
    "CT": mixtures.mixture_ct,
    "iCT": family.mixture_ict,
    "ECT": family.mixture_ect,
    "sCT": family.mixture_sct,
    "sCD exact": family.mixture_scd,
    "CD published": mixtures.mixture_cd_published,
    "CT published": mixtures.mixture_ct_published,
}
FROM_TEACHER = {
    "CD"
}  # these distil the learned teacher of the same data and seed; "exact" ones the true denoiser


def compare(
    *,
    methods: tuple[str, ...] = tuple(METHODS),
    data: tuple[DataName, ...] = ("ring",),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    share: float = 1.0,
    folder: Path = Path("runs/compare"),
) -> int:
    """Train methods x data x seeds, measure each against the exact answer, and print the table.

    What is done already is kept in FOLDER/results.jsonl and not done again, so an interrupted comparison goes on, and
    several processes with different seeds may share a folder.

    Args:
        methods: which methods; "CD exact" distils the true denoiser, "CD" the teacher of the same seed
        data: which mixtures
        seeds: of weights, data and noise
        share: share of each recipe's steps, for a quick look
        folder: where results and teachers are kept
    """
    unknown = set(methods) - set(METHODS)
    if unknown:
        raise ValueError(f"unknown methods {sorted(unknown)}: choose from {', '.join(METHODS)}")
    for name in data:
        for seed in seeds:
            needed = [*(["teacher"] if FROM_TEACHER & set(methods) else []), *methods]
            for method in dict.fromkeys(needed):
                if not any(_same(record, method, name, seed, share) for record in read(folder)):
                    _train(method, name, seed, share, folder)
    print(table(list(read(folder))))
    return 0


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a comparison, one a finished training."""
    file = folder / "results.jsonl"
    if file.exists():
        yield from map(json.loads, file.read_text().splitlines())


def table(records: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over seeds of the main measures, as a Markdown table."""
    measures = ("1-step RMSE", "1-step median", "1-step outliers", "2-step median", "4-step median")
    lines = ["| data | method | seeds | steps x batch | s | " + " | ".join(measures) + " | to the teacher |"]
    lines.append("|---|---|---:|---:|---:|" + "---:|" * (len(measures) + 1))
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["data"], record["method"]), []).append(record)
    for (data, method), group in groups.items():
        seconds = statistics.mean(record["seconds"] for record in group)
        size = f"{group[0]['steps']} x {group[0]['batch']}"
        names = [m.replace("1-step", "Heun-40") if method == "teacher" else m for m in measures]
        cells = [_cell(group, name) for name in (*names, "1-step RMSE to the teacher")]
        lines.append(
            f"| {data} | {method} | {len(group)} | {size} | {seconds:.0f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def _cell(group: list[dict[str, Any]], name: str) -> str:
    values = [record["rows"][name] for record in group if name in record["rows"]]
    if not values:
        return ""
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def _same(record: dict[str, Any], method: str, data: str, seed: int, share: float) -> bool:
    return (record["method"], record["data"], record["seed"], record["share"]) == (method, data, seed, share)


def _train(method: str, data: DataName, seed: int, share: float, folder: Path) -> None:
    """One training, its measures, and a line in results.jsonl."""
    make = METHODS[method]
    default = signature(make).parameters["config"].default
    config = replace(default, steps=max(1, round(default.steps * share)), seed=seed)
    teacher = folder / f"teacher-{data}-{seed}-{share:g}"
    options: dict[str, Any] = {"data": data, "config": config}
    if method in FROM_TEACHER:
        options["teacher"] = teacher
    recipe = make(**options)
    slug = method.replace(" ", "-")
    where = teacher if method == "teacher" else folder / f"{slug}-{data}-{seed}-{share:g}"
    rate = matmul_rate()
    done = run(
        f"compare {method}", recipe, options, RunOptions(folder=where, overwrite=True, save_every=10**9)
    )
    rows = _measure(method, done.ema, recipe)
    record = {
        "method": method,
        "data": data,
        "seed": seed,
        "share": share,
        "steps": config.steps,
        "batch": config.batch,
        "seconds": round(done.seconds, 1),
        "matmul_gflops": round(rate, 1),
        "threads": torch.get_num_threads(),
        "rows": {row.name: row.value for row in rows},
    }
    with open(folder / "results.jsonl", "a") as file:
        file.write(json.dumps(record) + "\n")


def _measure(method: str, f: Any, recipe: Recipe) -> list[Row]:
    if method == "teacher":
        return evaluate_teacher(f, recipe.data)
    rows = evaluate(f, recipe.data)
    if method in FROM_TEACHER:
        rows += against_teacher(f, recipe.objective.teacher)  # type: ignore[operator]
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
