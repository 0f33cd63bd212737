"""The live page over HTTP, for browsers on this machine alone: addresses, and what they answer."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from lifelong_cvae import plotting
from lifelong_cvae.errors import InputError
from lifelong_cvae.webapp import parsing
from lifelong_cvae.webapp.session import MIN_EXAMPLES, NUM_DIRECTIONS, SLIDER_RANGE, BusyError, Session

STATIC = Path(__file__).parent / "static"
PAGE = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
COMMON = Path(__file__).parents[1] / "runs/templates/common.css"
MOST_IMAGINED = 100

Endpoint = Callable[[Request], Awaitable[Response]]


def app(session: Session, hosts: list[str]) -> Starlette:
    """The page and what it asks of a session.

    Args:
        session: the state.
        hosts: what the page may be called, as in `127.0.0.1:8000`.
    """
    actions = {
        "answer": _answer,
        "upload": _upload,
        "teach": _teach,
        "drop": _drop,
        "save": _save,
    }
    questions = {"state": _state, "imagine": _imagine, "along": _along}
    return Starlette(
        routes=[
            *[Route(address, _file(STATIC / name)) for address, name in PAGE.items()],
            Route("/common.css", _file(COMMON)),
            *[Route(f"/api/{name}", _posted(session, act), methods=["POST"]) for name, act in actions.items()],
            *[Route(f"/api/{name}", _asked(session, ask)) for name, ask in questions.items()],
        ],
        middleware=[Middleware(parsing.SameOriginOnly, hosts=hosts)],
        exception_handlers={
            InputError: _words(400),
            BusyError: _words(409),
            parsing.TooLargeError: _words(413, f"at most {parsing.MAX_BODY_BYTES // 10**6} MB are expected"),
            OSError: _words(507),
            HTTPException: lambda _, error: JSONResponse({"error": error.detail}, error.status_code),
            Exception: _words(500, "something went wrong here; the state is as it was"),
        },
    )


def serve(session: Session, port: int, *, log_fn: Callable[[str], None] = print) -> None:
    """Serves the page at 127.0.0.1 until the process is told to end.

    Args:
        session: the state.
        port: 0: a free one.
        log_fn: told the address once it answers.

    Raises:
        InputError: the port is taken.
    """
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror}): another one is expected") from error
    port = listening.getsockname()[1]
    session.answer(np.zeros(session.state.image_shape, np.uint8))  # compiles, before the first one waits
    log_fn(f"http://127.0.0.1:{port}/ is open, for browsers on this machine; Ctrl+C ends it")
    hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
    settings = uvicorn.Config(app(session, hosts), log_level="error", timeout_graceful_shutdown=3)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listening])
    if not session.saved:
        log_fn("what was taught or dropped was not saved")


def _file(path: Path) -> Endpoint:
    async def endpoint(_: Request) -> Response:
        return FileResponse(path)

    return endpoint


def _posted(session: Session, act: Callable[..., dict[str, Any]]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        content = await parsing.read_body(request)
        return JSONResponse(await run_in_threadpool(act, session, content, request.query_params))

    return endpoint


def _asked(session: Session, ask: Callable[..., dict[str, Any]]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(ask, session, request.query_params))

    return endpoint


def _words(status: int, words: str | None = None) -> Callable[[Request, Exception], Response]:
    def handler(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": words or " ".join(str(error).split())}, status)

    return handler


def _state(session: Session, _: Any) -> dict[str, Any]:
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


def _answer(session: Session, content: bytes, _: Any) -> dict[str, Any]:
    image = parsing.get_image(parsing.parse_json(content), session.state.image_shape)
    answer = session.answer(image)
    return {
        "seen": plotting.png_data_url(image[None]),
        "best": answer.best,
        "unknown": answer.unknown,
        "categories": [
            {"name": name, "probability": float(probability), "picture": plotting.png_data_url(redrawn[None])}
            for name, probability, redrawn in zip(answer.names, answer.probabilities, answer.redrawn, strict=True)
        ],
        "turns": plotting.png_data_url(answer.turns),
    }


def _upload(session: Session, content: bytes, query: Any) -> dict[str, Any]:
    writing = query.get("writing", "true") != "false"
    image = parsing.read_upload(content, session.state.image_shape, writing=writing)
    return {"pixels": parsing.encode_image(image), "picture": plotting.png_data_url(image[None])}


def _teach(session: Session, content: bytes, _: Any) -> dict[str, Any]:
    values = parsing.parse_json(content)
    examples = values.get("examples")
    if not isinstance(examples, list):
        raise InputError("examples: a list of images is expected")
    shape = session.state.image_shape
    images = [parsing.get_image(example, shape) for example in examples]
    session.teach(parsing.get_text(values, "name"), np.reshape(images, (-1, *shape)).astype(np.uint8))
    return {}


def _drop(session: Session, content: bytes, _: Any) -> dict[str, Any]:
    session.drop(parsing.get_text(parsing.parse_json(content), "name"))
    return {}


def _save(session: Session, _: bytes, __: Any) -> dict[str, Any]:
    return {"folder": str(session.save())}


def _imagine(session: Session, query: Any) -> dict[str, Any]:
    count, seed = _whole(query, "count", 10, MOST_IMAGINED), _whole(query, "seed", 0, 2**32 - 1)
    return {"picture": plotting.png_data_url(session.imagine(query.get("category", ""), count, seed=seed))}


def _along(session: Session, query: Any) -> dict[str, Any]:
    text = query.get("positions", "")
    try:
        positions = [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise InputError(f"positions={text}: numbers such as 0.5,-1 are expected") from error
    return {"picture": plotting.png_data_url(session.along(query.get("category", ""), positions)[None])}


def _whole(query: Any, key: str, default: int, largest: int) -> int:
    text = query.get(key, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) <= largest):
        raise InputError(f"{key}={text}: a whole number from 0 to {largest} is expected")
    return int(text)
