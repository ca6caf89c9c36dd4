"""The two tables of the contract tests: every objective, and every kind of network it must train.

A new method adds one row to OBJECTIVES, a new network one row to NETS; tests/core/test_objectives.py runs all pairs.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minicm import CD, CT, DSM, ECT, ICT, LCD, MLP, SCM, TCD, Denoiser, UNet, euler_step, heun_step
from minicm.distances import l1, l2, pseudo_huber
from minicm.objectives.base import Objective, inverse_gap
from minicm.schedules import EDM, VP, Schedule, TrigFlow
from minicm.times import LogNormalAngles, LogNormalIndex, UniformSteps, karras_grid, skip_grid

CLASSES = 3
B = 8  # equal to the width of the images below: t (B,) must not broadcast along the width
VP_CLOCK = VP.scaled_linear()


@dataclass(frozen=True)
class Row:
    """One objective: how it is made from a teacher, and what the model that it trains looks like."""

    name: str
    make: Callable[[Denoiser], Objective]  # teacher -> objective; without a teacher: lambda _: ...
    schedule: Schedule = field(default_factory=EDM)  # the clock of f and of the teacher
    t_min: float = 0.002  # of f; 0 for a diffusion model and outside EDM. The teacher's is 0
    guidance: bool = False  # f's network has the input w
    second_time: bool = False  # f's network has the input u
    uses_target: bool = True  # the loss calls f_target
    s_min: float | None = None  # the earliest s drawn, where it is not t_min


SKIPS = dict(skip=3, w_range=(0, 2), grid=karras_grid(18), step=heun_step, index_law=LogNormalIndex(), distance=l2)
OBJECTIVES = [
    Row("DSM", lambda _: DSM(), t_min=0.0, uses_target=False),
    Row("DSM in VP", lambda _: DSM(time_law=UniformSteps()), VP_CLOCK, 0.0, uses_target=False),
    Row("DSM in TrigFlow", lambda _: DSM(time_law=LogNormalAngles()), TrigFlow(), 0.0, uses_target=False),
    Row("CD", lambda teacher: CD(teacher, grid=karras_grid(18))),
    Row(
        "CD with every option",
        lambda teacher: CD(
            teacher,
            grid=lambda k, K: karras_grid(8 + k),
            step=euler_step,
            index_law=LogNormalIndex(),
            distance=pseudo_huber(0.03),
            weight=inverse_gap,
            mu=0.95,
        ),
    ),
    Row("CD in VP", lambda teacher: CD(teacher, grid=skip_grid(50), distance=l1), VP_CLOCK, 0.0),
    Row("CD in TrigFlow", lambda teacher: CD(teacher, grid=(karras_grid(18) / 0.5).atan()), TrigFlow(), 0.0),
    Row("CT", lambda _: CT()),
    Row("CT with every option", lambda _: CT(s0=4, s1=20, mu0=0.95, index_law=LogNormalIndex(), distance=l2)),
    Row("LCD", lambda teacher: LCD(teacher, skip=20, w_range=(2, 14)), VP_CLOCK, 0.0, guidance=True),
    Row("LCD with every option", lambda teacher: LCD(teacher, **SKIPS, weight=inverse_gap, mu=0.0), guidance=True),
    Row("LCF", lambda _: LCD(None, skip=20, w_range=(2, 14), grid=skip_grid(1000)), VP_CLOCK, 0.0, guidance=True),
    Row("iCT", lambda _: ICT()),
    Row("ECT", lambda _: ECT(), s_min=0.0),
    Row("sCT", lambda _: SCM(warmup=10), TrigFlow(), 0.0),
    Row("sCD", lambda teacher: SCM(teacher, warmup=10), TrigFlow(), 0.0),
    Row("TCD", lambda teacher: TCD(teacher, skip=20), VP_CLOCK, 0.0, second_time=True),
    Row(
        "TCD with every option but the form",
        lambda teacher: TCD(teacher, **SKIPS, weight=inverse_gap, mu=0.0, u_law=lambda grid, s, generator: s),
        guidance=True,
        second_time=True,
    ),
    # A later method adds its row here.
]


@dataclass(frozen=True)
class NetRow:
    """One network on one shape of samples; make(guidance, second_time) builds it with CLASSES classes."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[bool, bool], nn.Module]


NETS = [
    NetRow("MLP", (2,), lambda w, u: MLP(2, 16, 2, CLASSES, w, u)),
    NetRow("MLP on images", (3, 8, 8), lambda w, u: MLP(3 * 8 * 8, 16, 2, CLASSES, w, u)),
    NetRow(
        "UNet",
        (3, 8, 8),
        lambda w, u: UNet(3, 8, (1, 2), blocks=1, attention=(2,), classes=CLASSES, guidance=w, second_time=u),
    ),
    # A later network adds its row here.
]


class Dropped(nn.Module):
    """A network with dropout at its end that remembers its masks."""

    def __init__(self, net: nn.Module, p: float) -> None:
        super().__init__()
        self.net, self.p, self.masks = net, p, []
        self.second_time = getattr(net, "second_time", False)

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor | None) -> Tensor:
        mask = F.dropout(torch.ones_like(x), self.p, self.training)
        self.masks.append(mask)
        return mask * self.net(x, c_noise, **cond)


def randomise(model: nn.Module, seed: int, scale: float = 0.3) -> nn.Module:
    """Give every parameter a random value: a network that starts at zero would hide what it is called with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


@dataclass
class Scene:
    """An objective with all that it is called with; float64, so that tolerances can be tight."""

    objective: Objective
    f: Denoiser
    f_target: Denoiser
    teacher: Denoiser
    x0: Tensor
    label: Tensor
    k: int = 3
    K: int = 10

    def draw(self, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        return self.objective.draw(self.x0, self.label, self.k, self.K, generator)

    def loss(self, draw, f=None, f_target=None, x0=None, label=None) -> Tensor:
        return self.objective.loss(
            self.f if f is None else f,
            self.f_target if f_target is None else f_target,
            self.x0 if x0 is None else x0,
            self.label if label is None else label,
            draw,
            self.k,
            self.K,
        )


def scene(row: Row, net: NetRow, *, dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> Scene:
    """Build one pair of the tables: f and its target differ, and the teacher from both."""
    teacher = Denoiser(randomise(net.make(False, False), 1), row.schedule).to(dtype).eval()
    model = Dropped(randomise(net.make(row.guidance, row.second_time), 2), dropout)
    f = Denoiser(model, row.schedule, t_min=row.t_min).to(dtype)
    f_target = copy.deepcopy(f)
    randomise(f_target, 3)
    generator = torch.Generator().manual_seed(4)
    x0 = 0.5 * torch.randn(B, *net.shape, generator=generator, dtype=dtype)
    label = torch.randint(CLASSES, (B,), generator=generator)
    return Scene(row.make(teacher), f, f_target, teacher, x0, label)
