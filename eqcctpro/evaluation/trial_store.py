"""The files that trials are kept in: one CSV row and one JSON line for each.

Rows are only ever added, under a lock and with one write, so that a killed sweep loses
nothing that it had finished and sweeps can share a folder.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from eqcctpro.errors import InputError, OutputError
from eqcctpro.evaluation.canonical import CANONICAL_CSV_HEADER
from eqcctpro.evaluation.csvrows import CsvFile, parse_csv
from eqcctpro.evaluation.results import Trial, cell_number, parse_results, results_path
from eqcctpro.picks.writers import atomic_file

__all__ = ["TrialStore"]

# A sweep holds the lock for the time of a write; a longer wait means that something is wrong.
LOCK_SECONDS = 60.0


class TrialStore:
    """Finished trials of a folder.

    Parameters
    ----------
    csv_dir : Path
        Created if it is not there.
    eval_mode : {"cpu", "gpu"}
    name : str, optional
        Of the files, in place of the usual ones: ``name.csv`` and ``name.jsonl``.

    Attributes
    ----------
    path : Path
        ``cpu_test_results.csv`` or ``gpu_test_results.csv``.
    repeats_path : Path
        ``*_test_repeats.jsonl``, with every repeat of every trial.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """

    def __init__(
        self, csv_dir: Path, eval_mode: Literal["cpu", "gpu"], *, name: str | None = None
    ) -> None:
        try:
            csv_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"csv_dir: {csv_dir} cannot be made: {error.strerror or error}",
                hint="choose another folder, or change its permissions",
            ) from error
        self.path = results_path(csv_dir, eval_mode) if name is None else csv_dir / f"{name}.csv"
        self.repeats_path = csv_dir / f"{name or f'{eval_mode}_test_repeats'}.jsonl"
        self._eval_mode = eval_mode
        self._lock = FileLock(str(self.path) + ".lock", timeout=LOCK_SECONDS)

    def rows(self) -> list[dict[str, str]]:
        """All rows that are whole; the last line of a killed writer is not."""
        with self._locked():
            file = self._read()
        return [] if file is None else [row.cells for row in file.rows]

    def trials(self) -> tuple[Trial, ...]:
        """All trials that can be used, as `read_results` has them.

        Raises
        ------
        InputError
            The file is none of trials.
        """
        with self._locked():
            file = self._read()
        return () if file is None else parse_results(file, self._eval_mode).trials

    def append(self, row: Mapping[str, Any], repeats: Sequence[Mapping[str, Any]]) -> int:
        """Keep a trial; returns its number.

        Parameters
        ----------
        row : mapping
            By columns of `CANONICAL_CSV_HEADER`; what is missing stays empty, and the trial
            number is given here.
        repeats : sequence of mapping
            What was measured in each repeat.
        """
        if unknown := set(row) - set(CANONICAL_CSV_HEADER):
            raise KeyError(f"not columns of a trial: {sorted(unknown)}")
        with self._locked():
            file = self._ready_file()
            numbers = [cell_number(row.cells, "Trial Number") for row in file.rows]
            number = 1 + max((int(known or 0) for known in numbers), default=0)
            full = {**row, "Trial Number": number}
            # The row is written last: it is what says that the trial is kept.
            line = {"trial": number, "configuration": row.get("Configuration ID")}
            _add(self.repeats_path, json.dumps({**line, "repeats": list(repeats)}) + "\n")
            _add(self.path, _line([_text(full.get(column)) for column in file.columns]))
        return number

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except TimeoutError as error:
            raise OutputError(
                f"{self.path} has been locked for {LOCK_SECONDS:.0f} s",
                hint=f"if no other evaluation runs, delete {self._lock.lock_file}",
            ) from error
        except OSError as error:
            raise OutputError(f"{self.path} cannot be used: {error}") from error

    def _read(self) -> CsvFile | None:
        """The file without a last line that was torn; None if there is none, or no header."""
        if not self.path.exists():
            return None
        text = self.path.read_text(encoding="utf-8-sig", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        return parse_csv(whole, self.path) if whole else None

    def _ready_file(self) -> CsvFile:
        """Make the file ready for one more row, and read it.

        A file that EQCCTPro wrote gets our columns too: its rows stay as they are.
        """
        _cut_torn_line(self.repeats_path)
        _cut_torn_line(self.path)
        file = self._read()
        if file is None:
            _add(self.path, _line(CANONICAL_CSV_HEADER))
            return CsvFile(self.path, CANONICAL_CSV_HEADER, (), ())
        if "Trial Number" not in file.columns:
            raise InputError(
                f"{self.path} is not a file of trials: its first line has no Trial Number",
                hint="choose another csv_dir",
            )
        missing = [column for column in CANONICAL_CSV_HEADER if column not in file.columns]
        if not missing:
            return file
        widened = (*file.columns, *missing)
        with atomic_file(self.path) as new:
            new.write(_line(widened).encode())
            for row in file.rows:
                new.write(_line([row.cells.get(column, "") for column in widened]).encode())
        return replace(file, columns=widened)


def _cut_torn_line(path: Path) -> None:
    """Remove what a writer that was killed left of a line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end != len(content):
            file.truncate(end)


def _add(path: Path, line: str) -> None:
    """Append with one write, and wait until it is on disk."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _line(values: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _text(value: Any) -> str:
    """One line of text: a reader that goes by lines must not see half a row."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.1f}"
    return " ".join(str(value).split())
