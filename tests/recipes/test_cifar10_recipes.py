"""CIFAR-10 recipes: each trains on a tiny archive written here; published numbers as in the papers; the whole run in small."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from archive import write_folder
from exact import refused

from minicm import cifar10_run
from minicm.checkpoint import CheckpointError, load_checkpoint, load_model
from minicm.objectives.ect import ECT
from minicm.recipes import cifar10
from minicm.recipes.cifar10 import Size, Source
from minicm.runs.run import RunOptions, run
from minicm.train import TrainConfig

TINY = Size(width=8, mults=(1, 2), blocks=1, attention=())
BRIEF = dict(batch=4, steps=2, warmup=0)
SMALL = {name: getattr(cifar10, f"cifar10_{name}") for name in ("teacher", "cd", "ct", "ect", "lcd")}
PUBLISHED = {name: getattr(cifar10, f"cifar10_{name}_published") for name in SMALL}
RECIPES = SMALL | {f"{name}-published": make for name, make in PUBLISHED.items()}


def config_of(make) -> TrainConfig:
    return make.__kwdefaults__["config"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six files of random pictures."""
    return write_folder(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    """The run of a tiny teacher with classes."""
    recipe = cifar10.cifar10_teacher(source=Source(data), size=TINY, config=TrainConfig(lr=1e-3, **BRIEF))
    folder = tmp_path_factory.mktemp("teacher") / "run"
    return run("cifar10-teacher", recipe, {}, RunOptions(folder=folder, quiet=True)).folder


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_is_saved(name, data, teacher, tmp_path):
    make = RECIPES[name]
    options = {"source": Source(data), "config": replace(config_of(make), **BRIEF)}
    options |= {"teacher": teacher} if "teacher" in make.__annotations__ else {}
    options |= {"size": TINY} if "size" in make.__annotations__ else {}
    done = run(f"cifar10-{name}", make(**options), options, RunOptions(folder=tmp_path / "r", quiet=True))
    model = load_model(done.folder)
    assert done.k == 2 and model.t_min == (0.0 if name.startswith("teacher") else 0.002)
    x = torch.randn(3, 3, 32, 32)
    if model.t_min:
        assert torch.equal(model(x, torch.full((3,), 0.002)), x)


def test_small_means_at_most_twenty_million_parameters():
    with torch.device("meta"):
        small, published = (
            sum(p.numel() for p in size.net(10, 0).parameters()) for size in (Size(), cifar10.PUBLISHED)
        )
    assert 15e6 < small <= 20e6
    assert 45e6 < published < 56e6  # DDPM++ has 55.7 M; what ours lacks is told in the page's first lines


def test_published_settings_are_the_papers():
    """EDM, Table 7; CM, Table 3; ECT's run_ecm.sh; LCM, section 5: written down here once more."""
    settings = {name: config_of(make) for name, make in PUBLISHED.items()}
    numbers = {n: (c.steps, c.batch, c.lr, c.ema, c.radam) for n, c in settings.items()}
    assert numbers == {
        "teacher": (200_000_000 // 512, 512, 1e-3, 0.99929, False),
        "cd": (800_000, 512, 4e-4, 0.9999, True),
        "ct": (800_000, 512, 4e-4, 0.9999, True),
        "ect": (200_000, 128, 1e-4, 0.9999, True),
        "lcd": (100_000, 72, 8e-6, 0.999943, False),
    }
    for c in settings.values():
        assert (c.beta1, c.beta2, c.final_lr, c.clip) == (0.9, 0.999, 1.0, None)
    assert settings["teacher"].warmup == 10_000_000 // 512
    assert settings["teacher"].ema == pytest.approx(0.5 ** (512 / 500_000), abs=5e-6)  # a half-life of .5 M pictures


def test_published_objectives_are_the_papers(data, teacher):
    given = {"source": Source(data), "teacher": teacher}
    cd = PUBLISHED["cd"](**given).objective
    assert len(cd.grid) == 18 and cd.mu == 0 and cd.step.__name__ == "heun_step"
    assert cd.weight(torch.tensor([3.0]), torch.tensor([1.0])) == 1
    ct = PUBLISHED["ct"](source=Source(data), size=TINY).objective
    assert (ct.s0, ct.s1, ct.mu0) == (2, 150, 0.9)
    ect = PUBLISHED["ect"](**given)
    assert isinstance(ect.objective, ECT) and ect.objective.stages == 8 and ect.objective.q == 2
    assert [ect.objective.stage(k, 200_000) for k in (24_999, 25_000, 199_999)] == [0, 1, 7]
    assert ect.model.net.options["dropout"] == 0.2
    lcd = PUBLISHED["lcd"](**given).objective
    assert len(lcd.grid) == 51 and lcd.w_range == (2.0, 14.0) and lcd.mu == 0.999943


def test_students_start_from_their_teacher(data, teacher):
    ours = load_model(teacher).net.state_dict()
    for name in ("cd", "ect", "lcd"):
        student = SMALL[name](source=Source(data), teacher=teacher).model.net.state_dict()
        assert all(torch.equal(value, student[key]) for key, value in ours.items()), name


def test_what_is_no_teacher_is_refused(data, teacher, tmp_path):
    recipe = cifar10.cifar10_cd(source=Source(data), teacher=teacher, config=TrainConfig(lr=1e-3, **BRIEF))
    student = run("cifar10-cd", recipe, {}, RunOptions(folder=tmp_path / "r", quiet=True)).folder
    with pytest.raises(
        CheckpointError, match="no diffusion teacher: give one that minicm train cifar10-teacher has trained"
    ):
        cifar10.cifar10_ect(source=Source(data), teacher=student)
    with pytest.raises(ValueError, match=r"no CIFAR-10 in .*call minicm.data.cifar10.download"):
        cifar10.cifar10_teacher(source=Source(tmp_path))
    with pytest.raises(ValueError, match='device "abacus" is not there'):
        cifar10.cifar10_teacher(source=Source(data), config=TrainConfig(lr=1e-3, **BRIEF, device="abacus"))
    unconditional = PUBLISHED["teacher"](source=Source(data), size=TINY, config=TrainConfig(lr=1e-3, **BRIEF))
    plain = run("cifar10-teacher-published", unconditional, {}, RunOptions(folder=tmp_path / "t", quiet=True))
    refused("the teacher's net has no classes", lambda: cifar10.cifar10_lcd(source=Source(data), teacher=plain.folder))


# --------------------------------------------------------------------------------- the run of one command
def test_the_whole_run_from_teacher_to_student(data, tmp_path, capsys):
    """As docs/gpu.md has it, in small: trained, exported, measured, drawn, recorded; then distilled from the export."""
    common = ["--data", str(data), "--runs", str(tmp_path / "runs"), "--budget", "7s", "--device", "cpu", "--fast"]
    out = {name: tmp_path / name for name in ("teacher", "cd")}
    assert cifar10_run.main(["teacher", "--out", str(out["teacher"]), *common]) == 0
    weights = out["teacher"] / "weights.safetensors"
    assert cifar10_run.main(["cd", "--out", str(out["cd"]), "--teacher", str(weights), *common]) == 0
    for name, extra in (("teacher", set()), ("cd", {"trajectory.png"})):
        files = {p.name for p in out[name].iterdir()}
        assert files == {"weights.safetensors", "record.json", "samples.png", "nearest.png"} | extra
        record = json.loads((out[name] / "record.json").read_text())
        assert record["steps"] >= 1 and record["log"] and record["options"]["config"]["steps"] >= record["steps"]
        assert record["machine"]["torch"] == torch.__version__
        assert load_checkpoint(out[name] / "weights.safetensors")["exported"]["steps"] == record["steps"]
    names = [row["name"] for row in record["rows"]]
    for steps in ("1-step", "2-step", "4-step", "Heun-40"):  # the student and its teacher, by one classifier
        assert f"{steps} class Frechet" in names
    assert all(row["floor"] is not None for row in record["rows"] if "Frechet" in row["name"])
    assert "1-step RMSE to the teacher" in capsys.readouterr().out


def test_a_run_in_small_chooses_its_steps(data):
    """K is what the curricula see: the recipe is made for the number of steps that fit."""
    job = cifar10_run.Job("teacher", data, Path("nowhere"), fast=True)
    recipe, options = cifar10_run.fitted(job)(1234)
    assert recipe.config.steps == options["config"].steps == 1234 and recipe.config.warmup == 123
    assert not (recipe.config.bf16 or recipe.config.compile or recipe.config.channels_last)  # on a processor
    assert not job.gpu
    assert cifar10_run.seconds_a_step(recipe, 1) > 0


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["cd"], "cd starts from a teacher: see --teacher"),
        (["teacher", "--teacher", "t"], "teacher starts from no teacher"),
        (["teacher", "--budget", "8"], "a budget is a number and one of s, min, h"),
        (["teacher", "--out", "."], "exists: choose another --out"),
        (["teacher"], "no CIFAR-10 in missing"),
        (["teacher", "--device", "abacus"], 'device "abacus" is not there'),
    ],
)
def test_wrong_input_is_named(words, complaint, capsys, tmp_path):
    options = ["--data", "missing", "--out", str(tmp_path / "o")]
    assert cifar10_run.main([words[0], *options, *words[1:]]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_run_needs_no_command_line_library():
    """Where the command's library is not installed, the recipes and the run still are."""
    code = "import sys; sys.modules['tyro'] = None; import minicm.cifar10_run, minicm.recipes.cifar10"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_the_whole_run_on_a_gpu(data, tmp_path):
    common = ["--data", str(data), "--runs", str(tmp_path / "runs"), "--budget", "3min", "--device", "cuda", "--fast"]
    assert cifar10_run.main(["teacher", "--out", str(tmp_path / "teacher"), *common]) == 0
    given = ["--teacher", str(tmp_path / "teacher" / "weights.safetensors")]
    for method in ("cd", "ect"):
        assert cifar10_run.main([method, "--out", str(tmp_path / method), *given, *common]) == 0
