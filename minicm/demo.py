"""The demonstration: a teacher, its distillation and training from data alone, each held against the exact answer."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from minicm import plots
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.evaluate.points import against_teacher, evaluate, evaluate_teacher
from minicm.evaluate.rows import table, with_bands
from minicm.metrics import Row, consistency_error
from minicm.recipes.points import mixture_cd, mixture_ct, mixture_teacher
from minicm.runs.folder import new_folder
from minicm.runs.run import Recipe, RunOptions, run
from minicm.sampling import LEVELS, sampling_times
from minicm.train import TrainConfig

TEACHER = TrainConfig(steps=2500, batch=1024, lr=2e-3)
STUDENTS = TrainConfig(steps=4000, batch=512, lr=2e-3)
INTRO = """# A consistency model beside the exact answer

Data: eight Gaussians on a ring, so that the probability-flow ODE, and with it the true consistency function f*, is known.
A paired error compares f with f* for the same noise, per dimension and in units of the data's standard deviation: 0 is
perfect, 1 is as wrong as the data are wide. *floor* is what exact samples score (or, for the teacher, what the 40-step solver alone
misses); *expect* is the range of five healthy seeds.
"""


def demo(*, fast: bool = False, runs: Path = Path("runs"), seed: int = 0, quiet: bool = False) -> Path:
    """Train a teacher, distil it (CD) and train on data alone (CT) on the ring of eight; leave a report and figures.

    Args:
        fast: a smoke test of a few seconds; its numbers mean nothing
        runs: folder of all runs; the demo takes runs/demo-NNN, the next number that is free
        seed: of weights, data and noise
        quiet: no progress bars
    """
    torch.set_num_threads(1)  # these networks are too small for more, and on a busy machine more would stall
    started, scale = time.perf_counter(), 50 if fast else 1
    teaching, learning = (replace(config, steps=config.steps // scale, seed=seed) for config in (TEACHER, STUDENTS))
    folder = new_folder(runs, "demo")
    print(f"demo: {folder}", file=sys.stderr)
    models = {
        "teacher": trained(mixture_teacher, folder / "teacher", quiet, config=teaching),
        "CD": trained(mixture_cd, folder / "cd", quiet, config=learning, teacher=folder / "teacher"),
        "CT": trained(mixture_ct, folder / "ct", quiet, config=learning),
    }
    rows = measure(models, n=500 if fast else 4000)
    rows = {name: part if fast else with_bands(f"demo {name}", part) for name, part in rows.items()}
    draw(models, folder, fast)
    report(rows, folder, time.perf_counter() - started)
    print((folder / "report.md").read_text().partition("![")[0].strip() + "\n")
    return folder


def trained(recipe: Callable[..., Recipe], folder: Path, quiet: bool, **options: Any) -> Denoiser:
    """The average of a run. Raises KeyboardInterrupt where it was stopped."""
    where = RunOptions(folder=folder, quiet=quiet)
    done = run(recipe.__name__.replace("_", "-"), recipe(**options), options, where)
    if done.k < options["config"].steps:
        kept = f"what is trained so far stays in {folder.parent}, a new demo starts afresh"
        print(f"demo: stopped; {kept}", file=sys.stderr)
        raise KeyboardInterrupt
    return done.ema


def measure(models: dict[str, Denoiser], n: int) -> dict[str, list[Row]]:
    """All numbers of the report."""
    data, teacher = GaussianMixture.ring(), models["teacher"]
    return {
        "teacher": evaluate_teacher(teacher, data, n=n // 2),
        "CD": evaluate(models["CD"], data, n=n) + against_teacher(models["CD"], teacher, n=n // 2),
        "CT": evaluate(models["CT"], data, n=n),
    }


def draw(models: dict[str, Denoiser], folder: Path, fast: bool) -> None:
    """All figures, as PNG files in folder/figures."""
    data, students = GaussianMixture.ring(), {name: models[name] for name in ("CD", "CT")}
    generator = torch.Generator().manual_seed(0)
    errors = {name: consistency_error(f, data, n=200 if fast else 1000) for name, f in students.items()}
    times = {steps: sampling_times(models["CD"].schedule, steps).tolist() for steps in LEVELS}
    figures: dict[str, Figure] = {
        "trajectories": plots.trajectories(data, students, generator=generator),
        "noise_map": plots.noise_map(data, students, resolution=30 if fast else 70),
        "samples": plots.samples(data, students, times=times, n=500 if fast else 2000, generator=generator),
        "error_against_time": plots.error_against_time(errors),
        "boundary": plots.boundary(data, students, generator=generator),
        "losses": plots.losses({name: _losses(folder / name.lower()) for name in models}),
        "curricula": plots.curricula(),
    }
    (folder / "figures").mkdir(exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=120)


def report(rows: dict[str, list[Row]], folder: Path, seconds: float) -> None:
    """Write report.md and report.json."""
    took = f"Took {seconds:.0f} s on {torch.get_num_threads()} threads, torch {torch.__version__}.\n"
    parts = [INTRO, took, *(f"## {name}\n\n{table(part)}\n" for name, part in rows.items())]
    for figure in sorted((folder / "figures").glob("*.png")):
        parts.append(f"![{figure.stem.replace('_', ' ')}](figures/{figure.name})\n")
    (folder / "report.md").write_text("\n".join(parts))
    numbers = {name: [asdict(row) for row in part] for name, part in rows.items()}
    (folder / "report.json").write_text(json.dumps({"seconds": seconds, "rows": numbers}, indent=1) + "\n")


def _losses(folder: Path) -> tuple[list[int], list[float]]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record["k"] for record in records], [record["loss"] for record in records]
