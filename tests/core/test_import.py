"""The front door: `import minicm as cm` is light, and hands out every public name from its module when it is used."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from exact import refused

import minicm as cm

PACKAGE = Path(cm.__file__).parent


def python(code: str) -> str:
    """What a new interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_minicm_loads_no_library_and_no_module_of_its_own():
    loaded = python("import sys; old = set(sys.modules); import minicm; print(*(set(sys.modules) - old))").split()
    assert "minicm" in loaded
    assert all(name == "minicm" or name.partition(".")[0] in sys.stdlib_module_names for name in loaded), loaded


def test_import_minicm_takes_a_hundredth_of_a_second():
    code = "import time; start = time.process_time(); import minicm; print(time.process_time() - start)"
    # of the processor, and the best of a few: other work on the machine only adds
    assert min(float(python(code)) for _ in range(5)) < 0.01


@pytest.mark.parametrize("name", cm.__all__)
def test_every_name_is_that_of_its_module(name):
    module = import_module(f"minicm.{cm.HOME.get(name, name)}")
    assert getattr(cm, name) is (module if name == "plots" else getattr(module, name))
    assert name in dir(cm)


def test_the_lists_of_names_agree():
    """What type checkers see, what is exported, and what is handed out."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"minicm.{home}" for name, home in cm.HOME.items()} | {"plots": "minicm"}
    assert sorted(seen) == sorted(cm.__all__)


@pytest.mark.parametrize(
    "first",
    ["import minicm.train", "from minicm.train import TrainConfig", "import minicm.demo", "minicm.EDM", "minicm.train"],
)
def test_train_is_the_function_whoever_has_loaded_its_module(first):
    code = f"import minicm; {first}; from minicm.train import TrainConfig, train; print(minicm.train is train)"
    assert python(code) == "True\n"


@pytest.mark.parametrize(
    ("name", "hint"), [("Cd", "did you mean CD?"), ("trian", "did you mean train?"), ("zzz", "no 'zzz'")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name, hint):
    refused(hint.replace("?", r"\?"), lambda: getattr(cm, name), AttributeError)


@pytest.mark.slow
def test_type_checkers_see_the_names_and_their_types(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import minicm as cm\nclock = cm.EDM(t_maximum=3)\nreveal_type(cm.train)\ncm.Trian\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(script)]
    said = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent).stdout
    for line in ('2: error: Unexpected keyword argument "t_maximum" for "EDM"', "minicm.train.Step[", '"Trian"'):
        assert line in said
