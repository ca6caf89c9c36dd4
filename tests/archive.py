"""A tiny CIFAR-10 in the official layout, written for a test."""

from pathlib import Path

import numpy as np

from minicm.data.cifar10 import BATCHES, RECORD, TEST, TRAIN

RECORDS = 20  # a file; the official files have 10,000


def contents() -> dict[str, bytes]:
    """Six files of random records with labels 0..9."""
    rng = np.random.default_rng(0)
    files = {}
    for name in TRAIN + TEST:
        records = rng.integers(0, 256, (RECORDS, RECORD), dtype=np.uint8)
        records[:, 0] = rng.permutation(RECORDS) % 10
        files[name] = records.tobytes()
    return files


def write_folder(folder: Path) -> Path:
    """The folder that holds the one with the six files."""
    (folder / BATCHES).mkdir(parents=True)
    for name, data in contents().items():
        (folder / BATCHES / name).write_bytes(data)
    return folder
