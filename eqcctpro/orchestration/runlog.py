"""Log file of a run, beside its results."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.errors import OutputError

__all__ = ["RunLog", "gathered_warnings", "run_log"]

FORMAT = "%(asctime)s - %(levelname)s - %(message)s"


class _LogFile(logging.FileHandler):
    """Log handler that drops lines while the disk is full; other errors are reported."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf-8", errors="backslashreplace")
        self._beginning = path.stat().st_size

    def drop_earlier(self) -> None:
        """Remove the lines that the file held before it was opened here."""
        if self.lock is None or not self._beginning:
            return
        with self.lock, suppress(OSError):
            self.flush()
            with Path(self.baseFilename).open("r+b") as file:
                file.seek(self._beginning)
                own = file.read()
                # Nothing, if another run that shares the file has emptied it meanwhile.
                if own or file.seek(0, os.SEEK_END) == self._beginning:
                    file.seek(0)
                    file.write(own)
                    file.truncate()
            self._beginning = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base class's name)
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class _Level:
    """Log level INFO for the time of a run; nested runs may end in any order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs = 0
        self._earlier = logging.NOTSET

    def lower(self, logger: logging.Logger) -> None:
        with self._lock:
            if self._runs == 0:
                self._earlier = logger.level
                if logger.getEffectiveLevel() > logging.INFO:
                    logger.setLevel(logging.INFO)
            self._runs += 1

    def restore(self, logger: logging.Logger) -> None:
        with self._lock:
            self._runs -= 1
            if self._runs == 0:
                logger.setLevel(self._earlier)


_level = _Level()
# The run of each thread that runs one; what other threads say is for all of them.
_runs: dict[int, object] = {}


@dataclass(frozen=True)
class RunLog:
    """The log of one run; from `run_log`.

    Attributes
    ----------
    logger : Logger
    append : bool
        Whether the files keep what earlier runs wrote.
    """

    logger: logging.Logger
    append: bool
    _files: list[_LogFile]

    def begin(self) -> None:
        """Remove the lines of earlier runs, unless these are kept: this run replaces theirs."""
        for file in () if self.append else self._files:
            file.drop_earlier()


@contextmanager
def run_log(paths: list[Path], *, append: bool = False) -> Iterator[RunLog]:
    """Write the log of ``eqcctpro`` to `paths` for the time of the run.

    What runs in other threads say is left out.

    Parameters
    ----------
    paths : list of Path
    append : bool
        Keep what is there, also once the run begins: it goes on with an earlier one.

    Raises
    ------
    OutputError
        A log file cannot be written.
    """
    logger = logging.getLogger("eqcctpro")
    formatter = logging.Formatter(FORMAT)
    formatter.converter = time.gmtime
    formatter.default_msec_format = "%s.%03dZ"
    handlers: list[_LogFile] = []
    run, thread = object(), threading.get_ident()
    outer = _runs.get(thread)
    _runs[thread] = run
    _level.lower(logger)
    try:
        for path in {path.absolute(): path for path in paths}.values():
            file = _open(path)
            file.setFormatter(formatter)
            file.addFilter(lambda record: _runs.get(record.thread or 0, run) is run)
            handlers.append(file)
            logger.addHandler(file)
        yield RunLog(logger, append, handlers)
    finally:
        _level.restore(logger)
        if outer is None:
            _runs.pop(thread, None)
        else:
            _runs[thread] = outer
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _open(path: Path) -> _LogFile:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _LogFile(path)
    except OSError as error:
        raise OutputError(
            f"cannot write the log {path}: {error.strerror or error}",
            hint="choose another folder or path for it, or change the folder's permissions",
        ) from error


class _Gathering(logging.Handler):
    """Log handler that collects the texts of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def gathered_warnings() -> Iterator[list[str]]:
    """Collect the warnings logged inside the block, for the summary and the terminal."""
    logger, handler = logging.getLogger("eqcctpro"), _Gathering()
    logger.addHandler(handler)
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)
