"""Logs of all processes of a service, as lines of text or JSON on one standard error."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from eqcctpro.serving.settings import LogSettings

__all__ = ["LogReader", "set_up_logs"]

# Clients choose paths and names: no letter of theirs may begin a line or steer a terminal.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_ESCAPES |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029)}

# What a datagram holds at most; longer lines are cut.
_LONGEST = 60_000


class _Format(logging.Formatter):
    """One line for each record, with what a request is about."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

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


class _SocketHandler(logging.Handler):
    """Sends lines to the process that the user sees; they are lost if it does not keep up."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line."""
        line = self.format(record).encode("utf-8", "replace")[:_LONGEST]
        with suppress(OSError):
            self._socket.sendto(line, self._path)


def set_up_logs(settings: LogSettings, log_socket: Path | None = None) -> None:
    """Send what the package logs to standard error, or through a socket."""
    handler: logging.Handler
    if log_socket is not None and log_socket.exists():
        handler = _SocketHandler(log_socket)
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Format(as_json=settings.format == "json"))
    logger = logging.getLogger("eqcctpro")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.level.upper())
    logger.propagate = False


class LogReader:
    """Writes the lines that replicas send to standard error, and to a file if one is named.

    Parameters
    ----------
    path : Path
        Of the socket.
    file : Path, optional
    """

    def __init__(self, path: Path, file: Path | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        self._socket.bind(str(path))
        os.chmod(path, 0o600)  # noqa: PTH101 (a socket)
        self._socket.settimeout(0.5)
        self._file: IO[str] | None = file.open("a", encoding="utf-8") if file is not None else None
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="eqcctpro-log", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._ended:
            try:
                line = self._socket.recv(2 * _LONGEST).decode("utf-8", "replace")
            except TimeoutError:
                continue
            except OSError:
                return
            for stream in (sys.stderr, self._file):
                if stream is not None:
                    stream.write(line + "\n")
                    stream.flush()

    def close(self) -> None:
        """Write what has arrived, then end."""
        self._ended = True
        self._thread.join(2.0)
        self._socket.close()
        if self._file is not None:
            self._file.close()
