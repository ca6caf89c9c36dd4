"""Recipes on digits: every one trains and can be loaded again, students start as their teacher, latents are scaled."""

import shutil
from pathlib import Path

import numpy
import pytest
import torch
from contracts import randomise
from exact import normal, refused, same, seeded

from minicm import EDM, Denoiser, InClock, TrainConfig, TrigFlow, train
from minicm.__main__ import main
from minicm.checkpoint import CheckpointError, decoder_state, load_checkpoint, load_decoder, load_model, save_checkpoint
from minicm.data.digits import Digits
from minicm.editing import inpaint, interpolate, super_resolve
from minicm.evaluate import pictures
from minicm.evaluate.pictures import class_reference, few_steps, many_steps, start
from minicm.nets.autoencoder import Autoencoder
from minicm.nets.lora import load_lora, lora_state, merge_lora
from minicm.recipes import digits
from minicm.runs.run import RunOptions, run
from minicm.times import LogNormalAngles

SHORT = TrainConfig(steps=2, batch=4, lr=1e-3, ema=0.5)
STUDENTS = {
    "digits-cd": digits.digits_cd,
    "digits-ect": digits.digits_ect,
    "digits-scm": digits.digits_scm,
    "digits-lcd": digits.digits_lcd,
    "digits-tcd": digits.digits_tcd,
}
LATENT = {"digits-lcd", "digits-tcd"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two teachers and an autoencoder, with random weights all of them: none has to be any good."""
    folder = tmp_path_factory.mktemp("digits")
    net = randomise(Autoencoder(), 1, scale=0.1).standardise(Digits().images)
    save_checkpoint(folder / "autoencoder", decoder_state(net))
    pixel, latent = (
        digits.digits_teacher(config=SHORT),
        digits.digits_latent_teacher(autoencoder=folder / "autoencoder", config=SHORT),
    )
    for name, recipe in (("digits-teacher", pixel), ("digits-latent-teacher", latent)):
        randomise(recipe.model, 2, scale=0.1)
        options = {"autoencoder": folder / "autoencoder"} if name == "digits-latent-teacher" else {}
        where = RunOptions(folder=folder / ("latent" if options else "teacher"), quiet=True)
        run(name, recipe, options, where)
    return folder


def student(name: str, folder: Path, config: TrainConfig = SHORT):
    return STUDENTS[name](teacher=folder / ("latent" if name in LATENT else "teacher"), config=config)


@pytest.mark.parametrize("name", [*STUDENTS, "digits-ict"])
def test_a_recipe_trains_and_is_loaded_again(name, folder, tmp_path):
    recipe = digits.digits_ict(config=SHORT) if name == "digits-ict" else student(name, folder)
    done = run(name, recipe, {}, RunOptions(folder=tmp_path, quiet=True))
    f = load_model(tmp_path)
    x_T, label = start(f.schedule, (2, 4, 4) if name in LATENT else (1, 8, 8), 3, 0)
    for steps in (1, 4):
        x = few_steps(f, x_T, label, steps, w=1.0 if name in LATENT else None)
        assert x.shape == x_T.shape and x.isfinite().all()
        assert torch.equal(x, few_steps(done.ema, x_T, label, steps, w=1.0 if name in LATENT else None))


def test_the_noise_of_the_second_step_is_not_that_of_the_first():
    """Drawn from one seed they would be the same numbers, and two steps hardly differ from one."""

    class Known:  # answers with zeros, so that what the second step is given is its noise alone
        schedule, t_min, second_time = EDM(), 0.002, False

        def __call__(self, x, t, **cond):
            seen.append(x)
            return torch.zeros_like(x)

    seen: list = []
    x_T, label = start(EDM(), (1, 8, 8), 200, 0)
    few_steps(Known(), x_T, label, 2)
    first, second = (x.flatten() for x in seen)
    # 12,800 numbers: a correlation of .05 is 5.7 standard deviations, a false alarm in 10^8
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.05


@pytest.mark.parametrize("name", sorted(STUDENTS.keys() - {"digits-scm"}))
def test_a_student_starts_with_its_teachers_network_and_new_inputs_silent(name, folder):
    recipe = student(name, folder)
    teacher = load_model(folder / ("latent" if name in LATENT else "teacher"))
    x, c, label = (normal(4, teacher.net.channels, 8, 8).float(), normal(4).float(), torch.tensor([0, 3, 9, 10]))
    w, u = torch.tensor([0.0, 1.0, 2.0, 3.0]), normal(4, seed=3).float()
    assert torch.equal(recipe.model.net(x, c, label, w, u), teacher.net(x, c, label))
    assert recipe.model.net.second_time is (name == "digits-tcd")


def test_a_student_in_another_clock_starts_as_its_teacher_with_the_time_told_anew(folder):
    """A teacher whose embedding of ln(sigma) is as smooth as a trained one's: three octaves can say nearly the same."""
    teacher = load_model(folder / "teacher")
    teacher.net.conditioning.time.weight[:, 3:] = 0  # the number itself, and sin of once and twice it
    law = LogNormalAngles(-0.5, 1.4, digits.RMS)
    moved = InClock(teacher, TrigFlow(digits.RMS))
    t, label = law(64, seeded(1)), torch.arange(64) % 11
    x = normal(64, 1, 8, 8).float()
    said = teacher.net(x, clock_times(moved, t), label)
    fitted, plain = (
        (net(x, t.float(), label) - said).square().mean()
        for net in (digits.retimed_net(moved, law), digits.tuned_net(teacher))
    )
    assert fitted < 0.1 * plain  # measured: .017


def clock_times(moved: InClock, t: torch.Tensor) -> torch.Tensor:
    """What the teacher's network is told in its own clock."""
    inner = moved.denoiser.schedule
    return inner.c_noise(inner.t_of(moved.schedule.sigma(t) / moved.schedule.alpha(t))).float()


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_has_the_clock_and_boundary_of_its_method(name, folder):
    f = student(name, folder).model
    assert (type(f.schedule).__name__, f.t_min) == {
        "digits-cd": ("EDM", 0.002),
        "digits-ect": ("EDM", 0.002),
        "digits-scm": ("TrigFlow", 0.0),
        "digits-lcd": ("VP", 0.0),
        "digits-tcd": ("VP", 0.0),
    }[name]


def test_pixels_have_the_root_mean_square_that_the_preconditioning_expects():
    x0, label = digits.pixels().sample(4000, seeded())
    # 4000 pictures of about 64 x 14 ink dots: their rms scatters by about .002; the recipe rounds to two digits
    assert x0.square().mean().sqrt().item() == pytest.approx(digits.RMS, abs=0.06)
    dropped = (label == 10).float().mean().item()
    assert dropped == pytest.approx(digits.DROPPED, abs=5 * (0.2 * 0.8 / 4000) ** 0.5)  # false alarms 6e-7


def test_the_autoencoder_is_kept_where_it_was_trained_and_in_every_run_of_its_latents(folder):
    first, second = (load_decoder(folder / part) for part in ("autoencoder", "latent"))
    x = Digits().images[:5]
    assert torch.equal(first.encode(x), second.encode(x))
    z, _ = digits.latents(folder / "autoencoder").sample(2000, seeded())
    assert z.shape == (2000, 2, 4, 4)
    # the spread of the training pictures, of which 2000 are drawn at random: within some hundredths
    assert z.std((0, 2, 3)).tolist() == pytest.approx([0.5, 0.5], abs=0.05)


def test_a_student_is_no_teacher(folder, tmp_path):
    run("digits-cd", student("digits-cd", folder), {}, RunOptions(folder=tmp_path, quiet=True))
    with pytest.raises(
        CheckpointError, match="no diffusion teacher: give one that minicm train digits-teacher has trained"
    ):
        digits.digits_cd(teacher=tmp_path)


def test_a_teacher_of_pixels_is_none_of_latents_and_the_other_way_round(folder):
    with pytest.raises(CheckpointError, match=r"in another clock \(VP\) than this EDM: .* digits-teacher"):
        digits.digits_ect(teacher=folder / "latent")
    with pytest.raises(CheckpointError, match=r"in another clock \(EDM\) than this VP: .* digits-latent-teacher"):
        digits.digits_lcd(teacher=folder / "teacher")


def test_students_of_latents_take_their_teachers_autoencoder(folder, tmp_path):
    """And need no file of it: the teacher's run folder stands alone, and so does the student's."""
    shutil.copytree(folder / "latent", tmp_path / "moved")
    recipe = digits.digits_tcd(teacher=tmp_path / "moved", config=SHORT)
    shutil.rmtree(tmp_path / "moved")
    run("digits-tcd", recipe, {}, RunOptions(folder=tmp_path / "student", quiet=True))
    z = normal(3, 2, 4, 4).float()
    assert torch.equal(load_decoder(tmp_path / "student").decode(z), load_decoder(folder / "autoencoder").decode(z))
    refused("holds no autoencoder", lambda: digits.latents(folder / "teacher"), CheckpointError)


def test_adapters_are_trained_alone_and_loaded_again(folder, tmp_path):
    recipe = digits.digits_lcm_lora(teacher=folder / "latent", rank=2, config=SHORT)
    teacher = load_model(folder / "latent")
    z, c, label = normal(4, 2, 4, 4).float(), normal(4).float(), torch.tensor([0, 3, 9, 10])
    assert torch.equal(recipe.model.net(z, c, label), teacher.net(z, c, label)), "new adapters change the net"
    trained = {name.rsplit(".", 1)[1] for name, p in recipe.model.named_parameters() if p.requires_grad}
    assert trained == {"A", "B"}
    done = run("digits-lcm-lora", recipe, {}, RunOptions(folder=tmp_path, quiet=True))
    again = load_model(tmp_path)
    assert torch.equal(again.net(z, c, label), done.ema.net(z, c, label))
    unmerged, style = again.net(z, c, label), lora_state(again)
    assert not torch.equal(unmerged, teacher.net(z, c, label)), "nothing was learned"
    # W + BA written out or computed at each call: roundings of float32
    torch.testing.assert_close(merge_lora(again).net(z, c, label), unmerged, rtol=1e-5, atol=1e-5)
    moved = load_lora(teacher, style)
    torch.testing.assert_close(moved.net(z, c, label), unmerged, rtol=1e-5, atol=1e-5)


def test_teachers_are_sampled_in_any_clock_with_and_without_guidance(folder):
    for name, shape in (("teacher", (1, 8, 8)), ("latent", (2, 4, 4))):
        teacher = load_model(folder / name)
        x_T, label = start(teacher.schedule, shape, 3, 0)
        plain, led = (many_steps(teacher, x_T, label, w=w, steps=5) for w in (0.0, 2.0))
        assert plain.shape == x_T.shape and plain.isfinite().all() and not torch.equal(plain, led)


# ----------------------------------------------------------------------------------------- the command
BRIEF = ["--steps", "2", "--batch", "4", "--quiet"]


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory) -> Path:
    """One run of every recipe, by the command."""
    runs = tmp_path_factory.mktemp("runs")
    for name in [*STUDENTS, "digits-ict", "digits-lcm-lora"]:
        latent = name in LATENT or name == "digits-lcm-lora"
        teacher = [] if name == "digits-ict" else ["--teacher", folder / ("latent" if latent else "teacher")]
        assert main(["train", name, *BRIEF, "--runs", str(runs), *map(str, teacher)]) == 0
    return runs


@pytest.fixture
def quick(monkeypatch):
    """A reference whose classifier has learned next to nothing, and few pairs: what is asked is what is reported."""
    train, test = Digits(), Digits(train=False)
    reference = class_reference(train.images, train.labels, test.images, test.labels, classes=10, width=8, steps=3)
    monkeypatch.setattr(pictures, "digits_reference", lambda: reference)
    monkeypatch.setattr(pictures, "PAIRS", 5)


@pytest.mark.parametrize("name", [*STUDENTS, "digits-ict", "digits-lcm-lora"])
def test_every_run_is_evaluated_and_sampled(name, runs, quick, capsys):
    path = str(runs / f"{name}-001")
    assert main(["evaluate", path, "--n", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in lines}
    prefixes = ("w = 0, ", "w = 1, ") if name in LATENT else ("",)
    for prefix in prefixes:
        for steps in (1, 2, 4):
            for measure in ("class Frechet", "precision", "recall", "nearest", "copied", "label agreement"):
                value, floor = rows[f"{prefix}{steps}-step {measure}"]
                assert float(value) >= 0 and floor.strip(), "a measure without its floor"
        assert (f"{prefix}1-step RMSE to the teacher" in rows) is (name != "digits-ict")
    assert main(["sample", path, "--n", "12", "--steps", "2", "--label", "7"]) == 0
    x = numpy.load(runs / f"{name}-001" / "samples-001.npy", allow_pickle=False)
    assert x.shape == (12, 1, 8, 8) and numpy.isfinite(x).all()
    assert (runs / f"{name}-001" / "samples-001.png").read_bytes().startswith(b"\x89PNG")


def test_a_teacher_is_evaluated_by_its_flow_and_not_sampled_in_one_step(folder, quick, capsys):
    for name in ("teacher", "latent"):
        assert main(["evaluate", str(folder / name), "--n", "8"]) == 0
        assert "| Heun-40 class Frechet |" in capsys.readouterr().out
        assert main(["sample", str(folder / name)]) == 2


def test_guidance_changes_a_guided_student_alone(runs, tmp_path, capsys):
    def drawn(name: str, *options: str) -> numpy.ndarray:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        assert main(["sample", str(runs / name), "--n", "6", *options, "--out", str(out)]) == 0
        return numpy.load(out, allow_pickle=False)

    assert (drawn("digits-lcd-001") == drawn("digits-lcd-001")).all()
    assert (drawn("digits-lcd-001", "--label", "1") != drawn("digits-lcd-001", "--label", "2")).any()
    for name, option, complaint in (
        ("digits-cd-001", ["--w", "1"], "takes no guidance scale"),
        ("digits-cd-001", ["--label", "10"], "one of the classes 0..9, got 10"),
        ("digits-lcd-001", ["--w", "-1"], "w must be 0 (no guidance) or more"),
    ):
        assert main(["sample", str(runs / name), *option]) == 2
        assert complaint in capsys.readouterr().err


def test_a_grid_that_is_there_is_not_drawn_over(runs, tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"mine")
    assert main(["sample", str(runs / "digits-cd-001"), "--out", str(tmp_path / "x.npy")]) == 2
    assert "x.png exists: choose another --out" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
    assert main(["sample", str(runs / "digits-cd-001"), "--out", str(tmp_path / "y.png")]) == 2
    assert "--out names the .npy file" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_a_run_goes_on_bit_for_bit_with_dropout(folder, tmp_path):
    """Saved after step 2 and gone on with: dropout is off here, so add it, and its masks come back, too."""

    def recipe():
        made = student("digits-cd", folder, TrainConfig(steps=5, batch=4, lr=1e-2, ema=0.5))
        for module in made.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
        return made

    for step in train(*recipe()):
        if step.k == 2:
            save_checkpoint(tmp_path / "two", step.state())
    *_, last = train(*recipe(), resume=load_checkpoint(tmp_path / "two"))
    whole, cut = step.state(), last.state()
    assert same(whole, cut) and any(k.startswith("optimiser/") for k in whole)


# ------------------------------------------------------------------------------------ editing, on digits
@pytest.fixture(scope="module")
def f() -> Denoiser:
    return randomise(digits.digits_ict(config=SHORT).model, 5, scale=0.1).eval()


def test_half_a_digit_is_filled_in_and_the_other_half_stays(f):
    y, missing = Digits().images[:6], torch.arange(8) >= 4
    x = inpaint(f, y, missing, [80.0, 1.0, 0.3], seeded())
    assert torch.equal(x[..., :4], y[..., :4]) and not torch.equal(x[..., 4:], y[..., 4:])


def test_a_larger_digit_averages_to_the_small_one(f):
    low = torch.nn.functional.avg_pool2d(Digits().images[:6], 2)
    x = super_resolve(f, low, 2, [80.0, 1.0, 0.3], seeded())
    assert x.shape == (6, 1, 8, 8)
    # an orthogonal mix there and back, in float32, of numbers of order 1
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(x, 2), low, rtol=0, atol=1e-5)


def test_interpolation_runs_from_one_digit_to_the_other(f):
    a, b = (f.schedule.prior((3, 1, 8, 8), seeded(seed)) for seed in (1, 2))
    label = torch.tensor([3, 3, 8])
    path = interpolate(f, a, b, [0.0, 0.5, 1.0], label=label)
    t = torch.full((3,), 80.0)
    assert path.shape == (3, 3, 1, 8, 8)
    torch.testing.assert_close(path[0], f(a, t, label=label), rtol=1e-4, atol=1e-4)  # x_T of order 80 in float32
    torch.testing.assert_close(path[2], f(b, t, label=label), rtol=1e-4, atol=1e-4)
