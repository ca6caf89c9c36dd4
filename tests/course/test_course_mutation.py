"""Mistakes that nobody thought of: each operator, number and name of the solutions changed, one at a time, by a machine.

A change that the checks do not see is either no mistake (listed below, each with its reason) or a hole in the grader.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
from mutation import changes
from test_course import first_complaint, quick
from variants import ASSIGNMENTS, solution

RANDN = "torch.randn(rank, W.shape[1], generator=generator, dtype=W.dtype)"
NORMAL = "torch.randn(n, generator=generator, dtype=torch.float64)"
EQUIVALENT = {  # no mistakes: what the changed solution computes is the same, or as good
    "a1": {
        "c_in(t, sigma_data) (arguments exchanged): c_in(sigma_data, t)": "1/sqrt(t^2 + sigma_d^2) is symmetric",
        "c_out(t, sigma_data) (arguments exchanged): c_out(sigma_data, t)": "t sigma_d/sqrt(t^2 + sigma_d^2) is symmetric",
        "c_out(t, sigma_data) (arguments exchanged): c_out(sigma_data, t), again": "t sigma_d/sqrt(t^2 + sigma_d^2) is symmetric",
    },
    "a2": {
        "y - y.mean() (operator): y + y.mean()": "a slope over a centred x does not see y's mean",
        "((x * y).sum() / (x * x).sum()).item() (call dropped): identity((x * y).sum() / (x * x).sum())": (
            "a tensor without axes is a number, too"
        ),
        "0 (number halved): 0.0": "the same number",
    },
    "a3": {
        "distance(f(x_t, t), y_target) (arguments exchanged): distance(y_target, f(x_t, t))": "a distance is symmetric",
        "a - b (operands exchanged): b - a": "squared",
        "teacher (teacher -> f): f": "of teacher.schedule: f lives in the same clock",
    },
    "a4": {
        "distance(f(x_t, t), y_target) (arguments exchanged): distance(y_target, f(x_t, t))": "a distance is symmetric",
        "a - b (operands exchanged): b - a": "squared",
        "0 (number halved): 0.0": "the same number",
        "grid.log() - mean (operands exchanged): mean - grid.log()": "erf is odd: every mass changes its sign, and so does their sum",
    },
    "a5": {
        "times[0].item() (call dropped): identity(times[0])": "a tensor without axes scales like a number and leaves the dtype alone",
        "Q * R.diag().sign() (operator): Q / R.diag().sign()": "1/1 is 1, 1/(-1) is -1",
        "0 (number halved): 0.0": "the same number",
        "0 (number halved): 0.0, again": "the same number",
        "torch.cosine_similarity(a.flatten(1), b.flatten(1)) (arguments exchanged): torch.cosine_similarity(b.flatten(1), a.flatten(1))": (
            "a cosine is symmetric"
        ),
        "1 (number + 1): 2": "of the clamp at -1: only b = -a lies there, and no arc is the shortest from a to -a",
        "a (a -> b): b": "of per_sample(..., a): b has a's axes and dtype",
        "1 - fraction (operands exchanged): fraction - 1": "inside sinc, which is even",
    },
    "a6": {
        "distance(f(x_t, t, label=label, w=w), y_target) (arguments exchanged): distance(y_target, f(x_t, t, label=label, w=w))": (
            "a distance is symmetric"
        ),
        "0 (number halved): 0.0": "the same number",
        "teacher (teacher -> f): f": "of teacher.schedule: f lives in the same clock",
        "D_c (D_c -> D_null): D_null": "of per_sample(w, D_c): D_null has D_c's axes and dtype",
    }
    | dict.fromkeys(
        (
            f"{RANDN} / W.shape[1] ** 0.5 (operator): {RANDN} * W.shape[1] ** 0.5",
            f"{RANDN} / W.shape[1] ** 0.5 (operands exchanged): W.shape[1] ** 0.5 / {RANDN}",
            "W.shape[1] ** 0.5 (operator): W.shape[1] * 0.5",
            "W.shape[1] ** 0.5 (operands exchanged): 0.5 ** W.shape[1]",
            "0.5 (number + 1): 1.5",
            "0.5 (number halved): 0.25",
        ),
        "the first width of A is left open: the paper does not say, peft offers 1/sqrt(in) and 1/rank",
    ),
    "b1": {
        f"mean + std * {NORMAL} (operator): mean - std * {NORMAL}": "a normal distribution is symmetric",
        "F(x, t) - aim (operands exchanged): aim - F(x, t)": "squared",
        "0 (number + 1): 1": "of x[0].numel(): every sample has as many numbers",
    },
}

SWAPS = {  # names, and what each is taken for
    "t": "s", "s": "t", "x": "x_t", "x_t": "x0", "x_s": "x_t", "f": "f_target", "f_target": "f", "eps": "x0",
    "low": "high", "kept": "now", "now": "kept", "slope_s": "slope_t", "slope_t": "slope_s", "a": "b", "b": "a",
    "alpha_s": "alpha_t", "s0": "s1", "s1": "s0", "k": "K", "mean": "std", "std": "mean", "step": "d", "d": "step",
    "alpha": "sigma", "sigma": "alpha", "u": "s", "x0_hat": "x", "x_u": "x0_hat", "forward": "inverse",
    "inverse": "forward", "known": "y", "z": "x", "angle": "whole", "share_a": "fraction", "D_c": "D_null",
    "D_null": "D_c", "label": "w", "w": "label", "teacher": "f", "merged": "layer", "F": "F_target", "F_target": "F",
    "dx": "x", "dt": "t", "cos": "sin", "sin": "cos", "value": "dF", "dF": "value", "g": "x", "r": "c", "c": "r",
}  # fmt: skip


def changed(name):
    """(what was changed, implementation) for every change of a solution."""
    for change in changes(inspect.getsource(solution(name)), SWAPS):
        functions = {f: change.space[f] for f in ASSIGNMENTS[name].functions}
        yield str(change), SimpleNamespace(**functions)


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUIVALENT)
def test_every_change_of_a_solution_is_caught_or_no_change(name):
    count, survivors = 0, set()
    for what, impl in changed(name):
        count += 1
        if not first_complaint(quick(ASSIGNMENTS[name]), impl):
            while what in survivors:  # the same change in another place
                what += ", again"
            survivors.add(what)
    print(f"{name}: {count} changes, {len(survivors)} that are no mistakes")
    assert count > 100 and survivors == set(EQUIVALENT[name])
