"""Write and run the handouts' notebooks: python notebooks/assignments/build.py a1 [--edit].

A handout is committed as a student finds it: run in a copy of what `minicm course export` gives, so that every check says what is still to
be written. With --edit
its percent text is written to notebooks/drafts/a1.py, which git ignores; change that, then run this without --edit. The rest is
notebooks/build.py's. docs/course.md tells what a handout must have.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from minicm.course.export import export

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("notebooks_build", HERE.parent / "build.py")
assert spec and spec.loader
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)


def cells(name: str) -> dict[str, Any]:
    """The handout to run: of its draft where there is one, of the notebook otherwise."""
    import jupytext
    import nbformat

    draft = notebooks.DRAFTS / f"{name}.py"
    text = nbformat.writes(jupytext.read(draft if draft.exists() else HERE / name / f"{name}.ipynb"), version=4)
    if shutil.which("ruff"):
        command = ["ruff", "format", "--quiet", "--stdin-filename", f"{name}.ipynb", "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return notebooks.tidy(json.loads(text), name)


def run(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    """The notebook with the outputs of a fresh kernel, in a copy of what a student receives."""
    import nbformat
    from nbclient import NotebookClient

    live = nbformat.reads(json.dumps(notebook), as_version=4)
    with tempfile.TemporaryDirectory() as place:
        first, *_ = export([HERE / name], Path(place) / "handout")
        where = {"metadata": {"path": str(first.parent)}}
        NotebookClient(live, timeout=1800, record_timing=False, resources=where).execute()
    return json.loads(nbformat.writes(live, version=4))


def main(name: str, edit: bool = False) -> None:
    """Run a handout with its stubs and write it in place, or write its draft."""
    if edit:
        import jupytext

        notebooks.DRAFTS.mkdir(exist_ok=True)
        jupytext.write(jupytext.read(HERE / name / f"{name}.ipynb"), notebooks.DRAFTS / f"{name}.py", fmt="py:percent")
        return
    done = notebooks.tidy(run(cells(name), name), name)
    notebooks.write(HERE / name / f"{name}.ipynb", done)


if __name__ == "__main__":
    main(sys.argv[1], "--edit" in sys.argv)
