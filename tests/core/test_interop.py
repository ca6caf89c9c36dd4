"""Agreement with `diffusers`: the same network and noise give the same numbers, step by step.

The schedulers keep their tables in float32. Where one lets us, the table is replaced by its own float64 copy, and
then the two must agree to rounding: ROUNDING below. What differs on purpose is asserted too, with its reason.
Numbering: the timestep i of `diffusers` is our t = i + 1, since t = 0 is clean here.
"""

import math

import pytest
import torch
from exact import normal, seeded
from torch import Tensor, nn

from minicm import EDM, VP, Denoiser, FromPrediction, TrainConfig, TrigFlow, karras_grid, sample, skip_grid, train
from minicm.checkpoint import load_checkpoint, save_checkpoint
from minicm.nets.embeddings import guidance_embedding
from minicm.nets.lora import add_lora, load_lora, lora_state, merge_lora
from minicm.objectives.lcd import LCD, LCMBoundary
from minicm.solvers import euler_step, heun_step, solve

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")]
diffusers = pytest.importorskip("diffusers", reason="the optional extra 'interop' is not installed")

# float64 has 16 digits; chains of at most 40 steps on numbers up to 80 lose three or four of them
ROUNDING = dict(rtol=1e-11, atol=1e-12)
SHAPE = (4, 3, 5)  # not an image: the schedulers take any shape, and so do we


def noise(*shape: int) -> Tensor:
    return normal(*(shape or SHAPE))


class Network(nn.Module):
    """Any smooth function of (x, t) will do; it remembers the points that it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, **cond) -> Tensor:
        self.seen.append(x)
        return 0.7 * torch.sin(2 * x + 0.01 * t.reshape(-1, 1, 1)) + 0.2 * x.flip(-1)


def in_float64(scheduler):
    """The scheduler with its table in float64, and our clock with the very same table."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    return scheduler, VP((1.0, *scheduler.alphas_cumprod.tolist()))


def latent(name: str, **options):
    """A scheduler as Stable Diffusion sets it up, in float64, and our clock."""
    options = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear") | options
    return in_float64(getattr(diffusers, name)(**options))


def loop(scheduler, net: Network, x: Tensor, **options) -> tuple[list[Tensor], list[Tensor]]:
    """The loop of a diffusers pipeline: the point before each step and after the last, and the second outputs."""
    points, second = [x], []
    for i in scheduler.timesteps:
        prediction = net(points[-1], i + 1 + torch.zeros(len(x), dtype=torch.float64))
        # the int, since a tensor of int64 would make its c_skip float32
        point, *rest = scheduler.step(prediction, int(i), points[-1], return_dict=False, **options)
        points.append(point)
        second += rest
    return points, second


def assert_chains_agree(ours: list[Tensor], theirs: list[Tensor], **tolerance) -> None:
    assert len(ours) == len(theirs)
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(a, b, **tolerance, msg=lambda text, step=step: f"step {step}: {text}")


KINDS = [("epsilon", "eps"), ("v_prediction", "v"), ("sample", "x0")]


# ------------------------------------------------------------------------------------------------ tables
@pytest.mark.parametrize(
    "ours, options",
    [
        (VP.linear(), dict(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)),
        (VP.scaled_linear(), dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)),
    ],
)
def test_alpha_bar_is_theirs_one_step_later(ours, options):
    theirs = diffusers.DDIMScheduler(**options).alphas_cumprod.double()
    # a product of 1000 float32 factors, each off by 6e-8: at worst 6e-5, as a random walk 2e-6
    torch.testing.assert_close(torch.tensor(ours.alpha_bar[1:]).double(), theirs, rtol=1e-5, atol=0)


def test_the_skipping_grid_is_the_training_script_s():
    # (arange(1, 51) * 20 - 1) of train_lcm_distill_sd_wds.py; its target is clamped to 0 where ours goes to clean
    script = torch.arange(1, 51) * 20 - 1
    assert torch.equal(skip_grid(50)[1:], script + 1.0)
    scheduler, _ = latent("LCMScheduler")
    scheduler.set_timesteps(50)
    assert torch.equal(skip_grid(50)[1:].flip(0), scheduler.timesteps + 1.0)


@pytest.mark.parametrize(
    "n, times", [(1, [999]), (2, [999, 499]), (4, [999, 759, 499, 259]), (8, [999, 879, 759, 639, 499, 379, 259, 139])]
)
@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
def test_inference_times_lie_on_the_skipping_grid(name, n, times):
    scheduler, _ = latent(name)
    scheduler.set_timesteps(n)
    assert scheduler.timesteps.tolist() == times
    assert {i + 1.0 for i in times} <= set(skip_grid(50).tolist())


@pytest.mark.parametrize("n", [2, 18, 40, 1281])
def test_karras_grids(n):
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(n)
    torch.testing.assert_close(scheduler.sigmas[:-1].double(), karras_grid(n).flip(0), rtol=2e-6, atol=0)
    torch.testing.assert_close(
        scheduler.timesteps.double(), EDM().c_noise(karras_grid(n).flip(0)), rtol=2e-6, atol=1e-6
    )
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=n)
    scheduler.set_timesteps(n)
    torch.testing.assert_close(scheduler.sigmas[:-1].double(), karras_grid(n).flip(0), rtol=2e-6, atol=0)
    # 1000 c_noise is what its network is told; the scheduler computes these in float64
    torch.testing.assert_close(scheduler.timesteps, 1000 * EDM().c_noise(karras_grid(n).flip(0)), rtol=0, atol=1e-9)


def test_boundary_scalings():
    sigmas = torch.logspace(math.log10(0.002), math.log10(80), 50, dtype=torch.float64)
    sigmas[0], sigmas[-1] = 0.002, 80.0
    f = Denoiser(Network(), EDM(), t_min=0.002)
    theirs = diffusers.CMStochasticIterativeScheduler()
    c_skip, c_out = theirs.get_scalings_for_boundary_condition(sigmas)
    torch.testing.assert_close(f.c_skip(sigmas), c_skip, **ROUNDING)
    torch.testing.assert_close(f.c_out(sigmas), c_out, **ROUNDING)
    assert f.c_skip(sigmas)[0] == 1 and f.c_out(sigmas)[0] == 0  # ours to the bit
    teacher = Denoiser(Network(), EDM())
    c_skip, c_out = theirs.get_scalings(sigmas)
    torch.testing.assert_close(teacher.c_skip(sigmas), c_skip, **ROUNDING)
    torch.testing.assert_close(teacher.c_out(sigmas), c_out, **ROUNDING)


def test_lcm_s_boundary_scalings():
    scheduler, vp = latent("LCMScheduler")
    f = LCMBoundary(FromPrediction(Network(), vp, "eps"))
    t = torch.tensor([1.0, 2, 3, 10, 260, 1000], dtype=torch.float64)
    theirs = [scheduler.get_scalings_for_boundary_condition_discrete(i) for i in (t - 1).tolist()]
    torch.testing.assert_close(f.c_skip(t), torch.tensor([s for s, _ in theirs], dtype=torch.float64), **ROUNDING)
    torch.testing.assert_close(f.c_out(t), torch.tensor([o for _, o in theirs], dtype=torch.float64), **ROUNDING)


@pytest.mark.parametrize("dim", [64, 256])
def test_the_guidance_embedding(dim):
    """That of LCM's script is this function of 1000 w; the pipeline that holds it needs `transformers`."""
    from diffusers.models.embeddings import get_timestep_embedding

    w = torch.tensor([0.0, 1.0, 7.5, 14.0])
    theirs = get_timestep_embedding(1000 * w, dim, flip_sin_to_cos=False, downscale_freq_shift=1)
    # angles of up to 14,000 in float32 are off by 14,000 * 6e-8 = 8e-4, theirs and ours
    torch.testing.assert_close(guidance_embedding(w, dim), theirs, rtol=0, atol=3e-3)
    assert guidance_embedding(w, dim).shape == (4, dim)


# ------------------------------------------------------------------------------------------------ deterministic
@pytest.mark.parametrize("theirs, kind", KINDS)
def test_ddim_is_euler(theirs, kind):
    scheduler, vp = latent("DDIMScheduler", clip_sample=False, timestep_spacing="trailing", prediction_type=theirs)
    scheduler.set_timesteps(8)
    net, x = Network(), noise()
    chain, _ = loop(scheduler, net, x)
    times = [*(scheduler.timesteps + 1).tolist(), 0]  # set_alpha_to_one: the last target is clean, our t = 0
    assert times == [1000, 875, 750, 625, 500, 375, 250, 125, 0]
    ours = solve(FromPrediction(net, vp, kind), vp, x, times, euler_step, keep=True)
    assert_chains_agree(list(ours), chain, **ROUNDING)
    gamma0 = sample(FromPrediction(net, vp, kind), x, times[:-1], gamma=0)
    torch.testing.assert_close(gamma0, chain[-1], **ROUNDING)


def test_ddim_of_stable_diffusion_ends_one_step_before_clean():
    """set_alpha_to_one=False, as Stable Diffusion has it: the last target is its timestep 0, our t = 1."""
    scheduler, vp = latent("DDIMScheduler", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(50)
    net, x = Network(), noise()
    chain, _ = loop(scheduler, net, x)
    times = [*(scheduler.timesteps + 1).tolist(), 1]
    assert times[:2] == [982, 962] and times[-2:] == [2, 1]  # "leading": it never starts at 1000 either
    ours = solve(FromPrediction(net, vp, "eps"), vp, x, times, euler_step, keep=True)
    assert_chains_agree(list(ours), chain, **ROUNDING)


def test_edm_euler():
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(18)
    f = Denoiser(Network(), EDM())
    chain = [80 * noise()]
    for i in scheduler.timesteps:
        c_noise = i.double() + torch.zeros(4, dtype=torch.float64)
        prediction = f.net(scheduler.scale_model_input(chain[-1], i), c_noise)
        chain.append(scheduler.step(prediction, i, chain[-1], return_dict=False)[0])
    ours = solve(f, EDM(), chain[0], [*karras_grid(18).flip(0), 0], euler_step, keep=True)
    # its step works in float32 whatever it is given: 6e-8 of 80 a step, amplified by the network's slope
    for a, b in zip(ours, chain, strict=True):
        assert ((a - b).abs() <= 1e-5 * (1 + a.abs())).all()


@pytest.mark.parametrize("theirs, kind", KINDS[:1] + KINDS[2:])
def test_heun(theirs, kind):
    """Heun in the variance-exploding coordinates of `diffusers`, on the Karras grid; Euler to the clean end."""
    scheduler = diffusers.HeunDiscreteScheduler(prediction_type=theirs)
    scheduler.set_timesteps(18)
    grid = karras_grid(18).flip(0)
    scheduler.sigmas = torch.cat([grid[:1], grid[1:].repeat_interleave(2), torch.zeros(1)]).double()
    scheduler.set_begin_index(0)
    net, x = Network(), 80 * noise()

    def scaled(x: Tensor, t: Tensor) -> Tensor:  # as its scale_model_input does
        return net(x / (t.square() + 1).sqrt().reshape(-1, 1, 1), t)

    chain = [x]
    for n, i in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[n] + torch.zeros(4, dtype=torch.float64)  # t of a step, then its s
        x = scheduler.step(scaled(x, sigma), i, x, return_dict=False)[0]
        if scheduler.state_in_first_order or n == len(scheduler.timesteps) - 1:
            chain.append(x)
    ours = solve(FromPrediction(scaled, EDM(), kind), EDM(), chain[0], [*grid, 0], heun_step, keep=True)
    assert_chains_agree(list(ours), chain, **ROUNDING)


def test_heun_s_karras_grid_spans_the_table():
    scheduler = diffusers.HeunDiscreteScheduler(use_karras_sigmas=True, beta_schedule="scaled_linear")
    scheduler.set_timesteps(18)
    vp = VP.scaled_linear()
    low, high = ((vp.sigma(t) / vp.alpha(t)).item() for t in (torch.tensor([1.0]), torch.tensor([1000.0])))
    ours = karras_grid(18, low, high).flip(0)
    ours = torch.cat([ours[:1], ours[1:].repeat_interleave(2), torch.zeros(1)])
    # the table's 1 - alpha_bar = .00085 is off by 6e-8 in float32, relatively 7e-5, and sigma by half of that
    torch.testing.assert_close(scheduler.sigmas.double(), ours, rtol=4e-5, atol=0)


# ------------------------------------------------------------------------------------------------ stochastic
@pytest.mark.parametrize("indices", [[0], [22, 0], [39, 0], [30, 20, 10, 0]])
def test_consistency_models(indices):
    """CM's scheduler. Its timesteps are given falling but count from sigma_max: [22, 0] visits 80 and 1.38."""
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40, clip_denoised=False)
    scheduler.set_timesteps(timesteps=indices)
    times = karras_grid(40).flip(0)[sorted(indices)]
    if indices == [22, 0]:
        assert [round(t, 4) for t in times.tolist()] == [80.0, 1.3824]  # the published choice for ImageNet-64
    torch.testing.assert_close(scheduler.sigmas[:-1].double(), times, rtol=2e-6, atol=0)
    scheduler.sigmas = torch.cat([times, torch.tensor([0.002], dtype=torch.float64)])
    f = Denoiser(Network(), EDM(), t_min=0.002)
    x, generator = 80 * noise(), seeded(7)
    for i, t in zip(scheduler.timesteps, times, strict=True):
        told = EDM().c_noise(t) + torch.zeros(4, dtype=torch.float64)  # i is 1000 times that
        assert abs(i.item() - 1000 * told[0].item()) < 1e-9
        prediction = f.net(scheduler.scale_model_input(x, i), told)
        x = scheduler.step(prediction, i, x, generator=generator, return_dict=False)[0]
    theirs, f.net.seen = f.net.seen, []
    # it draws noise after the last prediction too, and multiplies it by sqrt(t_min^2 - t_min^2) = 0
    ours = sample(f, 80 * noise(), times, generator=seeded(7))
    torch.testing.assert_close(ours, x, **ROUNDING)
    assert_chains_agree(f.net.seen, theirs, **ROUNDING)


@pytest.mark.parametrize("theirs, kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_latent_consistency_models(n, theirs, kind):
    scheduler, vp = latent("LCMScheduler", prediction_type=theirs)
    scheduler.set_timesteps(n)
    net, x = Network(), noise()
    _, denoised = loop(scheduler, net, x, generator=seeded(7))
    theirs_seen, net.seen = net.seen, []
    f = LCMBoundary(FromPrediction(net, vp, kind))
    times = scheduler.timesteps + 1
    # On purpose: its f ends at the boundary t = 1, yet the scheduler treats the result as clean and adds the whole
    # of sigma(s). t_min=0 says the same here; without it sample() takes sigma(1) = .029 off, as CM does in EDM.
    ours = sample(f, x, times, t_min=0.0, generator=seeded(7))
    torch.testing.assert_close(ours, denoised[-1], **ROUNDING)
    assert_chains_agree(net.seen, theirs_seen, **ROUNDING)
    for m in range(1, n):  # fewer times: what each step predicts
        torch.testing.assert_close(sample(f, x, times[:m], t_min=0.0, generator=seeded(7)), denoised[m - 1], **ROUNDING)


@pytest.mark.parametrize("theirs, kind", KINDS)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_trajectory_consistency_distillation(n, gamma, theirs, kind):
    scheduler, vp = latent("TCDScheduler", prediction_type=theirs)
    scheduler.set_timesteps(n)
    net, x = Network(), noise()
    chain, _ = loop(scheduler, net, x, eta=gamma, generator=seeded(7))
    theirs_seen, net.seen = net.seen, []
    f, times = FromPrediction(net, vp, kind), scheduler.timesteps + 1
    ours = sample(f, x, times, gamma, generator=seeded(7))
    # Both round (1 - gamma) s down, each in its own numbering; they meet where (1 - gamma) s is whole in ours,
    # and on the skipping grid of twenties it is.
    assert_chains_agree(net.seen, theirs_seen, **ROUNDING)
    # On purpose: its last target is its timestep 0, our t = 1, where a little of the noise is left; ours is clean.
    t, one = (torch.full((4,), float(time), dtype=torch.float64) for time in (times[-1], 1))
    torch.testing.assert_close(vp.step(net.seen[-1], ours, t, one), chain[-1], **ROUNDING)
    assert abs(vp.sigma(one)[0] - 0.0292) < 1e-4


def test_tcd_with_all_noise_anew_passes_through_its_timestep_0():
    """gamma = 1: its s' is timestep 0, our t = 1, and ours is clean; the noise at s is the same in all."""
    scheduler, vp = latent("TCDScheduler")
    scheduler.set_timesteps(2)
    net, x = Network(), noise()
    loop(scheduler, net, x, eta=1.0, generator=seeded(7))
    theirs = net.seen[1]
    f = FromPrediction(net, vp, "eps")
    t, s, one = (torch.full((4,), float(time), dtype=torch.float64) for time in (1000, 500, 1))
    eps = torch.randn(SHAPE, generator=seeded(7), dtype=torch.float64)
    x_1 = vp.step(x, f(x, t), t, one)
    ratio = (vp.alpha(s) / vp.alpha(one)).reshape(-1, 1, 1)
    torch.testing.assert_close(ratio * x_1 + (1 - ratio**2).sqrt() * eps, theirs, **ROUNDING)
    net.seen = []
    sample(f, x, [1000, 500], 1.0, generator=seeded(7))
    # ours keeps no trace of the old noise: alpha_s x0_hat + sigma_s eps
    torch.testing.assert_close(net.seen[1], vp.add_noise(f(x, t), eps, s), **ROUNDING)
    assert (net.seen[1] - theirs).abs().max() < 4 * vp.sigma(one)[0] * x.abs().max()  # alike all the same


def test_trigflow():
    """sCM's scheduler; its model_output is sigma_d F with sCM's sign, minus ours."""
    torch.set_default_dtype(torch.float64)  # it draws its noise in the default
    try:
        times = [TrigFlow().t_max, 1.1, 0.6]
        scheduler = diffusers.SCMScheduler()
        scheduler.set_timesteps(3, timesteps=[*times, 0.0], max_timesteps=None, intermediate_timesteps=None)
        scheduler.timesteps = torch.tensor([*times, 0.0])
        scheduler.set_begin_index(0)
        f, x, generator = Denoiser(Network(), TrigFlow()), 0.5 * noise(), seeded(7)
        for t in scheduler.timesteps[:-1]:
            prediction = -0.5 * f.raw(x, t.expand(4))
            x = scheduler.step(prediction, t, x, generator=generator, return_dict=False)[0]
        ours = sample(f, 0.5 * noise(), times, generator=seeded(7))
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(ours, x, **ROUNDING)


# ------------------------------------------------------------------------------------------------ practice
def tiny_unet(classes: int | None = None, seed: int = 0):
    torch.manual_seed(seed)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=classes,
    )


class Pretrained(nn.Module):
    """A diffusers U-Net as net(x, t, label): its timestep is t - 1, its null label the last of its classes."""

    def __init__(self, unet) -> None:
        super().__init__()
        self.unet, self.null = unet, unet.config.num_class_embeds - 1

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, **ignored) -> Tensor:
        label = torch.full_like(t, self.null).long() if label is None else label
        return self.unet(x, t - 1, class_labels=label).sample


class Preconditioned(nn.Module):
    """A diffusers U-Net as the network inside a Denoiser; it is told 1000 c_noise."""

    def __init__(self, unet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, c_noise: Tensor, **ignored) -> Tensor:
        return self.unet(x, 1000 * c_noise).sample


class Images:
    """Random images of three classes, 3 x 8 x 8: as wide as the batch below."""

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        label = torch.randint(3, (n,), generator=generator)
        return 0.5 * torch.randn(n, 3, 8, 8, generator=generator), label


def test_a_u_net_by_diffusers_inside_our_denoiser():
    """The loop of its ConsistencyModelPipeline against sample(), with a real network."""
    unet = tiny_unet().double().eval()
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40, clip_denoised=False)
    scheduler.set_timesteps(timesteps=[22, 0])
    times = karras_grid(40).flip(0)[[0, 22]]
    scheduler.sigmas = torch.cat([times, torch.tensor([0.002], dtype=torch.float64)])
    x = scheduler.init_noise_sigma * noise(8, 3, 8, 8)
    generator = seeded(7)
    with torch.no_grad():
        for i in scheduler.timesteps:
            prediction = unet(scheduler.scale_model_input(x, i), i).sample
            x = scheduler.step(prediction, i, x, generator=generator, return_dict=False)[0]
    f = Denoiser(Preconditioned(unet), EDM(), t_min=0.002)
    ours = sample(f, f.schedule.prior((8, 3, 8, 8), seeded(), dtype=torch.float64), times, generator=seeded(7))
    # its layers work in float64, but its sinusoids of the time in float32, where our 1000 c_noise may round otherwise
    torch.testing.assert_close(ours, x, rtol=1e-5, atol=1e-5)


def test_any_pretrained_network_is_a_teacher():
    """Two steps of latent consistency distillation of a U-Net by diffusers; only the student moves."""
    vp = VP.scaled_linear()
    teacher = FromPrediction(Pretrained(tiny_unet(classes=4)), vp, "eps").eval()
    f = LCMBoundary(FromPrediction(Pretrained(tiny_unet(classes=4)), vp, "eps"))
    before = [p.clone() for p in teacher.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(f.parameters(), before, strict=True))
    objective = LCD(teacher, skip=20, w_range=(2, 14))
    steps = list(train(f, objective, Images(), TrainConfig(steps=2, batch=8, lr=1e-4)))
    assert all(step.loss.isfinite() for step in steps)
    assert all(torch.equal(p, q) for p, q in zip(teacher.parameters(), before, strict=True))
    assert any(not torch.equal(p, q) for p, q in zip(f.parameters(), before, strict=True))
    x, label = Images().sample(8, seeded())
    assert torch.equal(f(x, torch.ones(8), label=label), x)  # its boundary is t = 1
    samples = sample(f, vp.prior(x.shape, seeded()), [1000, 500], t_min=0.0, generator=seeded(), label=label)
    assert samples.shape == x.shape and samples.isfinite().all()


def test_lcm_lora_of_a_u_net_goes_through_a_file(tmp_path):
    """The adapter of two steps, saved on its own and loaded beside an untouched base, samples bit for bit the same."""
    vp, options = VP.scaled_linear(), TrainConfig(steps=2, batch=8, lr=1e-2, warmup=0)
    base = Pretrained(tiny_unet(classes=4))
    f = LCMBoundary(FromPrediction(add_lora(Pretrained(tiny_unet(classes=4)), rank=4), vp, "eps"))
    objective = LCD(FromPrediction(base, vp, "eps"), skip=20, w_range=(2, 14), mu=0.0)
    *_, last = train(f, objective, Images(), options)
    net = last.f.denoiser.net
    save_checkpoint(tmp_path / "lcm.safetensors", lora_state(net))
    saved = load_checkpoint(tmp_path / "lcm.safetensors")
    assert sum(v.numel() for v in saved.values()) < 0.5 * sum(p.numel() for p in base.parameters())
    fresh = load_lora(Pretrained(tiny_unet(classes=4)), saved)

    def samples(net: nn.Module) -> Tensor:
        f = LCMBoundary(FromPrediction(net, vp, "eps"))
        return sample(f, vp.prior((4, 3, 8, 8), seeded()), [1000, 500], t_min=0.0, generator=seeded())

    assert torch.equal(samples(fresh), samples(net))
    assert not torch.equal(samples(fresh), samples(base))
    # merging adds B A to the weights once instead of at every call: the same sums, in the same order
    assert torch.equal(samples(merge_lora(fresh)), samples(net))
    again = diffusers.UNet2DModel.from_config(fresh.unet.config)  # and the merged weights are a plain U-Net's
    again.load_state_dict(fresh.unet.state_dict())
