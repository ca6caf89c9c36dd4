"""One command, one GPU, one budget: train on CIFAR-10, measure, draw, and leave weights small enough to carry away.

    python -m minicm.cifar10_run teacher --data data --budget 8min --out out/teacher
    python -m minicm.cifar10_run cd  --teacher out/teacher/weights.safetensors --data data --budget 6min --out out/cd
    python -m minicm.cifar10_run ect --teacher out/teacher/weights.safetensors --data data --budget 6min --out out/ect

It needs no `minicm` command and none of its libraries. The steps are chosen to fit: a short trial measures how fast they
are here, so that the learning rate and the curricula reach their ends, K, just before the budget does. --fast goes the
whole way on a processor in a minute, with a network and numbers that mean nothing.

OUT holds weights.safetensors (the average in bf16), record.json (all numbers, the settings, the log) and figures; the
resumable checkpoint stays in the run's own folder under --runs.
"""

import argparse
import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from minicm.checkpoint import export, load_model
from minicm.data.cifar10 import CLASSES
from minicm.denoiser import Denoiser
from minicm.evaluate import pictures
from minicm.evaluate.rows import Row, table
from minicm.metrics.consistency import time_grid
from minicm.metrics.images import Reference
from minicm.plots.images import along_a_trajectory, nearest_training, picture_rows
from minicm.recipes import RECIPES
from minicm.recipes.cifar10 import Size, Source
from minicm.runs.folder import machine, peak_memory, seconds_of
from minicm.runs.run import Finished, Recipe, RunOptions, plain, run
from minicm.sampling import LEVELS
from minicm.train import Diverged, TrainConfig, device_named, train

METHODS = ("teacher", "cd", "ct", "ect")  # of the recipes cifar10-...
SHARE = 0.93  # of the time that is left, planned for steps: a machine may become slower
SHAPE = (3, 32, 32)  # of a picture
SEED = 7  # of the noise that is drawn for figures
ROWS = 6  # of a teacher's sheet


@dataclass(frozen=True)
class Scale:
    """How much is done besides training."""

    size: Size = field(default_factory=Size)
    batch: int | None = None  # None: the recipe's
    samples: int = 4000  # pictures that are measured
    pairs: int = 500  # of student and teacher from the same noise
    classifier: int = 3000  # its updates
    trial: int = 20  # steps that the pace is taken from
    reserve: float = 80.0  # seconds kept for measures and figures


FAST = Scale(Size(8, (1, 2), 1, ()), batch=8, samples=16, pairs=4, classifier=2, trial=2, reserve=5.0)


@dataclass(frozen=True)
class Job:
    """What is asked for; the options of the command line."""

    method: str
    data: Path
    out: Path
    teacher: Path | None = None
    budget: str = "8min"
    runs: Path = Path("runs")
    device: str = "cpu"
    compiled: bool = False
    about: str = "CIFAR-10"
    fast: bool = False

    def __post_init__(self) -> None:
        seconds_of(self.budget)
        device_named(self.device)
        if self.out.exists():
            raise FileExistsError(f"{self.out} exists: choose another --out")
        if (self.method in ("cd", "ect")) != (self.teacher is not None):
            article = "a" if self.teacher is None else "no"
            raise ValueError(f"{self.method} starts from {article} teacher: see --teacher")

    @property
    def scale(self) -> Scale:
        """How large everything is: small in a trial run."""
        return FAST if self.fast else Scale()

    @property
    def gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return torch.device(self.device).type == "cuda"

    def model(self, path: Path) -> Denoiser:
        """A model on the job's device, in bfloat16 on a GPU, as it was trained."""
        model = load_model(path)
        model.autocast = torch.bfloat16 if self.gpu else None
        return model.to(self.device)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and say what is wrong in one line; 0, 2 for wrong input, or 1 for a run that diverged."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m minicm.cifar10_run", description=about)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds cifar-10-batches-bin")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for weights, record and figures")
    parser.add_argument("--teacher", type=Path, help="a teacher's weights, run folder or checkpoint")
    parser.add_argument("--budget", default="8min", help="for everything, from start to end: 90s, 8min, 1h")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", dest="compiled", action="store_false", help="train without torch.compile")
    parser.add_argument("--about", default="CIFAR-10", help="the pictures, for titles and the record")
    parser.add_argument("--fast", action="store_true", help="a smoke test; its numbers mean nothing")
    try:
        rows, said = cifar10_run(Job(**vars(parser.parse_args(argv))))
    except (ValueError, OSError, Diverged) as error:
        print(f"cifar10_run: {error}", file=sys.stderr)
        return 1 if isinstance(error, Diverged) else 2
    print(f"{table(rows)}\n\n{said}")
    return 0


def cifar10_run(job: Job) -> tuple[list[Row], str]:
    """Train, export, measure and draw within the budget; returns what was measured, and a line about the run."""
    started, scale = time.perf_counter(), job.scale
    torch.backends.cudnn.benchmark = job.gpu  # the shapes never change: let cuDNN try its convolutions once
    reference = pictures.cifar10_reference(job.data, job.device, steps=scale.classifier, width=8 if job.fast else 64)
    with_steps = fitted(job)
    pace = seconds_a_step(with_steps(1000)[0], scale.trial)
    left = max(seconds_of(job.budget) - (time.perf_counter() - started) - scale.reserve, 1.0)
    recipe, options = with_steps(max(int(SHARE * left / pace), 1))
    done = run(f"cifar10-{job.method}", recipe, options, RunOptions(runs=job.runs, budget=f"{left:.0f}s"))
    seconds = {"a step in the trial": pace, "until trained": time.perf_counter() - started}
    model = job.model(export(done.folder, out=job.out / "weights.safetensors"))  # goes on with what it exported
    teacher = None if job.teacher is None else job.model(job.teacher)
    for name, figure in figures(job, model, teacher, reference).items():
        figure.savefig(job.out / f"{name}.png")
    rows = measured(job, model, teacher, reference)
    seconds["in all"] = time.perf_counter() - started
    record = record_of(job, options, recipe, done, rows) | {"seconds": seconds}
    (job.out / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    return rows, f"{job.out}: {done.k} of {recipe.config.steps} steps, {seconds['in all']:.0f} s in all"


def fitted(job: Job) -> Callable[[int], tuple[Recipe, dict[str, Any]]]:
    """The recipe and its options as a function of its number of steps; bf16 and channels_last on a GPU alone."""
    make, scale = RECIPES[f"cifar10-{job.method}"], job.scale
    default: TrainConfig = inspect.signature(make).parameters["config"].default
    gpu = dict(bf16=job.gpu, channels_last=job.gpu, compile=job.gpu and job.compiled)
    config = replace(default, device=job.device, batch=scale.batch or default.batch, **gpu)
    options: dict[str, Any] = {"source": Source(job.data)}
    options |= {"size": scale.size} if job.teacher is None else {"teacher": job.teacher}

    def with_steps(steps: int) -> tuple[Recipe, dict[str, Any]]:
        warmup = min(default.warmup, steps // 10)
        chosen = options | {"config": replace(config, steps=steps, warmup=warmup)}
        return make(**chosen), chosen

    return with_steps


def seconds_a_step(recipe: Recipe, n: int) -> float:
    """How long one of the n steps after the first three takes; they compile and warm up, and all is thrown away."""
    steps = train(*recipe)
    for k in range(3 + n):
        step = next(steps)
        if k == 2:
            step.loss.item()  # waits for a GPU
            begun = time.perf_counter()
    step.loss.item()
    return (time.perf_counter() - begun) / n


def measured(job: Job, model: Denoiser, teacher: Denoiser | None, reference: Reference) -> list[Row]:
    """What a model's pictures score; a student's beside its teacher's, from the same noise, by the same classifier."""
    x_T, label = pictures.start(model.schedule, SHAPE, job.scale.samples, 0, device=job.device)
    if job.method == "teacher":
        return pictures.evaluate_teacher_pictures(model, reference, x_T, label)
    rows = pictures.evaluate_pictures(model, reference, x_T, label)
    if teacher is not None:
        pairs = job.scale.pairs
        rows += pictures.evaluate_teacher_pictures(teacher, reference, x_T, label)
        rows += pictures.against_its_teacher(model, teacher, x_T[:pairs], label[:pairs])
    return rows


def figures(job: Job, model: Denoiser, teacher: Denoiser | None, reference: Reference) -> dict[str, Figure]:
    """Samples, a column for each class; the training pictures nearest to some; a trajectory where there is a teacher."""
    rows = ROWS if job.method == "teacher" else 1
    x_T, label = pictures.start(model.schedule, SHAPE, rows * len(CLASSES), SEED, device=job.device)
    found = {}
    if job.method == "teacher":
        title, x0 = "a diffusion teacher, 40 Heun steps", pictures.many_steps(model, x_T, label)
        samples = {f"noise {i + 1}": x for i, x in enumerate(x0.split(len(CLASSES)))}
    else:
        title = "from one noise a column"
        samples = {f"{n} step" + "s" * (n > 1): pictures.few_steps(model, x_T, label, n) for n in LEVELS}
    first = next(iter(samples.values())).clamp(-1, 1)
    if teacher is not None:
        samples["teacher,\n40 Heun steps"] = pictures.many_steps(teacher, x_T, label)
        times = time_grid(teacher.schedule, 40).flip(0)
        found["trajectory"] = along_a_trajectory(model, teacher, x_T[:1], times, label=label[:1])
    found["samples"] = picture_rows(samples, f"{job.about}: {title}", CLASSES)
    return found | {"nearest": nearest_training(first, reference.train)}


def record_of(job: Job, options: dict[str, Any], recipe: Recipe, done: Finished, rows: list[Row]) -> dict[str, Any]:
    """Everything that is to be known of a run later, as JSON values; about 100 records of its log."""
    log = [json.loads(line) for line in (done.folder / "log.jsonl").read_text().splitlines()]
    return {
        "job": plain(job),
        "machine": machine(),
        "options": plain(options),
        "steps": done.k,
        "parameters": sum(p.numel() for p in recipe.model.parameters()),
        "peak_memory_mb": peak_memory(job.device),
        "rows": [asdict(row) for row in rows],
        "log": log[:: max(len(log) // 100, 1)],
    }


if __name__ == "__main__":
    sys.exit(main())
