"""Arrow streams to rows, after their declared size has been checked."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from eqcctpro.serving.problems import InvalidProblem, MalformedProblem

__all__ = ["COLUMNS", "read_stream"]

#: One row for each piece of a channel; `start` is a timestamp or nanoseconds.
COLUMNS = ("network", "station", "location", "channel", "start", "sampling_rate", "samples")

# Texts that rows share; each is looked up for each row.
_MOST_DICTIONARY_BYTES = 2**20
_MOST_BATCHES = 10_000
# Of the format's Message.fbs: kinds of messages, and positions of fields in their tables.
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_KIND, _HEADER, _BATCH_OF_DICTIONARY, _LENGTH, _BUFFERS, _COMPRESSION = 1, 2, 1, 0, 2, 3

Row = tuple[tuple[str, str, str, str], int, float, NDArray[Any]]


def read_stream(content: bytes, name: str, note: Callable[[int], None]) -> Iterator[Row]:
    """The rows of a stream: codes, start in nanoseconds, sampling rate and samples.

    Parameters
    ----------
    content : bytes
    name : str
        What messages call it.
    note : callable
        Called with the bytes that buffers will have, before they are made; it may raise.

    Raises
    ------
    MalformedProblem
        It is no stream of Arrow.
    InvalidProblem
        A column is missing, or is not of a type that is read.
    """
    import pyarrow as pa

    try:
        rows = _count_declared(content, note)
        with pa.ipc.open_stream(content) as reader:
            kinds = _columns(reader.schema, name)
            table = reader.read_all()
        table.validate(full=True)
        if table.num_rows != rows:
            raise ValueError(f"{table.num_rows} rows in place of {rows}")
    except (pa.ArrowException, OSError, ValueError, struct.error, IndexError, KeyError) as error:
        raise MalformedProblem(f"{name} is no Arrow stream: {_said(error)}") from error
    columns = [table.column(kinds[column]) for column in COLUMNS]
    for column in columns:
        if pa.types.is_dictionary(column.type) and any(
            chunk.dictionary.nbytes > _MOST_DICTIONARY_BYTES for chunk in column.chunks
        ):
            raise InvalidProblem(f"{name}: a dictionary of codes is too long", hint="send texts")
    try:
        for row in range(rows):
            yield _row([column[row] for column in columns], f"{name}, row {row}")
    except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:
        raise InvalidProblem(f"{name}: a value cannot be read: {_said(error)}") from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _count_declared(content: bytes, note: Callable[[int], None]) -> int:
    """Count the rows of all batches, and the declared size of their buffers."""
    import pyarrow as pa

    rows = 0
    for number, message in enumerate(pa.ipc.MessageReader.open_stream(content)):
        if number > _MOST_BATCHES:
            raise ValueError(f"more than {_MOST_BATCHES} batches")
        table = _Table.root(message.metadata.to_pybytes())
        kind = table.number("B", _KIND)
        batch = table.table(_HEADER)
        if kind == _DICTIONARY_BATCH and batch is not None:
            batch = batch.table(_BATCH_OF_DICTIONARY)
        elif kind == _RECORD_BATCH and batch is not None:
            rows += batch.number("q", _LENGTH)
        if kind in (_DICTIONARY_BATCH, _RECORD_BATCH) and batch is not None:
            note(_declared(batch, message.body))
    return rows


def _declared(batch: _Table, body: Any) -> int:
    """Bytes of a batch's buffers once they are decompressed."""
    buffers = [(at, size) for at, size in batch.structures("qq", _BUFFERS) if size]
    if batch.table(_COMPRESSION) is None:
        return sum(size for _, size in buffers)
    total = 0
    for at, size in buffers:
        (inflated,) = struct.unpack("<q", body.slice(at, 8).to_pybytes())
        # A buffer that would not get smaller is as it is, marked by -1.
        total += size if inflated == -1 else inflated
        if inflated < -1:
            raise ValueError("a buffer of less than no bytes")
    return total


class _Table:
    """Table of a flatbuffer that pyarrow has already verified.

    Parameters
    ----------
    content : bytes
    at : int
        Where it is.
    """

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self._at = content, at
        self._fields = at - self._read("i", at)
        self._size = self._read("H", self._fields)

    @classmethod
    def root(cls, content: bytes) -> _Table:
        """The table that a buffer begins with."""
        return cls(content, struct.unpack_from("<I", content)[0])

    def _read(self, kind: str, at: int) -> int:
        number: int = struct.unpack_from(f"<{kind}", self._content, at)[0]
        return number

    def _place(self, field: int) -> int:
        """Position of a field in the buffer, or 0 if it is absent."""
        entry = 4 + 2 * field
        offset = self._read("H", self._fields + entry) if entry < self._size else 0
        return self._at + offset if offset else 0

    def number(self, kind: str, field: int) -> int:
        """A field that is a number; 0 if it is left out."""
        place = self._place(field)
        return self._read(kind, place) if place else 0

    def table(self, field: int) -> _Table | None:
        """A field that is a table."""
        place = self._place(field)
        return _Table(self._content, place + self._read("I", place)) if place else None

    def structures(self, kinds: str, field: int) -> Iterator[tuple[int, ...]]:
        """A field that is a vector of structures of numbers."""
        place = self._place(field)
        if not place:
            return
        at = place + self._read("I", place)
        size = struct.calcsize(f"<{kinds}")
        end = at + 4 + self._read("I", at) * size
        if end > len(self._content):
            raise ValueError("a vector beyond the end")
        yield from struct.iter_unpack(f"<{kinds}", self._content[at + 4 : end])


def _columns(schema: Any, name: str) -> dict[str, int]:
    """Find the position of each column and check its type."""
    import pyarrow.types as kinds

    found: dict[str, int] = {}
    for index, field in enumerate(schema):
        if field.name in COLUMNS and field.name in found:
            raise InvalidProblem(f"{name}: there are two columns {field.name}")
        found[field.name] = index
    missing = [column for column in COLUMNS if column not in found]
    if missing:
        raise InvalidProblem(
            f"{name}: columns missing: {', '.join(missing)}",
            hint=f"columns are {', '.join(COLUMNS)}",
        )

    def is_text(kind: Any) -> bool:
        return kinds.is_string(kind) or kinds.is_large_string(kind)

    def is_number(kind: Any) -> bool:
        return kinds.is_integer(kind) or kinds.is_floating(kind)

    def is_code(kind: Any) -> bool:
        shared = kinds.is_dictionary(kind) and is_text(kind.value_type)
        return is_text(kind) or shared or kinds.is_null(kind)

    def is_time(kind: Any) -> bool:
        return kinds.is_timestamp(kind) or kinds.is_integer(kind)

    def are_samples(kind: Any) -> bool:
        lists = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)
        return any(is_list(kind) for is_list in lists) and is_number(kind.value_type)

    checks = (is_code,) * 4, (is_time, is_number, are_samples)
    names = ("texts",) * 4 + ("timestamps or nanoseconds", "numbers", "lists of numbers")
    for column, check, wanted in zip(COLUMNS, (*checks[0], *checks[1]), names, strict=True):
        kind = schema.field(found[column]).type
        if not check(kind):
            raise InvalidProblem(f"{name}: {column} is {str(kind)[:100]}", hint=f"send {wanted}")
    return found


def _row(values: list[Any], where: str) -> Row:
    import pyarrow as pa

    network, station, location, channel = (str(value.as_py() or "") for value in values[:4])
    start, rate, samples = values[4:]
    if not (start.is_valid and rate.is_valid and samples.is_valid):
        raise InvalidProblem(f"{where}: a value is missing")
    if pa.types.is_timestamp(start.type):
        start = start.cast(pa.timestamp("ns", tz=start.type.tz)).cast(pa.int64())
    numbers = samples.values
    if numbers.null_count:
        raise InvalidProblem(f"{where}: a sample is missing", hint="send gaps as several rows")
    array = numbers.to_numpy(zero_copy_only=False)
    return (network, station, location, channel), int(start.as_py()), float(rate.as_py()), array
