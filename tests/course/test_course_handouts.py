"""Handouts: what students receive holds no answer, runs with the stubs, and holds its asserts with the solution plugged in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from minicm.course.assignments import ASSIGNMENTS

from minicm.__main__ import main
from minicm.course.selfcheck import attempt, self_check

ROOT = Path(__file__).resolve().parents[2]
HANDOUTS = ROOT / "notebooks" / "assignments"
ANSWERS = ("solutions/", "mutants/")


def code(name):
    """The code cells of a handout, magics left out."""
    notebook = json.loads((HANDOUTS / name / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return "\n\n".join("\n".join(line for line in cell.splitlines() if not line.startswith("%")) for cell in cells)


def run(name, student, folder):
    """Run a handout's code as a script beside a student.py, in a process of its own; returns what it prints."""
    folder.mkdir()
    shutil.copy(student, folder / "student.py")
    shutil.copy(HANDOUTS / name / "adapters.py", folder)
    (folder / "handout.py").write_text(code(name))
    done = subprocess.run([sys.executable, "handout.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_a_handout_is_fit_to_be_seen(name):
    """Committed as run with the stubs: in order, without an error, every task checked, the grading command named."""
    text = (HANDOUTS / name / f"{name}.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert "is not written yet" in text and f"minicm grade {name}" in text and "<details>" in text
    for task in ASSIGNMENTS[name].tasks:
        number = task.name.split()[0]
        assert task.real_thing or f'self_check("{name}", "{number}", mine)' in code(name), task.name
    assert "/tmp/" not in text and "/home/" not in text and str(ROOT) not in text


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_a_handout_runs_with_the_solution_plugged_in(name, tmp_path, monkeypatch):
    """Fast mode; every check of every task says ok, and every cell's assert holds."""
    monkeypatch.setenv("MINICM_FAST", "1")
    printed = run(name, ROOT / "minicm" / "course" / "solutions" / f"{name}.py", tmp_path / name)
    assert "FAIL" not in printed and "not written yet" not in printed
    checks = sum(len(task.checks) for task in ASSIGNMENTS[name].tasks if not task.real_thing)
    assert printed.count("ok  ") == checks


@pytest.mark.parametrize("assignment", ASSIGNMENTS.values(), ids=ASSIGNMENTS)
def test_the_rubric_is_that_of_the_checks(assignment):
    tasks = ", ".join(f"{task.name.split(' ', 1)[1]} {task.points}" for task in assignment.tasks)
    assert f"| {tasks} | {assignment.points} |" in (ROOT / "docs" / "course.md").read_text(encoding="utf-8")


def test_export_gives_handouts_and_nothing_else(tmp_path, capsys):
    assert main(["course", "export", str(tmp_path / "out")]) == 0
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == sorted(f"{a}/{f}" for a in ASSIGNMENTS for f in (f"{a}.ipynb", "adapters.py", "student.py"))
    for path in (tmp_path / "out").rglob("*.py"):
        assert "course.solutions" not in path.read_text() and "course.mutants" not in path.read_text()
    for name in ASSIGNMENTS:
        stubs = (tmp_path / "out" / name / "student.py").read_text()
        assert stubs.count("raise NotImplementedError") >= len(ASSIGNMENTS[name].functions)
    assert main(["course", "export", str(tmp_path / "out")]) == 2
    assert "exists" in capsys.readouterr().err


def test_gradescope_and_classroom50_bundles(tmp_path, capsys):
    """No answer in either; scripts for the assignment that was asked for; torch from where the user says."""
    target = tmp_path / "a1.zip"
    command = ["course", "gradescope", str(target), "--assignment", "a1", "--torch-index", "https://example.org/cpu"]
    assert main(command) == 0 and main(command) == 2
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        setup, grade = archive.read("setup.sh").decode(), archive.read("run_autograder").decode()
        assert archive.getinfo("run_autograder").external_attr >> 16 == 0o755
    assert "--index-url https://example.org/cpu torch" in setup and "@" not in setup + grade
    assert "minicm grade a1 /autograder/submission --json" in grade
    assert {"package/pyproject.toml", "package/minicm/course/a1.py", "package/minicm/course/worker.py"} <= set(names)
    assert not [n for n in names if any(a in n for a in ANSWERS) or "__pycache__" in n]
    assert main(["course", "classroom50", str(tmp_path / "c50"), "--assignment", "a1"]) == 0
    script = (tmp_path / "c50" / "autograder.py").read_text()
    compile(script, "autograder.py", "exec")
    assert '"grade", "a1"' in script and "classroom50/result/v1" in script and "@" not in script
    assert not list((tmp_path / "c50").rglob("solutions"))
    assert main(["course", "gradescope", str(tmp_path / "b.zip")]) == 2
    assert "--assignment" in capsys.readouterr().err


@pytest.fixture
def stubs(tmp_path):
    """A student's checkout of A1, nothing written yet."""
    shutil.copytree(HANDOUTS / "a1", tmp_path / "work")
    return tmp_path / "work"


def test_the_classroom50_script_writes_its_result(stubs, tmp_path):
    """All of it but the installs: result.json has the fields of classroom50/result/v1, and the points of the checks."""
    assert main(["course", "classroom50", str(tmp_path / "c50"), "--assignment", "a1"]) == 0
    script = tmp_path / "c50" / "autograder.py"
    script.write_text(script.read_text().replace('"-m", "pip", "install", "--quiet"]', '"-c", ""]'))
    names = ("CLASSROOM", "ASSIGNMENT", "SUBMISSION_TAG", "COMMIT_URL", "RELEASE_URL")
    done = subprocess.run(
        [sys.executable, script], cwd=stubs, env=os.environ | dict.fromkeys(names, "x"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1000:]
    result = json.loads((stubs / "result.json").read_text())
    assert result["schema"] == "classroom50/result/v1" and result["submission"] == "x"
    assert (result["score"], result["max-score"]) == (0, ASSIGNMENTS["a1"].points)
    assert {"test-name", "passed", "score", "max-score"} <= set(result["tests"][0]) and not result["tests"][0]["passed"]


@pytest.mark.skipif(not shutil.which("bash"), reason="Gradescope's script is one of bash")
def test_gradescopes_script_writes_its_results(stubs, tmp_path):
    """run_autograder with this machine's folders in place of Gradescope's: results.json with work, and without any."""
    assert main(["course", "gradescope", str(tmp_path / "a1.zip"), "--assignment", "a1"]) == 0
    script = zipfile.ZipFile(tmp_path / "a1.zip").read("run_autograder").decode()
    command = f"{sys.executable} -m minicm"
    script = script.replace("/autograder/venv/bin/minicm", command).replace(
        "/autograder/venv/bin/python", sys.executable
    )
    (tmp_path / "results").mkdir()
    for folder, words in (
        (stubs, "add_noise (student.py"),
        (tmp_path / "results", "neither student.py nor adapters.py"),
    ):
        text = script.replace("/autograder/submission", str(folder)).replace(
            "/autograder/results", str(tmp_path / "results")
        )
        subprocess.run(["bash", "-c", text], check=True)
        results = json.loads((tmp_path / "results" / "results.json").read_text())
        assert results["score"] == 0 and words in json.dumps(results)


def test_the_package_in_a_bundle_works_without_the_answers(tmp_path):
    """What a student's or a grader's machine gets: every assignment loads, and the command grades the stubs."""
    assert main(["course", "classroom50", str(tmp_path / "c50"), "--assignment", "a1"]) == 0
    source = "from minicm.course.assignments import ASSIGNMENTS; import minicm; print(minicm.__file__, *ASSIGNMENTS)"
    package = tmp_path / "c50" / "package"
    done = subprocess.run(
        [sys.executable, "-c", source], env={"PYTHONPATH": str(package)}, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split() == [str(package / "minicm" / "__init__.py"), *ASSIGNMENTS], done.stderr[-500:]


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    for line, words in (
        (["grade", "a9", str(tmp_path)], "no assignment 'a9'"),
        (["grade", "a1", str(tmp_path)], "neither student.py nor adapters.py"),
        (["grade", "a1", str(tmp_path / "none")], "no folder"),
        (["grade", "a1", str(tmp_path), "--csv", str(tmp_path / "g.csv")], "holds no folders"),
    ):
        assert main(line) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "g.csv").exists()


def test_the_pytest_view_shows_each_check(tmp_path):
    """The stubs of A1 through pytest, from a student's folder: each check told in one line, and -k works."""
    shutil.copytree(HANDOUTS / "a1", tmp_path / "a1")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "minicm.course.plugin",
        "-p",
        "no:cacheprovider",
        "--assignment",
        "a1",
    ]
    done = subprocess.run([*command, "-k", "grid"], cwd=tmp_path / "a1", capture_output=True, text=True)
    assert done.returncode == 1 and "4 failed, 14 deselected" in done.stdout, done.stdout[-1500:] + done.stderr[-500:]
    assert "karras_grid (student.py, line " in done.stdout and "Traceback" not in done.stdout
    done = subprocess.run([*command[:-1], "a9"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 4 and "no assignment 'a9'" in done.stderr


def test_self_check_and_attempt(capsys):
    class Half:
        @staticmethod
        def karras_grid(n, *_):
            raise NotImplementedError

    self_check("a1", "2", Half, hints=1)
    printed = capsys.readouterr().out
    assert (
        "FAIL 1  karras_grid returns n float64 times" in printed
        and "not written yet" in printed
        and "hint 1" in printed
    )
    assert attempt(lambda: Half.karras_grid(3)) is None and attempt(lambda: 5) == 5
    assert "is not written yet: write it" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no task '9'"):
        self_check("a1", "9", Half)
