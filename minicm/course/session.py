"""A submission in its own process, seen from the grader: its functions, limits, and what becomes of it."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from minicm.course.kit import Assignment, Failed
from minicm.course.load import kept_from_submissions
from minicm.course.peer import Peer
from minicm.course.wire import Garbled, read_message, write_message

SIZE = 4 * 2**20  # bytes of sources at most
PRINTED = 2000  # characters of what a submission prints that the report shows


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    seconds: float = 120.0  # wall clock, for the whole assignment
    call: float = 20.0  # wall clock, for one call of one function
    memory: int = 3 * 2**30  # bytes of address space; torch alone takes three quarters of one
    file: int = 2**20  # bytes of one file


class Submission:
    """A submission's folder, run apart. A context manager; `impl` has its functions, which raise `Failed` for trouble.

    Raises ValueError for a folder that holds no student.py or adapters.py, or too much.
    """

    def __init__(self, assignment: Assignment, path: Path, limits: Limits = Limits()) -> None:
        self.assignment, self.path, self.limits = assignment, Path(path), limits
        self.notices: list[str] = []
        self.blamed: dict[str, str] = {}  # function -> how it ended the process
        self.end = time.monotonic() + limits.seconds
        self._process: _Process | None = None
        self._missing: list[str] = []
        self._broken = ""
        self._home = tempfile.TemporaryDirectory(prefix="minicm-grade-", ignore_cleanup_errors=True)
        copy_sources(self.path, Path(self._home.name) / "submission")
        calls = {name: self._function(name) for name in assignment.functions}
        self.impl = SimpleNamespace(**calls)

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._home.cleanup()

    @property
    def printed(self) -> str:
        """The beginning of what the submission has printed."""
        return self._process.printed() if self._process else ""

    def _function(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name in self.blamed:
                raise Failed(self.blamed[name])
            process = self._running()
            if name in self._missing:
                raise Failed(f"there is no function {name}: write it in student.py, or let adapters.py call yours")
            try:
                seconds = min(self.limits.call, self.end - time.monotonic())
                return process.call(name, seconds, args, kwargs)
            except TROUBLE as error:
                self.blamed[name] = f"{name} {process.how_it_ended(error)}"
                self._stop()
                raise Failed(self.blamed[name]) from None

        call.__name__ = name
        return call

    def _running(self) -> _Process:
        """The process, started anew where it has ended."""
        if self._broken:
            raise Failed(self._broken)
        if time.monotonic() > self.end:
            raise Failed(f"not reached: the submission has used its {self.limits.seconds:g} s")
        if self._process is None or self._process.over:
            self._process = _Process(Path(self._home.name), self.limits.call)
            self._load(self._process)
        return self._process

    def _load(self, process: _Process) -> None:
        order = {"folder": str(Path(self._home.name).resolve() / "submission"), "file": self.limits.file}
        order |= {"functions": list(self.assignment.functions), "forbidden": list(self.assignment.forbidden)}
        folder = self.assignment.folder
        order |= {"withheld": list(self.assignment.withheld), "kept": kept_from_submissions(folder) if folder else []}
        order |= {"memory": self.limits.memory, "cpu": int(self.limits.seconds) + 10}
        try:
            loaded = process.start(order, self.end - time.monotonic())
        except TROUBLE as error:
            self._broken = f"importing the submission {process.how_it_ended(error)}"
            self._stop()
            raise Failed(self._broken) from None
        self._missing = [str(name) for name in loaded.get("missing", [])]
        if loaded.get("patched") and not self.notices:
            names = ", ".join(map(str, loaded["patched"][:5]))
            self.notices.append(f"the submission replaces {names}; this changes its own process only, not the checks")
        if loaded.get("broken"):
            self._broken = str(loaded["broken"])[:600]
            raise Failed(self._broken)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()


TROUBLE = (EOFError, TimeoutError, Garbled, OSError)  # no answer came


class _Asker(Peer):
    """The grader's end of the pipe."""

    process: _Process

    def gradients(self, ref: int, grad: Tensor, wrt: list[int]) -> list[Tensor | None]:
        self.process.wait_until(time.monotonic() + self.process.patience)
        try:
            return super().gradients(ref, grad, wrt)
        except TROUBLE as error:
            raise Failed(f"the gradient of a result {self.process.how_it_ended(error)}") from None


class _Process:
    """One run of the worker."""

    def __init__(self, home: Path, patience: float) -> None:
        self.patience = patience  # seconds for one answer
        keep = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV", "LANG")
        env = {name: os.environ[name] for name in keep if name in os.environ}
        env |= {"HOME": str(home), "TMPDIR": str(home / "submission"), "OMP_NUM_THREADS": "1"}
        env |= {"MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg"}
        (home / "empty").mkdir(exist_ok=True)  # a submission's torch.py must not be found before torch
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from minicm.course.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home / "empty",
            env=env,
            start_new_session=True,
        )
        self.over, self._printed, self._deadline = False, bytearray(), 0.0
        self.messages: queue.Queue = queue.Queue(maxsize=4)  # a flood waits in the pipe
        self.peer = _Asker(self._next, self.process.stdin, graph=True)  # type: ignore[arg-type]
        self.peer.process = self
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._drain)]
        for thread in self.threads:
            thread.start()

    def start(self, order: dict, seconds: float) -> dict:
        """Hand over the order; the worker's report on what it has loaded."""
        self.wait_until(time.monotonic() + seconds)
        write_message(self.process.stdin, order, [])  # type: ignore[arg-type]
        return self._next()[0]

    def call(self, name: str, seconds: float, args: tuple, kwargs: dict) -> Any:
        """Call a function of the submission. Raises TimeoutError, EOFError, Garbled or Raised."""
        self.wait_until(time.monotonic() + seconds)
        return self.peer.call(name, *args, **kwargs)

    def wait_until(self, deadline: float) -> None:
        """How long the next answer is waited for."""
        self._deadline = deadline

    def how_it_ended(self, error: BaseException) -> str:
        """Half a sentence on why no answer came."""
        if isinstance(error, TimeoutError):
            return "did not return in time: it was stopped; look for a loop that does not end"
        if isinstance(error, Garbled):
            return f"sent what is no answer ({error})"
        try:
            code = self.process.wait(10)  # a busy machine takes its time to end one
        except subprocess.TimeoutExpired:
            return "closed the way to the grader"
        if code < 0:
            return f"was ended by the signal {signal.Signals(-code).name}: it went over a limit, or crashed"
        return f"ended the process (exit code {code}) instead of returning"

    def printed(self) -> str:
        """The beginning of what came on standard output and error."""
        return self._printed[:PRINTED].decode(errors="replace")

    def kill(self) -> None:
        """End the process and all that it has started."""
        self.over = True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (AttributeError, ProcessLookupError, PermissionError):  # Windows; or gone
            self.process.kill()
        self.process.wait()
        while not self.messages.empty():
            self.messages.get()  # lets the reader go on to the end of the pipe
        for thread in self.threads:
            thread.join(2)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def _next(self) -> tuple[dict, bytes]:
        """The next message; a submission that calls back for ever is late, too."""
        left = self._deadline - time.monotonic()
        try:
            message = self.messages.get(timeout=max(left, 0.001))
        except queue.Empty:
            raise TimeoutError from None
        if left < 0:
            raise TimeoutError
        if isinstance(message, BaseException):
            raise message
        return message

    def _read(self) -> None:
        try:
            while True:
                self.messages.put(read_message(self.process.stdout))  # type: ignore[arg-type]
        except (EOFError, Garbled, OSError, ValueError) as error:
            self.messages.put(error)

    def _drain(self) -> None:
        while part := self.process.stderr.read1(65536):  # type: ignore[union-attr]
            if len(self._printed) < 4 * PRINTED:
                self._printed += part


def copy_sources(source: Path, target: Path) -> None:
    """Copy a submission's .py files but any checks.py: those that count are the grader's.

    Raises ValueError where there is nothing to grade, or too much.
    """
    if not source.is_dir():
        raise ValueError(f"{source} is no folder: give the one that holds student.py")
    files = [p for p in sorted(source.rglob("*.py")) if p.is_file() and not p.is_symlink() and p.name != "checks.py"]
    if not any(p.parent == source and p.name in ("adapters.py", "student.py") for p in files):
        raise ValueError(f"{source} holds no student.py: give the folder with your work")
    if sum(p.stat().st_size for p in files) > SIZE or len(files) > 200:
        raise ValueError(f"{source} holds over {SIZE // 2**20} MiB or 200 files of Python: hand in your work alone")
    for path in files:
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
