"""The comparison: equal budgets counted from the losses themselves, nothing done twice, and a table and figure that say so."""

import json
from functools import partial

import pytest
import torch
from exact import refused

from docs.studies import bands
from minicm import CD, DSM, EDM, MLP, SCM, TCD, Denoiser, GaussianMixture, InClock, TrainConfig, TrigFlow, karras_grid
from minicm.evaluate import compare
from minicm.evaluate.budget import cost, steps_within
from minicm.evaluate.compare import Remembered, Task, comparison_figure, comparison_table
from minicm.evaluate.points import against_teacher, evaluate, evaluate_teacher
from minicm.metrics import consistency_error
from minicm.recipes import points
from minicm.runs.folder import alone
from minicm.runs.run import Recipe

RING = GaussianMixture.ring()


def small(schedule=EDM(), t_min=0.0, seed=0, **options) -> Denoiser:
    torch.manual_seed(seed)
    return Denoiser(MLP(2, 8, 1, features=4, **options), schedule, t_min=t_min)


def student(objective, model: Denoiser) -> Recipe:
    return Recipe(model, objective, RING, TrainConfig(steps=5, batch=16, lr=1e-3))


LEARNED = small(seed=1).requires_grad_(False)


# ------------------------------------------------------------------------------------------- the budget
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: student(DSM(), small()), 3),  # forward and backward
        (lambda: points.mixture_ct(), 3 + 1),  # and the target
        (lambda: points.mixture_ict(), 3 + 1),
        (lambda: points.mixture_ect(), 3 + 1),
        (lambda: points.mixture_cd(), 3 + 1),  # an exact denoiser is no network
        (lambda: student(CD(LEARNED, grid=karras_grid(18)), small(t_min=0.002)), 3 + 1 + 2),  # Heun
        (lambda: points.mixture_sct(), 3 + 2),  # the target and its derivative in one
        (lambda: student(SCM(InClock(LEARNED, TrigFlow())), small(TrigFlow())), 3 + 2 + 1),
        (lambda: student(TCD(LEARNED, skip=1, grid=karras_grid(18)), small(t_min=0.002, second_time=True)), 3 + 1 + 1),
    ],
)
def test_the_cost_is_what_a_loss_calls_the_networks_for(make, expected):
    recipe = make()
    before = [p.clone() for p in recipe.model.parameters()]
    assert cost(recipe) == expected
    assert all(torch.equal(a, b) for a, b in zip(before, recipe.model.parameters()))
    assert not any(module._forward_hooks for module in (*recipe.model.modules(), *LEARNED.modules()))


def test_a_budget_buys_steps():
    recipe = points.mixture_cd()  # 4 evaluations for each of 512 samples
    assert steps_within(4 * 512 * 7, recipe) == 7 and steps_within(4 * 512 * 8 - 1, recipe) == 7
    refused("budget of 2,047 evaluations is less than one update, 2,048", lambda: steps_within(2047, recipe))


# -------------------------------------------------------------------------------------- the comparison
def tiny_teacher(*, data="ring", config=TrainConfig(steps=9, batch=16, lr=1e-2)) -> Recipe:
    return Recipe(small(seed=config.seed), DSM(), points.points_named(data), config)


def tiny_cd(*, data="ring", teacher=None, config=TrainConfig(steps=7, batch=8, lr=1e-2)) -> Recipe:
    mixture = points.points_named(data)
    objective = CD(points.teacher_of(teacher, mixture), grid=karras_grid(5))
    return Recipe(small(t_min=0.002, seed=config.seed), objective, mixture, config)


@pytest.fixture
def tiny(monkeypatch):
    """A comparison that takes a second, and the list of what it trained."""
    methods = {"teacher": tiny_teacher, "CD exact": tiny_cd, "CD": tiny_cd}
    monkeypatch.setattr(compare, "METHODS", methods)
    for name, measure in {"evaluate": evaluate, "evaluate_teacher": evaluate_teacher}.items():
        monkeypatch.setattr(compare, name, partial(measure, n=20))
    monkeypatch.setattr("minicm.evaluate.points.consistency_error", partial(consistency_error, n=10))
    monkeypatch.setattr(compare, "against_teacher", partial(against_teacher, n=20))
    trained, run = [], compare.run
    monkeypatch.setattr(compare, "run", lambda name, *rest: trained.append(name) or run(name, *rest))
    return trained


def go(folder, **options) -> int:
    return compare.compare(
        **{"methods": ("CD exact", "CD"), "data": ("ring",), "seeds": (0, 1), "evaluations": 640} | options,
        folder=folder,
    )


def test_every_training_gets_the_same_budget_and_an_entry(tiny, tmp_path, capsys):
    assert go(tmp_path) == 0
    records = list(compare.read(tmp_path))
    assert {(r["method"], r["seed"]) for r in records} == {
        (method, seed) for method in ("teacher", "CD exact", "CD") for seed in (0, 1)
    }
    for record in records:
        update = record["cost"] * record["batch"]
        assert 640 - update < record["steps"] * update <= 640
    printed = capsys.readouterr().out
    assert "| ring | CD | 2 | 13 x 8 |" in printed and "| ring | exact f* |" in printed
    assert (tmp_path / "table.md").read_text() in printed and (tmp_path / "compare.png").stat().st_size > 5000
    students = [r for r in records if r["method"] == "CD"]
    assert all("1-step RMSE to the teacher" in r["rows"] for r in students)
    assert len({r["rows"]["1-step RMSE"] for r in records if r["method"] == "CD exact"}) == 2  # seeds differ


def test_what_is_done_is_not_done_again(tiny, tmp_path):
    go(tmp_path, seeds=(0,))
    assert tiny == ["compare-teacher", "compare-CD-exact", "compare-CD"]
    go(tmp_path, seeds=(0,))
    assert len(tiny) == 3
    Task("CD exact", "ring", 0, 640).record(tmp_path).unlink()
    go(tmp_path, seeds=(0,))
    assert tiny[3:] == ["compare-CD-exact"]
    go(tmp_path, seeds=(0,), evaluations=1280)
    assert len(tiny) == 7  # another budget is another comparison


def test_a_training_that_was_stopped_leaves_no_entry(tiny, tmp_path, monkeypatch):
    run = compare.run
    monkeypatch.setattr(compare, "run", lambda *args: run(*args)._replace(k=1))
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path)
    assert not list(tmp_path.glob("*.json"))
    monkeypatch.setattr(compare, "run", run)
    go(tmp_path, seeds=(0,))
    assert len(list(compare.read(tmp_path))) == 3


def test_without_a_budget_recipes_have_their_own_length_and_make_bands(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(bands, "METHODS", compare.METHODS)
    go(tmp_path)
    assert bands.bands([tmp_path]) == {}  # a budget's trainings say nothing of what a recipe reaches
    go(tmp_path, evaluations=None)
    own = [r for r in compare.read(tmp_path) if r["evaluations"] is None]
    assert {(r["method"], r["steps"]) for r in own} == {("teacher", 9), ("CD exact", 7), ("CD", 7)}
    found = bands.bands([tmp_path])
    assert set(found) == {"tiny-teacher ring", "tiny-cd ring"}
    values = [r["rows"]["1-step RMSE"] for r in own if r["method"] != "teacher"]
    edges = [float(f"{edge:.4g}") for edge in (min(values), max(values))]
    assert found["tiny-cd ring"]["1-step RMSE"] == edges
    kept = tmp_path.with_name("bands.json")
    kept.write_text('{"another ring": {}, "tiny-cd ring": {"gone": [0, 1]}}')
    assert bands.update([tmp_path], kept) == ["tiny-cd ring", "tiny-teacher ring"]
    merged = json.loads(kept.read_text())
    assert merged["another ring"] == {} and "gone" not in merged["tiny-cd ring"]
    assert merged["tiny-cd ring"]["1-step RMSE"] == edges


def test_unknown_methods_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown methods \\['DC'\\]: choose from teacher"):
        compare.compare(methods=("DC",), folder=tmp_path)
    refused("nothing to compare", lambda: compare.compare(seeds=(), folder=tmp_path))
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------- several processes
def test_several_folders_make_one_table(tiny, tmp_path, capsys):
    """Two processes take a seed each; the table of both counts a training that both have done once."""
    go(tmp_path / "a", seeds=(0,))
    go(tmp_path / "b", seeds=(0, 1))
    go(tmp_path / "b", seeds=(1,), evaluations=1280)  # another budget is another table
    capsys.readouterr()
    before = len(tiny)
    go(tmp_path / "a", seeds=(0,), also=(tmp_path / "b",))
    assert len(tiny) == before
    assert "| ring | CD | 2 | 13 x 8 |" in capsys.readouterr().out
    mine = Task("CD", "ring", 0, 640).record(tmp_path / "a")
    mine.write_text(json.dumps(json.loads(mine.read_text()) | {"seconds": 99.0}))
    for order, first in (("ab", True), ("ba", False)):
        found = {
            (r["method"], r["seed"], r["evaluations"]): r for r in compare.read(*(tmp_path / name for name in order))
        }
        assert len(found) == 9 and (found["CD", 0, 640]["seconds"] == 99.0) == first


def test_a_folder_has_one_process(tiny, tmp_path):
    pytest.importorskip("fcntl", reason="Windows has no such locks")
    with alone(tmp_path), pytest.raises(FileExistsError, match="another process trains in"):
        go(tmp_path)
    assert tiny == [] and go(tmp_path, seeds=(0,)) == 0


# ------------------------------------------------------------------------------------- what is reported
def record(method, seed, error, data="ring") -> dict:
    names = ["1-step RMSE", "1-step median", "2-step median", "4-step median"]
    if method == "teacher":
        names = ["Heun-40 RMSE", "Heun-40 median"]
    floors = {"Heun-40 median": 0.001} if method == "teacher" else {"1-step RMSE": 0.0}
    size = {"steps": 10, "batch": 100, "cost": 4, "seconds": 1.0}
    return {"method": method, "data": data, "seed": seed, "rows": dict.fromkeys(names, error), "floors": floors} | size


RECORDS = [
    record(method, seed, base + 0.01 * seed, data)
    for data in ("ring", "grid")
    for method, base in {"regression on f*": 0.02, "CD": 0.05, "teacher": 0.01}.items()
    for seed in range(3)
]


def test_the_table_gives_mean_and_spread_and_floor():
    lines = comparison_table(RECORDS, ["teacher", "regression on f*", "CD"]).splitlines()
    assert lines[2].startswith("| ring | exact f* |") and "| 0.000 |" in lines[2]
    assert lines[5].startswith("| ring | CD | 3 | 10 x 100 | 0.0 M | 1 | 0.060 ± 0.010 | 0.060 ± 0.010 |")
    assert lines[3].startswith("| ring | teacher | 3 |") and "0.020 ± 0.010" in lines[3]
    assert len(lines) == 2 + 2 * 4 and len({line.count("|") for line in lines}) == 1
    assert "| 0.050 |" in comparison_table([record("CD", 0, 0.05)], ["CD"])  # one seed has no spread


def test_the_figure_draws_every_seed_and_both_lines():
    drawn = comparison_figure(RECORDS, ["teacher", "regression on f*", "CD"])
    ring = drawn.axes[0]
    assert [label.get_text() for label in ring.get_yticklabels()] == ["regression on f*", "CD"]
    spans = [line.get_xdata() for line in ring.lines if len(line.get_xdata()) == 2]
    assert any(list(span) == pytest.approx([0.05, 0.07]) for span in spans)  # CD, least and greatest seed
    upright = {round(float(x[0]), 4) for x in spans if x[0] == x[1]}
    assert upright == {0.001, 0.03}  # the floor, and the mean of the regression


def test_what_is_remembered_is_the_same_and_solved_once(monkeypatch):
    solved, flow = [], GaussianMixture.flow
    monkeypatch.setattr(GaussianMixture, "flow", lambda *args: solved.append(1) or flow(*args))
    ring, x = Remembered(RING), RING.sample(10, torch.Generator().manual_seed(0))[0]
    t = torch.full((10,), 0.5, dtype=torch.float64)
    first = ring.flow(x, t, 0.002)
    assert torch.equal(first, flow(RING, x, t, 0.002)) and torch.equal(ring.flow(x, t, 0.002), first)
    assert len(solved) == 1
    for other in (
        lambda: ring.flow(x + 1, t, 0.002),
        lambda: ring.flow(x, 2 * t, 0.002),
        lambda: ring.flow(x, t, 0.1),
        lambda: ring.flow(x, t, 0.002, TrigFlow()),
    ):
        other()
    assert len(solved) == 5


def test_a_student_in_another_clock_is_held_against_its_teacher():
    teacher = InClock(RING.denoiser(), TrigFlow())
    student = small(TrigFlow())
    rows = {row.name: row.value for row in against_teacher(student, teacher, n=50)}
    # the student's c_skip x is near 0 at t_max, the teacher's end a sample: 1, give or take a twentieth of chance
    assert rows["1-step RMSE to the teacher"] == pytest.approx(1, abs=0.2)
