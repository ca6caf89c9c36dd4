"""How fast minicm is here: training steps, sampling, the exact flow; as shares and ratios from one run.

Machines are noisy, so variants take turns and medians are reported; compare numbers of one run only.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.distances import pseudo_huber
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
from minicm.recipes.compare import matmul_rate
from minicm.sampling import sample
from minicm.schedules import EDM, VP, Schedule, TrigFlow
from minicm.solvers import solve
from minicm.times import karras_grid
from minicm.train import TrainConfig, train

BATCH, WIDTH, DEPTH, FEATURES = 1024, 128, 4, 64
CD_PASSES = 2 + 1 + 3  # Heun's teacher twice, the target once, f once forward and twice that backward


def bench(*, fast: bool = False, threads: int = 1, compiled: bool = True, out: Path | None = None) -> int:
    """Measure training steps, sampling and the exact flow on this machine, and print a table.

    Args:
        fast: a smoke test; its numbers mean nothing
        threads: CPU threads that torch may use
        compiled: measure torch.compile too (needs a C++ compiler; the first step takes a minute)
        out: where to write the numbers as JSON
    """
    torch.set_num_threads(threads)
    rounds, calls = (2, 2) if fast else (7, 15)
    numbers: dict[str, Any] = {"machine": machine(threads)}
    numbers["training"] = training(compiled and not fast, rounds, calls)
    numbers["cd_against_plain_loop"] = against_plain_loop(compiled and not fast, rounds, calls)
    numbers["sampling"] = sampling(1 if fast else 3, 100 if fast else 10_000)
    numbers["peak_memory_MiB"] = peak_memory()
    print(report(numbers))
    if out is not None:
        out.write_text(json.dumps(numbers, indent=1) + "\n")
    return 0


def machine(threads: int) -> dict[str, Any]:
    """What the numbers depend on."""
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return {
        "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": threads,
        "commit": git.stdout.strip() or None,
    }


def take_turns(variants: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, float]:
    """Median seconds a call of each variant; they take turns, so that a busy moment hits all of them."""
    for call in variants.values():
        call()
        call()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            seconds[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


def model(
    schedule: Schedule = EDM(), t_min: float = 0.0, compiled: bool = False, **options: bool | int
) -> Denoiser:
    """A denoiser with the network of the bench."""
    net = MLP(2, WIDTH, DEPTH, features=FEATURES, **options)
    if compiled:
        net.compile()
    return Denoiser(net, schedule, t_min=t_min)


def objectives(compiled: bool) -> dict[str, tuple[Denoiser, Objective]]:
    """Every objective with a model for it; teachers are networks of the same size."""
    vp, guided = VP.scaled_linear(), {"classes": 4, "guidance": True}
    teacher, vp_teacher = model(compiled=compiled), model(vp, compiled=compiled, classes=4)
    pairs: dict[str, tuple[Denoiser, Objective]] = {
        "DSM": (model(compiled=compiled), DSM()),
        "CD": (model(t_min=0.002, compiled=compiled), CD(teacher, grid=karras_grid(18))),
        "CT": (model(t_min=0.002, compiled=compiled), CT()),
        "iCT": (model(t_min=0.002, compiled=compiled), ICT(distance=pseudo_huber(0.03))),
        "ECT": (model(t_min=0.002, compiled=compiled), ECT()),
        "LCD": (model(vp, compiled=compiled, **guided), LCD(vp_teacher, k=20, w_range=(0.0, 3.0))),
        "TCD": (
            model(vp, compiled=compiled, second_time=True, **guided),
            TCD(vp_teacher, k=20, w_range=(0.0, 3.0)),
        ),
        "sCT": (model(TrigFlow()), SCM()),  # torch.func.jvp goes through the network as it is written
    }
    return pairs


def stepper(f: Denoiser, objective: Objective) -> Callable[[], object]:
    """One training step a call, on the ring with four classes."""
    ring = GaussianMixture.ring(classes=4)
    steps: Iterator = train(f, objective, ring, TrainConfig(steps=10**9, batch=BATCH, lr=1e-3))
    return lambda: next(steps)


def training(compiled: bool, rounds: int, calls: int) -> list[dict[str, Any]]:
    """Steps per second of each objective, and what share of a matrix product's rate CD's step reaches."""
    rows = []
    for name, (f, objective) in objectives(False).items():
        variants = {"eager": stepper(f, objective)}
        if compiled and name != "sCT":
            variants["compiled"] = stepper(*objectives(True)[name])
        rates: list[float] = []
        variants["matmul"] = lambda rates=rates: rates.append(matmul_rate(0.02))
        seconds = take_turns(variants, rounds, calls)
        row = {"objective": name, "matmul_gflops": statistics.median(rates)}
        for variant in ("eager", "compiled"):
            if variant in seconds:
                row[f"{variant}_steps_per_s"] = 1 / seconds[variant]
                if name == "CD":
                    row[f"{variant}_gflops"] = CD_PASSES * flops(f.net) / seconds[variant] / 1e9
        rows.append(row)
    return rows


def flops(net: nn.Module) -> float:
    """Of one forward pass: two for each weight of a matrix and sample."""
    return 2.0 * BATCH * sum(p.numel() for p in net.parameters() if p.ndim == 2)


def against_plain_loop(compiled: bool, rounds: int, calls: int) -> dict[str, float]:
    """Milliseconds of CD's step here, and of the same step as one would first write it, same network and batch."""
    f, objective = objectives(False)["CD"]
    assert isinstance(objective, CD)
    variants = {"minicm": stepper(f, objective), "plain": plain_loop(objective.teacher.net)}  # type: ignore[attr-defined]
    if compiled:
        variants["minicm, compiled"] = stepper(*objectives(True)["CD"])
    return {name: 1e3 * seconds for name, seconds in take_turns(variants, rounds, calls).items()}


def plain_loop(teacher: nn.Module) -> Callable[[], object]:
    """Consistency distillation in plain PyTorch: same network, data, grid and batch; no care for speed."""
    net, target = MLP(2, WIDTH, DEPTH, features=FEATURES), MLP(2, WIDTH, DEPTH, features=FEATURES)
    target.load_state_dict(net.state_dict())
    average = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser, grid = torch.optim.Adam(net.parameters(), lr=1e-3), karras_grid(18).float()
    angle = 2 * math.pi * torch.arange(8) / 8
    centres = 0.7045 * torch.stack([angle.cos(), angle.sin()], 1)

    def predict(network: nn.Module, x: Tensor, t: Tensor, t_min: float) -> Tensor:
        c_skip = 0.25 / ((t - t_min) ** 2 + 0.25)
        c_out = 0.5 * (t - t_min) / (t**2 + 0.25).sqrt()
        return c_skip * x + c_out * network(x / (t**2 + 0.25).sqrt(), t[:, 0].log() / 4)

    def step() -> None:
        x0 = centres[torch.randint(8, (BATCH,))] + 0.042 * torch.randn(BATCH, 2)
        n = torch.randint(17, (BATCH,))
        s, t = grid[n][:, None], grid[n + 1][:, None]
        x_t = x0 + t * torch.randn_like(x0)
        with torch.no_grad():
            slope = (x_t - predict(teacher, x_t, t, 0.0)) / t
            x_s = x_t + (s - t) * slope
            x_s = x_t + (s - t) * (slope + (x_s - predict(teacher, x_s, s, 0.0)) / s) / 2
            aim = predict(target, x_s, s, 0.002)
        loss = F.mse_loss(predict(net, x_t, t, 0.002), aim, reduction="sum") / BATCH
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), math.inf)
        optimiser.step()
        with torch.no_grad():
            for ours, theirs in zip(target.parameters(), net.parameters()):
                ours.copy_(theirs)
            for name, value in net.state_dict().items():
                average[name].mul_(0.999).add_(value, alpha=0.001)

    return step


def sampling(rounds: int, n: int) -> dict[str, float]:
    """Seconds for n samples: 1, 2, 4 steps of a consistency function, Heun's 18 and 40, and the exact flow."""
    f, ring = model(t_min=0.002).eval(), GaussianMixture.ring()
    x_T = EDM().prior((n, 2), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    variants: dict[str, Callable[[], object]] = {
        f"{steps} step{'s' * (steps > 1)}": lambda times=times: sample(f, x_T, times, generator=generator)
        for steps, times in ((1, [80.0]), (2, [80.0, 0.8]), (4, [80.0, 8.0, 0.8, 0.2]))
    }
    for points in (18, 40):
        grid = karras_grid(points).flip(0)
        variants[f"Heun, {points} times"] = lambda grid=grid: solve(f, EDM(), x_T, grid)
    variants["exact flow to 1e-8"] = lambda: ring.consistency(x_T, 80.0)
    return {"points": n, **take_turns(variants, rounds, 1)}


def peak_memory() -> float | None:
    """The largest memory this process has held, in MiB; None on Windows, which has no such count."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def report(numbers: dict[str, Any]) -> str:
    """The numbers as Markdown."""
    lines = [", ".join(f"{key} {value}" for key, value in numbers["machine"].items()), ""]
    lines += [
        f"| step at batch {BATCH}, width {WIDTH} | eager steps/s | compiled steps/s | share of matmul |"
    ]
    lines += ["|---|---:|---:|---:|"]
    for row in numbers["training"]:
        rates = [row.get(f"{variant}_steps_per_s") for variant in ("eager", "compiled")]
        shares = [row.get(f"{variant}_gflops", 0) / row["matmul_gflops"] for variant in ("eager", "compiled")]
        cells = ["" if rate is None else f"{rate:.1f}" for rate in rates]
        share = " / ".join(f"{share:.2f}" for share in shares if share)
        lines.append(f"| {row['objective']} | {cells[0]} | {cells[1]} | {share} |")
    loop, times = numbers["cd_against_plain_loop"], dict(numbers["sampling"])
    lines += ["", "| CD step | ms | plain loop / it |", "|---|---:|---:|"]
    lines += [f"| {name} | {ms:.2f} | {loop['plain'] / ms:.2f} |" for name, ms in loop.items()]
    lines += ["", f"| {times.pop('points')} samples | seconds |", "|---|---:|"]
    lines += [f"| {name} | {seconds:.3f} |" for name, seconds in times.items()]
    return "\n".join([*lines, "", f"peak memory {numbers['peak_memory_MiB'] or math.nan:.0f} MiB"])
