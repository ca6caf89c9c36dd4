"""The LCM family's recipes run through the one loop, the command and their evaluation; results are measured elsewhere."""

import numpy
import pytest
import torch

from minicm import GaussianMixture, TrainConfig, sample
from minicm.__main__ import main
from minicm.checkpoint import fingerprint, load_checkpoint, load_model, save_checkpoint
from minicm.data.named import turned
from minicm.evaluate import guided as evaluation
from minicm.metrics import ExactConsistency
from minicm.metrics.pairs import ExactTrajectory, pairs_error
from minicm.nets.lora import lora_state
from minicm.recipes import guided, points
from minicm.runs.run import RunOptions, run
from minicm.times import quadratic_grid

BRIEF = TrainConfig(steps=2, batch=16, lr=1e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of all these recipes, two steps each."""
    folder = tmp_path_factory.mktemp("runs")
    teacher, student = folder / "mixture-guided-teacher", folder / "mixture-lcd"
    needs = {
        "mixture-guided-teacher": (guided.mixture_guided_teacher, {"data": "ring"}),
        "mixture-lcd": (guided.mixture_lcd, {"data": "ring"}),
        "mixture-lcd-published": (guided.mixture_lcd_published, {"data": "ring", "teacher": teacher}),
        "mixture-lcf": (guided.mixture_lcf, {"data": "turned", "student": student}),
        "mixture-tcd": (points.mixture_tcd, {"data": "ring"}),
        "mixture-lcm-lora": (guided.mixture_lcm_lora, {"data": "ring", "teacher": teacher, "w": 1.0}),
        "mixture-style-lora": (guided.mixture_style_lora, {"data": "turned", "teacher": teacher}),
    }
    for name, (recipe, options) in needs.items():
        run(name, recipe(**options, config=BRIEF), options, RunOptions(folder=folder / name, quiet=True))
    return folder


def command(*line):
    return main([str(part) for part in line])


EXPECTED = {  # a row of each report
    "mixture-guided-teacher": "w = 3, DDIM-30 RMSE",
    "mixture-lcd": "w = 3, 4-step RMSE",
    "mixture-lcf": "w = 0, 1-step RMSE",
    "mixture-tcd": "all pairs, of the distance moved",
    "mixture-lcm-lora": "w = 1, 4-step RMSE",
    "mixture-style-lora": "w = 1, DDIM-30 median",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_run_is_evaluated_against_its_exact_answer(runs, name, capsys):
    assert command("evaluate", runs / name, "--n", 40) == 0
    assert EXPECTED[name] in capsys.readouterr().out


def test_a_checkpoint_says_whose_flow_it_learned(runs):
    """By its teacher: of one that saw data alone, `evaluate` asks for the flow of its class, without guidance."""
    names = ("mixture-lcd", "mixture-lcd-published", "mixture-lcf")
    exact, learned, none = (load_checkpoint(runs / name)["teacher"] for name in names)
    assert exact == "exact" and learned == fingerprint(load_model(runs / "mixture-guided-teacher")) and none is None


def test_a_label_and_a_scale_reach_the_samples(runs, tmp_path):
    """The samples of the command are those of `sample` with this label and w."""
    out = tmp_path / "x.npy"
    assert command("sample", runs / "mixture-lcd", "--n", 5, "--label", 1, "--w", 3, "--out", out) == 0
    model = load_model(runs / "mixture-lcd")
    x_T = model.schedule.prior((5, 2), torch.Generator().manual_seed(0))
    given = {"label": torch.ones(5, dtype=torch.int64), "w": torch.full((5,), 3.0, dtype=torch.float64)}
    assert (numpy.load(out) == sample(model, x_T, [1000.0], **given).numpy()).all()
    others = sample(model, x_T, [1000.0], **given | {"label": torch.zeros(5, dtype=torch.int64)})
    assert (numpy.load(out) != others.numpy()).any()


@pytest.mark.parametrize(
    "name, options, complaint",
    [
        ("mixture-lcd", ("--label", 2), "label must be one of the classes 0..1, got 2"),
        ("mixture-lcd", ("--label", -1), "label must be one of the classes 0..1, got -1"),
        ("mixture-lcd", ("--w", -1), "w must be 0 (no guidance) or more, got -1"),
        ("mixture-lcd", ("--w", "nan"), "w must be 0 (no guidance) or more, got nan"),
        ("mixture-lcm-lora", ("--w", 1), "takes no guidance scale, leave --w out"),
        ("mixture-tcd", ("--label", 0), "knows no classes, leave --label out"),
        ("mixture-tcd", ("--w", 1), "takes no guidance scale, leave --w out"),
        ("mixture-style-lora", (), "holds a diffusion model"),
        ("mixture-guided-teacher", (), "holds a diffusion model"),
    ],
)
def test_conditioning_that_a_model_does_not_take_is_refused(runs, name, options, complaint, capsys):
    assert command("sample", runs / name, "--n", 3, *options) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.startswith("minicm: ") and error.count("\n") == 1
    assert not list((runs / name).glob("*.npy"))


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("mixture-lcd --teacher mixture-lcd", "no diffusion teacher"),
        ("mixture-lcm-lora --teacher mixture-tcd", "no diffusion teacher"),
        ("mixture-lcf --student mixture-guided-teacher", "no student with a w"),
        ("mixture-lcf --student mixture-tcd", "no student with a w"),
        ("mixture-tcd --teacher mixture-lcd", "no diffusion teacher"),
        ("mixture-ect --teacher mixture-tcd", "no diffusion teacher"),
        ("mixture-ect --teacher mixture-guided-teacher", "in another clock (VP) than this EDM"),
        ("mixture-cd --teacher mixture-guided-teacher", "in another clock (VP) than this EDM"),
    ],
)
def test_a_run_of_the_wrong_kind_is_refused(runs, tmp_path, line, complaint, capsys):
    recipe, option, name = line.split()
    assert command("train", recipe, option, runs / name, "--runs", tmp_path, "--steps", 1) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------- the recipes
def test_adapters_start_from_the_teacher_and_live_in_files_of_their_own(runs, tmp_path):
    base, lcm, style = (load_model(runs / f"mixture-{name}") for name in ("guided-teacher", "lcm-lora", "style-lora"))
    x, t, label = torch.randn(6, 2), torch.full((6,), 500.0), torch.arange(6) % 2
    adapters = []
    for model in (lcm, style):
        save_checkpoint(tmp_path / "adapter.safetensors", lora_state(model.net))
        adapters.append(load_checkpoint(tmp_path / "adapter.safetensors"))
        assert torch.equal(guided.composed(base, (adapters[-1], 1.0))(x, t, label=label), model(x, t, label=label))
        kept = model.net.state_dict()
        for name, weight in base.net.state_dict().items():
            original = name.removesuffix("weight") + "parametrizations.weight.original"
            assert torch.equal(kept.get(name, kept.get(original)), weight), "the base has moved"
    none = guided.composed(base, *((adapter, 0.0) for adapter in adapters))
    assert torch.equal(none(x, t, label=label), base(x, t, label=label))


def test_adapters_on_top_of_adapters_are_read_back(runs, tmp_path):
    """The acceleration distilled from a style: the teacher's adapters stay, the new ones come on top."""
    options = {"teacher": runs / "mixture-style-lora", "data": "turned", "w": 1.0}
    recipe = guided.mixture_lcm_lora(**options, rank=3, config=BRIEF)
    done = run("mixture-lcm-lora", recipe, options, RunOptions(folder=tmp_path / "own", quiet=True))
    x, t, label = torch.randn(6, 2), torch.full((6,), 500.0), torch.arange(6) % 2
    back = load_model(tmp_path / "own")
    assert torch.equal(back(x, t, label=label), done.ema(x, t, label=label))
    assert len(lora_state(back.net, 1)["out.A"]) == 3 and len(lora_state(back.net, 0)["out.A"]) == 32


def test_turning_a_mixture_turns_its_points_and_its_flow():
    ring = GaussianMixture.random(classes=2)
    x, turn = torch.randn(7, 2, dtype=torch.float64), torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    t = torch.full((7,), 0.3, dtype=torch.float64)
    quarter = turned(ring, 90)
    ours, expected = quarter.denoiser()(x @ turn.T, t), ring.denoiser()(x, t) @ turn.T
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)  # rounding of cos 90 degrees and of sums
    torch.testing.assert_close(turned(quarter, -90).means, ring.means, rtol=0, atol=1e-12)


def test_the_skips_close_in_on_the_data():
    grid = quadratic_grid()
    assert grid[0] == 0 and grid[-1] == guided.CLOCK.t_max and (grid.diff() > 0).all()
    assert grid[1] < 20 < grid[-1] - grid[-2]  # against LCM's equal skips of 20


def test_the_exact_guided_student_scores_zero():
    data = GaussianMixture.ring(classes=guided.CLASSES)
    rows = evaluation.evaluate_guided(ExactConsistency(data, guided.CLOCK, 0.0), data, ws=(0, 3), steps=(1, 2), n=20)
    assert len(rows) == 8
    assert max(row.value for row in rows) < 1e-6  # the flow is good to 1e-8, twice, in float32


def test_sampling_times_are_those_of_lcms_scheduler():
    assert evaluation.SAMPLING[4] == [1000.0, 760.0, 500.0, 260.0]  # 999, 759, 499, 259 there: our t is one more


# ------------------------------------------------------------------------------------------------ TCD
def test_the_exact_trajectory_scores_zero():
    data = GaussianMixture.ring()
    exact = ExactTrajectory(data, guided.CLOCK, 0.0)
    error = pairs_error(exact, data, n=20, times=torch.tensor([0, 100, 1000]).double())
    # float32 points, whose rounding a step of 10^-3 of the distance magnifies
    assert error.of_spread < 1e-5 and error.of_moved < 1e-3
    rows = evaluation.evaluate_trajectory(exact, data, steps=(2,), gammas=(0.3,), n=20)
    assert max(row.value for row in rows if "RMSE" in row.name) < 1e-5


def test_pairs_are_those_below_the_diagonal_and_errors_are_relative():
    """An f that stays where it is misses the whole distance: 1, at every pair."""

    class Still:
        schedule, t_min, second_time = guided.CLOCK, 0.0, True

        def __call__(self, x, t, label=None, w=None, u=None):
            kept = (self.schedule.sigma(u) / self.schedule.sigma(t))[:, None]
            alpha_t, alpha_u = (self.schedule.alpha(time)[:, None] for time in (t, u))
            return (1 - kept) * x / (alpha_u - kept * alpha_t)

    error = pairs_error(Still(), GaussianMixture.ring(), n=50)
    below = torch.ones_like(error.error).tril(-1).bool()
    assert (error.error.isnan() == ~below).all() and len(error.levels) == len(error.error)
    torch.testing.assert_close(error.error[below], error.moved[below], rtol=1e-3, atol=1e-6)  # float32 points
    assert abs(error.of_moved - 1) < 1e-3


def test_the_grid_closes_in_quarters():
    assert [len(points.closing_grid(k, 8)) for k in range(8)] == [9, 9, 17, 17, 33, 33, 65, 65]
    coarse, fine = points.closing_grid(0, 8), points.closing_grid(7, 8)
    torch.testing.assert_close(coarse, fine[::8], rtol=1e-12, atol=0)  # every 8th time: only rounding differs
