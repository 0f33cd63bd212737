"""Events of a run for TensorBoard, written by tensorboardX where it is installed, without TensorFlow.

They are written at once and in this process: tensorboardX's own writer does it in a thread, which dies on a
full disk and leaves its caller waiting.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class EventWriter:
    """A file of events, begun with the first of them; silent where there is no folder.

    Args:
        folder: what TensorBoard is pointed at; None: nothing is written.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._file: Any = None

    def __bool__(self) -> bool:
        """Whether anything is written."""
        return self._folder is not None

    def purge_from(self, step: int) -> None:
        """Has TensorBoard forget what an earlier process wrote of this step and of later ones."""
        if self:
            from tensorboardX.proto.event_pb2 import SessionLog

            self._write(session_log=SessionLog(status=SessionLog.START), step=step)

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Points of curves: name to value. A slash in a name groups."""
        if self:
            self._write(summary=[{"tag": tag, "simple_value": value} for tag, value in values.items()], step=step)

    def image(self, name: str, pixels: np.ndarray, *, step: int) -> None:
        """A picture: `[h, w, c]` in [0, 1], gray or color."""
        if self:
            height, width, channels = pixels.shape
            values = np.rint(255 * pixels).astype(np.uint8)
            encoded = io.BytesIO()
            Image.fromarray(values[..., 0] if channels == 1 else values).save(encoded, format="PNG")
            image = {"height": height, "width": width, "colorspace": channels}
            self._write(
                summary=[{"tag": name, "image": {**image, "encoded_image_string": encoded.getvalue()}}],
                step=step,
            )

    def close(self) -> None:
        """Ends the file; a later event begins another."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, *, summary: Any = None, **values: Any) -> None:
        """One event, on disk when this returns."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import RecordWriter

        events = [Event(wall_time=time.time(), summary=summary and Summary(value=summary), **values)]
        if self._file is None:
            self._folder.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
            self._file = RecordWriter(str(self._folder / name))
            events.insert(0, Event(wall_time=time.time(), file_version="brain.Event:2"))
        for event in events:
            self._file.write(event.SerializeToString())
        self._file.flush()
