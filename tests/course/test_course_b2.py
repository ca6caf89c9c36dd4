"""Be the grader, graded: planted mistakes are mistakes, what is called right is right, and a test that cheats gains nothing."""

import dataclasses
import inspect
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from exact import refused
from mutation import changes
from test_course import complaints
from variants import ASSIGNMENTS, ROOT, checks
from variants import solution as solution_of

from minicm import EDM, Denoiser, heun_step, karras_grid, pseudo_huber
from minicm.course import specs
from minicm.course.grade import grade
from minicm.course.kit import Failed, Raised, Wrong, outcome
from minicm.course.load import module_at

b2, B2, solution = checks("b2"), ASSIGNMENTS["b2"], solution_of("b2")
mutants = module_at(ROOT / "tests" / "course" / "mutants" / "b2.py")
planted, RIGHT, WRONG, SEEDS = b2.planted, b2.RIGHT, b2.WRONG, b2.SEEDS
handed_out, rejection, machine_made, rejects_changes = b2.handed_out, b2.rejection, b2.machine_made, b2.rejects_changes
PLANTED = [(name, i) for name in WRONG for i in range(len(WRONG[name]))]


def consistency(net, x, t, sigma_data=0.5, t_min=0.002):
    """The package's, for a net that is a function."""

    class Net(torch.nn.Module):
        def forward(self, x, c_noise, label=None, w=None, u=None):
            return net(x, c_noise)

    return Denoiser(Net(), EDM(), sigma_data, t_min)(x, t)


PACKAGE = {
    "karras_grid": karras_grid,
    "consistency": consistency,
    "heun_step": heun_step,
    "pseudo_huber": lambda a, b, c: pseudo_huber(c)(a, b),
}


# ------------------------------------------------------------------------------------------- what is planted
@pytest.mark.parametrize("name, i", PLANTED)
def test_a_planted_mistake_is_one(name, i):
    """A test of the contract alone rejects it, and for what it computes: no planted one fails by an exception of its own."""
    said = rejection(solution, name, WRONG[name][i].function, seed=0)
    assert "AssertionError" in said, said
    assert WRONG[name][i].note and not WRONG[name][i].note.endswith(".")


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_called_right_is_right_on_other_seeds(name):
    """40 seeds that grading with seed 0 does not use. The assertions are exact or have a factor of 100 to the rounding."""
    for right in RIGHT[name]:
        for seed in range(SEEDS, SEEDS + 40):
            assert rejection(solution, name, right.function, seed) == "", (right.note, seed)


@pytest.mark.parametrize("name", PACKAGE)
def test_the_package_passes_the_tests(name):
    """The contract that students test is one that the package keeps, too."""
    assert rejection(solution, name, PACKAGE[name], seed=0) == ""


@pytest.mark.parametrize(
    "n, t_min, t_max, rho", [(2, 1e-4, 1e3, 1.0), (9, 1e-4, 1e3, 20.0), (10_000, 0.002, 80.0, 7.0)]
)
def test_right_grids_keep_the_promised_error_at_the_corners_of_the_contract(n, t_min, t_max, rho):
    """The promise is 1e-12; float64 leaves some 1e-14 of rho = 20."""
    wanted = torch.tensor(specs.grid(n, t_min, t_max, rho), dtype=torch.float64)
    for right in RIGHT["karras_grid"]:
        grid = right.function(n, t_min, t_max, rho)
        assert (grid / wanted - 1).abs().max() < 1e-12 and (grid[0], grid[-1]) == (t_min, t_max), right.note


@pytest.mark.parametrize("sigma_data", [0.05, 0.65, 1.75, 5.0])
@pytest.mark.parametrize("t_min", [1e-4, 0.002, 0.1])
def test_right_consistency_functions_agree_at_the_corners_of_the_contract(sigma_data, t_min):
    """Float32 and float64 in the three allowed mixtures: x at t_min exactly, one another within 100 roundings elsewhere."""
    generator = torch.Generator().manual_seed(0)
    for dtype, of_t in itertools.product((torch.float32, torch.float64), repeat=2):
        if (dtype, of_t) == (torch.float64, torch.float32):
            continue
        x = 10 * torch.randn(4, 3, generator=generator, dtype=dtype)
        t = torch.tensor([t_min, 2 * t_min, 1.0, 80.0], dtype=of_t)
        values = [r.function(lambda x, _: 9 * x.sin(), x, t, sigma_data, t_min) for r in RIGHT["consistency"]]
        for value in values:
            assert torch.equal(value[0], x[0])
            assert (value - values[0]).abs().max() <= 100 * torch.finfo(dtype).eps * values[0].abs().max()


@pytest.mark.parametrize("c", [1e-3, 100.0])
def test_right_distances_have_a_gradient_at_the_corners_of_the_contract(c):
    for right, dtype in itertools.product(RIGHT["pseudo_huber"], (torch.float32, torch.float64)):
        a = torch.ones(2, 3, dtype=dtype, requires_grad=True)
        right.function(a, torch.ones(2, 3, dtype=dtype), c).sum().backward()
        assert (a.grad == 0).all(), (right.note, dtype)


def test_no_two_planted_mistakes_are_the_same_and_none_is_told_by_its_wrapper():
    notes = [candidate.note for name in WRONG for candidate in WRONG[name]]
    assert len(notes) == 30 and len(set(notes)) >= 29  # both losses of a width have one note
    for name in RIGHT:
        wrappers = [handed_out(name, c.function) for c in (*RIGHT[name], *WRONG[name], RIGHT[name][0])]
        assert len({id(w) for w in wrappers}) == len(wrappers)
        assert {w.__name__ for w in wrappers} == {name}
        for candidate in (*RIGHT[name], *WRONG[name]):
            assert list(inspect.signature(candidate.function).parameters) == list(
                inspect.signature(RIGHT[name][0].function).parameters
            )


# ------------------------------------------------------------------------------------------- what is refused
def test_the_wrapper_refuses_what_would_eat_memory():
    """Tensors alone, tensors broadcast together, whole numbers, and what a student's own functions answer."""
    huber, grid = handed_out("pseudo_huber", pseudo_huber), handed_out("karras_grid", karras_grid)
    loss = handed_out("ct_loss", RIGHT["ct_loss"][0].function)
    refused("4,096", lambda: huber(torch.zeros(2, b2.NUMBERS), torch.zeros(2, b2.NUMBERS), 1.0))
    refused("broadcast to more than", lambda: huber(torch.zeros(b2.NUMBERS, 1), torch.zeros(1, b2.NUMBERS), 1.0))
    refused("10,000", lambda: grid(b2.LARGEST + 1))
    x, t, wide = torch.zeros(3, 2), torch.ones(3), torch.zeros(3, 2, 1).expand(3, 2, 600)
    for answer, words in ((torch.zeros(3, b2.NUMBERS), "4,096"), (torch.zeros(b2.NUMBERS, 1, 1), "broadcast")):
        with pytest.raises(ValueError, match=words):
            loss(lambda x, t, answer=answer: answer, lambda x, t: x, wide, x[:, :1, None], t, t / 2, torch.dist)
    with pytest.raises(TypeError, match="must return a torch"):
        loss(lambda x, t: x, lambda x, t: None, x, x, t, t / 2, lambda a, b: (a - b).sum(1))


@pytest.mark.parametrize(
    "call", [((5.0,), {}), ((torch.ones(3),), {}), ((), {}), ((5,), {"rho": torch.ones(9)}), ((5,), {"N": 1})]
)
def test_the_wrapper_refuses_what_the_contract_does_not_know(call):
    with pytest.raises(TypeError):
        handed_out("karras_grid", karras_grid)(*call[0], **call[1])


# ----------------------------------------------------------------------------------------------- verdicts
def with_test(name, test):
    """The solution with one test exchanged."""
    return SimpleNamespace(**{f: getattr(solution, f) for f in B2.functions} | {f"check_{name}": test})


def raising(error):
    def test(candidate, seed):
        raise error

    return test


def test_what_counts_as_a_rejection():
    """Any exception but those that are no verdict; a returned verdict is refused; a submission's exception counts over the pipe, too."""
    grid = RIGHT["karras_grid"][0].function
    for error in (AssertionError("no"), TypeError("no"), Raised("AssertionError", "no"), Raised("KeyError", "no")):
        assert "no" in rejection(with_test("karras_grid", raising(error)), "karras_grid", grid, 0)
    for error in (NotImplementedError(), Raised("NotImplementedError", "not written"), Failed("did not return")):
        with pytest.raises(type(error)):
            rejection(with_test("karras_grid", raising(error)), "karras_grid", grid, 0)
    for value in (True, False, "right", torch.ones(1)):
        with pytest.raises(Wrong, match="does not return"):
            rejection(with_test("karras_grid", lambda *_, value=value: value), "karras_grid", grid, 0)


def points(impl, name):
    """The points of the planted mistakes of one function, its gate apart."""
    (task,) = [t for t in B2.tasks if t.name.endswith(name)]
    return sum(worth for worth, check in task.checks[1:] if not outcome(check, impl))


@pytest.mark.parametrize("verdicts", [(True,), (False,), (True, False), (False, True), (True, True, False, False)])
def test_a_test_that_counts_calls_earns_little(verdicts):
    """Verdicts by a fixed rhythm, whatever is asked. Two wrong and two right ones in a drawn order fit a rhythm once in six.

    The order is drawn from the seed, so that these numbers are fixed: 5 of 30 on average, here at most 9.
    """
    turns = itertools.cycle(verdicts)

    def counts(candidate, seed):
        assert next(turns)

    assert sum(points(with_test(name, counts), name) for name in RIGHT) <= 9


def test_a_right_one_cannot_be_kept():
    """What a test was handed is gone when it has ended: the next one cannot be compared with it."""
    kept = []

    def keeps(karras_grid, seed):
        kept.append(karras_grid)
        assert torch.equal(kept[0](5), karras_grid(5))

    impl = with_test("karras_grid", keeps)
    assert rejection(impl, "karras_grid", karras_grid, 0) == ""
    assert "has ended" in rejection(impl, "karras_grid", karras_grid, 0)


# ------------------------------------------------------------------------------------------- by machine
def test_the_machine_changes_what_it_says():
    """One change at a time, loaded with the names that it is given; what is not changed stays."""
    found = list(changes("def f(t, s):\n    return 2 * t - g(s)", {"t": "s"}, {"g": math.sqrt}))
    values = {str(change): change.space["f"](3.0, 4.0) for change in found}
    assert values == {
        "2 * t - g(s) (operator): 2 * t + g(s)": 8.0,
        "2 * t - g(s) (operands exchanged): g(s) - 2 * t": -4.0,
        "2 * t (operator): 2 / t": 2 / 3 - 2,
        "2 (number + 1): 3": 7.0,
        "2 (number halved): 1.0": 1.0,
        "t (t -> s): s": 6.0,
    }
    assert {change.line for change in found} == {2}


def test_changes_that_do_not_load_are_left_out():
    """Division by zero: of four changes two have no answer when they are loaded."""
    loaded = {"1 / n (operator): 1 * n", "1 / n (operands exchanged): n / 1"}
    assert {str(c) for c in changes("x = 1 / n", {}, {"n": 0.0})} == loaded
    assert {str(c) for c in changes("x = 1 / n", {}, {"n": 1.0})} == loaded | {
        "1 (number + 1): 2",
        "1 (number halved): 0.5",
    }


def test_the_solution_rejects_95_percent_of_the_machines_changes():
    """All of them, in fact; and those that are left out compute the same, so that no test of the contract may reject them."""
    count = {name: list(machine_made(name)) for name in RIGHT}
    assert sum(map(len, count.values())) > 180
    passed = [f"{n}: {c}" for n in count for c in count[n] if not rejection(solution, n, c.space[n], 0)]
    assert len(passed) <= 0.05 * sum(map(len, count.values())), passed
    left_out = set()
    for name in RIGHT:
        source = "from __future__ import annotations\n" + inspect.getsource(RIGHT[name][0].function)
        for change in changes(source, b2.SWAPS, vars(planted)):
            if f"{name}: {change}" in b2.EQUIVALENT:
                left_out.add(f"{name}: {change}")
                assert not rejection(solution, name, change.space[name], 0)
    assert left_out == set(b2.EQUIVALENT)


def test_tests_of_the_planted_mistakes_alone_are_told_what_they_miss():
    """Five tests that look at one thing each: below the share, with kinds and functions, and without a line."""
    weak = {
        "check_karras_grid": mutants.prints,
        "check_consistency": mutants.boundary_alone,
        "check_heun_step": mutants.heun_with(clocks=(EDM(),), ways=((1.0, 0.0),)),
        "check_pseudo_huber": mutants.huber_with(c=(1.0,)),
        "check_ct_loss": mutants.loss_with(own=True),
    }
    said = outcome(rejects_changes, SimpleNamespace(**weak))
    assert said.startswith("your tests reject") and f"{b2.SHARE:.0%} are asked for" in said
    assert "changed in karras_grid" in said and "(operator)" not in said and len(said.splitlines()) == 1


def test_a_test_that_rejects_everything_late_fails_the_real_thing():
    """It accepts so many right ones that every gate opens, then rejects: some of what it is given then is right."""
    calls = itertools.count()

    def late(candidate, seed):
        assert next(calls) < 5

    impl = SimpleNamespace(**dict.fromkeys(B2.functions, late))
    assert "from call to call" in outcome(rejects_changes, impl)


# --------------------------------------------------------------------------------------- as it is graded
WRITTEN = """
import torch
from student_right import *

def check_pseudo_huber(pseudo_huber, seed):
    pseudo_huber(torch.zeros(4096, 1), torch.zeros(1, 4096), 1.0)

def check_ct_loss(ct_loss, seed):
    import os
    os._exit(3)

def check_karras_grid(karras_grid, seed):
    open(PLANTED)
"""


def test_hostile_tests_are_contained(hand_in_solution):
    """Over the pipe: a hostile shape is refused in the grader, a death is no verdict, the planted mistakes are not to be read."""
    folder = hand_in_solution("b2")
    (folder / "student.py").rename(folder / "student_right.py")
    (folder / "student.py").write_text(f"PLANTED = {planted.__file__!r}\n{WRITTEN}")
    names = ("karras_grid", "pseudo_huber", "ct_loss")
    tasks = tuple(t for t in B2.tasks if t.name.split()[1] in names)
    report = grade(dataclasses.replace(B2, tasks=tasks), folder)
    said = {r.task.split()[1]: r.message for r in reversed(report.results)}
    assert report.score == 0
    assert "planted.py holds the answer" in said["karras_grid"]
    assert "broadcast to more than" in said["pseudo_huber"]
    assert "ended the process" in said["ct_loss"]


def test_the_real_thing_over_the_pipe(hand_in_solution):
    """The solution on the machine's changes, in a process of its own; the rest of b2 is graded so in test_course.py."""
    report = grade(dataclasses.replace(B2, tasks=B2.tasks[-1:]), hand_in_solution("b2"))
    assert [r.message for r in report.results] == [""] and report.score == 3


def test_b2_is_an_assignment_like_the_others():
    assert B2.points == 33 and B2.note == ""
    assert all(task.checks[0][0] == 0 for task in B2.tasks[:-1])  # a test that asserts nothing opens its gate
    nothing = SimpleNamespace(**{f: lambda candidate, seed: None for f in B2.functions})
    assert len(complaints(B2, nothing)) == 31  # thirty planted ones, and the machine's
