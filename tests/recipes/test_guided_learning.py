"""The guided recipes learn: after a short run each is nearer its exact answer than before, by a factor."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from minicm.checkpoint import load_model
from minicm.data.named import points_named
from minicm.evaluate import guided as evaluation
from minicm.metrics.pairs import pairs_error
from minicm.recipes import guided, points
from minicm.runs.run import RunOptions, run

pytestmark = pytest.mark.slow  # about a minute of one core in all
RING, TURNED = guided.classed("ring"), guided.classed("turned")


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
def test_the_teacher(runs):
    untrained = guided.mixture_guided_teacher().model
    assert chain(load_model(runs.teacher()), RING) < 0.3 * chain(untrained, RING)


def test_lcd(runs):
    untrained, trained = guided.mixture_lcd().model, load_model(runs.lcd())
    for w in (0.0, 3.0):
        assert median(trained, RING, w=w) < 0.6 * median(untrained, RING, w=w)


def test_fine_tuning_goes_over_to_the_new_data(runs):
    path = runs("mixture-lcf", guided.mixture_lcf, 500, student=runs.lcd())
    before, after = (median(load_model(p), TURNED, steps=4, towards=0.0) for p in (runs.lcd(), path))
    assert after < 0.7 * before


def test_acceleration_by_adapters(runs):
    before, after = (median(load_model(p), RING, steps=4) for p in (runs.teacher(), runs.lcm_lora()))
    assert after < 0.6 * before


def test_style_by_adapters(runs):
    before, after = (chain(load_model(p), TURNED) for p in (runs.teacher(), runs.style_lora()))
    assert after < 0.8 * before


def test_tcd(runs):
    path = runs("mixture-tcd", points.mixture_tcd, 500)
    error = partial(pairs_error, mixture=points_named("ring"), n=300)
    before, after = (error(f) for f in (points.mixture_tcd().model, load_model(path)))
    assert after.of_moved < 0.7 * before.of_moved and after.of_spread < 0.7 * before.of_spread
