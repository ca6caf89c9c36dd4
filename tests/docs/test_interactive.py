"""The interactive page in a real browser: dragged by the mouse, and its numbers held against the package."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from docs.studies.interactive import new_model, unpacked
from minicm import GaussianMixture, euler_step, heun_step, karras_grid, sample, solve

PAGE = Path(__file__).parents[2] / "docs" / "_static" / "interactive"
REACH = 3.6  # half the side of the page's plane
PER_NOISE = (1 + math.asinh(80 / 0.5) / 6) / (80**2 + 0.5**2) ** 0.5 / REACH / 2  # sides of the plane
FLAGS = """headless=new no-sandbox disable-gpu disable-dev-shm-usage no-first-run disable-background-networking
disable-component-update disable-sync window-size=1100,1000"""
webdriver = pytest.importorskip("selenium.webdriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="there is no chromedriver"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS.split(), f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as driver:
        yield driver


@pytest.fixture
def page(browser):
    browser.get((PAGE / "index.html").as_uri())
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.fixture(scope="module")
def models():
    """What models.js holds, by method and N, as float64 models of the package."""
    text = (PAGE / "models.js").read_text()
    held = json.loads(text.removeprefix("const MINICM = ").removesuffix(";\n"))
    return held, {
        (method, n): new_model().double().eval() for method, by_points in held["models"].items() for n in by_points
    }


def choose(page, name, value):
    page.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))",
        name,
        value,
    )


def read(page, *names):
    """The numbers behind what is shown, once the page has drawn them, as float64 tensors."""
    script = """const [names, done] = arguments;
    requestAnimationFrame(() => requestAnimationFrame(() =>
        done(names.map((name) => document.getElementById(name).dataset.value))))"""
    values = page.execute_async_script(script, names)
    return [torch.tensor(json.loads(value), dtype=torch.float64) for value in values]


def drag(page, fractions):
    """Press on the noise's ring and move the mouse through places given as fractions of the canvas's sides."""
    canvas = page.find_element("id", "plane")
    width, height = canvas.size["width"], canvas.size["height"]
    (x_T,) = read(page, "plane")
    ring = x_T * PER_NOISE * torch.tensor([1.0, -1.0])
    hand = webdriver.ActionChains(page)
    hand.move_to_element_with_offset(canvas, round(ring[0].item() * width), round(ring[1].item() * height))
    hand.click_and_hold()
    for right, up in fractions:
        hand.move_to_element_with_offset(canvas, round((right - 0.5) * width), round((0.5 - up) * height))
    hand.release().perform()


def test_dragging_moves_the_noise_to_where_the_hand_is(page):
    (before,) = read(page, "plane")
    drag(page, [(0.5, 0.5), (0.7, 0.35)])
    (after,) = read(page, "plane")
    assert (after - before).norm() > 10  # it moved, by much more than a pixel, which is .6 of noise
    there = torch.tensor([0.2, -0.15], dtype=torch.float64) / PER_NOISE
    assert torch.allclose(after, there, atol=2.0)  # places are rounded to whole pixels: .6 each


def test_arrow_keys_move_the_noise(page):
    (before,) = read(page, "plane")
    page.find_element("id", "plane").send_keys("\ue014")  # right
    (after,) = read(page, "plane")
    assert (after - before).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("place", [(0.35, 0.8), (0.62, 0.41)])
def test_the_exact_trajectory_is_that_of_the_package(page, place):
    drag(page, [place])
    choose(page, "t", "0.4")
    x_T, end, (t, *x_t) = read(page, "plane", "exact", "t-value")
    ring = GaussianMixture.ring()
    truth = ring.consistency(x_T[None], 80.0)[0]
    # 600 Runge-Kutta steps: halving them moves the end by less than 1e-7; a point beside a ridge stretches that a hundredfold
    assert torch.allclose(end, truth, atol=1e-5)
    assert torch.allclose(torch.stack(x_t), ring.flow(x_T[None], 80.0, t.item())[0], atol=1e-5 * t.item())


@pytest.mark.parametrize("points", ["5", "33"])
@pytest.mark.parametrize("method", ["CD", "CT"])
def test_the_model_is_that_of_the_package(page, models, method, points):
    held, nets = models
    f = nets[method, points]
    f.net.load_state_dict(unpacked(held["models"][method][points]))
    choose(page, "method", method)
    choose(page, "points", points)
    for slider in ("0.95", "0.5", "0.1", "0"):
        choose(page, "t", slider)
        answer, (t, *x_t), error, end = read(page, "answer", "t-value", "answer-error", "exact")
        expected = f(torch.stack(x_t)[None], t[None].clamp(min=f.t_min))[0]
        assert torch.allclose(answer, expected, atol=1e-9)  # float64 on both sides, weights of order 1
        assert torch.isclose(error, (answer - end).norm() / held["sigma_data"], rtol=1e-9)
    assert torch.equal(answer, torch.stack(x_t))  # the boundary: at t_min, f(x, t) = x exactly


@pytest.mark.parametrize("steps", ["1", "2", "4"])
def test_a_sample_is_that_of_the_package(page, models, steps):
    held, nets = models
    f = nets["CD", "17"]
    f.net.load_state_dict(unpacked(held["models"]["CD"]["17"]))
    choose(page, "steps", steps)
    x_T, sampled = read(page, "plane", "sample")
    x, noise = x_T, torch.tensor(held["noise"], dtype=torch.float64)
    for n, t in enumerate(held["levels"][steps]):  # CM's Algorithm 1 with the page's noises
        x = x if n == 0 else x + (t**2 - 0.002**2) ** 0.5 * noise[n - 1]
        x = f(x[None], torch.tensor([t], dtype=torch.float64))[0]
    assert torch.allclose(sampled, x, atol=1e-9)  # float64 on both sides
    if steps == "1":
        assert torch.allclose(sample(f, x_T[None], [80.0])[0], x)


@pytest.mark.parametrize(("solver", "step"), [("Euler", euler_step), ("Heun", heun_step)])
@pytest.mark.parametrize("steps", [4, 32])
def test_the_solver_is_that_of_the_package(page, solver, step, steps):
    choose(page, "solver", solver)
    choose(page, "solver-steps", str(steps))
    x_T, solved = read(page, "plane", "solved")
    ring = GaussianMixture.ring()
    denoise = ring.denoiser()
    expected = solve(denoise, denoise.schedule, x_T[None], karras_grid(steps + 1).flip(0), step)[0]
    assert torch.allclose(solved, expected, atol=1e-9)  # the same arithmetic in float64


def test_more_solver_steps_come_closer_to_the_exact_end(page):
    errors = []
    for steps in ("4", "16", "64"):
        choose(page, "solver-steps", steps)
        errors += read(page, "solved-error")
    assert errors[0] > errors[1] > errors[2]


def test_nothing_is_asked_of_the_network():
    assert [file.name for file in PAGE.iterdir() if "http" in file.read_text()] == []
