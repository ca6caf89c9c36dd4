"""The digits' part of docs/results.md: a table of finished runs, and figures of one student beside its teacher.

    python -m docs.studies.digits table runs/digits-teacher-001 runs/digits-cd-001 ...
    python -m docs.studies.digits figures runs/digits-cd-001 docs/figures

The table's first run is the teacher of all others in pixels: Frechet distances are given as multiples of its own, too.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.figure import Figure

from minicm.checkpoint import load_model, load_trained
from minicm.data.digits import Digits
from minicm.evaluate.pictures import few_steps, many_steps
from minicm.evaluate.trained import evaluate_trained
from minicm.metrics.consistency import time_grid
from minicm.metrics.rows import Row, markdown
from minicm.plots.images import along_a_trajectory, edited, few_step_samples, interpolated, nearest_training
from minicm.sampling import LEVELS

MEASURES = ("class Frechet", "label agreement", "precision", "recall", "classifier sure", "nearest", "copied")
HEUN = 40  # steps of the teacher


def evaluated(folder: Path) -> list[Row]:
    """A run's measures, from evaluation.json beside its checkpoint, which is written unless it is newer than that."""
    kept, checkpoint = folder / "evaluation.json", folder / "checkpoint.safetensors"
    if not kept.exists() or kept.stat().st_mtime < checkpoint.stat().st_mtime:
        kept.write_text(json.dumps([asdict(row) for row in measured(folder)], indent=1) + "\n")
    return [Row(**row) for row in json.loads(kept.read_text())]


def measured(folder: Path) -> list[Row]:
    """All measures of a run."""
    return evaluate_trained(load_trained(folder))


def by_sampling(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """Rows such as "w = 1, 2-step precision" as {"w = 1, 2-step": {"precision": row}}."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        for measure in MEASURES:
            if row.name.endswith(f" {measure}"):
                found.setdefault(row.name.removesuffix(f" {measure}"), {})[measure] = row
    return found


def table(folders: list[Path]) -> str:
    """A Markdown table: a line for each run and way of sampling, under the floors."""
    runs = {folder: by_sampling(evaluated(folder)) for folder in folders}
    first = next(iter(runs[folders[0]].values()))
    unit = first["class Frechet"].value
    rows = [["*held-out digits*", "", "", *cells({name: row.floor or 0.0 for name, row in first.items()}, unit)]]
    for folder, samplings in runs.items():
        header = load_trained(folder).header
        name, config = header["recipe"], header["config"]
        for sampling, measures in samplings.items():
            values = cells({measure: row.value for measure, row in measures.items()}, unit)
            rows.append([name, f"{config['steps']} x {config['batch']}", sampling, *values])
            name = ""
    return markdown(("recipe", "steps x batch", "sampling", "x teacher", *MEASURES), rows, left=3)


def cells(values: dict[str, float], unit: float) -> list[str]:
    """The Frechet distance in units of the teacher's, and then all measures."""
    return [f"{values['class Frechet'] / unit:.2f}", *(f"{values[name]:.3g}" for name in MEASURES)]


def figures(folder: Path) -> dict[str, Figure]:
    """The figures of a student in pixels, by the name of their file; its teacher is the one that its run names."""
    student = load_trained(folder)
    f, teacher = student.model, load_model(student.header["options"]["teacher"])
    train, test = Digits(), Digits(train=False)
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(15) % 10
    x_T = f.schedule.prior((15, 1, 8, 8), generator)
    samples = {steps: few_steps(f, x_T, label, steps) for steps in LEVELS}
    y, c = test.images[:12], test.labels[:12]
    times = time_grid(f.schedule, HEUN).flip(0)
    pair = [f.schedule.prior((4, 1, 8, 8), generator) for _ in range(2)]
    return {
        "digits_few_steps": few_step_samples(
            samples,
            many_steps(teacher, x_T, label, steps=HEUN),
            label,
            "Digits from the same noise, one column each",
        ),
        "digits_trajectory": along_a_trajectory(f, teacher, x_T[3:4], times, label=label[3:4]),
        "digits_nearest": nearest_training(samples[1], train.images),
        "digits_editing": edited(f, y, times[::2], label=c, generator=generator),
        "digits_interpolated": interpolated(f, *pair, label=torch.tensor([0, 3, 4, 8])),
    }


def main(arguments: list[str]) -> None:
    """`table` prints, `figures` writes .png files."""
    torch.set_num_threads(1)
    what, *paths = arguments
    if what == "table":
        print(table([Path(path) for path in paths]))
    else:
        for name, figure in figures(Path(paths[0])).items():
            figure.savefig(Path(paths[1]) / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
