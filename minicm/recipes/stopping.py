"""How a run ends before its last step: Ctrl-C or the end of its time, and the step that runs is still finished."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

UNITS = {"s": 1, "min": 60, "h": 3600}  # seconds


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
