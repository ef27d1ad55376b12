"""Paths of a job's files as clients see them, without the folders of the server's disk."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eqcctpro.picks.writers import atomic_file, write_parquet

__all__ = ["PathHider"]

# An absolute path with two parts or more; what is kept is its last part.
_PATH = re.compile(r"(?<![\w:/.~-])/(?:[^\s/\"',;()\[\]]+/)+")


class PathHider:
    """Writes paths as clients know them: relative to the folders that jobs may read.

    Parameters
    ----------
    folders : sequence of Path
        Those folders, and the job's own.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        # The longest first: one may lie in another.
        self._folders = sorted(map(str, folders), key=len, reverse=True)

    def __call__(self, value: Any) -> Any:
        """A text, or texts in lists and tables, without the server's folders."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {name: self(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self(each) for each in value]
        return value

    def _text(self, text: str) -> str:
        for folder in self._folders:
            text = text.replace(f"{folder}/", "")
            if text == folder:
                text = "."
        return _PATH.sub("", text)

    def rewrite(self, folder: Path) -> None:
        """Rewrite what a run has written about itself."""
        log, summary, tasks = (
            folder / name for name in ("run.log", "summary.json", "tasks.parquet")
        )
        if log.is_file():
            with (
                log.open(encoding="utf-8", errors="replace") as lines,
                atomic_file(log, sync=False) as kept,
            ):
                kept.writelines(self._text(line).encode() for line in lines)
        if summary.is_file():
            content = json.loads(summary.read_text(encoding="utf-8"))
            with atomic_file(summary, sync=False) as kept:
                kept.write(json.dumps(self(content), indent=2).encode())
        if tasks.is_file():
            self._rewrite_table(tasks)

    def _rewrite_table(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        table = pa.parquet.read_table(path)
        for index, field in enumerate(table.schema):
            if pa.types.is_string(field.type) and field.name in _SENTENCES:
                texts = self(table.column(index).to_pylist())
                table = table.set_column(index, field, pa.array(texts, field.type))
        write_parquet(table, path)


_SENTENCES = ("reason", "error", "notes")
