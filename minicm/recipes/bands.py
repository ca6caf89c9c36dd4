"""What to expect: the range of each measure over healthy seeds, from finished comparisons and demos into bands.json.

Run with `python -m minicm.recipes.bands runs/compare runs/demo-001 runs/demo-002 ...` after a change of recipes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from minicm.recipes.compare import METHODS, read
from minicm.recipes.evaluate import BANDS


def measured(folder: Path) -> Iterator[tuple[str, str, float]]:
    """(key, measure, value) of a comparison's or a demo's folder; keys are "RECIPE DATA" and "demo MODEL".

    Of a comparison only trainings of the recipes' own length count: `minicm compare --evaluations None`.
    """
    for record in (record for record in read(folder) if record["evaluations"] is None):
        key = f"{METHODS[record['method']].__name__.replace('_', '-')} {record['data']}"
        yield from ((key, name, value) for name, value in record["rows"].items())
    report = folder / "report.json"
    if report.exists():
        for model, rows in json.loads(report.read_text())["rows"].items():
            yield from ((f"demo {model}", row["name"], row["value"]) for row in rows)


def bands(folders: list[Path]) -> dict[str, dict[str, list[float]]]:
    """Least and greatest value of each measure of each key."""
    found: dict[str, dict[str, list[float]]] = {}
    for folder in folders:
        for key, name, value in measured(folder):
            edges = found.setdefault(key, {}).setdefault(name, [value, value])
            found[key][name] = [min(edges[0], value), max(edges[1], value)]
    return found


if __name__ == "__main__":
    rounded = {
        key: {name: [float(f"{edge:.4g}") for edge in edges] for name, edges in sorted(measures.items())}
        for key, measures in sorted(bands([Path(name) for name in sys.argv[1:]]).items())
    }
    BANDS.write_text(json.dumps(rounded, indent=1) + "\n")
    print(f"{BANDS}: {', '.join(rounded)}")
