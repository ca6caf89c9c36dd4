"""Zero-shot editing: what is known is kept, what is masked is never looked at, and Algorithm 4 line by line."""

import math

import pytest
import torch
from exact import normal, refused, seeded
from torch import Tensor

from minicm import EDM, MLP, VP, Denoiser, GaussianMixture, TrigFlow, editing, karras_grid
from minicm.editing import IDENTITY, LUMINANCE, denoise, edit, inpaint, orthogonal, patches, slerp
from minicm.sampling import Counted, sample

TIMES = [80.0, 5.38, 2.24]
ROUNDING = dict(rtol=0, atol=1e-12)  # float64, numbers of order 1 (x_T of order 80), fewer than 100 operations each


def model(size: int, schedule=EDM(), **options) -> Denoiser:
    """A consistency function with random weights: the algorithms must not depend on its being good."""
    torch.manual_seed(0)
    net = MLP(size, 16, 2, **options).double()
    torch.nn.init.normal_(net.out.weight, std=0.3)
    return Denoiser(net, schedule, t_min=0.002 if isinstance(schedule, EDM) else 0.0).double().eval()


CLOCKS = [(EDM(), TIMES), (VP.scaled_linear(), [1000, 500, 250]), (TrigFlow(), [1.56, 1.1, 0.4])]


# ------------------------------------------------------------------------------------------------ Algorithm 4
def test_edit_is_algorithm_4_line_by_line():
    f, y, generator = model(6), normal(5, 6), seeded(3)
    Q = orthogonal([1.0, 2.0, 0.0, 1.0, 0.0, 0.0])
    omega = torch.tensor([0, 0, 1, 1, 0, 1], dtype=torch.float64)

    def put_back(known: Tensor, x: Tensor) -> Tensor:
        return ((known @ Q) * (1 - omega) + (x @ Q) * omega) @ Q.T

    y_masked = put_back(y, torch.zeros_like(y))
    x = y_masked + TIMES[0] * torch.randn(y.shape, generator=generator, dtype=y.dtype)
    x = put_back(y_masked, f(x, torch.full((5,), TIMES[0], dtype=torch.float64)))
    for t in TIMES[1:]:
        x = x + math.sqrt(t**2 - 0.002**2) * torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = put_back(y_masked, f(x, torch.full((5,), t, dtype=torch.float64)))

    # (B, 1, 6) are patches of 6 pixels in a row
    result = edit(f, y[:, None], patches(6, Q), omega == 1, TIMES, seeded(3))
    torch.testing.assert_close(result[:, 0], x, **ROUNDING)


@pytest.mark.parametrize("schedule, times", CLOCKS)
def test_with_nothing_known_it_is_multistep_sampling(schedule, times):
    f, y = model(6, schedule), normal(5, 6)
    eps = torch.randn(5, 6, generator=(generator := seeded(1)), dtype=torch.float64)
    start = schedule.add_noise(torch.zeros_like(y), eps, torch.full((5,), times[0], dtype=torch.float64))
    plain = sample(f, start, times, generator=generator)
    assert torch.equal(edit(f, y, IDENTITY, torch.ones(6), times, seeded(1)), plain)


@pytest.mark.parametrize("schedule, times", CLOCKS)
@pytest.mark.parametrize("shape", [(2,), (3, 8, 8), (8,)])  # a batch of 8: as wide as the image, as the point
def test_inpainting_keeps_the_known_part_and_never_looks_at_the_rest(schedule, times, shape):
    f, y = model(math.prod(shape), schedule), normal(8, *shape)
    missing = torch.rand(shape, generator=seeded(5)) < 0.5
    missing.flatten()[0], missing.flatten()[-1] = True, False
    x = inpaint(f, y, missing, times, seeded(1))
    assert torch.equal(x[:, ~missing], y[:, ~missing])
    hidden = torch.where(missing, torch.nan, y)  # it may hold anything
    assert torch.equal(inpaint(f, hidden, missing, times, seeded(1)), x)
    again = inpaint(f, y, missing, times, seeded(2))
    assert (again[:, missing] != x[:, missing]).any(), "another seed, another completion"


def test_each_sample_may_have_its_own_mask():
    f, y = model(4), normal(6, 4)
    missing = torch.rand(6, 4, generator=seeded(2)) < 0.5
    x = inpaint(f, y, missing, TIMES, seeded())
    assert torch.equal(x[~missing], y[~missing]) and (x[missing] != y[missing]).all()


def test_labels_guidance_and_a_second_time_reach_the_network():
    f = model(2, classes=3, guidance=True, second_time=True)
    y, missing = normal(7, 2), torch.tensor([True, False])
    label, w = torch.arange(7) % 3, torch.linspace(0, 3, 7, dtype=torch.float64)
    torch.nn.init.normal_(f.net.conditioning.w.weight)
    torch.nn.init.normal_(f.net.conditioning.u.weight)
    x = inpaint(f, y, missing, TIMES, seeded(), label=label, w=w)
    assert not torch.equal(x, inpaint(f, y, missing, TIMES, seeded(), label=label))
    assert not torch.equal(x, inpaint(f, y, missing, TIMES, seeded(), w=w))
    # the result of one step is f's point at the first time of the clock, and f is told so
    t, u = (torch.full((7,), time, dtype=torch.float64) for time in (80.0, 0.002))
    expected = f(y, t, label=label, w=w, u=u)
    assert torch.equal(denoise(f, y, 80.0, label=label, w=w), expected)


@pytest.mark.parametrize("times", [karras_grid(18).flip(0), [0.002], [80.0, 0.002]])
def test_one_evaluation_a_time(times):
    f = Counted(model(2))
    inpaint(f, normal(3, 2), torch.tensor([True, False]), times, seeded())
    assert f.evaluations == len(times)


# ------------------------------------------------------------------------------------------------ the exact conditional
class ExactGaussian:
    """f* of N(0, S) in two dimensions, a matrix for each time: (S + t_min^2)^(1/2) (S + t^2)^(-1/2)."""

    schedule, t_min = EDM(), 0.002
    S = torch.tensor([[0.25, 0.2], [0.2, 0.25]], dtype=torch.float64)

    def matrix(self, t: Tensor) -> Tensor:
        eigenvalues, axes = torch.linalg.eigh(self.S)
        return axes @ ((eigenvalues + self.t_min**2) / (eigenvalues + t**2)).sqrt().diag() @ axes.T

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return x @ self.matrix(t[0])

    def law_of_algorithm_4(self, known: float, times: Tensor) -> tuple[float, float]:
        """Mean and standard deviation of the second coordinate that Algorithm 4 gives, the first being known."""
        M = self.matrix(times[0])
        mean, variance = M[1, 0] * known, times[0] ** 2 * (M[1] @ M[1])
        for t in times[1:]:
            M, noise = self.matrix(t), t**2 - self.t_min**2
            mean, variance = M[1, 0] * known + M[1, 1] * mean, M[1, 1] ** 2 * variance + noise * (M[1] @ M[1])
        return mean.item(), variance.sqrt().item()


@pytest.mark.parametrize("points", [2, 5, 40])
def test_completing_a_gaussian_point_follows_the_law_of_algorithm_4(points):
    f, n, times = ExactGaussian(), 20_000, karras_grid(points).flip(0)
    y = torch.tensor([[0.5, torch.nan]], dtype=torch.float64).expand(n, 2)
    x = inpaint(f, y, torch.tensor([False, True]), times, seeded())[:, 1]
    mean, std = f.law_of_algorithm_4(0.5, times)
    # 5 standard errors of a mean and of a standard deviation, 6 comparisons: false alarms 4e-6
    assert abs(x.mean().item() - mean) < 5 * std / n**0.5
    assert abs(x.std().item() - std) < 5 * std / (2 * n) ** 0.5


def test_with_many_times_it_tends_to_the_exact_conditional():
    """x2 given x1 = .5 is N(.4, .3^2). 40 times are far from it: the gap falls as 1/N, here by 3.4 to 4.1 for 4."""
    law = [ExactGaussian().law_of_algorithm_4(0.5, karras_grid(n).flip(0)) for n in (40, 160, 640, 2560)]
    gaps = torch.tensor(law, dtype=torch.float64) - torch.tensor([0.4, 0.3], dtype=torch.float64)
    assert (gaps[0].abs() > 0.04).all() and (gaps[-1].abs() < 0.003).all()
    assert ((gaps[:-1] / gaps[1:] > 3) & (gaps[:-1] / gaps[1:] < 4.2)).all()


def test_completing_a_point_of_the_ring_fills_the_modes_on_its_line():
    """Two of eight modes have x1 = 0: both are found, equally often, and nothing lies between them."""
    mixture, n = GaussianMixture.ring(), 200

    class Exact:
        schedule, t_min = EDM(), 0.002

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return mixture.consistency(x, t)

    y = torch.zeros(n, 2, dtype=torch.float64)
    x = inpaint(Exact(), y, torch.tensor([False, True]), karras_grid(40).flip(0), seeded())
    upper = int((x[:, 1] > 0).sum())
    assert abs(upper - n / 2) < 5 * (n / 4) ** 0.5  # 5 standard deviations of a fair coin: 6e-7
    # Exact points leave 4 standard deviations with probability 3e-4; the algorithm with 40 times a little more often
    near = (mixture.mahalanobis2(x).amin(1) < 16).double().mean()
    assert near > 0.93


# ------------------------------------------------------------------------------------------------ operators
@pytest.mark.parametrize("first", [[1.0], [2.0], [1.0, 0.0], [0.0, 1.0], LUMINANCE, [1.0] * 16])
def test_the_orthogonal_matrix_is_orthogonal_and_has_the_column_asked_for(first):
    Q, column = orthogonal(first), torch.tensor(first, dtype=torch.float64)
    torch.testing.assert_close(Q @ Q.T, torch.eye(len(first), dtype=torch.float64), **ROUNDING)
    torch.testing.assert_close(Q[:, 0], column / column.norm(), **ROUNDING)


@pytest.mark.parametrize("space", [(12,), (4, 8), (8, 8), (4, 4, 6)])
def test_patches_go_there_and_back(space):
    x = normal(8, 3, *space)
    A = patches(2, orthogonal([1.0] * 2 ** len(space)))
    z = A.forward(x)
    assert z.shape == (8, 3, *[n // 2 for n in space], 2 ** len(space))
    torch.testing.assert_close(A.inverse(z), x, **ROUNDING)
    torch.testing.assert_close(z.square().sum(), x.square().sum(), rtol=1e-12, atol=0)  # orthogonal


def test_a_patch_is_made_of_neighbours():
    """Coefficient 0 is the patch's average times the root of its size, which a wrong permutation would not give."""
    x = normal(2, 3, 8, 12)
    z = patches(4, orthogonal([1.0] * 16)).forward(x)
    average = torch.nn.functional.avg_pool2d(x, 4)
    torch.testing.assert_close(z[..., 0], 4 * average, **ROUNDING)


@pytest.mark.parametrize("space", [(), (5,), (4, 6), (3, 2, 2)])
def test_channels_go_there_and_back(space):
    A, x = editing.channels(orthogonal(LUMINANCE)), normal(3, 3, *space)
    torch.testing.assert_close(A.inverse(A.forward(x)), x, **ROUNDING)


# ------------------------------------------------------------------------------------------------ tasks
@pytest.mark.parametrize("space", [(), (6,), (4, 4)])
def test_colourisation_keeps_the_luminance(space):
    f, grey = model(3 * math.prod(space)), normal(3, 1, *space)
    x = editing.colourise(f, grey, TIMES, seeded())
    weights = torch.tensor(LUMINANCE, dtype=torch.float64)
    kept = torch.einsum("c,bc...->b...", weights, x) / weights.sum()  # they add up to .9999
    torch.testing.assert_close(kept, grey[:, 0], **ROUNDING)
    assert (x - x.mean(1, keepdim=True)).abs().max() > 1e-3, "nothing was coloured"


@pytest.mark.parametrize("patch, space", [(2, (4,)), (2, (2, 3)), (4, (2, 2)), (2, (2, 1, 2)), (1, (4, 4))])
def test_super_resolution_keeps_the_patch_averages(patch, space):
    f, low = model(3 * math.prod(space) * patch ** len(space)), normal(3, 3, *space)
    x = editing.super_resolve(f, low, patch, TIMES, seeded())
    assert x.shape == (3, 3, *[patch * n for n in space])
    average = x
    for dim in range(2, x.ndim):
        average = average.unflatten(dim, (-1, patch)).mean(dim + 1)
    torch.testing.assert_close(average, low, **ROUNDING)


def test_a_stroke_is_noised_as_it_is_and_not_blanked():
    f, y = model(2), normal(6, 2)
    eps = torch.randn(6, 2, generator=(generator := seeded(4)), dtype=torch.float64)
    expected = sample(f, y + 5.38 * eps, [5.38, 2.24], generator=generator)
    assert torch.equal(editing.stroke(f, y, [5.38, 2.24], seeded(4)), expected)
    # at t_min nothing but the noise itself moves the drawing: 6 standard deviations (12 numbers: 2e-8)
    torch.testing.assert_close(editing.stroke(f, y, [0.002], seeded(4)), y, rtol=0, atol=6 * 0.002)


def test_denoising_is_f_at_any_level():
    f, x = model(2), normal(6, 2)
    for t in (0.002, 0.3, 80.0):
        assert torch.equal(denoise(f, x, t), f(x, torch.full((6,), t, dtype=torch.float64)))
    assert torch.equal(denoise(f, x, 0.002), x)


# ------------------------------------------------------------------------------------------------ interpolation
def test_interpolation_starts_at_f_of_a_and_ends_at_f_of_b():
    f = model(12)
    a, b = (f.schedule.prior((8, 3, 4), seeded(seed), dtype=torch.float64) for seed in (1, 2))
    path = editing.interpolate(f, a, b, torch.linspace(0, 1, 5))
    assert path.shape == (5, 8, 3, 4)
    t = torch.full((8,), 80.0, dtype=torch.float64)
    torch.testing.assert_close(path[0], f(a, t), **ROUNDING)
    torch.testing.assert_close(path[-1], f(b, t), **ROUNDING)


def test_slerp_takes_each_sample_by_its_own_angle():
    a, b = normal(6, 3, 4), normal(6, 3, 4, seed=1)
    together = slerp(a, b, 0.3)
    for i in range(6):
        torch.testing.assert_close(together[i : i + 1], slerp(a[i : i + 1], b[i : i + 1], 0.3), **ROUNDING)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
def test_slerp_stays_on_the_sphere_and_divides_the_angle(fraction):
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (normal(20, 5), normal(20, 5, seed=1)))
    x = slerp(a, b, fraction)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(20, dtype=torch.float64), **ROUNDING)
    angle, whole = ((a * other).sum(1).clamp(-1, 1).acos() for other in (x, b))
    # acos has an infinite slope at 1: an angle of 0 comes out as the root of the rounding, 2e-8
    torch.testing.assert_close(angle, fraction * whole, rtol=0, atol=1e-7)


def test_slerp_of_parallel_noises_is_finite():
    a = normal(4, 3)
    torch.testing.assert_close(slerp(a, a, 0.5), a, **ROUNDING)
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), 2 * a, rtol=0, atol=1e-7)  # acos near 1, as above


# ------------------------------------------------------------------------------------------------ refusals
def test_refusals_name_what_is_wrong():
    f, y = model(2), normal(4, 2)
    for call, complaint in (
        (lambda: inpaint(f, y, torch.ones(3), TIMES), r"mask .* does not broadcast"),
        (lambda: inpaint(f, y, torch.ones(5, 4, 2), TIMES), r"mask .* does not broadcast"),
        (lambda: inpaint(f, y, torch.ones(2), [1.0, 2.0]), "must decrease"),
        (lambda: inpaint(f, y, torch.ones(2), [1.0, 0.001]), "t_min"),
        (lambda: denoise(f, y, 81.0), "outside"),
        (lambda: editing.colourise(f, normal(4, 3, 2), TIMES), r"\(B, 1"),
        (lambda: editing.super_resolve(f, normal(4, 1, 2, 2), 0, TIMES), "patch"),
        (lambda: patches(3, orthogonal([1.0] * 9)).forward(normal(2, 1, 8, 9)), "not made of patches"),
    ):
        refused(complaint, call)
