"""The record of a run: an SQLite database beside its results.

Commits are not waited for (``synchronous=NORMAL`` in WAL mode): what the record names is on
the disk before it is named, so a power cut costs the last moments' record and nothing else,
and those station tasks are picked again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eqcctpro.codes import printable
from eqcctpro.errors import OutputError
from eqcctpro.pipeline.records import SampleCounts, TaskRecord

__all__ = ["WAITING", "Attempt", "Item", "JournalStore"]

FORMAT = 3
# What ended records hold, by the format that has it first.
_MEASURES = {
    2: ("highest_p", "highest_s", "seconds"),
    3: ("held", "picked", "data_ns", "left_out"),
}
WAITING = "waiting"

# Facts that every record has once it has any.
_FACTS = frozenset(
    {
        *("state", "plan", "settings", "cut", "versions", "items"),
        *("runtime", "batch_size", "skipped", "files_unusable"),
    }
)

# SQLite's codes: no such table or column, no database, torn pages, wrong types.
_DAMAGE = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_MISMATCH}
)

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE attempts (
    number INTEGER PRIMARY KEY, pid INTEGER, host TEXT, mode TEXT, command TEXT,
    started REAL, seen REAL, ended REAL, ending TEXT, recorded INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE files (
    name TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE items (
    key INTEGER PRIMARY KEY, id BLOB NOT NULL, name TEXT NOT NULL, chunk TEXT NOT NULL,
    folder TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'waiting', error TEXT, reason TEXT,
    notes TEXT, windows INTEGER, samples INTEGER, outside INTEGER,
    highest_p REAL, highest_s REAL, seconds REAL,
    held INTEGER, picked INTEGER, data_ns INTEGER, left_out TEXT, part INTEGER,
    deaths INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE parts (number INTEGER PRIMARY KEY, file TEXT NOT NULL, crc32 INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Item:
    """A station task as the record knows it.

    Attributes
    ----------
    key : int
        Its number in the record, which part files use.
    id : bytes
        What it computes, from `eqcctpro.journal.identity.item_ids`.
    name, chunk, folder : str
    """

    key: int
    id: bytes
    name: str
    chunk: str
    folder: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One process that worked on the run.

    Attributes
    ----------
    ending : str or None
        ``"finished"``, ``"interrupted"`` or an error; None while it runs, or when it died.
    recorded : int
        Station tasks that it recorded.
    """

    number: int
    pid: int
    host: str
    mode: str
    command: str
    started: float
    seen: float
    ended: float | None
    ending: str | None
    recorded: int


class JournalStore:
    """An open record.

    Parameters
    ----------
    path : Path
    writable : bool
        Create it where it is not there, and write to it.

    Raises
    ------
    OutputError
        It cannot be opened, or is not a record of ours.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        with self._errors():
            self._db = self._connect(writable)
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if writable and version == 0:
            with self.transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {FORMAT}")
        self._empty = version == 0 and not writable  # its first moment was its last
        # Of one of an earlier version everything can be read that it has.
        self._version = version or FORMAT
        if version not in (0, FORMAT) and (writable or version > FORMAT):
            self.close()
            raise OutputError(
                f"{path} is a record of format {version}, not {FORMAT}",
                hint="--fresh starts the run anew; or use the version that began it",
            )

    def _connect(self, writable: bool) -> sqlite3.Connection:
        if writable:
            db = sqlite3.connect(self.path, isolation_level=None, timeout=30.0)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            return db
        address = f"{self.path.absolute().as_uri()}?mode=ro"
        db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=30.0)
        try:
            db.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            # A folder that cannot be written has no room for the reader's shared memory.
            db.close()
            if self.path.with_name(f"{self.path.name}-wal").exists():
                raise
            db = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
        return db

    def _damaged(self, reason: object) -> OutputError:
        return OutputError(
            f"the record of the run, {self.path}, is damaged: {reason}",
            hint="--fresh discards it and picks everything anew; another output folder leaves it "
            "as it is",
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Tell what is in the record and makes no sense."""
        with self._errors():
            try:
                yield
            except (ValueError, TypeError) as error:
                raise self._damaged(error) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE or self.path.is_dir():
                raise self._damaged(error) from error
            raise OutputError(
                f"the record of the run, {self.path}, cannot be used: {error}",
                hint="check the folder's permissions and the space on the disk; then the same "
                "command goes on where the run stopped",
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is recorded, or nothing."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:
                    self._db.rollback()
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the record; a second call does nothing."""
        self._db.close()

    # What the run is.

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Note facts of the run."""
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def facts(self) -> dict[str, Any]:
        """What the run is: settings, versions, plan, state."""
        if self._empty:
            return {}
        with self._reading():
            facts = {name: json.loads(v) for name, v in self._rows("SELECT * FROM facts")}
            if facts and (missing := sorted(_FACTS - facts.keys())):
                raise self._damaged(f"it does not say {', '.join(missing)}")
        return facts

    def set_files(self, stamps: Iterable[tuple[str, tuple[int, int]]]) -> None:
        """Note the input's files, and forget those that were noted before."""
        self._db.execute("DELETE FROM files")
        rows = ((name, *stamp) for name, stamp in stamps)
        self._db.executemany("INSERT INTO files VALUES (?, ?, ?)", rows)

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of the last change of the input's files."""
        with self._reading():
            return {name: (size, mtime) for name, size, mtime in self._rows("SELECT * FROM files")}

    # Its station tasks.

    def add_items(self, items: Iterable[Item]) -> None:
        """Note station tasks that wait."""
        rows = ((i.key, i.id, i.name, i.chunk, printable(i.folder)) for i in items)
        self._db.executemany(
            "INSERT INTO items (key, id, name, chunk, folder) VALUES (?, ?, ?, ?, ?)", rows
        )

    def drop_items(self, keys: Iterable[int]) -> None:
        """Forget station tasks that are not in the plan any more."""
        self._db.executemany("DELETE FROM items WHERE key = ?", ((key,) for key in keys))

    def wait_again(self, keys: Iterable[int]) -> None:
        """Have station tasks picked once more."""
        self._db.executemany(
            "UPDATE items SET status = 'waiting', part = NULL WHERE key = ?",
            ((key,) for key in keys),
        )

    def blame(self, keys: Iterable[int]) -> None:
        """Note station tasks that a process died over."""
        self._db.executemany(
            "UPDATE items SET deaths = deaths + 1 WHERE key = ?", ((key,) for key in keys)
        )

    def ids(self) -> dict[bytes, int]:
        """Keys of the station tasks by what they compute."""
        with self._reading():
            return {bytes(id_): key for key, id_ in self._rows("SELECT key, id FROM items")}

    def suspects(self) -> set[int]:
        """Station tasks that wait, and that a process died over."""
        query = "SELECT key FROM items WHERE status = 'waiting' AND deaths > 0"
        with self._reading():
            return {key for (key,) in self._rows(query)}

    def records(self) -> Iterator[tuple[TaskRecord, int | None]]:
        """What became of the station tasks that ended, under their keys, and their parts."""
        measures = [
            name if first <= self._version else "NULL"
            for first, names in _MEASURES.items()
            for name in names
        ]
        query = (
            "SELECT key, status, reason, error, notes, windows, samples, outside, "
            f"{', '.join(measures)}, part FROM items WHERE status != 'waiting'"
        )
        with self._reading():
            for key, status, reason, error, notes, *numbers, part in self._rows(query):
                windows, samples, outside, p, s, seconds, held, picked, data_ns, left_out = numbers
                causes = tuple(map(tuple, json.loads(left_out))) if left_out else ()
                record = TaskRecord(
                    key,
                    status,
                    reason or "",
                    error or "",
                    tuple(json.loads(notes)) if notes else (),
                    windows,
                    samples,
                    outside,
                    highest_p=p,
                    highest_s=s,
                    seconds=seconds or 0.0,
                    counts=SampleCounts(held or 0, picked or 0, data_ns or 0, causes),
                )
                yield record, part

    def record(self, records: Sequence[TaskRecord], part: int | None) -> None:
        """Note what became of station tasks; ``record.task`` is their key."""
        self._db.executemany(
            "UPDATE items SET status = ?, reason = ?, error = ?, notes = ?, windows = ?, "
            "samples = ?, outside = ?, highest_p = ?, highest_s = ?, seconds = ?, held = ?, "
            "picked = ?, data_ns = ?, left_out = ?, part = ? WHERE key = ?",
            (
                (
                    *(r.status, r.reason, r.error, json.dumps(r.notes) if r.notes else None),
                    *(r.n_windows, r.n_samples, r.n_outside),
                    *(r.highest_p, r.highest_s, r.seconds),
                    *(r.counts.held, r.counts.picked, r.counts.data_ns),
                    json.dumps(r.counts.left_out) if r.counts.left_out else None,
                    *(part, r.task),
                )
                for r in records
            ),
        )

    # Their findings.

    def add_part(self, number: int, file: str, crc32: int) -> None:
        """Note a part file, which is on the disk."""
        self._db.execute("INSERT INTO parts VALUES (?, ?, ?)", (number, file, crc32))

    def parts(self) -> dict[int, tuple[str, int]]:
        """Name and CRC-32 of every part, by its number."""
        with self._reading():
            return {n: (file, crc) for n, file, crc in self._rows("SELECT * FROM parts")}

    # Who works on it.

    def begin_attempt(self, attempt: Attempt) -> None:
        """Note a process that starts to work on the run."""
        values = (attempt.number, attempt.pid, attempt.host, attempt.mode, attempt.command)
        self._db.execute(
            "INSERT INTO attempts (number, pid, host, mode, command, started, seen) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*values, attempt.started, attempt.seen),
        )

    def note_attempt(
        self, number: int, now: float, *, recorded: int, ending: str | None = None
    ) -> None:
        """Note that a process is alive and what it did; with `ending`, that it stops."""
        self._db.execute(
            "UPDATE attempts SET seen = ?, recorded = ?, ending = ?, ended = ? WHERE number = ?",
            (now, recorded, ending, None if ending is None else now, number),
        )

    def attempts(self) -> list[Attempt]:
        """Every process that worked on the run, in order."""
        columns = "number, pid, host, mode, command, started, seen, ended, ending, recorded"
        with self._reading():
            found = [Attempt(*row) for row in self._rows(f"SELECT {columns} FROM attempts")]
        if not found:
            raise self._damaged("it names no process that worked on the run")
        return found

    # What it looks like.

    def counts(self) -> dict[str, int]:
        """Station tasks by status."""
        with self._reading():
            return dict(self._rows("SELECT status, count(*) FROM items GROUP BY status"))

    def troubles(self) -> list[dict[str, str]]:
        """Station tasks that failed, and why."""
        query = (
            "SELECT name, chunk, status, error, reason FROM items WHERE status = 'failed' "
            "ORDER BY key"
        )
        names = ("station", "timechunk", "status", "error", "reason")
        with self._reading():
            return [dict(zip(names, row, strict=True)) for row in self._rows(query)]

    def items(self) -> list[tuple[int, str, str]]:
        """Key, name and time chunk of every station task."""
        with self._reading():
            return list(self._rows("SELECT key, name, chunk FROM items ORDER BY key"))

    def station_folders(self) -> list[tuple[str, str]]:
        """Time chunk and station folder of every station task."""
        with self._reading():
            return list(self._rows("SELECT DISTINCT chunk, folder FROM items"))

    def _rows(self, query: str) -> sqlite3.Cursor:
        return self._db.execute(query)
