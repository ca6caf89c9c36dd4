"""What the options of guided and of trajectory models do, a figure each: skip, guidance w, steps, gamma, chosen times.

    python -m docs.studies.guided_figures [FIGURE ...] [--folder runs/guided] [--figures docs/figures]

after `python -m docs.studies.guided`, whose runs in FOLDER it measures. It prints the numbers of each figure, and writes
FIGURES/FIGURE.png. docs/results.md holds a run.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from docs.studies.guided import SKIPS, chosen, read
from minicm import plots
from minicm.checkpoint import load_model
from minicm.data.named import classed, points_named
from minicm.evaluate.guided import GAMMAS, evaluate_guided, evaluate_guided_teacher, evaluate_trajectory, guided_noise
from minicm.evaluate.points import seeded
from minicm.metrics import energy_distance, exact_outliers, mode_covariance_ratio, outlier_fraction, time_grid
from minicm.metrics.pairs import pairs_error
from minicm.recipes.guided import CLOCK
from minicm.sampling import choose_times, sample
from minicm.times import with_skip

WS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
STEPS = (1, 2, 4, 8)
FAR_STEPS = (1, 2, 4, 8, 16)

Values = dict[str, list[float]]


def skips(folder: Path) -> Figure:
    """LCD's skip at an equal number of updates, beside the error of the skipping solver itself."""
    records = {r["part"]: r["rows"] for r in read(folder) if r["seed"] == 0}
    panels: dict[str, tuple[Values, Values]] = {}
    for w in (1, 3):
        learned = [records[f"LCD-published-k{skip}"][f"w = {w}, 1-step median"] for skip in SKIPS]
        own = [skipping_error(skip, float(w)) for skip in SKIPS]
        panels[f"median error at w = {w}"] = ({"the solver's own": own}, {"student, 1 step": learned})
    title = "The skip: small learns slowly, large is inaccurate"
    return show(SKIPS, panels, xlabel="skip k, of 1000 times", title=title)


def skipping_error(skip: int, w: float) -> float:
    """Median error of DDIM in skips, with the exact denoiser, against the exact guided flow."""
    data, times = classed("ring"), with_skip(torch.arange(1001.0), skip).flip(0)
    _, median = evaluate_guided_teacher(data.denoiser(CLOCK), data, ws=(w,), times=times, n=500)
    return median.value


@torch.no_grad()
def guidance(folder: Path, n: int = 1000) -> Figure:
    """The scale w from 0 to 8: the student's one step and the teacher's chain beside the exact guided flow."""
    data = classed("ring")
    student, teacher = (load_model(folder / f"{part}-0") for part in ("LCD-exact", "guided-teacher"))
    ours = [r.value for r in evaluate_guided(student, data, ws=WS, steps=(1,), n=n) if "RMSE" in r.name]
    chain = [r for r in evaluate_guided_teacher(teacher, data, ws=WS, n=n) if "RMSE" in r.name]
    x_T, label = guided_noise(CLOCK, data, n, 0)
    t = torch.full((n,), CLOCK.t_max, dtype=torch.float64)
    truths = [data.flow(x_T, CLOCK.t_max, 0.0, CLOCK, label, w) for w in WS]
    learned = [student(x_T, t, label=label, w=torch.full_like(t, w)) for w in WS]
    exact_area, area = ([mode_covariance_ratio(x, data).mean().item() for x in part] for part in (truths, learned))
    panels = {
        "RMSE to the exact guided flow": (
            {"DDIM-30, exact teacher": [r.floor or 0.0 for r in chain]},
            {"student, 1 step": ours, "DDIM-30, learned teacher": [r.value for r in chain]},
        ),
        "area of a mode (data: 1)": ({"exact guided flow": exact_area}, {"student, 1 step": area}),
    }
    return show(WS, panels, xlabel="guidance w", title="Guidance, learned and exact")


def steps(folder: Path) -> Figure:
    """1, 2, 4, 8 steps of the LCD student at several w: means over the seeds."""
    group = [r["rows"] for r in read(folder) if r["part"] == "LCD-exact"]
    panels: dict[str, tuple[Values, Values]] = {}
    for measure in ("median", "RMSE"):
        lines = {
            f"w = {w}": [statistics.mean(r[f"w = {w}, {k}-step {measure}"] for r in group) for k in STEPS]
            for w in (0, 1, 3, 8)
        }
        panels[f"{measure} to the exact guided flow"] = ({}, lines)
    return show(STEPS, panels, xlabel="sampling steps", title="LCD: more steps of sampling, fresh noise in each")


def gamma(folder: Path, n: int = 1000) -> Figure:
    """TCD's gamma against the number of steps: 1 is CM's sampler, 0 is without noise."""
    rows = evaluate_trajectory(load_model(folder / "TCD-exact-0"), points_named("ring"), steps=FAR_STEPS, n=n)
    value = {row.name: row.value for row in rows}
    error, outliers = (
        {f"gamma = {g:g}": [value[f"gamma = {g:g}, {k}-step {measure}"] for k in FAR_STEPS] for g in GAMMAS}
        for measure in ("RMSE", "outliers")
    )
    panels = {
        "RMSE to the exact f, same noise": ({}, error),
        "points outside all modes": ({"exact": [exact_outliers(2)] * len(FAR_STEPS)}, outliers),
    }
    return show(FAR_STEPS, panels, xlabel="sampling steps", title="TCD: what gamma does to more steps")


@torch.no_grad()
def times(folder: Path, n: int = 2000) -> Figure:
    """CM's greedy choice of times, by two scores, beside the default times; judged on noise that the choice has not seen."""
    data, f, counts = points_named("ring"), load_model(folder / "TCD-exact-0"), STEPS[:3]
    real, again = (data.sample(n, seeded(seed))[0] for seed in (5, 6))
    seen, fresh = (f.schedule.prior((n, data.dim), seeded(seed)) for seed in (0, 1))
    grid = time_grid(f.schedule, 60, f.t_min)
    scores: dict[str, Callable[[Tensor], float]] = {
        "chosen by energy distance": lambda x: energy_distance(x[:1000], real[:1000]),
        "chosen by points outside": lambda x: outlier_fraction(x, data),
    }
    at = {"default": [time_grid(f.schedule, k, f.t_min).flip(0) for k in counts]}
    at |= {name: [choose_times(f, seen, score, k, grid=grid) for k in counts] for name, score in scores.items()}
    clouds = {name: [sample(f, fresh, t, generator=seeded(7)) for t in choices] for name, choices in at.items()}
    print(json.dumps({name: [rounded(t) for t in choices] for name, choices in at.items()}))
    energy = {name: rounded([energy_distance(x, real) for x in xs]) for name, xs in clouds.items()}
    print(json.dumps({"energy distance": energy | {"data to data": rounded([energy_distance(again, real)])}}))
    outside = {name: [outlier_fraction(x, data) for x in xs] for name, xs in clouds.items()}
    panels = {"points outside all modes": ({"exact": [exact_outliers(2)] * 3}, outside)}
    return show(counts, panels, xlabel="sampling steps (gamma = 1)", title="The choice of times")


def triangle(folder: Path) -> Figure:
    """TCD's error between all pairs of times, in both units."""
    error = pairs_error(load_model(folder / "TCD-exact-0"), points_named("ring"))
    relative = {"of the distance moved": error.error / error.moved, "of the spread at u": error.error / error.spread}
    return plots.pairs(error.levels, relative, title="TCD from t to u: relative error of every pair of times")


def show(x: Sequence[float], panels: dict[str, tuple[Values, Values]], **words: Any) -> Figure:
    """Print the values of a figure, and draw it."""
    for measure, (truth, learned) in panels.items():
        print(json.dumps({measure: {name: rounded(values) for name, values in (truth | learned).items()}}))
    return plots.curves(x, panels, **words)


def rounded(values: Sequence[float] | Tensor) -> list[float]:
    """Three significant digits, to print."""
    return [float(f"{value:.3g}") for value in values]


FIGURES: dict[str, Callable[[Path], Figure]] = {
    "lcd_skip": skips,
    "lcd_guidance": guidance,
    "lcd_steps": steps,
    "tcd_gamma": gamma,
    "tcd_pairs": triangle,
    "chosen_times": times,
}


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="where the figures go")
    args = chosen(parser, FIGURES)
    for name in args.parts:
        print(f"# {name}")
        FIGURES[name](args.folder).savefig(args.figures / f"{name}.png")


if __name__ == "__main__":
    main()
