"""Figures of pictures: what is drawn is what was given, in its place, named, on one page."""

import numpy as np
import pytest
import torch
from exact import normal, seeded
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minicm import VP, Denoiser, UNet
from minicm.metrics.consistency import time_grid
from minicm.plots.images import (
    along_a_trajectory,
    edited,
    few_step_samples,
    interpolated,
    nearest_training,
    picture_rows,
)

TEACHER = Denoiser(UNet(1, 8, (1, 2)), sigma_data=0.85)
STUDENT = Denoiser(UNet(1, 8, (1, 2)), sigma_data=0.85, t_min=0.002)
CHAIN = Denoiser(UNet(1, 8, (1, 2)), VP.scaled_linear())


def some(n: int, channels: int = 1, size: int = 8, seed: int = 0) -> torch.Tensor:
    return normal(n, channels, size, size, seed=seed).float()


def trajectory(teacher: Denoiser, student: Denoiser) -> Figure:
    x_T = teacher.schedule.prior((1, 1, 8, 8), seeded())
    return along_a_trajectory(student, teacher, x_T, time_grid(teacher.schedule, 20).flip(0))


FIGURES = {
    "few": lambda: few_step_samples({1: some(12), 2: some(12), 4: some(12)}, some(12), torch.arange(12) % 10, "CD"),
    "one": lambda: picture_rows({"sample": some(1)}, "One"),
    "colour": lambda: picture_rows({"a": some(20, 3, 32), "b": some(20, 3, 32)}, "Colour"),
    "trajectory": lambda: trajectory(TEACHER, STUDENT),
    "trajectory, VP": lambda: trajectory(CHAIN, CHAIN),
    "edited": lambda: edited(STUDENT, some(6), [80.0, 1.0], generator=seeded()),
    "interpolated": lambda: interpolated(STUDENT, some(3), some(3, seed=1)),
    "nearest": lambda: nearest_training(some(10), some(50, seed=1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_named_and_stays_on_an_800_pixel_page(name):
    figure = FIGURES[name]()
    FigureCanvasAgg(figure).draw()
    assert figure.get_suptitle() and figure.bbox.width == 800
    page = figure.bbox.padded(1)
    for ax in figure.axes:
        assert ax.get_ylabel()
        texts = [ax.yaxis.label, *(text for text in ax.get_xticklabels() if text.get_text())]
        boxes = [text.get_window_extent() for text in texts]
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 for box in boxes)
        columns = boxes[1:]
        assert all(left.x1 <= right.x0 for left, right in zip(columns, columns[1:])), "column names overlap"
        assert ax.get_window_extent().width > 400 or name == "one", "the pictures fill less than half the page"


def test_pictures_are_drawn_side_by_side_clamped_and_in_order():
    x = some(3) * 2
    (ax,) = picture_rows({"x": x}, "x").axes
    drawn = ax.images[0].get_array()
    assert drawn.shape == (8, 26) and ax.images[0].get_clim() == (-1, 1)
    for i in range(3):
        assert np.allclose(drawn[:, 9 * i : 9 * i + 8], x[i, 0].clamp(-1, 1))
    colour = some(2, 3)
    (ax,) = picture_rows({"x": colour}, "x").axes
    assert np.allclose(ax.images[0].get_array()[:, 9:17], (colour[1].clamp(-1, 1).permute(1, 2, 0) + 1) / 2)


def test_rows_stand_in_the_order_that_they_are_compared_in():
    figure = FIGURES["few"]()
    names = [ax.get_ylabel() for ax in figure.axes]
    assert names == ["1 step", "2 steps", "4 steps", "teacher,\n40 Heun steps"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()][:3] == ["0", "1", "2"]


def test_the_trajectory_starts_in_noise_and_ends_where_all_three_agree():
    # Both networks are zero: D = c_skip x, and f the same with its boundary; near t_min both are x itself.
    rows = [ax.images[0].get_array()[:, -8:] for ax in trajectory(TEACHER, STUDENT).axes]
    # 20 times, every fourth: the last is at noise .04, where c_skip is 1 - (.04/.85)^2 = .998
    assert np.allclose(rows[0], rows[1], atol=0.01) and np.allclose(rows[1], rows[2], atol=0.01)


def test_a_copy_is_shown_above_its_original():
    train = some(50, seed=1).clamp(-1, 1)
    figure = nearest_training(train[[7, 31]], train)
    sample, below = (ax.images[0].get_array() for ax in figure.axes)
    assert np.array_equal(sample, below)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0.0", "0.0"]


def test_edited_pictures_keep_what_was_known():
    y = some(4).clamp(-1, 1)
    rows = [ax.images[0].get_array() for ax in edited(STUDENT, y, [80.0, 1.0], generator=seeded()).axes]
    for i in range(4):
        left = np.s_[:, 9 * i : 9 * i + 4]
        assert np.array_equal(rows[0][left], rows[1][left]) and np.array_equal(rows[0][left], rows[2][left])
        assert not np.array_equal(rows[0][:, 9 * i + 4 : 9 * i + 8], rows[2][:, 9 * i + 4 : 9 * i + 8])
