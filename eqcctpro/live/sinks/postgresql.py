"""PostgreSQL: a table with the last version of each pick."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from eqcctpro.errors import SettingsError
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.outbox import Entry
from eqcctpro.live.sinks.base import RejectedError, Sink
from eqcctpro.times import moment_of

__all__ = ["PostgresqlSink"]

_TEXTS = ("network", "station", "location", "channel", "phase")
_TIMES = ("time", "start_time", "end_time", "created", "data_end", "received")
_KINDS = {
    "id": "text PRIMARY KEY",
    "version": "integer NOT NULL",
    "status": "text NOT NULL",
    **dict.fromkeys(_TEXTS, "text NOT NULL"),
    **dict.fromkeys(_TIMES, "timestamptz NOT NULL"),
    "probability": "double precision NOT NULL",
    **dict.fromkeys(("model", "weights", "components"), "text NOT NULL"),
    "late": "boolean NOT NULL",
    "snr": "double precision",
    "mb": "double precision",
}


class PostgresqlSink(Sink):
    """Rows of a table, which is made if it is not there; a later version replaces an earlier one.

    It may be written to by several runs.
    """

    schemes: ClassVar[tuple[str, ...]] = ("postgresql", "postgres")
    options: ClassVar[tuple[str, ...]] = ("table", "timeout", "sslmode")
    extra: ClassVar[str] = "postgresql"
    library: ClassVar[str] = "psycopg"

    def check(self) -> None:
        """Check database, table and options."""
        self._database = self.target.require(
            "database, as in postgresql://HOST/DATABASE", self.target.path
        )
        name = self.target.options.get("table", "picks")
        if not re.fullmatch(r"[^.\0]{1,63}(\.[^.\0]{1,63})?", name):
            raise SettingsError(f"sink {self.target.name}: table={name} is TABLE or SCHEMA.TABLE")
        self._table = name.split(".")
        self._timeout_s = self.target.number("timeout", 10, 1, 3600)
        self._connection: Any = None

    def open(self) -> None:
        """Connect, and make the table if there is none."""
        import psycopg
        from psycopg import sql

        self._connection = psycopg.connect(
            host=self.target.host or None,
            port=self.target.port,
            user=self.target.user or None,
            password=self.target.password or None,
            dbname=self._database,
            connect_timeout=int(self._timeout_s),
            application_name="eqcctpro live",
            autocommit=True,
            options=f"-c statement_timeout={int(self._timeout_s * 1000)}",
            # A server that vanished without a word is noticed.
            tcp_user_timeout=int(self._timeout_s * 1000),
            sslmode=self.target.options.get("sslmode", "prefer"),
        )
        table = sql.Identifier(*self._table)
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
            for name, kind in _KINDS.items()
        )
        if not self._connection.execute(
            "SELECT to_regclass(%s)", (table.as_string(self._connection),)
        ).fetchone()[0]:
            made = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(table, columns)
            index = sql.SQL("CREATE INDEX ON {} (time)").format(table)
            with self._connection.transaction():
                self._connection.execute(made)
                self._connection.execute(index)
        names = [sql.Identifier(name) for name in _KINDS]
        self._upsert = sql.SQL(
            "INSERT INTO {table} AS had ({names}) VALUES ({values}) ON CONFLICT (id) DO UPDATE "
            "SET {changes} WHERE had.version < excluded.version"
        ).format(
            table=table,
            names=sql.SQL(", ").join(names),
            values=sql.SQL(", ").join(sql.Placeholder() * len(names)),
            changes=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(name) for name in names[1:]
            ),
        )

    def send(self, entries: Sequence[Entry]) -> None:
        """Insert or replace rows, all or none."""
        import psycopg

        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(self._upsert, [_row(entry.message) for entry in entries])
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise RejectedError(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()


def _row(one: PickMessage) -> tuple[object, ...]:
    times = (
        *(one.time_ns, one.start_ns, one.end_ns),
        *(one.created_ns, one.data_end_ns, one.received_ns),
    )
    return (
        *(one.id, one.version, one.status),
        *(getattr(one, name) for name in _TEXTS),
        *(moment_of((time_ns + 500) // 1000) for time_ns in times),
        *(one.probability, one.model, one.weights, one.components, one.late, one.snr, one.mb),
    )
