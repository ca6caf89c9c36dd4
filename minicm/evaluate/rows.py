"""Reports: rows beside the bands that healthy seeds fall into, as a Markdown table."""

import json
from dataclasses import replace
from pathlib import Path

from minicm.metrics.rows import Row, markdown

BANDS = Path(__file__).with_name("bands.json")


def with_bands(key: str, rows: list[Row]) -> list[Row]:
    """The rows with the bands that were recorded for "RECIPE DATA" or "demo MODEL", where there are any."""
    bands = json.loads(BANDS.read_text()).get(key, {}) if BANDS.exists() else {}
    return [replace(row, band=tuple(bands[row.name]) if row.name in bands else None) for row in rows]


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = []
    for row in rows:
        best = "" if row.floor is None else f"{row.floor:.3g}"
        best += f" ± {row.spread:.1g}" if row.spread else ""
        band = "" if row.band is None else f"{row.band[0]:.3g} .. {row.band[1]:.3g}"
        lines.append((row.name, f"{row.value:.4g}", best, band, row.verdict))
    return markdown(("measure", "value", "floor", "expect", ""), lines)
