"""Work in the background: one job at a time, in the order given."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class BackgroundJobs:
    """Runs jobs one after another in a thread of its own, while the caller goes on.

    As a context it waits for the last job at the end. An error of a job is raised in the caller by the next call of
    any method, or at the end of the context unless that ends with an error of its own.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)
        self._job: Future[None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Starts a job, after the job before it has ended."""
        self.wait()
        self._job = self._executor.submit(job)

    def check(self) -> None:
        """Raises the error of the last job if it has failed by now."""
        if self._job is not None and self._job.done():
            self._job.result()

    def wait(self) -> None:
        """Waits for the end of the last job."""
        if self._job is not None:
            self._job.result()

    def __enter__(self) -> BackgroundJobs:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._executor.shutdown(wait=True)
        if kind is None:
            self.wait()
