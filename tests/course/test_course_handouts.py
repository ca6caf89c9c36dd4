"""Handouts: what students receive holds no answer, runs with the stubs, and holds its asserts with the solution plugged in."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from exact import refused
from variants import ASSIGNMENTS, HANDOUTS, ROOT

import minicm
from minicm.__main__ import main
from minicm.course.export import export
from minicm.course.selfcheck import attempt, self_check

A1 = str(HANDOUTS / "a1")


def code(name):
    """The code cells of a handout, magics left out."""
    notebook = json.loads((HANDOUTS / name / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return "\n\n".join("\n".join(line for line in cell.splitlines() if not line.startswith("%")) for cell in cells)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A folder that holds what an installed wheel would: the package alone."""
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(Path(minicm.__file__).parent, place / "minicm", ignore=shutil.ignore_patterns("__pycache__"))
    return place


def away(command, cwd, wheel):
    """Run Python in a folder away from the clone, with the package of `wheel` and nothing else of ours."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": str(wheel)}
    return subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_a_handout_is_fit_to_be_seen(name):
    """Committed as run with the stubs: in order, without an error, every task checked, the grading command named."""
    text = (HANDOUTS / name / f"{name}.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert "is not written yet" in text and "minicm grade . ." in text and "<details>" in text
    for task in ASSIGNMENTS[name].tasks:
        number = task.name.split()[0]
        assert task.real_thing or f'self_check("{number}", mine)' in code(name), task.name
    assert "/tmp/" not in text and "/home/" not in text and str(ROOT) not in text


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_what_is_exported_runs_with_an_installed_wheel_alone(name, wheel, tmp_path, monkeypatch):
    """The solution plugged in, fast mode; every check of every task says ok, and every cell's assert holds."""
    monkeypatch.setenv("MINICM_FAST", "1")
    export([HANDOUTS / name], tmp_path / "out")
    folder = tmp_path / "out" / name
    shutil.copy(HANDOUTS / name / "solution.py", folder / "student.py")
    tasks = "from minicm.course.load import assignment_in; from pathlib import Path; "
    tasks += "print('checks', sum(len(t.checks) for t in assignment_in(Path()).tasks if not t.real_thing))"
    (folder / "handout.py").write_text(f"import minicm\nprint(minicm.__file__)\n{code(name)}\n{tasks}\n")
    done = away(["handout.py"], folder, wheel)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(wheel)) and "FAIL" not in done.stdout and "not written yet" not in done.stdout
    assert f"checks {done.stdout.count('ok  ')}\n" in done.stdout


@pytest.mark.parametrize("name, points", [("a1", 21), ("b2", 10)])
def test_the_command_grades_with_an_installed_wheel_alone(name, points, wheel, tmp_path):
    """The stubs of a handout; B2, whose graded set stays in the clone, says that this was the practice set."""
    export([HANDOUTS / name], tmp_path / "out")
    folder = str(tmp_path / "out" / name)
    done = away(["-m", "minicm", "grade", folder, folder], tmp_path, wheel)
    assert done.stdout.startswith(f"{name}  {ASSIGNMENTS[name].title}: 0 of {points} points"), done.stderr[-500:]
    assert ("note: this is the practice set" in done.stdout) == (name == "b2")


@pytest.mark.parametrize("assignment", ASSIGNMENTS.values(), ids=ASSIGNMENTS)
def test_the_rubric_is_that_of_the_checks(assignment):
    tasks = ", ".join(f"{task.name.split(' ', 1)[1]} {task.points}" for task in assignment.tasks)
    assert f"| {tasks} | {assignment.points} |" in (ROOT / "docs" / "course.md").read_text(encoding="utf-8")


def test_export_gives_handouts_and_nothing_else(tmp_path, capsys):
    assert main(["course", "export", str(tmp_path / "out")]) == 0
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == sorted(f"{a}/{f}" for a in ASSIGNMENTS for f in (f"{a}.ipynb", "checks.py", "student.py"))
    for name in ASSIGNMENTS:
        stubs = (tmp_path / "out" / name / "student.py").read_text()
        assert stubs.count("raise NotImplementedError") >= len(ASSIGNMENTS[name].functions)
    assert main(["course", "export", str(tmp_path / "out")]) == 2
    assert "exists" in capsys.readouterr().err


def answers(names):
    """Those of some files that hold an answer, by their name."""
    words = ("solution", "mutant", "planted", "mutation", "variants")
    return sorted(name for name in names if any(word in name for word in words))


@pytest.mark.parametrize("name, beside", [("a1", []), ("b2", ["assignment/mutation.py", "assignment/planted.py"])])
def test_gradescope_and_classroom50_bundles(name, beside, tmp_path, capsys):
    """The package and the checks, and of answers B2's graded set alone; torch from where the user says."""
    target = tmp_path / "it.zip"
    command = ["course", "gradescope", str(target), "--assignment", str(HANDOUTS / name)]
    command += ["--torch-index", "https://example.org/cpu"]
    assert main(command) == 0 and main(command) == 2
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        setup, grade = archive.read("setup.sh").decode(), archive.read("run_autograder").decode()
        assert archive.getinfo("run_autograder").external_attr >> 16 == 0o755
    assert "--index-url https://example.org/cpu torch" in setup and "@" not in setup + grade
    assert "minicm grade /autograder/source/assignment /autograder/submission --json" in grade
    assert {"package/pyproject.toml", "assignment/checks.py", "package/minicm/course/worker.py"} <= set(names)
    assert answers(names) == beside and not [n for n in names if "__pycache__" in n]
    folder = tmp_path / "c50"
    assert main(["course", "classroom50", str(folder), "--assignment", str(HANDOUTS / name)]) == 0
    script = (folder / "autograder.py").read_text()
    compile(script, "autograder.py", "exec")
    assert "classroom50/result/v1" in script and "@" not in script
    assert answers(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == beside
    assert main(["course", "gradescope", str(tmp_path / "b.zip")]) == 2
    assert "--assignment" in capsys.readouterr().err


def test_a_wheel_is_small():
    """A wheel is 267 kB, of which 39 are digits: the package as a zip, and some 13 kB about it. Lower it; do not raise it."""
    size = io.BytesIO()
    with zipfile.ZipFile(size, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in packed():
            archive.write(path, path.relative_to(ROOT))
    assert len(size.getvalue()) < 259_000


def packed():
    """What hatch packs: the folder minicm/, and of it what git does not ignore."""
    return [p for p in (ROOT / "minicm").rglob("*") if p.is_file() and "__pycache__" not in p.parts]


def test_what_is_packed_into_a_wheel_holds_nothing_of_an_assignment():
    files = [path.relative_to(ROOT).as_posix() for path in packed()]
    assert "minicm/course/kit.py" in files and answers(files) == []
    assert not [f for f in files if Path(f).name in ("student.py", "checks.py", "adapters.py")]
    assert not [f for f in files if Path(f).stem in ASSIGNMENTS]
    assert 'packages = ["minicm"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture
def stubs(tmp_path):
    """A student's checkout of A1, nothing written yet."""
    shutil.copytree(HANDOUTS / "a1", tmp_path / "work")
    return tmp_path / "work"


def test_the_classroom50_script_writes_its_result(stubs, tmp_path):
    """All of it but the installs: result.json has the fields of classroom50/result/v1, and the points of the checks."""
    assert main(["course", "classroom50", str(tmp_path / "c50"), "--assignment", A1]) == 0
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
    assert main(["course", "gradescope", str(tmp_path / "a1.zip"), "--assignment", A1]) == 0
    with zipfile.ZipFile(tmp_path / "a1.zip") as archive:
        archive.extractall(tmp_path / "source")
    script = (tmp_path / "source" / "run_autograder").read_text()
    script = script.replace("/autograder/venv/bin/minicm", f"{sys.executable} -m minicm")
    script = script.replace("/autograder/venv/bin/python", sys.executable)
    (tmp_path / "results").mkdir()
    for folder, words in ((stubs, "add_noise (student.py"), (tmp_path / "results", "no student.py")):
        text = script.replace("/autograder/submission", str(folder)).replace("/autograder", str(tmp_path))
        subprocess.run(["bash", "-c", text], check=True)
        results = json.loads((tmp_path / "results" / "results.json").read_text())
        assert results["score"] == 0 and words in json.dumps(results)


def test_a_bundle_of_b2_has_the_graded_set(tmp_path):
    """What an autograder's machine gets, away from the clone: thirty planted mistakes and the machine's."""
    assert main(["course", "classroom50", str(tmp_path / "c50"), "--assignment", str(HANDOUTS / "b2")]) == 0
    folder = tmp_path / "c50" / "assignment"
    done = away(["-m", "minicm", "grade", str(folder), str(HANDOUTS / "b2")], tmp_path, tmp_path / "c50" / "package")
    assert done.stdout.startswith("b2  Be the grader: 0 of 33 points") and "practice" not in done.stdout, done.stderr


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    for line, words in (
        (["grade", str(tmp_path), A1], "holds no checks.py"),
        (["grade", str(tmp_path / "none"), A1], "holds no checks.py"),
        (["grade", A1, str(tmp_path)], "no student.py"),
        (["grade", A1, str(tmp_path / "none")], "no folder"),
        (["grade", A1, str(tmp_path), "--csv", str(tmp_path / "g.csv")], "holds no folders"),
        (["course", "gradescope", str(tmp_path / "out"), "--assignment", str(tmp_path)], "holds no checks.py"),
        (["course", "export", str(tmp_path / "out"), "--assignment", str(tmp_path)], "is missing: a handout is"),
    ):
        assert main(line) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "g.csv").exists() and not (tmp_path / "out").exists()


def test_outside_a_clone_export_asks_for_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minicm.course.export.HANDOUTS", tmp_path / "none")
    assert main(["course", "export", str(tmp_path / "out")]) == 2
    assert "run this in a clone" in capsys.readouterr().err
    assert main(["course", "export", str(tmp_path / "out"), "--assignment", A1]) == 0
    assert sorted(p.name for p in (tmp_path / "out" / "a1").iterdir()) == ["a1.ipynb", "checks.py", "student.py"]


def test_the_pytest_view_shows_each_check(tmp_path):
    """The stubs of A1 through pytest, from a student's folder: each check told in one line, and -k works."""
    shutil.copytree(HANDOUTS / "a1", tmp_path / "a1")
    command = [sys.executable, "-m", "pytest", "-p", "minicm.course.plugin", "-p", "no:cacheprovider", "--assignment"]
    done = subprocess.run([*command, ".", "-k", "grid"], cwd=tmp_path / "a1", capture_output=True, text=True)
    assert done.returncode == 1 and "4 failed, 14 deselected" in done.stdout, done.stdout[-1500:] + done.stderr[-500:]
    assert "karras_grid (student.py, line " in done.stdout and "Traceback" not in done.stdout
    done = subprocess.run([*command, "a9"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 4 and "a9 holds no checks.py" in done.stderr


def test_self_check_and_attempt(capsys, monkeypatch):
    monkeypatch.chdir(A1)  # as a notebook does

    class Half:
        @staticmethod
        def karras_grid(n, *_):
            raise NotImplementedError

    self_check("2", Half, hints=1)
    printed = capsys.readouterr().out
    assert (
        "FAIL 1  karras_grid returns n float64 times" in printed
        and "not written yet" in printed
        and "hint 1" in printed
    )
    assert attempt(lambda: Half.karras_grid(3)) is None and attempt(lambda: 5) == 5
    assert "is not written yet: write it" in capsys.readouterr().out
    refused("no task '9'", lambda: self_check("9", Half, folder=HANDOUTS / "a1"))
