"""Pick and detection tables as what the user's other packages work with."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from eqcctpro.picks.formats import ExportOptions, write_picks

if TYPE_CHECKING:
    import pandas as pd
    from obspy import Catalog, UTCDateTime
    from seisbench.util import DetectionList, PickList

__all__ = ["PickTables", "as_catalog", "as_detectionlist", "as_picklist"]


# Rows of a table, and lines of a list, that a notebook shows.
_MOST_SHOWN = 10


class PickTables:
    """Picks and detections, as tables and as objects of pandas, SeisBench and ObsPy."""

    @property
    def table(self) -> pa.Table:
        """The pick table."""
        raise NotImplementedError

    @property
    def detections(self) -> pa.Table | None:
        """The detection table, of models that yield detections."""
        raise NotImplementedError

    @property
    def picks(self) -> pd.DataFrame:
        """The pick table as a pandas data frame."""
        return self.table.to_pandas()

    def _repr_html_(self) -> str:
        """What a notebook shows: counts, problems, and the first picks."""
        counts: dict[str, int] = getattr(self, "counts", {"picks": len(self.table)})
        problems: list[str] = getattr(self, "problems", [])
        head = ", ".join(f"<b>{n}</b> {name.replace('_', ' ')}" for name, n in counts.items())
        listed = "".join(f"<li>{escape(line)}</li>" for line in problems[:_MOST_SHOWN])
        if more := len(problems) - _MOST_SHOWN:
            listed += f"<li>and {more} more in <code>problems</code></li>" if more > 0 else ""
        notes = f"<ul>{listed}</ul>" if listed else ""
        return f"<p>{head}</p>{notes}{_html_table(self.table)}"

    def to_picklist(self) -> PickList:
        """The picks as SeisBench's ``classify`` returns them."""
        return as_picklist(self.table)

    def to_detectionlist(self) -> DetectionList:
        """The detections as SeisBench's ``classify`` returns them; empty where there are none."""
        return as_detectionlist(self.detections)

    def to_catalog(self, *, agency: str = "") -> Catalog:
        """The picks as an ObsPy catalogue: one event without an origin holds them all.

        Parameters
        ----------
        agency : str
            Agency that made the picks.
        """
        return as_catalog(self.table, agency=agency)


def _html_table(table: pa.Table) -> str:
    """The first rows of a pick table."""
    if not len(table):
        return ""
    titles = ("station", "phase", "time (UTC)", "probability")
    lines = []
    for row in table.slice(0, _MOST_SHOWN).to_pylist():
        codes = ".".join(row[name] or "" for name in ("network", "station", "location", "channel"))
        probability = row["probability"]
        cells = (
            codes,
            row["phase"] or "",
            row["time"].strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
            "" if probability is None else f"{probability:.2f}",
        )
        lines.append("".join(f"<td>{escape(cell)}</td>" for cell in cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    head = "".join(f"<th>{title}</th>" for title in titles)
    more = len(table) - len(lines)
    rest = f"<p>and {more} more in <code>picks</code></p>" if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


class _Row(NamedTuple):
    trace_id: str
    time: UTCDateTime
    start: UTCDateTime
    end: UTCDateTime
    probability: float
    phase: str


def as_picklist(table: pa.Table) -> PickList:
    """Rows of `eqcctpro.picks.table.PICK_SCHEMA` as a ``seisbench.util.PickList``.

    The trace is named ``NET.STA.LOC`` as in SeisBench.  Of tables that are read from other
    programs' files a pick may have no start and end; both are then its time.
    """
    from seisbench.util import Pick, PickList

    return PickList(
        Pick(
            row.trace_id,
            start_time=row.start,
            end_time=row.end,
            peak_time=row.time,
            peak_value=row.probability,
            phase=row.phase,
        )
        for row in _rows(table)
    )


def as_detectionlist(table: pa.Table | None) -> DetectionList:
    """Rows of `eqcctpro.picks.table.DETECTION_SCHEMA` as a ``seisbench.util.DetectionList``."""
    from seisbench.util import Detection, DetectionList

    rows = () if table is None else _rows(table)
    return DetectionList(
        Detection(row.trace_id, row.start, row.end, peak_value=row.probability) for row in rows
    )


def _rows(table: pa.Table) -> Iterator[_Row]:
    from obspy import UTCDateTime

    def texts(name: str) -> list[str]:
        if name not in table.column_names:
            return [""] * len(table)
        return [value or "" for value in table[name].to_pylist()]

    def moments(name: str) -> list[UTCDateTime]:
        column = table[name].combine_chunks().cast(pa.int64())
        column = column.fill_null(0) if name == "time" else column
        times = table["time"].combine_chunks().cast(pa.int64())
        values: Any = np.where(column.is_null(), times, column.fill_null(0))
        return [UTCDateTime(ns=int(value) * 1000) for value in values]

    codes = zip(*map(texts, ("network", "station", "location")), strict=True)
    yield from map(
        _Row._make,
        zip(
            map(".".join, codes),
            *map(moments, ("time", "start_time", "end_time")),
            table["probability"].to_pylist(),
            texts("phase"),
            strict=True,
        ),
    )


def as_catalog(table: pa.Table, *, agency: str = "") -> Catalog:
    """Rows of `eqcctpro.picks.table.PICK_SCHEMA` as an ``obspy.Catalog`` of one event.

    The picks have the identifiers that they have in the QuakeML of ``eqcctpro convert``.

    Parameters
    ----------
    table : pyarrow.Table
    agency : str
        Agency that made the picks.
    """
    import obspy

    with TemporaryDirectory(prefix="eqcctpro-") as folder:
        path = Path(folder) / "picks.quakeml"
        write_picks(table, path, "quakeml", ExportOptions(agency=agency))
        return obspy.read_events(str(path), format="QUAKEML")
