"""Notebooks: committed with the outputs of a full run of the code they hold; all of them run, in fast mode."""

import copy
import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "notebooks" / "build.py"
spec = importlib.util.spec_from_file_location("notebooks_build", FILE)
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

NAMES = build.names()


def test_there_are_notebooks_and_their_numbers_differ():
    assert NAMES and len({name[:2] for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_fit_to_be_seen(name):
    assert build.faults(build.read(FILE.parent / f"{name}.ipynb"), name) == []


@pytest.fixture
def notebook():
    return copy.deepcopy(build.read(FILE.parent / f"{NAMES[0]}.ipynb"))


def without_outputs(cells):
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


def other_code(cells):
    cells[-2]["source"] = ["1 + 1"]


def a_warning(cells):
    warning = {"name": "stderr", "output_type": "stream", "text": ["UserWarning: ..."]}
    next(cell for cell in cells if cell["cell_type"] == "code")["outputs"].append(warning)


def run_twice(cells):
    next(cell for cell in cells if cell["cell_type"] == "code")["execution_count"] = 99


def a_path(cells):
    cells[0]["source"].append("see /home/me")


def no_asserts(cells):
    for cell in cells:
        cell["source"] = [line.replace("assert ", "# ") for line in cell["source"]]


FAULTS = {
    without_outputs: ("no outputs", "did not run in order", "no picture"),
    other_code: ("belong to other code",),
    a_warning: ("error or a warning",),
    run_twice: ("did not run in order",),
    a_path: ("folder of this machine",),
    no_asserts: ("no assert",),
    lambda cells: cells.append(cells[0] | {"source": ["x" * build.LARGEST]}): ("larger than", "tidy()"),
    lambda cells: cells[0].update(metadata={"when": "now"}): ("tidy()",),
    lambda cells: cells[5:].clear() or cells.__delitem__(slice(5, None)): ("5 cells", "no exercise"),
}


@pytest.mark.parametrize(("fault", "complaints"), FAULTS.items())
def test_planted_faults_are_named(notebook, fault, complaints):
    fault(notebook["cells"])
    found = "\n".join(build.faults(notebook, NAMES[0]))
    assert all(complaint in found for complaint in complaints), found


def test_links_come_from_one_setting_and_leave_with_it(notebook, monkeypatch):
    plain = build.tidy(copy.deepcopy(notebook), "00_x")
    monkeypatch.setattr(build, "REPOSITORY", "someone/minicm")
    linked = build.tidy(copy.deepcopy(plain), "00_x")
    assert "github/someone/minicm/blob/main/notebooks/00_x.ipynb" in build.source(linked["cells"][1])
    monkeypatch.setattr(build, "REPOSITORY", "")
    assert build.tidy(linked, "00_x") == plain


@pytest.mark.notebook
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_in_fast_mode(name, monkeypatch):
    pytest.importorskip("nbclient")
    monkeypatch.setenv("MINICM_FAST", "1")
    build.run(build.read(FILE.parent / f"{name}.ipynb"))  # a failing cell raises, its assert in the message
