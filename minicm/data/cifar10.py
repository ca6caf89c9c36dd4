"""CIFAR-10 from its official binary version, which is plain bytes: nothing is unpickled.

Source: A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images; the format, the
address and the checksum are those of the page www.cs.toronto.edu/~kriz/cifar.html. Six files of
10,000 records; a record has 3,073 bytes: a label 0..9, then 1,024 red, green and blue values, by rows.

Nothing is fetched unless `download` is called:

    download("data")                 # 170 MB into data/; call it again to go on after an interruption
    Cifar10("data").sample(128)      # or any folder that holds the unpacked files

An archive that came another way (the host is at times slow) needs no network: put it into the folder
before `download`, which then checks and unpacks it, or hand it to `unpack`.
"""

import gzip
import hashlib
import http.client
import os
import shutil
import ssl
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from minicm.data.points import drawn

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
ARCHIVE = "cifar-10-binary.tar.gz"
BATCHES = "cifar-10-batches-bin"  # the folder in the archive
TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
TEST = ("test_batch.bin",)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BROKEN = (ConnectionError, TimeoutError, ssl.SSLError)  # what a line that fails raises; a full disk does not
RECORD = 1 + 3 * 32 * 32  # bytes: label, red, green, blue


class Cifar10:
    """CIFAR-10 in [-1, 1] with labels 0..9 (`CLASSES` names them), kept as bytes on one device.

    `images` (N, 3, 32, 32) uint8 and `labels` (N,) int64, N = 50,000 for training and 10,000 for
    testing: 154 and 31 MB. Over all pixels the standard deviation is 0.50 (`sigma_data`), the mean -0.05.
    `folder` is cifar-10-batches-bin or the folder that holds it. Raises ValueError, with the way out,
    where it is missing, truncated, only half unpacked or not CIFAR-10.
    """

    name = "cifar10"
    classes = 10
    sigma_data = 0.5

    def __init__(
        self,
        folder: str | os.PathLike[str],
        train: bool = True,
        *,
        device: torch.device | str = "cpu",  # where the bytes are kept and pictures are made
        flip: bool = True,  # mirror half of the pictures drawn, left to right
    ) -> None:
        batches = _find(Path(folder))
        _check_sizes(batches)
        records = [_read(batches / name) for name in (TRAIN if train else TEST)]
        images = torch.cat([r[:, 1:].reshape(-1, 3, 32, 32) for r in records])
        self.images = images.to(device)
        self.labels = torch.cat([r[:, 0] for r in records]).to(device, torch.int64)
        self.flip = flip

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n pictures with replacement: x0 (n, 3, 32, 32) in torch's default dtype, label (n,), where `drawn` has them."""
        pictures, label = drawn(n, generator, self.images, self.labels)
        if self.flip:
            mirrored = torch.rand(n, 1, 1, 1, generator=generator, device=pictures.device) < 0.5
            pictures = torch.where(mirrored, pictures.flip(-1), pictures)
        return pictures.to(torch.get_default_dtype()).div_(127.5).sub_(1), label


def download(folder: str | os.PathLike[str], *, url: str = URL, md5: str = MD5) -> Path:
    """Fetch, check and unpack the archive into `folder`; returns the folder that `Cifar10` reads.

    What is there already is kept: unpacked files, a whole archive (checked again), or the part of one,
    which is continued. Needs 360 MB. Raises ConnectionError where the network fails (call again to
    go on), ValueError for a wrong checksum or a damaged archive.
    """
    folder = Path(folder)
    batches, archive, part = folder / BATCHES, folder / ARCHIVE, folder / (ARCHIVE + ".part")
    if batches.exists():
        _check_sizes(batches)
        return batches
    folder.mkdir(parents=True, exist_ok=True)
    if archive.exists():
        if _md5(archive) != md5:
            raise ValueError(f"{archive} does not have the MD5 {md5}: remove it and call download again")
    else:
        _fetch(url, part)
        if _md5(part) != md5:
            part.unlink()  # or every later call would continue a wrong file
            raise ValueError(f"what {url} sent does not have the MD5 {md5}; it was removed: try again")
        os.replace(part, archive)
    return unpack(archive, folder)


def unpack(archive: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Unpack the six files of `archive` into `folder`/cifar-10-batches-bin, all or nothing.

    Only they are written, under their known names, beside the goal and then renamed. Raises ValueError
    for an archive that is missing, truncated, incomplete, or has entries no data archive needs.
    """
    archive, batches = Path(archive), Path(folder) / BATCHES
    if not archive.is_file():
        raise ValueError(f"{archive} is not there: name the file {ARCHIVE}, or call download(folder)")
    if batches.exists():
        raise ValueError(f"{batches} is there already: remove it first to unpack it afresh")
    batches.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".cifar-10-", dir=batches.parent) as scratch:
        beside = Path(scratch) / BATCHES
        beside.mkdir()
        try:
            with gzip.open(archive) as stream:
                with tarfile.open(fileobj=stream, mode="r|") as tar:
                    _extract(tar, beside)
                while stream.read(1 << 20):  # gzip's own checksum stands at the very end
                    pass
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(
                f"{archive} is truncated or no tar.gz file ({error}): remove it and fetch it again"
            ) from error
        _check_sizes(beside, f"{archive} is not the CIFAR-10 binary archive")
        os.replace(beside, batches)
    return batches


def _extract(tar: tarfile.TarFile, into: Path) -> None:
    """Copy the six files; an entry that is a link or a device, or points elsewhere, condemns all."""
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise ValueError(f"the archive has an unsafe entry {member.name!r}: nothing was unpacked")
        wanted = path.parent == PurePosixPath(BATCHES) and path.name in TRAIN + TEST
        if wanted and (source := tar.extractfile(member)):  # None for a folder
            with source, open(into / path.name, "wb") as goal:
                shutil.copyfileobj(source, goal)


def _fetch(url: str, part: Path) -> None:
    """Append to `part` what it still lacks of `url`, by a range request (RFC 9110, section 14)."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "minicm"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:  # seconds of silence
            total = _receive(reply, part, have if reply.status == 206 else 0)  # 200: all of it, asked or not
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is lacking; the checksum tells whether it is right
            return
        raise ConnectionError(f"{url}: {error}") from error
    except (urllib.error.URLError, http.client.HTTPException, *BROKEN) as error:
        raise ConnectionError(f"{url}: {error}; call download again to go on") from error
    size = part.stat().st_size
    if total is not None and size < total:
        raise ConnectionError(f"{url} broke off at {size} of {total} bytes; call download again to go on")


def _receive(reply: http.client.HTTPResponse, part: Path, have: int) -> int | None:
    """Write the reply behind the first `have` bytes of `part`, with a progress bar; returns the size due."""
    from tqdm import tqdm

    length = reply.headers.get("Content-Length")
    total = None if length is None else have + int(length)
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=ARCHIVE)
    with bar, open(part, "ab" if have else "wb") as file:
        while chunk := reply.read(1 << 16):  # small, so that an interruption loses little
            file.write(chunk)
            bar.update(len(chunk))
    return total


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()  # at once: Cifar10 holds as much


def _find(folder: Path) -> Path:
    """The folder with the six files, `folder` itself or the one in it."""
    for candidate in (folder / BATCHES, folder):
        if any((candidate / name).exists() for name in TRAIN + TEST):
            return candidate
    if (folder / ARCHIVE).exists():
        why = f"{ARCHIVE} is there but not unpacked: call minicm.data.cifar10.download({str(folder)!r})"
    elif (folder / (ARCHIVE + ".part")).exists():
        why = f"its download broke off: call minicm.data.cifar10.download({str(folder)!r}) to go on"
    elif (folder / "cifar-10-batches-py").exists() or (folder / "data_batch_1").exists():
        why = "this is the Python version, which would have to be unpickled: get the binary version"
    else:
        why = f"name the folder that holds {BATCHES}, or call minicm.data.cifar10.download(folder)"
    raise ValueError(f"no CIFAR-10 in {folder}: {why}")


def _check_sizes(batches: Path, blame: str = "") -> None:
    """All six files must be there, whole records, and as many in each: a cut one stands out."""
    blame = blame or f"{batches} is incomplete or wrong; remove it and unpack the archive again"
    sizes = {}
    for name in TRAIN + TEST:
        if not (batches / name).is_file():
            raise ValueError(f"{blame}: {name} is missing")
        sizes[name] = (batches / name).stat().st_size
    for name, size in sizes.items():
        if size == 0 or size % RECORD or size != max(sizes.values()):
            raise ValueError(
                f"{blame}: {name} has {size} bytes, the largest of the six {max(sizes.values())}; "
                f"all must have the same, a multiple of {RECORD} (officially {10_000 * RECORD})"
            )


def _read(path: Path) -> Tensor:
    """The records of one file: (n, 3073) uint8."""
    records = np.fromfile(path, np.uint8).reshape(-1, RECORD)
    wrong = np.flatnonzero(records[:, 0] > 9)
    if len(wrong):
        raise ValueError(f"{path} is not a CIFAR-10 file: record {wrong[0]} has label {records[wrong[0], 0]}, not 0..9")
    return torch.from_numpy(records)
