"""What README and docs say holds: their code runs, their links lead somewhere, every public name has a docstring.

Each check is a function that yields complaints, and the last tests plant one fault of each kind and ask for the
complaint. That the site builds is checked in tests/docs/test_site.py, the notebooks in tests/docs/test_notebooks.py.
"""

import importlib.util
import inspect
import pkgutil
import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import minicm
from minicm.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"reference", "notebooks", "_build"}  # below docs/, written by the build
PAGES = [
    ROOT / "README.md",
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if not GENERATED & set(p.relative_to(ROOT).parts[1:-1])),
]
CUT = {"steps=2000": "steps=20"}  # a training that a page shows in full is begun here, no more


def blocks(page: Path) -> str:
    """All ```python blocks of a page, one after another, each on its own lines of the page."""
    code: list[str] = []
    for found in re.finditer(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
        first = page.read_text()[: found.start(1)].count("\n")
        code += [""] * (first - len(code)) + found[1].splitlines()
    return "\n".join(code)


def run(page: Path) -> dict:
    """Run a page's code from top to bottom in one namespace; a failure shows the page and the line."""
    code = blocks(page)
    for full, cut in CUT.items():
        code = code.replace(full, cut)
    names: dict = {}
    torch.manual_seed(0)
    exec(compile(code, str(page), "exec"), names)
    return names


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES[1:] if blocks(p)], ids=name_of)  # README: test_readme.py
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        run(page)


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Links and pictures of a Markdown page that lead to no file of the repository."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^()\s]+)\)", text):
        path = (page.parent / target.partition("#")[0]).resolve()
        outside = re.match(r"\w+:|#", target)
        generated = ROOT / "docs" in path.parents and path.relative_to(ROOT / "docs").parts[0] in GENERATED
        if not (outside or generated or path.exists()):
            yield f"{page.name}: {target} leads nowhere"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert not list(broken_links(page, page.read_text()))


def unknown_names(text: str) -> Iterator[str]:
    """Recipes, modules and targets of make that a page names and that there are not."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    yield from set(re.findall(r"\b(?:mixture|digits|cifar10)-[a-z-]*[a-z]\b", text)) - RECIPES.keys()
    yield from set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, flags=re.MULTILINE)) - set(targets)
    for module in set(re.findall(r"python -m (minicm[\w.]*)", text)):
        if importlib.util.find_spec(module) is None:
            yield module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_is_there(page):
    assert not list(unknown_names(page.read_text()))


def modules() -> list[types.ModuleType]:
    names = [m.name for m in pkgutil.walk_packages(minicm.__path__, "minicm.") if "._" not in m.name]
    return [importlib.import_module(name) for name in ["minicm", *names]]


def undocumented(module: types.ModuleType) -> Iterator[str]:
    """Public names that a module defines, and public methods of its classes, without a docstring, own or inherited."""
    file = getattr(module, "__file__", None)
    empty = file is not None and not Path(file).read_text().strip()  # minicm.data
    if not module.__doc__ and not empty:
        yield module.__name__
    for name, value in vars(module).items():
        own = inspect.isfunction(value) or inspect.isclass(value)
        if name.startswith("_") or not own or value.__module__ != module.__name__:
            continue
        if not inspect.getdoc(value):
            yield f"{module.__name__}.{name}"
        for method, part in vars(value).items() if inspect.isclass(value) else []:
            routine = inspect.isroutine(part) or isinstance(part, property)
            if not method.startswith("_") and routine and not inspect.getdoc(getattr(value, method)):
                yield f"{module.__name__}.{name}.{method}"


def test_every_public_name_has_a_docstring():
    missing = [name for module in modules() for name in undocumented(module)]
    assert not missing, f"without a docstring: {', '.join(missing)}"


def test_a_broken_link_is_seen():
    text = "[a](architecture.md) [b](architecture.md#rooms) [c](https://arxiv.org) [d](gone.md) ![e](figures/gone.png)"
    seen = list(broken_links(ROOT / "docs" / "page.md", text))
    assert [line.split()[1] for line in seen] == ["gone.md", "figures/gone.png"]


def test_unknown_names_are_seen():
    text = "`minicm train mixture-cd`, runs/mixture-cd-001, `digits-nothing`; `make sense`, `python -m minicm.nowhere`"
    assert list(unknown_names(text)) == ["digits-nothing", "sense", "minicm.nowhere"]


def test_a_missing_docstring_is_seen():
    module = types.ModuleType("module", "documented")
    code = 'def f(): pass\ndef g(): "so"\nclass A:\n  "so"\n  def h(self): pass\n  def _i(self): pass\n'
    exec(code, vars(module))
    for name in ("f", "g", "A"):
        vars(module)[name].__module__ = "module"
    assert list(undocumented(module)) == ["module.f", "module.A.h"]


def test_code_that_does_not_run_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\na = 1\n```\n\n```text\nnot code\n```\n\n```python\nassert a == 2\n```\n")
    with pytest.raises(AssertionError) as failure:
        run(page)
    assert failure.traceback[-1].lineno == 11, "the line is the page's, counted from 0"
