"""How many lines a reader meets who follows one training step: those of the functions that it really enters, by a trace.

    python -m docs.studies.lines_of_a_step

One step of consistency distillation in `train`, and one `sample` in two steps. The network is left out, since any other
would do, and so are the first step's checks, which are not made again.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import minicm as cm

PACKAGE = Path(cm.__file__).parent


def entered(action: Callable[[], Any]) -> list[CodeType]:
    """The functions of minicm, its networks left out, that an action enters."""
    found: dict[CodeType, None] = {}

    def look(frame: FrameType, event: str, arg: Any) -> None:
        path = Path(frame.f_code.co_filename)
        named = not frame.f_code.co_name.startswith("<")  # a comprehension stands inside its function
        if named and path.is_relative_to(PACKAGE) and not path.is_relative_to(PACKAGE / "nets"):
            found[frame.f_code] = None

    before = sys.gettrace()
    sys.settrace(look)
    try:
        action()
    finally:
        sys.settrace(before)
    return [*found]


def lines_of(function: CodeType) -> tuple[int, int]:
    """The source lines of a function, with its docstring and without."""
    source = textwrap.dedent(inspect.getsource(function))
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.FunctionDef)
    first, lines = tree.body[0], len(source.splitlines())
    said = ast.get_docstring(tree) is not None
    return lines, lines - (first.end_lineno - first.lineno + 1 if said and first.end_lineno else 0)


def actions() -> dict[str, Callable[[], Any]]:
    """What is traced."""
    f, teacher = cm.Denoiser(cm.MLP(2), t_min=0.002), cm.Denoiser(cm.MLP(2))
    objective = cm.CD(teacher, grid=cm.karras_grid(18))
    steps = cm.train(f, objective, cm.GaussianMixture.ring(), cm.TrainConfig(steps=3, batch=8, lr=1e-3))
    next(iter(steps))  # the first step also checks what it is given
    x_T = f.schedule.prior((8, 2))
    return {
        "a step of CD in train": lambda: next(iter(steps)),
        "sample in two steps": partial(cm.sample, f, x_T, [80.0, 0.8]),
    }


def main() -> None:
    """Print the table."""
    print("| action | functions | lines | without docstrings |\n|---|---:|---:|---:|")
    for name, action in actions().items():
        functions = entered(action)
        whole, bare = (sum(counts) for counts in zip(*map(lines_of, functions)))
        print(f"| {name} | {len(functions)} | {whole} | {bare} |")


if __name__ == "__main__":
    main()
