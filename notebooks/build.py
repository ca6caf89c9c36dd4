"""Write, run and check the notebooks; notebooks/README.md tells how to use it.

A notebook is written as percent text (jupytext) in notebooks/drafts/NAME.py, which git ignores, and committed as
notebooks/NAME.ipynb with the outputs of a full run. What is committed depends on the code alone: no times, no machine's
name, the same cell ids on every run; and it holds a hash of its code, so that outputs of other code are noticed.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

REPOSITORY = ""  # "owner/name" on GitHub; while it is empty, notebooks have no links that open them in the browser
HERE = Path(__file__).parent
DRAFTS, FAST_RUNS = HERE / "drafts", HERE.parent / "runs" / "notebooks"
LARGEST = 2_000_000  # bytes of a notebook
OPEN = "https://colab.research.google.com/github/{}/blob/main/notebooks/{}.ipynb"

Notebook = dict[str, Any]


def names() -> list[str]:
    """All notebooks, in order: 00_one_page, ..."""
    return sorted(path.stem for path in HERE.glob("[0-9][0-9]_*.ipynb"))


def read(path: Path) -> Notebook:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, notebook: Notebook) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def code_hash(notebook: Notebook) -> str:
    """A hash of the code cells in order: what the outputs belong to."""
    code = "\n\0".join(source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def load(name: str) -> Notebook:
    """The cells to run: of the draft where there is one, of the notebook otherwise.

    Where ruff is at hand they are formatted and checked; raises SystemExit with its complaints.
    """
    import jupytext
    import nbformat

    draft = DRAFTS / f"{name}.py"
    path = draft if draft.exists() else HERE / f"{name}.ipynb"
    text = nbformat.writes(jupytext.read(path), version=4)
    if shutil.which("ruff"):
        place = ["--quiet", "--stdin-filename", str(HERE / f"{name}.ipynb"), "-"]
        text = subprocess.run(["ruff", "format", *place], input=text, capture_output=True, text=True, check=True).stdout
        checked = subprocess.run(["ruff", "check", *place], input=text, capture_output=True, text=True)
        if checked.returncode:
            raise SystemExit(checked.stdout + checked.stderr)
    return tidy(json.loads(text), name)


def run(notebook: Notebook) -> Notebook:
    """The notebook with the outputs of a fresh kernel. Raises CellExecutionError where a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    live = nbformat.reads(json.dumps(notebook), as_version=4)
    NotebookClient(live, timeout=1800, record_timing=False, resources={"metadata": {"path": str(HERE)}}).execute()
    return json.loads(nbformat.writes(live, version=4))


def tidy(notebook: Notebook, name: str) -> Notebook:
    """Leave nothing that would change from run to run or from machine to machine, and set the link."""
    cells = [cell for cell in notebook["cells"] if cell.get("id") != "open"]
    for i, cell in enumerate(cells):
        cell["id"], cell["metadata"] = f"cell-{i:02d}", {}
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if not _progress_bar(output)]
    if REPOSITORY:
        link = f"[Open in the browser]({OPEN.format(REPOSITORY, name)})"
        cells.insert(1, {"cell_type": "markdown", "id": "open", "metadata": {}, "source": [link]})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    metadata["minicm"] = {"code": code_hash(notebook)}
    return notebook


def _progress_bar(output: dict[str, Any]) -> bool:
    return output.get("name") == "stderr" and "\r" in "".join(output["text"])


def faults(notebook: Notebook, name: str) -> list[str]:
    """What is wrong with a committed notebook, one line a fault; none for one that is fit to be seen."""
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    text = "".join(source(cell) for cell in cells)
    links = [cell for cell in cells if cell["id"] == "open"]
    checks = {
        "it has no outputs: run it with notebooks/build.py": outputs,
        "its cells did not run in order, from a fresh kernel": (
            [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
        ),
        "its outputs belong to other code: run it again": (
            notebook["metadata"].get("minicm", {}).get("code") == code_hash(notebook)
        ),
        "it holds an error or a warning": not any(
            output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs
        ),
        "it has no picture": "image/png" in kinds,
        "it checks nothing: no assert": any("assert " in source(cell) for cell in code),
        "it has no exercise with a folded answer": "<details>" in text,
        "it has no fast mode": "MINICM_FAST" in source(code[0]),
        "it does not begin with a title": cells[0]["cell_type"] == "markdown" and text.startswith("# "),
        f"it has {len(cells)} cells, not 15 to 40": 15 <= len(cells) - len(links) <= 40,
        f"it is larger than {LARGEST} bytes": len(json.dumps(notebook)) < LARGEST,
        "it holds what tidy() removes": notebook == tidy(json.loads(json.dumps(notebook)), name),
        "it names a folder of this machine": not any(
            folder in json.dumps(notebook) for folder in ("/home/", "/tmp/", str(HERE.parent))
        ),
    }
    return [f"{name}: {fault}" for fault, good in checks.items() if not good]


def build(name: str) -> float:
    """Run a notebook and write it in place; in fast mode to runs/notebooks instead. Returns the seconds it took."""
    start = time.perf_counter()
    done = tidy(run(load(name)), name)
    write((FAST_RUNS if os.environ.get("MINICM_FAST") else HERE) / f"{name}.ipynb", done)
    return time.perf_counter() - start


def retext(name: str) -> None:
    """Take over the text of a draft, and the outputs that are there: only where no code has changed."""
    done, new = read(HERE / f"{name}.ipynb"), load(name)
    if code_hash(new) != done["metadata"]["minicm"]["code"]:
        raise SystemExit(f"{name}: the code has changed, too: run it")
    ran = iter([cell for cell in done["cells"] if cell["cell_type"] == "code"])
    cells = [cell if cell["cell_type"] == "markdown" else next(ran) for cell in new["cells"]]
    write(HERE / f"{name}.ipynb", tidy(new | {"cells": cells}, name))


def edit(name: str) -> None:
    """Write the draft of a notebook, to go on working at it; refuses to overwrite one."""
    import jupytext

    draft = DRAFTS / f"{name}.py"
    if draft.exists():
        raise SystemExit(f"{draft} exists: edit that, or remove it")
    DRAFTS.mkdir(exist_ok=True)
    jupytext.write(jupytext.read(HERE / f"{name}.ipynb"), draft, fmt="py:percent")


def main() -> None:
    """The command line: build, or with --edit, --text or --links something that runs nothing."""
    parser = argparse.ArgumentParser(description="Run notebooks and write their outputs in place.")
    parser.add_argument("names", nargs="*", help="such as 00_one_page, or its first digits; all if none is given")
    parser.add_argument("--edit", action="store_true", help="write notebooks/drafts/NAME.py from the notebook")
    parser.add_argument("--text", action="store_true", help="take over the text of the draft, run nothing")
    parser.add_argument("--links", action="store_true", help="set the links that REPOSITORY asks for, run nothing")
    options = parser.parse_args()
    known = sorted({*names(), *(path.stem for path in DRAFTS.glob("[0-9][0-9]_*.py"))})
    chosen = [name for name in known if not options.names or name.startswith(tuple(options.names))]
    if not chosen:
        parser.error(f"no notebook is called {' or '.join(options.names)}: there are {', '.join(known)}")
    for name in chosen:
        if options.edit:
            edit(name)
        elif options.text:
            retext(name)
        elif options.links:
            write(HERE / f"{name}.ipynb", tidy(read(HERE / f"{name}.ipynb"), name))
        else:
            before = os.times()
            seconds = build(name)
            cpu = sum(os.times()[2:4]) - sum(before[2:4])  # of the kernel: what a quiet machine would take
            print(f"{name}: {seconds:.0f} s, {cpu:.0f} s of one core", flush=True)


if __name__ == "__main__":
    main()
