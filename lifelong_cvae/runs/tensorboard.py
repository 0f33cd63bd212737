"""Event files for TensorBoard, written with tensorboardX and without TensorFlow.

Events are written synchronously through tensorboardX's `RecordWriter`, so that a failed write raises OSError in the
caller. tensorboardX's `SummaryWriter` is not used because it writes in a background thread. On a full disk this thread
ends, and the caller blocks forever in `add_scalar` or `close`, or loses events without an error if the queue is long.
`SummaryWriter` also names files by whole seconds, so that a run that is resumed within a second overwrites the events
of the process before it, and it replaces spaces and most punctuation in tags, which hold category names here.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lifelong_cvae import plotting


class EventWriter:
    """Writes one event file, which the first event creates. Without a folder, nothing is written.

    Args:
        folder: log directory of TensorBoard; None discards all events.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._file: Any = None

    def __bool__(self) -> bool:
        """True if events are written."""
        return self._folder is not None

    def purge_from(self, step: int) -> None:
        """Makes TensorBoard discard events of this and later steps that an earlier process wrote."""
        if self:
            from tensorboardX.proto.event_pb2 import SessionLog

            self._write(session_log={"status": SessionLog.START}, step=step)

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Writes a point of each curve.

        Args:
            values: tag to value. Tags with the same part before a slash form a group.
            step: training step.
        """
        if self:
            points = [{"tag": tag, "simple_value": value} for tag, value in values.items()]
            self._write(summary={"value": points}, step=step)

    def image(self, name: str, pixels: np.ndarray, *, step: int) -> None:
        """Writes a picture.

        Args:
            name: tag.
            pixels: `[h, w, c]` in [0, 1], gray (c = 1) or color (c = 3).
            step: training step.
        """
        if self:
            height, width, channels = pixels.shape
            image = {
                "height": height,
                "width": width,
                "colorspace": channels,
                "encoded_image_string": plotting.encode_png(pixels),
            }
            self._write(summary={"value": [{"tag": name, "image": image}]}, step=step)

    def close(self) -> None:
        """Closes the file. A later event creates another one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, **fields: Any) -> None:
        """Writes one event to disk. Raises OSError where that fails."""
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event

        events = [Event(wall_time=time.time(), **fields)]
        if self._file is None:
            self._folder.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
            self._file = RecordWriter(str(self._folder / name))
            events.insert(0, Event(wall_time=time.time(), file_version="brain.Event:2"))
        for event in events:
            self._file.write(event.SerializeToString())
        self._file.flush()
