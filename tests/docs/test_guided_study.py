"""The study of the guided family: each training once, its record, its table; an unknown part is refused."""

from __future__ import annotations

import pytest

from docs.studies import guided as study
from docs.studies import guided_figures
from minicm.evaluate.rows import Row
from minicm.recipes import guided


def test_a_training_is_done_once_and_goes_on_where_it_stopped(tmp_path):
    calls = []

    def measure(f):
        calls.append(f.schedule)
        return [Row("error", 0.25)]

    kept = study.Study(tmp_path, seed=3, share=1.0)
    for _ in range(2):
        kept.train("LCD-exact", guided.mixture_lcd, measure, steps=2)
    assert calls == [guided.CLOCK]
    (record,) = study.read(tmp_path)
    assert (record["part"], record["seed"], record["steps"], record["rows"]) == (
        "LCD-exact",
        3,
        2,
        {"error": 0.25},
    )
    assert record["seconds"] is not None and kept.done("LCD-exact") and not kept.done("LCD")
    (tmp_path / "results.jsonl").unlink()  # stopped after the training, before the record: it is not trained again
    kept.train("LCD-exact", guided.mixture_lcd, measure, steps=2)
    (record,) = study.read(tmp_path)
    assert record["seconds"] is None


def test_the_table_has_a_mean_and_a_spread():
    records = [
        {"part": "LCD", "seed": i, "seconds": None, "steps": 2, "batch": 8, "rows": {"error": e}}
        for i, e in enumerate((0.1, 0.3))
    ]
    records += [{"part": "sum", "seed": 0, "rows": {"error": 0.5}}]
    text = study.table(records)
    assert "LCD: 2 seeds, 2 x 8" in text and "| error | 0.200 ± 0.141 |" in text
    assert "sum: 1 seeds" in text and "| error | 0.500 |" in text


@pytest.mark.parametrize("module, known", [(guided, "lcd-exact"), (guided_figures, "tcd_gamma")])
def test_an_unknown_part_is_refused_and_the_known_are_named(module, known, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["study", "nothing"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 2 and known in capsys.readouterr().err
