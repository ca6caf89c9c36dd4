"""The bench: what it compares does the same work, and its report holds what it promises. No clock is asserted."""

from __future__ import annotations

import json

import pytest
import torch

from docs.studies.plain import plain_cd
from minicm import bench as module
from minicm.bench import SMOKE, bench, makers, plain_stepper, ring, stepper
from minicm.denoiser import Denoiser
from minicm.objectives.cd import CD
from minicm.racing import count_flops, race
from minicm.times import karras_grid
from minicm.train import TrainConfig, train


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    threads = torch.get_num_threads()
    assert bench(fast=True, out=out) == 0
    assert torch.get_num_threads() == threads
    return json.loads(out.read_text())


def test_the_report_holds_every_part(report):
    assert set(report) == {"machine", "size", "training", "sampling", "exact_flow", "peak_memory_mb"}
    assert set(report["training"]) == {"DSM", "CD", "CT", "iCT", "ECT", "LCD", "TCD", "sCT", "sCD"}
    assert report["machine"]["threads"] == 1 and report["machine"]["torch"] == torch.__version__
    for row in report["training"].values():
        spread = row["eager"]["share_of_matmul"]
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert set(report["training"]["CD"]) >= {"eager", "plain"} and "over_plain" in report["training"]["CD"]["eager"]


def test_evaluations_are_those_of_the_papers(report):
    # Heun's N steps, the last of them Euler's: 2N - 1 (EDM, section 3)
    counts = {name: row["evaluations"] for name, row in report["sampling"].items()}
    assert counts == {"1 step": 1, "2 steps": 2, "4 steps": 4, "Heun 18": 35, "Heun 40": 79}


def test_the_work_of_a_cd_step_is_six_forward_passes_less_the_gradients_of_inputs():
    B, w, features = SMOKE.batch, SMOKE.width, SMOKE.features
    enter = (2 + 2 * features) * w + 13 * w  # x with its features, and the 13 numbers of the time
    inside = (SMOKE.depth - 1) * w * w + 2 * w
    passes = 5 * enter + 6 * inside  # 4 forward, and the weights' gradients; inside the layers' inputs' gradients
    extras = 4 * 2 * features + 2 * 2  # the phases of the features, and drawing the data
    step = stepper(makers(SMOKE)["CD"](), SMOKE)
    assert count_flops(step) == 2 * B * (passes + extras)


def test_the_plain_loop_does_the_same_work_and_the_same_updates():
    pair = makers(SMOKE)["CD"]()
    assert count_flops(plain_stepper(makers(SMOKE)["CD"](), SMOKE)) == count_flops(stepper(pair, SMOKE))
    torch.manual_seed(0)
    net, teacher = SMOKE.net(), SMOKE.net()
    torch.nn.init.normal_(teacher.out.weight, std=0.3)  # a network that starts at zero would hide the teacher
    torch.nn.init.normal_(net.out.weight, std=0.3)
    f = Denoiser(SMOKE.net(), t_min=0.002)
    f.net.load_state_dict(net.state_dict())
    config = TrainConfig(steps=10, batch=SMOKE.batch, lr=1e-3, warmup=0, final_lr=1.0)
    ours = train(f, CD(Denoiser(teacher), grid=karras_grid(18)), ring(), config)
    plain = plain_cd(net, teacher, ring(), batch=SMOKE.batch, lr=1e-3)
    for step, loss in zip(ours, plain):
        # 1e-3: the plain loop computes in float32, and Heun's step divides by t and s down to .002
        assert step.loss.item() == pytest.approx(loss, rel=1e-3)
    for mine, theirs in zip(f.net.parameters(), net.parameters()):
        # Adam's update is lr times a sign where a gradient is near 0: 10 % of the 10 updates' 1e-2
        assert (mine - theirs).abs().max() < 1e-3


def test_variants_take_turns():
    order: list[str] = []
    seconds = race({name: lambda name=name: order.append(name) for name in "ab"}, rounds=2, calls=2)
    assert order == list("aabbaabb") and {name: len(s) for name, s in seconds.items()} == {"a": 2, "b": 2}


def test_where_networks_cannot_be_compiled_the_report_says_why(monkeypatch):
    def refuse(pair):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(module, "compile_nets", refuse)
    row = module.training(makers(SMOKE)["DSM"], SMOKE, compiled=True, plain=False)
    assert row["not_compiled"] == "no C++ compiler" and "compiled" not in row


def test_wrong_input_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="threads must be at least 1"):
        bench(threads=0)
    (tmp_path / "bench.json").touch()
    with pytest.raises(FileExistsError, match="choose another"):
        bench(out=tmp_path / "bench.json")
    with pytest.raises(OSError):
        bench(out=tmp_path / "missing" / "bench.json")
