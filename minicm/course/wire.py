"""How the grader and a submission talk: messages of JSON and raw numbers, and the values in them; nothing is unpickled.

Tensors travel by value, callables as a number to call back with, clocks by their fields; anything else arrives as `Opaque`. The
conversation itself is `peer`.
"""

import dataclasses
import functools
import json
import math
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from minicm.schedules import EDM, VP, Schedule, TrigFlow

LIMIT = 64 * 2**20  # bytes in one message; a batch of a course has a few thousand
DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
CLOCKS: dict[str, type[Any]] = {"EDM": EDM, "VP": VP, "TrigFlow": TrigFlow}
ATTRIBUTES = ("schedule", "t_min", "sigma_data", "second_time")  # of a denoiser: they travel with it


class _End(Protocol):
    """What values need of the end that they leave or reach; `peer.Peer` is one."""

    functions: dict[int | str, Callable]

    def number(self, function: Callable) -> int: ...
    def keep(self, tensor: Tensor) -> int: ...
    def arrived(self, tensor: Tensor, ref: int | None) -> Tensor: ...
    def call(self, number: int | str, *args: Any, **kwargs: Any) -> Any: ...


class Garbled(Exception):
    """What came over the pipe is no message."""


@dataclasses.dataclass(frozen=True)
class Opaque:
    """A value of a kind that does not travel: only its type's name is known."""

    type_name: str


def write_message(stream: BinaryIO, head: dict, parts: list[bytes]) -> None:
    """One message: two lengths, JSON, raw numbers."""
    text = json.dumps(head).encode()
    stream.write(struct.pack("<QQ", len(text), sum(map(len, parts))) + text + b"".join(parts))
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[dict, bytes]:
    """The next message. Raises EOFError at the end of the stream, Garbled for what is no message or too large."""
    lengths = struct.unpack("<QQ", _exactly(stream, 16))
    if sum(lengths) > LIMIT:
        raise Garbled(f"a message of {sum(lengths) / 2**20:.0f} MiB; at most {LIMIT // 2**20} are read")
    text, body = _exactly(stream, lengths[0]), _exactly(stream, lengths[1])
    try:
        head = json.loads(text)
    except (ValueError, RecursionError):
        raise Garbled("what came over the pipe is no JSON") from None
    if not isinstance(head, dict):
        raise Garbled("what came over the pipe is no message")
    return head, body


def _exactly(stream: BinaryIO, n: int) -> bytes:
    data = stream.read(n) if n else b""
    if len(data) < n:
        raise EOFError("the other side has ended")
    return data


class Remote:
    """A function of the other side, with the attributes of a denoiser where it has them."""

    def __init__(self, peer: _End, number: int | str, name: str, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self.__name__ = name
        self._peer, self._number = peer, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._peer.call(self._number, *args, **kwargs)


class Parcel:
    """Values on their way out: JSON with the tensors' bytes beside it."""

    def __init__(self, peer: _End) -> None:
        self.peer, self.parts, self.tensors, self.generators = peer, [], [], []  # type: ignore[var-annotated]

    def pack(self, value: Any) -> Any:
        """The JSON form of a value."""
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, float)):
            value = int(value) if isinstance(value, int) else float(value)
            return value if isinstance(value, float) or abs(value) < 2**63 else {"opaque": "int"}
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, (list, tuple)):
            if len(value) > 8 and all(type(v) is float for v in value):  # a clock's table has a thousand
                return {"floats": type_of(value), "of": self._tensor(torch.tensor(value, dtype=torch.float64))}
            return {type_of(value): [self.pack(v) for v in value]}
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return {"dict": {k: self.pack(v) for k, v in value.items()}}
        return self._other(value)

    def _other(self, value: Any) -> Any:
        if isinstance(value, torch.Generator) and value.device.type == "cpu":
            self.generators.append(value)
            return {"generator": self._tensor(value.get_state())}
        if type(value) in CLOCKS.values():
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
            return {"clock": type(value).__name__, "fields": self.pack(fields)}
        if isinstance(value, Remote) and value._peer is self.peer:
            return {"yours": value._number}
        if callable(value) and not isinstance(value, type):
            attributes = {a: self.pack(getattr(value, a)) for a in ATTRIBUTES if hasattr(value, a)}
            name = getattr(value, "__name__", type(value).__name__)
            return {"call": self.peer.number(value), "name": name, "attributes": attributes}
        return {"opaque": type(value).__name__}

    def _tensor(self, value: Tensor) -> Any:
        kept = value.detach().cpu()
        name = str(value.dtype).removeprefix("torch.")
        if name not in DTYPES or value.layout != torch.strided:
            return {"opaque": f"Tensor of {value.dtype}, {value.layout}"}
        plain = torch.empty(kept.numel(), dtype=kept.dtype).copy_(kept.reshape(-1))  # an expanded one has stride 0
        self.parts.append(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
        self.tensors.append(value)
        ref = self.peer.keep(value) if value.requires_grad else None
        return {"tensor": name, "shape": list(value.shape), "bytes": len(self.parts[-1]), "ref": ref}


class Unpacker:
    """Values on their way in. Raises Garbled for anything that `Parcel` would not have written."""

    def __init__(self, peer: _End, body: bytes) -> None:
        self.peer, self.body, self.at = peer, body, 0
        self.tensors: list[Tensor] = []
        self.generators: list[torch.Generator] = []

    def unpack(self, value: Any) -> Any:
        """The value that a JSON form stands for."""
        if not isinstance(value, dict):
            if isinstance(value, list):
                raise Garbled("a list without a kind")
            return value
        try:
            return self._by_kind(value)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, RecursionError) as error:
            raise Garbled(f"a value that is none: {error}") from None

    def _by_kind(self, value: dict) -> Any:
        if "tensor" in value:
            return self._tensor(value)
        if "floats" in value:
            return {"list": list, "tuple": tuple}[value["floats"]](self._tensor(value["of"]).tolist())
        if "list" in value or "tuple" in value:
            items = [self.unpack(v) for v in value["list" if "list" in value else "tuple"]]
            return items if "list" in value else tuple(items)
        if "dict" in value:
            return {str(k): self.unpack(v) for k, v in value["dict"].items()}
        if "dtype" in value:
            return DTYPES[value["dtype"]]
        if "device" in value:
            return torch.device("cpu")
        if "generator" in value:
            generator = torch.Generator()
            generator.set_state(self._tensor(value["generator"]))
            self.generators.append(generator)
            return generator
        if "clock" in value:
            return _clock(value["clock"], tuple(self.unpack(value["fields"]).items()))
        if "yours" in value:
            return self.peer.functions[value["yours"]]
        if "call" in value:
            attributes = {a: self.unpack(value["attributes"][a]) for a in ATTRIBUTES if a in value["attributes"]}
            return Remote(self.peer, int(value["call"]), str(value["name"]), attributes)
        return Opaque(str(value["opaque"])[:80])

    def _tensor(self, value: dict) -> Tensor:
        dtype, shape, size = DTYPES[value["tensor"]], [int(n) for n in value["shape"]], int(value["bytes"])
        if size < 0 or self.at + size > len(self.body) or math.prod(shape) * dtype.itemsize != size:
            raise Garbled("a tensor whose bytes do not fit its shape")
        part = bytearray(self.body[self.at : self.at + size])
        self.at += size
        tensor = torch.frombuffer(part, dtype=dtype) if size else torch.empty(0, dtype=dtype)
        tensor = self.peer.arrived(tensor.reshape(shape), value.get("ref"))
        self.tensors.append(tensor)
        return tensor


@functools.lru_cache(maxsize=64)  # a denoiser's clock comes with every call
def _clock(name: str, fields: tuple) -> Schedule:
    return CLOCKS[name](**dict(fields))


def type_of(value: list | tuple) -> str:
    """How a sequence is told from the other: torch.Size and named tuples arrive as tuples."""
    return "list" if isinstance(value, list) else "tuple"
