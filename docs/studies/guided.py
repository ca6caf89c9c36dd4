"""The guided family over seeds: LCD, TCD, LCF and LCM-LoRA, each against its exact answer, resumable at any step.

    python -m docs.studies.guided [PART ...] [--seeds 0 1] [--folder runs/guided]

prints a table for each part; docs/results.md holds a run. What is done stands in FOLDER/results.jsonl, a line a training,
and is not done again; a training that was cut short goes on from its checkpoint.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from minicm.checkpoint import load_checkpoint, load_model, save_checkpoint
from minicm.data.mixtures import GaussianMixture
from minicm.data.named import MixtureName, classed, points_named
from minicm.denoiser import Denoiser
from minicm.evaluate import guided as evaluation
from minicm.metrics.rows import Row, markdown, mean_and_deviation
from minicm.nets.lora import lora_state
from minicm.recipes import guided, points
from minicm.runs.run import Recipe, RunOptions, run
from minicm.sampling import sampling_times

# 4 steps that end nearer the data than LCM's, where f and the denoiser differ less: noise levels .8, .2
LATE: dict[str, Mapping[int, Sequence[float]]] = {
    "LCM's times": evaluation.SAMPLING,
    "late times": {4: sampling_times(guided.CLOCK, 4).tolist()},
}
W = 1.0  # the guidance that LCM-LoRA takes in
LAMBDAS = ((0.0, 1.0), (1.0, 1.0), (0.8, 1.0), (1.0, 0.8))  # of the style, of LCM
SKIPS = (1, 5, 20, 50, 100)  # of 1000 times
ON_RING = partial(evaluation.evaluate_guided, data=classed("ring"), n=1000)

Measure = Callable[[Denoiser], list[Row]]
Record = dict[str, Any]


class Study:
    """A folder of trainings of one seed: each is done once, measured, and recorded."""

    def __init__(self, folder: Path, seed: int, share: float) -> None:
        self.folder, self.seed, self.share = folder, seed, share
        self.base = folder / "guided-teacher-0"  # one teacher for the students of all seeds
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, part: str) -> Path:
        """The run folder of a part."""
        return self.folder / f"{part}-{self.seed}"

    def done(self, part: str) -> bool:
        """Whether a part stands in the record already."""
        return any((r["part"], r["seed"], r["share"]) == (part, self.seed, self.share) for r in read(self.folder))

    def train(
        self, part: str, recipe: Callable[..., Recipe], measure: Measure, steps: int | None = None, **options: Any
    ) -> None:
        """Train a recipe, or go on with it, measure its average and add a line to the record."""
        if self.done(part):
            return
        config = signature(recipe).parameters["config"].default
        config = replace(config, seed=self.seed, steps=max(1, round((steps or config.steps) * self.share)))
        file = self.path(part) / "checkpoint.safetensors"
        done, started = load_checkpoint(file)["k"] if file.exists() else 0, time.process_time()
        if done < config.steps:
            where = {"resume": self.path(part)} if done else {"folder": self.path(part), "overwrite": True}
            name = f"mixture-{part.lower()}"  # a teacher, and a style, are known by their names
            run(name, recipe(config=config, **options), options, RunOptions(**where))
        spent = time.process_time() - started  # of this process: other work on the machine does not count
        seconds = round(spent * config.steps / (config.steps - done), 1) if done < config.steps else None
        self.record(part, measure(load_model(self.path(part))), steps=config.steps, batch=config.batch, seconds=seconds)

    def record(self, part: str, rows: list[Row], **more: Any) -> None:
        """Add a line to the record."""
        found = {"part": part, "seed": self.seed, "share": self.share, **more, "rows": {r.name: r.value for r in rows}}
        with open(self.folder / "results.jsonl", "a") as file:
            file.write(json.dumps(found) + "\n")


def read(folder: Path) -> list[Record]:
    """The record of a folder, a dictionary a training."""
    file = folder / "results.jsonl"
    return [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []


def teacher(study: Study) -> None:
    """The guided teacher: that of seed 0 is the one that students and adapters of all seeds start from."""
    measure = partial(evaluation.evaluate_guided_teacher, data=classed("ring"))
    study.train("guided-teacher", guided.mixture_guided_teacher, measure)


def tcd_exact(study: Study) -> None:
    """TCD from the exact denoiser."""
    measure = partial(evaluation.evaluate_trajectory, data=points_named("ring"))
    study.train("TCD-exact", points.mixture_tcd, measure)


def lcf(study: Study) -> None:
    """LCF: the student of LCD-exact goes over to new data, at each w against the flow of these data's classes."""
    measure = partial(ON_RING, data=classed("turned"), ws=(0, 1, 3), steps=(1, 4), towards=0.0)
    student = study.path("LCD-exact")
    if not study.done("LCF-before"):
        study.record("LCF-before", measure(load_model(student)))
    study.train("LCF", guided.mixture_lcf, measure, student=student, data="turned")


def style_lora(study: Study, style: MixtureName) -> None:
    """A style's adapters, their sum with LCM-LoRA's, and what the sum spares: distilling the style's own teacher."""
    data, tuned = classed(style), study.path(f"{style}-style-LoRA")
    chain = partial(evaluation.evaluate_guided_teacher, data=data, ws=(W,), n=1000)
    study.train(f"{style}-style-LoRA", guided.mixture_style_lora, chain, teacher=study.base, data=style)
    if not study.done(f"{style}-composed"):
        study.record(f"{style}-composed", compositions(study, style))
    own = partial(four_steps, data=data)
    study.train(f"{style}-LCM-LoRA", guided.mixture_lcm_lora, own, teacher=tuned, data=style, w=W)


def compositions(study: Study, style: MixtureName) -> list[Row]:
    """Sums of the two adapters, read back from files of their own, against the style's exact answer."""
    base, data = load_model(study.base), classed(style)
    states = []
    for part in ("LCM-LoRA", f"{style}-style-LoRA"):
        file = study.folder / f"{part}-{study.seed}.safetensors"
        save_checkpoint(file, lora_state(load_model(study.path(part)).net))
        states.append(load_checkpoint(file))
    lcm, styled = states
    tuned, few = load_model(study.path(f"{style}-style-LoRA")), [*evaluation.SAMPLING[4], 0.0]
    rows = evaluation.evaluate_guided_teacher(tuned, data, ws=(W,), times=few, n=1000)  # without distillation
    for style_weight, lcm_weight in LAMBDAS:
        f = guided.composed(base, (styled, style_weight), (lcm, lcm_weight))
        rows += named(f"{style_weight:g} style + {lcm_weight:g} LCM", four_steps(f, data))
    return rows


def four_steps(f: Denoiser, data: GaussianMixture) -> list[Row]:
    """Errors in 4 steps against the exact guided flow, at LCM's times and at later ones."""
    rows = []
    for name, times in LATE.items():
        rows += named(name, ON_RING(f, data=data, ws=(W,), steps=(4,), times=times))
    return rows


def named(name: str, rows: list[Row]) -> list[Row]:
    """The rows with a name before theirs."""
    return [replace(row, name=f"{name}, {row.name}") for row in rows]


def skips(study: Study, steps: int = 3000) -> None:
    """LCD as published but for its skip, at an equal number of updates."""
    measure = partial(ON_RING, steps=(1,))
    for skip in SKIPS:
        study.train(f"LCD-published-k{skip}", guided.mixture_lcd_published, measure, steps, skip=skip)


PARTS: dict[str, Callable[[Study], None]] = {
    "teacher": teacher,
    "lcd-exact": lambda study: study.train("LCD-exact", guided.mixture_lcd, ON_RING),
    "lcd": lambda study: study.train("LCD", guided.mixture_lcd, ON_RING, teacher=study.base),
    "tcd-exact": tcd_exact,
    "lcf": lcf,
    "lcm-lora": lambda study: study.train(
        "LCM-LoRA", guided.mixture_lcm_lora, partial(ON_RING, ws=(W,), steps=(1, 4)), teacher=study.base, w=W
    ),
    "tilted": partial(style_lora, style="tilted"),  # near the base
    "turned": partial(style_lora, style="turned"),  # far from it
    "skips": skips,
}


def table(records: list[Record]) -> str:
    """Mean ± standard deviation over seeds of every measure, as a Markdown table a part."""
    text = []
    for part in dict.fromkeys(record["part"] for record in records):
        group = [record for record in records if record["part"] == part]
        known = [record["seconds"] for record in group if record.get("seconds") is not None]
        size = f", {group[0]['steps']} x {group[0]['batch']}" if "steps" in group[0] else ""
        spent = f", {statistics.mean(known):.0f} s of one core" if known else ""
        lines = [(name, mean_and_deviation([r["rows"][name] for r in group])) for name in group[0]["rows"]]
        text += [f"\n{part}: {len(group)} seeds{size}{spent}\n", markdown(("measure", "mean ± deviation"), lines)]
    return "\n".join(text)


def chosen(parser: argparse.ArgumentParser, known: Mapping[str, object]) -> argparse.Namespace:
    """The arguments of a study of parts; none named is all. An unknown one is refused, and the known are named."""
    parser.add_argument("parts", nargs="*", help=f"which of {', '.join(known)}; all if none is named")
    parser.add_argument("--folder", type=Path, default=Path("runs/guided"), help="where runs and results are kept")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    args.parts = args.parts or list(known)
    torch.set_num_threads(1)
    return args


def main() -> None:
    """Train and measure the parts for the seeds, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of weights, data and noise")
    parser.add_argument("--share", type=float, default=1.0, help="of each recipe's steps, for a quick look")
    args = chosen(parser, PARTS)
    for seed in args.seeds:
        for part in args.parts:
            PARTS[part](Study(args.folder, seed, args.share))
    print(table(read(args.folder)))


if __name__ == "__main__":
    main()
