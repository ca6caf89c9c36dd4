"""The command, called in this process: what it does, what it refuses, its exit codes, and that its help reads well."""

import json
import os
import subprocess
import sys

import numpy
import pytest
import torch
from exact import refused

import minicm
from minicm import DSM, load_checkpoint, save_checkpoint
from minicm.__main__ import COMMANDS, loaded, main
from minicm.data.named import points_named
from minicm.recipes import RECIPES
from minicm.runs.run import facts

BRIEF = ["--steps", "6", "--batch", "8", "--save-every", "4", "--log-every", "2", "--quiet"]


@pytest.fixture
def student(tmp_path, tiny_recipe):
    """A run folder with an untrained consistency model, under a name that says nothing true."""
    return saved(tmp_path / "student", tiny_recipe()._replace(data=points_named("ring")), "cd-no-teacher")


def saved(folder, recipe, name):
    """What `run` leaves of a recipe, before its first step."""
    folder.mkdir()
    weights = {f"ema/{key}": value for key, value in recipe.model.state_dict().items()}
    header = {"recipe": name, "options": {}} | facts(recipe)
    save_checkpoint(folder / "checkpoint.safetensors", header | weights)
    return folder


def command(line, *more):
    return main([*line.split(), *map(str, more)])


def test_train_resume_sample_evaluate(tmp_path, capsys):
    """The way of a user through the command, and the numbering of runs and samples."""
    for name in ("mixture-teacher", "mixture-ct", "mixture-ct"):
        assert command(f"train {name}", *BRIEF, "--runs", tmp_path) == 0
    assert command("train mixture-cd --teacher", tmp_path / "mixture-teacher-001", *BRIEF, "--runs", tmp_path) == 0
    names = ["mixture-cd-001", "mixture-ct-001", "mixture-ct-002", "mixture-teacher-001"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    run = tmp_path / "mixture-ct-001"
    assert load_checkpoint(run)["k"] == 6
    captured = capsys.readouterr()
    assert f"mixture-ct: {run}" in captured.err and f"see: minicm evaluate {run}" in captured.out
    assert command("train mixture-ct", *BRIEF, "--resume", run) == 2  # nothing is left
    assert command("train mixture-ct", *BRIEF, "--folder", run) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert command("train mixture-ct", *BRIEF, "--folder", run, "--overwrite") == 0
    assert command("train mixture-cd", *BRIEF, "--resume", run) == 2
    assert "its recipe is mixture-ct, this run's mixture-cd" in capsys.readouterr().err
    assert command("train mixture-cd --teacher", run, *BRIEF, "--runs", tmp_path) == 2
    assert "no diffusion teacher" in capsys.readouterr().err
    for name in ("mixture-teacher-001", "mixture-cd-001"):
        assert command("evaluate --n 64", tmp_path / name) == 0
        assert ("Heun-40 RMSE" if "teacher" in name else "1-step RMSE") in capsys.readouterr().out


def test_a_run_cut_short_exits_130(tmp_path, monkeypatch, capsys):
    from minicm.runs import run as run_module

    monkeypatch.setattr(run_module.Stop, "asked", True)
    assert command("train mixture-ct", *BRIEF, "--runs", tmp_path) == 130
    assert "stopped after step 1 of 6; to go on" in capsys.readouterr().err
    monkeypatch.undo()
    assert command("train mixture-ct", *BRIEF, "--resume", tmp_path / "mixture-ct-001") == 0


def test_samples_are_counted_repeatable_and_never_written_over(student, tmp_path, capsys):
    for _ in range(2):
        assert command("sample --n 5 --steps 2", student) == 0
    assert "5 samples, 2 evaluations of the network each" in capsys.readouterr().out
    first, second = (numpy.load(student / f"samples-00{i}.npy", allow_pickle=False) for i in (1, 2))
    assert first.shape == (5, 2) and (first == second).all()
    assert command("sample --n 5 --times 80 8 0.8 --gamma 0 --seed 1 --out", tmp_path / "x.npy", student) == 0
    assert "3 evaluations" in capsys.readouterr().out
    before = (tmp_path / "x.npy").read_bytes()
    assert command("sample --out", tmp_path / "x.npy", student) == 2
    assert "exists: choose another --out" in capsys.readouterr().err
    assert (tmp_path / "x.npy").read_bytes() == before


def test_points_are_drawn_where_asked(student, tmp_path, capsys):
    assert command("sample --n 5 --plot --out", tmp_path / "x.npy", student) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "y.png").touch()
    capsys.readouterr()
    assert command("sample --n 5 --plot --out", tmp_path / "y.npy", student) == 2
    assert "y.png exists" in capsys.readouterr().err and not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize(
    "options, complaint",
    [
        ("--times 0.8 80", "decreas"),
        ("--times 80 80", "decreas"),
        ("--times 80 0.0001", "0.002"),
        ("--times 100", "80"),
        ("--gamma 1.5", "gamma must lie in [0, 1]"),
        ("--gamma -0.1", "gamma must lie in [0, 1]"),
        ("--steps 3", "steps must be one of 1, 2, 4, got 3"),
        ("--n 0", "n must be at least 1, got 0"),
        ("--out /no/such/folder/x.npy", "/no/such/folder is no folder"),
    ],
)
def test_sampling_out_of_range_is_refused(student, capsys, options, complaint):
    assert (
        command(f"sample {options} --n" + (" 3" if "--n" not in options else options.partition("--n")[2]), student) == 2
    )
    error = capsys.readouterr().err
    assert complaint in error and error.startswith("minicm: ") and error.count("\n") == 1
    assert not list(student.glob("*.npy"))


def test_a_model_is_what_its_checkpoint_says_and_not_what_its_run_is_called(student, tmp_path, tiny_recipe, capsys):
    """A consistency model of the run "cd-no-teacher" is sampled and evaluated as one; a teacher is in neither way."""
    assert command("sample --n 5", student) == command("evaluate --n 64", student) == 0
    assert "| 1-step RMSE |" in capsys.readouterr().out
    recipe = tiny_recipe()._replace(data=points_named("ring"), objective=DSM())
    teacher = saved(tmp_path / "teacher", recipe, "mixture-ct")
    assert command("evaluate --n 64", teacher) == 0
    assert "| Heun-40 RMSE |" in capsys.readouterr().out
    assert command("sample", teacher) == 2
    assert "holds a diffusion model" in capsys.readouterr().err


def test_data_of_ones_own_are_sampled_but_not_evaluated(tmp_path, tiny_recipe, capsys):
    own = saved(tmp_path / "own", tiny_recipe(), "mixture-ct")
    assert command("sample --n 5", own) == 0
    assert command("evaluate --n 64", own) == 2
    assert "trained on data of one's own: only one of ring, grid" in capsys.readouterr().err


def test_a_checkpoint_of_a_former_version_gets_one_clear_line(student, capsys):
    state = load_checkpoint(student)
    for fact in ("kind", "shape"):
        del state[fact]
    save_checkpoint(student / "checkpoint.safetensors", state)
    for line in ("sample", "evaluate", "export", "train mixture-cd --teacher"):
        assert command(line, student) == 2
        error = capsys.readouterr().err
        assert "of a former version and lacks its kind, shape: train or export it anew" in error
        assert error.startswith("minicm: ") and error.count("\n") == 1


WRONG = [
    ("trian mixture-ct", "no command 'trian': did you mean train?"),
    ("zzz", "no command 'zzz': choose from demo, train"),
    ("train mixture-dc", "no recipe 'mixture-dc': did you mean mixture-c"),
    ("train mixture-ct --stepz 3", "--steps"),
    ("sample x --gama 0", "--gamma"),
    ("train mixture-ct --steps many", "--steps"),
    ("train mixture-ct --steps 0", "minicm: steps must be at least 1, got 0"),
    ("train mixture-ct --lr nan", "minicm: lr must be positive"),
    ("train mixture-ct --save-every 0", "minicm: save_every must be at least 1"),
    ("train mixture-ct --budget soon", "minicm: a budget is a number and one of s, min, h"),
    ("train mixture-ct --data rings", "ring"),
    ("train mixture-cd --data moons", "give a trained --teacher"),
    ("train mixture-cd --teacher missing", "missing is not a file"),
    ("train mixture-ct --resume missing", "missing is not a file"),
    ("train digits-cd", "--teacher"),
    ("sample missing", "missing is not a file"),
    ("evaluate missing", "missing is not a file"),
    ("evaluate missing --n 1", "n must be at least 2"),
    ("export missing --dtype fp8", "bf16"),
    ("sample", "PATH"),
    ("", "which command? choose from demo, train"),
    ("train", "which recipe? choose from mixture-teacher"),
]


@pytest.mark.parametrize("line, complaint", WRONG)
def test_wrong_input_exits_2_and_says_in_one_line_what_is_right(line, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(line) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err and not captured.out
    assert captured.err.startswith("minicm: ") and captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())  # and nothing was begun


def test_a_seed_beyond_torch_gets_one_clear_line_and_nothing_is_drawn(student, capsys):
    before = sorted(student.iterdir())
    assert command("sample --n 2 --seed", 10**30, student) == 2
    assert capsys.readouterr().err == "minicm: a seed must be in -2^63..2^63 - 1: choose a smaller number\n"
    assert sorted(student.iterdir()) == before


def test_the_list_of_recipes_is_two_columns(capsys):
    assert command("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    column = len(lines[1]) - len(lines[1].lstrip())  # where the second line of the first recipe begins
    assert {line[column - 1] for line in lines} == {" "} and " " not in {line[column] for line in lines}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path, capsys):
    assert command("train mixture-ct --device cuda --runs", tmp_path) == 2
    assert 'device "cuda" is not there' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_foreign_or_truncated_checkpoint(student, capsys):
    path = student / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    for line in ("sample", "evaluate", "train mixture-ct --resume", "train mixture-cd --teacher"):
        assert command(line, path) == 2
        assert "is truncated or no safetensors file" in capsys.readouterr().err
    save_checkpoint(path, {"k": 1, "w": torch.zeros(1)})
    assert command("evaluate", path) == 2
    assert "no model description" in capsys.readouterr().err


def test_a_run_that_diverges_exits_1(tmp_path, capsys, monkeypatch, faulty):
    from minicm.recipes import points

    monkeypatch.setattr(points, "points_named", lambda name: faulty(3, lambda x0: x0 * float("nan")))
    assert command("train mixture-ct", *BRIEF, "--runs", tmp_path) == 1
    assert "the data is not finite at step 3 of 6" in capsys.readouterr().err


def test_too_little_memory_exits_2(tmp_path, capsys):
    big = "--steps 1 --batch 1000000000000000 --quiet"  # 8 PB, beyond any machine's address space of 47 bits
    assert command(f"train mixture-ct {big} --runs", tmp_path) == 2
    assert "not enough memory: lower --batch" in capsys.readouterr().err.splitlines()[-1]


def test_a_fault_of_the_program_shows_where_it_is(monkeypatch):
    def faulty(argv):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("minicm.__main__.dispatch", faulty)
    refused("mat1", lambda: command("recipes"), RuntimeError)


def test_runs_where_none_can_be(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command("train mixture-ct", *BRIEF, "--folder", tmp_path / "file") == 2
    assert capsys.readouterr().err == f"minicm: {tmp_path / 'file'}: File exists: choose another path, or free space\n"
    for option in ("--runs", "--folder"):
        assert command("train mixture-ct", *BRIEF, option, tmp_path / "file" / "below") == 2
        assert "Not a directory" in capsys.readouterr().err


def test_recipes_are_listed_with_what_each_is_for(capsys):
    assert command("recipes") == 0
    out = capsys.readouterr().out
    for name, recipe in RECIPES.items():
        assert name in out and recipe.__doc__.splitlines()[0] in out


@pytest.mark.parametrize(
    "line", ["", "train", *COMMANDS, "train mixture-ct", "train digits-lcm-lora", "train cifar10-ect"]
)
def test_help_says_what_everything_is(line, capsys):
    assert command(line, "--help") == 0
    captured = capsys.readouterr()
    assert f"usage: minicm {line}".strip() in captured.out and not captured.err
    assert "(default: )" not in captured.out
    said = " ".join(captured.out.replace("│", " ").split())  # a box breaks lines
    listed = {"": {name: line for name, (_, line) in COMMANDS.items()}, "train": RECIPES}.get(line, {})
    for name, about in listed.items():
        assert name in said and (about if isinstance(about, str) else about.__doc__.splitlines()[0]) in said


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"train"}))
def test_a_command_is_listed_by_what_its_docstring_begins_with(name):
    assert (loaded(name).__doc__ or "").startswith(COMMANDS[name][1])


def test_what_is_listed_is_not_loaded():
    """`minicm --help` needs nothing of torch, and a list of recipes builds no parser of them."""
    code = "import sys; from minicm.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_the_config_file_is_json(tmp_path):
    command("train mixture-ct", *BRIEF, "--runs", tmp_path)
    config = json.loads((tmp_path / "mixture-ct-001" / "config.json").read_text())
    assert config["options"]["data"] == "ring" and config["config"]["steps"] == 6


def test_a_reader_that_has_seen_enough_is_no_error():
    """As in `minicm recipes | head -1`: the pipe is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "minicm", "recipes"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 0 and done.stderr == b""


def test_the_versions_are_told(capsys):
    assert command("--version") == 0
    assert capsys.readouterr().out.split()[:3] == ["minicm", f"{minicm.__version__},", "torch"]
