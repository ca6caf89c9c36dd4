"""How the grader and a submission talk: two processes, one pipe each way, JSON and raw numbers; nothing is unpickled.

A call names a function and sends its arguments; while the other side works it may call back (a solver calls the denoiser
that it was given). Tensors travel by value, callables as a number to call back with, clocks by their fields. What a
function changes in its arguments comes back with the answer, so in-place work behaves as it does in one process.

Gradients: a tensor that requires grad arrives as a leaf, and the answer's gradient with respect to these leaves can be
asked for; both ends link it to what they sent. So `loss.backward()` at the grader's end (`graph=True`) reaches its weights through a
submission's loss, also where that calls back a distance of the grader's.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import torch
from torch import Tensor

from minicm.schedules import EDM, VP, TrigFlow

LIMIT = 64 * 2**20  # bytes in one message; a batch of a course has a few thousand
DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
CLOCKS = {"EDM": EDM, "VP": VP, "TrigFlow": TrigFlow}
ATTRIBUTES = ("schedule", "t_min", "sigma_data", "second_time")  # of a denoiser: they travel with it
KEPT = 256  # graphs that are remembered for a gradient


class Garbled(Exception):
    """What came over the pipe is no message."""


class RemoteError(Exception):
    """A function of the other side raised; the text says what and where."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


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

    def __init__(self, peer: Peer, number: int | str, name: str, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self.__name__ = name
        self._peer, self._number = peer, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._peer.call(self._number, *args, **kwargs)


class Parcel:
    """Values on their way out: JSON with the tensors' bytes beside it."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.parts, self.tensors, self.generators = peer, [], [], []  # type: ignore[var-annotated]

    def pack(self, value: Any) -> Any:
        """The JSON form of a value."""
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
            return {type_of(value): [self.pack(v) for v in value]}
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return {"dict": {k: self.pack(v) for k, v in value.items()}}
        return self._other(value)

    def _other(self, value: Any) -> Any:
        if isinstance(value, torch.Generator) and value.device.type == "cpu":
            self.generators.append(value)
            return {"generator": self._tensor(value.get_state())}
        if type(value).__name__ in CLOCKS and type(value) is CLOCKS[type(value).__name__]:
            fields = {
                f.name: getattr(value, f.name)
                for f in dataclasses.fields(CLOCKS[type(value).__name__])
                if f.init
            }
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
        plain = kept.resolve_conj().resolve_neg().contiguous().reshape(-1)
        self.parts.append(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
        self.tensors.append(value)
        ref = self.peer.keep(value) if value.requires_grad else None
        return {"tensor": name, "shape": list(value.shape), "bytes": len(self.parts[-1]), "ref": ref}


class Unpacker:
    """Values on their way in. Raises Garbled for anything that `Parcel` would not have written."""

    def __init__(self, peer: Peer, body: bytes) -> None:
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
            return CLOCKS[value["clock"]](**self.unpack(value["fields"]))
        if "yours" in value:
            return self.peer.functions[value["yours"]]
        if "call" in value:
            attributes = {
                a: self.unpack(value["attributes"][a]) for a in ATTRIBUTES if a in value["attributes"]
            }
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


def type_of(value: list | tuple) -> str:
    """How a sequence is told from the other: torch.Size and named tuples arrive as tuples."""
    return "list" if isinstance(value, list) else "tuple"


class Peer:
    """One end of the conversation. `receive` waits for the next message; `functions` are those that may be called."""

    def __init__(
        self, receive: Callable[[], tuple[dict, bytes]], stream: BinaryIO, *, graph: bool = False
    ) -> None:
        self.receive, self.stream, self.graph = receive, stream, graph
        self.functions: dict[int | str, Callable] = {}
        self._numbers: dict[int, int] = {}
        self._graphs: dict[
            int, tuple[Tensor, dict[int, Tensor]]
        ] = {}  # ref -> tensor and the leaves it may hang on
        self._leaves: list[dict[int, Tensor]] = [{}]  # of the calls under way: ref -> leaf
        self._sent: list[dict[int, Tensor]] = [{}]  # of the calls under way: ref -> our tensor that went out
        self._refs = 0

    def number(self, function: Callable) -> int:
        """The number under which the other side calls a function of ours."""
        if id(function) not in self._numbers:
            self._numbers[id(function)] = len(self._numbers) + 1
            self.functions[len(self._numbers)] = function  # held, so that its id stays its own
        return self._numbers[id(function)]

    def keep(self, tensor: Tensor) -> int:
        """A number for a tensor that requires grad and goes out."""
        self._refs += 1
        self._sent[-1][self._refs] = tensor
        self._graphs[self._refs] = (tensor, self._leaves[-1])
        if len(self._graphs) > KEPT:
            del self._graphs[next(iter(self._graphs))]
        return self._refs

    def arrived(self, tensor: Tensor, ref: int | None) -> Tensor:
        """A tensor that came in; a leaf where the other side wants its gradient."""
        if ref is None or not tensor.is_floating_point():
            return tensor
        tensor._ref = int(ref)  # type: ignore[attr-defined]
        if (
            self.graph and len(self._sent) > 1
        ):  # an answer at the grader's end: a node of its graph, linked by call()
            return tensor
        self._leaves[-1][int(ref)] = tensor.requires_grad_()
        return tensor

    # ------------------------------------------------------------------------------------------- asking
    def call(self, number: int | str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the other side. Raises RemoteError for what it raises."""
        self._sent.append({})
        try:
            parcel = Parcel(self)
            head = {"do": "call", "function": number, "grad": torch.is_grad_enabled()}
            head |= {"args": parcel.pack(list(args)), "kwargs": parcel.pack(kwargs)}
            write_message(self.stream, head, parcel.parts)
            return self._answer(*self._wait(), parcel)
        finally:
            self._sent.pop()

    def gradients(self, ref: int, grad: Tensor, wrt: list[int]) -> list[Tensor | None]:
        """The gradient of a tensor of the other side with respect to leaves that it has of ours."""
        parcel = Parcel(self)
        head = {"do": "grad", "ref": ref, "wrt": wrt, "grad": parcel.pack(grad.detach())}
        write_message(self.stream, head, parcel.parts)
        head, body = self._wait()
        return list(Unpacker(self, body).unpack(head.get("value")))

    def _wait(self) -> tuple[dict, bytes]:
        """The answer to what was asked, serving calls meanwhile."""
        while True:
            head, body = self.receive()
            if head.get("do") == "answer":
                return head, body
            self.serve(head, body)

    def _answer(self, head: dict, body: bytes, parcel: Parcel) -> Any:
        if "error" in head:
            raise self.error(str(head["error"]), str(head.get("text", ""))[:600])
        unpacker = Unpacker(self, body)
        value = unpacker.unpack(head.get("value"))
        for ours, changed in zip(parcel.tensors, unpacker.unpack(head["changed"])):
            if isinstance(changed, Tensor) and changed.shape == ours.shape:
                ours.detach().copy_(changed)
        for ours, state in zip(parcel.generators, unpacker.unpack(head["generators"])):
            ours.set_state(state)
        return self._linked(value)

    def _linked(self, value: Any) -> Any:
        if isinstance(value, Tensor) and hasattr(value, "_ref"):
            sent = self._sent[-1]
            return _Linked.apply(self, value._ref, list(sent), value, *sent.values()) if sent else value
        if isinstance(value, (list, tuple)):
            return type(value)(self._linked(v) for v in value)
        return value

    # ---------------------------------------------------------------------------------------- answering
    def serve(self, head: dict, body: bytes) -> None:
        """Do what the other side asks for, and answer."""
        if head.get("do") == "grad":
            return self._serve_gradient(head, body)
        sent, self._sent = (
            self._sent,
            [self._sent[-1]],
        )  # callbacks' results count as sent in the call under way
        self._leaves.append({})
        parcel = Parcel(self)
        try:
            answer = self._run(head, body, parcel)
        except Exception as error:
            parcel, answer = Parcel(self), {"error": type(error).__name__, "text": self.describe(error)}
        finally:
            self._leaves.pop()
            self._sent = sent
        write_message(self.stream, {"do": "answer", **answer}, parcel.parts)

    def describe(self, error: Exception) -> str:
        """What the other side is told about an exception of ours."""
        return str(error)

    def error(self, kind: str, text: str) -> Exception:
        """What is raised here for an exception of the other side."""
        return RemoteError(kind, text)

    def _run(self, head: dict, body: bytes, parcel: Parcel) -> dict:
        unpacker = Unpacker(self, body)
        function = self.functions[head["function"]]
        args, kwargs = unpacker.unpack(head["args"]), unpacker.unpack(head["kwargs"])
        before = [tensor.detach().clone() for tensor in unpacker.tensors]
        with torch.set_grad_enabled(bool(head.get("grad"))):
            value = function(*args, **kwargs)
        answer = {"value": parcel.pack(value)}
        changed = [
            None if _identical(old, new.detach()) else new.detach()
            for old, new in zip(before, unpacker.tensors)
        ]
        states = [generator.get_state() for generator in unpacker.generators]
        return answer | {"changed": parcel.pack(changed), "generators": parcel.pack(states)}

    def _serve_gradient(self, head: dict, body: bytes) -> None:
        parcel = Parcel(self)
        output, leaves = self._graphs.get(head["ref"], (None, {}))
        wanted = [leaves[ref] for ref in head["wrt"] if ref in leaves]
        grads: list[Tensor | None] = []
        if output is not None and output.requires_grad and wanted:
            grad = Unpacker(self, body).unpack(head["grad"])
            grads = list(torch.autograd.grad(output, wanted, grad, retain_graph=True, allow_unused=True))
        found = iter(grads)
        result = [next(found, None) if ref in leaves else None for ref in head["wrt"]]
        write_message(self.stream, {"do": "answer", "value": parcel.pack(result)}, parcel.parts)


class _Linked(torch.autograd.Function):
    """An answer whose gradient the other side computes."""

    @staticmethod
    def forward(ctx: Any, peer: Peer, ref: int, refs: list[int], value: Tensor, *sent: Tensor) -> Tensor:
        ctx.peer, ctx.ref, ctx.refs = peer, ref, refs
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return (None, None, None, grad, *ctx.peer.gradients(ctx.ref, grad, ctx.refs))


def _identical(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit, NaN beside NaN included."""
    return (
        a.shape == b.shape
        and torch.equal(a.nan_to_num(), b.nan_to_num())
        and torch.equal(a.isnan(), b.isnan())
    )
