"""Where a run keeps its record, and what in an output folder is the run's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

from eqcctpro.errors import OutputError
from eqcctpro.journal.parts import TEMPORARY
from eqcctpro.journal.store import JournalStore
from eqcctpro.journal.writing import remove, writing
from eqcctpro.times import parse_chunk_name

__all__ = ["RunFolder"]

FOLDER = ".eqcctpro"
STATION_RESULT = "X_prediction_results.csv"
RESULTS = (
    *("detections.csv", "detections.parquet", "amplitudes.csv"),
    *("summary.json", "tasks.parquet", "overview.png", "report.html"),
)
# What other commands may have written beside the picks, by the file that tells whose it is.
DERIVED = {
    "event_picks.csv": ("events.csv", "events.quakeml", "events.scml", "events.obs"),
    "score.json": ("stations.csv", "curve.csv", "matches.csv"),
    "parity.json": ("stations.csv",),
}


class RunFolder:
    """The output folder of a run.

    Parameters
    ----------
    output : Path

    Attributes
    ----------
    journal : Path
        The record, an SQLite database.
    parts : Path
        Folder of part files.
    started : Path
        Marks of what is under way.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / FOLDER
        self.journal = self.folder / "journal.sqlite"
        self.parts = self.folder / "parts"
        self.started = self.folder / "started"

    @property
    def has_journal(self) -> bool:
        """Whether a run has left its record here."""
        return self.journal.exists()

    @property
    def holds_a_run(self) -> bool:
        """Whether a run has left its record or its results here."""
        return self.has_journal or (self.output / "summary.json").exists()

    def unfinished(self) -> bool:
        """Whether a run began here and did not finish."""
        if not self.has_journal:
            return False
        store = JournalStore(self.journal, writable=False)
        try:
            facts = store.facts()
        finally:
            store.close()
        return bool(facts) and facts.get("state") != "finished"

    def tidy(self) -> None:
        """Remove files that a killed run was still writing."""
        with writing(self.output):
            if self.parts.is_dir():
                for path in self.parts.glob(f"*{TEMPORARY}"):
                    remove(path)
            names = "|".join(map(re.escape, (*_result_names(), STATION_RESULT)))
            # `tempfile` appends eight letters to the name of a file that is being written.
            left_over = re.compile(rf"\.({names})\.[a-z0-9_]{{8}}")
            for pattern in (".*", f"*/*_outputs/.{STATION_RESULT}.*"):
                for path in self.output.glob(pattern):
                    if left_over.fullmatch(path.name):
                        path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the record and the parts; the results stay."""
        with writing(self.output):
            if self.folder.is_dir():
                # First, since without it the rest means nothing.
                remove(self.journal)
            remove(self.folder)

    def discard(self) -> None:
        """Remove the record and everything that a run writes, and nothing else.

        What `show`, `associate`, `score` and `convert` have made of the picks goes too, where it
        is in the same folder under the name that they give it.
        """
        with writing(self.output):
            self._discard_station_results()
            for name in _result_names():
                (self.output / name).unlink(missing_ok=True)
            self._discard_curves()
            self._discard_derived()
        self.forget()

    def _discard_derived(self) -> None:
        for sign, names in DERIVED.items():
            if (self.output / sign).exists():
                for name in (sign, *names):
                    (self.output / name).unlink(missing_ok=True)
        for kind in ("png", "pdf", "svg"):
            for path in self.output.glob(f"show_*.{kind}"):
                path.unlink(missing_ok=True)

    def _discard_curves(self) -> None:
        from eqcctpro.pipeline.annotations import CURVE_FOLDER

        folder = self.output / CURVE_FOLDER
        for path in folder.glob("*/*.mseed"):
            path.unlink(missing_ok=True)
        _remove_empty(*folder.glob("*/"), folder)

    def _discard_station_results(self) -> None:
        from eqcctpro.picks.eqcctpro_folders import station_file

        folders = self._recorded_station_folders() if self.has_journal else []
        if folders is None or (not self.has_journal and self._wrote_station_folders()):
            found = self.output.glob(f"*/*_outputs/{STATION_RESULT}")
            paths = [path for path in found if parse_chunk_name(path.parent.parent.name)]
        else:
            paths = [station_file(self.output, chunk, folder) for chunk, folder in folders]
        for path in paths:
            path.unlink(missing_ok=True)
            _remove_empty(path.parent, path.parent.parent)

    def _recorded_station_folders(self) -> list[tuple[str, str]] | None:
        """Time chunk and station folder of what was picked; None if the record cannot be read."""
        try:
            store = JournalStore(self.journal, writable=False)
            try:
                return store.station_folders() if store.facts() else []
            finally:
                store.close()
        except OutputError:
            return None

    def _wrote_station_folders(self) -> bool:
        """Whether a finished run says that EQCCTPro's folders here are its own."""
        try:
            summary = json.loads((self.output / "summary.json").read_text(encoding="utf-8"))
            return "station_folders" in summary["paths"]
        except (OSError, ValueError, KeyError, TypeError):
            return False


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _result_names() -> list[str]:
    """Files that a run may write into its output folder."""
    from eqcctpro.picks.formats import FORMATS

    return [*RESULTS, *(kind.file_name for kind in FORMATS.values() if kind.file_name)]
