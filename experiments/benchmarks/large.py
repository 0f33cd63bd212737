"""A folder of 100,000 pictures in color, learned as a run: memory and rate."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae.data import make_tasks, open_source
from lifelong_cvae.ridge.dead_leaves import sample_images
from lifelong_cvae.runs import runner
from lifelong_cvae.runs.config import RunConfig

CATEGORIES, PICTURES, SIDE = 10, 10_000, 128
# Synthetic images of a category, of which its pictures are parts.
BASES = 32
# Seconds between two measurements of memory.
INTERVAL = 0.05


def large(
    benchmark_config: BenchmarkConfig, *, categories: int = CATEGORIES, pictures: int = PICTURES, side: int = SIDE
) -> dict[str, Any]:
    """Writes pictures to a temporary folder and learns them; `--dataset` is not read.

    Returns:
        Numbers of `categories` and of `pictures` in all, `side` in pixels, `gigabytes` of all decoded pictures; seconds
        of writing, of opening the folder (every picture is decoded once) and of the run; `peak_gigabytes` of memory
        that is not backed by a file; accuracy in percent.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        _write_pictures(Path(folder) / "pictures", benchmark_config.seed, categories, pictures, side)
        written = time.perf_counter()
        with peak_memory() as peak:
            source = open_source(f"images:{Path(folder) / 'pictures'}")
            opened = time.perf_counter()
            run_config = RunConfig(source.name, make_tasks(source.categories), config=benchmark_config.config)
            result = runner.run(Path(folder) / "run", run_config, source, runner.RunOptions(draw=False))
        ended = time.perf_counter()
    return {
        "categories": categories,
        "pictures": categories * pictures,
        "side": side,
        "gigabytes": categories * pictures * side**2 * 3 / 1e9,
        "seconds_writing": written - start,
        "seconds_opening": opened - written,
        "seconds_run": ended - opened,
        "peak_gigabytes": peak.bytes / 1e9,
        "accuracy": 100 * result["accuracy"],
    }


def _write_pictures(folder: Path, seed: int, categories: int, pictures: int, side: int) -> None:
    """Writes JPEG files: parts of enlarged synthetic images, in colors of their category."""
    numbers = np.random.default_rng(seed)
    for category in range(categories):
        tint = numbers.uniform(0.3, 1, 3)
        bases = np.uint8(255 * tint * sample_images(BASES, 3, numbers))
        enlarged = [Image.fromarray(base).resize((2 * side, 2 * side), Image.Resampling.BICUBIC) for base in bases]
        (folder / f"{category:02d}").mkdir(parents=True)
        for index in range(pictures):
            left, top = (int(offset) for offset in numbers.integers(0, side + 1, 2))
            part = enlarged[numbers.integers(BASES)].crop((left, top, left + side, top + side))
            part.save(folder / f"{category:02d}" / f"{index:06d}.jpg", quality=85)


@contextlib.contextmanager
def peak_memory() -> Iterator[SimpleNamespace]:
    """Measures the largest memory of this process within the context, as `bytes` (Linux only).

    Pages of mapped files are not counted, since the system takes them back when it needs memory.
    """
    peak, ended = SimpleNamespace(bytes=0), threading.Event()

    def measure() -> None:
        while not ended.wait(INTERVAL):
            peak.bytes = max(peak.bytes, anonymous_bytes())

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
        peak.bytes = max(peak.bytes, anonymous_bytes())


def anonymous_bytes() -> int:
    """Returns the resident memory of this process that is not backed by a file, in bytes (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
    return 1024 * int(kilobytes)
