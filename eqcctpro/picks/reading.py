"""Pick files of any origin as our pick table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from eqcctpro.codes import code_of_text
from eqcctpro.errors import InputError
from eqcctpro.picks.columns import picks_of_text
from eqcctpro.picks.table import MEASURED_SCHEMA, PICK_SCHEMA
from eqcctpro.picks.xml_reading import xml_picks

__all__ = ["find_picks", "read_pick_batches", "read_picks"]

_XML = {".xml", ".quakeml", ".qml", ".scml"}


def find_picks(path: str | Path) -> list[Path]:
    """The files that hold the picks: `path`, or what is in a run's output folder.

    That is its Parquet or CSV file, the newer one, or all Parquet files of a live run or of one in
    partitions, or else all of EQCCTPro's result files.

    Raises
    ------
    InputError
        There is none.
    """
    found = Path(path)
    if found.is_dir():
        if found.suffix == ".parquet":
            return _days(found)
        inside = [found / "picks.parquet", found / "picks.csv"]
        inside = [file for file in inside if file.exists()]
        if inside:
            # A run that wrote only one of them may have left an older other one behind.
            newer = max(inside, key=lambda file: file.stat().st_mtime_ns)
            return _days(newer) if newer.is_dir() else [newer]
        files = sorted(found.rglob("X_prediction_results.csv"))
        if not files:
            raise InputError(
                f"{found} holds neither picks.parquet, picks.csv nor EQCCTPro's results",
                hint="name the output folder of a run, or a file of picks",
            )
        return files
    if not found.is_file():
        raise InputError(f"{found} is not there", hint="name a file of picks or a run's folder")
    return [found]


def _days(folder: Path) -> list[Path]:
    """Files of a table that is a folder of them, as of a live run, or of one in partitions."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def read_picks(path: str | Path) -> pa.Table:
    """All picks of a file or of a run's output folder, of any origin, with the same columns.

    Codes are text and stay as they are: a location ``00`` is not the number 0, and a network
    ``NA`` not a missing value.  What no code holds is written as in `eqcctpro.codes`, such as
    ``~0A`` for a line feed.  Times are UTC, to the microsecond.

    Parameters
    ----------
    path : path
        As in `read_pick_batches`.

    Returns
    -------
    pyarrow.Table
        Of `eqcctpro.picks.table.PICK_SCHEMA`; ``to_pandas()`` gives a data frame.

    Raises
    ------
    InputError
        The file is missing, unreadable, or holds no table of picks.

    Examples
    --------
    >>> picks = read_picks("OUT").to_pandas()  # doctest: +SKIP
    """
    return pa.Table.from_batches(read_pick_batches(path), schema=PICK_SCHEMA)


def read_pick_batches(path: str | Path, *, amplitudes: bool = False) -> Iterator[pa.RecordBatch]:
    """Picks piece by piece, as record batches of `eqcctpro.picks.table.PICK_SCHEMA`.

    Parameters
    ----------
    path : path
        Output folder of a run, or a file: Parquet; QuakeML or SCML (``.xml``, ``.quakeml``,
        ``.scml``); otherwise a table with commas, with our columns, or those of SeisBench, PyOcto,
        GaMMA, PhaseNet, QuakeFlow or EQCCTPro.
    amplitudes : bool
        Batches of `eqcctpro.picks.table.MEASURED_SCHEMA`, null where the file has no amplitudes.

    Raises
    ------
    InputError
        The file is missing, unreadable, or holds no table of picks.
    """
    for file in find_picks(path):
        for batch in _batches(file, MEASURED_SCHEMA if amplitudes else PICK_SCHEMA):
            yield _with_codes(batch)


def _with_codes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose codes are written by the rule of `eqcctpro.codes`."""
    for name in ("network", "station", "location", "channel"):
        column = batch.column(name).dictionary_encode()
        given = column.dictionary.to_pylist()
        codes = list(map(code_of_text, given))
        if codes != given:
            texts = pa.array(codes, pa.string()).take(column.indices)
            batch = batch.set_column(batch.schema.get_field_index(name), name, texts)
    return batch


def _batches(file: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    try:
        if file.suffix.lower() == ".parquet":
            yield from _parquet(file, schema)
        elif file.suffix.lower() in _XML:
            yield from xml_picks(file, schema)
        else:
            yield from _csv(file, schema)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"cannot read picks from {file}: {error}",
            hint="picks are read from CSV, Parquet, QuakeML and SCML",
        ) from error


def _parquet(file: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pyarrow.parquet.ParquetFile(file) as source:
        for batch in source.iter_batches():
            table = pa.Table.from_batches([batch])
            if table.schema.names == schema.names:
                yield from table.cast(schema).to_batches()
            else:
                texts = {name: _as_text(table[name]) for name in table.column_names}
                yield from picks_of_text(texts, str(file), schema).to_batches()


def _as_text(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.combine_chunks().cast(pa.string())


def _csv(file: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with file.open("rb") as source:
        header = source.readline()
    if not header.strip():
        raise InputError(f"{file} is empty", hint="a table of picks begins with its column names")
    names = _header(file)
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    with pyarrow.csv.open_csv(file, convert_options=options) as reader:
        for batch in reader:
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            yield from picks_of_text(columns, str(file), schema).to_batches()


def _header(file: Path) -> list[str]:
    with pyarrow.csv.open_csv(file) as reader:
        return list(reader.schema.names)
