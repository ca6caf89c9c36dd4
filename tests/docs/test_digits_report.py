"""The digits' table and figures: what stands in them is what was measured, and nothing is measured twice."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from docs.studies import digits as report
from docs.studies.digits import MEASURES, figures, main, table
from minicm.metrics.rows import Row
from minicm.recipes import digits
from minicm.runs.run import RunOptions, run
from minicm.train import TrainConfig

SHORT = TrainConfig(steps=1, batch=2, lr=1e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """A teacher and its student, of one step each."""
    teacher, student = (tmp_path_factory.mktemp("runs") / name for name in ("teacher", "student"))
    run("digits-teacher", digits.digits_teacher(config=SHORT), {}, RunOptions(folder=teacher, quiet=True))
    recipe = digits.digits_cd(teacher=teacher, config=SHORT)
    run("digits-cd", recipe, {"teacher": teacher}, RunOptions(folder=student, quiet=True))
    return teacher, student


def rows(prefix: str, frechet: float) -> list[Row]:
    others = [Row(f"{prefix} {name}", 0.5, 0.25) for name in MEASURES[1:]]
    return [Row(f"{prefix} class Frechet", frechet, 0.1, 0.01), *others, Row("1-step RMSE to the teacher", 0.3)]


def test_the_table_gives_distances_as_multiples_of_the_teachers(runs, monkeypatch):
    measured = {runs[0]: rows("Heun-40", 2.0), runs[1]: rows("1-step", 3.0) + rows("w = 1, 2-step", 5.0)}
    monkeypatch.setattr(report, "measured", measured.pop)
    head, _, floors, *body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table([*runs]).splitlines()]
    assert head[3:] == ["x teacher", *MEASURES]
    assert floors[3:5] == ["0.05", "0.1"] and floors[5] == "0.25"
    assert [line[:5] for line in body] == [
        ["digits-teacher", "1 x 2", "Heun-40", "1.00", "2"],
        ["digits-cd", "1 x 2", "1-step", "1.50", "3"],
        ["", "1 x 2", "w = 1, 2-step", "2.50", "5"],
    ]
    assert not measured
    assert len(table([*runs]).splitlines()) == 6, "a run was measured again"
    kept = json.loads((runs[0] / "evaluation.json").read_text())
    assert kept == [asdict(row) for row in rows("Heun-40", 2.0)]


def test_figures_are_written_under_their_names(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "HEUN", 3)
    assert set(figures(runs[1])) == {
        f"digits_{name}" for name in ("few_steps", "trajectory", "nearest", "editing", "interpolated")
    }
    main(["figures", str(runs[1]), str(tmp_path)])
    assert len([*tmp_path.glob("digits_*.png")]) == 5
