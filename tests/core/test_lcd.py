"""LCD: the paper's formulas, the published script's numbers, and what its fixed point is."""

import copy

import pytest
import torch
from contracts import randomise
from exact import refused, seeded
from torch import Tensor

from minicm import CD, MLP, euler_step, heun_step, karras_grid, l2, pseudo_huber, skip_grid, solve
from minicm.denoiser import Denoiser, FromPrediction, Guided
from minicm.objectives.base import Draw
from minicm.objectives.lcd import LCD, LCMBoundary, with_skip
from minicm.schedules import EDM, VP, TrigFlow, expand

CLOCK = VP.scaled_linear()
CLASSES = 3
# float64, values of order 1 to 100: what differs by rounding alone agrees far better than this
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def model(seed: int, guidance: bool = False, schedule=CLOCK) -> Denoiser:
    return Denoiser(randomise(MLP(2, 16, 2, CLASSES, guidance), seed), schedule).double()


def batch(n: int = 8, shape: tuple[int, ...] = (2,)) -> tuple[Tensor, Tensor]:
    g = seeded(9)
    return 0.5 * torch.randn(n, *shape, generator=g, dtype=torch.float64), torch.arange(n) % CLASSES


# ------------------------------------------------------------------------------------------ the times
def test_the_grid_is_that_of_the_training_script():
    """Its start is 20 (index + 1) - 1, its end max(start - 20, 0); our t is its timestep + 1."""
    grid = with_skip(torch.arange(1001), 20)
    assert torch.equal(grid, skip_grid(50))
    assert (grid[1:] - 1).tolist() == list(range(19, 1000, 20))
    x0, label = batch(5000)
    draw = LCD(model(1), skip=20, w_range=(2, 14)).draw(x0, label, 0, 1, seeded())
    # each of 50 starts with probability 1/50: one is missing from 5000 draws with probability 50 .98^5000 < 1e-40
    assert (draw.t - 1).unique().tolist() == list(range(19, 1000, 20))
    assert torch.equal(draw.s, draw.t - 20)


def test_skips_that_do_not_divide_the_grid_end_with_a_shorter_one():
    assert with_skip(torch.arange(11), 4).tolist() == [0, 2, 6, 10]
    assert with_skip(torch.arange(11), 10).tolist() == [0, 10]
    assert with_skip(torch.arange(11), 1).tolist() == list(range(11))
    grid = karras_grid(10)
    assert with_skip(grid, 4).tolist() == [grid[i].item() for i in (0, 1, 5, 9)]


# -------------------------------------------------------------------------------------- the formulas
def test_the_solver_is_the_papers_psi():
    """x + (1 + w) Psi(c) - w Psi(empty), Psi = (alpha_s/alpha_t - 1) x - sigma_s (sigma_t alpha_s/(alpha_t sigma_s) - 1) eps."""
    teacher, (x, label) = model(1), batch()
    t, s = torch.full((8,), 500.0).double(), torch.full((8,), 480.0).double()
    w = torch.linspace(0, 14, 8).double()
    alpha_t, alpha_s, sigma_t, sigma_s = (
        expand(v, x) for v in (CLOCK.alpha(t), CLOCK.alpha(s), CLOCK.sigma(t), CLOCK.sigma(s))
    )

    def psi(label: Tensor | None) -> Tensor:
        eps_hat = (x - alpha_t * teacher(x, t, label=label)) / sigma_t
        return alpha_s / alpha_t * x - sigma_s * (sigma_t * alpha_s / (alpha_t * sigma_s) - 1) * eps_hat - x

    paper = x + expand(1 + w, x) * psi(label) - expand(w, x) * psi(None)
    ours = euler_step(Guided(teacher, label, w), CLOCK, x, t, s)
    torch.testing.assert_close(ours, paper, **CLOSE)


def test_the_loss_is_that_of_the_training_script():
    """Its steps 4 to 11, in its own numbering 0..999, for an eps-network and LCM's own boundary."""
    abar = torch.tensor(CLOCK.alpha_bar[1:], dtype=torch.float64)
    net, net_target, net_teacher = (randomise(MLP(2, 16, 2, CLASSES, True), i).double() for i in (1, 2, 3))
    (x0, label), index = batch(), torch.tensor([0, 0, 1, 7, 20, 33, 48, 49])
    eps, w = (torch.randn(x0.shape, generator=seeded(), dtype=torch.float64), torch.linspace(2, 14, 8).double())

    def scalings(i: Tensor) -> tuple[Tensor, Tensor]:
        scaled = i / 0.1
        return 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25) ** 0.5

    def consistency(net: MLP, x: Tensor, i: Tensor) -> Tensor:
        a, (skip, out) = abar[i][:, None], scalings(i[:, None].double())
        pred_x0 = (x - (1 - a).sqrt() * net(x, i.double() / 1000, label=label, w=w)) / a.sqrt()
        return skip * x + out * pred_x0

    start = 20 * (index + 1) - 1
    end = (start - 20).clamp(min=0)
    a = abar[start][:, None]
    noisy = a.sqrt() * x0 + (1 - a).sqrt() * eps
    time = start.double() / 1000
    conditional, null = net_teacher(noisy, time, label=label), net_teacher(noisy, time)
    eps_hat = conditional + w[:, None] * (conditional - null)
    pred_x0 = (noisy - (1 - a).sqrt() * eps_hat) / a.sqrt()
    a_prev = abar[torch.where(index > 0, 20 * index - 1, 0)][:, None]
    x_prev = a_prev.sqrt() * pred_x0 + (1 - a_prev).sqrt() * eps_hat
    script = (consistency(net, noisy, start) - consistency(net_target, x_prev, end)).square().sum(1)

    def ours(net: MLP) -> FromPrediction:
        return FromPrediction(lambda x, t, **cond: net(x, (t - 1) / 1000, **cond), CLOCK, "eps")

    f, f_target = LCMBoundary(ours(net)), LCMBoundary(ours(net_target))
    objective = LCD(ours(net_teacher), skip=20, w_range=(2, 14), distance=l2)
    t = 20.0 * (index + 1).double()
    draw = Draw(t=t, s=t - 20, eps=eps, w=w, seed=torch.arange(8))
    loss = objective.loss(f, f_target, x0, label, draw, 0, 1)
    torch.testing.assert_close(loss, script, **CLOSE)


# ------------------------------------------------------------------------------- LCM's own boundary
def eps_network(dtype: torch.dtype = torch.float64) -> FromPrediction:
    net = randomise(MLP(2, 16, 2, CLASSES), 1).to(dtype)
    return FromPrediction(lambda x, t, **cond: net(x, t / 1000, **cond), CLOCK, "eps")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("sd", [0.5, 1.75, 0.3])
def test_lcms_boundary_is_exact_at_its_first_timestep(dtype, sd):
    x = torch.randn(8, 2, generator=seeded()).to(dtype)
    f = LCMBoundary(eps_network(torch.float32 if dtype == torch.bfloat16 else dtype), sigma_data=sd)
    for time_dtype in (torch.float32, torch.float64):
        assert torch.equal(f(x, torch.ones(8, dtype=time_dtype)), x)


def test_lcms_scalings_are_the_published_ones():
    denoiser = eps_network()
    f = LCMBoundary(denoiser)
    t = torch.tensor([1, 2, 20, 1000]).double()
    s = 10 * (t - 1)
    torch.testing.assert_close(f.c_skip(t), 0.25 / (s**2 + 0.25), rtol=1e-14, atol=0)
    torch.testing.assert_close(f.c_out(t), s / (s**2 + 0.25).sqrt(), rtol=1e-14, atol=0)
    # .0025 at the second timestep; without the scaling by 10 it would be .2
    assert f.c_skip(t)[1].item() == pytest.approx(0.0025, abs=1e-5)
    assert LCMBoundary(denoiser, timestep_scaling=1.0).c_skip(t)[1].item() == pytest.approx(0.2)
    x, label = batch(4)
    expected = expand(f.c_skip(t), x) * x + expand(f.c_out(t), x) * denoiser(x, t, label=label)
    torch.testing.assert_close(f(x, t, label=label), expected, **CLOSE)


def test_the_wrapped_network_is_trained_through_the_boundary():
    denoiser = model(1)
    f, (x, label) = LCMBoundary(denoiser), batch()
    f(x, torch.full((8,), 400.0), label=label).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in f.parameters())
    assert f.schedule == CLOCK and f.t_min == 1


# -------------------------------------------------------------------------------------- the identities
def test_without_guidance_and_skips_it_is_cd():
    """w = 0 and k = 1 on the VP grid: the same draw, and the same loss on it, to rounding."""
    teacher, f, f_target = model(1), model(2, guidance=True), model(3, guidance=True)
    x0, label = batch(64)
    for step in (euler_step, heun_step):
        shared = {"step": step, "distance": pseudo_huber(0.1)}
        lcd = LCD(teacher, skip=1, w_range=(0, 0), **shared)
        cd = CD(teacher, grid=skip_grid(1000), **shared)
        draw, plain = (o.draw(x0, label, 3, 10, seeded(5)) for o in (lcd, cd))
        assert all(torch.equal(getattr(draw, name), getattr(plain, name)) for name in ("t", "s", "eps", "seed"))
        ours, theirs = (o(f, f_target, x0, label, 3, 10, seeded(5)) for o in (lcd, cd))
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_fine_tuning_is_consistency_training_with_skips():
    """LCF's points are alpha x0 + sigma eps at both times, with one eps, and w reaches both networks."""
    f, f_target, (x0, label) = model(2, guidance=True), model(3, guidance=True), batch(64)
    lcf = LCD(None, skip=20, w_range=(2, 14), grid=skip_grid(1000), distance=l2)
    draw = lcf.draw(x0, label, 0, 1, seeded())
    x_t, x_s = (CLOCK.add_noise(x0, draw.eps, time) for time in (draw.t, draw.s))
    expected = l2(f(x_t, draw.t, label=label, w=draw.w), f_target(x_s, draw.s, label=label, w=draw.w))
    torch.testing.assert_close(lcf.loss(f, f_target, x0, label, draw, 0, 1), expected, **CLOSE)


class Chain:
    """The consistency function of the k-skipping guided chain: DDIM from t down to 0, the answer LCD looks for."""

    schedule, t_min = CLOCK, 0.0

    def __init__(self, teacher: Denoiser, grid: Tensor) -> None:
        self.teacher, self.grid = teacher, grid

    def __call__(self, x: Tensor, t: Tensor, label: Tensor, w: Tensor) -> Tensor:
        out = []
        for i, time in enumerate(t):
            times = self.grid[self.grid <= time].flip(0)
            denoise = Guided(self.teacher, label[i : i + 1], w[i : i + 1])
            out.append(solve(denoise, CLOCK, x[i : i + 1], times, euler_step))
        return torch.cat(out)


def test_the_guided_chain_has_no_loss():
    """So LCD's answer is the chain of k-skips at each w and label: no better than its solver, and no worse."""
    teacher, (x0, label) = model(1), batch(12)
    objective = LCD(teacher, skip=100, w_range=(0, 4), distance=l2)
    chain = Chain(teacher, objective.grid)
    draw = objective.draw(x0, label, 0, 1, seeded())
    loss = objective.loss(chain, chain, x0, label, draw, 0, 1)
    assert loss.max() < 1e-20  # rounding, squared
    other = Draw(t=draw.t, s=draw.s, eps=draw.eps, seed=draw.seed, w=draw.w + 0.5)
    wrong_w = lambda x, t, label, w: chain(x, t, label=label, w=w + 0.5)  # noqa: E731
    wrong_w.schedule, wrong_w.t_min = CLOCK, 0.0
    assert objective.loss(chain, chain, x0, label, other, 0, 1).max() < 1e-20
    far = draw.t > 100  # at the first time of all both points are on the data, whatever w
    assert objective.loss(wrong_w, wrong_w, x0, label, draw, 0, 1)[far].max() > 1e-6


# -------------------------------------------------------------------------------------------------- w
def test_w_is_uniform_on_its_range_for_each_sample():
    x0, label = batch(20_000)
    w = LCD(model(1), skip=20, w_range=(2, 14)).draw(x0, label, 0, 1, seeded()).w
    assert w.shape == (20_000,) and w.min() >= 2 and w.max() <= 14
    # mean 8 and variance 12: five standard deviations of each, false alarm below 2e-6, the seed is fixed
    assert abs(w.mean().item() - 8) < 5 * (12 / 20_000) ** 0.5
    assert abs(w.var().item() - 12) < 5 * (0.8 * 12**2 / 20_000) ** 0.5
    fixed = LCD(model(1), skip=20, w_range=(7.5, 7.5)).draw(x0, label, 0, 1, seeded()).w
    assert (fixed == 7.5).all()  # LCM-LoRA


@pytest.mark.parametrize("sees", ["the solver", "f", "f_target"])
def test_w_reaches(sees):
    """Take the input w away from the other two: the loss still depends on it."""
    models = {"f": model(2, guidance=True), "f_target": model(3, guidance=True)}
    for name, f in models.items():
        if name != sees:
            torch.nn.init.zeros_(f.net.conditioning.w.weight)
    teacher = model(1)
    if sees != "the solver":
        null = teacher.net.conditioning.label.weight
        null.data.copy_(null[CLASSES].clone().expand_as(null))  # no class makes a difference: nothing to guide
    objective, (x0, label) = LCD(teacher, skip=20, w_range=(2, 14)), batch()
    draw = objective.draw(x0, label, 0, 1, seeded())
    moved = Draw(t=draw.t, s=draw.s, eps=draw.eps, seed=draw.seed, w=draw.w + 1)
    losses = [objective.loss(models["f"], models["f_target"], x0, label, d, 0, 1) for d in (draw, moved)]
    assert (losses[0] != losses[1]).all()


def test_other_clocks_skip_on_their_own_grids():
    for schedule, grid, t_min in ((EDM(), karras_grid(101), 0.002), (TrigFlow(), (karras_grid(101) / 0.5).atan(), 0.0)):
        teacher = model(1, schedule=schedule)
        f = Denoiser(randomise(MLP(2, 16, 2, CLASSES, True), 2), schedule, t_min=t_min).double()
        objective, (x0, label) = LCD(teacher, skip=10, w_range=(0, 3), grid=grid), batch(32)
        draw = objective.draw(x0, label, 0, 1, seeded())
        steps = torch.searchsorted(grid, draw.t) - torch.searchsorted(grid, draw.s)
        assert (steps == 10).all()
        assert objective.loss(f, copy.deepcopy(f), x0, label, draw, 0, 1).isfinite().all()


# ------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    "options, message",
    [
        ({"skip": 0}, r"skip = 0: the skipping step must lie in 1\.\.1000"),
        ({"skip": 1001}, "skip = 1001"),
        ({"w_range": (5, 2)}, r"w_range = \(5, 2\)"),
        ({"w_range": (-1, 2)}, "0 <= low <= high"),
        ({"w_range": (0, float("nan"))}, "0 <= low <= high"),
        ({"w_range": (0, float("inf"))}, "0 <= low <= high"),
        ({"mu": 1.0}, "never moves"),
        ({"grid": torch.tensor([3.0, 2.0, 1.0])}, "ascending grid"),
    ],
)
def test_bad_options_are_refused(options, message):
    refused(message, lambda: LCD(model(1), **{"skip": 20, "w_range": (2, 14), **options}))


def test_a_teacher_that_cannot_be_guided_is_refused():
    unlabelled = Denoiser(MLP(2, 16, 2), CLOCK)
    refused("no classes", lambda: LCD(unlabelled, skip=20, w_range=(2, 14)))
    refused("give it a grid", lambda: LCD(model(1, schedule=EDM()), skip=20, w_range=(2, 14)))
    refused("there is no teacher", lambda: LCD(None, skip=20, w_range=(2, 14)))
    objective, (x0, _) = LCD(model(1), skip=20, w_range=(2, 14)), batch()
    refused("needs a label", lambda: objective(model(2, guidance=True), model(3, guidance=True), x0))


def test_lcms_boundary_refuses_other_clocks_and_times_before_it():
    refused("needs the VP clock", lambda: LCMBoundary(model(1, schedule=EDM())))
    with pytest.raises(ValueError, match="t = 0: LCM's f begins at t = 1"):
        LCMBoundary(model(1))(torch.zeros(2, 2), torch.tensor([0.0, 5.0]))
