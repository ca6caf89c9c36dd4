"""The process in which a submission runs. It answers calls and decides nothing: the checks live in the grader's process.

Before the first line of the submission it gives up what a solution does not need: memory and processor time beyond a
limit, the network, other processes, files outside its own temporary folder, and the modules that hold the answer. Python's
audit hooks see these; they cannot be taken out again, but they are no prison: see docs/course.md.
"""

import builtins
import ctypes  # noqa: F401  (numpy loads it anyway; afterwards it is refused)
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import torch

from minicm.course.kit import raised
from minicm.course.peer import Peer
from minicm.course.wire import CLOCKS, read_message, write_message
from minicm.schedules import Schedule

NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname")
PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")
SIGNALS = ("os.kill", "os.killpg", "signal.pthread_kill")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.link", "os.symlink")
WATCHED = {"torch": torch, "torch.Tensor": torch.Tensor, "torch.nn.functional": torch.nn.functional}
WATCHED |= {"builtins": builtins, "torch.testing": torch.testing, "torch.linalg": torch.linalg}


class Refused(PermissionError):
    """Something that a submission may not do."""


class Guard:
    """An audit hook: refuses what a solution does not need."""

    def __init__(self, folder: Path, forbidden: list[str], kept: list[str]) -> None:
        self.folder = os.path.realpath(folder)
        self.forbidden = (*forbidden, "minicm.course")
        package = Path(__file__).resolve().parents[1]
        paths = [package.joinpath(*name.split(".")[1:]) for name in self.forbidden]
        self.sources = tuple(
            s for p in paths for s in (f"{p}.py", f"{p}{os.sep}", f"{p.parent / '__pycache__' / p.name}.")
        )
        self.kept = {os.path.realpath(path) for path in kept}  # their files, not what lies deeper: there may be a .venv

    def __call__(self, event: str, args: tuple) -> None:
        if event == "import" and self._is_answer(str(args[0])):
            raise Refused(f"the import of {args[0]}, which holds the answer to this assignment, is refused")
        if event == "open":
            self._open(*args)
        elif event in NETWORK:
            raise Refused("graded code has no network")
        elif event in PROCESSES:
            raise Refused("graded code may not start another process")
        elif event in SIGNALS or event.startswith("ctypes.dl") or event == "ctypes.call_function":
            raise Refused(f"graded code may not call {event}")
        elif event in CHANGES and not all(self._is_own(a) for a in args if isinstance(a, (str, bytes))):
            raise Refused(f"graded code may not change files outside its folder ({event})")

    def _is_answer(self, name: str) -> bool:
        return any(name == f or name.startswith(f + ".") for f in self.forbidden)

    def _open(self, path: Any, mode: Any, flags: Any) -> None:
        if not isinstance(path, (str, bytes)):
            return
        if (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) and not self._is_own(path):
            raise Refused(f"graded code may not write outside its folder, as it does with {os.fsdecode(path)}")
        real = os.path.realpath(os.fsdecode(path))
        if real.startswith(self.sources) or os.path.dirname(real).removesuffix(f"{os.sep}__pycache__") in self.kept:
            raise Refused(f"{Path(os.fsdecode(path)).name} holds the answer to this assignment")

    def _is_own(self, path: str | bytes) -> bool:
        real = os.path.realpath(os.fsdecode(path))
        return real.startswith(self.folder + os.sep) or real == os.devnull


class Worker(Peer):
    """The submission's end: errors are told with the line of the submission that led to them."""

    def describe(self, error: Exception) -> str:
        return raised(error)

    def error(self, kind: str, text: str) -> Exception:
        """The exception of a function that was given to the submission, under its own name where it is a common one."""
        known = (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError)
        return {e.__name__: e for e in known}.get(kind, RuntimeError)(text)


def main() -> None:
    """Read the order, shed rights, load the submission, answer calls until the pipe closes."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a submission prints goes where errors go
    order, _ = read_message(incoming)
    torch.set_num_threads(1)
    limit(order["memory"], order["cpu"], order["file"])
    os.chdir(order["folder"])
    sys.path.insert(0, order["folder"])
    withhold(order["withheld"])
    before = {name: dict(vars(thing)) for name, thing in WATCHED.items()}
    sys.addaudithook(Guard(Path(order["folder"]), order["forbidden"], order["kept"]))
    worker = Worker(lambda: read_message(incoming), outgoing)
    loaded = load(order["functions"], worker)
    loaded["patched"] = patched(before)
    write_message(outgoing, {"do": "answer", **loaded}, [])
    while True:
        try:
            worker.serve(*worker.receive())
        except EOFError:
            return


def limit(memory: int, cpu: int, file: int) -> None:
    """Limits of the operating system, where it has them: bytes of address space, seconds, bytes of a file."""
    try:
        import resource
    except ImportError:  # Windows: the wall clock alone
        return
    for what, value in (("RLIMIT_AS", memory), ("RLIMIT_CPU", cpu), ("RLIMIT_FSIZE", file), ("RLIMIT_CORE", 0)):
        try:
            resource.setrlimit(getattr(resource, what), (value, value))
        except (ValueError, OSError):  # macOS takes no RLIMIT_AS
            continue


def withhold(names: list[str]) -> None:
    """Take methods away from the clocks of this process: those that an assignment asks for."""
    for name in names:

        def refuse(self: Any, *args: Any, name: str = name) -> None:
            raise Refused(f"schedule.{name} is what this assignment asks for: use alpha and sigma")

        for clock in (Schedule, *CLOCKS.values()):
            if name in vars(clock):
                setattr(clock, name, refuse)


def load(functions: list[str], worker: Worker) -> dict:
    """Import the submission and find its functions: in adapters.py where there is one, else in student.py."""
    name = "adapters" if Path("adapters.py").exists() else "student"
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        return {"broken": f"importing {name}.py failed: {raised(error)}"}
    worker.functions |= {f: getattr(module, f) for f in functions if callable(getattr(module, f, None))}
    return {"missing": [f for f in functions if f not in worker.functions]}


def patched(before: dict[str, dict]) -> list[str]:
    """Which functions of torch and Python a submission has replaced."""
    return [
        f"{name}.{key}"
        for name, thing in WATCHED.items()
        for key, value in before[name].items()
        if not key.startswith("__") and vars(thing).get(key) is not value
    ]
