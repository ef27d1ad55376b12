"""Folder of Parquet files, one for each day (UTC) with picks, which readers take for one table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from eqcctpro.picks.table import PickRows
from eqcctpro.picks.writers import write_parquet

__all__ = ["DAY_US", "DayTables", "StoredRows", "remove_table"]

DAY_US = 86_400 * 10**6
_EPOCH = date(1970, 1, 1)
# Days behind which Python knows no year.
_LAST_DAY = (date.max - _EPOCH).days
_FIRST_DAY = (date.min - _EPOCH).days


@dataclass(frozen=True)
class DayTables:
    """Pick or detection table as a folder of files, such as ``picks.parquet/2024-12-15.parquet``.

    In the order of their names the files are in the order of time.

    Attributes
    ----------
    folder : Path
    schema : pyarrow.Schema
    """

    folder: Path
    schema: pa.Schema

    def write(self, rows: PickRows, *, from_us: int | None, number: int) -> None:
        """Write the days of a table, each to its own file, which replaces an earlier one.

        Parameters
        ----------
        rows : PickRows
            Sorted by time.
        from_us : int or None
            First time, in microseconds since 1970, that no earlier call has written.  Days before
            it are written to further files.
        number : int
            Number of the partition, for the names of these.
        """
        times = rows.times_us
        days = times // DAY_US
        edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(times)]
        for first, end in pairwise(edges):
            if first == end:
                continue
            day = int(days[first])
            late = from_us is not None and day < from_us // DAY_US
            name = f"{day_name(day)}.{number:06d}" if late else day_name(day)
            write_parquet(rows.rows(slice(first, end)), self.folder / f"{name}.parquet")

    def clear(self, from_us: int | None, end_us: int | None) -> None:
        """Remove the files of the days in a half-open span of time, in microseconds."""
        first = "" if from_us is None else day_name(from_us // DAY_US)
        end = "~" if end_us is None else day_name(end_us // DAY_US)
        for path in self.files():
            if first <= path.name < end:
                path.unlink()

    def files(self) -> list[Path]:
        """Files in the order of time."""
        return sorted(self.folder.glob("*.parquet")) if self.folder.is_dir() else []

    def parts(self, days: tuple[int, int] | None = None) -> Iterator[pa.Table]:
        """The table in parts: of each file, or of those of a half-open range of days since 1970."""
        for path in self.files():
            if days is None or day_name(days[0]) <= path.name[:10] < day_name(days[1]):
                with pyarrow.parquet.ParquetFile(path) as source:
                    yield source.read()

    def read(self, days: tuple[int, int] | None = None) -> pa.Table:
        """The table, or that of a half-open range of days since 1970."""
        return pa.concat_tables([self.schema.empty_table(), *self.parts(days)])


@dataclass
class StoredRows:
    """Table of a finished run in partitions, which is read when it is asked for.

    Attributes
    ----------
    days : DayTables
    count : int
    phases : dict of str to int
    """

    days: DayTables
    count: int
    phases: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    @property
    def table(self) -> pa.Table:
        """All rows."""
        return self.days.read()


def day_name(day: int) -> str:
    """Date of a day since 1970, as the files are called."""
    return (_EPOCH + timedelta(days=min(max(day, _FIRST_DAY), _LAST_DAY))).isoformat()


def remove_table(path: Path) -> None:
    """Remove a table, be it a file or a folder of files; what else is in the folder stays.

    Raises
    ------
    OSError
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for file in path.glob("*.parquet"):
        file.unlink()
    if not any(path.iterdir()):
        path.rmdir()
