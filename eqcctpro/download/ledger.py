"""Ledger of requests and their results, by which a download resumes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from eqcctpro.errors import OutputError

__all__ = ["Entry", "Ledger"]

NAME = "download.jsonl"


@dataclass(frozen=True)
class Entry:
    """The end of one request.

    Attributes
    ----------
    key, name : str
        Of the request.
    status : {"done", "empty", "failed"}
    files : dict of str to int
        Size of each file that was written, by its name below the output folder.
    n_bytes : int
        What arrived.
    gaps : list of dict
        Of what was asked for and is not there.
    error : str
        Why it failed.
    """

    key: str
    name: str
    status: Literal["done", "empty", "failed"]
    files: dict[str, int] = field(default_factory=dict)
    n_bytes: int = 0
    gaps: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


class Ledger:
    """The entries of a folder; a context manager that holds the file open.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._entries: dict[str, Entry] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = Entry(**json.loads(line))
                except (ValueError, TypeError):
                    continue  # cut off when a download was killed: it is asked for again
                self._entries[entry.key] = entry

    def __enter__(self) -> Ledger:
        try:
            self._file = self._path.open("a", encoding="utf-8")
            if self._file.tell():
                self._file.write("\n")  # ends a line that was cut off
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def kinds(self) -> set[str]:
        """Kinds of results, by the beginnings of keys."""
        return {
            entry.key.rpartition(": ")[0]
            for entry in self._entries.values()
            if entry.status == "done"
        }

    def finished(self, key: str, *, retry_empty: bool) -> Entry | None:
        """The entry of a request that need not be sent again."""
        entry = self._entries.get(key)
        if entry is None or entry.status == "failed":
            return None
        if entry.status == "empty" or entry.gaps:
            return None if retry_empty else self._with_files(entry)
        return self._with_files(entry)

    def _with_files(self, entry: Entry) -> Entry | None:
        """The entry, if its files are still there; day files may have grown since."""
        for name, size in entry.files.items():
            try:
                if (self._folder / name).stat().st_size < size:
                    return None
            except OSError:
                return None
        return entry

    def add(self, entry: Entry) -> None:
        """Record what became of a request, once its files are on the disk.

        Raises
        ------
        OutputError
        """
        self._entries[entry.key] = entry
        try:
            self._file.write(json.dumps(asdict(entry)) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror or error}",
                hint="check the space on the disk; the same command goes on from here",
            ) from error
