"""The live page over HTTP."""

import base64
import io
import json
import re
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from lifelong_cvae.data import center_ink, extract_ink, render_strokes
from lifelong_cvae.webapp import parsing, server
from lifelong_cvae.webapp.session import Session

HOST = "127.0.0.1:8000"
LINE = {"strokes": [[[10, 10], [10, 200]]]}


@pytest.fixture(scope="module")
def session(learner, tmp_path_factory):
    return Session(learner, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def client(session):
    return TestClient(
        server.app(session, [HOST, "localhost:8000"]),
        base_url=f"http://{HOST}",
        raise_server_exceptions=False,
    )


def pixels_of(picture):
    """The pixels of a picture inside a document, without the gap around it."""
    assert picture.startswith("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))) as image:
        return np.asarray(image)[1:-1, 1:-1]


def file_of(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def refused(response, status, words):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert re.search(words, error), error
    assert "\n" not in error
    assert "Traceback" not in response.text


class TestPage:
    @pytest.mark.parametrize(
        ("address", "kind", "words"),
        [
            ("/", "text/html", "<canvas"),
            ("/page.js", "text/javascript", "pointerdown"),
            ("/page.css", "text/css", "canvas"),
            ("/common.css", "text/css", "--ink"),
        ],
    )
    def test_its_files_are_served_and_ask_nobody_else(self, client, address, kind, words):
        response = client.get(address)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        assert words in response.text
        assert not re.search(r"https?://|innerHTML|eval\(", response.text)
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert response.headers["cache-control"] == "no-store"

    def test_it_knows_what_is_known(self, client, learner):
        state = client.get("/api/state").json()
        assert state == {
            "names": list(learner.names),
            "sliders": 4,
            "reach": 3.0,
            "minimum_examples": 10,
            "writing": True,
            "saved": True,
            "teaching": None,
        }


class TestAnswers:
    def test_a_drawing_is_seen_as_a_pen_draws_it(self, client, session):
        response = client.post("/api/answer", content=json.dumps(LINE))
        assert response.status_code == 200
        answer = response.json()
        np.testing.assert_array_equal(pixels_of(answer["seen"]), render_strokes(LINE["strokes"])[..., 0])
        expected = session.answer(render_strokes(LINE["strokes"]))
        assert answer["best"] == expected.best
        assert [one["name"] for one in answer["categories"]] == list(expected.names)
        found = [one["probability"] for one in answer["categories"]]
        np.testing.assert_allclose(found, expected.probabilities, rtol=1e-6)
        redrawn = pixels_of(answer["categories"][1]["picture"])
        np.testing.assert_allclose(redrawn / 255, expected.redrawn[1, ..., 0], atol=0.6 / 255)

    def test_an_upload_comes_back_as_pixels_that_are_recognised(self, client, session, mnist5k):
        digit = mnist5k.read("test", "0")[0, ..., 0]
        photo = 255 - np.pad(np.kron(digit, np.ones((8, 8), np.uint8)), 60)
        photo = photo[:, : len(photo)]
        found = client.post("/api/upload", content=file_of(photo)).json()
        image = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8).reshape(28, 28)
        np.testing.assert_array_equal(image, pixels_of(found["picture"]))
        shrunk = np.asarray(Image.fromarray(photo).resize((512, 512), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(image, center_ink(extract_ink(shrunk))[..., 0])
        answer = client.post("/api/answer", content=json.dumps({"pixels": found["pixels"]})).json()
        assert answer["best"] == session.answer(image[..., None]).best

    def test_an_upload_may_be_a_picture_as_it_is(self, client, mnist5k):
        digit = mnist5k.read("test", "0")[0, ..., 0]
        found = client.post("/api/upload?writing=false", content=file_of(digit)).json()
        np.testing.assert_array_equal(pixels_of(found["picture"]), digit)

    def test_images_are_imagined(self, client, session):
        one = client.get("/api/along", params={"category": "2", "positions": "1,-0.5"}).json()["picture"]
        expected = session.along("2", [1, -0.5])[..., 0]
        np.testing.assert_allclose(pixels_of(one) / 255, expected, atol=0.6 / 255)
        three = client.get("/api/imagine", params={"category": "2", "count": 3, "seed": 4}).json()["picture"]
        expected = session.imagine("2", 3, seed=4)[2, ..., 0]
        np.testing.assert_allclose(pixels_of(three)[:, -28:] / 255, expected, atol=0.6 / 255)


class TestBadRequests:
    @pytest.mark.parametrize(
        ("address", "content", "words"),
        [
            ("answer", "", "a JSON object is expected"),
            ("answer", "[]", "a JSON object is expected"),
            ("answer", "[" * 100_000, "a JSON object is expected"),
            ("answer", "{}", "an image: an object with strokes or pixels is expected"),
            ("answer", '{"strokes": 3}', "strokes: a list of lists of points"),
            ("answer", '{"strokes": []}', "there is no stroke in the drawing"),
            ("answer", '{"strokes": [[[NaN, 1]]]}', "a stroke: finite points"),
            ("answer", '{"strokes": [[[1]]]}', "a stroke: finite points"),
            ("answer", json.dumps({"strokes": [[[1, 2]] * 20_001]}), "at most 20000 points"),
            ("answer", '{"pixels": 3}', "pixels: a text is expected"),
            ("answer", '{"pixels": "%%%"}', "pixels: text in base64 is expected"),
            ("answer", json.dumps({"pixels": "\u0080"}), "pixels: text in base64 is expected"),
            ("answer", '{"pixels": "AAAA"}', "pixels: 784 bytes are expected, got 3"),
            ("upload", "no picture", "the file: not a readable picture"),
            ("upload", file_of(np.full((9, 9), 3, np.uint8)), "there is no ink in the drawing"),
            ("upload", file_of(np.eye(50, dtype=np.uint8) * 255)[:-30], "the file: not a readable picture"),
            ("teach", "{}", "examples: a list of images is expected"),
            ("teach", '{"examples": [], "name": "x"}', "at least 10 examples are expected, got 0"),
            ("teach", json.dumps({"examples": [LINE] * 10}), "name: a text is expected"),
            ("teach", json.dumps({"examples": [LINE] * 10, "name": ""}), "category name ''"),
            ("teach", json.dumps({"examples": [LINE] * 10, "name": "2"}), "2 is known already"),
            ("teach", json.dumps({"examples": [LINE, 3] * 5, "name": "x"}), "an image: an object with"),
            ("drop", '{"name": "<b>"}', "unknown category '<b>'"),
            ("drop", "{}", "name: a text is expected"),
        ],
    )
    def test_they_are_answered_in_words(self, client, session, learner, address, content, words):
        refused(client.post(f"/api/{address}", content=content), 400, words)
        assert session.state is learner

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            ("imagine?category=9", "unknown category '9'"),
            ("imagine", "unknown category ''"),
            ("imagine?category=2&count=101", "count=101: a whole number from 0 to 100"),
            ("imagine?category=2&count=-1", "count=-1: a whole number"),
            ("imagine?category=2&seed=x", "seed=x: a whole number"),
            ("along?category=2&positions=a", "positions=a: numbers such as"),
            ("along?category=2&positions=nan", "at most 4 numbers"),
            ("along?category=2&positions=0,0,0,0,0", "at most 4 numbers"),
        ],
    )
    def test_questions_too(self, client, query, words):
        refused(client.get(f"/api/{query}"), 400, words)

    @settings(max_examples=100)
    @given(
        st.sampled_from(["answer", "upload", "teach", "drop"]),
        st.one_of(
            st.binary(max_size=200),
            st.recursive(
                st.none() | st.floats() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["strokes", "pixels", "examples", "name"]), inner, max_size=3)
                ),
            ).map(lambda value: json.dumps(value).encode()),
        ),
    )
    def test_whatever_is_sent_the_answer_is_in_words(self, client, address, content):
        response = client.post(f"/api/{address}", content=content)
        assert response.status_code in (200, 400)
        assert isinstance(response.json(), dict)

    def test_other_addresses_and_methods(self, client):
        refused(client.get("/etc/passwd"), 404, "Not Found")
        refused(client.get("/../../setup.cfg"), 404, "Not Found")
        refused(client.get("/api/answer"), 405, "Method Not Allowed")

    def test_a_body_that_is_too_large_is_not_read_to_its_end(self, client):
        read = 0

        def endless():
            nonlocal read
            for _ in range(100):
                read += 10**6
                yield b"x" * 10**6

        refused(client.post("/api/upload", content=b"x" * (parsing.MAX_BODY_BYTES + 1)), 413, "at most 10 MB")

    def test_a_picture_that_unpacks_to_too_much_is_refused(self, client):
        bomb = file_of(np.zeros((12_000, 12_000), np.uint8))
        assert len(bomb) < parsing.MAX_BODY_BYTES
        refused(client.post("/api/upload", content=bomb), 400, "the file: not a readable picture")

    def test_a_full_disk_and_what_nobody_thought_of_are_words_too(self, client, session, monkeypatch):
        def full():
            raise OSError("the disk\nis full")

        monkeypatch.setattr(session, "save", full)
        refused(client.post("/api/save"), 507, "the disk is full")
        monkeypatch.setattr(session, "save", lambda: {}["nothing"])
        refused(client.post("/api/save"), 500, "something went wrong here; the state is as it was")


class TestOrigin:
    @pytest.mark.parametrize(
        "headers",
        [
            {"host": "evil.example"},
            {"host": "127.0.0.1:9000"},
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": "https://127.0.0.1:8000"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ],
    )
    @pytest.mark.parametrize(("method", "address"), [("GET", "/"), ("GET", "/api/state"), ("POST", "/api/save")])
    def test_others_are_refused(self, client, headers, method, address):
        refused(client.request(method, address, headers=headers), 403, "open http://127.0.0.1:8000/ in a window")

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"},
            {"host": "localhost:8000", "origin": "http://localhost:8000"},
            {"sec-fetch-site": "none"},
        ],
    )
    def test_the_page_itself_is_served(self, client, headers):
        assert client.get("/api/state", headers=headers).status_code == 200


def test_two_browsers_at_once_get_answers_of_whole_states(learner, digits, tmp_path):
    session = Session(learner, tmp_path)
    client = TestClient(server.app(session, [HOST]), base_url=f"http://{HOST}")
    names, stop, wrong = {"2", "0", "1"}, threading.Event(), []

    def browse():
        while not stop.is_set():
            response = client.post("/api/answer", content=json.dumps(LINE))
            values = response.json()
            shown = [one["name"] for one in values["categories"]]
            total = sum(one["probability"] for one in values["categories"])
            if response.status_code != 200 or abs(total - 1) > 1e-4 or not names <= {*shown, "7"}:
                wrong.append(values)

    browsers = [threading.Thread(target=browse) for _ in range(2)]
    for browser in browsers:
        browser.start()
    examples = [{"pixels": parsing.encode_image(image)} for image in digits["7"][:12]]
    body = json.dumps({"name": "7", "examples": examples})
    statuses = [client.post("/api/teach", content=body).status_code for _ in range(3)]
    while not session.teaching.ended:
        pass
    stop.set()
    for browser in browsers:
        browser.join(60)
    assert statuses[0] == 200
    assert set(statuses[1:]) <= {400, 409}
    assert not wrong
    assert session.state.names == ("2", "0", "1", "7")
    assert client.post("/api/drop", content='{"name": "7"}').status_code == 200
    assert client.get("/api/state").json()["names"] == ["2", "0", "1"]
