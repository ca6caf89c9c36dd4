"""The demonstration from end to end, in its smoke version."""

import json
import math

import pytest

from minicm.__main__ import main


@pytest.mark.slow  # about 17 s alone; `.ci/run` runs the same command
def test_the_demo_leaves_a_report_with_numbers_and_figures(tmp_path, capsys):
    assert main(["demo", "--fast", "--runs", str(tmp_path)]) == 0
    folder = tmp_path / "demo-001"
    assert str(folder) in capsys.readouterr().out
    report = (folder / "report.md").read_text()
    rows = json.loads((folder / "report.json").read_text())["rows"]
    assert rows.keys() == {"teacher", "CD", "CT"}
    assert all(math.isfinite(row["value"]) and row["name"] in report for part in rows.values() for row in part)
    figures = sorted((folder / "figures").glob("*.png"))
    assert figures and all(f"(figures/{figure.name})" in report for figure in figures)
