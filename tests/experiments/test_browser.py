"""The report and the live page in a real browser (Chromium and its driver, the extra `browser`).

    pytest -m external -n 0 -s tests/experiments/test_browser.py

prints what it measured. Pictures of the pages are left in the folder that BROWSER_PICTURES names.
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
        for argument in (
            "headless=new",
            "no-sandbox",
            "disable-dev-shm-usage",
            f"window-size={width},{height}",
        ):
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

    def until(self, condition):
        """Waits for what a script returns to be true, and gives it."""
        start = time.monotonic()
        while not (found := self.script(f"return {condition}")):
            assert time.monotonic() - start < WAIT, (condition, self.find("body").text)
            time.sleep(0.05)
        return found

    def picture(self, name):
        """Leaves a picture of the whole page."""
        if folder := os.environ.get("BROWSER_PICTURES"):
            size = self.command("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def check(self):
        """No error in the console, nothing that is wider than the window, nothing inaccessible."""
        assert [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        assert self.script("return document.documentElement.scrollWidth <= window.innerWidth")
        self.script(resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
        found = self.driver.execute_async_script("axe.run().then(arguments[0])")
        serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        assert [(one["id"], one["nodes"][0]["html"]) for one in serious] == []
        return [one["id"] for one in found["violations"]]

    def draw(self, digit):
        """Replays a digit as strokes of a mouse or a finger, and gives what it is taken for."""
        self.find("#clear").click()
        self.script("document.querySelector('#canvas').scrollIntoView({block: 'center'})")
        place = self.find("#canvas").rect
        scroll = self.script("return [window.scrollX, window.scrollY]")
        left, top = place["x"] - scroll[0], place["y"] - scroll[1]
        answers = "performance.getEntriesByName('answer').length"
        before = self.script(f"return {answers}")
        for stroke in strokes_of(digit):
            points = [(left + x * place["width"] / 28, top + y * place["height"] / 28) for x, y in stroke]
            self._stroke([*points[::3], points[-1]])
        self.until(f"{answers} > {before}")
        time.sleep(0.05)  # for the last point, which may still be on its way
        self.until("document.querySelector('.answer').ariaBusy === 'false'")
        return self.find("#best").text.split(",")[0]

    def _stroke(self, points):
        if self.size == "phone":
            for kind, (x, y) in zip(["Start"] + ["Move"] * (len(points) - 1), points, strict=True):
                self.command("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=[{"x": x, "y": y}])
            self.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            return
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


@pytest.fixture
def browser(request):
    opened = []

    def open_browser(address, **options):
        opened.append(Browser(**options))
        opened[-1].driver.get(address)
        return opened[-1]

    yield open_browser
    for one in opened:
        one.driver.quit()


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """The README's first run: ten digits."""
    workdir = tmp_path_factory.mktemp("run") / "digits"
    command = [sys.executable, "-m", "experiments.learn", f"--workdir={workdir}"]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    return workdir


@pytest.fixture(scope="module")
def address(digits_run):
    """Of the live page of that run."""
    command = [sys.executable, "-m", "experiments.serve", f"--workdir={digits_run}", "--port=0"]
    served = subprocess.Popen(
        command, cwd=ROOT, env={**environment(), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    )
    yield re.search(r"http://\S+", served.stdout.readline())[0]
    served.terminate()
    served.communicate(timeout=30)


def ready(browser, address, **options):
    page = browser(address, **options)
    page.until("document.body.dataset.ready")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_report_is_readable_and_its_slider_moves(browser, digits_run, size, scheme):
    file = digits_run / "report.html"
    assert file.stat().st_size < 5_000_000
    page = browser(file.as_uri(), size=size, scheme=scheme)
    slider = page.find("#task")
    shown = "return [...document.querySelectorAll('.drawn')].findIndex((table) => !table.hidden)"
    assert page.script(shown) == 9
    assert page.find("output").text == "10: 9"
    page.picture(f"report_{size}_{scheme}")
    from selenium.webdriver.common.keys import Keys

    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.script(shown) == 7
    assert page.find("output").text == "8: 7"
    assert slider.get_attribute("aria-valuetext") == "after task 8: 7"
    print(f"\nreport: {file.stat().st_size / 1e6:.2f} MB; minor findings: {page.check()}")


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_a_drawing_is_recognised_redrawn_and_goes_round_the_circle(browser, address, mnist5k, size, scheme):
    page = ready(browser, address, size=size, scheme=scheme)
    answers = [page.draw(mnist5k.read("test", name)[5, ..., 0]) for name in "350"]
    assert answers == ["3", "5", "0"]
    assert len(page.driver.find_elements("css selector", "#categories li")) == 10
    assert page.script("return document.querySelector('#turns').naturalWidth") == 8 * 30
    page.picture(f"live_{size}_{scheme}")
    page.find("#undo").click()
    page.check()


def test_of_a_hundred_test_images_replayed_as_strokes_most_are_recognised(browser, address, mnist5k):
    page = ready(browser, address)
    right = [
        page.draw(digit) == name for name in mnist5k.categories for digit in mnist5k.read("test", name)[:10, ..., 0]
    ]
    times = page.script("return performance.getEntriesByName('answer').map((entry) => entry.duration)")
    print(f"\n{sum(right)} of 100 strokes recognized; answers after {statistics.median(times):.0f} ms (median)")
    assert sum(right) >= 90


def test_sliders_lead_through_a_category(browser, address):
    page = ready(browser, address)
    page.script("document.querySelector('#category').value = '3'")
    page.script("document.querySelector('#category').dispatchEvent(new Event('change'))")
    pictures = [page.until("document.querySelector('#along').src")]
    for _ in range(2):
        slide = "const s = document.querySelector('#sliders input'); s.value = Number(s.value) + 1.5;"
        page.script(slide + "s.dispatchEvent(new Event('input'))")
        page.until(f"document.querySelector('#along').src !== {pictures[-1]!r}")
        pictures.append(page.script("return document.querySelector('#along').src"))
    assert len(set(pictures)) == 3
    page.find("#others").click()
    page.until("document.querySelector('#imagined').naturalWidth === 300")


def test_a_category_is_taught_by_drawings_and_uploads_recognised_and_dropped(
    browser, address, digits_run, mnist5k, tmp_path
):
    page, other = ready(browser, address), ready(browser, address, size="phone")
    # A new category: digits upside down and mirrored, 4 of them drawn, 16 uploaded.
    strange = np.ascontiguousarray(mnist5k.read("train", "4")[:30, ::-1, ..., 0])
    for digit in strange[:4]:
        page.draw(digit)
        page.find("#add").click()
    files = []
    for number, digit in enumerate(strange[4:20]):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(255 - np.pad(np.kron(digit, np.ones((9, 9), np.uint8)), 40)).save(files[-1])
    page.find("#examples-upload").send_keys("\n".join(map(str, files)))
    page.until("document.querySelectorAll('#examples img').length === 20")
    page.find("#name").send_keys("<i>strange</i>")
    start = time.monotonic()
    page.find("#teach button[type=submit]").click()
    page.until("!document.querySelector('#progress').hidden")
    assert other.draw(mnist5k.read("test", "0")[0, ..., 0]) == "0"  # meanwhile
    page.picture("live_teaching")
    page.until("document.querySelector('#status').textContent.includes('was learned from 20 examples')")
    seconds = time.monotonic() - start
    taken = [page.draw(digit) for digit in strange[20:30]]
    page.picture("live_taught")
    page.find("#save").click()
    page.until("document.querySelector('#status').textContent.startsWith('Saved into')")
    before, after = (
        {name: np.mean(lifelong.recognize(ready_state, mnist5k.read("test", name))[0] == name) for name in "0123456789"}
        for ready_state in map(lifelong.make_recognizer, (load_state(digits_run), lifelong.load(digits_run / "taught")))
    )
    lost = 100 * np.mean([before[name] - after[name] for name in before])
    new = sum(name == "<i>strange</i>" for name in taken)
    print(f"\ntaught in {seconds:.0f} s; {new} of 10 new drawings recognized; digits lost {lost:.2f} points")
    assert lost <= 0.5
    assert new >= 5
    drop = "[aria-label='Drop <i>strange</i>']"
    page.find(drop).click()
    page.driver.switch_to.alert.accept()
    page.until("document.querySelector('#status').textContent === '<i>strange</i> is forgotten'")
    assert page.script("return document.querySelectorAll('#names li').length") == 10
    page.check()
    shutil.rmtree(digits_run / "taught")


def test_what_is_wrong_is_told_in_the_page(browser, address, tmp_path):
    page = ready(browser, address)
    page.find("#name").send_keys("x")
    page.find("#teach button[type=submit]").click()
    page.until("document.querySelector('#status').textContent === 'x: at least 10 examples are expected, got 0'")
    page.find("#add").click()
    page.until("document.querySelector('#status').textContent.startsWith('Draw something first')")
    (tmp_path / "no.png").write_text("no picture")
    page.find("#upload").send_keys(str(tmp_path / "no.png"))
    page.until("document.querySelector('#status').textContent.includes('not a readable picture')")
