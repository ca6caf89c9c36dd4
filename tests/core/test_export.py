"""Exported weights: the average alone with what it is, whole or rounded to bf16, in one file, never resumed."""

import pytest
import torch
from exact import refused
from tiny import tiny

from minicm import CT, MLP, Denoiser, TrainConfig, UNet
from minicm.__main__ import main
from minicm.checkpoint import CheckpointError, export, load_checkpoint, load_decoder, load_model, load_trained
from minicm.data.digits import Digits
from minicm.data.latents import Latents
from minicm.nets.autoencoder import Autoencoder
from minicm.runs.run import Recipe, RunOptions, run

CONFIG = TrainConfig(steps=3, batch=8, lr=1e-2, ema=0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a network of 35,000 weights."""
    torch.manual_seed(0)
    recipe = Recipe(Denoiser(MLP(2, width=96, depth=4, features=16), t_min=0.002), CT(), tiny().data, CONFIG)
    return run("tiny", recipe, {"seed": 0}, RunOptions(folder=tmp_path_factory.mktemp("r") / "run", quiet=True))


def test_fp32_is_the_average_bit_for_bit(trained, tmp_path):
    file = export(trained.folder, out=tmp_path / "w", dtype="fp32")
    ours, theirs = load_model(file).state_dict(), load_model(trained.folder).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(v, ours[k]) for k, v in theirs.items())


def test_bf16_rounds_every_weight_and_no_buffer(trained, tmp_path):
    original, model = load_model(trained.folder), load_model(export(trained.folder, out=tmp_path / "w"))
    for name, value in model.named_parameters():
        assert value.dtype == torch.float32
        assert torch.equal(value, original.get_parameter(name).bfloat16().float())
    for name, value in model.named_buffers():  # the Fourier frequencies would change the function
        assert torch.equal(value, original.get_buffer(name))


def test_half_the_size(trained, tmp_path):
    sizes = [export(trained.folder, out=tmp_path / dtype, dtype=dtype).stat().st_size for dtype in ("bf16", "fp32")]
    assert 0.5 < sizes[0] / sizes[1] < 0.6  # the header comes on top


def test_an_export_keeps_its_name_and_facts_and_is_not_resumable(trained, tmp_path):
    file = export(trained.folder, out=tmp_path / "w")
    state, ours, theirs = load_checkpoint(file), load_trained(file), load_trained(trained.folder)
    assert state["recipe"] == "tiny" and state["exported"] == {"dtype": "bf16", "steps": 3}
    assert (ours.kind, ours.data, ours.shape) == (theirs.kind, theirs.data, theirs.shape) == ("consistency", None, (2,))
    assert not any(key.startswith(("f/", "f_target/", "optimiser/")) for key in state)
    recipe = Recipe(Denoiser(MLP(2, width=96, depth=4, features=16), t_min=0.002), CT(), tiny().data, CONFIG)
    with pytest.raises(CheckpointError, match="no training to go on with: resume a run's checkpoint"):
        run("tiny", recipe, {"seed": 0}, RunOptions(resume=file, quiet=True))


def test_latents_bring_their_decoder_along(tmp_path):
    """A run of latents, and its export, stand alone: pictures come out of them, with no other file."""
    autoencoder = Autoencoder(width=8).standardise(Digits().images[:50])
    model = Denoiser(UNet(2, 8, (1,), attention=()), t_min=0.002)
    data, config = Latents(Digits(), autoencoder), TrainConfig(steps=1, batch=2, lr=1e-3)
    done = run("latent", Recipe(model, CT(), data, config), {}, RunOptions(folder=tmp_path / "run", quiet=True))
    z = torch.randn(3, 2, 4, 4)
    for path in (done.folder, export(done.folder, out=tmp_path / "w")):
        found = load_trained(path)
        assert found.shape == (2, 4, 4) and found.data == "digits" and found.pictures
        assert torch.equal(found.decode(z), autoencoder.decode(z))
        assert torch.equal(load_decoder(path).decode(z), autoencoder.decode(z))


def test_another_autoencoder_is_not_gone_on_with(tmp_path):
    def recipe(seed, steps=2):
        torch.manual_seed(seed)
        data = Latents(Digits(), Autoencoder(width=8))
        model = Denoiser(UNet(2, 8, (1,), attention=()), t_min=0.002)
        return Recipe(model, CT(), data, TrainConfig(steps=steps, batch=2, lr=1e-3))

    done = run("latent", recipe(0), {}, RunOptions(folder=tmp_path / "run", quiet=True))
    with pytest.raises(CheckpointError, match=r"its decoder.fingerprint is \w{16}, this run's \w{16}"):
        run("latent", recipe(1), {}, RunOptions(resume=done.folder, quiet=True))


def test_what_is_missing_or_there_is_named(trained, tmp_path):
    file = export(trained.folder, out=tmp_path / "w")
    before = file.read_bytes()
    refused("exists: choose another --out", lambda: export(trained.folder, out=file), CheckpointError)
    assert file.read_bytes() == before
    refused('dtype must be "bf16" or "fp32", got', lambda: export(trained.folder, out=tmp_path / "none", dtype="fp8"))
    refused("is not a file", lambda: export(tmp_path, out=tmp_path / "none"), CheckpointError)
    refused("holds no autoencoder", lambda: load_decoder(file), CheckpointError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w"]


def test_the_command(trained, tmp_path, capsys):
    assert main(["export", str(trained.folder), "--out", str(tmp_path / "w" / "x.safetensors")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'w' / 'x.safetensors'}\n"
    assert main(["export", str(trained.folder), "--out", str(tmp_path / "w" / "x.safetensors")]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert main(["export", str(trained.folder)]) == 0
    assert (trained.folder / "weights-bf16.safetensors").is_file()
