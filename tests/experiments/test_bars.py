"""Bars: on a terminal alone, and torn by nothing that is written beside them."""

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
    """The name of a terminal, and a function that closes it and gives what was written there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))  # rows, columns
    parts = []

    def read():
        while True:
            try:
                parts.append(os.read(master, 4096))
            except OSError:  # nobody has it open any more
                return

    reader = threading.Thread(target=read)
    reader.start()

    def text():
        os.close(slave)
        reader.join()
        os.close(master)
        return b"".join(parts).decode()

    return os.ttyname(slave), text


def test_a_terminal_shows_a_bar_for_each_task_with_its_losses(launch, data, tmp_path, terminal):
    name, text = terminal
    flags = [
        f"--workdir={tmp_path / 'run'}",
        f"--dataset=idx:{data}",
        "--categories=3,1",
        "--nofigures",
        "--noreport",
    ]
    ended = launch("learn", *flags, *SETTINGS, screen=name)
    shown = text()
    assert ended.code == 0, shown
    for task in ("task 1/2: 3", "task 2/2: 1"):
        assert f"\r{task}: " in shown, shown
    # A bar is drawn ten times a second at most, and the second task may be done by then.
    assert re.search(r"\rtask 1/2: 3: +50%.*10/20 .*real=-?[\d.]+", shown), shown
    # The table is on stdout, whole lines of it.
    assert [line.split()[:2] for line in ended.out.splitlines()[:3]] == [
        ["task", "learned"],
        ["1", "3"],
        ["2", "1"],
    ]


def test_elsewhere_there_is_none(learned):
    _, ended = learned
    assert ended.err == ""
    assert "\r" not in ended.out


def test_a_log_line_clears_the_bar_and_draws_it_again(monkeypatch):
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
    assert "something" in lines  # a line of its own, of which nothing else is part
    before, after = screen.getvalue().split("something\n")
    assert re.search(r"\r *\r$", before)
    assert "2/4" in after
