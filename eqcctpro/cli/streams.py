"""Standard streams that are closed or cannot be written: they never decide about results."""

from __future__ import annotations

import errno
import io
import os
import sys

__all__ = ["open_standard_streams", "output_failure"]

# A reader that wants no more, as `head`, is no failure.
_READ_ENOUGH = (errno.EPIPE, errno.EBADF)


class _Lenient(io.FileIO):
    """A standard stream: what it does not take is dropped, and the first reason is kept."""

    failure: OSError | None = None

    def write(self, content: object) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(content).nbytes  # type: ignore[arg-type]


def open_standard_streams() -> None:
    """Open those that are closed onto nothing, and have none of them raise when it is written.

    Files that are opened later would otherwise take the numbers of closed streams, and be
    written to by whatever prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (a number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and _number(stream) != number:
            continue  # somebody has replaced it
        setattr(
            sys,
            name,
            io.TextIOWrapper(
                io.BufferedWriter(_Lenient(number, "w", closefd=False)),
                encoding=stream.encoding if stream is not None else "utf-8",
                errors="backslashreplace",
                line_buffering=stream is None or stream.line_buffering or name == "stderr",
            ),
        )


def _number(stream: object) -> int | None:
    if not isinstance(stream, io.TextIOWrapper):
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def output_failure() -> str | None:
    """Why not all that was printed could be, or None; a reader that wants no more is no reason."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Lenient) else None
    if failure is None or failure.errno in _READ_ENOUGH:
        return None
    return failure.strerror or str(failure)
