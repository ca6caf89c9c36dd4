"""The code that README.md shows runs as it stands; only its number of steps is cut."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_code_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert "steps=2000" in code
    exec(compile(code.replace("steps=2000", "steps=20"), str(README), "exec"), {})
    # one-step samples of an untrained f are c_skip x, about 0: one sigma_d away from data of standard deviation sigma_d
    assert 0 < float(capsys.readouterr().out) < 2
