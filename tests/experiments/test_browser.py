"""Report and live page in a real browser (Chromium and its driver, the extra `browser`).

    pytest -m external -n 0 -s tests/experiments/test_browser.py

prints its measurements. The environment variable BROWSER_PICTURES names a folder for screenshots of the pages.
"""

import base64
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lifelong_cvae as lifelong
from lifelong_cvae.runs.workdir import load_state
from tests.experiments.conftest import ROOT, environment
from tests.strokes import strokes_of

pytestmark = pytest.mark.external
SIZES = {"desktop": (1200, 900), "phone": (390, 844)}
WAIT = 90  # seconds


class Browser:
    """A headless Chromium."""

    def __init__(self, size="desktop", scheme="light"):
        from selenium import webdriver

        self.size, (width, height) = size, SIZES[size]
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"window-size={width},{height}"):
            options.add_argument(f"--{argument}")
        if size == "phone":
            metrics = {"width": width, "height": height, "pixelRatio": 2, "touch": True}
            options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options, service)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def command(self, name, **values):
        return self.driver.execute_cdp_cmd(name, values)

    def script(self, text, *values):
        return self.driver.execute_script(text, *values)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def wait_for(self, expression):
        """Waits until an expression of JavaScript is true, and returns its value."""
        start = time.monotonic()
        while not (value := self.script(f"return {expression}")):
            assert time.monotonic() - start < WAIT, (expression, self.find("body").text)
            time.sleep(0.05)
        return value

    def save_screenshot(self, name):
        """Writes a screenshot of the whole page if BROWSER_PICTURES is set."""
        if folder := os.environ.get("BROWSER_PICTURES"):
            size = self.command("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            screenshot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(screenshot["data"]))

    def check_page(self):
        """Asserts that nothing is in the console, wider than the window, or seriously inaccessible.

        Returns:
            Names of minor accessibility findings.
        """
        assert [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        assert self.script("return document.documentElement.scrollWidth <= window.innerWidth")
        self.script(resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
        violations = self.driver.execute_async_script("axe.run().then(arguments[0])")["violations"]
        serious = [violation for violation in violations if violation["impact"] in ("serious", "critical")]
        assert [(violation["id"], violation["nodes"][0]["html"]) for violation in serious] == []
        return [violation["id"] for violation in violations]

    def draw(self, digit):
        """Replays a digit as strokes of a mouse or a finger, and returns the recognized category."""
        self.find("#clear").click()
        self.script("document.querySelector('#canvas').scrollIntoView({block: 'center'})")
        box = self.find("#canvas").rect
        scroll = self.script("return [window.scrollX, window.scrollY]")
        left, top = box["x"] - scroll[0], box["y"] - scroll[1]
        answers = "performance.getEntriesByName('answer').length"
        before = self.script(f"return {answers}")
        for stroke in strokes_of(digit):
            points = [(left + x * box["width"] / 28, top + y * box["height"] / 28) for x, y in stroke]
            self._draw_stroke([*points[::3], points[-1]])
        self.wait_for(f"{answers} > {before}")
        time.sleep(0.2)  # the event of the last point may be pending
        self.wait_for("document.querySelector('.answer').ariaBusy === 'false'")
        return self.find("#best").text.split(",")[0]

    def _draw_stroke(self, points):
        if self.size == "phone":
            for kind, (x, y) in zip(["Start"] + ["Move"] * (len(points) - 1), points, strict=True):
                self.command("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=[{"x": x, "y": y}])
            self.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            return
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


@pytest.fixture
def open_browser():
    """Function that opens an address in a new browser."""
    browsers = []

    def open_address(address, **options):
        browsers.append(Browser(**options))
        browsers[-1].driver.get(address)
        return browsers[-1]

    yield open_address
    for browser in browsers:
        browser.driver.quit()


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """Run directory of the README's first run, on ten digits."""
    workdir = tmp_path_factory.mktemp("run") / "digits"
    command = [sys.executable, "-m", "experiments.learn", f"--workdir={workdir}"]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    return workdir


@pytest.fixture(scope="module")
def address(digits_run):
    """Address of the live page of that run."""
    command = [sys.executable, "-m", "experiments.serve", f"--workdir={digits_run}", "--port=0"]
    server = subprocess.Popen(
        command, cwd=ROOT, env={**environment(), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    )
    yield re.search(r"http://\S+", server.stdout.readline())[0]
    server.terminate()
    server.communicate(timeout=30)


def open_live_page(open_browser, address, **options):
    page = open_browser(address, **options)
    page.wait_for("document.body.dataset.ready")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_report_is_accessible_and_slider_shows_tasks(open_browser, digits_run, size, scheme):
    file = digits_run / "report.html"
    assert file.stat().st_size < 5_000_000
    page = open_browser(file.as_uri(), size=size, scheme=scheme)
    slider = page.find("#task")
    visible_table = "return [...document.querySelectorAll('.imagined')].findIndex((table) => !table.hidden)"
    assert page.script(visible_table) == 9
    assert page.find("output").text == "10: 9"
    page.save_screenshot(f"report_{size}_{scheme}")
    from selenium.webdriver.common.keys import Keys

    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.script(visible_table) == 7
    assert page.find("output").text == "8: 7"
    assert slider.get_attribute("aria-valuetext") == "after task 8: 7"
    print(f"\nreport: {file.stat().st_size / 1e6:.2f} MB; minor findings: {page.check_page()}")


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_live_page_recognizes_drawing_and_shows_circle(open_browser, address, mnist5k, size, scheme):
    page = open_live_page(open_browser, address, size=size, scheme=scheme)
    answers = [page.draw(mnist5k.read("test", name)[5, ..., 0]) for name in "350"]
    assert answers == ["3", "5", "0"]
    assert len(page.driver.find_elements("css selector", "#categories li")) == 10
    assert page.script("return document.querySelector('#turns').naturalWidth") == 8 * 30
    page.save_screenshot(f"live_{size}_{scheme}")
    page.find("#undo").click()
    page.check_page()


def test_live_page_recognizes_replayed_test_images(open_browser, address, mnist5k):
    page = open_live_page(open_browser, address)
    is_correct = [
        page.draw(digit) == name for name in mnist5k.categories for digit in mnist5k.read("test", name)[:10, ..., 0]
    ]
    times = page.script("return performance.getEntriesByName('answer').map((entry) => entry.duration)")
    print(f"\n{sum(is_correct)} of 100 strokes recognized; answers after {statistics.median(times):.0f} ms (median)")
    assert sum(is_correct) >= 90


def test_live_page_sliders_change_image(open_browser, address):
    page = open_live_page(open_browser, address)
    page.script("document.querySelector('#category').value = '3'")
    page.script("document.querySelector('#category').dispatchEvent(new Event('change'))")
    pictures = [page.wait_for("document.querySelector('#walk').src")]
    for _ in range(2):
        slide = "const s = document.querySelector('#sliders input'); s.value = Number(s.value) + 1.5;"
        page.script(slide + "s.dispatchEvent(new Event('input'))")
        page.wait_for(f"document.querySelector('#walk').src !== {pictures[-1]!r}")
        pictures.append(page.script("return document.querySelector('#walk').src"))
    assert len(set(pictures)) == 3
    page.find("#imagine").click()
    page.wait_for("document.querySelector('#imagined').naturalWidth === 300")


def test_live_page_teaches_recognizes_and_drops_category(open_browser, address, digits_run, mnist5k, tmp_path):
    page, other = open_live_page(open_browser, address), open_live_page(open_browser, address, size="phone")
    # A new category of digits mirrored top to bottom: 4 are drawn and 16 are uploaded.
    strange = np.ascontiguousarray(mnist5k.read("train", "4")[:30, ::-1, ..., 0])
    for digit in strange[:4]:
        page.draw(digit)
        page.find("#add").click()
    files = []
    for number, digit in enumerate(strange[4:20]):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(255 - np.pad(np.kron(digit, np.ones((9, 9), np.uint8)), 40)).save(files[-1])
    page.find("#examples-upload").send_keys("\n".join(map(str, files)))
    page.wait_for("document.querySelectorAll('#examples img').length === 20")
    page.find("#name").send_keys("<i>strange</i>")
    start = time.monotonic()
    page.find("#teach button[type=submit]").click()
    page.wait_for("!document.querySelector('#progress').hidden")
    assert other.draw(mnist5k.read("test", "0")[0, ..., 0]) == "0"  # while the first page is learning
    page.save_screenshot("live_teaching")
    page.wait_for("document.querySelector('#status').textContent.includes('was learned from 20 examples')")
    seconds = time.monotonic() - start
    recognized = [page.draw(digit) for digit in strange[20:30]]
    page.save_screenshot("live_taught")
    page.find("#save").click()
    page.wait_for("document.querySelector('#status').textContent.startsWith('Saved to')")
    before, after = (
        {name: np.mean(lifelong.recognize(recognizer, mnist5k.read("test", name))[0] == name) for name in "0123456789"}
        for recognizer in map(lifelong.make_recognizer, (load_state(digits_run), lifelong.load(digits_run / "taught")))
    )
    lost = 100 * np.mean([before[name] - after[name] for name in before])
    new = sum(name == "<i>strange</i>" for name in recognized)
    print(f"\ntaught in {seconds:.0f} s; {new} of 10 new drawings recognized; digits lost {lost:.2f} points")
    assert lost <= 0.5
    assert new >= 5
    drop = "[aria-label='Drop <i>strange</i>']"
    page.find(drop).click()
    page.driver.switch_to.alert.accept()
    page.wait_for("document.querySelector('#status').textContent === '<i>strange</i> was dropped'")
    assert page.script("return document.querySelectorAll('#names li').length") == 10
    page.check_page()
    shutil.rmtree(digits_run / "taught")


def test_live_page_shows_errors(open_browser, address, tmp_path):
    page = open_live_page(open_browser, address)
    page.find("#name").send_keys("x")
    page.find("#teach button[type=submit]").click()
    message = "category 'x': expected at least 10 examples, got 0"
    page.wait_for(f'document.querySelector("#status").textContent === "{message}"')
    page.find("#add").click()
    page.wait_for("document.querySelector('#status').textContent.startsWith('Draw an example')")
    (tmp_path / "no.png").write_text("no picture")
    page.find("#upload").send_keys(str(tmp_path / "no.png"))
    page.wait_for("document.querySelector('#status').textContent.includes('not a readable picture')")
