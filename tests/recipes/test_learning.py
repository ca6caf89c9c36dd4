"""Every method learns: on the ring of 8, few steps of a small network bring one step of sampling near the exact flow.

The guided recipes, after a short run, are each nearer their exact answer than before, by a factor.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch

from minicm import MLP, Denoiser, karras_grid, load_model, solve, train
from minicm.data.named import classed, points_named
from minicm.evaluate import guided as evaluation
from minicm.metrics import consistency_error, paired_error
from minicm.metrics.pairs import pairs_error
from minicm.recipes import guided, points
from minicm.runs.run import RunOptions, run

METHODS = ("teacher", "cd", "cd_published", "ct", "ct_published", "ict", "ect", "tcd", "sct", "scd")
RECIPES = [getattr(points, f"mixture_{name}") for name in METHODS]
RING, TURNED = classed("ring"), classed("turned")


def learned(recipe, steps: int):
    """A small network after so many steps of a recipe, and the recipe's data."""
    model, objective, data, config = recipe()
    torch.manual_seed(0)
    net = MLP(**(model.net.options | {"width": 64, "features": 32}))
    f = Denoiser(net, model.schedule, t_min=model.t_min)
    *_, last = train(f, objective, data, replace(config, steps=steps, batch=256, ema=0.99))
    return last.ema, data


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_a_recipe_takes_a_step(recipe):
    model, objective, data, config = recipe()
    *_, last = train(model, objective, data, replace(config, steps=2, batch=16))
    assert last.k == 2 and last.loss.isfinite()
    if recipe is not points.mixture_teacher:
        x = model.schedule.prior((4, 2), torch.Generator().manual_seed(0))
        t_min = torch.full((4,), model.t_min, dtype=torch.float64)
        assert torch.equal(last.ema(x, t_min), x)  # the boundary condition, exactly


@pytest.mark.slow  # 4 to 14 s of one core each
@pytest.mark.parametrize(
    ("recipe", "steps", "bound"),
    # Seed 0 gave .103, .132, .104, .094, .083, .091 and .048; a network that has learnt nothing gives 1. The bounds leave
    # 1.6 times that for other platforms' rounding; the seed is fixed, so there is no false alarm on one platform.
    [
        (points.mixture_cd, 1000, 0.17),
        (points.mixture_ct, 1000, 0.21),
        (points.mixture_tcd, 1000, 0.17),
        (points.mixture_ict, 2000, 0.15),
        (points.mixture_ect, 2000, 0.15),
        (points.mixture_sct, 1000, 0.145),
        (points.mixture_scd, 1000, 0.08),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_short_run_comes_near_the_exact_flow(recipe, steps, bound):
    f, data = learned(recipe, steps)
    error = consistency_error(f, data, n=1000, generator=torch.Generator().manual_seed(1))
    assert error.one_step_median < bound


@pytest.mark.slow  # 5 s of one core
def test_a_short_run_of_the_teacher_follows_the_exact_flow():
    f, data = learned(points.mixture_teacher, 1000)
    x_T = f.schedule.prior((1000, 2), torch.Generator().manual_seed(1))
    ends = solve(f, f.schedule, x_T, karras_grid(40).flip(0))
    error = paired_error(ends, data.consistency(x_T, f.schedule.t_max), data.sigma_data)
    assert error.median() < 0.03  # seed 0 gave .014


# ------------------------------------------------------------------------------ the guided family, a minute in all
class Runs:
    """Short runs of the recipes, each made when it is first asked for."""

    def __init__(self, folder) -> None:
        self.folder = folder

    def __call__(self, name, recipe, steps, batch=256, lr=2e-3, **options):
        path = self.folder / name
        if not path.exists():
            config = replace(recipe.__kwdefaults__["config"], steps=steps, batch=batch, lr=lr, ema=0.99)
            run(name, recipe(config=config, **options), options, RunOptions(folder=path, quiet=True))
        return path

    def teacher(self):
        return self("mixture-guided-teacher", guided.mixture_guided_teacher, 1000)

    def lcd(self):
        return self("mixture-lcd", guided.mixture_lcd, 1000)

    def lcm_lora(self):
        return self("mixture-lcm-lora", guided.mixture_lcm_lora, 700, teacher=self.teacher())

    def style_lora(self):
        return self("mixture-style-lora", guided.mixture_style_lora, 500, teacher=self.teacher())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


def median(f, data, steps=1, w=1.0, **more):
    return evaluation.evaluate_guided(f, data, ws=(w,), steps=(steps,), n=500, **more)[1].value


def chain(f, data):
    return evaluation.evaluate_guided_teacher(f, data, ws=(1.0,), n=500)[1].value


# The factors were set before the first run, and seed 0 meets them; it is fixed, so on one platform there is no false alarm.
@pytest.mark.slow
def test_the_guided_teacher(runs):
    untrained = guided.mixture_guided_teacher().model
    assert chain(load_model(runs.teacher()), RING) < 0.3 * chain(untrained, RING)


@pytest.mark.slow
def test_lcd(runs):
    untrained, trained = guided.mixture_lcd().model, load_model(runs.lcd())
    for w in (0.0, 3.0):
        assert median(trained, RING, w=w) < 0.6 * median(untrained, RING, w=w)


@pytest.mark.slow
def test_fine_tuning_goes_over_to_the_new_data(runs):
    path = runs("mixture-lcf", guided.mixture_lcf, 500, student=runs.lcd())
    before, after = (median(load_model(p), TURNED, steps=4, towards=0.0) for p in (runs.lcd(), path))
    assert after < 0.7 * before


@pytest.mark.slow
def test_acceleration_by_adapters(runs):
    before, after = (median(load_model(p), RING, steps=4) for p in (runs.teacher(), runs.lcm_lora()))
    assert after < 0.6 * before


@pytest.mark.slow
def test_style_by_adapters(runs):
    before, after = (chain(load_model(p), TURNED) for p in (runs.teacher(), runs.style_lora()))
    assert after < 0.8 * before


@pytest.mark.slow
def test_tcd(runs):
    path = runs("mixture-tcd", points.mixture_tcd, 500)
    error = partial(pairs_error, mixture=points_named("ring"), n=300)
    before, after = (error(f) for f in (points.mixture_tcd().model, load_model(path)))
    assert after.of_moved < 0.7 * before.of_moved and after.of_spread < 0.7 * before.of_spread
