"""What a browser sends, read with distrust: bounded, and of the page's own origin."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong_cvae.data import center_ink, extract_ink, render_strokes
from lifelong_cvae.data.files import read_image_file
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape

MAX_BODY_BYTES = 10_000_000  # bytes
MAX_POINTS = 20_000  # of a drawing
WRITING_PIXELS = 512  # a photo of writing is scaled to a square of this side before its ink is sought

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class TooLargeError(Exception):
    """A body of more than LARGEST_BODY bytes."""


class SameOriginOnly:
    """Serves the page itself and nobody else's: another site's scripts, pictures and names are refused.

    Args:
        app: what is served.
        hosts: what the page may be called, as in `127.0.0.1:8000`.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        own = host in self._hosts
        own = own and headers.get("origin", f"http://{host}") == f"http://{host}"
        own = own and headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        if not own:
            words = f"this page answers itself alone: open http://{self._hosts[0]}/ in a window of its own"
            return await JSONResponse({"error": words}, 403)(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        return await self._app(scope, receive, with_headers)


async def read_body(request: Request) -> bytes:
    """The content of a request.

    Raises:
        TooLargeError: it is too large; no more than that is read.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise TooLargeError
    return bytes(content)


def parse_json(content: bytes) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        InputError: it is none.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError("a JSON object is expected") from error
    if not isinstance(values, dict):
        raise InputError("a JSON object is expected")
    return values


def get_text(values: Mapping[str, Any], key: str) -> str:
    """A text of a JSON object.

    Raises:
        InputError: it is missing, or something else.
    """
    value = values.get(key)
    if not isinstance(value, str):
        raise InputError(f"{key}: a text is expected")
    return value


def get_image(values: Any, shape: Shape) -> np.ndarray:
    """What was drawn (`strokes`) or uploaded (`pixels`, as `encoded` gave them), uint8 `[h, w, c]`.

    Raises:
        InputError: neither, or damaged.
    """
    if not isinstance(values, dict) or not {"strokes", "pixels"} & values.keys():
        raise InputError("an image: an object with strokes or pixels is expected")
    if "strokes" in values:
        return _render(values["strokes"], shape)
    text = get_text(values, "pixels")
    try:
        pixels = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except ValueError as error:  # binascii.Error is one, and so is what is said of a letter beyond ASCII
        raise InputError("pixels: text in base64 is expected") from error
    if pixels.size != math.prod(shape):
        raise InputError(f"pixels: {math.prod(shape)} bytes are expected, got {pixels.size}")
    return pixels.reshape(shape)


def encode_image(image: np.ndarray) -> str:
    """An image as `image_of` reads it: base64 of its bytes."""
    return base64.b64encode(np.ascontiguousarray(image)).decode()


def _render(strokes: Any, shape: Shape) -> np.ndarray:
    if not isinstance(strokes, list) or not all(isinstance(stroke, list) for stroke in strokes):
        raise InputError("strokes: a list of lists of points [x, y] is expected")
    if sum(map(len, strokes)) > MAX_POINTS:
        raise InputError(f"strokes: at most {MAX_POINTS} points are expected")
    return render_strokes(strokes, shape)


def read_upload(content: bytes, shape: Shape, *, writing: bool) -> np.ndarray:
    """An uploaded picture, uint8 `[h, w, c]`.

    Args:
        content: a PNG or JPEG file.
        shape: (height, width, channels) that is wanted.
        writing: whether it shows writing on an even ground, whose ink is sought and centerd as MNIST's is;
            else its middle square is scaled.

    Raises:
        InputError: no picture, a damaged one, or one without ink.
    """
    height, width, channels = shape
    what = "the file"
    if writing:
        gray = read_image_file(io.BytesIO(content), 1, image_size=WRITING_PIXELS, what=what)
        return center_ink(extract_ink(gray), shape)
    if height != width:
        raise InputError(f"pictures are scaled to squares, and images of {height} x {width} are expected")
    return read_image_file(io.BytesIO(content), channels, image_size=height, what=what)
