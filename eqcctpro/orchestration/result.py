"""What a run hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunResult"]

#: Exit code of a run that finished although stations or files failed.
SOME_FAILED = 10


@dataclass(frozen=True)
class RunResult:
    """What a run found and where it is.

    Attributes
    ----------
    table : pyarrow.Table
        The pick table.
    detections : pyarrow.Table or None
    summary : dict
        The content of ``summary.json``: counts, reasons, seconds, versions, paths.
    """

    table: pa.Table
    detections: pa.Table | None
    summary: dict[str, Any] = field(repr=False)

    @property
    def picks(self) -> pd.DataFrame:
        """The pick table as a pandas data frame."""
        return self.table.to_pandas()

    @property
    def counts(self) -> dict[str, int]:
        """Station tasks done, empty and failed, unusable files, and picks."""
        return {
            **self.summary["tasks"],
            "files_failed": self.summary["plan"]["files_unusable"],
            "picks": self.summary["picks"]["total"],
        }

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds per part of the run, and seconds per stage over all workers."""
        return dict(self.summary["seconds"])

    @property
    def paths(self) -> dict[str, str]:
        """Files that were written, by kind."""
        return dict(self.summary["paths"])

    @property
    def exit_code(self) -> int:
        """0 if nothing failed, else 10."""
        counts = self.counts
        return SOME_FAILED if counts["failed"] or counts["files_failed"] else 0
