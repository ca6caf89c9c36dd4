"""The bench: what it compares does the same work, and its report holds what it promises. No clock is asserted."""

import json
import shutil
import sys
import types

import pytest
import torch
from exact import refused

from minicm import bench as module
from minicm.bench import FEW_PICTURES, FEW_POINTS, bench, count_flops, matmul, race, settings, stepper, turn
from minicm.train import train

SCENES = {"points": FEW_POINTS, "pictures": FEW_PICTURES}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder, threads = tmp_path_factory.mktemp("bench"), torch.get_num_threads()
    for name in SCENES:
        assert bench(fast=True, images=name == "pictures", out=folder / name) == 0
        assert torch.get_num_threads() == threads
    return {name: json.loads((folder / name).read_text()) for name in SCENES}


@pytest.mark.parametrize(
    "name, objectives, precisions",
    [
        ("points", {"DSM", "CD", "CT", "iCT", "ECT", "LCD", "TCD", "sCT", "sCD"}, {"fp32"}),
        ("pictures", {"teacher", "CD", "ECT"}, {"fp32", "bf16"}),
    ],
)
def test_the_report_holds_every_part(reports, name, objectives, precisions):
    report = reports[name]
    parts = {"training", "sampling"} | ({"exact_flow"} if name == "points" else set())
    assert set(report) == {"machine", "scene", "peak_memory_mb"} | parts and set(report["peak_memory_mb"]) == parts
    assert report["machine"]["threads"] == 1 and report["machine"]["torch"] == torch.__version__
    assert set(report["training"]) == objectives
    for part in report["training"].values():
        for rate in (part[p][what] for p in precisions for what in ("steps_per_second", "tflops", "share_of_matmul")):
            assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    raced = report["training"]["CD" if name == "points" else "teacher"]
    assert "over_plain" in raced["fp32"] and "plain" in raced


def test_evaluations_are_those_of_the_papers(reports):
    # Heun's N steps, the last of them Euler's: 2N - 1 (EDM, section 3)
    counts = {name: row["evaluations"] for name, row in reports["points"]["sampling"].items()}
    few = {"1 step, fp32": 1, "2 steps, fp32": 2, "4 steps, fp32": 4}
    assert counts == few | {"Heun 18, fp32": 35, "Heun 40, fp32": 79}
    counts = {name: row["evaluations"] for name, row in reports["pictures"]["sampling"].items()}
    assert counts == {"1 step, fp32": 1, "1 step, bf16": 1, "Heun 18, fp32": 35, "Heun 18, bf16": 35}


def test_the_work_of_a_cd_step_is_six_forward_passes_less_the_gradients_of_inputs(reports):
    B, w, features = FEW_POINTS.batch, FEW_POINTS.width, FEW_POINTS.features
    enter = (2 + 2 * features) * w + 13 * w  # x with its features, and the 13 numbers of the time
    inside = (FEW_POINTS.depth - 1) * w * w + 2 * w
    passes = 5 * enter + 6 * inside  # 4 forward, and the weights' gradients; inside the layers' inputs' gradients
    extras = 4 * 2 * features + 2 * 2  # the phases of the features, and drawing the data
    assert reports["points"]["training"]["CD"]["gflop"] * 1e9 == pytest.approx(2 * B * (passes + extras), rel=1e-12)


def test_pictures_take_the_passes_of_their_papers(reports):
    """In forward passes, a backward pass being two: DSM 3; CD 3, the target's 1, Heun's 2; ECT 3 and the target's 1."""
    work = {name: part["gflop"] for name, part in reports["pictures"]["training"].items()}
    # 3 %: the gradient of the first layer's input is needed nowhere
    assert work["CD"] / work["teacher"] == pytest.approx(2, rel=0.03)
    assert work["ECT"] / work["teacher"] == pytest.approx(4 / 3, rel=0.03)


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_the_plain_loop_does_the_same_work(scene):
    ((name, plain),) = scene.plain().items()
    ours = train(*scene.makers()[name](), scene.data(), settings(scene, False)["fp32"])
    assert count_flops(stepper(ours, scene)) == count_flops(stepper(plain, scene))


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_plain_loops_are_taken_by_path_and_left_out_of_an_installed_wheel(scene, monkeypatch, tmp_path):
    for path in module.STUDIES.glob("plain*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(module, "STUDIES", tmp_path)
    for name in ("docs", "docs.studies", "docs.studies.plain", "docs.studies.plain_images"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name in ("docs.studies.plain", "docs.studies.plain_images"):  # another "docs", found first, does no harm
        monkeypatch.delitem(sys.modules, name)
    loops = scene.plain()
    assert len(loops) == 1 and sys.modules["docs.studies.plain"].__file__ == str(tmp_path / "plain.py")
    monkeypatch.setattr(module, "STUDIES", tmp_path / "nowhere")
    assert scene.plain() == {}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_the_yardstick_is_as_many_products_as_it_says(scene):
    m, n, products = scene.matmul
    assert count_flops(matmul(scene, "fp32")) == 2 * m * n * n * products


def test_settings_are_both_precisions_eager_and_compiled():
    found = settings(FEW_PICTURES, compiled=True)
    assert {name: (c.bf16, c.compile) for name, c in found.items()} == {
        "fp32": (False, False),
        "bf16": (True, False),
        "fp32 compiled": (False, True),
        "bf16 compiled": (True, True),
    }


def test_variants_take_turns():
    order: list[str] = []
    turns = {name: turn(lambda name=name: order.append(name), 2, "cpu") for name in "ab"}
    seconds = race(turns, rounds=2)
    assert order == list("aabbaabb") and {name: len(s) for name, s in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize("scene, name", [(FEW_POINTS, "DSM"), (FEW_PICTURES, "teacher")], ids=SCENES)
def test_where_networks_cannot_be_compiled_the_report_says_why(scene, name, monkeypatch):
    def refuse(self):
        def forward(*args, **cond):
            raise RuntimeError("no C++ compiler\nand more")

        self.forward = forward

    monkeypatch.setattr(torch.nn.Module, "compile", refuse)
    monkeypatch.setattr(type(scene), "makers", lambda self, make=scene.makers()[name]: {name: make})
    report = module.measure(scene, compiled=True)
    part = report["training"][name]
    assert part["not_measured"]["fp32 compiled"] == "no C++ compiler" and "fp32" in part
    assert "fp32 compiled" not in part
    text = module.render(json.loads(json.dumps(report)))
    assert f"| {name} | fp32 compiled: no C++ compiler |" in text
    assert "| 1 step, fp32 compiled |  | no C++ compiler |" in text


def test_wrong_input_is_refused_before_any_work(tmp_path):
    refused("threads must be at least 1", lambda: bench(threads=0))
    (tmp_path / "bench.json").touch()
    refused("choose another", lambda: bench(out=tmp_path / "bench.json"), FileExistsError)
    with pytest.raises(OSError):
        bench(out=tmp_path / "missing" / "bench.json")


@pytest.mark.gpu
def test_the_bench_runs_on_a_gpu():
    scene = module.Pictures("cuda", FEW_PICTURES.net, 8, steps=2, rounds=2, drawn=8, draws=2, matmul=(256, 256, 1))
    report = module.measure(scene, compiled=False)
    assert report["machine"]["gpu"] and report["training"]["teacher"]["peak_memory_mb"] > 0
    assert module.render(report)
