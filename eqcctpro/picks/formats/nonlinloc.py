"""Picks as NonLinLoc's phase file (NLLOC_OBS)."""

from __future__ import annotations

import re
from pathlib import Path

from eqcctpro.picks.formats.rows import Batches, ExportOptions, PickRow, pick_rows
from eqcctpro.picks.writers import atomic_file

__all__ = ["nonlinloc_line", "write_nonlinloc"]

_SPACE = re.compile(r"\s")


def write_nonlinloc(batches: Batches, path: Path, options: ExportOptions) -> None:
    """One line for each pick, in one block.

    NonLinLoc takes a block for one event: locate what `eqcctpro associate` has put together.
    """
    with atomic_file(path) as file:
        for batch in batches:
            lines = (nonlinloc_line(row, options) for row in pick_rows(batch))
            file.write("".join(lines).encode())


def nonlinloc_line(row: PickRow, options: ExportOptions) -> str:
    """A line of a phase file: station, phase, time, Gaussian error in s; ``?`` is unknown."""
    station, channel, phase = (
        _SPACE.sub("_", text) or "?" for text in (row.station, row.channel, row.phase)
    )
    date, clock = row.time.split("T")
    hour, minute, second = clock.split(":")
    return (
        f"{station:<6} ?    {channel:<4} ? {phase:<6} ? {date.replace('-', '')} {hour}{minute} "
        f"{float(second):7.4f} GAU {options.uncertainty_of(row.phase):9.2e} "
        f"{-1:9.2e} {-1:9.2e} {-1:9.2e}\n"
    )
