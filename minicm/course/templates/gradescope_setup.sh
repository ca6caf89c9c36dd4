#!/usr/bin/env bash
# Gradescope runs this once, when the autograder is built. Give the container at least 2 CPUs and 3 GB: torch alone takes .3 GB.
set -euo pipefail
apt-get update
apt-get install -y python3 python3-venv
python3 -m venv /autograder/venv
/autograder/venv/bin/pip install --index-url @TORCH_INDEX@ torch # the CPU build: the default one brings CUDA along
/autograder/venv/bin/pip install /autograder/source/package
