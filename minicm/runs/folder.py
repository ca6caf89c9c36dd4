"""What surrounds a run: its folder, which is its own; a clean stop; and the machine that it runs on."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

FILES = ("config.json", "log.jsonl", "checkpoint.safetensors")
UNITS = {"s": 1, "min": 60, "h": 3600}  # seconds


# ------------------------------------------- the folder: one process at a time, and nothing in it is lost
def new_folder(runs: Path, name: str) -> Path:
    """Make runs/NAME-NNN with the first number that is free. Raises OSError where it cannot be made."""
    endings = (path.name.rpartition("-")[2] for path in runs.glob(f"{name}-[0-9]*"))
    number = max((int(ending) for ending in endings if ending.isdigit()), default=0) + 1
    while True:
        folder = runs / f"{name}-{number:03d}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:  # another run took it in between
            number += 1


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder and lock it for the block; who dies lets go of it. Raises FileExistsError where another process has it.

    On Windows and on file systems without such locks nothing is locked: give each process its own folder there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise FileExistsError(f"another process trains in {folder}: wait for it, or choose another folder") from None
    except OSError:  # no such locks here
        pass
    try:
        yield
    finally:
        os.close(held)


def emptied(folder: Path, overwrite: bool) -> None:
    """Remove a former run. Raises FileExistsError for one that may not go."""
    former = [folder / file for file in FILES]
    if any(file.exists() for file in former) and not overwrite:
        raise FileExistsError(f"{folder} holds a run already: --resume it, --overwrite it or choose another folder")
    for file in [*former, *folder.glob("checkpoint.safetensors.*.part")]:
        file.unlink(missing_ok=True)


def shortened(folder: Path, k: int) -> None:
    """Drop what a killed run left after its last checkpoint, that of step k: log records, a line cut short, half a save."""
    log = folder / "log.jsonl"
    if log.exists():
        lines = log.read_text().splitlines(keepends=True)
        kept = (line for line in lines if line.endswith("}\n") and json.loads(line)["k"] <= k)
        beside = log.with_name("log.jsonl.part")
        beside.write_text("".join(kept))  # a full disk leaves the log as it was
        os.replace(beside, log)
    for part in folder.glob("checkpoint.safetensors.*.part"):
        part.unlink(missing_ok=True)


# ------------------------------------------------------------------------- the end: a budget, or Ctrl-C
def seconds_of(budget: str) -> float:
    """The seconds of a budget such as "90s", "9min" or "1.5h". Raises ValueError for anything else."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(s|min|h)\s*", budget)
    if not found or float(found[1]) == 0:
        raise ValueError(f"a budget is a number and one of {', '.join(UNITS)}, such as 9min, got {budget!r}")
    return float(found[1]) * UNITS[found[2]]


class Stop:
    """Whether a stop is due: it was asked for, or the time is up."""

    def __init__(self, deadline: float | None = None) -> None:
        self.wished, self.deadline = False, deadline

    @property
    def asked(self) -> bool:
        """Whether to stop after this step."""
        return self.wished or (self.deadline is not None and time.perf_counter() >= self.deadline)


@contextmanager
def stoppable(budget: str | None = None, started: float | None = None) -> Iterator[Stop]:
    """Turn the first Ctrl-C into a wish, so that a step can end and be saved; the second stops at once.

    The budget counts from `started`, of `time.perf_counter`, or from now.
    """
    begun = time.perf_counter() if started is None else started
    stop = Stop(None if budget is None else begun + seconds_of(budget))

    def ask(signum: int, frame: object) -> None:
        if stop.wished:
            raise KeyboardInterrupt
        stop.wished = True
        print("\nstopping after this step (again: at once)", file=sys.stderr)

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread, where no Ctrl-C arrives
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


# ------------------------------------------------------------------ the machine: what it is, and its pace
def machine() -> dict[str, Any]:
    """What the numbers were measured on, and with what."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """The processor's name, as well as the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of minicm's own checkout, with -dirty where files were changed; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None


def peak_memory(device: torch.device | str = "cpu") -> float | None:
    """The most memory held so far, in MB: of a GPU by torch's tensors, else by this process; None on Windows."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Pace:
    """How fast the steps come: seconds since the start of this stretch, and samples a second since the last look."""

    def __init__(self, k: int) -> None:
        self.started = self.before = time.perf_counter()
        self.k = k

    def __call__(self, k: int, batch: int) -> tuple[float, float]:
        """After step k, of `batch` samples a step: both numbers."""
        now = time.perf_counter()
        rate = (k - self.k) * batch / (now - self.before)
        self.k, self.before = k, now
        return now - self.started, rate
