"""The code that README.md shows runs as it stands; only its number of steps is cut. It is short, and docs/index.md has the same."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def code(page: str) -> str:
    """The first example of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)[0]


def test_the_readmes_code_runs(capsys):
    assert "steps=2000" in code("README.md")
    exec(compile(code("README.md").replace("steps=2000", "steps=20"), "README.md", "exec"), {})
    # one-step samples of an untrained f are c_skip x, about 0: one sigma_d away from data of standard deviation sigma_d
    assert 0 < float(capsys.readouterr().out) < 2


def test_it_is_ten_lines_with_one_import_and_the_sites_first_page_has_the_same():
    lines = [line for line in code("README.md").splitlines() if line]
    assert len(lines) <= 10 and [line for line in lines if "import" in line] == ["import minicm as cm"]
    assert all(len(line) <= 110 for line in lines)
    assert code("docs/index.md") == code("README.md")
