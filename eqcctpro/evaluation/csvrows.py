"""Rows of a benchmark's CSV file, read so that one damaged line costs only itself."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.errors import InputError

__all__ = ["CsvFile", "CsvRow", "parse_csv", "read_csv_file"]


@dataclass(frozen=True)
class CsvRow:
    """One row: the number of its line in the file, and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class CsvFile:
    """A file's columns and rows, and a note on every line that is not among them."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]
    notes: tuple[str, ...]


def read_csv_file(path: Path) -> CsvFile:
    """Read a CSV file whose first line names its columns.

    Quoted and plain cells may be mixed.  Lists such as ``[0, 1]`` need no quotes.

    Raises
    ------
    InputError
        The file cannot be read, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return parse_csv(text, path)


def parse_csv(text: str, path: Path) -> CsvFile:
    """Read the text of such a file, or of its beginning.

    Raises
    ------
    InputError
        It is empty.
    """
    # Only these end a row; str.splitlines knows more characters, which may stand in messages.
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    source = _Lines([f"{line}\n" for line in lines])
    header = next(_records(source, None, path, []), None)
    if header is None:
        raise InputError(f"{path} is empty", hint="it has to start with the names of its columns")
    columns = tuple(name.strip() for name in header[1])
    notes: list[str] = []
    rows = []
    for line, fields in _records(source, len(columns), path, notes):
        if tuple(field.strip() for field in fields) == columns:
            notes.append(f"{path.name}, line {line}: the header again, left out")
            continue
        rows.append(CsvRow(line, dict(zip(columns, fields, strict=True))))
    return CsvFile(path, columns, tuple(rows), tuple(notes))


class _Lines(Iterator[str]):
    """Lines that can be read again from any of them."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.at = 0

    def __next__(self) -> str:
        if self.at >= len(self.lines):
            raise StopIteration
        self.at += 1
        return self.lines[self.at - 1]


def _records(
    source: _Lines, columns: int | None, path: Path, notes: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells; a record without the right number of cells becomes a note."""
    while source.at < len(source.lines):
        start = source.at
        if not source.lines[start].strip():
            source.at += 1
            continue
        try:
            fields = next(csv.reader(source, strict=True, skipinitialspace=True))
            problem = ""
        except csv.Error as error:
            fields, problem = [], str(error)
        if columns is not None and len(fields) > columns:
            fields = _join_lists(fields)
        if not problem and columns is not None and len(fields) != columns:
            problem = f"it has {len(fields)} cells, the header {columns}"
        if not problem:
            yield start + 1, fields
            continue
        # A quote that a torn line left open has swallowed good lines: they are read again.
        source.at = start + 1
        torn = " (torn?)" if source.at == len(source.lines) else ""
        notes.append(f"{path.name}, line {start + 1} cannot be read{torn}: {problem}; left out")


def _join_lists(fields: list[str]) -> list[str]:
    """Put lists that were written without quotes together again."""
    joined: list[str] = []
    open_list = False
    for field in fields:
        if open_list:
            joined[-1] += f", {field.strip()}"
        else:
            joined.append(field)
        open_list = joined[-1].lstrip().startswith("[") and "]" not in joined[-1]
    return joined
