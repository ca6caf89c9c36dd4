"""TCD: the trajectory function in both forms, its boundary, what it becomes without u, and what it converges to."""

import itertools
import math

import exact
import pytest
import torch
from exact import grid_of, normal, refused, seeded
from torch import Tensor, nn

from minicm import LCD, MLP, Denoiser, GaussianMixture, Guided, TrainConfig, l2, pseudo_huber, train
from minicm.objectives.base import inverse_gap
from minicm.objectives.tcd import TCD, SecondOrder, first_order, trajectory_point, uniform_arrival
from minicm.sampling import Counted, sample
from minicm.schedules import EDM, VP, Schedule, TrigFlow, expand
from minicm.solvers import euler_step, heun_step
from minicm.times import karras_grid, skip_grid

VP_CLOCK = VP.scaled_linear()
CLOCKS = [EDM(), VP_CLOCK, TrigFlow()]
FORMS = [first_order, SecondOrder]
ROUNDING = dict(rtol=1e-10, atol=1e-11)  # float64, numbers up to 80, a few dozen operations


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def model(schedule: Schedule, seed: int = 0, classes: int = 3, size: int = 2) -> Denoiser:
    """A consistency function with random weights: the identities below hold for any f."""
    torch.manual_seed(seed)
    net = MLP(size, 16, 2, classes, True, True).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return Denoiser(net, schedule, t_min=0.002 if isinstance(schedule, EDM) else 0.0).double()


class Gaussian(exact.Gaussian):
    """The single Gaussian off the middle, and samples of it."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(torch.tensor([0.4, -0.3], dtype=torch.float64), 0.35, schedule)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        return self.mean + self.std * normal(n, 2, seed=seed)


class ExactTrajectory(Gaussian):
    """The f whose G is the flow: x0_hat where the line from (x, t) through the exact point at u ends."""

    second_time = True

    def __call__(self, x: Tensor, t: Tensor, label=None, w=None, u=None) -> Tensor:
        alpha_t, alpha_u = expand(self.schedule.alpha(t), x), expand(self.schedule.alpha(u), x)
        kept = expand(self.schedule.sigma(u) / self.schedule.sigma(t), x)
        line = (self.flow(x, t, u) - kept * x) / (alpha_u - kept * alpha_t)
        # at u = t any finite x0_hat will do, and at t = 0 only x
        line = torch.where((u == t)[:, None], super().__call__(x, t), line)
        return torch.where((self.schedule.sigma(t) == 0)[:, None], x, line)


# ------------------------------------------------------------------------------------------------ the function
@pytest.mark.parametrize("schedule", CLOCKS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("form", FORMS)
def test_at_u_equal_to_t_it_is_x_for_any_network(schedule, form):
    f, x = form(model(schedule)), normal(7, 2)
    first = 0.002 if isinstance(schedule, EDM) else 0.0
    for t in (first, *grid_of(schedule, 10)[1:].tolist()):
        now = times(*[t] * 7)
        torch.testing.assert_close(trajectory_point(f, x, now, now), x, **ROUNDING)
    now = times(*[first] * 7)
    assert torch.equal(trajectory_point(f, x, now, now), x), "the boundary is exact"


@pytest.mark.parametrize("schedule", [VP_CLOCK, TrigFlow()], ids=["VP", "TrigFlow"])
def test_to_clean_it_is_f(schedule):
    f, x, t = model(schedule), normal(5, 2), grid_of(schedule, 5)[1:6]
    t = t[:4]
    zero = torch.zeros_like(t)
    assert torch.equal(trajectory_point(f, x[:4], t, zero), f(x[:4], t, u=zero))
    # half-way to clean is clean: the second-order form is then the first order's
    torch.testing.assert_close(SecondOrder(f)(x[:4], t, u=zero), f(x[:4], t, u=zero), **ROUNDING)


@pytest.mark.parametrize("shape", [(2,), (8,), (3, 8, 8)])
def test_the_papers_formulas(shape):
    """TCF(1) and TCF(2) with lambda = ln(alpha/sigma), h = lambda_u - lambda_t, r = 1/2; a batch as wide as the image."""
    schedule, x = VP_CLOCK, normal(8, *shape)
    t, u = times(1000, 900, 700, 640, 500, 300, 200, 40), times(800, 100, 699, 320, 2, 150, 1, 39)
    f = model(schedule, size=math.prod(shape))
    w, label = torch.linspace(0, 3, 8, dtype=torch.float64), torch.arange(8) % 3

    def lam(time: Tensor) -> Tensor:
        return (schedule.alpha(time) / schedule.sigma(time)).log()

    def semilinear(x0_hat: Tensor, u: Tensor) -> Tensor:
        h = lam(u) - lam(t)
        shrink = expand(schedule.sigma(u) / schedule.sigma(t), x)
        return shrink * x - expand(schedule.alpha(u) * torch.expm1(-h), x) * x0_hat

    one = semilinear(f(x, t, label=label, w=w, u=u), u)
    torch.testing.assert_close(trajectory_point(f, x, t, u, label=label, w=w), one, **ROUNDING)

    middle = schedule.t_of((-(lam(t) + lam(u)) / 2).exp())
    assert ((middle <= t) & (middle >= u)).all()
    x_middle = semilinear(f(x, t, label=label, w=w, u=middle), middle)
    two = semilinear(f(x_middle, middle, label=label, w=w, u=u), u)
    torch.testing.assert_close(trajectory_point(SecondOrder(f), x, t, u, label=label, w=w), two, **ROUNDING)


def test_in_the_edm_clock_it_is_ctms():
    f, x, t, u = model(EDM()), normal(4, 2), times(80, 10, 1, 0.5), times(40, 0.002, 0.9, 0.1)
    ratio = (u / t)[:, None]
    ctm = ratio * x + (1 - ratio) * f(x, t, u=u)
    torch.testing.assert_close(trajectory_point(f, x, t, u), ctm, **ROUNDING)


@pytest.mark.parametrize("schedule", [EDM(), TrigFlow()], ids=["EDM", "TrigFlow"])
@pytest.mark.parametrize("form, order", [(first_order, 2), (SecondOrder, 3)])
def test_local_error_of_an_f_that_ignores_u(schedule, form, order):
    """With a diffusion model for f the two forms are ODE solvers: errors h^2 and h^3 in one step of h in ln(sigma)."""
    exact = Gaussian(schedule)
    h = torch.logspace(-2.5, -1.5, 6, dtype=torch.float64)
    noise = torch.full_like(h, 0.8)
    t, u = schedule.t_of(noise), schedule.t_of(noise * (-h).exp())
    x = expand(schedule.alpha(t), normal(6, 2)) * torch.tensor([[1.3, 0.7]], dtype=torch.float64)
    error = (trajectory_point(form(exact), x, t, u) - exact.flow(x, t, u)).norm(dim=1)
    slopes = error.log().diff() / h.log().diff()
    # the next term is smaller by a factor of order h <= .03
    assert ((slopes - order).abs() < 0.05).all(), slopes


@pytest.mark.parametrize("form, order", [(first_order, 1), (SecondOrder, 2)])
def test_sampling_without_noise_converges_with_its_order(form, order):
    """sample(SecondOrder(D), gamma=0) is DPM-Solver++(2S); the step to clean at the end costs no order (it is D's)."""
    exact, x = Gaussian(EDM()), normal(50, 2) * 80
    errors, counts = [], (20, 40, 80, 160)
    for n in counts:
        f = Counted(exact)
        grid = torch.logspace(math.log10(80), math.log10(1e-4), n, dtype=torch.float64)
        x0 = sample(form(f), x, grid, gamma=0.0, t_min=0.0)
        errors.append((x0 - exact.flow(x, times(*[80] * 50), times(*[0] * 50))).norm(dim=1).median())
        assert f.evaluations == n * order
    slopes = -torch.stack(errors).log().diff() / math.log(2)
    # the coarsest pair is not quite asymptotic: .1; the floor is D at 1e-4 instead of the flow, 1e-8
    assert ((slopes - order).abs() < 0.1).all(), slopes


# ------------------------------------------------------------------------------------------------ the loss
def no_arrival(grid: Tensor, s: Tensor, generator: torch.Generator) -> Tensor:
    return torch.zeros_like(s)


@pytest.mark.parametrize("k, weight, step", [(20, inverse_gap, euler_step), (250, None, heun_step)])
def test_with_every_u_0_it_is_lcd(k, weight, step):
    """The network is told u = 0 by both: by TCD as u, by LCD as the end that a missing u means."""
    f, f_target, teacher = (model(VP_CLOCK, seed) for seed in (1, 2, 3))
    x0, label = normal(600, 2), torch.arange(600) % 3
    options = dict(skip=k, w_range=(2.0, 14.0), step=step, distance=pseudo_huber(0.01), mu=0.9)
    options |= {} if weight is None else {"weight": weight}
    tcd, lcd = TCD(teacher, u_law=no_arrival, **options), LCD(teacher, **options)
    draws = [objective.draw(x0, label, 3, 10, seeded()) for objective in (tcd, lcd)]
    for field in ("t", "s", "w", "eps", "seed"):
        assert torch.equal(*(getattr(draw, field) for draw in draws)), field
    assert (draws[0].u == 0).all()
    assert (draws[0].s == 0).any(), "1 in 50 has s = 0: missed by 600 with probability 5e-6, and the seed is fixed"
    ours, theirs = (o.loss(f, f_target, x0, label, draws[0], 3, 10) for o in (tcd, lcd))
    torch.testing.assert_close(ours, theirs, **ROUNDING)
    assert tcd.target_decay(0, 1) == lcd.target_decay(0, 1) == 0.9


def test_where_u_is_s_the_target_is_the_teachers_point():
    """No second network is asked there, s = 0 included: trajectory_point returns x_s for any f_target."""
    f, f_target, teacher = (model(VP_CLOCK, seed) for seed in (1, 2, 3))
    x0, label = normal(16, 2), torch.arange(16) % 3
    tcd = TCD(teacher, skip=100, w_range=(0.0, 3.0), u_law=lambda grid, s, generator: s, distance=l2)
    draw = tcd.draw(x0, label, 0, 1, seeded())
    assert (draw.s == 0).any() and (draw.s > 0).any()
    x_t = VP_CLOCK.add_noise(x0, draw.eps, draw.t)
    x_s = euler_step(Guided(teacher, label, draw.w), VP_CLOCK, x_t, draw.t, draw.s)
    expected = l2(trajectory_point(f, x_t, draw.t, draw.s, label=label, w=draw.w), x_s)
    torch.testing.assert_close(tcd.loss(f, f_target, x0, label, draw, 0, 1), expected, **ROUNDING)


@pytest.mark.parametrize("step, power", [(euler_step, 4), (heun_step, 6)])
@pytest.mark.parametrize("schedule", [EDM(), TrigFlow()], ids=["EDM", "TrigFlow"])
def test_at_the_exact_solution_the_loss_is_the_solvers_error(schedule, step, power):
    """With the exact trajectory function for f the loss falls as N^-4 (Euler) and N^-6 (Heun), for every u."""
    exact, f = Gaussian(schedule), ExactTrajectory(schedule)
    f.t_min = grid_of(schedule, 2)[0].item()
    x0, losses = exact.sample(4000), []
    for n in (20, 40, 80):
        grid = torch.logspace(math.log10(0.05), math.log10(5), n + 1, dtype=torch.float64)
        tcd = TCD(exact, skip=1, grid=schedule.t_of(grid), step=step, distance=l2)
        losses.append(tcd(f, f, x0, generator=seeded()).mean())
    slopes = -torch.stack(losses).log().diff() / math.log(2)
    # the median over 4000 draws of (t, s, u) moves the mean by a few per cent, .1 in the exponent of 2
    assert ((slopes - power).abs() < 0.35).all(), slopes


def test_both_evaluations_of_the_second_order_form_have_the_same_dropout_in_f_and_its_target():
    class Dropped(nn.Module):
        second_time = True

        def __init__(self) -> None:
            super().__init__()
            self.masks = []

        def forward(self, x: Tensor, c_noise: Tensor, **cond) -> Tensor:
            self.masks.append(nn.functional.dropout(torch.ones_like(x), 0.5))
            return self.masks[-1] * x

    f, f_target = Denoiser(Dropped(), VP_CLOCK), Denoiser(Dropped(), VP_CLOCK)
    TCD(Gaussian(VP_CLOCK), skip=20, form=SecondOrder)(f, f_target, normal(16, 2), generator=seeded())
    (one, two), (target_one, target_two) = f.net.masks, f_target.net.masks
    assert torch.equal(one, target_one) and torch.equal(two, target_two)


def test_without_a_w_range_the_teacher_is_not_guided():
    f, f_target, teacher = (model(VP_CLOCK, seed) for seed in (1, 2, 3))
    x0, label, counted = normal(16, 2), torch.arange(16) % 3, Counted(teacher)
    plain = TCD(counted, skip=20)
    draw = plain.draw(x0, label, 0, 1, seeded())
    assert draw.w is None
    ours = plain.loss(f, f_target, x0, label, draw, 0, 1)
    assert counted.evaluations == 1
    # w = 0 is the conditional teacher too; the students are told w = 0 where they are told none
    guided_by_0 = TCD(teacher, skip=20, w_range=(0.0, 0.0))
    draw = guided_by_0.draw(x0, label, 0, 1, seeded())
    again = guided_by_0.loss(f, f_target, x0, label, draw, 0, 1)
    assert (draw.w == 0).all() and again.shape == ours.shape == (16,)
    unlabelled = TCD(Gaussian(VP_CLOCK), skip=20)(f, f_target, x0, generator=seeded())
    assert unlabelled.shape == (16,) and unlabelled.isfinite().all()


# ------------------------------------------------------------------------------------------------ learning
def all_pairs_error(f: Denoiser, mixture: GaussianMixture, times: Tensor) -> float:
    """Rms of G - the exact flow over all u < t of `times`, in units of the standard deviation of x_u."""
    x0, _ = mixture.sample(400, seeded(1))
    x = f.schedule.add_noise(x0.double(), normal(*x0.shape, seed=2), times[-1].expand(len(x0)))
    exact, squares = mixture.trajectory(x, times.flip(0), f.schedule).flip(0), []
    for i, j in itertools.combinations(range(len(times)), 2):
        u, t = (time.expand(len(x)) for time in (times[i], times[j]))
        spread = f.schedule.sigma(u).square() + (f.schedule.alpha(u) * 0.5).square()
        with torch.no_grad():
            point = trajectory_point(f, exact[j].float(), t, u)
        squares.append(((point - exact[i]).square().mean(1) / spread).mean())
    return torch.stack(squares).mean().sqrt().item()


@pytest.mark.parametrize("schedule", [EDM(), VP_CLOCK], ids=["EDM", "VP"])
def test_it_learns_the_way_between_all_pairs_of_times(schedule):
    """A second or two of training on the ring; a minute gives .03."""
    torch.manual_seed(0)
    mixture, noise = GaussianMixture.ring(), karras_grid(18, 0.02, 14.0)
    grid = torch.cat([grid_of(schedule, 2)[:1], schedule.t_of(noise)]).unique()
    f = Denoiser(MLP(2, 64, 3, second_time=True), schedule, t_min=grid[0].item())
    times = grid[:: len(grid) // 4]
    before = all_pairs_error(f, mixture, times)
    tcd = TCD(mixture.denoiser(schedule), skip=1, grid=grid, step=heun_step, distance=pseudo_huber(0.03), mu=0.0)
    *_, last = train(f, tcd, mixture, TrainConfig(steps=400, batch=256, lr=3e-3, warmup=20, ema=0.98))
    after = all_pairs_error(last.ema, mixture, times)
    assert before > 0.3 and after < before / 2.5, (before, after)  # over 3 seeds the ratio is above 3; see below


# ------------------------------------------------------------------------------------------------ the draw
def test_arrivals_are_uniform_on_the_grid_up_to_s():
    grid, n = karras_grid(6), 60_000
    s = grid[torch.arange(n) % 5]
    u = uniform_arrival(grid, s, seeded())
    for i in range(5):
        counts = (u[s == grid[i], None] == grid).sum(0).double()
        assert counts[i + 1 :].sum() == 0, "an arrival after the start"
        expected = n / 5 / (i + 1)
        if i:
            # 5 standard deviations of a binomial count, 14 counts: false alarms 1e-5
            deviation = math.sqrt(expected * (1 - 1 / (i + 1)))
            assert ((counts[: i + 1] - expected).abs() < 5 * deviation).all()
        else:
            assert counts[0] == expected


@pytest.mark.parametrize("k", [1, 20, 333])
def test_draws_are_ordered_and_arrive_between_the_skips_too(k):
    x0 = torch.zeros(20_000, 1)
    draw = TCD(Gaussian(VP_CLOCK), skip=k).draw(x0, None, 0, 1, seeded())
    assert ((draw.u <= draw.s) & (draw.s < draw.t)).all() and (draw.u >= 0).all() and (draw.t <= 1000).all()
    assert torch.equal(draw.u, draw.u.round())
    assert (draw.t - draw.s == k).float().mean() > 0.7  # all but the lowest, which may be shorter
    if k > 1:
        assert (draw.u % k != 0).any()


def test_a_curriculum_of_grids_is_asked_at_every_step():
    tcd = TCD(Gaussian(EDM()), skip=2, grid=lambda k, K: karras_grid(9 if k < K / 2 else 17))
    for step, points in ((0, 9), (4, 9), (5, 17)):
        draw = tcd.draw(torch.zeros(2000, 2), None, step, 10, seeded())
        assert set(draw.t.tolist()) == set(karras_grid(points)[2::2].tolist())
        assert set(draw.u.tolist()) == set(karras_grid(points)[:-2].tolist())  # 1 in 56: 2000 draws miss none


def test_refusals():
    teacher = Gaussian(VP_CLOCK)
    refused("skip = 0", lambda: TCD(teacher, skip=0))
    refused("skip = 1001", lambda: TCD(teacher, skip=1001))
    refused("ascending", lambda: TCD(teacher, skip=1, grid=skip_grid(10).flip(0)))
    refused("VP clock", lambda: TCD(Gaussian(EDM()), skip=1))
    refused("mu must lie", lambda: TCD(teacher, skip=1, mu=1.0))
    refused("w_range", lambda: TCD(teacher, skip=1, w_range=(3.0, 2.0)))
    refused("no classes", lambda: TCD(model(VP_CLOCK, classes=0), skip=1, w_range=(0.0, 2.0)))
    refused("needs labels", lambda: TCD(teacher, skip=1, w_range=(0.0, 2.0)).draw(normal(4, 2), None, 0, 1, seeded()))
