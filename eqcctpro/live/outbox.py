"""Outbox of a live run: messages on their way to sinks, and the picker's checkpoint, in SQLite.

Messages and the checkpoint that belongs to them are committed together, so that a picker which
goes on from its checkpoint has neither lost a pick nor reports one twice.  Each sink has a cursor:
the number of the last message that it took.  What all sinks have taken is removed after a while.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eqcctpro.errors import OutboxError, OutboxFullError, SettingsError
from eqcctpro.live.messages import PickMessage
from eqcctpro.times import NS_PER_S

__all__ = ["Entry", "Held", "Outbox", "OutboxState", "Sends"]

Sends = Literal["first", "final", "all"]
"""What a sink is sent: the first version of each pick, final versions, or all."""

_FIRST, _FINAL, _ANY = 1, 2, 4
_KINDS: dict[str, int] = {"first": _FIRST, "final": _FINAL, "all": _ANY}

_FORMAT = 1
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kinds INTEGER NOT NULL, created_ns INTEGER NOT NULL,
    content TEXT NOT NULL);
CREATE TABLE picks (
    id TEXT PRIMARY KEY, version INTEGER NOT NULL, final INTEGER NOT NULL,
    number INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX picks_by_number ON picks (number);
CREATE TABLE sinks (
    name TEXT PRIMARY KEY, kinds INTEGER NOT NULL, number INTEGER NOT NULL,
    skipped INTEGER NOT NULL DEFAULT 0, note TEXT NOT NULL DEFAULT '',
    active INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID
"""
#: What SQLite says of a file that is damaged, or no database at all.
_DAMAGE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT})
#: Picks whose last version is remembered, so that none is taken twice.
_REMEMBERED = 300_000
#: Messages that are removed at a time where there is no room, as a share of all.
_SHARE = 0.1
#: Share of the limit from which nothing stays that all sinks have, and that of messages which wait
#: for a sink, from which the sink is named.
_CROWDED, _ALARM = 0.4, 0.5
_PRUNE_EVERY_S = 10.0


class Entry(NamedTuple):
    """A message in the outbox.

    Attributes
    ----------
    number : int
        Place in the outbox; numbers rise, with gaps.
    message : PickMessage
    """

    number: int
    message: PickMessage


class Held(NamedTuple):
    """Cursor of a sink.

    Attributes
    ----------
    number : int
        Of the last message that it took.
    skipped : int
        Messages that were removed before it took them, since the outbox was made.  Of those that
        were removed while a run had no such sink, each one counts, also of kinds that it is not
        sent.
    note : str
        What the sink has put there with its last `Outbox.advance`.
    """

    number: int
    skipped: int
    note: str


@dataclass(frozen=True, slots=True)
class OutboxState:
    """Size of the outbox.

    Attributes
    ----------
    last : int
        Number of the last message.
    messages : int
        Messages that it holds, including those that all sinks have.
    bytes : int
        Bytes in use of its file.
    limit_bytes : int
    held_back_by : str
        The sink that is furthest behind, once what it has not taken is half of the limit; else
        empty.
    skipped : dict of str to int
        Messages that were removed before a sink took them, by sink.
    """

    last: int
    messages: int
    bytes: int
    limit_bytes: int
    held_back_by: str
    skipped: dict[str, int]

    @property
    def alarm(self) -> str:
        """A sentence on what is wrong; empty if nothing is."""
        if not self.held_back_by:
            return ""
        lost = self.skipped.get(self.held_back_by, 0)
        return (
            f"the outbox uses {self.bytes / 1e6:.0f} of {self.limit_bytes / 1e6:.0f} MB; "
            f"the sink {self.held_back_by} holds it back"
            + (f", and {lost} messages were removed before it took them" if lost else "")
        )


class Outbox:
    """Messages on their way to sinks, and the checkpoint of the picker.

    One process writes to it.  All methods may be called by any thread.

    Parameters
    ----------
    path : path
        The file, such as ``OUT/state.sqlite``; made if it is not there.
    limit_bytes : int
        When what a sink has not taken is half of it, `state` names the sink.  At the limit, the
        oldest messages are removed although a sink has not taken them, and counted for it.
    keep_s : float
        Age until which messages stay that all sinks have taken, for readers such as a page.

    Attributes
    ----------
    identity : str
        Random text, the same as long as the file exists: numbers of messages count within it.

    Raises
    ------
    OutboxError
        The file cannot be made or read, or is damaged.
    """

    def __init__(
        self, path: str | Path, *, limit_bytes: int = 2_000_000_000, keep_s: float = 3600.0
    ) -> None:
        if limit_bytes < 1_000_000:
            raise SettingsError(
                f"limit of the outbox: {limit_bytes} bytes are too few",
                hint="give at least 1 MB",
            )
        self.path = Path(path)
        self.limit_bytes = limit_bytes
        self.keep_s = keep_s
        self.added = threading.Condition()
        self._pruned = time.monotonic()
        self._writing, self._reading = threading.Lock(), threading.Lock()
        with self._errors():
            self._picker = self._open("FULL")
            try:
                self._prepare()
                # Cursors need not reach the disk at once: what is sent twice is known by its id.
                self._cursors = self._open("NORMAL")
                self._reader = self._open("NORMAL")
            except BaseException:
                self._picker.close()
                raise
        self.identity = str(self._fact("identity"))
        self._last = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'messages'") or 0

    def _open(self, synchronous: str) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, timeout=30.0, check_same_thread=False)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA journal_size_limit = 16000000")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        return db

    def _prepare(self) -> None:
        wrong = self._picker.execute("PRAGMA quick_check(1)").fetchone()[0]
        if wrong != "ok":
            raise self._damaged(wrong)
        with self._transaction(self._picker) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute("INSERT INTO facts VALUES ('identity', ?)", (secrets.token_hex(8),))
                db.execute(f"PRAGMA user_version = {_FORMAT}")
            elif version != _FORMAT:
                raise OutboxError(
                    f"{self.path} is an outbox of format {version}, not {_FORMAT}",
                    hint="use the version of eqcctpro that made it, or another output folder",
                )

    # The picker.

    def commit(self, messages: Sequence[PickMessage], checkpoint: bytes | None = None) -> int:
        """Add messages and replace the checkpoint, both or neither.

        A version of a pick that is there already, or older than one that is, is left out.

        Parameters
        ----------
        messages : sequence of PickMessage
            In the order in which they are to be sent.
        checkpoint : bytes, optional
            What `checkpoint` returns from now on; without it, the one before stays.

        Returns
        -------
        int
            Number of messages that were new.

        Raises
        ------
        OutboxFullError
            The disk is full.  Nothing was committed; the same call may be made again later.
        OutboxError
            The file cannot be written, or is damaged.
        """
        with self._errors(), self._writing:
            self._make_room()
            with self._transaction(self._picker) as db:
                new = sum(_add(db, message) for message in messages)
                if checkpoint is not None:
                    db.execute(
                        "INSERT OR REPLACE INTO facts VALUES ('checkpoint', ?)", (checkpoint,)
                    )
            if new:
                (last,) = self._picker.execute("SELECT max(number) FROM messages").fetchone()
                with self.added:
                    self._last = last
                    self.added.notify_all()
        return new

    def checkpoint(self) -> bytes | None:
        """The checkpoint that was committed last; None if there is none."""
        found = self._fact("checkpoint")
        return None if found is None else bytes(found)

    # Sinks.

    @property
    def last(self) -> int:
        """Number of the last message; 0 before the first one."""
        return self._last

    def wait(self, after: int, timeout_s: float) -> bool:
        """Wait for a message behind a number; True if there is one."""
        with self.added:
            return self.added.wait_for(lambda: self._last > after, timeout_s)

    def read(self, after: int, limit: int, sends: Sends = "all") -> list[Entry]:
        """Messages behind a number, the oldest first.

        Parameters
        ----------
        after : int
            Number of the last message that is not wanted; 0 for all that are held.
        limit : int
            Largest number of messages.
        sends : {"first", "final", "all"}
            With ``final``, retractions of picks that had been final are returned, too.
        """
        rows = self._rows(
            "SELECT number, content FROM messages WHERE number > ? AND kinds & ? "
            "ORDER BY number LIMIT ?",
            (after, _KINDS[sends], limit),
        )
        return [Entry(number, PickMessage.from_json(content)) for number, content in rows]

    def follow(self, after: int, limit: int, sends: Sends = "all") -> tuple[list[Entry], int]:
        """Messages behind a number as from `read`, and the number to go on from.

        That is the number of the last message that was looked at, also if it was not one of those
        that are wanted.
        """
        last = self._last
        entries = self.read(after, limit, sends)
        if len(entries) == limit:
            return entries, entries[-1].number
        # Others may have been added between the two looks.
        return entries, max(after, last, *(entry.number for entry in entries[-1:]))

    def newest(self, limit: int) -> list[Entry]:
        """The last messages, in their order."""
        return self.read(max(self._last - limit, 0), limit)

    def open_cursors(self, sinks: Mapping[str, Sends]) -> dict[str, Held]:
        """Cursors of the sinks of this run, which alone hold messages back from now on.

        A sink that was there in an earlier run goes on where it stopped.  One that is new begins
        with the next message; the sinks of a new outbox begin with the first one.

        Parameters
        ----------
        sinks : mapping of str to {"first", "final", "all"}
            What each is sent, by name.
        """
        with self._errors(), self._writing, self._transaction(self._cursors) as db:
            (known,) = db.execute("SELECT count(*) FROM sinks").fetchone()
            db.execute("UPDATE sinks SET active = 0")
            db.executemany(
                "INSERT INTO sinks (name, kinds, number) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET active = 1, kinds = excluded.kinds",
                [
                    (name, _KINDS[sends], self._last if known else 0)
                    for name, sends in sinks.items()
                ],
            )
            # What was removed while there was no such sink.
            db.execute(
                "UPDATE sinks SET skipped = skipped + :first - 1 - number, number = :first - 1 "
                "WHERE active AND number < :first - 1",
                {"first": self._first(db)},
            )
        return {name: self.cursor(name) for name in sinks}

    def cursor(self, name: str) -> Held:
        """Cursor of a sink."""
        rows = self._rows("SELECT number, skipped, note FROM sinks WHERE name = ?", (name,))
        if not rows:
            raise OutboxError(f"{self.path} has no sink {name!r}", hint="open its cursor first")
        return Held(*rows[0])

    def advance(self, name: str, number: int, note: str | None = None) -> None:
        """Move the cursor of a sink to a message that it has taken; never back.

        Parameters
        ----------
        name : str
        number : int
        note : str, optional
            Text that is kept with the cursor; without it, the one before stays.
        """
        with self._errors(), self._writing, self._transaction(self._cursors) as db:
            db.execute(
                "UPDATE sinks SET number = max(number, ?), note = ifnull(?, note) WHERE name = ?",
                (number, note, name),
            )

    def oldest_ns(self, after: int, sends: Sends) -> int | None:
        """When the first message behind a cursor was made; None if none waits."""
        if after >= self._last:
            return None
        created_ns: int | None = self._one(
            "SELECT created_ns FROM messages WHERE number > ? AND kinds & ? "
            "ORDER BY number LIMIT 1",
            (after, _KINDS[sends]),
        )
        return created_ns

    # Size.

    def state(self) -> OutboxState:
        """Size of the outbox, and which sink holds it back."""
        sinks = self._rows("SELECT name, number, skipped FROM sinks WHERE active ORDER BY number")
        with self._errors(), self._reading:
            size, first = _used(self._reader), self._first(self._reader)
        messages = max(self._last + 1 - first, 0)
        # Messages that a sink has not taken, and their part of the file.
        waiting = self._last - sinks[0][1] if sinks else 0
        held = size * min(waiting / messages, 1.0) if messages else 0.0
        return OutboxState(
            last=self._last,
            messages=messages,
            bytes=size,
            limit_bytes=self.limit_bytes,
            held_back_by=sinks[0][0] if held > self.limit_bytes * _ALARM else "",
            skipped={name: skipped for name, _, skipped in sinks if skipped},
        )

    def _make_room(self) -> None:
        """Remove what all sinks have taken and is old; where there is no room, the oldest."""
        used = _used(self._picker)
        is_crowded = used >= self.limit_bytes * _CROWDED
        now = time.monotonic()
        if not is_crowded and now - self._pruned < _PRUNE_EVERY_S:
            return
        self._pruned = now
        first_kept = self._first_kept(is_crowded)
        if first_kept > self._first(self._picker):
            with self._transaction(self._picker) as db:
                db.execute("DELETE FROM messages WHERE number < ?", (first_kept,))
                # As many stay as take a tenth of the room: a picker may find its last ones again.
                remembered = min(_REMEMBERED, self.limit_bytes // 2000)
                db.execute("DELETE FROM picks WHERE number < ?", (self._last - remembered,))
        while _used(self._picker) >= self.limit_bytes and self._first(self._picker) <= self._last:
            self._skip_oldest()
        # Each step gives one page back.
        self._picker.execute("PRAGMA incremental_vacuum").fetchall()

    def _first_kept(self, is_crowded: bool) -> int:
        """Number of the first message that stays: it is young, or a sink has not taken it."""
        db = self._picker
        (taken,) = db.execute("SELECT min(number) FROM sinks WHERE active").fetchone()
        first: int = (self._last if taken is None else taken) + 1
        if is_crowded:
            return first
        oldest_ns = time.time_ns() - int(self.keep_s * NS_PER_S)
        # In their order, for an index of times would cost more than it saves.
        young = db.execute(
            "SELECT number FROM messages WHERE created_ns >= ? ORDER BY number LIMIT 1",
            (oldest_ns,),
        ).fetchone()
        return first if young is None else min(first, young[0])

    def _skip_oldest(self) -> None:
        """Remove the oldest messages although sinks have not taken them."""
        with self._transaction(self._picker) as db:
            first = self._first(db)
            first_kept = first + max(int((self._last + 1 - first) * _SHARE), 1)
            db.execute(
                "UPDATE sinks SET number = :first - 1, skipped = skipped + (SELECT count(*) "
                "FROM messages WHERE messages.number > sinks.number AND messages.number < :first "
                "AND messages.kinds & sinks.kinds) WHERE active AND number < :first - 1",
                {"first": first_kept},
            )
            db.execute("DELETE FROM messages WHERE number < ?", (first_kept,))

    def _first(self, db: sqlite3.Connection) -> int:
        """Number of the first message that is held, or that would be."""
        (first,) = db.execute("SELECT min(number) FROM messages").fetchone()
        return self._last + 1 if first is None else int(first)

    # SQLite.

    @contextmanager
    def _transaction(self, db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.rollback()
            raise

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with self._errors(), self._reading:
            return self._reader.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[object] = ()) -> Any:
        rows = self._rows(query, values)
        return rows[0][0] if rows else None

    def _fact(self, name: str) -> Any:
        return self._one("SELECT value FROM facts WHERE name = ?", (name,))

    def _damaged(self, reason: object) -> OutboxError:
        return OutboxError(
            f"the outbox {self.path} is damaged: {reason}",
            hint="move it and the files beside it whose names begin alike to another folder, and "
            "begin again with --backfill; what sinks have taken is not touched",
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGE:
                raise self._damaged(error) from error
            if code == sqlite3.SQLITE_FULL:
                raise OutboxFullError(
                    f"no space is left for the outbox {self.path}: {error}",
                    hint="make room on the disk; picks wait until there is some",
                ) from error
            raise OutboxError(
                f"the outbox {self.path} cannot be used: {error}",
                hint="check the folder's permissions and the space on the disk, and that no other "
                "run writes to it",
            ) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._writing, self._reading:
            for db in (self._reader, self._cursors, self._picker):
                db.close()


def _add(db: sqlite3.Connection, message: PickMessage) -> bool:
    """Add a message unless this version or a later one is there."""
    known = db.execute("SELECT version, final FROM picks WHERE id = ?", (message.id,)).fetchone()
    if known is not None and message.version <= known[0]:
        return False
    was_final = known is not None and bool(known[1])
    is_final = message.status == "final"
    kinds = _ANY | (_FIRST if known is None else 0)
    kinds |= _FINAL if is_final or (was_final and message.status == "retracted") else 0
    number = db.execute(
        "INSERT INTO messages (kinds, created_ns, content) VALUES (?, ?, ?)",
        (kinds, message.created_ns, message.as_json()),
    ).lastrowid
    db.execute(
        "INSERT OR REPLACE INTO picks VALUES (?, ?, ?, ?)",
        (message.id, message.version, was_final or is_final, number),
    )
    return True


def _used(db: sqlite3.Connection) -> int:
    """Bytes in use of a database."""
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
