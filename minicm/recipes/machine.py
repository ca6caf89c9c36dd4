"""What numbers were measured on: processor or GPU, versions, commit; the most memory that was held, and the pace of steps."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


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
