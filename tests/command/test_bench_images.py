"""The bench of pictures: the plain loop does the same updates, work is counted, and the report holds what it promises."""

from __future__ import annotations

import json

import pytest
import torch

from docs.studies.plain_images import plain_dsm
from minicm import bench_images as module
from minicm.bench import bench
from minicm.bench_images import SMOKE, makers, matmul, pictures, settings, stepper
from minicm.denoiser import Denoiser
from minicm.objectives.dsm import DSM
from minicm.racing import count_flops
from minicm.train import TrainConfig, train


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    assert bench(images=True, fast=True, out=out) == 0
    return json.loads(out.read_text())


def test_the_report_holds_every_part(report):
    assert set(report) == {"machine", "scene", "training", "sampling"}
    assert set(report["training"]) == {"teacher", "CD", "ECT"}
    for part in report["training"].values():
        for name in ("fp32", "bf16"):
            rate = part[name]["pictures_per_second"]
            assert 0 < rate["low"] <= rate["median"] <= rate["high"]
            assert part[name]["share_of_matmul"]["median"] > 0
    assert "over_plain" in report["training"]["teacher"]["fp32"] and "plain" in report["training"]["teacher"]
    assert set(report["sampling"]) == {f"{what}, {name}" for what in ("1 step", "Heun 18") for name in ("fp32", "bf16")}


def test_cd_and_ect_do_the_passes_of_their_papers(report):
    """In forward passes, a backward pass being two: DSM 3; CD 3, the target's 1, Heun's 2; ECT 3 and the target's 1."""
    work = {name: part["gflop_a_picture"] for name, part in report["training"].items()}
    # 3 %: the gradient of the first layer's input is needed nowhere
    assert work["CD"] / work["teacher"] == pytest.approx(2, rel=0.03)
    assert work["ECT"] / work["teacher"] == pytest.approx(4 / 3, rel=0.03)


def test_the_plain_loop_does_the_same_work_and_the_same_updates():
    data = pictures("cpu")
    ours_net, plain_net = (SMOKE.net.net(10, 0) for _ in range(2))
    for net in (ours_net, plain_net):
        torch.nn.init.constant_(net.leave.weight, 0.01)  # a last layer of zeros would hide the rest
    config = TrainConfig(steps=6, batch=4, lr=1e-3, warmup=0, final_lr=1.0)
    ours = train(Denoiser(ours_net), DSM(), data, config)
    plain = plain_dsm(plain_net, data, batch=4, lr=1e-3)
    for step, loss in zip(ours, plain):
        # 1e-3: our times are float64 until they meet the pictures, the plain loop's are float32
        assert step.loss.item() == pytest.approx(loss, rel=1e-3)
    for mine, theirs in zip(ours_net.parameters(), plain_net.parameters(), strict=True):
        # Adam's update is lr times a sign where a gradient is near 0: a third of the 6 updates' 6e-3
        assert (mine - theirs).abs().max() < 2e-3
    turns = (
        stepper(train(*makers(SMOKE)["teacher"](), data, settings(SMOKE, False)["fp32"]), SMOKE),
        stepper(plain_dsm(SMOKE.net.net(10, 0), data, batch=SMOKE.batch, lr=1e-3), SMOKE),
    )
    assert count_flops(turns[0]) == count_flops(turns[1])


def test_the_yardstick_is_one_product():
    assert count_flops(matmul(SMOKE, torch.float32)) == 2 * SMOKE.matmul**3


def test_settings_are_both_precisions_eager_and_compiled():
    found = settings(SMOKE, compiled=True)
    assert {name: (c.bf16, c.compile) for name, c in found.items()} == {
        "fp32": (False, False),
        "bf16": (True, False),
        "fp32 compiled": (False, True),
        "bf16 compiled": (True, True),
    }


def test_what_cannot_be_compiled_is_told(monkeypatch):
    real = train

    def refuse(f, objective, data, config):
        if config.compile:
            raise RuntimeError("no C++ compiler\nand more")
        return real(f, objective, data, config)

    monkeypatch.setattr(module, "train", refuse)
    part = module.training(makers(SMOKE)["teacher"], SMOKE, compiled=True, plain=False)
    assert part["not_measured"]["fp32 compiled"] == "no C++ compiler" and "fp32" in part
    everything = {"scene": vars(SMOKE) | {"net": vars(SMOKE.net)}, "machine": module.machine()}
    text = module.render(everything | {"training": {"teacher": part}, "sampling": {}})
    assert "fp32 compiled: not measured, no C++ compiler" in text


@pytest.mark.gpu
def test_the_bench_runs_on_a_gpu(monkeypatch):
    monkeypatch.setattr(module, "GPU", module.Scene("cuda", SMOKE.net, batch=8, steps=2, rounds=2, matmul=256))
    report = module.measure(fast=False, compiled=False)
    assert report["machine"]["gpu"] and report["training"]["teacher"]["peak_memory_mb"] > 0
    assert module.render(report)
