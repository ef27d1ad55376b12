"""Lines of a service's log: all of them, or a word on how many are missing."""

from __future__ import annotations

import io
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import free_port

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from eqcctpro.serving.logs import LogReader, SocketHandler, set_up_logs
from eqcctpro.serving.settings import LogSettings

LINES = 100_000


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """The package's logger, as it was afterwards."""
    package = logging.getLogger("eqcctpro")
    before = package.handlers[:], package.level, package.propagate
    yield logging.getLogger("eqcctpro.serving")
    package.handlers[:], package.propagate = before[0], before[2]
    package.setLevel(before[1])


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "s"  # sockets have short names


def counted(lines: list[str]) -> tuple[int, int]:
    """Lines that came, and those that are said to be missing."""
    missing = [int(found[1]) for line in lines if (found := re.search(r" (\d+) lines of", line))]
    return sum(" line " in line for line in lines), sum(missing)


@pytest.mark.slow
def test_lines_that_nobody_takes_are_counted_and_hold_nobody_up(
    log: logging.Logger, place: Path
) -> None:
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    taken.bind(str(place))
    handler = set_up_logs(LogSettings(), place)
    assert isinstance(handler, SocketHandler)

    def write() -> None:
        for index in range(LINES):
            log.info("line %d %s", index, "x" * 200)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(120)
    assert not writer.is_alive(), "whoever logs waits for whoever reads"
    assert 0 < handler.dropped < LINES
    lines: list[str] = []
    taken.settimeout(3.0)
    log.info("one line more")  # once there is room
    while True:
        try:
            lines.append(taken.recv(2**17).decode())
        except TimeoutError:
            break
        if len(lines) == 1000:
            log.info("one line more")
    handler.flush()
    with pytest.raises(TimeoutError):
        while True:
            lines.append(taken.recv(2**17).decode())
    came, missing = counted(lines)
    assert came + missing == LINES + 2
    assert missing == handler.dropped


@pytest.mark.slow
def test_no_line_is_lost_to_a_reader(
    log: logging.Logger, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    file = place.with_name("kept.log")
    with LogReader(place, file):
        handler = set_up_logs(LogSettings(format="json"), place)
        for index in range(15_000):
            log.info("line %d", index)
        # Ray has a `print` of its own, through which tracebacks come out as tuples.
        monkeypatch.setattr("builtins.print", None)
        try:
            raise ZeroDivisionError("of a test")
        except ZeroDivisionError:
            log.exception("a fault")
        until = time.monotonic() + 60
        while "a fault" not in shown.getvalue() and time.monotonic() < until:
            handler.flush()
    lines = shown.getvalue().splitlines()
    assert file.read_text() == shown.getvalue()
    assert len(lines) == 15_001
    assert "Traceback" in lines[-1] and "\\n  File " in lines[-1]


class _Gone(io.StringIO):
    name = "<gone>"

    def write(self, _: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_terminal_that_is_gone_leaves_the_file(
    log: logging.Logger, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", _Gone())
    file = place.with_name("kept.log")
    with LogReader(place, file):
        handler = set_up_logs(LogSettings(), place)
        for index in range(10):
            log.info("line %d", index)
        handler.flush()
    text = file.read_text()
    assert text.count(" line ") == 10
    assert "no more lines are written to <gone>" in text


def test_a_file_that_cannot_be_written_is_named(cli: Any, imported_model: str) -> None:
    file = "/nowhere/serve.log"
    done = cli(
        *("serve", "--model", imported_model, "--port", free_port(), "--set", f"logs.file={file}")
    )
    assert done.exit_code == 2
    assert f"logs.file: {file} cannot be written" in done.stderr
