"""CIFAR-10 from a tiny archive written here: reading, drawing, fetching with resume, and every refusal."""

import hashlib
import io
import itertools
import tarfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from archive import RECORDS, contents, write_folder
from exact import seeded

from minicm.data import cifar10
from minicm.data.cifar10 import ARCHIVE, BATCHES, TEST, TRAIN, Cifar10, download, unpack


def tar_gz(files, extra=()) -> bytes:
    """An archive as the official one: the folder, the files, a readme; then any further entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        folder = tarfile.TarInfo(BATCHES)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, data in {**files, "readme.html": b"<html>"}.items():
            member = tarfile.TarInfo(f"{BATCHES}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


# --- reading ---
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("inner", [True, False], ids=["the folder itself", "the one above"])
def test_reads_every_byte_where_it_belongs(folder, train, inner):
    data = Cifar10(folder / BATCHES if inner else str(folder), train)
    names = TRAIN if train else TEST
    raw = b"".join(contents()[name] for name in names)
    assert len(data) == RECORDS * len(names)
    assert data.images.shape == (len(data), 3, 32, 32) and data.images.dtype == torch.uint8
    assert data.labels.shape == (len(data),) and data.labels.dtype == torch.int64
    # byte by byte, by the format's own words: record i, channel c, row y, column x
    for i, c, y, x in itertools.product((0, 7, len(data) - 1), range(3), (0, 5, 31), (0, 13, 31)):
        assert data.images[i, c, y, x] == raw[i * 3073 + 1 + c * 1024 + y * 32 + x]
    assert data.labels.tolist() == list(raw[::3073])
    assert len(Cifar10(folder)) == 5 * RECORDS, "training pictures are the default"


# --- drawing ---
def test_samples_are_scaled_pictures_with_their_labels(folder):
    data = Cifar10(folder, flip=False)
    x0, label = data.sample(200, seeded())
    assert x0.shape == (200, 3, 32, 32) and x0.dtype == torch.float32 and label.dtype == torch.int64
    assert x0.min() == -1 and x0.max() == 1  # bytes 0 and 255, exactly
    back = ((x0 + 1) * 127.5).round().to(torch.uint8)
    same = (back[:, None] == data.images[None]).flatten(2).all(2)
    assert (same.sum(1) == 1).all()
    assert torch.equal(label, data.labels[same.int().argmax(1)])


def test_half_of_the_pictures_are_mirrored_left_to_right(folder):
    data = Cifar10(folder)
    x0, label = data.sample(400, seeded())
    back = ((x0 + 1) * 127.5).round().to(torch.uint8)
    as_is = (back[:, None] == data.images[None]).flatten(2).all(2)
    mirrored = (back[:, None] == data.images.flip(-1)[None]).flatten(2).all(2)
    assert ((as_is | mirrored).sum(1) == 1).all()
    assert torch.equal(label, data.labels[(as_is | mirrored).int().argmax(1)])
    # binomial(400, 1/2): standard deviation 10; 5 of them, false alarms 6e-7
    assert abs(mirrored.any(1).sum() - 200) < 50


# --- refusals of what lies in the folder ---
def refusal(call) -> str:
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("leave", "way_out"),
    [
        (None, "download(folder)"),
        (ARCHIVE, "not unpacked: call"),
        (ARCHIVE + ".part", "broke off: call"),
        ("data_batch_1", "unpickled: get the binary version"),
    ],
)
def test_missing_data_is_refused_and_never_fetched(tmp_path, monkeypatch, leave, way_out):
    def no_network(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    if leave:
        (tmp_path / leave).write_bytes(b"x")
    assert way_out in refusal(lambda: Cifar10(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ([leave] if leave else [])
    assert "no CIFAR-10" in refusal(lambda: Cifar10(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["data_batch_3.bin", "test_batch.bin"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "keep",
    [None, 0, 1, 4096, 3073 * (RECORDS - 1), 3073 * RECORDS - 1],
    ids=["no file", "empty", "a byte", "a block", "whole records", "one byte short"],
)
def test_half_unpacked_and_truncated_files_are_refused(folder, name, train, keep):
    path = folder / BATCHES / name
    data = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(data[:keep])
    message = refusal(lambda: Cifar10(folder, train))
    assert name in message and "unpack the archive again" in message


def test_other_bytes_are_refused_by_their_label(folder):
    path = folder / BATCHES / "data_batch_2.bin"
    data = bytearray(path.read_bytes())
    data[3073 * 4] = 10
    path.write_bytes(data)
    message = refusal(lambda: Cifar10(folder))
    assert "data_batch_2.bin" in message and "record 4 has label 10" in message
    assert len(Cifar10(folder, train=False)) == RECORDS  # the test file is sound


# --- unpacking ---
def listing(folder) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_unpack_writes_the_six_files_and_nothing_else(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(tar_gz(contents()))
    batches = unpack(tmp_path / "a.tar.gz", tmp_path / "new" / "data")
    assert batches == tmp_path / "new" / "data" / BATCHES
    assert {p.name: p.read_bytes() for p in batches.iterdir()} == contents()
    assert listing(tmp_path / "new" / "data") == [BATCHES, *sorted(f"{BATCHES}/{n}" for n in TRAIN + TEST)]
    assert "remove it first" in refusal(lambda: unpack(tmp_path / "a.tar.gz", tmp_path / "new" / "data"))


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, 3 if kind == tarfile.REGTYPE else 0
    return member


def wrong_archives():
    """What an archive may be, and a word of the complaint."""
    files = contents()
    whole = tar_gz(files)  # random bytes do not compress: byte 5000 is a pixel
    yield "half", whole[: len(whole) // 2], "a.tar.gz"
    yield "end cut", whole[:-9], "a.tar.gz"
    yield "flipped byte", whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:], "a.tar.gz"
    yield "web page", b"<html>503 Service Unavailable</html>", "a.tar.gz"
    yield "empty", b"", "a.tar.gz"
    yield "no test file", tar_gz({name: files[name] for name in TRAIN}), "a.tar.gz"
    yield "short file", tar_gz({**files, "data_batch_4.bin": files["data_batch_4.bin"][:-3073]}), "a.tar.gz"
    yield "another set", tar_gz({"train.bin": bytes(3074), "test.bin": bytes(3074)}), "a.tar.gz"
    for unsafe in (
        entry("../outside"),
        entry(f"{BATCHES}/../../outside"),
        entry("/tmp/minicm-outside"),
        entry(f"{BATCHES}/link", tarfile.SYMTYPE, "/etc"),
        entry(f"{BATCHES}/hard", tarfile.LNKTYPE, "../../outside"),
        entry(f"{BATCHES}/pipe", tarfile.FIFOTYPE),
    ):
        yield unsafe.name, tar_gz(files, [unsafe]), unsafe.name


@pytest.mark.parametrize("data, word", [pytest.param(data, word, id=name) for name, data, word in wrong_archives()])
def test_damaged_and_unsafe_archives_are_refused_and_leave_nothing_behind(tmp_path, data, word):
    (tmp_path / "a.tar.gz").write_bytes(data)
    assert word in refusal(lambda: unpack(tmp_path / "a.tar.gz", tmp_path / "in" / "data"))
    assert listing(tmp_path) == ["a.tar.gz", "in", "in/data"]
    assert "is not there" in refusal(lambda: unpack(tmp_path / "none.tar.gz", tmp_path))


# --- fetching, from a server of our own ---
class Server(ThreadingHTTPServer):
    """Serves `data`; breaks off after `cut` bytes of a reply; notes the Range header of each request."""

    daemon_threads = True

    def __init__(self, data: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.cut, self.knows_ranges, self.status = data, None, True, None
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/{ARCHIVE}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.knows_ranges else 0
        if server.status or start >= len(server.data):
            self.send_error(server.status or 416)
            return
        body = server.data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        self.end_headers()
        self.wfile.write(body[: server.cut])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = Server(tar_gz(contents()))
    # .01 s: how often the loop looks for shutdown; the default makes every test half a second longer
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_gives_what_was_packed_and_asks_once(server, tmp_path, capsys):
    batches = download(tmp_path / "data", url=server.url, md5=md5(server.data))
    assert {p.name: p.read_bytes() for p in batches.iterdir()} == contents()
    assert (tmp_path / "data" / ARCHIVE).read_bytes() == server.data
    assert ARCHIVE in capsys.readouterr().err  # the progress bar
    assert download(tmp_path / "data", url=server.url, md5="not looked at") == batches
    assert server.ranges == [None]
    assert len(Cifar10(tmp_path / "data")) == 5 * RECORDS


def test_an_interrupted_download_is_continued_where_it_stopped(server, tmp_path):
    half, size = len(server.data) // 2, len(server.data)
    for cut, have in ((half, half), (1000, half + 1000)):
        server.cut = cut
        with pytest.raises(ConnectionError, match=f"{have} of {size} bytes; call download again"):
            download(tmp_path, url=server.url, md5=md5(server.data))
        assert (tmp_path / (ARCHIVE + ".part")).read_bytes() == server.data[:have]
    server.cut = None
    download(tmp_path, url=server.url, md5=md5(server.data))
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + 1000}-"]
    assert {p.name for p in tmp_path.iterdir()} == {ARCHIVE, BATCHES}


@pytest.mark.parametrize("ranges, have", [(False, 500), (True, None)], ids=["a server without ranges", "a whole part"])
def test_a_part_is_made_whole(server, tmp_path, ranges, have):
    """Sent all again by a server without ranges; of a part that is whole nothing more is needed."""
    (tmp_path / (ARCHIVE + ".part")).write_bytes(server.data[:have])
    server.knows_ranges = ranges
    download(tmp_path, url=server.url, md5=md5(server.data))
    assert (tmp_path / ARCHIVE).read_bytes() == server.data
    assert server.ranges == [f"bytes={have or len(server.data)}-"]


def test_a_wrong_checksum_removes_the_part_so_that_the_next_call_begins_anew(server, tmp_path):
    part = tmp_path / (ARCHIVE + ".part")
    part.write_bytes(b"from another server")
    message = refusal(lambda: download(tmp_path, url=server.url, md5=md5(server.data)))
    assert md5(server.data) in message and listing(tmp_path) == []
    download(tmp_path, url=server.url, md5=md5(server.data))
    assert server.ranges[-1] is None


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refusing_server_is_named_and_the_part_kept(server, tmp_path, status):
    (tmp_path / (ARCHIVE + ".part")).write_bytes(server.data[:500])
    server.status = status
    with pytest.raises(ConnectionError, match=str(status)) as error:
        download(tmp_path, url=server.url, md5=md5(server.data))
    assert server.url in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / (ARCHIVE + ".part")).read_bytes() == server.data[:500]


def test_no_server_at_all_is_one_line(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="call download again") as error:
        download(tmp_path, url=server.url)
    assert "\n" not in str(error.value)


def test_an_archive_that_came_another_way_needs_no_network(server, tmp_path):
    (tmp_path / ARCHIVE).write_bytes(server.data)
    download(tmp_path, url="http://127.0.0.1:9/nowhere", md5=md5(server.data))
    assert len(Cifar10(tmp_path, train=False)) == RECORDS and server.ranges == []


def test_an_archive_with_another_checksum_is_left_for_its_owner_to_remove(server, tmp_path):
    (tmp_path / ARCHIVE).write_bytes(server.data)
    message = refusal(lambda: download(tmp_path, url=server.url))
    assert "remove it" in message and "c32a1d4ab5d03f1284b67883e8d87530" in message  # the official one
    assert listing(tmp_path) == [ARCHIVE] and server.ranges == []


def test_a_half_unpacked_folder_is_not_overwritten(server, folder):
    (folder / BATCHES / "test_batch.bin").unlink()
    assert "test_batch.bin is missing" in refusal(lambda: download(folder, url=server.url))
    assert server.ranges == []


def test_ten_names_for_ten_classes():
    assert len(cifar10.CLASSES) == Cifar10.classes == 10 and cifar10.CLASSES[6] == "frog"
