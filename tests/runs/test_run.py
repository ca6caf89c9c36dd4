"""A run in its folder: numbered, never written over, killed and resumed bit for bit, stopped by Ctrl-C in good order."""

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
from exact import refused
from tiny import tiny

from minicm import CD, DSM, Denoiser, GaussianMixture, UNet, karras_grid
from minicm.checkpoint import CheckpointError, load_checkpoint, load_trained
from minicm.data.digits import Digits
from minicm.data.labels import LabelDropout
from minicm.data.latents import Latents
from minicm.data.named import points_named
from minicm.nets.autoencoder import Autoencoder
from minicm.runs import run as run_module
from minicm.runs.folder import alone, new_folder, seconds_of
from minicm.runs.run import Recipe, RunOptions, facts, run
from minicm.train import Diverged, Step, TrainConfig

KILLED = """
import sys, torch
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny import tiny
from minicm.runs.run import RunOptions, run
run("tiny", tiny(steps={steps}), dict(seed=0), RunOptions(folder=Path({folder!r}), save_every=1, log_every=1, quiet=True))
"""


def trained(folder, recipe=None, name="tiny", options=None, **where):
    """A run of a tiny recipe in a folder."""
    return run(name, recipe or tiny(), options or {}, RunOptions(folder=folder, quiet=True, **where))


def resumed(folder, recipe=None, name="tiny", options=None, **where):
    """The same, gone on with."""
    return run(name, recipe or tiny(), options or {}, RunOptions(resume=folder, quiet=True, **where))


def interrupted(recipe, n=5):
    """A recipe whose n-th batch comes with a Ctrl-C."""
    return recipe._replace(data=Interrupting(recipe.data, n))


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def equal(a, b):
    assert a.keys() == b.keys()
    for k, v in a.items():
        assert torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k], k


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
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
    equal(until(goal, folder, steps), until(goal, tmp_path / "whole", steps))
    assert [r["k"] for r in log(folder)] == list(range(1, goal + 1))  # no record twice, none missing


def until(goal, folder, steps):
    """The checkpoint of step `goal` of a run that is begun, or gone on with, and that Ctrl-C stops there."""
    done = load_checkpoint(folder)["k"] if folder.exists() else 0
    go = resumed if done else trained
    assert go(folder, interrupted(tiny(steps=steps), goal - done), options={"seed": 0}, log_every=1).k == goal
    return load_checkpoint(folder)


class Interrupting:
    """Data whose n-th batch comes with a Ctrl-C; the one sample that its shape is read from does not count."""

    def __init__(self, data, n):
        self.data, self.n = data, n

    def sample(self, n, generator):
        self.n -= n > 1
        if self.n == 0:
            signal.raise_signal(signal.SIGINT)
        return self.data.sample(n, generator)


def test_ctrl_c_stops_after_the_step_and_says_how_to_go_on(tmp_path, capsys):
    before = signal.getsignal(signal.SIGINT)
    done = trained(tmp_path / "r", interrupted(tiny()))
    assert done.k == 5 == load_checkpoint(done.folder)["k"] and done.interrupted
    assert f"stopped after step 5 of 12; to go on, give the same command and --resume {done.folder}" in (
        capsys.readouterr().err
    )
    assert signal.getsignal(signal.SIGINT) is before
    resumed(done.folder)
    equal(load_checkpoint(done.folder), load_checkpoint(trained(tmp_path / "whole").folder))


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "r", interrupted(interrupted(tiny(), 3), 3))


def test_the_folder_tells_all(tmp_path):
    done = trained(tmp_path / "r", options={"seed": 0, "config": tiny().config}, log_every=5)
    assert [r["k"] for r in log(done.folder)] == [5, 10, 12]
    assert set(log(done.folder)[0]) == {"k", "loss", "lr", "seconds", "samples_per_second", "peak_memory_mb"}
    config = json.loads((done.folder / "config.json").read_text())
    assert (config["recipe"], config["config"]["lr"]) == ("tiny", 1e-2)
    files = ["checkpoint.safetensors", "config.json", "log.jsonl"]
    assert sorted(p.name for p in done.folder.iterdir()) == files


def test_numbers_go_on_and_nothing_is_written_over(tmp_path):
    names = [new_folder(tmp_path, "a").name for _ in range(2)]
    (tmp_path / "a-009").mkdir()
    (tmp_path / "a-b-999").mkdir()  # another recipe's, and one that is no number
    (tmp_path / "a-1x").mkdir()
    names += [new_folder(tmp_path, "a").name, new_folder(tmp_path, "b").name]
    assert names == ["a-001", "a-002", "a-010", "b-001"]


@pytest.mark.parametrize("left", ["config.json", "log.jsonl", "checkpoint.safetensors"])
def test_a_folder_that_holds_a_run_is_kept(tmp_path, left):
    (tmp_path / left).write_text("precious")
    with pytest.raises(FileExistsError, match="holds a run already: --resume it, --overwrite it or choose another"):
        trained(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [left]
    assert (tmp_path / left).read_text() == "precious"


def test_a_folder_is_one_process_s_alone(tmp_path):
    """While somebody trains there, neither a new run nor a resumed one begins, and nothing is touched."""
    pytest.importorskip("fcntl", reason="Windows has no such locks")
    trained(tmp_path, interrupted(tiny()))
    before = contents(tmp_path)
    with alone(tmp_path):
        for go, options in ((trained, {"overwrite": True}), (resumed, {})):
            with pytest.raises(FileExistsError, match=r"another process trains in .*: wait for it"):
                go(tmp_path, **options)
    assert contents(tmp_path) == before
    assert resumed(tmp_path).k == 12


def test_overwrite_starts_again(tmp_path):
    trained(tmp_path)
    trained(tmp_path, tiny(1, steps=3), overwrite=True, log_every=1)
    assert load_checkpoint(tmp_path)["k"] == 3 == len(log(tmp_path))


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"name": "other"}, "its recipe is tiny, this run's other"),
        ({"options": {"data": "grid"}}, "its options.data is ring, this run's grid"),
        ({"recipe": tiny(batch=8)}, "trained with batch = 16, not with this run's 8"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, change, complaint):
    trained(tmp_path, options={"data": "ring"})
    before = contents(tmp_path)
    refused(complaint, lambda: resumed(tmp_path, **{"options": {"data": "ring"}} | change))
    assert contents(tmp_path) == before


def test_another_teacher_is_refused(tmp_path):
    """A distillation goes on with the weights that it was begun with, whatever lies at their path."""

    def distil(seed):
        return tiny()._replace(objective=CD(Denoiser(tiny(seed).model.net), grid=karras_grid(4)))

    trained(tmp_path, interrupted(distil(1)))
    with pytest.raises(CheckpointError, match=r"its teacher is [0-9a-f]{16}, this run's [0-9a-f]{16}"):
        resumed(tmp_path, distil(2))
    assert resumed(tmp_path, distil(1)).k == 12


def test_a_finished_run_has_nothing_left_and_is_left_as_it_is(tmp_path, capsys):
    trained(tmp_path)
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused("has done all its 12 steps", lambda: resumed(tmp_path), CheckpointError)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before and not capsys.readouterr().err


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    trained(tmp_path, interrupted(tiny()), log_every=1)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"k": 6, "loss": 1.0}\n{"k": 7, "lo')
    resumed(tmp_path, log_every=1)
    assert [r["k"] for r in log(tmp_path)] == list(range(1, 13))


def test_a_full_disk_on_resuming_keeps_the_log(tmp_path, monkeypatch):
    trained(tmp_path, interrupted(tiny()), log_every=1)

    def full(path, *args, **options):
        open(path, "w").close()  # opening for writing empties a file before the disk says that it is full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    refused("No space left", lambda: resumed(tmp_path), OSError)
    assert [r["k"] for r in log(tmp_path)] == [1, 2, 3, 4, 5]


def test_what_a_kill_left_of_a_save_goes_when_the_run_goes_on_or_starts_again(tmp_path):
    trained(tmp_path, interrupted(tiny()))
    for go, options in ((resumed, {}), (trained, {"overwrite": True})):
        (tmp_path / "checkpoint.safetensors.1.part").write_bytes(b"half")
        go(tmp_path, **options)
        assert not list(tmp_path.glob("*.part"))


def test_numbers_that_fail_keep_the_last_good_checkpoint(tmp_path, faulty):
    for folder, options, holds in (
        (tmp_path / "a", {"save_every": 2, "log_every": 5}, r"step 6 of 12.*holds the checkpoint of step 4"),
        (tmp_path / "b", {}, "holds no checkpoint"),
    ):
        with pytest.raises(Diverged, match=holds):
            trained(folder, tiny()._replace(data=faulty(6, lambda x0: x0 * float("nan"))), **options)
    assert load_checkpoint(tmp_path / "a")["k"] == 4


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """A GPU is looked at only now and then, so that the loop itself may not have noticed."""
    model = tiny().model
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    step = Step(9, torch.zeros(()), model, model, model, lambda: {})
    refused("a weight is not finite after step 9", lambda: run_module._save(tmp_path, step, {}), Diverged)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_costs_no_folder(tmp_path):
    refused('device "cuda" is not there', lambda: trained(None, tiny(device="cuda"), runs=tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_during_a_run_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    calls, fsync = [], os.fsync

    def fills(fd):
        calls.append(fd)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fills)
    refused("No space left on device", lambda: trained(tmp_path, save_every=2), CheckpointError)
    assert load_checkpoint(tmp_path)["k"] == 4
    assert not list(tmp_path.glob("*.part"))
    monkeypatch.undo()
    assert resumed(tmp_path).k == 12


def test_a_budget_stops_after_the_step_and_the_rest_follows(tmp_path, capsys):
    """Stopped by its time and resumed, a run is bit for bit the one that never stopped; K stays the config's."""
    done = trained(tmp_path / "r", tiny()._replace(data=Slow(tiny().data)), budget="0.3s")
    assert 1 <= done.k < 12 and load_checkpoint(done.folder)["k"] == done.k  # 12 steps of .1 s do not fit into .3 s
    assert f"--resume {done.folder}" in capsys.readouterr().err
    assert not done.interrupted  # its time was up: the command exits with 0
    resumed(done.folder, budget="1h")
    equal(load_checkpoint(done.folder), load_checkpoint(trained(tmp_path / "whole").folder))


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


def test_a_checkpoint_says_what_its_model_is(tmp_path):
    """Read from the recipe's objects, whatever the run is called: "teacher" in its name makes no diffusion model."""
    trained(tmp_path / "student", tiny()._replace(data=points_named("ring")), "cd-no-teacher")
    trained(tmp_path / "own", tiny()._replace(objective=DSM()), "student")
    student, own = (load_trained(tmp_path / name) for name in ("student", "own"))
    assert (student.kind, student.data, student.shape) == ("consistency", "ring", (2,))
    assert (own.kind, own.data, own.shape) == ("diffusion", None, (2,))
    assert own.header["teacher"] is own.header["decoder"] is None and not own.pictures
    exact = tiny()._replace(objective=CD(GaussianMixture.ring().denoiser(), grid=karras_grid(4)))
    assert facts(exact)["teacher"] == "exact"


def test_facts_pass_through_dropped_labels_and_latents():
    autoencoder = Autoencoder(width=8)
    data = LabelDropout(Latents(Digits(), autoencoder), 0.1, 10)
    model = Denoiser(UNet(2, 8, (1,), classes=10, attention=()))
    found = facts(Recipe(model, DSM(), data, TrainConfig(steps=1, batch=2, lr=1e-3)))
    assert (found["data"], found["shape"], found["decoder"]["options"]) == ("digits", [2, 4, 4], autoencoder.options)
    for key, value in autoencoder.state_dict().items():
        assert torch.equal(found[f"decoder/{key}"], value)


def test_bad_options_are_named(tmp_path):
    for name in ("save_every", "log_every"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            RunOptions(**{name: 0})
    refused("--resume or --folder, not both", lambda: RunOptions(resume=tmp_path, folder=tmp_path))
    refused("--overwrite starts a --folder again: say which", lambda: RunOptions(overwrite=True))
