"""Runs ``eqcctpro`` with a fault built in: ``faulty.py FAULT COUNT ARGUMENTS...``.

FAULT is what happens at the COUNT-th time that the process waits for the disk or renames a
file (``exit``, ``enospc``, ``erofs``), or ``none``.  Runs are slowed down a little and record
often, so that faults that come from outside hit them at all stages.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any

SLOWER_S = 0.02
ERRORS = {"enospc": errno.ENOSPC, "erofs": errno.EROFS}


def install(fault: str, count: int) -> None:
    """Build the fault in."""
    calls = 0

    def faulty(sound: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if fault == "exit" and calls == count:
                os._exit(137)
            if fault in ERRORS and calls >= count:
                raise OSError(ERRORS[fault], os.strerror(ERRORS[fault]))
            return sound(*arguments, **options)

        return call

    os.fsync, os.replace, os.rename = map(faulty, (os.fsync, os.replace, os.rename))  # type: ignore[assignment]


def slow_down() -> None:
    """Take some time for each station, prepare few ahead, and record often."""
    from eqcctpro.journal import recorder
    from eqcctpro.sources import feeder

    sound = feeder.prepare

    def prepare(*arguments: Any) -> Any:
        time.sleep(SLOWER_S)
        return sound(*arguments)

    feeder.prepare = prepare
    feeder.WAITING_BYTES = 200_000
    recorder.GROUP_SECONDS = 0.05


if __name__ == "__main__":
    kind, number, *sys.argv[1:] = sys.argv[1:]
    slow_down()
    install(kind, int(number))
    from eqcctpro.cli import main

    main()
