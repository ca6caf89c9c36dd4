"""How fast minicm is on this machine: training steps, sampling and the exact flow, beside a matmul and a plain loop.

What is compared takes turns, and work is counted: `racing` says how. Pictures are measured by `bench_images`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from docs.studies.plain import plain_cd
from minicm import bench_images
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.nets.mlp import MLP
from minicm.objectives.base import Objective
from minicm.objectives.cd import CD
from minicm.objectives.ct import CT
from minicm.objectives.dsm import DSM
from minicm.objectives.ect import ECT
from minicm.objectives.ict import ICT
from minicm.objectives.lcd import LCD
from minicm.objectives.scm import SCM
from minicm.objectives.tcd import TCD
from minicm.racing import Report, cell, count_flops, race, rates, say, spread, warm
from minicm.runs.folder import machine, new_folder, peak_memory
from minicm.sampling import Counted, edm_sample, sample, sampling_times
from minicm.schedules import EDM, VP, TrigFlow
from minicm.times import T_MIN, karras_grid
from minicm.train import TrainConfig, train

CLASSES = 8  # of the ring's modes, for the objectives with guidance


W_RANGE = (2.0, 14.0)  # LCM's guidance


MATMULS = 20  # products in one turn of the yardstick


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    batch: int = 1024  # samples a training step
    width: int = 128  # of the network
    depth: int = 4  # its hidden layers
    features: int = 64  # its Fourier frequencies, as in the 2-D recipes
    steps: int = 20  # training steps in one turn
    rounds: int = 11  # turns of each variant
    points: int = 10_000  # samples drawn, and points carried by the exact flow
    draws: int = 3  # turns of each way to draw them

    def net(self, **inputs: Any) -> MLP:
        """The network of all measurements."""
        return MLP(2, self.width, self.depth, features=self.features, **inputs)


SMOKE = Size(batch=32, width=16, features=8, steps=1, rounds=2, points=100, draws=2)


Pair = tuple[Denoiser, Objective]


def bench(
    *,
    images: bool = False,
    fast: bool = False,
    threads: int = 1,
    compiled: bool = True,
    out: Path | None = None,
) -> int:
    """Measure training steps, sampling and the exact flow on this machine's processor, and write them down.

    Args:
        images: a U-Net on pictures of 32x32 instead, on a GPU if there is one, in float32 and bfloat16
        fast: a smoke test of a few seconds, never compiled; its numbers mean nothing
        threads: processor threads to use; one gives the steadiest numbers
        compiled: measure torch.compile'd networks, too; needs a C++ compiler, and some minutes the first time
        out: the JSON file to write; runs/bench-NNN/bench.json, with the next number that is free, if not given
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if out is not None and out.exists():
        raise FileExistsError(f"{out} exists: choose another --out")
    out = out or new_folder(Path("runs"), "bench") / "bench.json"
    out.touch()  # now, not after minutes of work, is the time to learn that it cannot be written
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if images:
            report = bench_images.measure(fast=fast, compiled=compiled)
        else:
            report = measure(SMOKE if fast else Size(), compiled and not fast)
    finally:
        torch.set_num_threads(before)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{(bench_images.render if images else render)(report)}\n\n{out}")
    return 0


def measure(size: Size, compiled: bool) -> Report:
    """All numbers of the report, as JSON values."""
    report: Report = {"machine": machine(), "size": asdict(size), "training": {}, "peak_memory_mb": {}}
    for name, make in makers(size).items():
        say(name)
        report["training"][name] = training(make, size, compiled, plain=name == "CD")
    report["peak_memory_mb"]["training"] = peak_memory()
    for name, section in {"sampling": sampling, "exact_flow": exact_flow}.items():
        say(name)
        report[name] = section(size)
        report["peak_memory_mb"][name] = peak_memory()
    return report


def makers(size: Size) -> dict[str, Callable[[], Pair]]:
    """Every objective with a model that it can train, each made anew at each call."""
    vp, trig = VP.scaled_linear(), TrigFlow()

    def edm(objective: Objective) -> Pair:
        return Denoiser(size.net(), t_min=T_MIN), objective

    def student(**inputs: bool) -> Denoiser:
        return Denoiser(size.net(classes=CLASSES, guidance=True, **inputs), vp)

    def guide() -> Denoiser:
        return Denoiser(size.net(classes=CLASSES), vp)

    return {
        "DSM": lambda: (Denoiser(size.net()), DSM()),
        "CD": lambda: edm(CD(Denoiser(size.net()), grid=karras_grid(18))),
        "CT": lambda: edm(CT()),
        "iCT": lambda: edm(ICT()),
        "ECT": lambda: edm(ECT()),
        "LCD": lambda: (student(), LCD(guide(), skip=20, w_range=W_RANGE)),
        "TCD": lambda: (student(second_time=True), TCD(guide(), skip=20, w_range=W_RANGE)),
        "sCT": lambda: (Denoiser(size.net(), trig), SCM()),
        "sCD": lambda: (Denoiser(size.net(), trig), SCM(Denoiser(size.net(), trig))),
    }


def training(make: Callable[[], Pair], size: Size, compiled: bool, plain: bool) -> Report:
    """Steps of one objective, eager and compiled, and where asked the plain loop of CD, in turns with a matmul."""
    flops, turns = {"matmul": MATMULS * 2 * size.batch * size.width**2}, {"matmul": matmul(size)}
    turns["eager"], note = stepper(make(), size), None
    flops["eager"] = flops["compiled"] = count_flops(turns["eager"])
    if plain:
        turns["plain"] = plain_stepper(make(), size)
        flops["plain"] = count_flops(turns["plain"])
    if compiled:
        try:
            turns["compiled"] = stepper(compile_nets(make()), size)
        except RuntimeError as error:  # no compiler, or a network that torch cannot compile
            note = str(error).splitlines()[0]
    seconds = race(turns, size.rounds, size.steps)
    torch.compiler.reset()  # the next objective's networks are to find its cache empty
    return {"not_compiled": note} | rates(seconds, flops)


def stepper(pair: Pair, size: Size) -> Callable[[], object]:
    """A function that does the next training step at each call; the first three are done."""
    f, objective = pair
    config = TrainConfig(steps=1_000_000, batch=size.batch, lr=1e-3)
    return warm(partial(next, train(f, objective, ring(), config)))


def plain_stepper(pair: Pair, size: Size) -> Callable[[], object]:
    """The same for the plain loop, with the networks of a CD pair."""
    f, objective = pair
    assert isinstance(objective, CD) and isinstance(objective.grid, torch.Tensor)
    nets = f.net, objective.teacher.net
    return warm(partial(next, plain_cd(*nets, ring(), batch=size.batch, lr=1e-3, points=len(objective.grid))))


def compile_nets(pair: Pair) -> Pair:
    """The same pair; its networks, that of the teacher included, will be compiled when they are called."""
    for model in (pair[0], getattr(pair[1], "teacher", None)):
        if model is not None:
            model.net.compile()
    return pair


def matmul(size: Size) -> Callable[[], object]:
    """The yardstick: products (batch, width) by (width, width) in float32, as in a hidden layer."""
    a, b = torch.randn(size.batch, size.width), torch.randn(size.width, size.width)

    def products() -> None:
        for _ in range(MATMULS):
            a @ b

    return warm(products)


def sampling(size: Size) -> Report:
    """Seconds to draw points in 1, 2 and 4 steps of f, and by Heun's of a denoiser with the same network."""
    net, generator = size.net(), torch.Generator().manual_seed(0)
    f, denoise = Counted(Denoiser(net, t_min=T_MIN)), Counted(Denoiser(net))
    x_T = EDM().prior((size.points, 2), generator)
    turns: dict[str, Callable[[], object]] = {}
    for n in (1, 2, 4):
        turns[f"{n} step{'s' * (n > 1)}"] = partial(sample, f, x_T, sampling_times(EDM(), n), generator=generator)
    for n in (18, 40):  # EDM's times: the Karras grid and a last step to 0
        turns[f"Heun {n}"] = partial(edm_sample, denoise, x_T, [*karras_grid(n).flip(0).tolist(), 0.0])
    evaluations = {}
    for name, draw in turns.items():  # which warms them up, too
        before = f.evaluations + denoise.evaluations
        draw()
        evaluations[name] = f.evaluations + denoise.evaluations - before
    seconds = race(turns, size.draws)
    return {name: {"evaluations": evaluations[name], "seconds": spread(seconds[name])} for name in turns}


def exact_flow(size: Size) -> Report:
    """Seconds to carry points along the ring's exact flow from t = 80 to t_min, to 1e-8."""
    x_T = EDM().prior((size.points, 2), torch.Generator().manual_seed(0))
    flow = partial(ring().consistency, x_T, 80.0, T_MIN)
    return {"seconds": spread(race({"flow": flow}, size.draws)["flow"])}


def ring() -> GaussianMixture:
    """The data of all measurements."""
    return GaussianMixture.ring(classes=CLASSES)


def render(report: Report) -> str:
    """The report as Markdown tables; a number stands before its quartiles."""
    size, about = report["size"], report["machine"]
    lines = [
        f"{about['processor']}, {about['threads']} of {about['cores']} threads, torch {about['torch']}, "
        f"Python {about['python']}, commit {about['commit'] or 'unknown'}",
        f"Batch {size['batch']}, width {size['width']}, {size['depth']} hidden layers; "
        f"median (quartiles) of {size['rounds']} rounds",
        "",
        "| objective | GFLOP a step | | steps a second | GFLOP/s | share of matmul | over plain loop |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for name, row in report["training"].items():
        lines += [_line(name, row, variant) for variant in ("eager", "compiled", "plain") if variant in row]
        if row["not_compiled"]:
            lines.append(f"| {name} | | not compiled: {row['not_compiled']} | | | | |")
    lines += ["", "| points | evaluations | seconds |", "|---|---:|---:|"]
    for name, row in report["sampling"].items():
        lines.append(f"| {size['points']} in {name} | {row['evaluations']} | {cell(row['seconds'])} |")
    lines.append(f"| {size['points']} by the exact flow | | {cell(report['exact_flow']['seconds'])} |")
    memory = ", ".join(f"{name} {mb or float('nan'):.0f}" for name, mb in report["peak_memory_mb"].items())
    return "\n".join([*lines, "", f"Most memory held up to the end of each part, MB: {memory}"])


def _line(name: str, row: Report, variant: str) -> str:
    parts = ("steps_per_second", "gflops", "share_of_matmul", "over_plain")
    cells = " | ".join(cell(row[variant].get(part)) for part in parts)
    return f"| {name} | {row['gflop']:.3g} | {variant} | {cells} |"
