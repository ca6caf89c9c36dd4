"""The bench measures what it says; how fast anything is, no test asserts."""

from __future__ import annotations

import json

from minicm.__main__ import main
from minicm.recipes.bench import BATCH, flops, model, objectives, take_turns


def test_a_smoke_run_measures_every_objective_and_writes_json(tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert main(["bench", "--fast", "--out", str(out)]) == 0
    numbers = json.loads(out.read_text())
    assert {row["objective"] for row in numbers["training"]} == set(objectives(False))
    assert all(row["eager_steps_per_s"] > 0 for row in numbers["training"])
    assert {"minicm", "plain"} <= set(numbers["cd_against_plain_loop"])
    assert "exact flow to 1e-8" in capsys.readouterr().out


def test_flops_count_two_for_each_weight_and_sample():
    weights = (2 + 128) * 128 + 3 * 128 * 128 + 128 * 2 + 13 * 128  # in, three layers, out, time
    assert flops(model().net) == 2 * BATCH * weights


def test_variants_take_turns():
    order = []
    take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, calls=2)
    assert order == [*"aabb", *"aabb", *"aabb"]  # two warm-up calls each, then rounds
