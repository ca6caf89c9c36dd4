"""The studies behind docs/results.md: every one can be run, trains once what it says, and ends where the recipes begin."""

import json
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from docs.studies import ablation, bands, guided_figures, interactive, orders
from docs.studies import guided as study
from minicm import EDM, GaussianMixture, TrainConfig, euler_step
from minicm.data.trajectories import Trajectories
from minicm.metrics import Row, consistency_error
from minicm.recipes import guided, points

STUDIES = sorted(path.stem for path in Path(study.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_how_it_is_run(name):
    module = import_module(f"docs.studies.{name}")
    runs_by_itself = hasattr(module, "main") or hasattr(module, "update")
    assert (f"python -m docs.studies.{name}" in module.__doc__) == runs_by_itself


# -------------------------------------------------------------------------------------- the guided family
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
    assert [record[key] for key in ("part", "seed", "steps", "rows")] == ["LCD-exact", 3, 2, {"error": 0.25}]
    assert record["seconds"] is not None and kept.done("LCD-exact") and not kept.done("LCD")
    (tmp_path / "results.jsonl").unlink()  # stopped after the training, before the record: it is not trained again
    kept.train("LCD-exact", guided.mixture_lcd, measure, steps=2)
    (record,) = study.read(tmp_path)
    assert record["seconds"] is None


def test_the_table_has_a_mean_and_a_spread():
    size = {"seconds": None, "steps": 2, "batch": 8}
    records = [{"part": "LCD", "seed": i, "rows": {"error": e}} | size for i, e in enumerate((0.1, 0.3))]
    text = study.table([*records, {"part": "sum", "seed": 0, "rows": {"error": 0.5}}])
    assert "LCD: 2 seeds, 2 x 8" in text and "| error | 0.200 ± 0.141 |" in text
    assert "sum: 1 seeds" in text and "| error | 0.500 |" in text


@pytest.mark.parametrize("module, known", [(study, "lcd-exact"), (guided_figures, "tcd_gamma")])
def test_an_unknown_part_is_refused_and_the_known_are_named(module, known, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["study", "nothing"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 2
    assert known in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- ablation
def settings(objective) -> dict:
    """What an objective was told, but for tensors and the teacher, which are others' in each."""
    return {k: v for k, v in vars(objective).items() if k not in ("frozen", "grid", "training") and k[0] != "_"}


def test_the_ladders_change_one_thing_a_rung_and_end_in_the_recipes():
    for ladder, recipe, last in (
        (ablation.cd_ladder, points.mixture_cd, 3),
        (ablation.ct_ladder, points.mixture_ct, 4),
    ):
        rungs = [trial.objective for _, trial in ladder()]
        assert str(settings(rungs[last])) == str(settings(recipe().objective))
        for before, after in pairwise(rungs[: last + 1]):
            changed = [k for k, v in settings(after).items() if v is not settings(before)[k]]
            same_grid = getattr(before, "grid", None) is None or torch.equal(before.grid, after.grid)
            assert len(changed) + (not same_grid) == 1, changed


def test_the_limit_spends_one_budget_and_a_study_prints_a_row_a_training(monkeypatch, capsys):
    monkeypatch.setattr(ablation, "consistency_error", lambda f, data, n, generator: consistency_error(f, data, n=5))
    monkeypatch.setattr(ablation, "Trajectories", lambda mixture, n: Trajectories(mixture, n=8, m=2))
    trials = dict(ablation.limit())
    spent = {name: trial.config.steps for name, trial in trials.items()}
    # an exact denoiser is no network: 4 evaluations a sample for CD, 5 for sCD with its tangent, 3 for the regression
    assert spent["regression on f*"] > spent["CD, N = 33"] > spent["sCD, c = .1"]
    brief = [(name, t._replace(config=replace(t.config, steps=1, batch=4))) for name, t in trials.items()]
    monkeypatch.setattr(ablation, "STUDIES", {"brief": lambda: brief[:2]})
    ablation.main()
    assert [text.count("|") for text in capsys.readouterr().out.splitlines()] == [7] * 4


# ------------------------------------------------------------------------------------------------ others
def test_demos_make_bands(tmp_path):
    for i, value in enumerate((0.3, 0.123456, 0.2)):
        (folder := tmp_path / f"demo-{i}").mkdir()
        rows = {"CD": [{"name": "1-step RMSE", "value": value}]}
        (folder / "report.json").write_text(json.dumps({"seconds": 1.0, "rows": rows}))
    assert bands.bands(list(tmp_path.iterdir())) == {"demo CD": {"1-step RMSE": [0.1235, 0.3]}}


def test_the_order_of_euler_is_one(monkeypatch):
    monkeypatch.setitem(orders.STEPS, "EDM", (40, 80))
    # 50 points, coarse steps: the slope is 1 but for terms of higher order, a twentieth here
    assert orders.measured_order(GaussianMixture.ring(), EDM(), euler_step, n=50) == pytest.approx(1, abs=0.15)


def test_the_page_gets_the_weights_that_were_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(interactive, "POINTS", (5,))
    monkeypatch.setattr(interactive, "from_data", interactive.distilled)
    interactive.main(tmp_path / "models.js", config=(brief := TrainConfig(steps=1, batch=4, lr=1e-3)))
    text = (tmp_path / "models.js").read_text().removeprefix("const MINICM = ").removesuffix(";\n")
    weights = interactive.unpacked(json.loads(text)["models"]["CD"]["5"])
    for name, value in interactive.distilled(5, brief).net.state_dict().items():
        assert torch.equal(weights[name], value.float()), name
