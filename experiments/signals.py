"""Signals that ask a run to stop."""

import signal


class StopRequest:
    """A request to stop, by SIGTERM or Ctrl-C, that a run polls. A second signal ends the process at once.

    Until `wait` is called, Ctrl-C raises KeyboardInterrupt and SIGTERM ends the process.
    """

    def __init__(self) -> None:
        self._received: int | None = None

    def wait(self) -> None:
        """Installs the handlers of the signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def end(self) -> None:
        """Ignores further signals: the work is done, and one would end Python while it exits."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _receive(self, number: int, _: object) -> None:
        self._received = number
        for other in (signal.SIGTERM, signal.SIGINT):
            signal.signal(other, signal.SIG_DFL)

    def __call__(self) -> bool:
        """Returns whether a signal has arrived."""
        return self._received is not None

    @property
    def exit_code(self) -> int:
        """Exit code of a process that a signal has stopped."""
        return 128 + (self._received or signal.SIGTERM)
