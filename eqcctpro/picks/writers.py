"""Pick tables to files, written whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from eqcctpro.codes import without_formula
from eqcctpro.errors import OutputError
from eqcctpro.picks.arrow import first_letters, numbers_of, text_column, texts_in, texts_of_width
from eqcctpro.picks.table import PickRows
from eqcctpro.places import make_writable

__all__ = [
    "atomic_file",
    "check_writable",
    "csv_lines",
    "needs_quotes",
    "write_csv",
    "write_csv_parts",
    "write_parquet",
    "write_parquet_parts",
]

# Rows that are written at a time, so that memory stays flat: few are needed to write text as
# fast, and Parquet compresses more at once better.
CSV_ROWS = 4_096
PARQUET_ROWS = 8_192

_FORMULA_LETTERS = np.frombuffer(b"=+-@\t\r", dtype=np.uint8)


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
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not by `tempfile`, whose files are private: the permissions are the user's usual ones.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with temporary.open("xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            hint="check the folder's permissions and the space on the disk",
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # of a folder that may not be written any more
                temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Create a folder, and make sure that files can be written to it.

    Raises
    ------
    OutputError
    """
    try:
        make_writable(folder)
    except OSError as error:
        raise OutputError(
            f"output folder {folder} cannot be written: {error.strerror or error}",
            hint="choose another folder, or change its permissions",
        ) from error


def write_csv(table: pa.Table | PickRows, path: Path) -> None:
    """Write a pick or detection table as CSV.

    Times are ISO-8601 in UTC with microseconds; probabilities have six decimals.
    """
    write_csv_parts(_parts(table, CSV_ROWS), table.schema, path, quoted=needs_quotes(table))


def write_csv_parts(
    parts: Iterable[pa.Table], schema: pa.Schema, path: Path, *, quoted: bool
) -> None:
    """Write a table that comes in parts, as `write_csv` does; `quoted` as `needs_quotes` says."""
    with atomic_file(path) as file:
        file.write((",".join(schema.names) + "\n").encode())
        for part in parts:
            for rows in _parts(part, CSV_ROWS):
                file.write(_csv_lines(rows, quoted))


def csv_lines(table: pa.Table) -> bytes:
    """Lines of CSV without a header, as `write_csv` writes them."""
    return _csv_lines(table, needs_quotes(table))


def _csv_lines(table: pa.Table, quoted: bool) -> bytes:
    # Arrow quotes every text or none; codes need quotes only where a record's header is odd.
    options = pyarrow.csv.WriteOptions(
        include_header=False, quoting_style="needed" if quoted else "none"
    )
    lines = io.BytesIO()
    pyarrow.csv.write_csv(_as_text(table), lines, write_options=options)
    return lines.getvalue()


def write_parquet(table: pa.Table | PickRows, path: Path) -> None:
    """Write a pick or detection table as Parquet, compressed with Zstandard."""
    write_parquet_parts(_parts(table, PARQUET_ROWS), table.schema, path)


def write_parquet_parts(parts: Iterable[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write a table that comes in parts, as `write_parquet` does."""
    # Numbers hardly repeat: a dictionary of them takes longer to write, and more room.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with (
        atomic_file(path) as file,
        pyarrow.parquet.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=texts
        ) as writer,
    ):
        for part in parts:
            writer.write_table(part)


def _parts(table: pa.Table | PickRows, rows: int) -> Iterable[pa.Table]:
    if isinstance(table, PickRows):
        return table.parts(rows)
    return (table.slice(at, rows) for at in range(0, table.num_rows, rows))


def needs_quotes(table: pa.Table | PickRows) -> bool:
    """True if some text of a table holds what means something in CSV."""
    if isinstance(table, PickRows):
        return any(character in texts for texts in table.texts for character in ',"\r\n')
    texts = (texts_in(column) for column in table.columns if pa.types.is_string(column.type))
    return any(character in text for text in texts for character in (b",", b'"', b"\r", b"\n"))


def _as_text(table: pa.Table) -> pa.Table:
    columns = []
    for column in table.columns:
        texts = None
        if pa.types.is_timestamp(column.type):
            texts = _iso_times(numbers_of(column, f"M8[{column.type.unit}]"))
        elif pa.types.is_float32(column.type):
            texts = text_column([f"{value:.6f}" for value in numbers_of(column, "f4").tolist()])
        elif pa.types.is_string(column.type):
            columns.append(_without_formulas(column))
            continue
        columns.append(column if texts is None else _or_empty(texts, column))
    return pa.table(columns, names=table.column_names)


def _without_formulas(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column of texts of which a spreadsheet takes none for a formula."""
    if not np.isin(first_letters(column), _FORMULA_LETTERS).any():
        return column
    return pa.array(
        [None if text is None else without_formula(text) for text in column.to_pylist()],
        pa.string(),
    )


def _or_empty(text: pa.Array, column: pa.ChunkedArray) -> pa.Array:
    """Nothing where nothing is known, such as the trigger times of a catalogue's picks."""
    if not column.null_count:
        return text
    import pyarrow.compute as pc

    return pc.if_else(pc.is_valid(column).combine_chunks(), text, pa.scalar(""))


def _iso_times(times: NDArray[np.datetime64]) -> pa.Array:
    texts = np.datetime_as_string(times.astype("M8[us]"), unit="us")
    if np.isnat(times).any():
        return text_column([f"{text}Z" for text in texts.tolist()])
    return texts_of_width(np.char.add(texts.astype("S26"), b"Z"))
