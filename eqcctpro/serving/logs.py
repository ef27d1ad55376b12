"""Logs of all processes of a service, as lines of text or JSON on one standard error."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TextIO

from eqcctpro.errors import SettingsError
from eqcctpro.serving.settings import LogSettings

__all__ = ["LogReader", "SocketHandler", "set_up_logs"]

# Clients choose paths and names: no letter of theirs may begin a line or steer a terminal.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_ESCAPES |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029)}

# What a datagram holds at most; longer lines are cut.
_LONGEST = 60_000

# Lines of a process that wait to be taken: more than a minute of a busy service.
_WAITING_BYTES = 8 * 2**20

_GLANCE_S = 0.2
# What a process waits for its last lines when it ends.
_FLUSH_S = 2.0


class _Format(logging.Formatter):
    """Formatter with one line per record, which includes facts of the request."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        """A traceback, without `print`, which Ray has replaced in its processes."""
        return "".join(traceback.format_exception(*ei)).rstrip("\n")

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        facts: dict[str, object] = dict(getattr(record, "request", {}))
        error = self.formatException(record.exc_info) if record.exc_info else None
        text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._as_json:
            head = {
                "time": text,
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
                "pid": record.process,
            }
            if error is not None:
                facts["error"] = error
            return json.dumps({**head, **facts}, ensure_ascii=False, default=str)
        rest = "".join(f" {name}={value}" for name, value in facts.items())
        line = f"{text} {record.levelname:<7} {record.getMessage()}{rest}".translate(_ESCAPES)
        below = [] if error is None else [part.translate(_ESCAPES) for part in error.splitlines()]
        return "\n    ".join([line, *below])


class SocketHandler(logging.Handler):
    """Log handler that sends lines to the main process.

    A thread sends them, so that whoever logs never waits.  What does not fit while lines are not
    taken is dropped, and the next line that can be sent says how many were.

    Parameters
    ----------
    path : Path
        Of the socket.

    Attributes
    ----------
    dropped : int
        Lines that were dropped so far.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._more = threading.Event()
        self.dropped = 0
        self._told = 0
        threading.Thread(target=self._send_all, name="eqcctpro-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have one line sent; called with the handler's lock."""
        if self._bytes >= _WAITING_BYTES:
            self.dropped += 1
            return
        self._tell_dropped()
        self._append(record)

    def _append(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode("utf-8", "replace")[:_LONGEST]
        self._bytes += len(line)
        self._lines.append(line)
        self._more.set()

    def _tell_dropped(self) -> None:
        lost, self._told = self.dropped - self._told, self.dropped
        if lost:
            text = f"{lost} lines of the log were dropped: nobody took them fast enough"
            level = logging.WARNING
            self._append(logging.LogRecord("eqcctpro.serving", level, "", 0, text, None, None))

    def _send_all(self) -> None:
        while True:
            self._more.wait()
            self._more.clear()
            while self._lines:
                line = self._lines[0]
                # Waits while the other end has not taken earlier ones.
                with suppress(OSError):  # there is no other end any more
                    self._socket.sendto(line, self._path)
                self.acquire()
                self._lines.popleft()
                self._bytes -= len(line)
                self.release()

    def flush(self) -> None:
        """Wait a moment for what has been logged to be sent."""
        self.acquire()
        self._tell_dropped()
        self.release()
        until = time.monotonic() + _FLUSH_S
        while self._lines and time.monotonic() < until:
            time.sleep(0.01)


def set_up_logs(
    settings: LogSettings, log_socket: Path | None = None
) -> logging.StreamHandler[TextIO] | SocketHandler:
    """Send what the package logs to standard error, or through a socket; returns what does."""
    handler: logging.StreamHandler[TextIO] | SocketHandler
    if log_socket is not None and log_socket.exists():
        handler = SocketHandler(log_socket)
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Format(as_json=settings.format == "json"))
    logger = logging.getLogger("eqcctpro")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.level.upper())
    logger.propagate = False
    return handler


class LogReader:
    """Writer of the replicas' log lines to standard error, and to a file if one is set.

    A context manager: at its end, what has arrived is written.

    Parameters
    ----------
    path : Path
        Of the socket.
    file : Path, optional

    Raises
    ------
    SettingsError
        The file cannot be written.
    """

    def __init__(self, path: Path, file: Path | None = None) -> None:
        self._streams: list[IO[str]] = [sys.stderr]
        self._file: IO[str] | None = None
        if file is not None:
            try:
                self._file = file.open("a", encoding="utf-8")
            except OSError as error:
                raise SettingsError(
                    f"logs.file: {file} cannot be written: {error.strerror or error}",
                    hint="name a file in a folder that is there and may be written to",
                ) from error
            self._streams.append(self._file)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        self._socket.bind(str(path))
        os.chmod(path, 0o600)  # noqa: PTH101 (a socket)
        self._socket.settimeout(_GLANCE_S)
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="eqcctpro-log", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                line = self._socket.recv(2 * _LONGEST).decode("utf-8", "replace")
            except TimeoutError:
                if self._ended:
                    return
                continue
            except OSError:
                return
            self._write(line)

    def _write(self, line: str) -> None:
        for stream in list(self._streams):
            try:
                stream.write(line + "\n")
                stream.flush()
            except (OSError, ValueError) as error:
                # Such as a full disk, or a terminal that is gone; the other one still tells.
                self._streams.remove(stream)
                if self._streams:
                    self._write(f"no more lines are written to {stream.name}: {error}")

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join(_FLUSH_S)  # longer only where nobody takes what is written
        self._socket.close()
        if self._file is not None and not self._thread.is_alive():
            with suppress(OSError):
                self._file.close()
