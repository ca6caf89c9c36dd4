"""LoRA: a new adapter changes nothing, merging changes nothing, and two of them add up."""

import copy

import pytest
import torch
from exact import normal, refused, seeded
from safetensors.torch import load, save
from torch import nn

from minicm import MLP, Denoiser
from minicm.checkpoint import describe, load_checkpoint, load_model, save_checkpoint
from minicm.ema import ema_update, frozen_copy
from minicm.nets.lora import LoRA, add_lora, load_lora, lora_state, merge_lora, unmerge_lora


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight that can be trained, anew."""
    g = seeded(seed)
    with torch.no_grad():
        for p in (p for p in net.parameters() if p.requires_grad):
            p.copy_(0.3 * torch.randn(p.shape, generator=g, dtype=torch.float64))
    return net


def adapted(net: nn.Module, rank: int = 4, scale: float = 1.0, seed: int = 2) -> nn.Module:
    """The same net with an adapter that is no longer silent."""
    return randomise(add_lora(net, rank, scale), seed)


class Attention(nn.Module):
    """One head over the pixels of an image, as U-Nets have it, between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1, groups=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.qkv, self.project = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x, c_noise, label=None, w=None, u=None):
        h = self.grouped(self.enter(x))
        tokens = h.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        tokens = tokens + self.project((q @ k.transpose(1, 2)).softmax(-1) @ v)
        return self.out(tokens.transpose(1, 2).reshape(h.shape))


CASES = {
    "MLP": (lambda: MLP(2, 16, 3, classes=3, guidance=True), (2,)),
    "Denoiser": (lambda: Denoiser(MLP(2, 16, 3, classes=3)), (2,)),
    "convolutions and attention": (Attention, (3, 6, 6)),
}


@pytest.fixture(params=CASES)
def case(request):
    """A float64 network with random weights, and a call of it."""
    make, shape = CASES[request.param]
    net = randomise(make().double())
    x = normal(5, *shape, seed=1)
    t, label = torch.linspace(0.1, 3, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    return net, lambda net: net(x, t, label=label, w=t).detach()


ROUNDING = {"rtol": 1e-12, "atol": 1e-12}  # values of order 1 to 10 through sums of a few hundred products


def test_a_new_adapter_changes_nothing(case):
    net, call = case
    before = call(net)
    assert add_lora(net, 4, generator=seeded()) is net
    assert torch.equal(call(net), before)


def test_only_the_adapters_are_trained(case):
    net, call = case
    base = copy.deepcopy(net)
    add_lora(net, 4)
    trained = [p for name, p in net.named_parameters() if name.endswith((".A", ".B"))]
    assert trained and all(p.requires_grad for p in trained)
    assert sum(p.requires_grad for p in net.parameters()) == len(trained)
    randomise(net, 2)
    before, optimiser = call(net), torch.optim.Adam(trained, lr=1e-2)
    net(some(net), torch.ones(5, dtype=torch.float64)).square().sum().backward()
    # the label and w that were not given have no gradient to give
    assert sum(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters()) >= len(trained) - 2
    optimiser.step()
    assert not torch.equal(call(net), before)
    for adapted, kept in zip(layers(net), layers(base), strict=True):
        assert torch.equal(adapted.parametrizations.weight.original, kept.weight), "the base has moved"


def some(net: nn.Module) -> torch.Tensor:
    return normal(5, *((3, 6, 6) if isinstance(net, Attention) else (2,)))


def layers(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def test_the_weight_is_w_plus_scale_b_a(case):
    """LoRA, Eq. 3, layer by layer, in a shape for Linear and for convolutions."""
    net, _ = case
    before = [layer.weight.detach().clone() for layer in layers(net)]
    adapted(net, 3, 2.0)
    for W, layer in zip(before, layers(net), strict=True):
        lora = layer.parametrizations.weight[0]
        assert lora.A.shape == (3, W[0].numel()) and lora.B.shape == (len(W), 3)
        expected = W.flatten(1) + 2.0 * lora.B @ lora.A
        torch.testing.assert_close(layer.weight.flatten(1), expected, **ROUNDING)


def test_merging_and_unmerging_change_nothing(case):
    net, call = case
    names, base = list(net.state_dict()), copy.deepcopy(net)
    adapted(net, 4, 0.5)
    before, adapter = call(net), lora_state(net)
    assert merge_lora(net) is net
    assert torch.equal(call(net), before)
    assert list(net.state_dict()) == names, "a merged net has the names of the plain one, in their order"
    assert all(type(layer) in (nn.Linear, nn.Conv2d) for layer in layers(net))
    assert not any(p.requires_grad for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(adapter.values(), lora_state(net).values(), strict=True))
    assert unmerge_lora(net) is net
    assert torch.equal(call(net), before)
    for layer, kept in zip(layers(net), layers(base), strict=True):
        assert torch.equal(layer.parametrizations.weight.original, kept.weight), "W has not come back exactly"
    assert all(p.requires_grad == name.endswith((".A", ".B")) for name, p in net.named_parameters())


def test_a_merged_net_loads_into_a_plain_one(case):
    net, call = case
    plain = copy.deepcopy(net)
    adapted(net)
    before = call(net)
    plain.load_state_dict(merge_lora(net).state_dict())
    assert torch.equal(call(plain), before)


def test_adapters_add_up(case):
    """lambda_1 tau_style + lambda_2 tau_LCM, each trained on the same base."""
    base, call = case
    style = lora_state(adapted(copy.deepcopy(base), 2, 0.5))
    fast = lora_state(adapted(copy.deepcopy(base), 5, seed=3))
    both = load_lora(load_lora(copy.deepcopy(base), style, weight=0.8), fast, weight=1.5)
    names = [key.removesuffix(".A") for key in style if key.endswith(".A")]
    for W, layer, name in zip(layers(base), layers(both), names, strict=True):
        tau = [s[f"{name}.scale"] * s[f"{name}.B"] @ s[f"{name}.A"] for s in (style, fast)]
        expected = W.weight.flatten(1) + 0.8 * tau[0] + 1.5 * tau[1]
        torch.testing.assert_close(layer.weight.flatten(1), expected, **ROUNDING)
    other_order = load_lora(load_lora(copy.deepcopy(base), fast, weight=1.5), style, weight=0.8)
    torch.testing.assert_close(call(other_order), call(both), rtol=1e-9, atol=1e-9)  # rounding, through a network
    none = load_lora(copy.deepcopy(base), style, weight=0.0)
    assert torch.equal(call(none), call(base))
    before = call(both)
    assert torch.equal(call(merge_lora(both)), before)
    assert torch.equal(call(unmerge_lora(both)), before)
    for i, state in enumerate((style, fast)):
        again = lora_state(both, adapter=i)
        assert all(torch.equal(again[key], state[key]) for key in state)


def test_a_second_adapter_is_trained_on_top_of_the_first(case):
    net, call = case
    adapted(net, 2)
    before = call(net)
    add_lora(net, 3)
    assert torch.equal(call(net), before)
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    assert trained and all(".weight.1." in name for name in trained)


def test_an_adapter_has_a_file_of_its_own(case, tmp_path):
    base, call = case
    net = adapted(copy.deepcopy(base), 4, 0.25)
    path = tmp_path / "style.safetensors"
    save_checkpoint(path, lora_state(net))
    assert torch.equal(call(load_lora(copy.deepcopy(base), load_checkpoint(path))), call(net))
    assert torch.equal(call(load_lora(copy.deepcopy(base), load(save(lora_state(net))))), call(net))
    held = sum(v.numel() for v in lora_state(net).values())
    assert held == sum(p.numel() for p in net.parameters() if p.requires_grad) + len(layers(net))


def test_a_models_checkpoint_knows_how_much_its_adapters_count(tmp_path):
    f = Denoiser(randomise(MLP(2, 16, 3)), t_min=0.002)
    adapter = lora_state(adapted(MLP(2, 16, 3), 2, 4.0, seed=1))
    adapted(load_lora(f.net, adapter, weight=0.5), 3, 8.0)
    save_checkpoint(tmp_path / "c", {"model": describe(f)} | {f"ema/{k}": v for k, v in f.state_dict().items()})
    x, t = torch.randn(4, 2, generator=seeded()), torch.ones(4)
    assert torch.equal(load_model(tmp_path / "c")(x, t), f(x, t))
    merge_lora(f)
    assert describe(f) == describe(Denoiser(MLP(2, 16, 3), t_min=0.002))  # merged, it is a plain net's


def test_copies_and_averages_carry_their_adapters(case):
    net, call = case
    adapted(net)
    average = frozen_copy(net)
    assert torch.equal(call(average), call(net))
    randomise(net, 3)
    ema_update(average, net, 0.5)
    ema_update(average, net, 0.0)
    assert torch.equal(call(average), call(net))
    assert torch.equal(call(copy.deepcopy(merge_lora(net))), call(net))
    assert torch.equal(call(unmerge_lora(copy.deepcopy(net))), call(net))


def test_jvp_goes_through(case):
    """sCM differentiates forward through the network it trains."""
    net, _ = case
    adapted(net)
    x, t, h = some(net), torch.ones(5, dtype=torch.float64), 1e-6
    _, slope = torch.func.jvp(lambda x: net(x, t), (x,), (x,))
    difference = (net((1 + h) * x, t) - net((1 - h) * x, t)) / (2 * h)
    # central difference: 2e-16/h of rounding and h^2 of curvature, times values up to 1e3
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-6)


def test_a_starts_like_a_linear_layer_and_from_its_generator():
    net = nn.Linear(400, 300)
    first = add_lora(copy.deepcopy(net), 64, generator=seeded(7)).parametrizations.weight[0]
    again = add_lora(copy.deepcopy(net), 64, generator=seeded(7)).parametrizations.weight[0]
    assert torch.equal(first.A, again.A) and not first.B.any()
    # uniform on +-1/sqrt(400): 25,600 draws reach within .2 % of either end, a miss is below e^-20
    assert 0.998 / 20 < first.A.max() <= 1 / 20 and -1 / 20 <= first.A.min() < -0.998 / 20


def test_low_rank_can_learn():
    """A change of rank 2 is learnt by an adapter of rank 2."""
    torch.manual_seed(0)
    net = nn.Linear(8, 8)
    W = net.weight.detach().clone()
    change = torch.randn(8, 2) @ torch.randn(2, 8) / 4
    add_lora(net, 2, generator=seeded())
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=2e-2)
    for _ in range(800):
        optimiser.zero_grad()
        (net.weight - W - change).square().sum().backward()
        optimiser.step()
    assert (net.weight - W - change).norm() < 1e-2 * change.norm()  # reached 1e-4; a wrong product stays near 1


def test_bad_input_is_refused():
    net, deeper, merged = MLP(2, 8, 2), MLP(2, 8, 3), merge_lora(add_lora(MLP(2, 8, 2), 2))
    state = lora_state(add_lora(copy.deepcopy(net), 2))
    for call, complaint in (
        (lambda: add_lora(net, 0), "at least rank 1"),
        (lambda: add_lora(nn.ReLU(), 2), "no Linear"),
        (lambda: merge_lora(net), "no adapters to merge"),
        (lambda: merge_lora(merged), "no adapters to merge"),
        (lambda: unmerge_lora(net), "nothing is merged"),
        (lambda: lora_state(net), "it has 0"),
        (lambda: load_lora(MLP(2, 16, 2), state), "has a weight of shape"),
        (lambda: load_lora(deeper, state), r'layer "layers\.1" is in one of them only'),
        (lambda: add_lora(merged, 2), "call unmerge_lora first"),
        (lambda: load_lora(merged, state), "call unmerge_lora first"),
    ):
        refused(complaint, call)
    assert all(p.requires_grad for p in deeper.parameters()), "a refused adapter leaves the net as it was"


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")  # of other packages
def test_the_function_is_that_of_peft(case):
    """The same A and B, rank 4, alpha 8: peft's output and its merged output are ours."""
    peft = pytest.importorskip("peft")
    net, call = case
    if isinstance(net, Attention):
        net.grouped = nn.Conv2d(8, 8, 3, padding=1).double()  # peft's own layout for groups has another A
    names = [name for name, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=names, init_lora_weights=False)
    theirs = peft.get_peft_model(copy.deepcopy(net), config).double()
    ours, state = add_lora(net, 4, scale=8 / 4), {}
    for name in names:
        layer = theirs.base_model.model.get_submodule(name)
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        state |= {f"{name}.A": A.detach().flatten(1), f"{name}.B": B.detach().flatten(1)}
        lora: LoRA = ours.get_submodule(name).parametrizations.weight[0]
        lora.A.data.copy_(state[f"{name}.A"])
        lora.B.data.copy_(state[f"{name}.B"])
    # both are float64; they sum in another order, W x + B (A x) against (W + B A) x
    torch.testing.assert_close(call(ours), call(theirs), rtol=1e-10, atol=1e-10)
    trained = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert trained == theirs.get_nb_trainable_parameters()[0]
    torch.testing.assert_close(call(merge_lora(ours)), call(theirs.merge_and_unload()), rtol=1e-10, atol=1e-10)
