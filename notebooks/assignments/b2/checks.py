"""Bonus assignment 2: be the grader. The student writes tests; they are tried on right and on wrong implementations.

What a test is given is a function of this process, which the submission calls over the pipe: it does not see the source. A small
practice set stands below. What is graded on is planted.py and mutation.py: beside this file in an autograder, in tests/course of
minicm's repository; where neither is at hand the practice set takes their place, and the report says so.
"""

import inspect
import math
import random
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minicm import distances, solvers
from minicm.course import specs
from minicm.course.kit import Assignment, Candidate, Check, Failed, Impl, Raised, Task, Wrong, f64, raised, type_name
from minicm.course.load import module_at
from minicm.schedules import EDM, VP, Schedule, TrigFlow, expand

SEEDS = 20  # on which no right implementation may be rejected
SHARE = 0.8  # of the machine's changes that are to be rejected
NUMBERS = 4096  # in a tensor that an implementation takes
TOGETHER = 2**20  # what the tensors of one call may come to where they are broadcast together
LARGEST = 10_000  # whole number that an implementation takes
KINDS = {"Tensor": Tensor, "Callable": Callable, "Schedule": (EDM, VP, TrigFlow), "int": int, "float": (int, float)}


# ---------------------------------------------------------------------------------------- the practice set
def grid(n: int, t_min: float = 0.002, t_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """The specification, one time at a time."""
    return f64(specs.grid(n, t_min, t_max, rho))


def grid_in_t(n, t_min=0.002, t_max=80.0, rho=7.0):
    """Equal steps in t itself."""
    return torch.linspace(t_min, t_max, n, dtype=torch.float64)


def consistency_with(c_out: Callable) -> Callable:
    """c_skip x + c_out net(c_in x, ln(t)/4) with c_out a function of t - t_min, the root of t^2 + sigma_data^2, and sigma_data."""

    def consistency(net: Callable, x: Tensor, t: Tensor, sigma_data: float = 0.5, t_min: float = 0.002) -> Tensor:
        gap, v = t - torch.full_like(t, t_min), (t**2 + sigma_data**2).sqrt()
        F = net(x / expand(v, x), t.log() / 4)
        return expand(1 / (1 + (gap / sigma_data) ** 2), x) * x + expand(c_out(gap, v, sigma_data), x) * F

    return consistency


def heun_step(denoise: Callable, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The package's."""
    return solvers.heun_step(denoise, schedule, x, t, s)


def pseudo_huber(a: Tensor, b: Tensor, c: float) -> Tensor:
    """The package's."""
    return distances.pseudo_huber(c)(a, b)


def ct_loss_with(*, gradient: bool = False, weight: Callable = lambda gap: 1 / gap) -> Callable:
    """CM, Algorithm 3, the weight a function of t - s, the target held fixed where gradient is False."""

    def ct_loss(
        f: Callable, f_target: Callable, x0: Tensor, eps: Tensor, t: Tensor, s: Tensor, distance: Callable
    ) -> Tensor:
        with torch.set_grad_enabled(gradient):
            y_target = f_target(x0 + expand(s, x0) * eps, s)
        return distance(f(x0 + expand(t, x0) * eps, t), y_target) * weight(t - s).to(x0.dtype)

    return ct_loss


PRACTICE_RIGHT = {
    "karras_grid": (Candidate(grid, "one in plain Python"),),
    "consistency": (Candidate(consistency_with(lambda gap, v, sd: sd * gap / v), "the plain one"),),
    "heun_step": (Candidate(heun_step, "the package's"),),
    "pseudo_huber": (Candidate(pseudo_huber, "the package's"),),
    "ct_loss": (Candidate(ct_loss_with(), "the plain one"),),
}
PRACTICE_WRONG = {
    "karras_grid": (
        Candidate(grid_in_t, "how are its times spaced?"),
        Candidate(lambda n, t_min=0.002, t_max=80.0, rho=7.0: grid(n, t_min, t_max), "it is right with rho = 7")
    ),
    "consistency": (
        Candidate(consistency_with(lambda gap, v, sd: sd * sd * gap / v), "it shows wherever the net's output counts; its samples look fine"),
        Candidate(consistency_with(lambda gap, v, sd: 0.5 * gap / v), "it is right with the default sigma_data")
    ),
    "heun_step": (
        Candidate(solvers.euler_step, "it shows in any step that is not tiny"),
        Candidate(lambda denoise, schedule, x, t, s: heun_step(denoise, EDM(), x, t, s), "it is right in the EDM clock")
    ),
    "pseudo_huber": (
        Candidate(lambda a, b, c: distances.l2(a, b), "what becomes of c?"),
        Candidate(lambda a, b, c: pseudo_huber(a, b.detach(), c), "its values are right, and its slope in one of two directions")
    ),
    "ct_loss": (
        Candidate(ct_loss_with(weight=torch.ones_like), "it is right where t - s is 1"),
        Candidate(ct_loss_with(gradient=True), "its values are right: what else does training take from a loss?")
    )
}  # fmt: skip

# ----------------------------------------------------------------------------------------- the graded set
HERE = Path(__file__).resolve().parent
PLACES = (HERE, HERE.parent.parent.parent / "tests" / "course")
GRADED = next(((p / "planted.py", p / "mutation.py") for p in PLACES if (p / "planted.py").is_file()), ())
planted, mutation = map(module_at, GRADED) if GRADED else (None, None)
RIGHT = planted.RIGHT if planted else PRACTICE_RIGHT
WRONG = planted.WRONG if planted else PRACTICE_WRONG
NOTE = (
    ""
    if GRADED
    else "this is the practice set; what counts is a larger one, with more of each and a machine's mistakes"
)


# ------------------------------------------------------------------------------- what a test is handed
def handed_out(name: str, function: Callable) -> Callable:
    """A function to be tested, behind a new wrapper that looks the same whatever is in it, and takes what the contract says.

    The wrapper raises TypeError for arguments of another kind and ValueError for too many numbers: what a submission sends
    must not eat the memory of the process that grades it. Once `call.over` is set it refuses: a right one that was kept would tell
    what the next one should have answered.
    """
    contract = inspect.signature(RIGHT[name][0].function)

    def call(*args: Any, **kwargs: Any) -> Any:
        if call.over:  # type: ignore[attr-defined]
            raise ValueError(f"this {name} was handed to a test that has ended")
        given = contract.bind(*args, **kwargs)
        for argument, value in given.arguments.items():
            kind = kind_of(contract.parameters[argument])
            if not isinstance(value, KINDS[kind]):  # type: ignore[arg-type]
                raise TypeError(f"{name}: {argument} must be of the kind {kind}, got {type_name(value)}")
            if isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError(f"{name}: {argument} must be at most {LARGEST:,} here, got {value}")
        tensors = [value for value in given.arguments.values() if isinstance(value, Tensor)]
        fits(tensors, name)
        for argument, value in given.arguments.items():
            if kind_of(contract.parameters[argument]) == "Callable":
                given.arguments[argument] = answering(value, f"{argument} of {name}", tensors)
        return function(*given.args, **given.kwargs)

    call.__name__, call.over = name, False  # type: ignore[attr-defined]
    return call


def answering(function: Callable, name: str, tensors: list[Tensor]) -> Callable:
    """A student's function, whose answer must be a tensor that goes with those of the call."""

    def call(*args: Any) -> Tensor:
        value = function(*args)
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must return a torch.Tensor, got {type_name(value)}")
        fits([*tensors, value], name)
        return value

    return call


def fits(tensors: list[Tensor], name: str) -> None:
    """Raises ValueError where tensors are too large, alone or broadcast together."""
    for tensor in tensors:
        if tensor.numel() > NUMBERS:
            raise ValueError(f"{name} takes tensors of at most {NUMBERS:,} numbers here, got {tuple(tensor.shape)}")
    shapes = [tuple(tensor.shape) for tensor in tensors]
    sizes = zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1)
    if math.prod(max(axis) for axis in sizes) > TOGETHER:
        raise ValueError(f"{name}: {shapes} broadcast to more than {TOGETHER:,} numbers; take a smaller batch")


# ------------------------------------------------------------------------------------------ the verdict
def kind_of(parameter: inspect.Parameter) -> str:
    """The name of a parameter's type, whether its module keeps annotations as text or not."""
    return getattr(parameter.annotation, "__name__", str(parameter.annotation))


def rejection(impl: Impl, name: str, function: Callable, seed: int) -> str:
    """Why the student's test rejects an implementation; empty where it accepts it.

    Whatever the test raises is a rejection. NotImplementedError and `Failed` (the process has ended, or did not answer) are
    passed on: those are no verdict. Raises Wrong for a test that returns its verdict.
    """
    candidate = handed_out(name, function)
    try:
        value = getattr(impl, f"check_{name}")(candidate, seed)
    except NotImplementedError:
        raise
    except Raised as error:
        if error.kind == "NotImplementedError":
            raise
        return str(error)
    except Failed:
        raise
    except Exception as error:
        return raised(error)
    finally:
        candidate.over = True  # type: ignore[attr-defined]
    if value is not None:
        raise Wrong(
            f"check_{name} returns {value if isinstance(value, bool) else type_name(value)}: a test asserts, it does not return"
        )
    return ""


def accepts(name: str) -> Check:
    """The gate of a function: its test lets every right implementation pass."""

    def check(impl: Impl, seed: int) -> None:
        for right in RIGHT[name]:
            for i in range(SEEDS * seed, SEEDS * (seed + 1)):
                if said := rejection(impl, name, right.function, i).rstrip(": "):
                    cause = TOO_STRICT if "AssertionError" in said else "is the input one that the contract allows?"
                    raise Wrong(f"a right {name} is rejected ({right.note}, seed {i}): {said}; {cause}")

    check.__doc__ = f"check_{name} accepts {len(RIGHT[name])} right one(s), on {SEEDS} seeds"
    return check


TOO_STRICT = (
    "is a tolerance below the rounding, are floats compared by ==, has a statistical bound no margin, or is more asked for "
    "than is promised?"
)


def rejects(name: str, i: int) -> Check:
    """One planted mistake, between right implementations, in an order that is drawn: a test that counts calls is no test."""
    wrong = WRONG[name][i]

    def check(impl: Impl, seed: int) -> None:
        draw = random.Random(f"{name} {i} {seed}")
        for candidate in shuffled([wrong, wrong, *draw.choices(RIGHT[name], k=2)], draw):
            said = rejection(impl, name, candidate.function, seed).rstrip(": ")
            if candidate is wrong and not said:
                raise Wrong(f"check_{name} lets it pass; {wrong.note}")
            if candidate is not wrong and said:
                raise Wrong(KEEPS.format(name=name, said=said))

    check.__doc__ = f"planted {name} {i + 1} is rejected"
    return check


KEEPS = "check_{name} rejects a right one that it has accepted before: it keeps something from call to call ({said})"


def shuffled(items: list, draw: random.Random) -> list:
    """The items in a drawn order."""
    return draw.sample(items, len(items))


# -------------------------------------------------------------------------------- mistakes by machine
SWAPS = {
    "t": "s", "s": "t", "x": "x_s", "x_s": "x", "x_t": "x_s", "low": "high", "high": "low", "t_min": "t_max", "rho": "n",
    "a": "b", "b": "a", "f": "f_target", "f_target": "f", "eps": "x0", "gap": "t", "c_in": "c_skip", "c_skip": "c_out",
    "c_out": "c_skip", "alpha_s": "alpha_t", "alpha_t": "alpha_s", "sigma_s": "sigma_t", "sigma_t": "sigma_s",
    "slope_s": "slope_t", "slope_t": "slope_s"
}  # fmt: skip
WORDS = {  # how a kind of change is told to a student; any other is a name's
    "operator": "an operator", "operands exchanged": "two operands", "number + 1": "a number", "number halved": "a number",
    "sign": "a sign", "arguments exchanged": "the order of arguments", "call dropped": "a call",
}  # fmt: skip

EQUIVALENT = {  # changes that compute the same
    "heun_step: 0 (number halved): 0.0": "the same number",
    "pseudo_huber: a - b (operands exchanged): b - a": "squared",
}


def machine_made(name: str) -> Iterator[Any]:
    """Every change of the plain implementation of a function but those that change nothing; its helper stays as it is."""
    source = "from __future__ import annotations\n" + inspect.getsource(RIGHT[name][0].function)
    for change in mutation.changes(source, SWAPS, vars(planted)):
        if f"{name}: {change}" not in EQUIVALENT:
            yield change


def rejects_changes(impl: Impl, seed: int) -> None:
    """of the changes that a machine makes to the plain implementations, your tests reject 80 %, and no right one among them"""
    count, passed = 0, []
    for name in RIGHT:
        draw, found = random.Random(f"{name} {seed}"), list(machine_made(name))
        changed = {Candidate(change.space[name], ""): change for change in found}
        for candidate in shuffled([*changed, *draw.choices(RIGHT[name], k=5)], draw):
            said = rejection(impl, name, candidate.function, seed)
            if candidate in changed and not said:
                kind = changed[candidate].kind
                passed.append(f"{WORDS.get(kind, 'a name')} changed in {name}")
            if candidate not in changed and said:
                raise Wrong(KEEPS.format(name=name, said=said))
        count += len(found)
    share = 1 - len(passed) / count
    if share < SHARE:
        raise Wrong(
            f"your tests reject {count - len(passed)} of {count} changed implementations ({share:.0%}; {SHARE:.0%} are asked for); "
            f"among those that pass: {'; '.join(dict.fromkeys(passed[:5]))}"
        )


HINTS = {
    "karras_grid": (
        "Write down every promise of the docstring, and an assertion for each. For which arguments does each hold?",
        "Equal steps in t^(1/rho) need no second implementation: one diff tells. A loop over n costs nothing.",
    ),
    "consistency": (
        "A net of your own that records what it is given shows half of the function. What shows the other half?",
        "A formula for one sample, in Python's floats, is a specification. Vary sigma_data and t_min, dtypes, and the number of axes; at t_min demand equality.",
    ),
    "heun_step": (
        "Which denoisers make the right step and Euler's equal? Yours must not be one of them.",
        "y = x/alpha over lambda = sigma/alpha: two lines of plain Python for one sample, in three clocks, both directions, and once to a clean s.",
    ),
    "pseudo_huber": (
        "One number a sample: build a sample of many numbers, and an image. What do you know in closed form?",
        "The gradient is r/sqrt(|r|^2 + c^2) with respect to a and its negative with respect to b; at r = 0 it is 0.",
    ),
    "ct_loss": (
        "Give it models that record what they see, and a distance that is not symmetric.",
        "Let f and f_target each have one weight of its own that requires a gradient. What must arrive at which?",
    ),
}


def task(number: int, name: str) -> Task:
    """The task of one function. The gate carries no points: a test that asserts nothing passes it."""
    planted_checks = tuple((1, rejects(name, i)) for i in range(len(WRONG[name])))
    return Task(f"{number} {name}", ((0, accepts(name)), *planted_checks), hints=HINTS[name])


REAL_THING = Task("6 the real thing", ((3, rejects_changes),), real_thing=True, hints=(
    "Which line of each function has no assertion that looks at it? Change it yourself, and watch.",
))  # fmt: skip

ASSIGNMENT = Assignment(
    name="b2",
    title="Be the grader",
    functions=tuple(f"check_{name}" for name in RIGHT),
    forbidden=("minicm.times", "minicm.solvers", "minicm.denoiser", "minicm.distances", "minicm.objectives"),
    withheld=("step", "eps_hat", "velocity"),
    beside=GRADED,
    note=NOTE,
    tasks=(*(task(i, name) for i, name in enumerate(RIGHT, 1)), *([REAL_THING] if GRADED else [])),
)
