"""The upper bound regresses on the exact f*: its points lie on trajectories, and f* alone has no loss."""

from dataclasses import replace

import pytest
import torch
from exact import refused, seeded

from minicm import EDM, MLP, Denoiser, GaussianMixture, TrainConfig, TrigFlow, train
from minicm.data.trajectories import Regression, Trajectories
from minicm.metrics import ExactConsistency, consistency_error
from minicm.recipes import points
from minicm.recipes.points import mixture_regression
from minicm.times import LogNormalAngles

RING = GaussianMixture.ring()
CLOCKS = {"EDM": {}, "TrigFlow": {"schedule": TrigFlow(), "t_min": 0.0, "law": LogNormalAngles()}}


@pytest.fixture(params=CLOCKS)
def known(request):
    return Trajectories(RING, n=40, m=5, **CLOCKS[request.param])


def drawn(known: Trajectories):
    objective, generator = Regression(known), seeded(1)
    x0, label = known.sample(64, generator)
    return objective, x0, label, objective.draw(x0, label, 0, 1, generator)


def test_every_point_flows_to_the_end_of_its_trajectory(known):
    t_min = CLOCKS["TrigFlow"]["t_min"] if isinstance(known.schedule, TrigFlow) else 0.002
    for x, t in zip(known.points, known.times):
        # the flow is good to 1e-8, and was taken twice on the way
        torch.testing.assert_close(RING.flow(x, t, t_min, known.schedule), known.ends, rtol=0, atol=1e-7)
    assert (known.times.diff(dim=0) <= 0).all()


def test_the_points_are_distributed_as_noisy_data_are(known):
    x, t = known.points.flatten(0, 1), known.times.flatten()
    alpha, sigma = known.schedule.alpha(t), known.schedule.sigma(t)
    scale = (sigma.square() + (alpha * RING.sigma_data).square()).sqrt()
    # 40 independent trajectories of 2 coordinates: the mean square is 1 +- sqrt(2/80) = .16, five of which are .8
    assert (x / scale[:, None]).square().mean().item() == pytest.approx(1, abs=0.8)


def test_the_noise_of_the_draw_leads_to_the_trajectory(known):
    _, x0, label, draw = drawn(known)
    x_t = known.schedule.add_noise(x0, draw.eps, draw.t)
    on_way = (known.points[:, label] - x_t).norm(dim=2).min(dim=0).values
    assert (on_way < 1e-5 * (1 + x_t.norm(dim=1))).all()  # float32
    assert {tuple(row.tolist()) for row in draw.t[:, None]} <= {(t.item(),) for t in known.times.flatten()}


def test_the_exact_function_has_no_loss_and_another_has(known):
    objective, x0, label, draw = drawn(known)
    exact = ExactConsistency(RING, known.schedule, 0.002 if isinstance(known.schedule, EDM) else 0.0)
    # float32 points: an error of 1e-7 is stretched up to a thousandfold beside a ridge; squared
    assert objective.loss(exact, exact, x0, label, draw, 0, 1).max() < 1e-6
    shifted = objective.loss(lambda x, t: exact(x, t) + 0.1, None, x0, label, draw, 0, 1)
    assert shifted.shape == (64,) and shifted.min() > 0.015  # .1 in each of 2 coordinates, squared


def test_it_refuses_data_that_are_no_trajectories():
    objective = Regression(Trajectories(RING, n=4, m=2))
    refused("which trajectory is whose", lambda: objective(None, None, torch.zeros(3, 2), None))
    refused(r"only ring, grid and random .* not moons", lambda: mixture_regression(data="moons"))


@pytest.mark.slow  # 10 s of one core
def test_a_short_run_learns_f_star(monkeypatch):
    monkeypatch.setattr(points, "trajectories_of", lambda name: Trajectories(RING, n=2000, m=16))
    _, objective, data, config = mixture_regression()
    torch.manual_seed(0)
    f = Denoiser(MLP(2, 64, 4), t_min=0.002)
    *_, last = train(f, objective, data, replace(config, steps=1000, batch=256, ema=0.99))
    error = consistency_error(last.ema, RING, n=1000, generator=seeded(1))
    # seed 0 gave .084; a network that has learnt nothing gives 1. 1.6 times that for other platforms' rounding
    assert error.one_step_median < 0.135


def test_the_recipe_takes_a_step(monkeypatch):
    monkeypatch.setattr(points, "trajectories_of", lambda name: Trajectories(RING, n=20, m=2))
    made = mixture_regression(config=TrainConfig(steps=2, batch=16, lr=1e-3))
    *_, last = train(*made)
    assert last.k == 2 and last.loss.isfinite()
