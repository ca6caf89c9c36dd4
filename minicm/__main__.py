"""The `minicm` command. It only parses, calls and prints; everything it does can be called from Python."""

import difflib
import functools
import importlib
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import tyro

COMMANDS = {  # name -> where its function is, which is loaded when it is called, and how its docstring begins
    "demo": ("minicm.demo:demo", "Train a teacher, distil it (CD) and train on data alone (CT)"),
    "train": ("minicm.__main__:train", "Train a recipe in its own run folder; minicm train --help lists the recipes"),
    "sample": ("minicm.runs.draw:draw", "Draw samples from a consistency model and save them as a .npy file"),
    "evaluate": ("minicm.evaluate.trained:evaluate", "Hold a trained model against the exact answer"),
    "compare": ("minicm.evaluate.compare:compare", "Train methods x data x seeds"),
    "export": ("minicm.checkpoint:export", "Write the evaluation average alone, to sample from or start from"),
    "recipes": ("minicm.recipes:listed", "List the recipes with what each is for"),
    "bench": ("minicm.bench:bench", "Measure training steps, sampling and the exact flow on this machine"),
    "grade": ("minicm.course.commands:grade", "Grade a submission of an assignment"),
    "course": ("minicm.course.commands:course", "Write the handouts (export), or what an autograder needs"),
}
ABOUT = "Consistency models, beside exact answers."
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for wrong input, 1 for a run that diverged, 130 after Ctrl-C."""
    try:
        code = dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        print(f"minicm: {complaint(error)}", file=sys.stderr)
        return 1 if diverged(error) else 2
    except KeyboardInterrupt:
        return 130


def complaint(error: Exception) -> str:
    """What an error says of the input, in one line; one that is no fault of the input is raised again."""
    if isinstance(error, OSError) and error.strerror:  # the system's own; ours have all in their one line
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}: choose another path, or free space"
    if "Overflow when unpacking" in str(error):  # torch's own, of a seed
        return "a seed must be in -2^63..2^63 - 1: choose a smaller number"
    if isinstance(error, (ValueError, OSError)) or diverged(error):
        return str(error)
    if isinstance(error, MemoryError) or re.search("out of memory|allocate memory|enough memory", str(error)):
        return "there is not enough memory: lower --batch or --n, or raise --accumulate"
    raise error


def diverged(error: Exception) -> bool:
    """Whether a run ended in numbers that are not finite."""
    from minicm.train import Diverged

    return isinstance(error, Diverged)


def dispatch(argv: list[str]) -> int:
    """Call the command, or the recipe to train, that the arguments name; --version tells those of minicm and torch."""
    if argv == ["--version"]:
        import torch

        from minicm import __version__

        print(f"minicm {__version__}, torch {torch.__version__}")
        return 0
    if argv[:1] == ["train"]:
        from minicm.recipes import RECIPES

        lines = {name: inspect.getdoc(recipe) or "" for name, recipe in RECIPES.items()}
        return call("recipe", lines, lambda name: training(name, RECIPES[name]), "minicm train", argv[1:])
    return call("command", {name: line for name, (_, line) in COMMANDS.items()}, loaded, "minicm", argv)


def call(kind: str, lines: dict[str, str], load: Callable[[str], Callable], prog: str, argv: list[str]) -> int:
    """Let tyro choose one of the subcommands and fill in its arguments, then call it; only that one is loaded.

    lines: what each is for, by its name. Raises ValueError for wrong input, tyro's own complaints included.
    """
    chosen = argv[0] if argv else ""
    if chosen not in lines and not chosen.startswith("-"):
        near = difflib.get_close_matches(chosen, lines, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(lines)}"
        raise ValueError(f"there is no {kind} {chosen!r}: {hint}" if argv else f"which {kind}? {hint}")
    parsers = {name: bound(load(name)) if name == chosen else named(line) for name, line in lines.items()}
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            command = tyro.extras.subcommand_cli_from_dict(
                parsers, prog=prog, description=ABOUT, args=argv, config=CONFIG
            )
    except SystemExit as stop:
        if stop.code:
            raise ValueError(one_line(said.getvalue())) from None
        return 0  # it was --help
    result = command()
    if isinstance(result, Path):  # what was written
        print(result)
    return result if isinstance(result, int) else 0


def one_line(said: str) -> str:
    """What stands in tyro's box, without its title, its frame and its name of the whole."""
    lines = (line.strip("│╰╯ ") for line in said.strip().splitlines()[1:])
    rule = set("─-")  # the second in terminals of ASCII
    text = " ".join(";" if set(line) <= rule else line for line in lines if line)
    return re.sub(r"Error parsing __tyro\S*: ", "", text.replace(" ;", ";").strip("; "))


def loaded(name: str) -> Callable:
    """The function of a command."""
    module, _, function = COMMANDS[name][0].partition(":")
    return getattr(importlib.import_module(module), function)


def bound(function: Callable) -> Callable:
    """A function of the same arguments that only keeps them: tyro calls what it parses, and its errors are to be ours."""

    @functools.wraps(function)
    def keep(*args: Any, **options: Any) -> Callable:
        return functools.partial(function, *args, **options)

    return keep


def named(line: str) -> Callable:
    """A command that is only to be listed, by one line."""

    def nothing() -> None: ...

    nothing.__doc__ = line.splitlines()[0]
    return nothing


def training(name: str, recipe: Callable) -> Callable[..., int]:
    """A recipe as a command: its own arguments, and where the run lives."""
    from minicm.parallel import processes, rank
    from minicm.runs.run import RunOptions, run

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


if __name__ == "__main__":
    sys.exit(main())
