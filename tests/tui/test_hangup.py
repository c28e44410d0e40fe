"""Without a terminal the app refuses to start, and when its terminal goes away it ends. Real terminals."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress

import pytest

from tests.tui.test_once import tui

NAMES = {"stdin": "input", "stdout": "output", "stderr": "error"}
IGNORING = (
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
)


def read(main, until, seconds=60):
    """What is written to the terminal, until this is."""
    written, deadline = bytearray(), time.monotonic() + seconds
    while until not in written and time.monotonic() < deadline:
        if select.select([main], [], [], 0.5)[0]:
            with suppress(OSError):
                written += os.read(main, 1 << 16)
    return bytes(written)


def start(root, *, leader=False, ignoring=False):
    """The app in a terminal of its own; without `leader` no signal tells it of a hangup, as under `just`."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "tui", "--experiments", str(root)]
    if ignoring:
        command = [sys.executable, "-c", IGNORING, *command]

    def control():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        stdin=other,
        stdout=other,
        stderr=other,
        env=os.environ | {"TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=control if leader else None,
    )
    os.close(other)
    assert b"night-search" in read(main, b"night-search")
    return main, process


@pytest.mark.parametrize("leader", [True, False])
@pytest.mark.parametrize("ignoring", [True, False])
def test_when_its_terminal_is_closed_the_app_ends(sample, leader, ignoring):
    main, process = start(sample, leader=leader, ignoring=ignoring)
    try:
        os.close(main)
        assert process.wait(20) in (128 + signal.SIGHUP, -signal.SIGHUP)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(sample, number):
    main, process = start(sample)
    try:
        before = termios.tcgetattr(main)[3]
        process.send_signal(number)
        written = read(main, b"\x1b[?1049l", 20)
        assert b"\x1b[?1049l" in written  # the screen before the app
        assert process.wait(20) == 128 + number
        assert termios.tcgetattr(main)[3] & termios.ICANON
        assert not before & termios.ICANON
    finally:
        process.kill()
        process.wait()
        os.close(main)


def test_what_it_remembers_is_saved_when_the_terminal_goes_away(sample, state):
    main, process = start(sample)
    try:
        os.write(main, b"t")  # the light theme
        time.sleep(1)
        os.close(main)
        process.wait(20)
        assert b"textual-light" in state.read_bytes()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_without_a_terminal_it_refuses_and_names_once(sample, stream):
    main, other = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), other) | {stream: subprocess.PIPE}
    command = [sys.executable, "-m", "tui", "--experiments", str(sample)]
    with subprocess.Popen(command, start_new_session=True, **streams) as process:
        try:
            os.close(other)
            _, error = process.communicate()
            assert process.returncode == 1
            said = error if stream == "stderr" else read(main, b"--once", 5)
            assert f"standard {NAMES[stream]} is none".encode() in said
            assert b"just tui --once" in said
        finally:
            process.kill()
            os.close(main)


def test_with_nothing_at_all_it_refuses(sample):
    done = tui("--experiments", str(sample))
    assert done.returncode == 1
    assert "the terminal app needs a terminal" in done.stderr
    assert "just tui --once" in done.stderr
