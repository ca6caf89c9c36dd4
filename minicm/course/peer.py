"""The conversation of the grader and a submission: two processes, one pipe each way, calls in both directions.

A call names a function and sends its arguments; while the other side works it may call back (a solver calls the denoiser
that it was given). What a function changes in its arguments comes back with the answer, so in-place work behaves as it does
in one process.

Gradients: a tensor that requires grad arrives as a leaf, and the answer's gradient with respect to these leaves can be
asked for; both ends link it to what they sent. So `loss.backward()` at the grader's end (`graph=True`) reaches its weights through a
submission's loss, also where that calls back a distance of the grader's. Forward derivatives: `torch.func.jvp` through a function of
the other side asks that side for them; the primal that it gives has no gradient.
"""

from collections.abc import Callable
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.utils._python_dispatch import _get_current_dispatch_mode

from minicm.course.kit import Raised
from minicm.course.wire import Parcel, Unpacker, write_message

KEPT = 256  # graphs that are remembered for a gradient


class Peer:
    """One end of the conversation. `receive` waits for the next message; `functions` are those that may be called."""

    def __init__(self, receive: Callable[[], tuple[dict, bytes]], stream: BinaryIO, *, graph: bool = False) -> None:
        self.receive, self.stream, self.graph = receive, stream, graph
        self.functions: dict[int | str, Callable] = {}
        self._numbers: dict[int, int] = {}
        self._graphs: dict[int, tuple[Tensor, dict[int, Tensor]]] = {}  # ref -> tensor and the leaves it may hang on
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
        # an answer to the grader's own question is a node of its graph, by _linked
        if self.graph and len(self._leaves) == 1:
            return tensor
        self._leaves[-1][int(ref)] = tensor.requires_grad_()
        return tensor

    # ------------------------------------------------------------------------------------------- asking
    def call(self, number: int | str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the other side. Raises Raised for what it raises."""
        if any(isinstance(a, Tensor) and unpack_dual(a).tangent is not None for a in args):
            return _Forward.apply(self, number, kwargs, *args)
        return self._ask({"do": "call", "function": number}, args, kwargs)

    def derivative(self, number: int | str, values: tuple, kwargs: dict) -> Any:
        """The derivative of a function of the other side; values: its arguments, then a tangent or None for each."""
        return self._ask({"do": "call", "function": number, "derivative": True}, values, kwargs)

    def _ask(self, head: dict, args: tuple, kwargs: dict) -> Any:
        if _get_current_dispatch_mode() is not None:  # what a tracer holds are no numbers yet
            raise RuntimeError("this function cannot be traced (torch.func.linearize, make_fx): use torch.func.jvp")
        self._sent.append({})
        try:
            parcel = Parcel(self)
            head |= {"grad": torch.is_grad_enabled()}
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
        sent, self._sent = (self._sent, [self._sent[-1]])  # callbacks' results count as sent in the call under way
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
        return Raised(kind, text)

    def _run(self, head: dict, body: bytes, parcel: Parcel) -> dict:
        unpacker = Unpacker(self, body)
        function = self.functions[head["function"]]
        if "derivative" in head:
            function = _derivative(function)
        args, kwargs = unpacker.unpack(head["args"]), unpacker.unpack(head["kwargs"])
        before = [tensor.detach().clone() for tensor in unpacker.tensors]
        with torch.set_grad_enabled(bool(head.get("grad"))):
            value = function(*args, **kwargs)
        answer = {"value": parcel.pack(value)}
        after = (tensor.detach() for tensor in unpacker.tensors)
        changed = [None if _identical(old, new) else new for old, new in zip(before, after)]
        states = [generator.get_state() for generator in unpacker.generators]
        return answer | {"changed": parcel.pack(changed), "generators": parcel.pack(states)}

    def _serve_gradient(self, head: dict, body: bytes) -> None:
        parcel = Parcel(self)
        output, leaves = self._graphs.get(head["ref"], (None, {}))
        wanted = [leaves[ref] for ref in head["wrt"] if ref in leaves]
        grad = Unpacker(self, body).unpack(head["grad"])
        grads: list[Tensor | None] = []
        if output is not None and output.requires_grad and wanted and grad.shape == output.shape:
            # not torch.autograd.grad(output, wanted, grad): that imports sympy, 3 s
            with torch.enable_grad():
                along = (output * grad).sum()
            grads = list(torch.autograd.grad(along, wanted, retain_graph=True, allow_unused=True))
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


class _Forward(torch.autograd.Function):
    """A function of the other side under forward differentiation: torch asks for the primal, then for the derivative."""

    @staticmethod
    def forward(peer: Peer, number: int | str, kwargs: dict, *args: Any) -> Any:
        return peer.call(number, *args, **kwargs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.peer, ctx.number, ctx.kwargs, *args = inputs
        ctx.others = [None if isinstance(a, Tensor) else a for a in args]
        ctx.save_for_forward(*(a if isinstance(a, Tensor) else None for a in args))

    @staticmethod
    def jvp(ctx: Any, peer: None, number: None, kwargs: None, *tangents: Tensor | None) -> Any:
        args = (b if a is None else a for a, b in zip(ctx.saved_tensors, ctx.others))
        return _Along.apply(ctx.peer, ctx.number, ctx.kwargs, *args, *tangents)


class _Along(torch.autograd.Function):
    """The derivative itself; a Function, because torch hands plain tensors to its forward alone."""

    @staticmethod
    def forward(peer: Peer, number: int | str, kwargs: dict, *values: Any) -> Any:
        return peer.derivative(number, values, kwargs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        pass


def _derivative(function: Callable) -> Callable:
    """(arguments, and a tangent or None for each) -> the derivative of function along them."""

    def derivative(*values: Any, **kwargs: Any) -> Any:
        args, tangents = list(values[: len(values) // 2]), values[len(values) // 2 :]
        moved = [i for i, tangent in enumerate(tangents) if tangent is not None]

        def at(*primals: Tensor) -> Any:
            given = dict(zip(moved, primals))
            return function(*(given.get(i, a) for i, a in enumerate(args)), **kwargs)

        return torch.func.jvp(at, tuple(args[i] for i in moved), tuple(tangents[i] for i in moved))[1]

    return derivative


def _identical(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit, NaN beside NaN included."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())
