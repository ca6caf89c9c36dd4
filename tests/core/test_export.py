"""Exported weights: the average alone, whole or rounded to bf16, in files of a given size, read back, never resumed."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny

from minicm.__main__ import main
from minicm.checkpoint import MIB, CheckpointError, export, load_checkpoint, load_model
from minicm.denoiser import Denoiser
from minicm.nets.mlp import MLP
from minicm.objectives.ct import CT
from minicm.runs.run import Recipe, RunOptions, is_teacher, run
from minicm.train import TrainConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a network of 35,000 weights (.13 MiB), so that small shards are many."""
    torch.manual_seed(0)
    model = Denoiser(MLP(2, width=96, depth=4, features=16), t_min=0.002)
    config = TrainConfig(steps=3, batch=8, lr=1e-2, ema=0.5)
    recipe = Recipe(model, CT(), tiny().data, config)
    return run("tiny", recipe, {"seed": 0}, RunOptions(folder=tmp_path_factory.mktemp("r") / "run", quiet=True))


def test_fp32_is_the_average_bit_for_bit(trained, tmp_path):
    files = export(trained.folder, tmp_path / "w", dtype="fp32")
    assert [f.name for f in files] == ["weights-1-of-1.safetensors"]
    ours, theirs = load_model(tmp_path / "w").state_dict(), load_model(trained.folder).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(v, ours[k]) for k, v in theirs.items())


@pytest.mark.parametrize("mib", [0.02, 0.03, 0.05, 1.0])
def test_bf16_shards_fit_and_hold_every_weight_once(trained, tmp_path, mib):
    files = export(trained.folder, tmp_path / "w", dtype="bf16", shard_mib=mib)
    assert all(f.stat().st_size <= mib * MIB for f in files)
    total = sum(f.stat().st_size for f in files)
    assert len(files) <= 1 + 2 * total / (mib * MIB)  # at least half full on average
    original = load_model(trained.folder)
    for path in (tmp_path / "w", files[0], files[-1]):  # the folder, the first file, any file
        model = load_model(path)
        for name, value in model.named_parameters():
            assert value.dtype == torch.float32
            assert torch.equal(value, original.get_parameter(name).bfloat16().float())
        for name, value in model.named_buffers():  # the Fourier frequencies would change the function
            assert torch.equal(value, original.get_buffer(name))


def test_half_the_size(trained, tmp_path):
    sizes = [
        sum(f.stat().st_size for f in export(trained.folder, tmp_path / dtype, dtype=dtype))
        for dtype in ("bf16", "fp32")
    ]
    assert 0.5 < sizes[0] / sizes[1] < 0.6  # the header comes on top


def test_an_export_keeps_its_name_and_is_not_resumable(trained, tmp_path):
    export(trained.folder, tmp_path / "w")
    state = load_checkpoint(tmp_path / "w")
    assert state["recipe"] == "tiny" and state["exported"]["steps"] == 3 and not is_teacher(state)
    assert not any(key.startswith(("f/", "f_target/", "optimiser/")) for key in state)
    model = Denoiser(MLP(2, width=96, depth=4, features=16), t_min=0.002)
    recipe = Recipe(model, CT(), tiny().data, TrainConfig(steps=3, batch=8, lr=1e-2))
    with pytest.raises(CheckpointError, match="no training to go on with: resume a run's checkpoint"):
        run("tiny", recipe, {"seed": 0}, RunOptions(resume=tmp_path / "w", quiet=True))


def test_what_is_missing_or_does_not_fit_is_named(trained, tmp_path):
    files = export(trained.folder, tmp_path / "w", shard_mib=0.03)
    files[1].unlink()
    with pytest.raises(CheckpointError, match=r"weights-2-of-\d+.safetensors is missing"):
        load_model(tmp_path / "w")
    files[0].unlink()
    with pytest.raises(CheckpointError, match=r"weights-1-of-\d+.safetensors is missing"):
        load_model(tmp_path / "w")
    with pytest.raises(CheckpointError, match="exists: choose another folder"):
        export(trained.folder, tmp_path / "w")
    with pytest.raises(CheckpointError, match=r"alone takes 0.0\d MiB: raise shard_mib"):
        export(trained.folder, tmp_path / "small", shard_mib=0.01)
    with pytest.raises(ValueError, match="shard_mib must be positive"):
        export(trained.folder, tmp_path / "none", shard_mib=0)
    with pytest.raises(ValueError, match="shard_mib must be positive and finite"):
        export(trained.folder, tmp_path / "none", shard_mib=float("inf"))
    with pytest.raises(CheckpointError, match="is not a file"):
        export(tmp_path, tmp_path / "none")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w"]


def test_a_stop_in_the_middle_leaves_nothing(trained, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("minicm.export.save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        export(trained.folder, tmp_path / "w")
    assert not list(tmp_path.iterdir())


def test_the_command(trained, tmp_path, capsys):
    assert main(["export", str(trained.folder), "--shard-mib", "0.05", "--out", str(tmp_path / "w")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(list((tmp_path / "w").iterdir())) > 1
    assert main(["export", str(trained.folder), "--out", str(tmp_path / "w")]) == 2
    assert "choose another folder" in capsys.readouterr().err
