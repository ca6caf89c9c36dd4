"""How two pieces of code are compared on a machine that is busy: in turns, by the median, and by the work that they do.

Machines are noisy, so whatever is compared takes turns: in every round each variant runs once, a ratio is taken within
a round, and a report gives the median of the rounds and their quartiles. The work of a step is counted, not
estimated: every matrix product that it really makes, at 2 operations a multiplication and addition, and nothing else.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

Report = dict[str, Any]


def count_flops(step: Callable[[], object]) -> int:
    """Operations in the matrix products of one call, backward pass included; two a multiplication and addition."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def race(turns: dict[str, Callable[[], object]], rounds: int, calls: int = 1) -> dict[str, list[float]]:
    """Seconds a call of each function, one number a round; in every round each has its turn of some calls."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, call in turns.items():
            started = time.perf_counter()
            for _ in range(calls):
                call()
            seconds[name].append((time.perf_counter() - started) / calls)
    return seconds


def rates(seconds: dict[str, list[float]], flops: dict[str, int]) -> Report:
    """Steps a second, and GFLOP/s as they are, over the matmul's, and steps over the plain loop's, round by round."""
    matmul = [flops["matmul"] / t for t in seconds["matmul"]]
    report: Report = {"gflop": flops["eager"] / 1e9, "matmul_gflops": spread([rate / 1e9 for rate in matmul])}
    for name in seconds.keys() - {"matmul"}:
        times = seconds[name]
        report[name] = {
            "steps_per_second": spread([1 / t for t in times]),
            "gflops": spread([flops[name] / t / 1e9 for t in times]),
            "share_of_matmul": spread([flops[name] / t / rate for t, rate in zip(times, matmul)]),
        }
        if "plain" in seconds and name != "plain":
            report[name]["over_plain"] = spread([p / t for p, t in zip(seconds["plain"], times)])
    return report


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles of at least two numbers."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def cell(number: dict[str, float] | None) -> str:
    """A number before its quartiles, three digits each."""
    return "" if number is None else "{median:.3g} ({low:.3g} .. {high:.3g})".format(**number)


def warm(call: Callable[[], object]) -> Callable[[], object]:
    """The function, after three calls that warm it up."""
    for _ in range(3):
        call()
    return call


def say(what: str) -> None:
    """Tell, beside the report, what is being measured."""
    print(f"bench: {what}", file=sys.stderr)
