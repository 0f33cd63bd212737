"""HTTP server of the live page: its responses, errors and protection against other sites."""

import asyncio
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
from starlette.requests import Request
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
        server.app(session, [HOST, "localhost:8000"]), base_url=f"http://{HOST}", raise_server_exceptions=False
    )


def decode_picture(url):
    """Pixels of a data URL, without the gap around the image."""
    assert url.startswith("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) as image:
        return np.asarray(image)[1:-1, 1:-1]


def encode_file(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def assert_error(response, status, pattern):
    """The response is an error of one line in JSON."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert re.search(pattern, error), error
    assert "\n" not in error
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("path", "kind", "excerpt"),
    [
        ("/", "text/html", "<canvas"),
        ("/page.js", "text/javascript", "pointerdown"),
        ("/page.css", "text/css", "canvas"),
        ("/common.css", "text/css", "--ink"),
    ],
)
def test_page_files_have_no_external_resources(client, path, kind, excerpt):
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(kind)
    assert excerpt in response.text
    assert not re.search(r"https?://|innerHTML|eval\(", response.text)
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "no-store"


def test_page_script_uses_only_elements_of_page(client):
    html, script = client.get("/").text, client.get("/page.js").text
    ids = set(re.findall(r'\bid="([^"]+)"', html))
    used = set(re.findall(r'\$\("([^"]+)"\)', script))
    assert {"canvas", "walk", "teach"} <= used <= ids
    assert set(re.findall(r"#([a-z-]+)[ ,.{:]", client.get("/page.css").text)) <= ids


def test_state_describes_session(client, learner):
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


def test_answer_recognizes_rendered_strokes(client, session):
    response = client.post("/api/answer", content=json.dumps(LINE))
    assert response.status_code == 200
    answer = response.json()
    np.testing.assert_array_equal(decode_picture(answer["seen"]), render_strokes(LINE["strokes"])[..., 0])
    expected = session.answer(render_strokes(LINE["strokes"]))
    assert answer["best"] == expected.best
    assert [category["name"] for category in answer["categories"]] == list(expected.names)
    probabilities = [category["probability"] for category in answer["categories"]]
    np.testing.assert_allclose(probabilities, expected.probabilities, rtol=1e-6)
    reconstruction = decode_picture(answer["categories"][1]["picture"])
    np.testing.assert_allclose(reconstruction / 255, expected.reconstructions[1, ..., 0], atol=0.6 / 255)


def test_upload_returns_centered_ink_that_answer_recognizes(client, session, mnist5k):
    digit = mnist5k.read("test", "0")[0, ..., 0]
    photo = 255 - np.pad(np.kron(digit, np.ones((8, 8), np.uint8)), 60)
    photo = photo[:, : len(photo)]
    upload = client.post("/api/upload", content=encode_file(photo)).json()
    image = np.frombuffer(base64.b64decode(upload["pixels"]), np.uint8).reshape(28, 28)
    np.testing.assert_array_equal(image, decode_picture(upload["picture"]))
    shrunk = np.asarray(Image.fromarray(photo).resize((512, 512), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(image, center_ink(extract_ink(shrunk))[..., 0])
    answer = client.post("/api/answer", content=json.dumps({"pixels": upload["pixels"]})).json()
    assert answer["best"] == session.answer(image[..., None]).best


def test_upload_without_writing_returns_picture_itself(client, mnist5k):
    digit = mnist5k.read("test", "0")[0, ..., 0]
    upload = client.post("/api/upload?writing=false", content=encode_file(digit)).json()
    np.testing.assert_array_equal(decode_picture(upload["picture"]), digit)


def test_along_and_imagine_return_images_of_session(client, session):
    one = client.get("/api/along", params={"category": "2", "positions": "1,-0.5"}).json()["picture"]
    expected = session.image_at("2", [1, -0.5])[..., 0]
    np.testing.assert_allclose(decode_picture(one) / 255, expected, atol=0.6 / 255)
    three = client.get("/api/imagine", params={"category": "2", "count": 3, "seed": 4}).json()["picture"]
    expected = session.imagine("2", 3, seed=4)[2, ..., 0]
    np.testing.assert_allclose(decode_picture(three)[:, -28:] / 255, expected, atol=0.6 / 255)


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("answer", "", "request: expected a JSON object, got something else"),
        ("answer", "[]", "request: expected a JSON object, got list"),
        ("answer", "[" * 100_000, "request: expected a JSON object, got something else"),
        ("answer", "{}", "image: expected an object with strokes or pixels, got neither"),
        ("answer", '{"strokes": 3}', "strokes: expected a list of lists of points"),
        ("answer", '{"strokes": []}', "drawing: expected at least one stroke, got none"),
        ("answer", '{"strokes": [[[NaN, 1]]]}', "stroke: expected finite points"),
        ("answer", '{"strokes": [[[1]]]}', "stroke: expected finite points"),
        ("answer", json.dumps({"strokes": [[[1, 2]] * 20_001]}), "strokes: expected at most 20000 points, got 20001"),
        ("answer", '{"pixels": 3}', "pixels: expected text, got int"),
        ("answer", '{"pixels": "%%%"}', "pixels: expected base64 text, got '%%%'"),
        ("answer", json.dumps({"pixels": "\u0080"}), "pixels: expected base64 text, got"),
        ("answer", '{"pixels": "AAAA"}', "pixels: expected 784 bytes, got 3"),
        ("upload", "no picture", "the file: not a readable picture"),
        ("upload", encode_file(np.full((9, 9), 3, np.uint8)), "drawing: expected at least a dot of ink, got none"),
        ("upload", encode_file(np.eye(50, dtype=np.uint8) * 255)[:-30], "the file: not a readable picture"),
        ("teach", "{}", "examples: expected a list of images, got NoneType"),
        ("teach", '{"examples": [], "name": "x"}', "category 'x': expected at least 10 examples, got 0"),
        ("teach", json.dumps({"examples": [LINE] * 10}), "name: expected text, got NoneType"),
        ("teach", json.dumps({"examples": [LINE] * 10, "name": ""}), "category name: expected a non-empty .*, got ''"),
        ("teach", json.dumps({"examples": [LINE] * 10, "name": "2"}), "category name: expected a new one, got '2'"),
        ("teach", json.dumps({"examples": [LINE, 3] * 5, "name": "x"}), "image: expected an object with"),
        ("drop", '{"name": "<b>"}', "unknown category: expected one of 2, 0, 1, got '<b>'"),
        ("drop", "{}", "name: expected text, got NoneType"),
    ],
)
def test_post_rejects_bad_content(client, session, learner, path, content, message):
    assert_error(client.post(f"/api/{path}", content=content), 400, message)
    assert session.state is learner


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("imagine?category=9", "unknown category: expected one of 2, 0, 1, got '9'"),
        ("imagine", "unknown category: expected one of 2, 0, 1, got ''"),
        ("imagine?category=2&count=101", "count: expected a whole number from 0 to 100, got '101'"),
        ("imagine?category=2&count=-1", "count: expected a whole number from 0 to 100, got '-1'"),
        ("imagine?category=2&seed=x", "seed: expected a whole number from 0 to 4294967295, got 'x'"),
        ("along?category=2&positions=a", "positions: expected numbers such as 0.5,-1, got 'a'"),
        ("along?category=2&positions=nan", "positions: expected at most 4 numbers from -3.0 to 3.0, got nan"),
        ("along?category=2&positions=0,0,0,0,0", "positions: expected at most 4 numbers"),
    ],
)
def test_get_rejects_bad_query(client, query, message):
    assert_error(client.get(f"/api/{query}"), 400, message)


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
def test_post_of_any_content_returns_json(client, path, content):
    response = client.post(f"/api/{path}", content=content)
    assert response.status_code in (200, 400)
    assert isinstance(response.json(), dict)


def test_other_paths_and_methods_are_rejected(client):
    assert_error(client.get("/etc/passwd"), 404, "Not Found")
    assert_error(client.get("/../../setup.cfg"), 404, "Not Found")
    assert_error(client.get("/api/answer"), 405, "Method Not Allowed")


def test_large_body_is_rejected(client):
    content = b"x" * (parsing.MAX_BODY_BYTES + 1)
    assert_error(client.post("/api/upload", content=content), 413, "request: expected at most 10 MB, got more")


def test_read_body_stops_at_limit():
    chunks = 0

    async def receive():
        nonlocal chunks
        chunks += 1
        return {"type": "http.request", "body": b"x" * 10**6, "more_body": True}

    with pytest.raises(parsing.TooLargeError):
        asyncio.run(parsing.read_body(Request({"type": "http"}, receive)))
    assert chunks == parsing.MAX_BODY_BYTES // 10**6 + 1


def test_decompression_bomb_is_rejected(client):
    bomb = encode_file(np.zeros((12_000, 12_000), np.uint8))
    assert len(bomb) < parsing.MAX_BODY_BYTES
    assert_error(client.post("/api/upload", content=bomb), 400, "the file: not a readable picture")


def test_full_disk_and_unexpected_errors_are_reported(client, session, monkeypatch):
    def fail():
        raise OSError("the disk\nis full")

    monkeypatch.setattr(session, "save", fail)
    assert_error(client.post("/api/save"), 507, "the disk is full")
    monkeypatch.setattr(session, "save", lambda: {}["nothing"])
    assert_error(client.post("/api/save"), 500, "internal error; the state is unchanged")


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
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/api/state"), ("POST", "/api/save")])
def test_requests_from_other_sites_are_refused(client, headers, method, path):
    response = client.request(method, path, headers=headers)
    assert_error(response, 403, "refused: open http://127.0.0.1:8000/ in its own window")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"},
        {"host": "localhost:8000", "origin": "http://localhost:8000"},
        {"sec-fetch-site": "none"},
    ],
)
def test_requests_from_page_are_answered(client, headers):
    assert client.get("/api/state", headers=headers).status_code == 200


def test_concurrent_browsers_get_answers_of_consistent_states(learner, digits, tmp_path):
    session = Session(learner, tmp_path)
    client = TestClient(server.app(session, [HOST]), base_url=f"http://{HOST}")
    names, stop, wrong = {"2", "0", "1"}, threading.Event(), []

    def browse():
        while not stop.is_set():
            response = client.post("/api/answer", content=json.dumps(LINE))
            values = response.json()
            shown = [category["name"] for category in values["categories"]]
            total = sum(category["probability"] for category in values["categories"])
            if response.status_code != 200 or abs(total - 1) > 1e-4 or not names <= {*shown, "7"}:
                wrong.append(values)

    browsers = [threading.Thread(target=browse) for _ in range(2)]
    for browser in browsers:
        browser.start()
    examples = [{"pixels": parsing.encode_image(image)} for image in digits["7"][:12]]
    body = json.dumps({"name": "7", "examples": examples})
    statuses = [client.post("/api/teach", content=body).status_code for _ in range(3)]
    while not session.teaching.result:
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
