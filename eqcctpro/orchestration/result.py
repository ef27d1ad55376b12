"""Result of a run, as the API returns it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from eqcctpro.orchestration.outputs import RunTables, StoredTables
from eqcctpro.picks.objects import PickTables
from eqcctpro.pipeline.records import samples_not_picked
from eqcctpro.waveform.decode import NOT_PICKED

__all__ = ["RunResult"]

#: Exit code of a run that finished although stations or files failed.
SOME_FAILED = 10


class RunResult(PickTables):
    """Result of a run: its tables, its summary and the paths of its output.

    Attributes
    ----------
    summary : dict
        The content of ``summary.json``: counts, reasons, seconds, versions, paths.
    """

    def __init__(self, tables: RunTables | StoredTables, summary: dict[str, Any]) -> None:
        self._tables = tables
        self.summary = summary

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.counts})"

    @property
    def table(self) -> pa.Table:
        """The pick table."""
        return self._tables.picks.table

    @property
    def detections(self) -> pa.Table | None:
        """The detection table, of models that yield detections."""
        found = self._tables.detections
        return None if found is None else found.table

    @property
    def counts(self) -> dict[str, int]:
        """Station tasks done, empty and failed, unusable files, and picks."""
        return {
            **self.summary["tasks"],
            "files_failed": self.summary["plan"]["files_unusable"],
            "picks": self.summary["picks"]["total"],
        }

    @property
    def tasks(self) -> pa.Table:
        """Table with a row for each station task: status, reason and highest probabilities.

        The content of ``tasks.parquet``, see `eqcctpro.journal.task_table.TASK_SCHEMA`.
        """
        from eqcctpro.journal.task_table import read_tasks

        return read_tasks(Path(self.summary["paths"]["tasks"]).parent)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds per part of the run, and seconds per stage over all workers."""
        return dict(self.summary["seconds"])

    @property
    def paths(self) -> dict[str, str]:
        """Output files, by kind."""
        return dict(self.summary["paths"])

    @property
    def problems(self) -> list[str]:
        """List what was not picked or written, and why: a line for each file and station task.

        Of each reason the first hundred; `tasks` has all.
        """
        summary = self.summary
        lines = [f"unusable file: {file['message']}" for file in summary["files_failed"]]
        if more := summary["plan"]["files_unusable"] - len(lines):
            lines.append(f"unusable file: {more} more, in {summary['paths']['log']}")
        lines += self._ignored()
        for status in ("failed", "empty"):
            lines += [
                f"{status}: {item['station']} {item['timechunk']}: {item['reason']}"
                for item in summary[status]
            ]
            if more := summary["tasks"][status] - len(summary[status]):
                lines.append(f"{status}: {more} more, in {summary['paths']['tasks']}")
        notes = [note for item in summary["notes"] for note in item["notes"]]
        lines += [note for note in dict.fromkeys(notes) if note.startswith(NOT_PICKED)]
        balance = summary["balance"]
        lines += samples_not_picked(balance["not_picked"], balance["input"])
        return lines + [f"warning: {text}" for text in summary.get("warnings", [])]

    def _ignored(self) -> list[str]:
        """Lines about files or folders that were not read, with the reason and an example."""
        listed = self.summary["files_ignored"]
        total = self.summary["plan"]["files_ignored"]
        examples = {item["reason"]: item["file"] for item in reversed(listed)}
        counts = Counter(item["reason"] for item in listed)
        at_least = "at least " if total > len(listed) else ""
        return [
            f"not read: {examples[reason]}: {reason}"
            + (f" ({at_least}{count} such)" if count > 1 else "")
            for reason, count in counts.items()
        ]

    @property
    def exit_code(self) -> int:
        """0 if nothing failed, else 10."""
        counts = self.counts
        return SOME_FAILED if counts["failed"] or counts["files_failed"] else 0
