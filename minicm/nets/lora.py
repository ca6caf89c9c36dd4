"""Low-rank adapters: every weight matrix W becomes W + lambda scale B A, and only A and B are trained.

LoRA, arXiv:2106.09685, section 4.1; LCM-LoRA, arXiv:2311.05556. An adapter is what training adds to a network, kept
apart from it: tau = theta - theta_base. So the tau of a style and the tau that makes a sampler fast, each trained on
the same base, can be added: load_lora(net, style, weight=0.8), then load_lora(net, lcm, weight=1.0).

W is replaced through torch's parametrisation: the layer stays what it is and computes its weight when asked for it.
That serves Linear and convolutions alike, and a second adapter simply adds to what the first one made.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

ADAPTED = (nn.Linear, nn.Conv1d, nn.Conv2d)  # the layers that get an adapter


class LoRA(nn.Module):
    """One adapter of one layer: W -> W + weight scale B A, for a weight W of shape (out, in, ...).

    LoRA, arXiv:2106.09685, Eq. 3. A (rank, in x kernel) starts as a Linear does, B (out, rank) at zero, so that a new
    adapter changes nothing. scale is the alpha/rank of other tools; weight is the lambda of LCM-LoRA's sum.
    """

    def __init__(
        self, W: Tensor, rank: int, scale: float = 1.0, weight: float = 1.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        fan_in = W[0].numel()
        device = W.device if generator is None else generator.device
        A = (2 * torch.rand(rank, fan_in, generator=generator, device=device) - 1) / fan_in**0.5
        self.A = nn.Parameter(A.to(W))
        self.B = nn.Parameter(W.new_zeros(len(W), rank))
        self.scale, self.weight = scale, weight

    def forward(self, W: Tensor) -> Tensor:
        return W + (self.weight * self.scale * (self.B @ self.A)).reshape(W.shape)


def add_lora(net: nn.Module, rank: int, scale: float = 1.0, *, generator: torch.Generator | None = None) -> nn.Module:
    """Give every Linear and convolution of a network a new adapter, and freeze all else; in place.

    LoRA, arXiv:2106.09685; LCM-LoRA's script has rank 64 and scale 1. The function stays the same until A and B are
    trained; adapters that are there already stay, frozen. net may be a part of a model or all of it, `Denoiser`
    included. The generator is for A; without one, torch's own. Returns the net.
    Raises ValueError for rank < 1, for a net without such layers, and for merged adapters.
    """
    if rank < 1:
        raise ValueError(f"rank = {rank}: an adapter needs at least rank 1")
    layers = [layer for _, layer in _layers(net)]
    if not layers:
        raise ValueError("the net has no Linear and no convolution that could take an adapter")
    _refuse_merged(net)
    net.requires_grad_(False)
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LoRA(layer.weight, rank, scale, generator=generator))
    return net


def merge_lora(net: nn.Module) -> nn.Module:
    """Write W + scale B A into the weights themselves: a plain net, as fast as without adapters; in place.

    LoRA, arXiv:2106.09685, section 4.1. The function stays the same, bit for bit, and the names of the weights are
    again those of the base. W itself is set aside, not recomputed as W' - scale B A, so that `unmerge_lora` gives it
    back exactly; that costs its memory. Returns the net. Raises ValueError where there is nothing to merge.
    """
    adapted = [layer for _, layer in _layers(net) if _adapters(layer) and not _is_merged(layer)]
    if not adapted:
        raise ValueError("there are no adapters to merge: give the net one by add_lora or load_lora")
    for layer in adapted:
        # In a tuple, W and the adapters are no part of the net's parameters and state.
        aside = (layer.parametrizations.weight.original.detach().clone(), [*_adapters(layer)])
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        layer.register_parameter("bias", layer._parameters.pop("bias"))  # after the weight, as in the base
        layer.merged_lora = aside
    return net


def unmerge_lora(net: nn.Module) -> nn.Module:
    """Take merged adapters out again: W as it was, bit for bit, and the adapters beside it; in place.

    Returns the net. Raises ValueError where nothing is merged.
    """
    merged = [layer for _, layer in _layers(net) if _is_merged(layer)]
    if not merged:
        raise ValueError("nothing is merged in this net: unmerge_lora undoes merge_lora")
    for layer in merged:
        W, adapters = layer.merged_lora
        del layer.merged_lora
        layer.weight.data.copy_(W)
        for adapter in adapters:
            parametrize.register_parametrization(layer, "weight", adapter.to(layer.weight))
    return net


def lora_state(net: nn.Module, adapter: int = -1) -> dict[str, Tensor]:
    """One adapter's A, B and scale by the name of their layer: all tensors, ready for a file of their own.

    adapter counts in the order of adding; the last one by default. Save it by `save_checkpoint(path, state)` or
    safetensors. The lambda it was loaded with is not part of it. Raises ValueError where the net has no such adapter.
    """
    state: dict[str, Tensor] = {}
    for name, layer in _layers(net):
        adapters = _adapters(layer)
        if not -len(adapters) <= adapter < len(adapters):
            raise ValueError(f'adapter {adapter} of layer "{name}": it has {len(adapters)}; see add_lora')
        lora = adapters[adapter]
        A, B = lora.A.detach().clone(), lora.B.detach().clone()
        state |= {f"{name}.A": A, f"{name}.B": B, f"{name}.scale": torch.tensor(lora.scale)}
    return state


def lora_scales(net: nn.Module) -> list[float]:
    """How much each adapter counts, lambda times scale, in the order of adding; none for a plain or a merged net."""
    kept = (_adapters(layer) for _, layer in _layers(net) if not _is_merged(layer))
    return [lora.weight * lora.scale for lora in next(filter(None, kept), [])]


def load_lora(net: nn.Module, state: dict[str, Tensor], weight: float = 1.0) -> nn.Module:
    """Add a saved adapter to a network, weight times: lambda_1 tau_style + lambda_2 tau_LCM is two calls; in place.

    LCM-LoRA, arXiv:2311.05556, section 3.2 (0.8 and 1.0 there). The net needs no adapter before; those it has stay.
    As in `add_lora` all else is frozen. Returns the net. Raises ValueError where the shapes are another network's.
    """
    _refuse_merged(net)
    layers = dict(_layers(net))
    saved = {key.removesuffix(".A") for key in state if key.endswith(".A")}
    if saved != set(layers):
        odd = sorted(saved ^ set(layers))[0]
        raise ValueError(f'the adapter is not of this net: layer "{odd}" is in one of them only')
    new = {}
    for name, layer in layers.items():
        A, B = state[f"{name}.A"], state[f"{name}.B"]
        if (len(B), A.shape[1]) != (len(layer.weight), layer.weight[0].numel()):
            raise ValueError(
                f'the adapter is not of this net: layer "{name}" has a weight of shape '
                f"{tuple(layer.weight.shape)}, the adapter A {tuple(A.shape)} and B {tuple(B.shape)}"
            )
        new[name] = LoRA(layer.weight, len(A), float(state[f"{name}.scale"]), weight)
        new[name].A.data.copy_(A)
        new[name].B.data.copy_(B)
    net.requires_grad_(False)
    for name, layer in layers.items():
        parametrize.register_parametrization(layer, "weight", new[name])
    return net


def _layers(net: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in net.named_modules() if isinstance(module, ADAPTED))


def _is_merged(layer: Any) -> bool:
    return hasattr(layer, "merged_lora")


def _adapters(layer: Any) -> list[LoRA]:
    if _is_merged(layer):
        return layer.merged_lora[1]
    if not parametrize.is_parametrized(layer, "weight"):
        return []
    return [p for p in layer.parametrizations.weight if isinstance(p, LoRA)]


def _refuse_merged(net: nn.Module) -> None:
    if any(_is_merged(layer) for _, layer in _layers(net)):
        raise ValueError("the net's adapters are merged: call unmerge_lora first")
