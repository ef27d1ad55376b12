"""The log of a run: one file beside its results."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eqcctpro.errors import OutputError

__all__ = ["run_log"]

FORMAT = "%(asctime)s - %(levelname)s - %(message)s"


class _LogFile(logging.FileHandler):
    """A log that misses lines while the disk is full; what else cannot be written says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base class's name)
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def run_log(paths: list[Path], *, append: bool = False) -> Iterator[logging.Logger]:
    """The logger ``eqcctpro``, writing to `paths` for as long as the run lasts.

    Parameters
    ----------
    paths : list of Path
    append : bool
        Keep what is there: the run goes on with an earlier one.

    Raises
    ------
    OutputError
        A log file cannot be written.
    """
    logger = logging.getLogger("eqcctpro")
    formatter = logging.Formatter(FORMAT)
    formatter.converter = time.gmtime
    formatter.default_msec_format = "%s.%03dZ"
    handlers: list[logging.Handler] = []
    earlier = logger.level
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _LogFile(path, mode="a" if append else "w", encoding="utf-8")
            file.setFormatter(formatter)
            handlers.append(file)
            logger.addHandler(file)
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        yield logger
    except OSError as error:
        if error.filename is None or Path(error.filename) not in paths:
            raise
        raise OutputError(
            f"cannot write the log {error.filename}: {error.strerror}",
            hint="choose another path for it",
        ) from error
    finally:
        logger.setLevel(earlier)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
