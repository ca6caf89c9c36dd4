"""Checkpoints: what goes in comes out bit for bit; what is broken or foreign is refused; a full disk costs nothing."""

import errno
import json
import os

import pytest
import torch
from exact import refused
from safetensors.torch import save_file

from minicm import EDM, MLP, VP, Denoiser, TrigFlow, UNet, train
from minicm.checkpoint import (
    CheckpointError,
    build,
    describe,
    load_checkpoint,
    load_model,
    load_teacher,
    save_checkpoint,
)

STATE = {
    "k": 3,
    "config": {"lr": 0.1, "clip": None, "device": "cpu"},
    "a/w": torch.tensor([[1.0, -0.0], [float("inf"), 1e-45]]),
    "a/n": torch.tensor(7),
    "half": torch.randn(3, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "generator": torch.Generator().get_state(),
}


def bits(x: torch.Tensor) -> bytes:
    return x.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_what_goes_in_comes_out_bit_for_bit(tmp_path):
    save_checkpoint(tmp_path / "c", STATE)
    back = load_checkpoint(tmp_path / "c")
    assert back.keys() == STATE.keys()
    for name, value in STATE.items():
        if isinstance(value, torch.Tensor):
            assert back[name].dtype == value.dtype and back[name].shape == value.shape
            assert bits(back[name]) == bits(value)
        else:
            assert back[name] == value


def test_what_was_read_stands_when_the_file_is_replaced(tmp_path):
    save_checkpoint(tmp_path / "c", STATE)
    back = load_checkpoint(tmp_path / "c")
    (tmp_path / "c").write_bytes(b"\0" * 2000)
    assert bits(back["a/w"]) == bits(STATE["a/w"])


def test_a_run_folder_stands_for_its_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.safetensors", STATE)
    assert load_checkpoint(tmp_path)["k"] == 3


@pytest.mark.parametrize("schedule", [EDM(), VP.linear(50), TrigFlow()], ids=["EDM", "VP", "TrigFlow"])
@pytest.mark.parametrize("net", ["MLP", "UNet"])
def test_a_model_is_built_again_from_its_description(tmp_path, schedule, net):
    made = MLP(2, width=8, depth=1, features=4) if net == "MLP" else UNet(1, width=16)
    t_min = 0.01 if isinstance(schedule, EDM) else 0.0
    model = Denoiser(made, schedule, t_min=t_min).eval()
    state = {"model": describe(model)} | {f"ema/{k}": v for k, v in model.state_dict().items()}
    save_checkpoint(tmp_path / "c", state)
    again = load_model(tmp_path / "c")
    assert describe(again) == describe(model)
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    x = torch.randn(2, *((2,) if net == "MLP" else (1, 8, 8)))
    t = torch.full((2,), schedule.t_max / 2)
    with torch.no_grad():
        assert torch.equal(again(x, t), model(x, t))
        low = torch.full((2,), t_min)
        assert torch.equal(again(x, low), x)  # the boundary after loading, bit-exact


def test_a_network_of_ones_own_is_described_and_built_by_its_owner():
    model = Denoiser(torch.nn.Identity())
    refused(r"'Identity'\): build it yourself and load its weights", lambda: build(describe(model)), CheckpointError)


def test_each_of_the_three_weights_can_be_loaded(tmp_path, tiny_recipe):
    recipe = tiny_recipe(steps=3)
    *_, step = train(*recipe)
    save_checkpoint(tmp_path / "c", step.state() | {"model": describe(recipe.model)})
    for name in ("f", "f_target", "ema"):
        loaded, kept = load_model(tmp_path / "c", name).state_dict(), getattr(step, name).state_dict()
        assert all(torch.equal(v, loaded[k]) for k, v in kept.items())
    refused("no weights 'best'", lambda: load_model(tmp_path / "c", "best"), CheckpointError)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    save_checkpoint(tmp_path / "whole", STATE)
    whole = (tmp_path / "whole").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")  # safetensors: 8 bytes of length, JSON, tensors
    for end in (0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match="cut is truncated or no safetensors file"):
            load_checkpoint(tmp_path / "cut")


def test_files_that_are_not_ours_are_refused(tmp_path):
    refused("missing is not a file: give a run folder", lambda: load_checkpoint(tmp_path / "missing"), CheckpointError)
    with pytest.raises(CheckpointError, match="is not a file"):
        load_checkpoint(tmp_path)  # a folder without a checkpoint
    torch.save({"w": torch.zeros(3)}, tmp_path / "pickle.pt")
    refused("no safetensors file", lambda: load_checkpoint(tmp_path / "pickle.pt"), CheckpointError)
    save_file({"w": torch.zeros(3)}, tmp_path / "foreign")
    refused("not a checkpoint of minicm", lambda: load_checkpoint(tmp_path / "foreign"), CheckpointError)
    for header in ("{", "3"):
        save_file({"w": torch.zeros(3)}, tmp_path / "broken", metadata={"minicm": header})
        with pytest.raises(CheckpointError, match="header that this version of minicm cannot read"):
            load_checkpoint(tmp_path / "broken")
    save_checkpoint(tmp_path / "bare", STATE)
    refused("no model description", lambda: load_model(tmp_path / "bare"), CheckpointError)


TEACHER = {"kind": "diffusion", "data": "ring", "shape": [2], "decoder": None, "teacher": None}


@pytest.mark.parametrize(
    "facts, asked, complaint",
    [
        ({"kind": "consistency"}, {}, "holds a consistency model, no diffusion teacher"),
        ({}, {"schedule": VP.linear(50)}, r"a teacher in another clock \(EDM\) than this VP"),
        ({}, {"shape": (3,)}, r"a teacher of samples of shape \(2,\), not \(3,\)"),
        ({}, {"classes": 2}, "a teacher that knows 3 classes, not 2"),
    ],
)
def test_what_is_no_teacher_for_a_recipe_is_refused_with_the_way_out(tmp_path, facts, asked, complaint):
    model = Denoiser(MLP(2, width=8, depth=1, features=4, classes=3)).eval()
    weights = {f"ema/{k}": v for k, v in model.state_dict().items()}
    save_checkpoint(tmp_path / "good", TEACHER | {"model": describe(model)} | weights)
    save_checkpoint(tmp_path / "c", TEACHER | facts | {"model": describe(model)} | weights)
    found = load_teacher(tmp_path / "good", recipe="mixture-teacher", shape=(2,), classes=3)
    assert torch.equal(found(torch.ones(1, 2), torch.ones(1)), model(torch.ones(1, 2), torch.ones(1)))
    with pytest.raises(CheckpointError, match=f"{complaint}: give one that minicm train mixture-teacher has trained"):
        load_teacher(tmp_path / "c", **{"recipe": "mixture-teacher", "shape": (2,)} | asked)


@pytest.mark.parametrize("change", [{"net": "GAN"}, {"schedule": "VE"}, {"options": {"depht": 3}}, {"clock": {"b": 1}}])
def test_a_model_of_another_version_is_refused(change):
    with pytest.raises(CheckpointError, match="cannot be built by this version of minicm"):
        build(describe(Denoiser(MLP(2, width=8, depth=1, features=4))) | change)


def test_a_model_with_t_min_beyond_t_max_is_refused():
    refused("t_min", lambda: build(describe(Denoiser(MLP(2, width=8, depth=1, features=4))) | {"t_min": 80.0}))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, STATE)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":
        monkeypatch.setattr("builtins.open", lambda *args, **options: Full(*args, **options))
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match=r"cannot write .* \(No space left on device\): free space"):
        save_checkpoint(path, STATE | {"k": 4})
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert load_checkpoint(path)["k"] == 3


class Full:
    """A file on a disk that is full after a hundred bytes."""

    def __init__(self, path, mode):
        self.file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT), mode)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, packed):
        self.file.write(packed[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_two_processes_that_save_into_one_place_leave_one_of_their_files_whole(tmp_path, monkeypatch):
    path, fsync = tmp_path / "c", os.fsync

    def meanwhile(fd):
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "getpid", lambda: -1)  # another process, which saves while this one does
        save_checkpoint(path, {"k": 4, "a": torch.ones(3)})
        fsync(fd)

    monkeypatch.setattr(os, "fsync", meanwhile)
    save_checkpoint(path, {"k": 3, "a": torch.zeros(3)})
    assert load_checkpoint(path)["k"] == 3 and [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    def read_only(*args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("builtins.open", read_only)  # chmod does not stop root
    refused("Read-only file system", lambda: save_checkpoint(tmp_path / "c", STATE), CheckpointError)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    refused("No such file or directory", lambda: save_checkpoint(tmp_path / "no" / "c", STATE), CheckpointError)


def test_a_stop_in_the_middle_leaves_no_part(tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "c", STATE)
    assert not list(tmp_path.iterdir())


def test_the_header_is_plain_json(tmp_path):
    """So that any safetensors reader, in any language, can tell what a file holds."""
    save_checkpoint(tmp_path / "c", STATE)
    raw = (tmp_path / "c").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["minicm"]) == {"k": 3, "config": STATE["config"]}
