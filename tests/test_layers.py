"""The rooms of minicm, and that imports between them run one way.

Reads the sources and imports nothing. Every complaint names the file and the line. The last test
plants one breach of each rule and asks for the complaint, so a rule gone blind is noticed.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "minicm"

# Lowest first. A module imports only what stands in a row before its own, or further left in its
# own; a package also its own modules. The longest name counts: "data" is all of data but the
# mixtures. "" is minicm/__init__.py, the front door, which nothing inside goes through.
ROWS = (
    ("schedules", "times", "distances", "nets"),
    ("denoiser", "data.posterior", "data.exact_flow", "data.mixtures"),
    ("solvers", "sampling", "editing"),
    ("objectives",),
    ("ema", "checkpoint", "parallel", "train"),
    ("data", "metrics", "plots"),
    ("runs",),
    ("recipes",),
    ("evaluate",),
    ("demo", "bench", "cifar10_run"),
    ("", "course", "__main__"),
)
PLACE = {room: (row, column) for row, rooms in enumerate(ROWS) for column, room in enumerate(rooms)}

CORE = {"torch", "numpy", "scipy", "matplotlib", "tqdm", "tyro", "safetensors"}  # pyproject.toml
UNPICKLERS = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNPICKLING = {"torch.load", "torch.jit.load", "torch.hub.load", "allow_pickle=True"}


class Import(NamedTuple):
    target: str  # full name of the imported module
    line: int
    at_once: bool  # carried out on loading: not inside a function, not for type checkers only

    @property
    def top(self) -> str:
        return self.target.split(".")[0]


class Module(NamedTuple):
    name: str  # "minicm.nets.mlp"; "minicm.nets" is nets/__init__.py
    path: Path  # from the package's folder
    tree: ast.Module
    imports: list[Import]

    def at(self, line: int) -> str:
        return f"minicm/{self.path.as_posix()}:{line}"


Modules = dict[str, Module]


def statements(node: ast.AST, at_once: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Every import statement below `node`, and whether loading the module carries it out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_once
            continue
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from statements(child, at_once and not later and not typing_only)


def targets(statement: ast.stmt, package: list[str], known: set[str]) -> Iterator[str]:
    """Full names of the modules that one import statement in `package` asks for."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        above = package[: len(package) - statement.level + 1] if statement.level else []
        base = ".".join([*above, *filter(None, [statement.module])])
        for alias in statement.names:
            name = f"{base}.{alias.name}"
            yield name if name in known else base


def read(package: Path) -> Modules:
    """Every module of the package at `package`, by its full name."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = ["minicm", *path.relative_to(package).with_suffix("").parts]
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    modules = {}
    for name, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        imports = [
            Import(target, statement.lineno, at_once)
            for statement, at_once in statements(tree)
            for target in targets(statement, here, set(files))
        ]
        modules[name] = Module(name, path.relative_to(package), tree, imports)
    return modules


def room(name: str) -> str | None:
    """The longest entry of ROWS that `name` is or lies in; None for others and other packages."""
    top, _, inner = name.partition(".")
    fits = [r for r in PLACE if inner == r or (r and inner.startswith(r + "."))]
    return max(fits, key=len, default=None) if top == "minicm" else None


# The rules. Each yields its complaints.


def rule_every_module_has_a_room(modules: Modules) -> Iterator[str]:
    for m in modules.values():
        if room(m.name) is None:
            yield f"{m.at(1)}: {m.name} has no place: add it to ROWS in tests/test_layers.py"


def rule_imports_go_down(modules: Modules) -> Iterator[str]:
    for m in modules.values():
        here = room(m.name)
        for target, line, _ in m.imports:
            there = room(target)
            if here is None or there is None or here == there or PLACE[there] < PLACE[here]:
                continue
            yield f"{m.at(line)}: imports {target}, which ROWS has above {m.name}"


def rule_imports_run_in_no_circle(modules: Modules) -> Iterator[str]:
    """Those for type checkers included: two modules that need each other's types are one thought."""
    open_, closed = [], set()

    def visit(name: str) -> Iterator[str]:
        open_.append(name)
        for target in dict.fromkeys(i.target for i in modules[name].imports if i.target in modules):
            if target in open_:
                yield f"{modules[name].at(1)}: imports run in a circle: {' -> '.join([*open_[open_.index(target) :], target])}"
            elif target not in closed:
                yield from visit(target)
        closed.add(open_.pop())

    for name in modules:
        if name not in closed:
            yield from visit(name)


def rule_nothing_inside_uses_the_front_door(modules: Modules) -> Iterator[str]:
    for m in modules.values():
        for node in ast.walk(m.tree):
            if isinstance(node, ast.Import):
                asked = ["all" for alias in node.names if alias.name == "minicm" and alias.asname]
            elif isinstance(node, ast.ImportFrom) and node.module == "minicm":
                asked = [alias.name for alias in node.names]
            else:
                continue
            for name in asked:
                if f"minicm.{name}" not in modules and name != "__version__":
                    yield f"{m.at(node.lineno)}: {name} from minicm itself: import it from its module"


def rule_objectives_stand_alone(modules: Modules) -> Iterator[str]:
    for m in modules.values():
        if room(m.name) != "objectives" or m.path.name == "__init__.py":
            continue
        for target, line, _ in m.imports:
            if room(target) == "objectives" and target != "minicm.objectives.base":
                yield f"{m.at(line)}: imports {target}: an objective imports no other but base"


def rule_nets_import_torch_only(modules: Modules) -> Iterator[str]:
    for m in modules.values():
        for i in m.imports if room(m.name) == "nets" else []:
            fine = room(i.target) == "nets" or i.top in {"torch", *sys.stdlib_module_names}
            if not fine:
                yield f"{m.at(i.line)}: imports {i.target}: nets import torch and nets alone"


def rule_data_init_is_empty(modules: Modules) -> Iterator[str]:
    m = modules.get("minicm.data")
    if m is not None and m.tree.body:
        yield f"{m.at(m.tree.body[0].lineno)}: is to be empty: the mixtures stand below other data"


def rule_tyro_in_the_command_only(modules: Modules) -> Iterator[str]:
    for m in modules.values():
        for i in m.imports:
            if i.top == "tyro" and m.name != "minicm.__main__":
                yield f"{m.at(i.line)}: imports {i.target}: only minicm/__main__.py may"


def rule_the_package_stands_alone(modules: Modules) -> Iterator[str]:
    for m in modules.values():
        for i in m.imports:
            if i.top in {"docs", "notebooks", "tests"}:
                yield f"{m.at(i.line)}: imports {i.target}, which no wheel brings: studies import minicm, never the reverse"


def rule_third_parties_are_declared(modules: Modules) -> Iterator[str]:
    for m in modules.values():
        for i in m.imports:
            if i.at_once and i.top not in {"minicm", *CORE, *sys.stdlib_module_names}:
                yield f"{m.at(i.line)}: imports {i.target}, not in CORE: do so inside the function"


def rule_import_minicm_is_light(modules: Modules) -> Iterator[str]:
    reached, todo = set(), {"minicm"} & set(modules)
    while todo:
        m = modules[todo.pop()]
        reached.add(m.name)
        for i in m.imports:
            if i.at_once and i.top in CORE:
                yield f"{m.at(i.line)}: `import minicm` loads {i.target}: import it where it is used"
            parts = i.target.split(".") if i.at_once else []
            loaded = {".".join(parts[: k + 1]) for k in range(len(parts))}  # a.b.c, a.b and a
            todo |= (loaded & set(modules)) - reached


def rule_nothing_is_unpickled(modules: Modules) -> Iterator[str]:
    for m in modules.values():
        found = [(i.line, i.target) for i in m.imports if i.top in UNPICKLERS]
        for node in ast.walk(m.tree):
            if isinstance(node, ast.Attribute | ast.keyword):
                found += [(node.lineno, text) for text in {ast.unparse(node)} & UNPICKLING]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found += [(node.lineno, name) for name in names & UNPICKLING]
        for line, what in found:
            yield f"{m.at(line)}: {what}: minicm unpickles nothing; see minicm/checkpoint.py"


RULES = {name[5:]: rule for name, rule in list(globals().items()) if name.startswith("rule_")}


@pytest.mark.parametrize("rule", RULES)
def test_package(rule):
    modules = read(PACKAGE)
    assert "minicm" in modules, f"no package found at {PACKAGE}"
    complaints = list(RULES[rule](modules))
    assert not complaints, "\n" + "\n".join(complaints)


STUDENT = "schedules times distances denoiser solvers sampling ema train objectives nets.embeddings nets.mlp nets.unet"


def lines_of(*rooms: str) -> int:
    """Lines of Python in some rooms of the package; "" is all of it."""
    paths = [PACKAGE / room.replace(".", "/") for room in rooms]
    files = [f for p in paths for f in (p.rglob("*.py") if p.is_dir() else [p.with_suffix(".py")])]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def test_the_package_is_small():
    """What a reader can hold: raise neither number, take something out instead."""
    assert lines_of("") <= 11_500
    assert lines_of(*STUDENT.split()) <= 2_500


SOUND = {
    "__init__.py": "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from minicm.train import train",
    "course/peer.py": "from minicm.course.wire import Parcel",
    "course/wire.py": "import json",
    "data/__init__.py": "",
    "data/mixtures.py": "from minicm.denoiser import Denoiser",
    "data/toy.py": "from .mixtures import GaussianMixture",
    "denoiser.py": "from .schedules import EDM",
    "nets/__init__.py": "from .mlp import MLP",
    "nets/mlp.py": "import math\n\nimport torch.nn.functional as F",
    "objectives/base.py": "from .. import times",
    "objectives/ct.py": "from .base import Objective",
    "schedules.py": "import torch",
    "times.py": "from minicm.schedules import EDM",
    "train.py": "import torch\n\ndef progress():\n    import tqdm",
    "__main__.py": "import tyro\n\nfrom minicm import train",
}
BREACHES = [
    ("every_module_has_a_room", "samplers.py", "", "samplers.py:1"),
    ("imports_go_down", "solvers.py", "\nfrom minicm.train import train", "solvers.py:2"),
    ("imports_go_down", "solvers.py", "from . import train", "minicm.train"),
    ("imports_go_down", "solvers.py", "def f():\n    import minicm.train", "solvers.py:2"),
    ("imports_go_down", "nets/mlp.py", "from ..train import train", "nets/mlp.py:1"),
    ("imports_go_down", "solvers.py", "from minicm import EDM", "imports minicm,"),
    ("nothing_inside_uses_the_front_door", "course/kit.py", "\nfrom minicm import EDM", "kit.py:2: EDM"),
    ("nothing_inside_uses_the_front_door", "demo.py", "def f():\n    import minicm as cm", "demo.py:2: all"),
    ("imports_go_down", "data/mixtures.py", "from .toy import moons", "minicm.data.toy"),
    ("imports_go_down", "schedules.py", "from minicm.times import karras_grid", "minicm.times"),
    (
        "imports_run_in_no_circle",
        "course/wire.py",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from .peer import Peer",
        "minicm.course.peer -> minicm.course.wire -> minicm.course.peer",
    ),
    ("imports_run_in_no_circle", "times.py", "def f():\n    from .times import g", "minicm.times -> minicm.times"),
    ("imports_go_down", "runs.py", "from minicm.course import kit", "minicm.course"),
    ("the_package_stands_alone", "denoiser.py", "def f():\n    from tests.course import planted", "denoiser.py:2"),
    ("the_package_stands_alone", "denoiser.py", "from docs.studies.plain import train", "docs.studies.plain"),
    ("objectives_stand_alone", "objectives/ict.py", "from .ct import CT", "objectives.ct"),
    ("nets_import_torch_only", "nets/mlp.py", "import torch\nimport numpy as np", "mlp.py:2"),
    ("nets_import_torch_only", "nets/mlp.py", "from ..times import karras_grid", "minicm.times"),
    ("data_init_is_empty", "data/__init__.py", "\nfrom .toy import moons", "data/__init__.py:2"),
    ("tyro_in_the_command_only", "recipes/ring.py", "def f():\n    import tyro", "ring.py:2"),
    ("third_parties_are_declared", "metrics.py", "try:\n    import ot\nfinally: ...", "imports ot"),
    ("import_minicm_is_light", "__init__.py", "import torch", "__init__.py:1"),
    ("import_minicm_is_light", "__init__.py", "from minicm.train import train", "train.py:1"),
    ("nothing_is_unpickled", "checkpoint.py", "import pickle", "checkpoint.py:1"),
    ("nothing_is_unpickled", "checkpoint.py", "\ntorch.load(x, weights_only=True)", ".py:2"),
    ("nothing_is_unpickled", "checkpoint.py", "from torch import load", "torch.load"),
    ("nothing_is_unpickled", "data/toy.py", "np.load(path, allow_pickle=True)", "allow_pickle"),
]


@pytest.mark.parametrize("rule, file, source, complaint", BREACHES)
def test_each_rule_sees_its_breach(tmp_path, rule, file, source, complaint):
    for path, text in {**SOUND, file: source}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    assert complaint in "\n".join(RULES[rule](read(tmp_path)))


def test_a_sound_package_raises_no_complaint(tmp_path):
    for path, text in SOUND.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    assert [c for rule in RULES.values() for c in rule(read(tmp_path))] == []
