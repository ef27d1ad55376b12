"""Registry of the export formats, and one function that writes any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from eqcctpro.errors import SettingsError
from eqcctpro.picks.eqcctpro_folders import write_folders_of_picks
from eqcctpro.picks.formats.nonlinloc import write_nonlinloc
from eqcctpro.picks.formats.quakeml import write_quakeml, write_scml
from eqcctpro.picks.formats.rows import Batches, ExportOptions, row_batches
from eqcctpro.picks.formats.tabular import (
    write_csv_table,
    write_gamma,
    write_parquet_table,
    write_phasenet,
    write_pyocto,
    write_seisbench,
)

__all__ = ["FORMATS", "ExportFormat", "ExportOptions", "write_picks"]


@dataclass(frozen=True)
class ExportFormat:
    """A format that picks can be written in.

    Attributes
    ----------
    file_name : str
        What a run calls the file; empty for a tree of folders.
    description : str
    write : callable
        ``write(batches, path, options)``; it goes through the batches once.
    """

    file_name: str
    description: str
    write: Callable[[Batches, Path, ExportOptions], object]


def _folders(batches: Batches, path: Path, options: ExportOptions) -> None:
    del options
    write_folders_of_picks(batches, path)


FORMATS: dict[str, ExportFormat] = {
    "csv": ExportFormat("picks.csv", "our own table", write_csv_table),
    "parquet": ExportFormat("picks.parquet", "our own table", write_parquet_table),
    "quakeml": ExportFormat("picks.quakeml", "QuakeML 1.2, picks without events", write_quakeml),
    "scml": ExportFormat("picks.scml", "SeisComP XML, schema 0.12", write_scml),
    "pyocto": ExportFormat("picks_pyocto.csv", "PyOcto's picks", write_pyocto),
    "gamma": ExportFormat("picks_gamma.csv", "GaMMA's picks", write_gamma),
    "phasenet": ExportFormat("picks_phasenet.csv", "PhaseNet's and QuakeFlow's", write_phasenet),
    "nonlinloc": ExportFormat("picks.obs", "NonLinLoc phase file", write_nonlinloc),
    "seisbench": ExportFormat(
        "picks_seisbench.csv", "SeisBench's PickList as a data frame", write_seisbench
    ),
    "eqcctpro": ExportFormat("", "EQCCTPro's folders, one file per station", _folders),
}


def write_picks(
    picks: pa.Table | Iterable[pa.RecordBatch],
    path: str | Path,
    format: str,
    options: ExportOptions | None = None,
) -> None:
    """Write picks in one of `FORMATS`, whole or not at all.

    Parameters
    ----------
    picks : pyarrow.Table or iterable of pyarrow.RecordBatch
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`; batches are written one after the other, so
        that not all picks need be in memory.
    path : path
        A file, or a folder for the format ``eqcctpro``.
    format : str
    options : ExportOptions, optional

    Raises
    ------
    SettingsError
        There is no such format.
    OutputError
        The file cannot be written.
    """
    if format not in FORMATS:
        raise SettingsError(f"format: {format!r} is unknown", hint=f"one of {', '.join(FORMATS)}")
    batches = row_batches(picks) if isinstance(picks, pa.Table) else picks
    FORMATS[format].write(batches, Path(path), options or ExportOptions())
