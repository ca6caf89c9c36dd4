"""The documentation builds without a warning, asks nothing of the network, and no link in it is broken."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """What a page of HTML loads, where it links to, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.loads, self.links, self.anchors, self.formulas = path, [], [], set(), 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.formulas += "math" in given.get("class", "").split()
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "modulepreload"):
            self.loads.append(given.get("href", ""))
        elif given.get(LOADING.get(tag, "")):
            self.loads.append(given[LOADING[tag]])


def outside(page: Page) -> Iterator[str]:
    """What a page would fetch from elsewhere, itself or through its style sheets."""
    sheets = [page.path.parent / urlsplit(load).path for load in page.loads if urlsplit(load).path.endswith(".css")]
    styles = [text for sheet in sheets if sheet.is_file() for text in re.findall(r"url\(([^)]*)\)", sheet.read_text())]
    for load in [*page.loads, *(style.strip("'\" ") for style in styles)]:
        if re.match(r"(https?:)?//", load):
            yield f"{page.path.name} loads {load}"


def broken(pages: dict[Path, Page]) -> Iterator[str]:
    """Links and loads within the site that lead to no file, or to an anchor that its page has not."""
    for page in pages.values():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            there = pages.get(target)
            if not target.exists():
                yield f"{page.path.name}: {link} leads nowhere"
            elif there and parts.fragment and unquote(parts.fragment) not in there.anchors:
                yield f"{page.path.name}: {link} has no such anchor"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    pytest.importorskip("myst_nb")
    pytest.importorskip("furo")
    pytest.importorskip("sphinxcontrib.katex")
    out = tmp_path_factory.mktemp("site").resolve()
    options = ["-m", "sphinx", "-W", "--keep-going", "-n", "-q"]
    command = [sys.executable, *options, DOCS, out / "html", "-d", out / "trees"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {path: Page(path) for path in sorted((out / "html").rglob("*.html"))}


def test_nothing_is_fetched_from_outside(site):
    assert [complaint for page in site.values() for complaint in outside(page)] == []


def test_no_link_is_broken(site):
    assert list(broken(site)) == []


def test_mathematics_is_set_by_the_files_that_are_shipped(site):
    page = next(page for path, page in site.items() if path.match("methods/cd.html"))
    assert page.formulas > 10
    (sheet,) = (page.path.parent / urlsplit(load).path for load in page.loads if "katex.min.css" in load)
    (code,) = (page.path.parent / urlsplit(load).path for load in page.loads if "katex.min.js" in load)
    version = re.search(r'content:"(0\.\d+\.\d+)"', sheet.read_text())[1]
    assert f'version:"{version}"' in code.read_text(), "another version's style sheet sets formulas wrongly"


def test_no_formula_is_left_unset(site):
    assert [path.name for path in site if '$<span class="math' in path.read_text()] == [], "a $$ that found no mate"


def test_every_module_is_in_the_reference(site):
    text = "".join(path.read_text() for path in site if path.parent.name == "reference")
    modules = [path for path in (DOCS.parent / "minicm").rglob("*.py") if not path.name.startswith("_")]
    names = [".".join(path.relative_to(DOCS.parent).with_suffix("").parts) for path in modules]
    names = [name for name in names if not name.startswith("minicm.course.templates")]
    assert [name for name in names if f'id="module-{name}"' not in text] == []


def test_planted_faults_are_seen(tmp_path):
    sheet, one, two = (tmp_path / name for name in ("a.css", "one.html", "two.html"))
    sheet.write_text("@font-face { src: url('https://fonts.example/f.woff2') }")
    one.write_text(
        '<link rel="stylesheet" href="a.css"><script src="//cdn.example/x.js"></script><img src="gone.png">'
        '<a href="two.html#here">a</a><a href="two.html#there">b</a><a href="gone.html">c</a><a href="https://x.org">d</a>'
    )
    two.write_text('<p id="here" class="math">x</p>')
    pages = {path: Page(path) for path in (one, two)}
    assert [line.split()[-1] for line in outside(pages[one])] == ["//cdn.example/x.js", "https://fonts.example/f.woff2"]
    assert [line.split()[1] for line in broken(pages)] == ["two.html#there", "gone.html", "gone.png"]
    assert pages[two].formulas == 1
