"""Progress bars: shown on a terminal only, and intact beside other output."""

import fcntl
import io
import logging
import os
import pty
import re
import struct
import sys
import termios
import threading

import pytest
from tqdm import tqdm

from experiments import launcher
from tests.experiments.conftest import SETTINGS


@pytest.fixture
def terminal():
    """The name of a terminal, and a function that closes it and returns the text written to it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))  # rows, columns
    parts = []

    def read():
        while True:
            try:
                parts.append(os.read(master, 4096))
            except OSError:  # no process has the terminal open
                return

    reader = threading.Thread(target=read)
    reader.start()

    def read_text():
        os.close(slave)
        reader.join()
        os.close(master)
        return b"".join(parts).decode()

    return os.ttyname(slave), read_text


def test_learn_shows_a_bar_per_task_on_a_terminal(launch, idx_folder, tmp_path, terminal):
    name, read_text = terminal
    flags = [
        f"--workdir={tmp_path / 'run'}",
        f"--dataset=idx:{idx_folder}",
        "--categories=3,1",
        "--nofigures",
        "--noreport",
    ]
    ended = launch("learn", *flags, *SETTINGS, screen=name)
    text = read_text()
    assert ended.code == 0, text
    for task in ("task 1/2: 3", "task 2/2: 1"):
        assert f"\r{task}: " in text, text
    # A bar is drawn ten times per second at most, so the short second task may show none of its steps.
    assert re.search(r"\rtask 1/2: 3: +50%.*10/20 .*real=-?[\d.]+", text), text
    # The table is on stdout, in complete lines.
    assert [line.split()[:2] for line in ended.out.splitlines()[1:4]] == [["task", "learned"], ["1", "3"], ["2", "1"]]


def test_learn_shows_no_bar_without_a_terminal(learn_process):
    assert learn_process.err == ""
    assert "\r" not in learn_process.out


def test_log_beside_bars_clears_and_redraws_the_bar(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    root = logging.getLogger()
    handlers = [logging.StreamHandler(screen)]
    monkeypatch.setattr(root, "handlers", handlers)
    launcher.log_beside_bars()
    with tqdm(total=4, desc="task", file=screen, disable=False) as bar:
        bar.update(2)
        root.error("something")
        bar.refresh()
    lines = re.split(r"[\r\n]", screen.getvalue())
    assert "something" in lines  # the message has a line of its own
    before, after = screen.getvalue().split("something\n")
    assert re.search(r"\r *\r$", before)
    assert "2/4" in after
