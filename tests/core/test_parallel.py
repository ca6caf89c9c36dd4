"""Several processes give the single-process result: two of them on the processor, joined through a file."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny import tiny

from minicm import parallel
from minicm.checkpoint import load_checkpoint, save_checkpoint
from minicm.denoiser import Denoiser
from minicm.nets.mlp import MLP
from minicm.objectives.scm import SCM
from minicm.parallel import any_process, processes, share
from minicm.runs.run import Recipe, RunOptions, run
from minicm.schedules import TrigFlow
from minicm.train import TrainConfig, train

STEPS = 12


def with_own_weights(**config) -> Recipe:
    """sCM learns a weight of its own, whose gradient is to be summed, too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, objective = Denoiser(MLP(2, width=8, depth=1, features=4), TrigFlow()), SCM()
    return Recipe(model, objective, tiny().data, TrainConfig(**{"batch": 15, "lr": 1e-2} | config))


def worker(rank: int, folder: str) -> None:
    """One of two processes: trains, runs a recipe, and asks what all are asked."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    assert parallel.world() == 2 and parallel.rank() == rank
    recipe = tiny(seed=0 if rank == 0 else 5)._replace(config=tiny().config)  # other first weights: number 0's count
    *_, step = train(*recipe)
    save_checkpoint(f"{folder}/ct-{rank}", step.state())
    *_, step = train(*with_own_weights(steps=STEPS, accumulate=2))
    save_checkpoint(f"{folder}/scm-{rank}", step.state())
    assert any_process(rank == 1, "cpu") and not any_process(False, "cpu")
    run("tiny", tiny(), {}, RunOptions(folder=Path(folder) / "run", log_every=1, quiet=True))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(worker, args=(str(folder),), nprocs=2)
    return folder


def weights(state):
    return {k: v for k, v in state.items() if torch.is_tensor(v) and v.is_floating_point()}


@pytest.mark.parametrize("name, recipe", [("ct", tiny), ("scm", lambda: with_own_weights(steps=STEPS, accumulate=2))])
def test_two_processes_reach_the_result_of_one(folder, name, recipe):
    *_, step = train(*recipe())
    alone, *together = (weights(s) for s in (step.state(), *(load_checkpoint(folder / f"{name}-{r}") for r in (0, 1))))
    for key, value in alone.items():
        assert torch.equal(together[0][key], together[1][key]), key  # the two never part
        if key.startswith(("f/", "ema/", "objective/")):
            # 12 updates of Adam with lr 1e-2: sums in another order, and signs of gradients near 0
            assert (value - together[0][key]).abs().max() < 1e-3, key


def test_the_loss_is_that_of_the_whole_batch(folder):
    run("tiny", tiny(), {}, RunOptions(folder=folder / "alone", log_every=1, quiet=True))
    alone, both = ((folder / name / "log.jsonl").read_text().splitlines() for name in ("alone", "run"))
    assert len(alone) == len(both) == tiny().config.steps  # number 0 alone has written
    first = [json.loads(lines[0])["loss"] for lines in (alone, both)]
    assert first[1] == pytest.approx(first[0], rel=1e-6)  # one float32 sum in two halves


def test_shares_cover_a_batch_once(monkeypatch):
    for n, world, parts in ((16, 1, 1), (15, 2, 2), (7, 3, 2), (512, 8, 4)):
        monkeypatch.setattr(parallel, "world", lambda world=world: world)
        rows = []
        for rank in range(world):
            monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
            pieces = share(n, parts)
            assert len(pieces) == parts
            rows += [i for piece in pieces for i in range(n)[piece]]
        assert rows == list(range(n))


def test_alone_there_is_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes():
        assert (parallel.world(), parallel.rank()) == (1, 0) and not dist.is_initialized()
    assert any_process(True, "cpu") and not any_process(False, "cpu")


def test_torchruns_environment_is_taken_up_and_left(monkeypatch, tmp_path):
    """A group of one process stands for torchrun's: joining and leaving is what this tests."""
    seen = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda backend: seen.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: seen.append("left"))
    with processes():
        assert "gloo" in seen[0]
    assert seen[1:] == ["left"]
