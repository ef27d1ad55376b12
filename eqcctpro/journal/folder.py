"""Paths of a run's journal and of the files that belong to a run in its output folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from eqcctpro.errors import OutputError
from eqcctpro.journal.parts import TEMPORARY
from eqcctpro.journal.store import JournalStore
from eqcctpro.journal.writing import remove, writing
from eqcctpro.picks.day_tables import remove_table
from eqcctpro.times import parse_chunk_name

__all__ = ["RunFolder"]

FOLDER = ".eqcctpro"
STATION_RESULT = "X_prediction_results.csv"
RESULTS = (
    *("detections.csv", "detections.parquet", "amplitudes.csv"),
    *("summary.json", "tasks.parquet", "overview.png", "report.html"),
)
# Files that other commands write beside the picks, by the file that identifies the command.
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
    inside : str
        Folder of the journal in it.

    Attributes
    ----------
    partitions : Path
        Folder of what the finished partitions of a run in partitions leave.
    journal : Path
        The journal, an SQLite database.
    parts : Path
        Folder of part files.
    started : Path
        Marks of the station tasks in flight.
    """

    def __init__(self, output: Path, inside: str = FOLDER) -> None:
        self.output = output
        self.folder = output / inside
        self.partitions = self.folder / "partitions"
        self.journal = self.folder / "journal.sqlite"
        self.parts = self.folder / "parts"
        self.started = self.folder / "started"

    def partition(self, number: int) -> RunFolder:
        """The folder with the journal of one partition, in which the same results lie."""
        return RunFolder(self.output, f"{FOLDER}/partitions/{number:06d}")

    @property
    def has_journal(self) -> bool:
        """True if the folder contains the journal of a run."""
        return self.journal.exists()

    @property
    def holds_a_run(self) -> bool:
        """True if the folder contains the journal or the results of a run."""
        return self.has_journal or (self.output / "summary.json").exists()

    def unfinished(self) -> bool:
        """True if a run began in the folder and did not finish."""
        if not self.has_journal:
            return False
        store = JournalStore(self.journal, writable=False)
        try:
            facts = store.facts()
        finally:
            store.close()
        return bool(facts) and facts.get("state") != "finished"

    def tidy(self) -> None:
        """Remove temporary files of a killed run."""
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
        """Remove the journal and its part files; the results stay."""
        with writing(self.output):
            if self.folder.is_dir():
                # First, since the rest is of no use without it.
                remove(self.journal)
            remove(self.folder)

    def discard(self) -> None:
        """Remove the journal and all results of a run, and nothing else.

        Outputs of `show`, `associate`, `score` and `convert` are removed, too, if they are in the
        same folder under their default names.
        """
        with writing(self.output):
            self._discard_station_results()
            for name in _result_names():
                remove_table(self.output / name)
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
        from eqcctpro.picks.annotations import CURVE_FOLDER

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
        """Time chunk and folder of each picked station; None if the journal cannot be read."""
        try:
            store = JournalStore(self.journal, writable=False)
            try:
                return store.station_folders() if store.facts() else []
            finally:
                store.close()
        except OutputError:
            return None

    def _wrote_station_folders(self) -> bool:
        """True if the summary of a finished run lists EQCCTPro's station folders as its output."""
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
