"""Figures: named, labelled, legible, repeatable, the truth beside the learned, and nothing left behind in matplotlib."""

import io
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from exact import refused, seeded
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from minicm import plots
from minicm.data.mixtures import GaussianMixture
from minicm.data.toy import TwoMoons
from minicm.denoiser import Denoiser
from minicm.metrics import ConsistencyError, ExactConsistency
from minicm.nets.mlp import MLP
from minicm.plots.style import EXACT, LEARNED, mode_colours
from minicm.schedules import EDM, VP, TrigFlow

RING = GaussianMixture.ring()
EXACT_F = ExactConsistency(RING)


def untrained(schedule=EDM(), t_min=0.002, dim=2) -> Denoiser:
    """c_skip x: its last layer is zero."""
    return Denoiser(MLP(dim, width=8, depth=2), schedule, t_min=t_min)


METHODS = {"CD": untrained(), "CT": untrained()}
TRIG, CHAIN = {"sCM": untrained(TrigFlow(), 0.0)}, {"LCM": untrained(VP.scaled_linear(), 0.0)}
ERRORS = {
    name: ConsistencyError((1.0, 80.0), (1.0, 80.0), (0.1, 0.2 * i), (0.05, 0.1 * i), 0.1, 0.1)
    for i, name in enumerate(("CD", "CT"), 1)
}
LINE = GaussianMixture([[-1.0], [1.2]], [[[0.04]], [[0.12]]], [0.3, 0.7])
SEEDS = {n: [0.1 / n, 0.12 / n] for n in (1, 2, 4)}
ORDERS = {"Euler": [0.4, 0.2, 0.1], "Heun": [0.16, 0.04, 0.01]}
LOGS = {"CD": (range(0, 100, 10), np.linspace(2, 1, 10)), "CT": ([0, 10], [1.0, 0.5])}
PANELS = {
    "median error": ({"exact": [0.001, 0.01, 0.02]}, {"student": [0.3, 0.1, 0.2]}),
    "RMSE": ({}, {"student": [0.3, 0.1, 0.2], "teacher": [0.1, 0.1, 0.1]}),
}
LEVELS = [0.002, 0.1, 1.5, 80.0]
PAIRS = torch.full((4, 4), 0.03).where(torch.ones(4, 4).tril(-1).bool(), torch.nan)
FIGURES = {
    "comparison": lambda seed: plots.comparison(
        {"ring": {"regression": SEEDS, "CD published": SEEDS}, "grid": {"CD published": SEEDS}},
        bound="regression",
        floors={"ring": 0.001},
    ),
    "trajectories": lambda seed: plots.trajectories(RING, METHODS, n=3, generator=seeded(seed)),
    "trajectories, 1-D": lambda seed: plots.trajectories(LINE, {"CD": untrained(dim=1)}, n=3, generator=seeded(seed)),
    "trajectories, VP": lambda seed: plots.trajectories(RING, CHAIN, n=3, generator=seeded(seed)),
    "noise_map": lambda seed: plots.noise_map(RING, METHODS, resolution=16),
    "noise_map, TrigFlow": lambda seed: plots.noise_map(RING, TRIG, resolution=16),
    "samples": lambda seed: plots.samples(RING, METHODS, n=50, generator=seeded(seed)),
    "samples, VP": lambda seed: plots.samples(RING, CHAIN, n=50, generator=seeded(seed)),
    "samples, no mixture": lambda seed: plots.samples(TwoMoons(), TRIG, n=50, generator=seeded(seed)),
    "error_against_time": lambda seed: plots.error_against_time(ERRORS),
    "convergence": lambda seed: plots.convergence([25, 50, 100], ORDERS),
    "boundary": lambda seed: plots.boundary(RING, METHODS, n=20, generator=seeded(seed)),
    "boundary, VP": lambda seed: plots.boundary(RING, CHAIN, n=20, generator=seeded(seed)),
    "losses": lambda seed: plots.losses(LOGS),
    "curricula": lambda seed: plots.curricula(1000),
    "curves": lambda seed: plots.curves([1, 5, 20], PANELS, xlabel="skip k", title="The skip"),
    "pairs": lambda seed: plots.pairs(LEVELS, {"of the distance": PAIRS, "of the spread": PAIRS / 10}, title="All"),
    "roles": lambda seed: plots.roles(),
    "roles, CT": lambda seed: plots.roles(teacher=False),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[Figure, bytes]]:
    return {name: (figure := make(0), pixels(figure)) for name, make in FIGURES.items()}


def pixels(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return bytes(canvas.buffer_rgba())


def written(figure: Figure) -> dict[str, Bbox]:
    """Titles, axis labels and legends that are to be seen, and where they stand."""
    axes = [ax for ax in figure.axes if ax.axison]
    texts = [figure._suptitle, *(part for ax in axes for part in (ax.title, ax.xaxis.label, ax.yaxis.label))]
    texts += [*figure.legends, *(legend for ax in axes if (legend := ax.get_legend()))]
    names = (f"{i}: {part.get_text() if isinstance(part, Text) else 'legend'}" for i, part in enumerate(texts))
    shown = {name: part for name, part in zip(names, texts) if not isinstance(part, Text) or part.get_text()}
    return {name: part.get_window_extent() for name, part in shown.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_shows(drawn, name):
    figure, _ = drawn[name]
    assert isinstance(figure, Figure) and figure.get_suptitle()
    for ax in (ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"):
        assert ax.get_xlabel() or ax.get_subplotspec().get_gridspec().nrows > 1, f"{ax} has no x label"
        assert ax.get_ylabel() or not ax.get_subplotspec().is_first_col(), f"{ax} has no y label"
    assert all(ax.get_ylabel() for ax in figure.axes if ax.get_label() == "<colorbar>")
    if name.split(",")[0] in ("trajectories", "noise_map", "boundary"):
        texts = [text.get_text() for ax in figure.axes for text in (ax.title, *(ax.get_legend() or Figure()).texts)]
        assert any("exact" in text for text in texts)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_overlaps_or_leaves_an_800_pixel_page(drawn, name):
    figure, _ = drawn[name]
    page, places = figure.bbox, written(figure)
    assert page.width == 800
    for what, box in places.items():
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, f"{what!r} leaves the page sideways"
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, f"{what!r} leaves the page"
    for (a, first), (b, second) in combinations(places.items(), 2):
        assert not Bbox.intersection(first.padded(-1), second.padded(-1)), f"{a!r} lies on {b!r}"


@pytest.mark.parametrize("name", ["trajectories, 1-D", "samples, VP", "boundary, VP"])
def test_a_seed_repeats_the_picture_and_another_changes_it(drawn, name):
    assert pixels(FIGURES[name](0)) == drawn[name][1] != pixels(FIGURES[name](1))


def test_matplotlib_is_left_as_it_was():
    before = dict(matplotlib.rcParams)
    plots.roles()
    assert dict(matplotlib.rcParams) == before
    sources = Path(plots.__file__).parent.glob("*.py")
    assert not [path.name for path in sources if "import pyplot" in (text := path.read_text()) or "plt." in text]


def test_no_two_lines_are_told_apart_by_colour_alone():
    dashes = [str(EXACT["linestyle"]), *(str(style["linestyle"]) for style in LEARNED)]
    assert len(set(dashes)) == len(dashes)
    assert len({style["marker"] for style in LEARNED}) == len(LEARNED)


@pytest.mark.parametrize("modes", [2, 3, 8, 25])
def test_neighbouring_modes_differ_in_grey(modes):
    grey = mode_colours(modes)(np.arange(modes))[:, :3] @ [0.2126, 0.7152, 0.0722]  # luminance, Rec. 709
    assert (np.abs(np.diff(grey)) > 0.1).all()


# --------------------------------------------------------------------------------- what the figures say is true
def test_the_exact_function_sends_all_points_of_a_trajectory_to_its_end():
    figure = plots.trajectories(RING, {"CD": EXACT_F}, n=3, generator=seeded())
    above = figure.axes[0]
    ends, dots = (part.get_offsets().data for part in above.collections[-2:])
    assert dots.shape == (27, 2) and ends.shape == (3, 2)
    # 1e-4: x_T, of order 80, is float32 along the way.
    assert np.abs(dots.reshape(9, 3, 2) - ends).max() < 1e-4


def test_the_map_counts_what_goes_to_a_wrong_mode():
    def titles(f):
        return [ax.get_title() for ax in plots.noise_map(RING, {"CD": f}, resolution=16).axes]

    turned = ExactConsistency(GaussianMixture(-RING.means, RING.covs, RING.weights))  # the same ring
    assert "CD: 0 % to a wrong mode" in titles(EXACT_F) and "CD: 0 % to a wrong mode" in titles(turned)
    elsewhere = ExactConsistency(GaussianMixture(RING.means[:4], RING.covs[:4], RING.weights[:4] * 2))
    share = next(title for title in titles(elsewhere) if "wrong" in title)
    assert 50 <= float(share.split()[1]) < 100  # four of eight modes are not there, and their noise goes astray


def test_samples_of_the_exact_function_have_no_outliers_and_those_of_another_are_marked():
    from_exact, from_other = (
        plots.samples(RING, {"CD": f}, n=200, steps=(1,), generator=seeded()).axes[1] for f in (EXACT_F, untrained())
    )
    assert "0 % outliers" in from_exact.get_title()
    assert len(from_other.collections[1].get_offsets()) > 100  # c_skip x is near the middle of the ring


def test_error_against_time_draws_the_numbers_it_is_given():
    median, rmse = plots.error_against_time(ERRORS).axes
    assert [ax.lines[1].get_ydata().tolist() for ax in (median, rmse)] == [[0.05, 0.2], [0.1, 0.4]]
    assert "0.4" in rmse.get_legend().texts[1].get_text()


def test_convergence_names_the_orders():
    legend = FIGURES["convergence"](0).axes[0].get_legend()
    assert [text.get_text() for text in legend.texts] == ["Euler: order 1.00", "Heun: order 2.00"]


def test_curves_draws_the_numbers_it_is_given_and_the_exact_ones_in_black():
    left, right = FIGURES["curves"](0).axes
    exact, student = left.lines
    assert list(exact.get_ydata()) == [0.001, 0.01, 0.02] and exact.get_color() == "black"
    assert list(student.get_ydata()) == [0.3, 0.1, 0.2] and student.get_color() != "black"
    assert [label.get_text() for label in left.get_xticklabels()] == ["1", "5", "20"]
    assert len(right.lines) == 2


def test_pairs_writes_a_number_for_every_pair_and_none_beside():
    left, right = FIGURES["pairs"](0).axes
    assert [text.get_text() for text in left.texts] == [".030"] * 6
    assert [text.get_text() for text in right.texts] == [".003"] * 6


def test_the_boundary_figure_tells_a_model_with_a_boundary_from_one_without():
    class Without:
        schedule, t_min = EDM(), 0.002

        def __call__(self, x, t):
            return EXACT_F(x, t) + 0.01

    figure = plots.boundary(RING, {"CD": METHODS["CD"], "bare": Without()}, n=20, generator=seeded())
    labels = [text.get_text() for text in figure.axes[1].get_legend().texts]
    assert all(": 0 at" in label for label in labels[:2]) and ": 0.02 at" in labels[2]  # .01 in units of sigma_d = .5
    curves = [line.get_ydata()[0] for line in figure.axes[1].lines]  # 1e-4 above t_min
    assert curves[0] < 1e-3 and curves[1] < 1e-3 and curves[2] == pytest.approx(0.02, rel=0.05)


def test_a_map_of_noise_needs_two_dimensions():
    refused("2 dimensions, got 1", lambda: plots.noise_map(LINE, {"CD": untrained(dim=1)}))


def test_an_animation_shows_every_frame_and_holds_the_last():
    figure = Figure(figsize=(1, 1), dpi=50)
    bar = figure.subplots().bar([0], [1])[0]
    gif = plots.animation(figure, bar.set_height, [0.0, 0.5, 1.0], alt="a growing bar", seconds=0.1, hold=2)
    film = Image.open(io.BytesIO(gif.data))
    times, frames = [], []
    for i in range(film.n_frames):
        film.seek(i)
        times.append(film.info["duration"])
        frames.append(np.asarray(film.convert("L"), dtype=float))
    assert times == [100, 100, 2000] and film.info["loop"] == 0
    dark = [(frame < 200).sum() for frame in frames]
    assert dark[0] < dark[1] < dark[2]  # the bar grows
    assert 'alt="a growing bar"' in gif._repr_html_()
    refused("at least one frame", lambda: plots.animation(figure, bar.set_height, [], alt=""))
