"""Pick tables to files, written whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from eqcctpro.errors import OutputError

__all__ = ["atomic_file", "check_writable", "csv_lines", "write_csv", "write_parquet"]

# Rows that are turned into text at a time, so that memory stays flat.
CSV_ROWS = 65_536


@contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file under a temporary name that takes its own only when it is complete.

    Parameters
    ----------
    path : Path
    sync : bool
        Wait until the content is on the disk, so that it survives a power cut.

    Raises
    ------
    OutputError
        The folder or file cannot be written.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # noqa: PTH101 (mkstemp made it private)
        os.replace(temporary, path)  # noqa: PTH105
        temporary = None
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            hint="check the folder's permissions and the space on the disk",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Create a folder, and make sure that files can be written to it.

    Raises
    ------
    OutputError
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"output folder {folder} cannot be written: {error.strerror or error}",
            hint="choose another folder, or change its permissions",
        ) from error


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a pick or detection table as CSV.

    Times are ISO-8601 in UTC with microseconds; probabilities have six decimals.
    """
    quoted = _needs_quotes(table)
    with atomic_file(path) as file:
        file.write((",".join(table.column_names) + "\n").encode())
        for start in range(0, table.num_rows, CSV_ROWS):
            file.write(_csv_lines(table.slice(start, CSV_ROWS), quoted))


def csv_lines(table: pa.Table) -> bytes:
    """Lines of CSV without a header, as `write_csv` writes them."""
    return _csv_lines(table, _needs_quotes(table))


def _csv_lines(table: pa.Table, quoted: bool) -> bytes:
    # Arrow quotes every text or none; codes need quotes only where a record's header is odd.
    options = pyarrow.csv.WriteOptions(
        include_header=False, quoting_style="needed" if quoted else "none"
    )
    lines = io.BytesIO()
    pyarrow.csv.write_csv(_as_text(table), lines, write_options=options)
    return lines.getvalue()


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a pick or detection table as Parquet, compressed with Zstandard."""
    with atomic_file(path) as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")


def _needs_quotes(table: pa.Table) -> bool:
    texts = (column for column in table.columns if pa.types.is_string(column.type))
    values = {str(value) for column in texts for value in column.unique().to_pylist()}
    return any(character in value for value in values for character in ',"\r\n')


def _as_text(table: pa.Table) -> pa.Table:
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        convert = _text_of(table.schema.field(name).type)
        columns.append(_or_empty(convert(column.to_numpy()), column) if convert else column)
    return pa.table(columns, names=table.column_names)


def _or_empty(text: pa.Array, column: pa.ChunkedArray) -> pa.Array:
    """Nothing where nothing is known, such as the trigger times of a catalogue's picks."""
    if not column.null_count:
        return text
    return pc.if_else(pc.is_valid(column).combine_chunks(), text, pa.scalar(""))


def _text_of(kind: pa.DataType) -> Callable[[np.ndarray], pa.Array] | None:
    if pa.types.is_timestamp(kind):
        return lambda values: pa.array(
            np.char.add(np.datetime_as_string(values.astype("M8[us]"), unit="us"), "Z")
        )
    if pa.types.is_floating(kind):
        return lambda values: pa.array(np.char.mod("%.6f", values))
    return None
