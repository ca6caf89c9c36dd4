"""How a comparison is read: its records as a Markdown table and as a figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure

from minicm.plots import comparison

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


def table(records: list[Record], methods: list[str]) -> str:
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


def figure(records: list[Record], methods: list[str]) -> Figure:
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
    start = f"| {data} | {method} | {len(group)} | {first['steps']} x {first['batch']} | {spent:.1f} M | {seconds:.0f} | "
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
