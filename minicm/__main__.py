"""The `minicm` command. It only parses, calls and prints; everything it does can be called from Python."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy
import torch
import tyro

from minicm import __version__
from minicm.bench import bench
from minicm.checkpoint import CheckpointError, export, load_checkpoint, load_model
from minicm.course.commands import course, grade
from minicm.data.named import points_named
from minicm.demo import demo
from minicm.evaluate import guided, pictures
from minicm.evaluate.compare import compare
from minicm.evaluate.pictures import Trained, trained
from minicm.evaluate.points import evaluate, evaluate_teacher
from minicm.evaluate.rows import Row, table, with_bands
from minicm.parallel import processes, rank
from minicm.plots.images import sheet
from minicm.recipes import RECIPES
from minicm.runs.run import Recipe, RunOptions, is_teacher, run
from minicm.sampling import LEVELS, Counted, sample, sampling_times
from minicm.train import Diverged

# what `evaluate` reports of a recipe's run; of those that are not here, errors of unconditional samples
REPORTS: dict[str, Callable[..., list[Row]]] = {
    "mixture-tcd": guided.evaluate_trajectory_run,
    "mixture-guided-teacher": guided.evaluate_guided_run,
    "mixture-lcd": guided.evaluate_guided_run,
    "mixture-lcd-published": guided.evaluate_guided_run,
    "mixture-lcf": guided.evaluate_guided_run,
    "mixture-lcm-lora": guided.evaluate_lora_run,
    "mixture-style-lora": guided.evaluate_lora_run,
}
REPORTS |= {name: pictures.evaluate_digits for name in RECIPES if name.startswith("digits-")}
REPORTS |= {name: pictures.evaluate_cifar10 for name in RECIPES if name.startswith("cifar10-")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for wrong input, 1 for a run that diverged, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        code = dispatch(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:  # tyro has printed help (0) or what is wrong (2)
        return int(stop.code or 0)
    except Diverged as error:
        print(f"minicm: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        print(f"minicm: {complaint(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def complaint(error: Exception) -> str:
    """What an error says of the input, in one line; one that is no fault of the input is raised again."""
    if isinstance(error, OSError) and error.strerror:  # the system's own; ours have all in their one line
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}: choose another path, or free space"
    if isinstance(error, (ValueError, OSError)):
        return str(error)
    if isinstance(error, MemoryError) or re.search("out of memory|allocate memory|enough memory", str(error)):
        return "there is not enough memory: lower --batch or --n, or raise --accumulate"
    raise error


def dispatch(argv: list[str]) -> int:
    """Call the command, or the recipe to train, that the arguments name; --version tells those of minicm and torch."""
    if argv == ["--version"]:
        print(f"minicm {__version__}, torch {torch.__version__}")
        return 0
    if argv[:1] == ["train"]:
        trains = {name: train_command(name, recipe) for name, recipe in RECIPES.items()}
        return parse(trains, argv[1:], "minicm train", "RECIPE", "Train a recipe in its own run folder.")
    about = "Consistency models, checked against exact answers."
    return parse(COMMANDS, argv, "minicm", "COMMAND", about)


def parse(commands: dict[str, Callable[..., int]], argv: list[str], prog: str, kind: str, about: str) -> int:
    """Choose a command, let tyro fill in its arguments, and call it. Raises ValueError for an unknown one."""
    if not argv or argv[0] in ("-h", "--help"):
        print(overview(commands, prog, kind, about), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name = argv[0]
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(commands)}"
        raise ValueError(f"there is no {kind.lower()} {name!r}: {hint}")
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(commands[name], prog=f"{prog} {name}", args=argv[1:], config=config)


def overview(commands: dict[str, Callable[..., int]], prog: str, kind: str, about: str) -> str:
    """The help text of a group of commands: a line each."""
    lines = [f"usage: {prog} {kind} [OPTIONS]", "", about, ""]
    for name, command in commands.items():
        first = (command.__doc__ or "").splitlines()[0]
        lines += [f"  {name:{max(map(len, commands))}}  {first}"]
    return "\n".join([*lines, "", f"{prog} {kind} --help shows the options of one."])


def train_command(name: str, recipe: Callable[..., Recipe]) -> Callable[..., int]:
    """A recipe as a command: its own arguments, and where the run lives."""

    @functools.wraps(recipe)
    def command(*, where: RunOptions = RunOptions(), **options: Any) -> int:
        with processes():
            done = run(name, recipe(**options), options, where)
            if rank() == 0:
                print(f"{done.folder}: {done.k} steps in {done.seconds:.0f} s; see: minicm evaluate {done.folder}")
        return 130 if done.interrupted else 0

    own = inspect.signature(recipe)
    where = inspect.Parameter("where", inspect.Parameter.KEYWORD_ONLY, default=RunOptions(), annotation=RunOptions)
    command.__signature__ = own.replace(parameters=[*own.parameters.values(), where])  # type: ignore[attr-defined]
    command.__annotations__ = {**recipe.__annotations__, "where": RunOptions}
    return command


def train_help() -> int:
    """Train a recipe in its own run folder; minicm train --help lists the recipes."""
    return main(["train", "--help"])


def demo_command(*, fast: bool = False, runs: Path = Path("runs"), seed: int = 0) -> int:
    """Train a teacher, distil it, train on data alone, and hold all three against the exact answer.

    Args:
        fast: a smoke test of a few seconds; its numbers mean nothing
        runs: folder of all runs; the demo takes runs/demo-NNN, the next number that is free
        seed: of weights, data and noise
    """
    folder = demo(fast=fast, runs=runs, seed=seed)
    print((folder / "report.md").read_text().partition("![")[0].strip())
    print(f"\n{folder}/report.md, report.json and figures/")
    return 0


def sample_command(
    checkpoint: tyro.conf.Positional[Path],
    *,
    n: int = 1000,
    times: Annotated[tuple[float, ...], tyro.conf.arg(help_behavior_hint="(default: those of --steps)")] = (),
    steps: int = 1,
    gamma: float = 1.0,
    label: int | None = None,
    w: float | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> int:
    """Draw samples from a consistency model and save them as a .npy file; pictures as a .png of the first 100, too.

    Args:
        checkpoint: a run folder or its checkpoint
        n: number of samples
        times: decreasing sampling times in the model's clock, such as 80 0.8
        steps: 1, 2 or 4, where no times are given
        gamma: from 1, fresh noise at every time (CM), to 0, deterministic
        label: class of the samples, for a model that knows classes; one at random for each sample if not given
        w: guidance scale, for a model that takes one; 0 if not given, one less than Imagen's
        seed: of the noise
        out: where to; samples-NNN.npy beside the checkpoint if not given, never over an existing file; pictures lie
            in [-1, 1], in the shape (n, channels, height, width)
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if is_teacher(load_checkpoint(checkpoint)):
        raise ValueError(f"{checkpoint} holds a diffusion model, which one step cannot sample: distil it first")
    run = trained(checkpoint)
    generator = torch.Generator().manual_seed(seed)
    given = conditioning(run.model, n, label, w, generator)
    return save_samples(run, checkpoint, n, times, steps, gamma, given, generator, out)


def evaluate_command(
    checkpoint: tyro.conf.Positional[Path],
    *,
    n: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 4000 points, 2000 pictures)")] = None,
    seed: int = 0,
) -> int:
    """Hold a trained model against the exact answer; one of pictures against pictures that it was not trained on.

    Args:
        checkpoint: a run folder or its checkpoint
        n: number of samples
        seed: of the noise
    """
    if n is not None and n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    state, model = load_checkpoint(checkpoint), load_model(checkpoint)
    name, recipe = state.get("options", {}).get("data", ""), str(state.get("recipe"))
    pictures = recipe.startswith(("digits-", "cifar10-"))
    n = n or (2000 if pictures else 4000)
    if not name and not pictures:
        raise CheckpointError(f"{checkpoint} does not say what data it was trained on")
    if recipe in REPORTS:
        rows = REPORTS[recipe](checkpoint, n=n, seed=seed)
    else:
        measure = evaluate_teacher if is_teacher(state) else evaluate
        rows = measure(model, points_named(name), n=n, seed=seed)
    print(table(with_bands(f"{recipe} {name}".strip(), rows)))
    return 0


def export_command(
    checkpoint: tyro.conf.Positional[Path],
    *,
    dtype: Literal["bf16", "fp32"] = "bf16",
    shard_mib: float = 15.0,
    out: Path | None = None,
) -> int:
    """Write the evaluation average alone, to sample from or start from; it cannot be resumed.

    Args:
        checkpoint: a run folder or its checkpoint
        dtype: of the weights; bf16 halves the size, fp32 keeps them as trained
        shard_mib: largest size of a file, in MiB
        out: the folder to make; weights-DTYPE in the run folder if not given
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    for file in export(checkpoint, out or folder / f"weights-{dtype}", dtype=dtype, shard_mib=shard_mib):
        print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
    return 0


def recipes_command() -> int:
    """List the recipes with what each is for."""
    for name, recipe in RECIPES.items():
        config = inspect.signature(recipe).parameters["config"].default
        doc = (recipe.__doc__ or "").splitlines()[0]
        print(f"{name:22} {doc}\n{'':22} {config.steps} steps of {config.batch}")
    return 0


def conditioning(
    model: Any, n: int, label: int | None, w: float | None, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """What a model is told beside x and t: label (n,), w (n,), as far as it knows them.

    Raises ValueError for a label or a scale that it has no input for, or that is out of range.
    """
    classes, guidance = model.net.classes, model.net.options["guidance"]
    if label is not None and not classes:
        raise ValueError(f"label = {label}: this model knows no classes, leave --label out")
    if label is not None and not 0 <= label < classes:
        raise ValueError(f"label must be one of the classes 0..{classes - 1}, got {label}")
    if w is not None and not guidance:
        raise ValueError(f"w = {w:g}: this model takes no guidance scale, leave --w out")
    if w is not None and not 0 <= w < float("inf"):
        raise ValueError(f"w must be 0 (no guidance) or more, got {w:g}")
    given = {} if w is None else {"w": torch.full((n,), w, dtype=torch.float64)}
    if classes and label is None:
        given["label"] = torch.randint(classes, (n,), generator=generator)
    elif label is not None:
        given["label"] = torch.full((n,), label)
    return given


def save_samples(
    run: Trained,
    checkpoint: Path,
    n: int,
    times: tuple[float, ...],
    steps: int,
    gamma: float,
    given: dict[str, Any],
    generator: torch.Generator,
    out: Path | None,
) -> int:
    """Sample a model, save the points or pictures and say how often the network was evaluated."""
    if not times and steps not in LEVELS:
        raise ValueError(f"steps must be one of {', '.join(map(str, LEVELS))}, got {steps}: or give --times")
    f = Counted(run.model)
    chosen = list(times) or sampling_times(f.schedule, steps).tolist()
    out = out or next_free(checkpoint if checkpoint.is_dir() else checkpoint.parent)
    if run.pictures and out.suffix == ".png":
        raise ValueError(f"{out}: --out names the .npy file, the .png comes to lie beside it")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent} is no folder: make it, or choose another --out")
    for path in (out, out.with_suffix(".png")) if run.pictures else (out,):
        if path.exists():
            raise FileExistsError(f"{path} exists: choose another --out")
    x_T = f.schedule.prior((n, *run.shape), generator)
    x = run.decode(sample(f, x_T, chosen, gamma, generator=generator, **given))
    with open(out, "xb") as file:  # x: not even a file that came in between is written over
        numpy.save(file, x.numpy(), allow_pickle=False)
    if run.pictures:
        sheet(x[:100], f"{len(chosen)} step" + "s" * (len(chosen) > 1)).savefig(out.with_suffix(".png"))
    print(f"{out}: {n} samples, {f.evaluations} evaluations of the network each")
    return 0


def next_free(folder: Path) -> Path:
    """folder/samples-NNN.npy with the first number that is free."""
    number = 1
    while (path := folder / f"samples-{number:03d}.npy").exists():
        number += 1
    return path


COMMANDS: dict[str, Callable[..., int]] = {
    "demo": demo_command,
    "train": train_help,
    "sample": sample_command,
    "evaluate": evaluate_command,
    "compare": compare,
    "export": export_command,
    "recipes": recipes_command,
    "bench": bench,
    "grade": grade,
    "course": course,
}

if __name__ == "__main__":
    sys.exit(main())
