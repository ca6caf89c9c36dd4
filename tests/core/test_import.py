"""`import minicm` is light: an assignment or a script that needs one schedule does not wait for plots and SciPy."""

from __future__ import annotations

import subprocess
import sys


def test_import_minicm_loads_no_heavy_library():
    code = "import sys, minicm; print(' '.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "minicm" in done.stdout.split()
    assert not {"scipy", "matplotlib", "tqdm", "tyro", "safetensors", "PIL"} & set(done.stdout.split())
