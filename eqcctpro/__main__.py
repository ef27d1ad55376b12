"""The command ``eqcctpro``, also as ``python -m eqcctpro``."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

__all__ = ["main"]

INTERRUPTED = 130


def main() -> None:
    """Load the command line and run it.

    Loading takes a moment, in which signals end the process with the exit code of later ones.
    """
    waiting: dict[int, Any] = {}
    with suppress(ValueError):  # not the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            usual = signal.getsignal(number)
            if usual in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _end)
                waiting[number] = usual
    from eqcctpro.cli import main as run

    run(waiting)


def _end(*_: object) -> None:
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
