"""A number beside what it should be, in one kind of row, and tables of such numbers in Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from minicm.metrics.consistency import rms


@dataclass(frozen=True)
class Row:
    """One number of a report, beside its floor and its band."""

    name: str  # what was measured
    value: float
    floor: float | None = None  # what exact samples score
    spread: float | None = None  # standard deviation of the floor
    band: tuple[float, float] | None = None  # least and greatest of healthy seeds

    @property
    def verdict(self) -> str:
        """Whether the value is no farther from its floor than healthy seeds are, give or take a half."""
        if self.band is None:
            return ""
        best = self.floor or 0.0
        farthest = max(abs(edge - best) for edge in self.band) + (self.spread or 0.0)
        return "as expected" if abs(self.value - best) <= 1.5 * farthest else "worse than expected"


def error_rows(name: str, error: Tensor, floor: Tensor | None = None, *, to: str = "") -> list[Row]:
    """Two rows of paired errors (n,), "NAME RMSE" and "NAME median", each with `to` behind; floor (m,): errors, too."""
    return [
        Row(f"{name} {kind}{to}", of(error), None if floor is None else of(floor))
        for kind, of in (("RMSE", rms), ("median", lambda errors: errors.median().item()))
    ]


def markdown(head: Sequence[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are words, the others numbers. Without rows, its first two lines."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join([f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|", *map(line, rows)])


def line(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def mean_and_deviation(values: list[float]) -> str:
    """Mean ± standard deviation over seeds, the mean alone of one, nothing of none."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}" if values else ""
