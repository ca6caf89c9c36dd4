"""What an assignment is made of: checks of an implementation, grouped in tasks that carry points.

A check is a function (impl, seed) -> None. It calls the functions of `impl` and raises `Wrong` with one sentence: which
property failed, on which input, and what commonly causes it. The first check of a task is its gate (shape and dtype):
where it fails, the others of the task are not run, since they could only repeat it.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minicm.schedules import EDM, expand

Impl = Any  # an object whose attributes are the functions that an assignment asks for
Check = Callable[[Impl, int], None]
Causes = dict[str, Tensor | Sequence]  # what each misconception would have given, by the half sentence that names it


class Wrong(AssertionError):
    """A property that an implementation does not have, told in one sentence."""


class Failed(Exception):
    """A function of an implementation gave no answer: it raised, did not return, or ended its process."""


class Raised(Failed):
    """A function in a process of its own raised an exception; kind is the name of its type."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Task:
    """Checks that belong together, the gate first, each worth the points beside it."""

    name: str
    checks: tuple[tuple[int, Check], ...]  # (points, check)
    hints: tuple[str, ...]  # from a nudge to almost the answer; never the answer
    real_thing: bool = False  # runs everything together: only where all gates before it are open

    @property
    def points(self) -> int:
        """What the whole task is worth."""
        return sum(points for points, _ in self.checks)


@dataclass(frozen=True)
class Assignment:
    """An assignment: the functions it asks for, and the tasks that check them."""

    name: str  # a1 ...
    title: str
    functions: tuple[str, ...]  # what a submission must offer
    tasks: tuple[Task, ...]
    forbidden: tuple[str, ...]  # modules of minicm that hold the answer: not to be imported by a submission
    withheld: tuple[str, ...] = ()  # methods of a clock that hold it: a submission gets clocks without them
    beside: tuple[Path, ...] = ()  # files that a grader's bundle puts beside checks.py
    note: str = ""  # told with every report
    folder: Path | None = None  # where it was loaded from: see load.py

    @property
    def points(self) -> int:
        """What the whole assignment is worth."""
        return sum(task.points for task in self.tasks)


@dataclass(frozen=True)
class Candidate:
    """An implementation that a submission's tests are tried on, where tests are what is handed in."""

    function: Callable
    note: str  # a right one: its style; a wrong one: in which kind of input it shows, and no more


@dataclass(frozen=True)
class Result:
    """The outcome of one check."""

    task: str
    check: str  # the check's first line of documentation
    points: int
    passed: bool
    message: str  # empty where it passed
    seconds: float

    @property
    def score(self) -> int:
        """The points earned."""
        return self.points if self.passed else 0


def run(assignment: Assignment, impl: Impl, seed: int = 0) -> Iterator[Result]:
    """Every check of an assignment on an implementation, one `Result` each; nothing that impl does is raised."""
    shut = False  # whether a gate of any task has failed
    for task in assignment.tasks:
        stop = "not run: mend the first check of every task" if task.real_thing and shut else ""
        for i, (points, check) in enumerate(task.checks):
            start = time.monotonic()
            message = stop or outcome(check, impl, seed)
            seconds = time.monotonic() - start
            if i == 0 and message and not stop:
                shut, stop = True, "not run: mend the first check of this task"
            yield Result(task.name, title(check), points, not message, message, seconds)


def outcome(check: Check, impl: Impl, seed: int = 0) -> str:
    """What a check says about an implementation, one sentence, or nothing where it passes; torch's own generator is seeded."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed asks every kind of device
            check(impl, seed)
    except (Wrong, Failed) as error:
        return str(error)
    except Exception as error:  # an implementation in this process may raise anything
        return raised(error)
    return ""


def raised(error: BaseException) -> str:
    """One sentence about an exception: what, and the last line of the submission that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).name in ("student.py", "adapters.py")] or frames
    where = f"{own[-1].name} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else "the submission"
    if isinstance(error, NotImplementedError):
        return f"{where} is not written yet"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"{where} asked for more memory than the grader allows"
    text = (str(error).splitlines() or [""])[0][:300]
    return f"{where} raised {type(error).__name__}: {text}"


def title(check: Check) -> str:
    """The first line of a check's documentation, without the full stop."""
    return (check.__doc__ or check.__name__).splitlines()[0].rstrip(".")


# ------------------------------------------------------------------------------- what checks are made of
EXACT = 1e-12  # float64 formulas written in another order differ by some 1e-15
SHAPES = ((3, 2), (4, 3, 4, 4))  # of batches; the second is as long as its images are wide
ROUNDED = "only the last digits are wrong: a step of it is rounded, perhaps to float32"


def is_tensor(value: Any, shape: Sequence[int], dtype: torch.dtype | None, call: str) -> Tensor:
    """Raises Wrong unless value is a tensor of this shape and, where one is given, dtype, and holds no NaN."""
    if not isinstance(value, Tensor):
        raise Wrong(f"{call} must return a torch.Tensor, got {type_name(value)}")
    if tuple(value.shape) != tuple(shape):
        raise Wrong(f"{call} must have shape {tuple(shape)}, got {tuple(value.shape)}{_shape_cause(value, shape)}")
    if dtype is not None and value.dtype != dtype:
        raise Wrong(f"{call} must be {dtype}, got {value.dtype}")
    if not value.isfinite().all():
        raise Wrong(f"{call} holds NaN or infinity at index {_first(~value.isfinite())}")
    return value


def same(
    got: Tensor,
    want: Tensor | Sequence,
    what: str,
    *,
    rtol: float,
    atol: float = 0.0,
    causes: Mapping[str, Tensor | Sequence] | None = None,
    otherwise: str = "",
) -> None:
    """Raises Wrong, which begins with `what`, unless got is want within the tolerance.

    causes: what a known misconception would have given, by the half sentence that names it; the one that fits, and
    better than `want` does, is named, else `otherwise`. All compare in float64.
    """
    got, want = got.detach().double(), torch.as_tensor(want, dtype=torch.float64)
    if close(got, want, rtol, atol):
        return
    off = (got - want).abs() - (atol + rtol * want.abs())
    i = _first(off == off.max())
    fits = [cause for cause, other in (causes or {}).items() if _fits(got, other, want, max(rtol, 1e-6), atol)]
    rounded = ROUNDED if close(got, want, 1e-6, atol) else ""
    because = fits[0] if fits else rounded or otherwise
    numbers = f"at index {i} it is {got[i].item():.9g}, not {want[i].item():.9g}"
    raise Wrong(f"{what}: {numbers}" + (f"; {because}" if because else ""))


def close(got: Tensor, want: Tensor, rtol: float, atol: float = 0.0) -> bool:
    """Whether two float64 tensors of one shape agree everywhere within atol + rtol |want|."""
    return got.shape == want.shape and bool(((got - want).abs() <= atol + rtol * want.abs()).all())


def f64(values: Sequence) -> Tensor:
    """Numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def untouched(before: Tensor, after: Tensor, call: str) -> None:
    """Raises Wrong where a function has changed a tensor that it was given."""
    if not torch.equal(before, after):
        raise Wrong(f"{call} changes its input in place, so whoever called it loses it; work on a new tensor")


def plain(value: Any) -> Any:
    """A number for a tensor that holds one without an axis, all else as it is."""
    return value.item() if isinstance(value, Tensor) and value.ndim == 0 else value


def alike_within(out: Tensor, call: str, what: str = "noise levels") -> None:
    """Raises Wrong where one sample of a result holds several numbers, although all that went into it were equal."""
    if not (out.flatten(1) == out.flatten(1)[:, :1]).all():
        raise Wrong(f"{call} uses several {what} within one sample: a (B,) has broadcast along the last axis")


def keeps_shape(name: str, given: Callable[[Tensor, Tensor], tuple], what: str = "noise levels") -> Check:
    """The gate of a function of a batch: shape and dtype, the sample's own of `what`, and nothing written into its arguments.

    given: float32 ones (B, *D) and float64 times 1, ..., B -> the arguments, equal within each sample.
    """

    def check(impl: Impl, seed: int) -> None:
        for shape in SHAPES:
            args = given(torch.ones(shape), torch.arange(1.0, shape[0] + 1).double())
            kept = [(a, a.clone()) for a in args if isinstance(a, Tensor)]
            call = f"{name} of x {shape} float32, B = {shape[0]}"
            alike_within(is_tensor(getattr(impl, name)(*args), shape, torch.float32, call), call, what)
            for after, before in kept:
                untouched(before, after, name)

    check.__doc__ = f"{name} keeps shape and dtype, also where the batch is as long as the image is wide"
    return check


def keep_times(impl: Impl, names: Sequence[str], times: Sequence[float]) -> None:
    """Raises Wrong unless the named functions map t (B,) to (B,) in t's dtype and leave t as it is."""
    for dtype in (torch.float32, torch.float64):
        t = torch.tensor(times, dtype=dtype)
        for name in names:
            kept = t.clone()
            is_tensor(getattr(impl, name)(t), t.shape, dtype, f"{name} of a {dtype} t")
            untouched(kept, t, name)


def asks_net_once(impl: Impl, name: str) -> None:
    """Raises Wrong unless a function of (net, x, t) keeps shape and dtype and asks net once, with (B, *D) and (B,)."""
    for shape in SHAPES:
        calls: list[tuple] = []

        def net(x: Tensor, noise: Tensor, calls: list = calls) -> Tensor:
            calls.append((tuple(x.shape), tuple(noise.shape)))
            return torch.zeros_like(x)

        x, call = torch.ones(shape), f"{name} of x {shape}"
        out = is_tensor(getattr(impl, name)(net, x, torch.arange(1.0, shape[0] + 1)), shape, torch.float32, call)
        if calls != [(shape, shape[:1])]:
            raise Wrong(f"{call} must evaluate net once, with {shape} and {shape[:1]}; it did with {calls}")
        alike_within(out, call)
        untouched(torch.ones(shape), x, name)


class Linear(nn.Module):
    """a x + b ln t, a stand-in for a model in the EDM clock whose gradient is known; it remembers what it was asked."""

    schedule = EDM()

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b, self.seen = nn.Parameter(f64([a])), b, []  # type: ignore[var-annotated]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The answer at x (B, *D), t (B,)."""
        self.seen.append((x.detach().clone(), t.detach().clone()))
        return self.a.to(x.dtype) * x + expand(self.b * t.log(), x)


class StudentModel(nn.Module):
    """A network inside a student's function of (net, x, t), called like a `Denoiser` in the EDM clock."""

    schedule, sigma_data = EDM(), 0.5

    def __init__(self, function: Callable, net: nn.Module, t_min: float = 0.002) -> None:
        super().__init__()
        self.function, self.net, self.t_min = function, net, t_min

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The function's answer at x (B, *D), t (B,); it is told no label."""
        return self.function(self.net, x, t.to(x.dtype))


def pairs(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0 and eps (4, 2), and times t and s below t, both (4,), in the EDM clock: what a consistency loss is asked on."""
    generator = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return x0, eps, f64([0.1, 1.0, 5.0, 80.0]), f64([0.05, 0.4, 3.0, 60.0])


def draws_anew(draw: Callable[[torch.Generator], Tensor], name: str, seed: int) -> None:
    """Raises Wrong unless a draw repeats with its generator's seed, and is another one when the generator has moved on."""
    generator, fresh = (torch.Generator().manual_seed(seed) for _ in range(2))
    first = draw(generator)
    if not torch.equal(first, draw(fresh)):
        raise Wrong(f"{name} gives another draw from a generator of the same seed: is the generator passed on?")
    if torch.equal(first, draw(generator)):
        raise Wrong(f"{name} draws the same again from a generator that has moved on: every step would train the same")


def can_learn(loss: Tensor, name: str) -> None:
    """Takes the gradient of a loss. Raises Wrong where it has none."""
    if not loss.requires_grad:
        raise Wrong(f"{name} has no gradient: the model's own prediction must not stand under no_grad or be detached")
    loss.sum().backward()


def held_fixed(name: str, weight: Tensor) -> None:
    """Raises Wrong where a gradient has reached the weight of a model that only makes a target."""
    if weight.grad is not None and weight.grad.any():
        raise Wrong(f"a gradient reaches {name}: the target is held fixed (the papers' stopgrad): detach it")


def reaches(error: float, bound: float, what: str) -> None:
    """Raises Wrong unless a model's median error is below a bound; both in sigma_data."""
    if not error < bound:
        far = f"{error:.2f} sigma_d from the exact flow (median), not below {bound}"
        raise Wrong(f"{what} ends {far}: the parts do not work together, though each may look right")


def two(value: Any, call: str) -> tuple:
    """The value as a pair. Raises Wrong where it is none."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise Wrong(f"{call} must return two tensors, got {type_name(value)}")
    return tuple(value)


def type_name(value: Any) -> str:
    """How a value's type is told to a student."""
    return getattr(value, "type_name", type(value).__name__)


def _fits(got: Tensor, other: Tensor | Sequence, want: Tensor, rtol: float, atol: float) -> bool:
    other = torch.as_tensor(other, dtype=torch.float64)
    return close(got, other, rtol, atol) and bool((got - other).abs().max() < (got - want).abs().max())


def _first(mask: Tensor) -> Any:
    index = tuple(mask.nonzero()[0].tolist())
    return index[0] if len(index) == 1 else index


def _shape_cause(value: Tensor, shape: Sequence[int]) -> str:
    if value.ndim == len(shape) + 1 and len(shape) == 1:
        return "; a (B,) beside a (B, 1) broadcasts to an outer product"
    if value.ndim == 0 and len(shape) == 1:
        return "; one number a sample is asked for, not their mean or sum"
    return ""
