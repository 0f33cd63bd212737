"""HTTP server of the live page, for browsers on this machine only: routes, JSON and error responses."""

import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from lifelong_cvae import plotting
from lifelong_cvae.errors import InputError
from lifelong_cvae.webapp import parsing
from lifelong_cvae.webapp.session import MIN_EXAMPLES, NUM_DIRECTIONS, SLIDER_RANGE, BusyError, Session

STATIC_DIR = Path(__file__).parent / "static"
PAGE_FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
COMMON_CSS = Path(__file__).parents[1] / "runs/templates/common.css"
# Largest number of imagined images in one request.
MAX_IMAGES = 100

Endpoint = Callable[[Request], Awaitable[Response]]


def app(session: Session, hosts: list[str]) -> Starlette:
    """Creates the application that serves the page, and answers its requests from a session.

    Args:
        session: the session.
        hosts: allowed values of the Host header, such as `127.0.0.1:8000`.
    """
    handlers = {
        "GET": {"state": _state, "imagine": _imagine, "along": _along},
        "POST": {"answer": _answer, "upload": _upload, "teach": _teach, "drop": _drop, "save": _save},
    }
    return Starlette(
        routes=[
            *[Route(path, _file_endpoint(STATIC_DIR / name)) for path, name in PAGE_FILES.items()],
            Route("/common.css", _file_endpoint(COMMON_CSS)),
            *[
                Route(f"/api/{name}", _endpoint(session, handler), methods=[method])
                for method, by_name in handlers.items()
                for name, handler in by_name.items()
            ],
        ],
        middleware=[Middleware(parsing.SameOriginOnly, hosts=hosts)],
        exception_handlers={
            InputError: _error_handler(400),
            BusyError: _error_handler(409),
            parsing.TooLargeError: _error_handler(
                413, f"request: expected at most {parsing.MAX_BODY_BYTES // 10**6} MB, got more"
            ),
            OSError: _error_handler(507),
            HTTPException: lambda _, error: JSONResponse({"error": error.detail}, error.status_code),
            Exception: _error_handler(500, "internal error; the state is unchanged"),
        },
    )


def serve(session: Session, port: int, *, log_fn: Callable[[str], None] = print) -> None:
    """Serves the page at 127.0.0.1 until the process is interrupted.

    Args:
        session: the session.
        port: TCP port; 0 selects a free one.
        log_fn: called with a line that holds the address once the page can be opened, and with a warning at the end
            if changes were not saved.

    Raises:
        InputError: the port is in use.
    """
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise InputError(f"port: expected a free one, got {port} ({error.strerror})") from error
    port = listener.getsockname()[1]
    session.answer(np.zeros(session.state.image_shape, np.uint8))  # compiles before the first request waits for it
    log_fn(f"serving http://127.0.0.1:{port}/ to browsers on this machine; press Ctrl+C to stop")
    hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
    settings = uvicorn.Config(app(session, hosts), log_level="error", timeout_graceful_shutdown=3)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listener])
    if not session.saved:
        log_fn("changes made on the page were not saved")


def _file_endpoint(path: Path) -> Endpoint:
    async def endpoint(_: Request) -> Response:
        return FileResponse(path)

    return endpoint


def _endpoint(session: Session, handler: Callable[[Session, bytes, QueryParams], dict[str, Any]]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        content = await parsing.read_body(request)
        return JSONResponse(await run_in_threadpool(handler, session, content, request.query_params))

    return endpoint


def _error_handler(status: int, message: str | None = None) -> Callable[[Request, Exception], Response]:
    """Answers an exception in JSON, with a fixed message or that of the exception on one line."""

    def handler(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": message or " ".join(str(error).split())}, status)

    return handler


def _state(session: Session, _: bytes, __: QueryParams) -> dict[str, Any]:
    state, teaching = session.state, session.teaching
    return {
        "names": state.names,
        "sliders": min(NUM_DIRECTIONS, state.config.network.latent_size),
        "reach": SLIDER_RANGE,
        "minimum_examples": MIN_EXAMPLES,
        "writing": state.image_shape[-1] == 1,
        "saved": session.saved,
        "teaching": teaching._asdict() if teaching else None,
    }


def _answer(session: Session, content: bytes, _: QueryParams) -> dict[str, Any]:
    image = parsing.get_image(parsing.parse_json(content), session.state.image_shape)
    answer = session.answer(image)
    rows = zip(answer.names, answer.probabilities, answer.reconstructions, strict=True)
    return {
        "seen": plotting.png_data_url(image[None]),
        "best": answer.best,
        "unknown": answer.unknown,
        "categories": [
            {"name": name, "probability": float(probability), "picture": plotting.png_data_url(reconstruction[None])}
            for name, probability, reconstruction in rows
        ],
        "turns": plotting.png_data_url(answer.turns),
    }


def _upload(session: Session, content: bytes, query: QueryParams) -> dict[str, Any]:
    writing = query.get("writing", "true") != "false"
    shape, max_value = session.state.image_shape, session.state.max_value
    image = parsing.read_upload(content, shape, max_value=max_value, writing=writing)
    return {"pixels": parsing.encode_image(image), "picture": plotting.png_data_url(image[None])}


def _teach(session: Session, content: bytes, _: QueryParams) -> dict[str, Any]:
    values = parsing.parse_json(content)
    examples = values.get("examples")
    if not isinstance(examples, list):
        raise InputError(f"examples: expected a list of images, got {type(examples).__name__}")
    shape = session.state.image_shape
    images = [parsing.get_image(example, shape) for example in examples]
    session.teach(parsing.get_text(values, "name"), np.reshape(images, (-1, *shape)).astype(np.uint8))
    return {}


def _drop(session: Session, content: bytes, _: QueryParams) -> dict[str, Any]:
    session.drop(parsing.get_text(parsing.parse_json(content), "name"))
    return {}


def _save(session: Session, _: bytes, __: QueryParams) -> dict[str, Any]:
    return {"folder": str(session.save())}


def _imagine(session: Session, _: bytes, query: QueryParams) -> dict[str, Any]:
    count = _get_whole_number(query, "count", default=10, maximum=MAX_IMAGES)
    seed = _get_whole_number(query, "seed", default=0, maximum=2**32 - 1)
    return {"picture": plotting.png_data_url(session.imagine(query.get("category", ""), count, seed=seed))}


def _along(session: Session, _: bytes, query: QueryParams) -> dict[str, Any]:
    text = query.get("positions", "")
    try:
        positions = [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise InputError(f"positions: expected numbers such as 0.5,-1, got {text!r}") from error
    return {"picture": plotting.png_data_url(session.image_at(query.get("category", ""), positions)[None])}


def _get_whole_number(query: QueryParams, key: str, *, default: int, maximum: int) -> int:
    text = query.get(key, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) <= maximum):
        raise InputError(f"{key}: expected a whole number from 0 to {maximum}, got {text!r}")
    return int(text)
