"""A run in its folder: numbered, never written over, killed and resumed bit for bit, stopped by Ctrl-C in good order."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minicm.checkpoint import CheckpointError, load_checkpoint
from minicm.denoiser import Denoiser
from minicm.objectives.cd import CD
from minicm.runs import run as run_module
from minicm.runs.folder import alone, new_folder, seconds_of
from minicm.runs.run import RunOptions, is_teacher, run
from minicm.times import karras_grid
from minicm.train import Diverged, Step

KILLED = """
import sys, torch
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import tiny
from minicm.recipes.run import RunOptions, run
run("tiny", tiny(steps={steps}), dict(seed=0), RunOptions(folder=Path({folder!r}), save_every=1, log_every=1, quiet=True))
"""


def quiet(folder, **options):
    return RunOptions(folder=folder, quiet=True, **options)


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def equal(a, b):
    assert a.keys() == b.keys()
    for k, v in a.items():
        assert torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k], k


def test_a_killed_run_goes_on_bit_for_bit(tmp_path, tiny_recipe):
    """Killed while it writes checkpoint after checkpoint; weights, averages, optimiser and generator are compared."""
    steps, folder = 4000, tmp_path / "killed"
    code = KILLED.format(tests=str(Path(__file__).parents[1]), steps=steps, folder=str(folder))
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    records = folder / "log.jsonl"
    while not (records.exists() and records.read_bytes().count(b"\n") >= 5):
        assert child.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    child.kill()  # SIGKILL: no clean-up of any kind
    child.wait()
    reached = load_checkpoint(folder)["k"]
    assert 4 <= reached < steps
    # the same run resumed and followed to a step further on, against one that was never stopped
    goal = reached + 7
    equal(until(goal, folder, tiny_recipe, steps), until(goal, None, tiny_recipe, steps, tmp_path / "whole"))
    assert [r["k"] for r in log(folder)] == list(range(1, goal + 1))  # no record twice, none missing


def until(goal, resume, tiny_recipe, steps, folder=None):
    """The checkpoint of step `goal` of a run that Ctrl-C stops there."""
    recipe = tiny_recipe(steps=steps)
    recipe = recipe._replace(data=Interrupting(recipe.data, goal - (load_checkpoint(resume)["k"] if resume else 0)))
    where = RunOptions(resume=resume, folder=folder, log_every=1, quiet=True)
    done = run("tiny", recipe, {"seed": 0}, where)
    assert done.k == goal
    return load_checkpoint(done.folder)


class Interrupting:
    """Data whose n-th draw comes with a Ctrl-C."""

    def __init__(self, data, n):
        self.data, self.n = data, n

    def sample(self, n, generator):
        self.n -= 1
        if self.n == 0:
            signal.raise_signal(signal.SIGINT)
        return self.data.sample(n, generator)


def test_ctrl_c_stops_after_the_step_and_says_how_to_go_on(tmp_path, tiny_recipe, capsys):
    before = signal.getsignal(signal.SIGINT)
    recipe = tiny_recipe()
    done = run("tiny", recipe._replace(data=Interrupting(recipe.data, 5)), {}, quiet(tmp_path / "r"))
    assert done.k == 5 == load_checkpoint(done.folder)["k"] and done.interrupted
    assert f"stopped after step 5 of 12; to go on, give the same command and --resume {done.folder}" in (
        capsys.readouterr().err
    )
    assert signal.getsignal(signal.SIGINT) is before
    run("tiny", tiny_recipe(), {}, RunOptions(resume=done.folder, quiet=True))
    whole = run("tiny", tiny_recipe(), {}, quiet(tmp_path / "whole"))
    equal(load_checkpoint(done.folder), load_checkpoint(whole.folder))


def test_a_second_ctrl_c_stops_at_once(tmp_path, tiny_recipe):
    recipe = tiny_recipe()
    twice = Interrupting(Interrupting(recipe.data, 3), 3)
    with pytest.raises(KeyboardInterrupt):
        run("tiny", recipe._replace(data=twice), {}, quiet(tmp_path / "r"))


def test_the_folder_tells_all(tmp_path, tiny_recipe):
    recipe = tiny_recipe()
    done = run("tiny", recipe, {"seed": 0, "config": recipe.config}, quiet(tmp_path / "r", log_every=5))
    assert [r["k"] for r in log(done.folder)] == [5, 10, 12]
    assert set(log(done.folder)[0]) == {"k", "loss", "lr", "seconds", "samples_per_second", "peak_memory_mb"}
    config = json.loads((done.folder / "config.json").read_text())
    assert (config["recipe"], config["config"]["lr"]) == ("tiny", 1e-2)
    assert sorted(p.name for p in done.folder.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "log.jsonl",
    ]


def test_numbers_go_on_and_nothing_is_written_over(tmp_path):
    names = [new_folder(tmp_path, "a").name for _ in range(2)]
    (tmp_path / "a-009").mkdir()
    (tmp_path / "a-b-999").mkdir()  # another recipe's, and one that is no number
    (tmp_path / "a-1x").mkdir()
    names += [new_folder(tmp_path, "a").name, new_folder(tmp_path, "b").name]
    assert names == ["a-001", "a-002", "a-010", "b-001"]


@pytest.mark.parametrize("left", ["config.json", "log.jsonl", "checkpoint.safetensors"])
def test_a_folder_that_holds_a_run_is_kept(tmp_path, tiny_recipe, left):
    (tmp_path / left).write_text("precious")
    with pytest.raises(FileExistsError, match="holds a run already: --resume it, --overwrite it or choose another"):
        run("tiny", tiny_recipe(), {}, quiet(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == [left]
    assert (tmp_path / left).read_text() == "precious"


def test_a_folder_is_one_process_s_alone(tmp_path, tiny_recipe):
    """While somebody trains there, neither a new run nor a resumed one begins, and nothing is touched."""
    pytest.importorskip("fcntl", reason="Windows has no such locks")
    stopped = tiny_recipe()._replace(data=Interrupting(tiny_recipe().data, 5))
    run("tiny", stopped, {}, quiet(tmp_path / "r"))
    before = {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()}
    with alone(tmp_path / "r"):
        for where in (quiet(tmp_path / "r", overwrite=True), RunOptions(resume=tmp_path / "r", quiet=True)):
            with pytest.raises(FileExistsError, match=r"another process trains in .*: wait for its end"):
                run("tiny", tiny_recipe(), {}, where)
    assert {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()} == before
    assert run("tiny", tiny_recipe(), {}, RunOptions(resume=tmp_path / "r", quiet=True)).k == 12


def test_overwrite_without_a_folder_is_refused():
    with pytest.raises(ValueError, match="--overwrite starts a --folder again: say which"):
        RunOptions(overwrite=True)


def test_overwrite_starts_again(tmp_path, tiny_recipe):
    run("tiny", tiny_recipe(), {}, quiet(tmp_path))
    run("tiny", tiny_recipe(1, steps=3), {}, quiet(tmp_path, overwrite=True, log_every=1))
    assert load_checkpoint(tmp_path)["k"] == 3 == len(log(tmp_path))


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"name": "other"}, "its recipe is tiny, this run's other"),
        ({"options": {"data": "grid"}}, "its options.data is ring, this run's grid"),
        ({"recipe": {"batch": 8}}, "trained with batch = 16, this run has batch = 8"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, tiny_recipe, change, complaint):
    run("tiny", tiny_recipe(), {"data": "ring"}, quiet(tmp_path))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=complaint):
        run(
            change.get("name", "tiny"),
            tiny_recipe(**change.get("recipe", {})),
            change.get("options", {"data": "ring"}),
            RunOptions(resume=tmp_path, quiet=True),
        )
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_another_teacher_is_refused(tmp_path, tiny_recipe):
    """A distillation goes on with the weights that it was begun with, whatever lies at their path."""

    def distil(seed):
        recipe = tiny_recipe()
        teacher = Denoiser(tiny_recipe(seed).model.net)
        return recipe._replace(objective=CD(teacher, grid=karras_grid(4)))

    stopped = distil(1)._replace(data=Interrupting(distil(1).data, 5))
    done = run("tiny", stopped, {}, quiet(tmp_path / "r"))
    with pytest.raises(CheckpointError, match=r"its teacher is [0-9a-f]{16}, this run's [0-9a-f]{16}"):
        run("tiny", distil(2), {}, RunOptions(resume=done.folder, quiet=True))
    assert run("tiny", distil(1), {}, RunOptions(resume=done.folder, quiet=True)).k == 12


def test_a_finished_run_has_nothing_left(tmp_path, tiny_recipe):
    run("tiny", tiny_recipe(), {}, quiet(tmp_path))
    with pytest.raises(CheckpointError, match="has done all its 12 steps"):
        run("tiny", tiny_recipe(), {}, RunOptions(resume=tmp_path, quiet=True))


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path, tiny_recipe):
    recipe = tiny_recipe()
    run("tiny", recipe._replace(data=Interrupting(recipe.data, 5)), {}, quiet(tmp_path, log_every=1))
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"k": 6, "loss": 1.0}\n{"k": 7, "lo')
    run("tiny", tiny_recipe(), {}, RunOptions(resume=tmp_path, log_every=1, quiet=True))
    assert [r["k"] for r in log(tmp_path)] == list(range(1, 13))


def test_a_full_disk_on_resuming_keeps_the_log(tmp_path, tiny_recipe, monkeypatch):
    recipe = tiny_recipe()
    run("tiny", recipe._replace(data=Interrupting(recipe.data, 5)), {}, quiet(tmp_path, log_every=1))

    def full(path, *args, **options):
        open(path, "w").close()  # opening for writing empties a file before the disk says that it is full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        run("tiny", tiny_recipe(), {}, RunOptions(resume=tmp_path, quiet=True))
    assert [r["k"] for r in log(tmp_path)] == [1, 2, 3, 4, 5]


def test_what_a_kill_left_of_a_save_goes_when_the_run_goes_on_or_starts_again(tmp_path, tiny_recipe):
    recipe = tiny_recipe()
    run("tiny", recipe._replace(data=Interrupting(recipe.data, 5)), {}, quiet(tmp_path))
    for where in (RunOptions(resume=tmp_path, quiet=True), quiet(tmp_path, overwrite=True)):
        (tmp_path / "checkpoint.safetensors.1.part").write_bytes(b"half")
        run("tiny", tiny_recipe(), {}, where)
        assert not list(tmp_path.glob("*.part"))


def test_numbers_that_fail_keep_the_last_good_checkpoint(tmp_path, tiny_recipe, faulty):
    recipe = tiny_recipe()._replace(data=faulty(6, lambda x0: x0 * float("nan")))
    with pytest.raises(Diverged, match=r"step 6 of 12.*holds the checkpoint of step 4"):
        run("tiny", recipe, {}, quiet(tmp_path / "a", save_every=2, log_every=5))
    assert load_checkpoint(tmp_path / "a")["k"] == 4
    recipe = tiny_recipe()._replace(data=faulty(6, lambda x0: x0 * float("nan")))
    with pytest.raises(Diverged, match="holds no checkpoint"):
        run("tiny", recipe, {}, quiet(tmp_path / "b"))


def test_weights_that_are_not_finite_are_never_saved(tmp_path, tiny_recipe):
    """A GPU is looked at only now and then, so that the loop itself may not have noticed."""
    model = tiny_recipe().model
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    step = Step(9, torch.zeros(()), model, model, model, lambda: {})
    with pytest.raises(Diverged, match="a weight is not finite after step 9"):
        run_module._save(tmp_path, step, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_costs_no_folder(tmp_path, tiny_recipe):
    with pytest.raises(ValueError, match='device "cuda" is not there'):
        run("tiny", tiny_recipe(device="cuda"), {}, RunOptions(runs=tmp_path, quiet=True))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_during_a_run_keeps_the_last_checkpoint(tmp_path, tiny_recipe, monkeypatch):
    calls, fsync = [], os.fsync

    def fills(fd):
        calls.append(fd)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fills)
    with pytest.raises(CheckpointError, match="No space left on device"):
        run("tiny", tiny_recipe(), {}, quiet(tmp_path, save_every=2))
    assert load_checkpoint(tmp_path)["k"] == 4
    assert not list(tmp_path.glob("*.part"))
    monkeypatch.undo()
    assert run("tiny", tiny_recipe(), {}, RunOptions(resume=tmp_path, quiet=True)).k == 12


def test_a_budget_stops_after_the_step_and_the_rest_follows(tmp_path, tiny_recipe, capsys):
    """Stopped by its time and resumed, a run is bit for bit the one that never stopped; K stays the config's."""
    recipe = tiny_recipe()
    slow = recipe._replace(data=Slow(recipe.data))
    done = run("tiny", slow, {}, quiet(tmp_path / "r", budget="0.3s"))
    assert 1 <= done.k < 12 and load_checkpoint(done.folder)["k"] == done.k  # 12 steps of .1 s do not fit into .3 s
    assert f"--resume {done.folder}" in capsys.readouterr().err
    assert not done.interrupted  # its time was up: the command exits with 0
    run("tiny", tiny_recipe(), {}, RunOptions(resume=done.folder, budget="1h", quiet=True))
    whole = run("tiny", tiny_recipe(), {}, quiet(tmp_path / "whole"))
    equal(load_checkpoint(done.folder), load_checkpoint(whole.folder))


class Slow:
    """Data that take a tenth of a second a draw."""

    def __init__(self, data):
        self.data = data

    def sample(self, n, generator):
        time.sleep(0.1)
        return self.data.sample(n, generator)


def test_budgets_are_numbers_with_a_unit():
    assert [seconds_of(b) for b in ("90s", "9min", "1h", "1.5 h", ".5s")] == [90, 540, 3600, 5400, 0.5]
    for wrong in ("9", "9m", "min", "0s", "-1s", "1h30min", ""):
        with pytest.raises(ValueError, match="a budget is a number and one of s, min, h, such as 9min"):
            RunOptions(budget=wrong)


@pytest.mark.parametrize(
    "recipe, teacher", [("mixture-teacher", True), ("cifar10-teacher-published", True), ("cifar10-cd", False)]
)
def test_teachers_are_known_by_their_recipe(recipe, teacher):
    assert is_teacher({"recipe": recipe}) == teacher


def test_bad_options_are_named(tmp_path):
    for name in ("save_every", "log_every"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            RunOptions(**{name: 0})
    with pytest.raises(ValueError, match="--resume or --folder, not both"):
        RunOptions(resume=tmp_path, folder=tmp_path)
