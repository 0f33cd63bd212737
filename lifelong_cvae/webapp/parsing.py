"""Checks and parses what a browser sends: origin, size, JSON, drawings and uploaded pictures."""

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
from lifelong_cvae.data.pictures import read_picture
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, flatten_images, to_uint8

MAX_BODY_BYTES = 10_000_000
# Largest number of points in a drawing.
MAX_POINTS = 20_000
# Side in pixels of the square that a photo of handwriting is scaled to before its ink is extracted.
WRITING_PIXELS = 512

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class TooLargeError(Exception):
    """A request body has more than MAX_BODY_BYTES bytes."""


class SameOriginOnly:
    """Middleware that answers requests from the page itself, and refuses those from other sites.

    Requests are refused if their Host is unknown (DNS rebinding), or if Origin or Sec-Fetch-Site names another site.

    Args:
        app: application to protect.
        hosts: allowed values of the Host header, such as `127.0.0.1:8000`.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if not self._is_same_origin(Headers(scope=scope)):
            message = f"requests from other sites are refused: open http://{self._hosts[0]}/ in its own window"
            return await JSONResponse({"error": message}, 403)(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        return await self._app(scope, receive, send_with_headers)

    def _is_same_origin(self, headers: Headers) -> bool:
        host = headers.get("host", "")
        return (
            host in self._hosts
            and headers.get("origin", f"http://{host}") == f"http://{host}"
            and headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        )


async def read_body(request: Request) -> bytes:
    """Reads the body of a request, and stops at MAX_BODY_BYTES.

    Raises:
        TooLargeError: the body is larger.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise TooLargeError
    return bytes(content)


def parse_json(content: bytes) -> Mapping[str, Any]:
    """Parses a JSON object.

    Raises:
        InputError: the content is not a JSON object.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError("request: expected a JSON object, got something else") from error
    if not isinstance(values, dict):
        raise InputError(f"request: expected a JSON object, got {type(values).__name__}")
    return values


def get_text(values: Mapping[str, Any], key: str) -> str:
    """Returns a string value of a JSON object.

    Raises:
        InputError: the value is missing or not a string.
    """
    value = values.get(key)
    if not isinstance(value, str):
        raise InputError(f"{key}: expected text, got {type(value).__name__}")
    return value


def get_image(values: Any, shape: Shape) -> np.ndarray:
    """Returns the image that a JSON object describes, uint8 `[h, w, c]`.

    Args:
        values: object with either `strokes`, a list of lists of points [x, y], or `pixels`, the text that
            `encode_image` returns.
        shape: (height, width, channels) of the image.

    Raises:
        InputError: the object has neither of them, or a bad value.
    """
    if not isinstance(values, dict) or not {"strokes", "pixels"} & values.keys():
        raise InputError("image: expected an object with strokes or pixels, got neither")
    if "strokes" in values:
        return _render(values["strokes"], shape)
    text = get_text(values, "pixels")
    try:
        pixels = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except ValueError as error:  # binascii.Error is a ValueError, and so is the error for characters beyond ASCII
        raise InputError(f"pixels: expected base64 text, got {text[:20]!r}") from error
    if pixels.size != math.prod(shape):
        raise InputError(f"pixels: expected {math.prod(shape)} bytes, got {pixels.size}")
    return pixels.reshape(shape)


def encode_image(image: np.ndarray) -> str:
    """Encodes the bytes of an image in base64. Inverse of `get_image` for `pixels`."""
    return base64.b64encode(np.ascontiguousarray(image)).decode()


def _render(strokes: Any, shape: Shape) -> np.ndarray:
    if not isinstance(strokes, list) or not all(isinstance(stroke, list) for stroke in strokes):
        raise InputError("strokes: expected a list of lists of points [x, y], got another structure")
    points = sum(map(len, strokes))
    if points > MAX_POINTS:
        raise InputError(f"strokes: expected at most {MAX_POINTS} points, got {points}")
    return render_strokes(strokes, shape)


def read_upload(content: bytes, shape: Shape, *, max_value: float | None, writing: bool) -> np.ndarray:
    """Converts an uploaded picture to an image, uint8 `[h, w, c]`.

    Args:
        content: file of a picture.
        shape: (height, width, channels) of the image.
        max_value: value of its pixels that stands for white, as in `LifelongState`.
        writing: True for handwriting on an even ground: its ink is extracted, and centered as in MNIST. False scales
            the middle square of the picture.

    Raises:
        InputError: not a picture, a damaged picture, pixels above `max_value`, or no ink in it.
    """
    height, width, channels = shape
    if writing:
        gray = read_picture(io.BytesIO(content), 1, image_size=WRITING_PIXELS, what="the file")
        return center_ink(extract_ink(gray), shape)
    if height != width:
        raise InputError(f"uploads are scaled to squares: expected a run on square images, got {height} x {width}")
    image = read_picture(io.BytesIO(content), channels, image_size=height, what="the file")
    return to_uint8(flatten_images(image[None], shape, max_value=max_value, what="the file")).reshape(shape)
