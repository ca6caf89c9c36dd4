"""How fast pictures are trained on and drawn here: a U-Net on a processor or a GPU, in float32 and bfloat16, eager and compiled.

What is compared takes turns, and work is counted: `racing` says how. A share is of the rate that a large square matrix
product reaches in the same precision, in the same round; on a GPU float32 means float32, TF32 is switched off. The
pictures are random bytes in CIFAR-10's format: no archive is needed, and the work is the same.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from docs.studies.plain_images import plain_dsm
from minicm.data.cifar10 import BATCHES, RECORD, TEST, TRAIN, Cifar10
from minicm.denoiser import Denoiser
from minicm.objectives.base import Objective
from minicm.objectives.cd import CD
from minicm.objectives.dsm import DSM
from minicm.objectives.ect import ECT
from minicm.racing import Report, cell, count_flops, race, say, spread, warm
from minicm.recipes.cifar10 import Size
from minicm.runs.folder import machine, peak_memory
from minicm.sampling import sample
from minicm.schedules import EDM
from minicm.solvers import solve
from minicm.times import T_MIN, karras_grid
from minicm.train import TrainConfig, train

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


Turn = Callable[[], object]


@dataclass(frozen=True)
class Scene:
    """How much is measured, and where."""

    device: str
    net: Size
    batch: int  # pictures of a training step, and drawn at once
    steps: int  # training steps in one turn
    rounds: int  # turns of each variant
    matmul: int  # rows and columns of the yardstick's matrices

    def model(self, t_min: float) -> Denoiser:
        """A model with the network of all measurements."""
        return Denoiser(self.net.net(Cifar10.classes, 0), t_min=t_min)


SMOKE = Scene("cpu", Size(8, (1, 2), 1, ()), batch=2, steps=1, rounds=2, matmul=32)


CPU = Scene("cpu", Size(32, (1, 2, 2), 1, (4,)), batch=8, steps=1, rounds=5, matmul=1024)


GPU = Scene("cuda", Size(), batch=256, steps=10, rounds=9, matmul=8192)


def measure(*, fast: bool, compiled: bool) -> Report:
    """All numbers of the report, as JSON values; on a GPU where there is one."""
    scene = SMOKE if fast else GPU if torch.cuda.is_available() else CPU
    before = allow_tf32(False)
    torch.backends.cudnn.benchmark = scene.device == "cuda"  # as `cifar10_run` does
    report: Report = {"machine": machine(), "scene": asdict(scene), "training": {}}
    try:
        for name, make in makers(scene).items():
            say(name)
            report["training"][name] = training(make, scene, compiled and not fast, plain=name == "teacher")
        say("sampling")
        report["sampling"] = sampling(scene, compiled and not fast)
    finally:
        allow_tf32(before)
        torch.compiler.reset()
    return report


def allow_tf32(allow: bool) -> bool:
    """Whether a GPU's float32 convolutions may be TF32; returns what was so before. Newer versions warn of this switch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, allow
    return before


def makers(scene: Scene) -> dict[str, Callable[[], tuple[Denoiser, Objective]]]:
    """The objectives with a model that each can train, made anew at each call."""
    return {
        "teacher": lambda: (scene.model(0.0), DSM()),
        "CD": lambda: (scene.model(T_MIN), CD(scene.model(0.0), grid=karras_grid(18, T_MIN))),
        "ECT": lambda: (scene.model(T_MIN), ECT()),
    }


def settings(scene: Scene, compiled: bool) -> dict[str, TrainConfig]:
    """How a step is run: each precision, eager and compiled; all with channels last."""
    plain = TrainConfig(steps=10**6, batch=scene.batch, lr=1e-3, device=scene.device, channels_last=True)
    found = {name: replace(plain, bf16=name == "bf16") for name in PRECISIONS}
    if compiled:
        found |= {f"{name} compiled": replace(config, compile=True) for name, config in found.items()}
    return found


def training(make: Callable, scene: Scene, compiled: bool, plain: bool) -> Report:
    """Steps of one objective in every setting, and where asked the plain loop, in turns with the yardstick."""
    data, report = pictures(scene.device), Report()
    turns = {f"matmul {name}": matmul(scene, dtype) for name, dtype in PRECISIONS.items()}
    for name, config in settings(scene, compiled).items():
        f, objective = make()
        try:
            turns[name] = stepper(train(f, objective, data, config), scene)
        except RuntimeError as error:  # no compiler, or a network that torch cannot compile
            report.setdefault("not_measured", {})[name] = str(error).splitlines()[0]
    if plain:
        net = make()[0].net
        turns["plain"] = stepper(plain_dsm(net, data, batch=scene.batch, lr=1e-3, device=scene.device), scene)
    flops = count_flops(turns["fp32"]) / scene.steps
    seconds = {name: [t / scene.steps for t in s] for name, s in race(turns, scene.rounds).items()}
    for name in (name for name in seconds if not name.startswith("matmul")):
        report[name] = rates(name, seconds, flops, scene)
    return report | {
        "gflop_a_picture": flops / scene.batch / 1e9,
        "peak_memory_mb": peak_memory(scene.device),
    }


def rates(name: str, seconds: dict[str, list[float]], flops: float, scene: Scene) -> Report:
    """One setting's pictures a second, TFLOP/s, share of the matmul rate and ratio to the plain loop, round by round."""
    times = seconds[name]
    yardstick = [t * scene.steps for t in seconds[f"matmul {'bf16' if 'bf16' in name else 'fp32'}"]]
    found = {
        "pictures_per_second": spread([scene.batch / t for t in times]),
        "tflops": spread([flops / t / 1e12 for t in times]),
        "share_of_matmul": spread([flops / t / (2 * scene.matmul**3 / m) for t, m in zip(times, yardstick)]),
    }
    if "plain" in seconds and name != "plain":
        found["over_plain"] = spread([p / t for p, t in zip(seconds["plain"], times)])
    return found


def sampling(scene: Scene, compiled: bool) -> Report:
    """Pictures a second drawn in 1 step of f, and by 18 Heun steps (35 evaluations) of a denoiser with the same network."""
    x_T = EDM().prior((scene.batch, 3, 32, 32), torch.Generator().manual_seed(0)).to(scene.device)
    label = torch.arange(scene.batch, device=scene.device) % Cifar10.classes
    turns: dict[str, Turn] = {}
    for name, config in settings(scene, compiled).items():
        f, teacher = (ready(scene.model(t_min), config) for t_min in (T_MIN, 0.0))
        turns[f"1 step, {name}"] = waiting(partial(sample, f, x_T, [80.0], label=label), scene)
        turns[f"Heun 18, {name}"] = waiting(partial(heun, teacher, x_T, label), scene)
    for draw in turns.values():
        draw()
    seconds = race(turns, max(scene.rounds // 2, 2))
    return {name: {"pictures_per_second": spread([scene.batch / t for t in seconds[name]])} for name in turns}


def heun(teacher: Denoiser, x_T: Tensor, label: Tensor) -> Tensor:
    """EDM's 18 steps, the last of them Euler's."""
    times = torch.cat([karras_grid(18).flip(0), torch.zeros(1, dtype=torch.float64)])
    return solve(partial(teacher, label=label), teacher.schedule, x_T, times)


def ready(model: Denoiser, config: TrainConfig) -> Denoiser:
    """A model to sample in the precision and layout that a training would give it."""
    model = model.to(config.device).eval().requires_grad_(False)
    model.autocast = torch.bfloat16 if config.bf16 else None
    model.net.to(memory_format=torch.channels_last)
    if config.compile:
        model.net.compile()
    return model


def stepper(steps: Iterator[object], scene: Scene) -> Turn:
    """A function that does the next training steps of a turn; the first three turns are done."""

    def turn() -> None:
        for _ in range(scene.steps):
            next(steps)

    return warm(waiting(turn, scene))


def waiting(turn: Turn, scene: Scene) -> Turn:
    """The function, waiting for a GPU at its end."""

    def until_done() -> None:
        turn()
        if scene.device == "cuda":
            torch.cuda.synchronize()

    return until_done


def matmul(scene: Scene, dtype: torch.dtype) -> Turn:
    """The yardstick: a product of two square matrices of random numbers."""
    a, b = (torch.randn(scene.matmul, scene.matmul, device=scene.device).to(dtype) for _ in range(2))
    return warm(waiting(lambda: a @ b, scene))


def pictures(device: str) -> Cifar10:
    """A thousand pictures of random bytes, read from a folder in CIFAR-10's format."""
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / BATCHES
        batches.mkdir()
        for name in TRAIN + TEST:
            records = torch.randint(256, (200, RECORD), generator=generator, dtype=torch.uint8)
            records[:, 0] %= Cifar10.classes
            (batches / name).write_bytes(records.numpy().tobytes())
        return Cifar10(folder, device=device)


def render(report: Report) -> str:
    """The report as Markdown tables; a number stands before its quartiles."""
    scene, about = report["scene"], report["machine"]
    net, where = scene["net"], about["gpu"] or f"{about['processor']}, {about['threads']} threads"
    lines = [
        f"{where}, torch {about['torch']}, Python {about['python']}, commit {about['commit'] or 'unknown'}",
        f"UNet of width {net['width']}, mults {tuple(net['mults'])}, {net['blocks']} blocks; batch {scene['batch']}; "
        f"median (quartiles) of {scene['rounds']} rounds; matmul of {scene['matmul']} x {scene['matmul']}",
        "",
        "| step of | GFLOP a picture | | pictures a second | TFLOP/s | share of matmul | over plain loop | MB |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for name, part in report["training"].items():
        lines += [_line(name, part, key) for key, row in part.items() if isinstance(row, dict) and "tflops" in row]
        lines += [
            f"| {name} | | {key}: not measured, {why} | | | | | |" for key, why in part.get("not_measured", {}).items()
        ]
    lines += ["", "| drawn in | pictures a second |", "|---|---:|"]
    lines += [f"| {name} | {cell(row['pictures_per_second'])} |" for name, row in report["sampling"].items()]
    return "\n".join(lines)


def _line(name: str, part: Report, key: str) -> str:
    columns = ("pictures_per_second", "tflops", "share_of_matmul", "over_plain")
    cells = " | ".join(cell(part[key].get(column)) for column in columns)
    return (
        f"| {name} | {part['gflop_a_picture']:.3g} | {key} | {cells} | {part['peak_memory_mb'] or float('nan'):.0f} |"
    )
