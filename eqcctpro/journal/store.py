"""The journal of a run: an SQLite database beside its results.

Commits are not synced to disk (``synchronous=NORMAL`` in WAL mode): part files are on the disk
before the journal names them, so a power cut costs only the last commits, and those station
tasks are picked again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eqcctpro.codes import printable
from eqcctpro.errors import OutputError
from eqcctpro.pipeline.records import PickOutcome, SampleCounts

__all__ = ["WAITING", "Attempt", "Item", "JournalStore"]

FORMAT = 3
# Columns of ended station tasks, by the format that introduced them.
_MEASURES = {
    2: ("highest_p", "highest_s", "seconds"),
    3: ("held", "picked", "data_ns", "left_out"),
}
WAITING = "waiting"

# Facts that every journal has, unless it has none.
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
    """A station task in the journal.

    Attributes
    ----------
    key : int
        Its number in the journal and in the part files.
    id : bytes
        Hash of what it computes, from `eqcctpro.journal.identity.item_ids`.
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
        ``"finished"``, ``"interrupted"`` or an error; None while it runs, or if it died.
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
    """An open journal.

    Parameters
    ----------
    path : Path
    writable : bool
        Create it if it does not exist, and write to it.

    Raises
    ------
    OutputError
        It cannot be opened, or is not a journal of EQCCTPro.
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
        self._empty = version == 0 and not writable  # the run died before the tables were created
        # A journal of an earlier version can be read; columns that it lacks are None.
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
        """Turn errors from invalid values in the journal into `OutputError`."""
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
        """Commit everything inside the block, or nothing."""
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
        """Close the journal; a second call does nothing."""
        self._db.close()

    # The run.

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Set facts of the run."""
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def facts(self) -> dict[str, Any]:
        """Facts of the run: settings, versions, plan, state."""
        if self._empty:
            return {}
        with self._reading():
            facts = {name: json.loads(v) for name, v in self._rows("SELECT * FROM facts")}
            if facts and (missing := sorted(_FACTS - facts.keys())):
                raise self._damaged(f"it does not say {', '.join(missing)}")
        return facts

    def set_files(self, stamps: Iterable[tuple[str, tuple[int, int]]]) -> None:
        """Replace the list of input files."""
        self._db.execute("DELETE FROM files")
        rows = ((name, *stamp) for name, stamp in stamps)
        self._db.executemany("INSERT INTO files VALUES (?, ?, ?)", rows)

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and modification time (ns) of each input file."""
        with self._reading():
            return {name: (size, mtime) for name, size, mtime in self._rows("SELECT * FROM files")}

    # Station tasks.

    def add_items(self, items: Iterable[Item]) -> None:
        """Add pending station tasks."""
        rows = ((i.key, i.id, i.name, i.chunk, printable(i.folder)) for i in items)
        self._db.executemany(
            "INSERT INTO items (key, id, name, chunk, folder) VALUES (?, ?, ?, ?, ?)", rows
        )

    def drop_items(self, keys: Iterable[int]) -> None:
        """Remove station tasks that are not in the plan any more."""
        self._db.executemany("DELETE FROM items WHERE key = ?", ((key,) for key in keys))

    def wait_again(self, keys: Iterable[int]) -> None:
        """Set station tasks to pending again."""
        self._db.executemany(
            "UPDATE items SET status = 'waiting', part = NULL WHERE key = ?",
            ((key,) for key in keys),
        )

    def blame(self, keys: Iterable[int]) -> None:
        """Count one more death of a process for the station tasks that it had in flight."""
        self._db.executemany(
            "UPDATE items SET deaths = deaths + 1 WHERE key = ?", ((key,) for key in keys)
        )

    def ids(self) -> dict[bytes, int]:
        """Keys of the station tasks, by the hash of what they compute."""
        with self._reading():
            return {bytes(id_): key for key, id_ in self._rows("SELECT key, id FROM items")}

    def suspects(self) -> set[int]:
        """Keys of pending station tasks that were in flight when a process died."""
        query = "SELECT key FROM items WHERE status = 'waiting' AND deaths > 0"
        with self._reading():
            return {key for (key,) in self._rows(query)}

    def outcomes(self) -> Iterator[tuple[int, PickOutcome, int | None]]:
        """Keys of the station tasks that ended, their outcomes, and their part numbers."""
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
                record = PickOutcome(
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
                yield key, record, part

    def record(self, outcomes: Mapping[int, PickOutcome], part: int | None) -> None:
        """Write the outcomes of station tasks that ended, by their keys."""
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
                    *(part, key),
                )
                for key, r in outcomes.items()
            ),
        )

    # Picks and detections.

    def add_part(self, number: int, file: str, crc32: int) -> None:
        """Add a part file, which must be on disk already."""
        self._db.execute("INSERT INTO parts VALUES (?, ?, ?)", (number, file, crc32))

    def parts(self) -> dict[int, tuple[str, int]]:
        """Name and CRC-32 of every part, by its number."""
        with self._reading():
            return {n: (file, crc) for n, file, crc in self._rows("SELECT * FROM parts")}

    # Attempts.

    def begin_attempt(self, attempt: Attempt) -> None:
        """Add a process that starts to work on the run."""
        values = (attempt.number, attempt.pid, attempt.host, attempt.mode, attempt.command)
        self._db.execute(
            "INSERT INTO attempts (number, pid, host, mode, command, started, seen) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*values, attempt.started, attempt.seen),
        )

    def note_attempt(
        self, number: int, now: float, *, recorded: int, ending: str | None = None
    ) -> None:
        """Update the time and counts of a process that is alive; with `ending`, that it ended."""
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

    # Status.

    def counts(self) -> dict[str, int]:
        """Number of station tasks by status."""
        with self._reading():
            return dict(self._rows("SELECT status, count(*) FROM items GROUP BY status"))

    def troubles(self) -> list[dict[str, str]]:
        """Failed station tasks, with error and reason."""
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
