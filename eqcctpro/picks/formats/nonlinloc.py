"""Picks as NonLinLoc's phase file (NLLOC_OBS)."""

from __future__ import annotations

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from eqcctpro.codes import file_name
from eqcctpro.picks.formats.rows import Batches, ExportOptions, PickRow, pick_rows
from eqcctpro.picks.writers import atomic_file
from eqcctpro.times import moment_of, rounded_ratio

__all__ = ["labels_of_stations", "nonlinloc_line", "station_labels", "write_nonlinloc"]

_log = logging.getLogger("eqcctpro")

_SPACE = re.compile(r"\s")
# Stations that a message lists.
_MOST_NAMES = 10
# A ten-thousandth of a second is the last digit of a line.
_STEP_US = 100
# Network and station before the rest of a line, until all stations are known.
_SEPARATOR = "\x1f"

Station = tuple[str, str]


def write_nonlinloc(batches: Batches, path: Path, options: ExportOptions) -> None:
    """One line for each pick, in one block.

    NonLinLoc takes a block for one event: locate what `eqcctpro associate` has put together.
    A line has no network: stations of one code are told apart by `labels_of_stations`.
    """
    stations: dict[Station, None] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as spool:
        for batch in batches:
            for row in pick_rows(batch):
                stations[row.network, row.station] = None
                line = nonlinloc_line(row, "", options)
                spool.write(_SEPARATOR.join((row.network, row.station, line)))
        labels = labels_of_stations(stations)
        spool.seek(0)
        with atomic_file(path) as file:
            for line in spool:
                network, station, rest = line.split(_SEPARATOR)
                file.write(f"{labels[network, station]:<6}{rest[6:]}".encode())


def labels_of_stations(stations: Iterable[Station]) -> dict[Station, str]:
    """Names of stations for NonLinLoc: the code, and the network's before it where needed.

    Stations of two networks that have the same code get both, such as ``XX_ABC``; blanks are
    written as underscores.  A warning lists the names that are made unique.

    Parameters
    ----------
    stations : iterable of (str, str)
        Network and station.
    """
    labels = station_labels(stations)
    renamed = [key for key in labels if labels[key] != _word(key[1])]
    if renamed:
        listed = ", ".join(f"{n}.{s} is {labels[n, s]}" for n, s in renamed[:_MOST_NAMES])
        more = "" if len(renamed) <= _MOST_NAMES else f", and {len(renamed) - _MOST_NAMES} more"
        _log.warning("NonLinLoc has no networks; names of stations made unique: %s%s", listed, more)
    return labels


def station_labels(stations: Iterable[Station]) -> dict[Station, str]:
    """Labels as `labels_of_stations` makes them, without a warning; sorted by the codes."""
    known = sorted(set(stations))
    labels = {(network, station): _word(station) for network, station in known}
    for name in (lambda n, s: f"{_word(n)}_{_word(s)}", file_name):
        uses = Counter(labels.values())
        for network, station in known:
            if uses[labels[network, station]] > 1:
                labels[network, station] = name(network, station)
    return labels


def _word(text: str) -> str:
    return _SPACE.sub("_", text) or "?"


def nonlinloc_line(row: PickRow, label: str, options: ExportOptions) -> str:
    """A line of a phase file: station, phase, time, Gaussian error in s; ``?`` is unknown."""
    time_us = rounded_ratio(row.time_us, _STEP_US) * _STEP_US
    moment = moment_of(time_us)
    date = f"{moment.year:04d}{moment:%m%d %H%M}"
    return (
        f"{label:<6} ?    {_word(row.channel):<4} ? {_word(row.phase):<6} ? {date} "
        f"{time_us % 60_000_000 / 1e6:7.4f} GAU {options.uncertainty_of(row.phase):9.2e} "
        f"{-1:9.2e} {-1:9.2e} {-1:9.2e}\n"
    )
