"""What to expect: the range of each measure over healthy seeds, from finished comparisons and demos into bands.json.

After a change of recipes: `minicm compare --evaluations None --data ring --methods ...`, or some `minicm demo`, then
`python -m docs.studies.bands runs/compare runs/demo-001 ...`. Recipes that these folders do not hold keep their bands.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from minicm.evaluate.compare import METHODS, read
from minicm.evaluate.rows import BANDS


def measured(folder: Path) -> Iterator[tuple[str, str, float]]:
    """(key, measure, value) of a comparison's or a demo's folder; keys are "RECIPE DATA" and "demo MODEL".

    Of a comparison only trainings of the recipes' own length count: `minicm compare --evaluations None`.
    """
    for record in read(folder):
        if "method" not in record:  # a demo's report.json
            for model, rows in record["rows"].items():
                yield from ((f"demo {model}", row["name"], row["value"]) for row in rows)
        elif record["evaluations"] is None:
            key = f"{METHODS[record['method']].__name__.replace('_', '-')} {record['data']}"
            yield from ((key, name, value) for name, value in record["rows"].items())


def bands(folders: list[Path]) -> dict[str, dict[str, list[float]]]:
    """Least and greatest value of each measure of each key, to four digits."""
    found: dict[str, dict[str, list[float]]] = {}
    for key, name, value in (row for folder in folders for row in measured(folder)):
        found.setdefault(key, {}).setdefault(name, []).append(float(f"{value:.4g}"))
    return {key: {name: [min(v), max(v)] for name, v in sorted(part.items())} for key, part in sorted(found.items())}


def update(folders: list[Path], path: Path = BANDS) -> list[str]:
    """Put the bands of these folders into bands.json, beside those that they say nothing of; returns the new keys."""
    kept, found = json.loads(path.read_text()) if path.exists() else {}, bands(folders)
    path.write_text(json.dumps(dict(sorted((kept | found).items())), indent=1) + "\n")
    return list(found)


if __name__ == "__main__":
    print(f"{BANDS}: {', '.join(update([Path(name) for name in sys.argv[1:]]))}")
