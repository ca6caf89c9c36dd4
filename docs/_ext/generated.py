"""Pages that follow from other files: the reference from the package's modules, and the notebooks with their outputs."""

import json
import pkgutil
import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
ROOMS = {  # page -> the rooms of the architecture that it shows; a module that is in none goes to the last page
    "Clocks, times, denoiser": ("schedules", "times", "distances", "denoiser"),
    "Networks": ("nets",),
    "Data and the exact answer": ("data",),
    "Solvers, sampling, editing": ("solvers", "sampling", "editing"),
    "Objectives": ("objectives",),
    "Training": ("ema", "checkpoint", "train", "resume", "parallel", "export"),
    "Measuring": ("metrics",),
    "Figures": ("plots",),
    "Course": ("course",),
    "Recipes and the command": (),
}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, link_notebooks(source[0])))
    app.connect("builder-inited", lambda app: reference(Path(app.srcdir) / "reference"))
    app.connect("builder-inited", lambda app: notebooks(Path(app.srcdir) / "notebooks"))
    return {"parallel_read_safe": True}


def link_notebooks(text: str) -> str:
    """Links to notebooks in the repository, which serve who reads the sources, as links to their pages here."""
    text = re.sub(r"\]\((?:\.\./)+notebooks/(\d\d_\w+\.ipynb)\)", r"](/notebooks/\1)", text)
    return re.sub(r"\]\((?:\.\./)+notebooks/README\.md\)", "](/notebooks/index.md)", text)


def write(path: Path, text: str) -> None:
    """Write a file where its text is new, so that a second build finds nothing to do."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def modules() -> list[tuple[str, bool]]:
    """(name, whether it is a package) of every public module of minicm, without importing any."""
    found = pkgutil.walk_packages([str(ROOT / "minicm")], "minicm.", onerror=lambda name: None)
    return [(m.name, m.ispkg) for m in found if "._" not in m.name]


def reference(folder: Path) -> None:
    """A page a room, each module with the docstrings of all its public names."""
    folder.mkdir(exist_ok=True)
    pages: dict[str, list[str]] = {title: [] for title in ROOMS}
    for name, is_package in modules():
        room = name.split(".")[1]
        title = next((title for title, rooms in ROOMS.items() if room in rooms), list(ROOMS)[-1])
        members = [] if is_package else ["   :members:"]  # a package only passes on what its modules define
        heading = f"## `{name}`"
        pages[title].append("\n".join([heading, "", "```{eval-rst}", f".. automodule:: {name}", *members, "```"]))
    names = []
    for title, parts in pages.items():
        names.append("".join(c if c.isalnum() else "-" for c in title.lower()).replace("--", "-"))
        write(folder / f"{names[-1]}.md", "\n\n".join([f"# {title}", *parts]) + "\n")
    intro = "Every public name, from its docstring. Shapes: x is (B, *D), t is (B,); losses are (B,); predictions are x0_hat."
    toc = "\n".join(["```{toctree}", ":maxdepth: 1", "", *names, "```"])
    write(folder / "index.md", f"# Reference\n\n{intro}\n\n{toc}\n")


def notebooks(folder: Path) -> None:
    """The notebooks of the repository, with links that fit their place here, and a page that lists them."""
    folder.mkdir(exist_ok=True)
    sources = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    for old in set(folder.glob("*.ipynb")) - {folder / source.name for source in sources}:
        old.unlink()
    for source in sources:
        text = source.read_text().replace("](../docs/", "](_DOCS_").replace("](../", "](../../")
        write(folder / source.name, text.replace("](_DOCS_", "](../"))
    for picture in [p for kind in ("png", "gif", "svg") for p in (ROOT / "notebooks").glob(f"*.{kind}")]:
        shutil.copyfile(picture, folder / picture.name)
    names = [f"{source.stem[:2]} {title_of(source)} <{source.stem}>" for source in sources]
    intro = (
        "Each notebook is one idea: a question, a prediction, a run, a picture with the truth beside the learned, and a check. "
        "They are shown as committed; to run them, `make notebooks`."
        if names
        else "There are no notebooks yet."
    )
    toc = "\n".join(["```{toctree}", ":maxdepth: 1", "", *names, "```"]) if names else ""
    write(folder / "index.md", f"# Notebooks\n\n{intro}\n\n{toc}\n")


def title_of(notebook: Path) -> str:
    """The first heading of a notebook."""
    cells = json.loads(notebook.read_text())["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), notebook.stem)
