"""How fast minicm is on this machine: training steps, sampling and the exact flow, beside a matmul and a plain loop.

Machines are noisy, so whatever is compared takes turns: in every round each variant runs once, a ratio is taken within
a round, and a report gives the median of the rounds and their quartiles. The work of a step is counted, not
estimated: every matrix product that it really makes, at 2 operations a multiplication and addition, and nothing else.
A share is of the rate that a matrix product reaches in the same precision; float32 means float32, TF32 is switched off.
"""

import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch

from minicm.checkpoint import DTYPES
from minicm.data.cifar10 import BATCHES, RECORD, TEST, TRAIN, Cifar10
from minicm.data.mixtures import GaussianMixture
from minicm.denoiser import Denoiser
from minicm.metrics.rows import markdown
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
from minicm.recipes.cifar10 import Size
from minicm.runs.folder import machine, new_folder, peak_memory
from minicm.sampling import Counted, edm_sample, sample, sampling_times
from minicm.schedules import EDM, VP, TrigFlow
from minicm.times import T_MIN, karras_grid
from minicm.train import TrainConfig, train

CLASSES = 8  # of the ring's modes, for the objectives with guidance
STUDIES = Path(__file__).resolve().parents[1] / "docs" / "studies"  # of a clone: a wheel holds the library alone

Report = dict[str, Any]
Turn = Callable[[], object]
Maker = Callable[[], tuple[Denoiser, Objective]]  # of a model and an objective for it, anew at each call


def bench(
    *, images: bool = False, fast: bool = False, threads: int = 1, compiled: bool = True, out: Path | None = None
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
    few, full = (FEW_PICTURES, GPU if torch.cuda.is_available() else CPU) if images else (FEW_POINTS, Points())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        report = measure(few if fast else full, compiled and not fast)
    finally:
        torch.set_num_threads(before)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{render(report)}\n\n{out}")
    return 0


# ------------------------------------------------------------------------------------------ what is measured
@dataclass(frozen=True)
class Points:
    """Every objective in two dimensions: the MLP of the recipes on the ring."""

    device: str = "cpu"
    batch: int = 1024  # samples of a training step
    width: int = 128  # of the network
    depth: int = 4  # its hidden layers
    features: int = 64  # its Fourier frequencies
    steps: int = 20  # training steps of one turn
    rounds: int = 11  # turns of each variant
    drawn: int = 10_000  # samples drawn at once, and points carried by the exact flow
    draws: int = 3  # turns of each way to draw them
    matmul: tuple[int, int, int] = (1024, 128, 400)  # (m, n) by (n, n), as in a hidden layer; products of one turn

    precisions: ClassVar = ("fp32",)
    shape: ClassVar = (2,)  # of a sample
    few, heun = (1, 2, 4), (18, 40)  # steps of the ways to draw

    def net(self, **inputs: Any) -> MLP:
        """The network of all measurements."""
        return MLP(2, self.width, self.depth, features=self.features, **inputs)

    def model(self, t_min: float) -> Denoiser:
        """A model with that network."""
        return Denoiser(self.net(), t_min=t_min)

    def data(self) -> GaussianMixture:
        """The ring."""
        return GaussianMixture.ring(classes=CLASSES)

    def makers(self) -> dict[str, Maker]:
        """Every objective with a model that it can train."""
        vp, trig = VP.scaled_linear(), TrigFlow()
        guided: dict[str, Any] = dict(skip=20, w_range=(2.0, 14.0))

        def knowing(**inputs: bool) -> Denoiser:
            return Denoiser(self.net(classes=CLASSES, **inputs), vp)

        return {
            "DSM": lambda: (self.model(0.0), DSM()),
            "CD": lambda: (self.model(T_MIN), CD(self.model(0.0), grid=karras_grid(18, T_MIN))),
            "CT": lambda: (self.model(T_MIN), CT()),
            "iCT": lambda: (self.model(T_MIN), ICT()),
            "ECT": lambda: (self.model(T_MIN), ECT()),
            "LCD": lambda: (knowing(guidance=True), LCD(knowing(), **guided)),
            "TCD": lambda: (knowing(guidance=True, second_time=True), TCD(knowing(), **guided)),
            "sCT": lambda: (Denoiser(self.net(), trig), SCM()),
            "sCD": lambda: (Denoiser(self.net(), trig), SCM(Denoiser(self.net(), trig))),
        }

    def plain(self) -> dict[str, Iterator[float]]:
        """The plain loop of CD, where a clone is at hand."""
        plain, nets = study("plain"), (self.net(), self.net())
        return {} if plain is None else {"CD": plain.plain_cd(*nets, self.data(), batch=self.batch, lr=1e-3)}


@dataclass(frozen=True)
class Pictures:
    """A teacher and two students on random bytes in CIFAR-10's format: no archive is needed, and the work is the same."""

    device: str
    net: Size
    batch: int  # pictures of a training step
    steps: int  # training steps of one turn
    rounds: int  # turns of each variant
    drawn: int  # pictures drawn at once
    draws: int  # turns of each way to draw them
    matmul: tuple[int, int, int]  # (m, n) by (n, n); products of one turn

    precisions: ClassVar = ("fp32", "bf16")
    shape: ClassVar = (3, 32, 32)
    few, heun = (1,), (18,)

    def model(self, t_min: float) -> Denoiser:
        """A model with the network of all measurements."""
        return Denoiser(self.net.net(Cifar10.classes, 0), t_min=t_min)

    def data(self) -> Cifar10:
        """A thousand pictures, read from a folder in CIFAR-10's format."""
        generator = torch.Generator().manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            batches = Path(folder) / BATCHES
            batches.mkdir()
            for name in TRAIN + TEST:
                records = torch.randint(256, (200, RECORD), generator=generator, dtype=torch.uint8)
                records[:, 0] %= Cifar10.classes
                (batches / name).write_bytes(records.numpy().tobytes())
            return Cifar10(folder, device=self.device)

    def makers(self) -> dict[str, Maker]:
        """The objectives with a model that each can train."""
        return {
            "teacher": lambda: (self.model(0.0), DSM()),
            "CD": lambda: (self.model(T_MIN), CD(self.model(0.0), grid=karras_grid(18, T_MIN))),
            "ECT": lambda: (self.model(T_MIN), ECT()),
        }

    def plain(self) -> dict[str, Iterator[float]]:
        """The plain loop of a teacher, where a clone is at hand."""
        plain, net = study("plain") and study("plain_images"), self.model(0.0).net  # the second imports the first
        how: dict[str, Any] = dict(batch=self.batch, lr=1e-3, device=self.device)
        return {} if plain is None else {"teacher": plain.plain_dsm(net, self.data(), **how)}


Scene = Points | Pictures
FEW_POINTS = Points(batch=32, width=16, features=8, steps=1, rounds=2, drawn=100, draws=2, matmul=(32, 16, 20))
FEW_PICTURES = Pictures("cpu", Size(8, (1, 2), 1, ()), 2, steps=1, rounds=2, drawn=2, draws=2, matmul=(32, 32, 1))
CPU = Pictures("cpu", Size(32, (1, 2, 2), 1, (4,)), 8, steps=1, rounds=5, drawn=8, draws=2, matmul=(1024, 1024, 1))
GPU = Pictures("cuda", Size(), 256, steps=10, rounds=9, drawn=256, draws=4, matmul=(8192, 8192, 1))


def study(name: str) -> ModuleType | None:
    """A module of docs/studies, loaded by its path; None where there is no clone."""
    path, full = STUDIES / f"{name}.py", f"docs.studies.{name}"
    if path.exists() and full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None and spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full] if path.exists() else None


# ---------------------------------------------------------------------------------------- how it is measured
def measure(scene: Scene, compiled: bool) -> Report:
    """All numbers of the report, as JSON values."""
    report: Report = {"machine": machine(), "scene": asdict(scene)}
    memory = report["peak_memory_mb"] = {}
    parts = (training, sampling, exact_flow) if isinstance(scene, Points) else (training, sampling)
    # the shapes never change: let cuDNN try its convolutions once
    with torch.backends.cudnn.flags(enabled=True, benchmark=scene.device == "cuda", allow_tf32=False):
        for part in parts:
            report[part.__name__] = part(scene, compiled)
            memory[part.__name__] = peak_memory(scene.device)
    return report


def settings(scene: Scene, compiled: bool) -> dict[str, TrainConfig]:
    """How a step is run: each precision, eager and compiled; all with channels last."""
    eager = TrainConfig(steps=10**6, batch=scene.batch, lr=1e-3, device=scene.device, channels_last=True)
    found = {name: replace(eager, bf16=name == "bf16") for name in scene.precisions}
    if compiled:
        found |= {f"{name} compiled": replace(config, compile=True) for name, config in found.items()}
    return found


def training(scene: Scene, compiled: bool) -> Report:
    """Steps of every objective, and of the plain loop of one."""
    plain, report = scene.plain(), {}
    for name, make in scene.makers().items():
        print(f"bench: {name}", file=sys.stderr)
        report[name] = steps_of(make, scene, compiled, plain.get(name))
        torch.compiler.reset()  # the next objective's networks are to find its cache empty
    return report


def steps_of(make: Maker, scene: Scene, compiled: bool, plain: Iterator[float] | None = None) -> Report:
    """The work of a step of one objective, and its rates in every setting, in turns with the yardsticks."""
    turns = {f"matmul {precision}": matmul(scene, precision) for precision in scene.precisions}
    for name, config in settings(scene, compiled).items():
        turns[name] = stepper(train(*make(), scene.data(), config), scene)
    if plain is not None:
        turns["plain"] = stepper(plain, scene)
    refused = warm(turns, 3)
    work = count_flops(turns["fp32"]) / scene.steps
    seconds = race(turns, scene.rounds)
    report = {name: rates(name, seconds, work, scene) for name in turns if not name.startswith("matmul")}
    return report | {"gflop": work / 1e9, "peak_memory_mb": peak_memory(scene.device), "not_measured": refused}


def rates(name: str, seconds: dict[str, list[float]], work: float, scene: Scene) -> Report:
    """Steps, samples and TFLOP a second, the share of the matmul's rate, the ratio to the plain loop, round by round."""
    m, n, products = scene.matmul
    times = [t / scene.steps for t in seconds[name]]
    matmul_rate = [2 * m * n * n * products / t for t in seconds[f"matmul {'bf16' if 'bf16' in name else 'fp32'}"]]
    found = {
        "steps_per_second": spread(1 / t for t in times),
        "samples_per_second": spread(scene.batch / t for t in times),
        "tflops": spread(work / t / 1e12 for t in times),
        "share_of_matmul": spread(work / t / rate for t, rate in zip(times, matmul_rate)),
    }
    if "plain" in seconds and name != "plain":
        found["over_plain"] = spread(p / scene.steps / t for p, t in zip(seconds["plain"], times))
    return found


def sampling(scene: Scene, compiled: bool) -> Report:
    """Seconds to draw samples in a few steps of f, and by Heun's of a denoiser with the same network."""
    x_T = EDM().prior((scene.drawn, *scene.shape), torch.Generator().manual_seed(0)).to(scene.device)
    turns: dict[str, Turn] = {}
    models: dict[str, Counted] = {}
    for setting, config in settings(scene, compiled).items():
        f, denoise = (ready(scene.model(t_min), config) for t_min in (T_MIN, 0.0))
        for n in scene.few:
            name = f"{n} step{'s' * (n > 1)}, {setting}"
            models[name] = Counted(f)
            turns[name] = turn(partial(sample, models[name], x_T, sampling_times(EDM(), n)), 1, scene.device)
        for n in scene.heun:  # EDM's times: the Karras grid and a last step to 0
            name = f"Heun {n}, {setting}"
            models[name] = Counted(denoise)
            times = [*karras_grid(n).flip(0).tolist(), 0.0]
            turns[name] = turn(partial(edm_sample, models[name], x_T, times), 1, scene.device)
    refused = warm(turns, 1)
    seconds = race(turns, scene.draws)
    calls = {name: models[name].evaluations // (1 + scene.draws) for name in turns}
    rows: Report = {name: {"evaluations": calls[name], "seconds": spread(seconds[name])} for name in turns}
    return rows | {name: {"not_measured": why} for name, why in refused.items()}


def ready(model: Denoiser, config: TrainConfig) -> Denoiser:
    """A model to sample in the precision and layout that a training would give it."""
    model = model.to(config.device).eval().requires_grad_(False)
    model.autocast = torch.bfloat16 if config.bf16 else None
    model.net.to(memory_format=torch.channels_last)
    if config.compile:
        model.net.compile()
    return model


def exact_flow(scene: Scene, compiled: bool) -> Report:
    """Seconds to carry points along the ring's exact flow from t = 80 to t_min, to 1e-8."""
    x_T = EDM().prior((scene.drawn, 2), torch.Generator().manual_seed(0))
    flow = partial(GaussianMixture.ring().consistency, x_T, 80.0, T_MIN)
    return {"seconds": spread(race({"flow": flow}, scene.draws)["flow"])}


def matmul(scene: Scene, precision: str) -> Turn:
    """The yardstick: products of two matrices of random numbers."""
    m, n, products = scene.matmul
    a, b = (torch.randn(rows, n, device=scene.device).to(DTYPES[precision]) for rows in (m, n))
    return turn(lambda: a @ b, products, scene.device)


def stepper(steps: Iterator[object], scene: Scene) -> Turn:
    """A function that does the next training steps of a turn."""
    return turn(partial(next, steps), scene.steps, scene.device)


def turn(call: Turn, calls: int, device: str) -> Turn:
    """A function that makes some calls, and waits for a GPU at their end."""

    def until_done() -> None:
        for _ in range(calls):
            call()
        if device == "cuda":
            torch.cuda.synchronize()

    return until_done


def warm(turns: dict[str, Turn], calls: int) -> dict[str, str]:
    """Warm the functions up by some calls; what cannot run is taken out of them, and returned with the reason."""
    refused = {}
    for name, call in list(turns.items()):
        try:
            for _ in range(calls):
                call()
        except RuntimeError as error:  # no compiler, or a network that torch cannot compile
            refused[name] = str(error).splitlines()[0]
            del turns[name]
    return refused


def race(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function, one number a round; in every round each has its turn."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, call in turns.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def count_flops(call: Turn) -> int:
    """Operations in the matrix products of one call, backward pass included; two a multiplication and addition."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and quartiles of at least two numbers."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


# ------------------------------------------------------------------------------------------------ the report
NAN = float("nan")  # where a system does not tell how much memory was held
RATES = ("steps_per_second", "samples_per_second", "tflops", "share_of_matmul", "over_plain")


def render(report: Report) -> str:
    """The report as Markdown tables; a number stands before its quartiles."""
    about, scene = report["machine"], report["scene"]
    steps, drawn = [], []
    for name, part in report["training"].items():
        for setting in (key for key, row in part.items() if isinstance(row, dict) and "tflops" in row):
            cells = [cell(part[setting].get(rate)) for rate in RATES]
            steps.append((name, setting, f"{part['gflop']:.3g}", *cells, f"{part['peak_memory_mb'] or NAN:.0f}"))
        steps += [(name, f"{setting}: {why}", *[""] * 7) for setting, why in part["not_measured"].items()]
    for name, row in report["sampling"].items():
        drawn.append((name, str(row.get("evaluations", "")), row.get("not_measured") or cell(row["seconds"])))
    if "exact_flow" in report:
        drawn.append(("the exact flow", "", cell(report["exact_flow"]["seconds"])))
    memory = ", ".join(f"{name} {mb or NAN:.0f}" for name, mb in report["peak_memory_mb"].items())
    return f"""{about["gpu"] or about["processor"]}, {about["threads"]} of {about["cores"]} threads, \
torch {about["torch"]}, Python {about["python"]}, commit {about["commit"] or "unknown"}
{", ".join(f"{name} {value}" for name, value in scene.items())}; median (quartiles) of the rounds

{markdown(("objective", "setting", "GFLOP a step", *(rate.replace("_", " ") for rate in RATES), "MB"), steps, left=2)}

{markdown((f"{scene['drawn']} samples in", "evaluations", "seconds"), drawn)}

Most memory held up to the end of each part, MB: {memory}"""


def cell(number: dict[str, float] | None) -> str:
    """A number before its quartiles, three digits each."""
    return "" if number is None else "{median:.3g} ({low:.3g} .. {high:.3g})".format(**number)
