"""Mistakes that nobody thought of: each operator, number and name of the solutions changed, one at a time, by a machine.

A change that the checks do not see is either no mistake (listed below, each with its reason) or a hole in the grader.
"""

from __future__ import annotations

import ast
import copy
import inspect
from types import SimpleNamespace

import pytest
from test_course import first_complaint, quick, solution

from minicm.course.assignments import ASSIGNMENTS

EQUIVALENT = {  # no mistakes: what the changed solution computes is the same
    "a1": {
        "c_in(t, sigma_data) (arguments exchanged): c_in(sigma_data, t)": "1/sqrt(t^2 + sigma_d^2) is symmetric",
        "c_out(t, sigma_data) (arguments exchanged): c_out(sigma_data, t)": "t sigma_d/sqrt(t^2 + sigma_d^2) is symmetric",
    },
    "a2": {
        "y - y.mean() (operator): y + y.mean()": "a slope over a centred x does not see y's mean",
        "0 (number halved): 0.0": "the same number",
    },
    "a3": {
        "distance(f(x_t, t), y_target) (arguments exchanged): distance(y_target, f(x_t, t))": "a distance is symmetric",
        "a - b (operands exchanged): b - a": "squared",
    },
}

OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}


def places(tree):
    """Every node that can be changed, with the change: (description, function that changes a copy's node)."""
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
            yield (
                i,
                "call dropped",
                lambda n: n.__dict__.update(
                    func=ast.Name("identity", ast.Load()), args=[n.func.value], keywords=[]
                ),
            )
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in SWAPS:
            yield i, f"{node.id} -> {SWAPS[node.id]}", lambda n: setattr(n, "id", SWAPS[n.id])


SWAPS = {
    "t": "s",
    "s": "t",
    "x": "x_t",
    "x_t": "x0",
    "x_s": "x_t",
    "f": "f_target",
    "f_target": "f",
    "eps": "x0",
}
SWAPS |= {
    "low": "high",
    "kept": "now",
    "now": "kept",
    "slope_s": "slope_t",
    "slope_t": "slope_s",
    "a": "b",
    "b": "a",
    "alpha_s": "alpha_t",
}


def changed(name):
    """(what was changed, implementation) for every change of a solution that compiles."""
    source = inspect.getsource(solution(name))
    tree = ast.parse(source)
    for i, what, change in list(places(tree)):
        new = copy.deepcopy(tree)
        node = list(ast.walk(new))[i]
        before = ast.unparse(node)
        change(node)
        if not hasattr(node, "lineno") or ast.unparse(node) == before:
            continue
        space = {"__name__": name, "identity": lambda v: v}
        try:
            exec(compile(ast.fix_missing_locations(new), name, "exec"), space)
        except Exception:  # it does not even load
            continue
        functions = {f: space[f] for f in ASSIGNMENTS[name].functions}
        yield f"line {node.lineno}: {before} ({what}): {ast.unparse(node)}", SimpleNamespace(**functions)


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUIVALENT)
def test_every_change_of_a_solution_is_caught_or_no_change(name):
    count, survivors = 0, set()
    for what, impl in changed(name):
        count += 1
        if not first_complaint(quick(ASSIGNMENTS[name]), impl):
            survivors.add(what.split(": ", 1)[1])
    print(f"{name}: {count} changes, {len(survivors)} kinds that change nothing")
    assert count > 100 and survivors == set(EQUIVALENT[name])
