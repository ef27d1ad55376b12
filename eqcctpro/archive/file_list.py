"""File lists: CSV or Parquet tables of the files of an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eqcctpro.archive.files import ArchiveFile
from eqcctpro.archive.selection import Wanted
from eqcctpro.errors import EQCCTProError, InputError, SettingsError
from eqcctpro.miniseed.index import ChannelExtent
from eqcctpro.places import is_address
from eqcctpro.times import parse_utc

__all__ = ["LIST_SUFFIXES", "read_file_list"]

LIST_SUFFIXES = frozenset({".csv", ".parquet"})

# Accepted names of the columns, ours first.
_COLUMNS = {
    "path": ("path", "file", "file_name", "filename", "url", "address", "trace_path"),
    "network": ("network", "network_code", "net"),
    "station": ("station", "station_code", "sta"),
    "location": ("location", "location_code", "loc"),
    "channel": ("channel", "channel_code", "cha"),
    "start": ("start", "start_time", "starttime"),
    "end": ("end", "end_time", "endtime"),
    "size": ("size", "n_bytes", "bytes"),
}
_CODE = ("network", "station", "location", "channel")

Row = dict[str, Any]


def read_file_list(path: Path, wanted: Wanted) -> list[ArchiveFile]:
    """Read the files in a CSV or Parquet table that match the selection.

    Parameters
    ----------
    path : Path
        Table with a column ``path``, with paths relative to the table's folder, or addresses.
        Columns network, station, start and end select files without opening them.  Files at
        addresses are not opened if they have all of network, station, location, channel, start,
        end and size.
    wanted : Wanted

    Raises
    ------
    InputError
        The table cannot be read, or has no such column.
    """
    files = []
    for number, row in enumerate(_rows(path), 1):
        if not row["path"]:
            raise InputError(f"{path}: row {number} names no file", hint="fill it, or remove it")
        try:
            file = _archive_file(path.parent, row, wanted)
        except (EQCCTProError, ValueError, TypeError) as error:
            raise InputError(f"{path}: row {number}: {error}") from error
        if file is not None:
            files.append(file)
    return files


def _archive_file(folder: Path, row: Row, wanted: Wanted) -> ArchiveFile | None:
    network, station = (str(row.get(name) or "") for name in ("network", "station"))
    if station and not wanted.station(network, station):
        return None
    start, end = _time(row.get("start"), "start"), _time(row.get("end"), "end")
    if start is not None and end is not None and not wanted.span(start, end + 1):
        return None
    name = str(row["path"])
    if not is_address(name):
        return ArchiveFile(str(folder / name), "", "", expected=True)
    size = int(row.get("size") or 0)
    channels = None
    if start is not None and end is not None and size and all(name in row for name in _CODE):
        code = tuple(str(row[name] or "").replace("--", "") for name in _CODE)
        channels = (ChannelExtent(code, start, end),)  # type: ignore[arg-type]
    return ArchiveFile(name, "", "", expected=True, size=size or -1, channels=channels)


def _time(value: Any, name: str) -> int | None:
    if value is None or value == "":
        return None
    return parse_utc(value, name)


def _rows(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix.lower() == ".parquet":
            table = pa.parquet.read_table(path)
        else:
            names = path.open(encoding="utf-8").readline().strip().split(",")
            # A location 00 is text.
            kinds = dict.fromkeys((name.strip().strip('"') for name in names), pa.string())
            table = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=kinds))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"file list {path} cannot be read: {error}", hint="it must be CSV or Parquet"
        ) from error
    given = {name.lower(): name for name in table.column_names}
    chosen = {
        ours: given[name]
        for ours, names in _COLUMNS.items()
        for name in reversed(names)
        if name in given
    }
    if "path" not in chosen:
        raise InputError(
            f"file list {path} has no column path, but {', '.join(table.column_names[:10])}",
            hint="a column named path holds the files",
        )
    rows: list[Row] = table.select(list(chosen.values())).rename_columns(list(chosen)).to_pylist()
    return rows


def check_lists(paths: list[Path]) -> None:
    """Raise an error for inputs that are not tables.

    Raises
    ------
    SettingsError
    """
    for path in paths:
        if path.suffix.lower() not in LIST_SUFFIXES:
            raise SettingsError(
                f"input {path} is no file list", hint="the layout list takes .csv or .parquet"
            )
