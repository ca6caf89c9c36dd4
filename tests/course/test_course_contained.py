"""Submissions that misbehave are contained, each with one clear line; what travels between the processes arrives."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from exact import refused

from minicm.course import grade as grading
from minicm.course.kit import Assignment, Failed, Task, Wrong
from minicm.course.load import assignment_in
from minicm.course.session import Limits, Submission
from minicm.schedules import EDM, TrigFlow


def assignment(*names, forbidden=("minicm.solvers",)):
    """One task a function: it must return the number 1."""

    def check_of(name):
        def check(impl, seed):
            if getattr(impl, name)() != 1:
                raise Wrong(f"{name} is not 1")

        check.__doc__ = f"{name} is 1"
        return check

    tasks = tuple(Task(name, ((1, check_of(name)),), hints=()) for name in names)
    return Assignment("test", "a test", names, tasks, forbidden)


@pytest.fixture
def hand_in(tmp_path):
    """Write a student.py and return its folder."""

    def write(source, name="submission"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "student.py").write_text(source)
        return tmp_path / name

    return write


def said(names, folder, **limits):
    """What grading says about each function."""
    report = grading.grade(assignment(*names), folder, limits=Limits(**limits))
    assert all(result.score == 0 or result.passed for result in report.results)
    return {result.task: result.message for result in report.results}, report


ACTS = {
    "network": ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", "no network"),
    "resolver": ("import urllib.request; urllib.request.urlopen('http://example.org', timeout=1)", "no network"),
    "reference": ("from minicm.solvers import heun_step", "minicm.solvers, which holds the answer"),
    "specifications": ("import minicm.course.specs", "holds the answer"),
    "source": ("import minicm; open(minicm.__path__[0] + '/solvers.py').read()", "solvers.py holds the answer"),
    "process": ("import subprocess; subprocess.run(['true'])", "another process"),
    "shell": ("import os; os.system('true')", "another process"),
    "fork": ("import os; os.fork()", "another process"),
    "kill": ("import os; os.kill(os.getppid(), 0)", "os.kill"),  # 0 sends nothing, should it get through
    "foreign": ("import ctypes; ctypes.CDLL(None).getpid()", "ctypes"),
    "outside": ("open('../../escaped', 'w').write('x')", "outside its folder"),
    "remove": ("import os; os.remove(PRECIOUS)", "outside its folder"),
    "memory": ("x = bytearray(2**36)", "more memory than the grader allows"),
    "tensor": ("import torch; x = torch.ones(2**34)", "more memory than the grader allows"),
    "file": ("open('big', 'wb').write(bytes(2**21))", "File too large"),
    "wrong": ("return 2", "wrong is not 1"),
    "forged": (
        "print('{\"score\": 100}'); open('results.json', 'w').write('{\"score\": 100}'); return 2",
        "forged is not 1",
    ),
    "patched": ("return 2", "patched is not 1"),
    "missing": None,
    "secret": ("import os; return os.environ.get('MINICM_SECRET', 2)", "secret is not 1"),
}


DERIVATIVES = """
import torch
from torch.autograd import forward_ad as ad

def forward(f, x, t, dx, dt):
    return torch.func.jvp(f, (x, t), (dx, dt))

def along_x(f, x, t, dx):
    return torch.func.jvp(lambda x: f(x / 0.5, t), (x,), (dx,))[1]

def dual(f, x, t, dx, dt):
    with torch.no_grad(), ad.dual_level():
        return ad.unpack_dual(f(ad.make_dual(x, dx), ad.make_dual(t, dt)))

def trained(loss):
    weight = torch.tensor(2.0, requires_grad=True)
    loss(lambda x: weight * x, lambda x: weight * x).sum().backward()
    return weight.grad

def asks_for_ever(f):
    while True:
        f(1.0)
"""


def test_forward_derivatives_cross_the_pipe(hand_in):
    """torch.func.jvp and dual numbers through a function of the grader's give what they give in one process."""
    names = ("forward", "along_x", "dual")
    A, generator = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.Generator().manual_seed(0)
    x, dx = torch.randn(2, 3, 2, generator=generator)
    t, dt = torch.rand(2, 3, generator=generator)
    f = lambda x, t: (x @ A).sin() * t[:, None]  # noqa: E731
    here: dict = {}
    exec(DERIVATIVES, here)
    patient = Limits(seconds=300, call=100)  # the first derivative makes torch import a great deal
    with Submission(assignment(*names), hand_in(DERIVATIVES), patient) as submission:
        for name, args in (("forward", (x, t, dx, dt)), ("along_x", (x, t, dx)), ("dual", (x, t, dx, dt))):
            there, want = getattr(submission.impl, name)(f, *args), here[name](f, *args)
            for a, b in zip(there, want) if isinstance(want, tuple) else [(there, want)]:
                assert torch.equal(a, b), name


def test_a_gradient_reaches_a_submissions_own_weights(hand_in):
    """Through a loss of the grader's that calls the submission's network, once with a gradient and once without."""

    def loss(f, f_target):
        with torch.no_grad():
            aim = f_target(3 * torch.ones(2))
        return (f(torch.ones(2)) - aim).square()

    with Submission(assignment("trained"), hand_in(DERIVATIVES)) as submission:
        assert submission.impl.trained(loss) == 2 * 2 * (2 - 6)


def test_calling_back_for_ever_is_late(hand_in):
    submission = Submission(assignment("asks_for_ever"), hand_in(DERIVATIVES), Limits(call=3.0))
    with submission, pytest.raises(Failed, match="did not return in time"):
        submission.impl.asks_for_ever(lambda x: x)


def test_what_a_solution_does_not_need_is_refused(hand_in, monkeypatch, tmp_path):
    """Twenty acts in one submission: each gets its own line, and the honest function beside them is graded."""
    monkeypatch.setenv("MINICM_SECRET", "1")
    bodies = "\n".join(f"def {name}():\n    {act[0]}\n" for name, act in ACTS.items() if act)
    source = f"import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nimport torch\n{bodies}\ndef honest():\n    return 1\n"
    (tmp_path / "precious").write_text("kept")
    source += f"PRECIOUS = {str(tmp_path / 'precious')!r}\n"
    source += "print('page ' * 100_000)\ntorch.equal = torch.allclose = lambda *a, **k: True\n"
    folder = hand_in(source)
    messages, report = said((*ACTS, "honest"), folder)
    for name, act in ACTS.items():
        assert (act[1] if act else "there is no function missing") in messages[name], (name, messages[name])
        assert len(messages[name].splitlines()) == 1
    assert messages["honest"] == "" and report.score == 1
    assert "replaces" in report.notices[0] and "torch.allclose" in report.notices[0]
    assert 0 < len(report.printed) < 5000
    assert torch.equal(torch.ones(2), torch.zeros(2)) is False  # nothing was patched here
    assert sorted(p.name for p in folder.iterdir()) == ["student.py"]
    assert (tmp_path / "precious").read_text() == "kept"


LETHAL = {
    "endless": ("while True: pass", "did not return in time"),
    "exits": ("import os; os._exit(0)", "ended the process (exit code 0)"),
    "leaves": ("import sys; sys.exit(3)", "ended the process (exit code 3)"),
    "garbles": ("import os\n    for fd in range(3, 20):\n        try: os.write(fd, b'x' * 64)\n        except OSError: pass", "no answer"),
    "huge": ("import torch; return torch.zeros(2**24)", "at most 64 are read")
}  # fmt: skip


def test_what_ends_a_process_ends_its_own_only(hand_in):
    """A function that kills or blocks its process is blamed; the others are graded in a new one."""
    bodies = "\n".join(f"def {name}():\n    {act[0]}\n" for name, act in LETHAL.items())
    folder = hand_in(f"{bodies}\ndef honest():\n    return 1\n")
    messages, _ = said((*LETHAL, "honest"), folder, call=15.0)
    for name, act in LETHAL.items():
        assert act[1] in messages[name], (name, messages[name])
    assert messages["honest"] == ""


@pytest.mark.parametrize(
    "source, line",
    [
        ("1 / 0", "importing student.py failed: <module> (student.py, line 1) raised ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit()", "importing student.py failed"),
        ("import os; os._exit(7)", "ended the process (exit code 7)"),
    ],
)
def test_what_fails_on_import_is_told_once(hand_in, source, line):
    messages, report = said(("honest", "other"), hand_in(source))
    assert all(line in message for message in messages.values()), messages
    assert report.score == 0


def test_a_bad_submission_does_not_stop_the_others(hand_in, tmp_path):
    hand_in("import os; os._exit(1)", "anna")
    hand_in("def honest():\n    return 1\n", "bert")
    (tmp_path / "carl").mkdir()
    task = assignment("honest")
    grading.write_csv(tmp_path / "grades.csv", task, grading.grade_all(task, tmp_path))
    rows = {row["submission"]: row for row in csv.DictReader((tmp_path / "grades.csv").open())}
    assert [rows[name]["score"] for name in ("anna", "bert", "carl")] == ["0", "1", "0"]
    assert "exit code 1" in rows["anna"]["first complaint"]
    assert "no student.py" in rows["carl"]["first complaint"]
    with pytest.raises(FileExistsError):
        grading.write_csv(tmp_path / "grades.csv", task, grading.grade_all(task, tmp_path))


TRAVELLERS = '''
import torch
def loss(f, x, t, distance):
    with torch.no_grad():
        still = f(0.5 * x, t)
    y = f(x, t)
    return distance(y, still) + (y ** 3).sum(1) + f(y * 0.1, t).sum(1)
def in_place(x): x.mul_(2); return None
def draws(generator): return torch.rand(3, generator=generator)
def makes(c): return lambda a, b: c * (a - b)
def clock(schedule, t): return schedule.sigma(t), schedule.t_max
def attributes(f): return f.t_min, f.schedule.t_max
def strange(): return {1, 2}
def echo(*values): return list(values)
def fails(f): return f(torch.ones(1))
'''  # fmt: skip


def test_what_travels_arrives(hand_in):
    """Values, callables both ways, generators, in-place changes, clocks, errors, and gradients through a loss."""
    names = ("loss", "in_place", "draws", "makes", "clock", "attributes", "strange", "echo", "fails")
    with Submission(assignment(*names), hand_in(TRAVELLERS)) as submission:
        impl, x = submission.impl, torch.randn(4, 2)
        net = torch.nn.Linear(2, 2)
        here, there = {}, {}
        exec(TRAVELLERS, here)
        f = lambda x, t: net(x) * t[:, None]  # noqa: E731
        for out, loss in ((there, impl.loss), (here, here["loss"])):
            net.zero_grad()
            losses = loss(f, x, torch.arange(1.0, 5.0), lambda a, b: (a - b).square().sum(1))
            (losses * torch.arange(4.0)).sum().backward()
            out["losses"], out["grad"] = losses.detach(), net.weight.grad.clone()
        assert torch.equal(here["losses"], there["losses"]) and torch.allclose(here["grad"], there["grad"], rtol=1e-6)
        y = x.clone()
        assert impl.in_place(y) is None and torch.equal(y, 2 * x)
        a, b = (torch.Generator().manual_seed(1) for _ in range(2))
        assert torch.equal(impl.draws(a), torch.rand(3, generator=b)) and torch.equal(
            torch.rand(1, generator=a), torch.rand(1, generator=b)
        )
        assert torch.equal(impl.makes(3.0)(2 * x, x), 3 * (2 * x - x))
        sigma, t_max = impl.clock(TrigFlow(), torch.ones(2).double())
        assert torch.equal(sigma, TrigFlow().sigma(torch.ones(2).double())) and t_max == TrigFlow().t_max
        f.t_min, f.schedule = 0.002, EDM()  # type: ignore[attr-defined]
        assert impl.attributes(f) == (0.002, 80.0)
        assert impl.strange().type_name == "set"
        values = [None, True, 3, 2.5, float("inf"), "text", (1, [2]), tuple(range(9)), [i / 3 for i in range(9)]]
        values += [{"k": torch.tensor(True)}, torch.bfloat16, torch.zeros(0, 2)]
        for sent, got in zip(values, impl.echo(*values)):
            assert type(got) is type(sent) and str(got) == str(sent)
        expanded, conjugate = torch.tensor([1.5]).expand(1), torch.tensor([1 + 2j, 3j]).conj()
        for sent, got in zip((expanded, conjugate), impl.echo(expanded, conjugate)):
            assert torch.equal(sent, got)
        numbers = impl.echo(np.int32(3), np.float32(0.5), np.bool_(True))
        assert numbers == [3, 0.5, True] and list(map(type, numbers)) == [int, float, bool]
        with pytest.raises(Failed, match=r"fails \(student.py, line \d+\) raised ValueError: no"):
            impl.fails(lambda x: (_ for _ in ()).throw(ValueError("no")))


def test_the_report_has_gradescopes_form(hand_in):
    """Field names and statuses of Gradescope's autograder specification."""
    _, report = said(("honest", "other"), hand_in("def honest():\n    return 1\n"))
    form = json.loads(json.dumps(grading.gradescope(report)))
    assert form["score"] == 1 and form["visibility"] == "visible"
    assert [(t["score"], t["max_score"], t["status"]) for t in form["tests"]] == [(1, 1, "passed"), (0, 1, "failed")]
    assert "there is no function other" in form["tests"][1]["output"]


def test_adapters_are_used_where_a_student_writes_some(hand_in):
    """adapters.py takes the place of student.py, which it may call."""
    folder = hand_in("def mine():\n    return 1\n")
    assert "there is no function honest" in said(("honest",), folder)[0]["honest"]
    (folder / "adapters.py").write_text("import student\n\n\ndef honest():\n    return student.mine()\n")
    assert said(("honest",), folder)[0]["honest"] == ""


def test_checks_that_are_handed_in_are_never_imported(hand_in, tmp_path):
    """Neither by the grader nor in the submission's own process: the file is not even copied."""
    (tmp_path / "assignment").mkdir()
    (tmp_path / "assignment" / "checks.py").write_text(CHECKS.format(title="the grader's"))
    folder = hand_in("def honest():\n    import checks\n")
    (folder / "checks.py").write_text(CHECKS.format(title="forged") + f"\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    report = grading.grade(assignment_in(tmp_path / "assignment"), folder)
    assert report.assignment.title == "the grader's" and "No module named 'checks'" in report.results[0].message
    assert not (tmp_path / "ran").exists()


CHECKS = """from minicm.course.kit import Assignment, Task

def check(impl, seed):
    impl.honest()

ASSIGNMENT = Assignment("it", "{title}", ("honest",), (Task("1", ((1, check),), hints=()),), ())
"""


def test_the_folder_of_an_assignment_cannot_be_read(hand_in, tmp_path):
    """Its checks and solution, those of the assignments beside it, and in a clone the mutants."""
    clone = tmp_path / "clone"
    secrets = [
        "notebooks/assignments/it/solution.py",
        "notebooks/assignments/other/solution.py",
        "tests/course/mutants/it.py",
    ]
    for name in ("notebooks/assignments/it/checks.py", "notebooks/assignments/other/checks.py", *secrets):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(CHECKS.format(title="it"))
    venv = clone / "notebooks/assignments/it/.venv/package.py"
    venv.parent.mkdir()
    venv.write_text("")
    for name in (*secrets, venv.relative_to(clone).as_posix()):
        folder = hand_in(f"def honest():\n    return open({str(clone / name)!r}).read()\n", name.replace("/", "-"))
        report = grading.grade(assignment_in(clone / "notebooks/assignments/it"), folder)
        says = f"{name.split('/')[-1]} holds the answer" if name in secrets else ""
        assert says in report.results[0].message and report.results[0].passed == (name not in secrets)


@pytest.mark.parametrize("source, words", [("", "defines no ASSIGNMENT"), (None, "holds no checks.py")])
def test_a_folder_that_is_no_assignment_is_told_in_a_line(tmp_path, source, words):
    if source is not None:
        (tmp_path / "checks.py").write_text(source)
    refused(words, lambda: assignment_in(tmp_path))
