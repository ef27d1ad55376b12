"""Tables of the picks of a live run: ``picks.sqlite``, and ``picks.parquet`` day by day."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet

from eqcctpro.errors import SettingsError, SinkError
from eqcctpro.live.outbox import Entry, Sends
from eqcctpro.live.sinks.base import NotYetError, Sink
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.picks.writers import atomic_file
from eqcctpro.times import NS_PER_S, US_PER_S, chunk_name, format_utc

__all__ = ["ParquetSink", "SqliteSink"]

_TEXTS = ("network", "station", "location", "channel", "phase")
_TIMES = ("time_us", "start_us", "end_us", "created_us", "data_end_us", "received_us")
_COLUMNS = (
    *("id", "version", "status", *_TEXTS, *_TIMES, "probability", "model", "weights"),
    *("components", "late", "snr", "mb"),
)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS picks (
    id TEXT PRIMARY KEY, version INTEGER NOT NULL, status TEXT NOT NULL,
    {", ".join(f"{name} TEXT NOT NULL" for name in _TEXTS)},
    {", ".join(f"{name} INTEGER NOT NULL" for name in _TIMES)},
    probability REAL NOT NULL, model TEXT NOT NULL, weights TEXT NOT NULL,
    components TEXT NOT NULL, late INTEGER NOT NULL, snr REAL, mb REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS picks_by_time ON picks (time_us);
CREATE INDEX IF NOT EXISTS picks_by_station ON picks (network, station, time_us);
"""
# A later version replaces an earlier one, whatever the order in which they come.
_UPSERT = (
    f"INSERT INTO picks ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
    + " WHERE excluded.version > picks.version"
)
_DAY_S = 86_400
# Farther than a revision moves a pick.
_MOVED_NS = 10 * NS_PER_S
_ROWS = 50_000


class SqliteSink(Sink):
    """Table ``picks`` in ``picks.sqlite``: the last version of each pick, of any status."""

    schemes: ClassVar[tuple[str, ...]] = ("sqlite",)
    batch = 1000

    def check(self) -> None:
        """Check that it is sent final picks, of which files by day are made."""
        _check_alone(self, "sqlite", ("all", "final"))
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file, and make the table if there is none."""
        path = self.place.output / "picks.sqlite"
        self._db = sqlite3.connect(
            path, isolation_level=None, timeout=10.0, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)

    def send(self, entries: Sequence[Entry]) -> None:
        """Insert new picks, and replace earlier versions of others."""
        assert self._db is not None
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(_UPSERT, map(_row, entries))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.rollback()
            raise

    def close(self) -> None:
        """Close the file."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()


class ParquetSink(Sink):
    """Final picks by day, in files of a folder that is one data set.

    A file is written anew, from ``picks.sqlite``, when final picks of its day have come: a pick
    that is revised or retracted later is so here, too.
    """

    schemes: ClassVar[tuple[str, ...]] = ("parquet",)
    options: ClassVar[tuple[str, ...]] = ("every",)
    send_usually: ClassVar[Sends] = "final"
    batch = 20_000

    def check(self) -> None:
        """Check interval and address."""
        _check_alone(self, "parquet", ("final",))
        self._every_s = self.target.number("every", 60.0, 1.0, 86_400.0)

    def open(self) -> None:
        """Look whether the folder may be made."""
        self._folder = self.place.output / "picks.parquet"
        if self._folder.is_file():
            raise SinkError(
                f"{self._folder} is a file, of another run",
                hint="move it away; a live run makes a folder of that name, with a file for a day",
            )

    def send(self, entries: Sequence[Entry]) -> None:
        """Write the days of final picks, once the table has these."""
        outbox = self.place.outbox
        if outbox.cursor("sqlite").number < entries[-1].number:
            raise NotYetError("picks.sqlite has not taken these picks yet")
        began = time.monotonic()
        database = self.place.output / "picks.sqlite"
        days = {_day(entry.message.time_ns) for entry in entries}
        # A pick may have been moved over midnight.
        revised = [entry.message.time_ns for entry in entries if entry.message.version > 1]
        near = {_day(time_ns + shift) for time_ns in revised for shift in (-_MOVED_NS, _MOVED_NS)}
        near = {day for day in near - days if _day_file(self._folder, day).exists()}
        for day in sorted(days | near):
            write_day(database, self._folder, day, outbox.identity)
        # A long day may take a twentieth of a core.
        self.pause_s = max(self._every_s, 20 * (time.monotonic() - began))

    def close(self) -> None:
        """Nothing is held open."""


def write_day(database: Path, folder: Path, day: int, run_id: str) -> Path:
    """Write the final picks of a day as Parquet, with the columns of a run's ``picks.parquet``.

    Parameters
    ----------
    database : Path
        ``picks.sqlite``.
    folder : Path
        ``picks.parquet``.
    day : int
        Days since 1970.
    run_id : str

    Returns
    -------
    Path
        The file; it is there even if all its picks were retracted.
    """
    begin_us = day * _DAY_S * US_PER_S
    end_us = begin_us + _DAY_S * US_PER_S
    path = _day_file(folder, day)
    chunk = chunk_name(begin_us * 1000, end_us * 1000)
    with (
        atomic_file(path) as file,
        pyarrow.parquet.ParquetWriter(file, PICK_SCHEMA, compression="zstd") as writer,
        closing(sqlite3.connect(database, timeout=30.0)) as db,
    ):
        for rows in _pieces(db, begin_us, end_us):
            same = ([chunk] * len(rows), [run_id] * len(rows))
            columns = (*zip(*rows, strict=True), *same)
            arrays = [
                pa.array(values, field.type)
                for values, field in zip(columns, PICK_SCHEMA, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=PICK_SCHEMA))
    return path


def _pieces(db: sqlite3.Connection, begin_us: int, end_us: int) -> Iterator[list[tuple[object]]]:
    found = db.execute(
        "SELECT network, station, location, channel, phase, time_us, start_us, end_us, "
        "probability, model, weights FROM picks WHERE time_us >= ? AND time_us < ? "
        "AND status = 'final' ORDER BY time_us, network, station, location, channel, phase",
        (begin_us, end_us),
    )
    while rows := found.fetchmany(_ROWS):
        yield rows


def _row(entry: Entry) -> tuple[object, ...]:
    one = entry.message
    times = (
        *(one.time_ns, one.start_ns, one.end_ns),
        *(one.created_ns, one.data_end_ns, one.received_ns),
    )
    return (
        *(one.id, one.version, one.status),
        *(getattr(one, name) for name in _TEXTS),
        *((time_ns + 500) // 1000 for time_ns in times),
        *(one.probability, one.model, one.weights, one.components, int(one.late)),
        *(one.snr, one.mb),
    )


def _day(time_ns: int) -> int:
    return time_ns // NS_PER_S // _DAY_S


def _day_file(folder: Path, day: int) -> Path:
    return folder / f"{format_utc(day * _DAY_S * NS_PER_S)[:10]}.parquet"


def _check_alone(sink: Sink, name: str, sends: tuple[str, ...]) -> None:
    """Check that a sink that every run has once is asked for by its name."""
    if sink.target.name != name:
        raise SettingsError(
            f"sink {sink.target.name}: {name} has no address and no other name",
            hint=f"it is OUT/picks.{name}",
        )
    if sink.sends not in sends:
        raise SettingsError(
            f"sink {name}: send={sink.sends} is not possible", hint=f"one of {', '.join(sends)}"
        )
