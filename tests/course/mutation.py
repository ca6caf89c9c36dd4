"""Mistakes that nobody thought of: each operator, number, call and name of a source changed, one at a time, by a machine.

DeMillo, Lipton and Sayward 1978 (mutation testing): tests that let a change pass have not looked where it was made. What is changed
is the syntax tree; a change that does not load is left out. A change may also compute the same as before: that is for a person to tell.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
Place = tuple[int, str, Callable[[Any], None]]  # which node of ast.walk, the kind of change, what changes it


@dataclass(frozen=True)
class Change:
    """One change of a source, loaded."""

    line: int  # in the source
    kind: str  # operator, operands exchanged, number + 1, ...
    before: str
    after: str
    space: Mapping[str, Any]  # the names that the changed source defines

    def __str__(self) -> str:
        return f"{self.before} ({self.kind}): {self.after}"


def changes(source: str, swaps: Mapping[str, str], namespace: Mapping[str, Any] | None = None) -> Iterator[Change]:
    """Every change of a source that compiles and loads, in the order of the tree.

    swaps: names and what each is taken for; namespace: what the source finds when it is run, beside Python's builtins.
    """
    tree = ast.parse(source)
    for i, kind, change in list(places(tree, swaps)):
        new = copy.deepcopy(tree)
        node: Any = list(ast.walk(new))[i]
        before = ast.unparse(node)
        change(node)
        if not hasattr(node, "lineno") or ast.unparse(node) == before:
            continue
        space = {"__name__": "changed", **(namespace or {}), "identity": lambda v: v}
        try:
            exec(compile(ast.fix_missing_locations(new), "changed", "exec"), space)
        except Exception:  # it does not even load
            continue
        yield Change(node.lineno, kind, before, ast.unparse(node), space)


def places(tree: ast.AST, swaps: Mapping[str, str]) -> Iterator[Place]:
    """Every node that can be changed, with the change."""
    for i, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.BinOp) and type(node.op) in OTHER:
            yield i, "operator", lambda n: setattr(n, "op", OTHER[type(n.op)]())
            if isinstance(node.op, (ast.Sub, ast.Div, ast.Pow)):
                yield i, "operands exchanged", lambda n: n.__dict__.update(left=n.right, right=n.left)
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield i, "number + 1", lambda n: setattr(n, "value", n.value + 1)
            yield i, "number halved", lambda n: setattr(n, "value", n.value / 2)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield i, "sign", lambda n: setattr(n, "op", ast.UAdd())
        if isinstance(node, ast.Call) and len(node.args) > 1:
            yield i, "arguments exchanged", lambda n: n.args.insert(0, n.args.pop(1))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
            yield i, "call dropped", _drop
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in swaps:
            yield i, f"{node.id} -> {swaps[node.id]}", lambda n: setattr(n, "id", swaps[n.id])


def _drop(node: ast.Call) -> None:
    """x.method() becomes identity(x)."""
    whom = node.func.value  # type: ignore[attr-defined]
    node.__dict__.update(func=ast.Name("identity", ast.Load()), args=[whom], keywords=[])
