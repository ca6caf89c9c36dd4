"""TODO."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

BANDS = Path(__file__).with_name("bands.json")


@dataclass(frozen=True)
class Row:
    """One number of a report."""

    name: str  # what was measured
    value: float
    floor: float | None = None  # what exact samples score
    spread: float | None = None  # standard deviation of the floor
    band: tuple[float, float] | None = None  # least and greatest of the seeds that made bands.json

    @property
    def verdict(self) -> str:
        """Whether the value is no farther from its floor than healthy seeds are, give or take a half."""
        if self.band is None:
            return ""
        best = self.floor or 0.0
        farthest = max(abs(edge - best) for edge in self.band) + (self.spread or 0.0)
        return "as expected" if abs(self.value - best) <= 1.5 * farthest else "worse than expected"


def with_bands(key: str, rows: list[Row]) -> list[Row]:
    """The rows with the bands that were recorded for "RECIPE DATA" or "demo MODEL", where there are any."""
    bands = json.loads(BANDS.read_text()).get(key, {}) if BANDS.exists() else {}
    return [Row(**(asdict(row) | {"band": tuple(bands[row.name]) if row.name in bands else None})) for row in rows]


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| measure | value | floor | expect | |", "|---|---:|---:|---:|---|"]
    for row in rows:
        best = "" if row.floor is None else f"{row.floor:.3g}"
        best += "" if row.spread is None else f" ± {row.spread:.1g}"
        band = "" if row.band is None else f"{row.band[0]:.3g} .. {row.band[1]:.3g}"
        lines.append(f"| {row.name} | {row.value:.4g} | {best} | {band} | {row.verdict} |")
    return "\n".join(lines)
