"""Common parts of the text writers: options, batches to rows, codes and times as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from eqcctpro.codes import without_formula

__all__ = ["BATCH_ROWS", "Batches", "ExportOptions", "PickRow", "pick_rows", "row_batches"]

# Rows that are turned into text at a time, so that memory stays flat.
BATCH_ROWS = 65_536

Batches = Iterable[pa.RecordBatch]
"""Picks, piece by piece: record batches of `eqcctpro.picks.table.PICK_SCHEMA`."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of some formats for values that the pick table does not have.

    Attributes
    ----------
    agency : str
        Agency that made the picks, for QuakeML and SCML; left out when empty.
    uncertainty_s : dict of str to float
        Standard error of P and S picks in s.  NonLinLoc must have one, and QuakeML and SCML get it
        only if `state_uncertainty`.  The defaults are rounded from the spread of PhaseNet's and
        EQTransformer's picks around those of analysts on northern Californian records.
    state_uncertainty : bool
        Write the uncertainty wherever the format has a place for it.
    """

    agency: str = ""
    uncertainty_s: dict[str, float] = field(default_factory=lambda: {"P": 0.05, "S": 0.1})
    state_uncertainty: bool = False

    def uncertainty_of(self, phase: str) -> float:
        """Standard error of a phase in s; of S for every phase that is not a P."""
        return self.uncertainty_s["P" if phase[:1].upper() == "P" else "S"]


class PickRow(NamedTuple):
    """One pick, ready to be written.

    ``time`` is ISO-8601 with microseconds and without a zone, ``time_us`` the same in microseconds
    since 1970; times are UTC.  ``velocity_m_s`` is NaN where no amplitude was measured.
    """

    network: str
    station: str
    location: str
    channel: str
    phase: str
    time: str
    time_us: int
    probability: float
    model: str
    weights: str
    timechunk: str
    run_id: str
    velocity_m_s: float

    @property
    def trace_id(self) -> str:
        """``NET.STA.LOC``, as SeisBench and PyOcto name a trace."""
        return f"{self.network}.{self.station}.{self.location}"

    @property
    def instrument_id(self) -> str:
        """``NET.STA.LOC.INSTRUMENT``."""
        return f"{self.trace_id}.{self.channel}"

    @property
    def source(self) -> str:
        """``model/weights``, or an empty text."""
        return "/".join(part for part in (self.model, self.weights) if part)


def row_batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """A table in pieces of `BATCH_ROWS`."""
    yield from table.to_batches(max_chunksize=BATCH_ROWS)


def pick_rows(batch: pa.RecordBatch) -> Iterator[PickRow]:
    """The rows of a batch; a missing text is empty and a missing probability is NaN."""

    def text(name: str) -> list[str]:
        values = [value or "" for value in batch.column(name).to_pylist()]
        return list(map(without_formula, values))

    times = batch.column("time").to_numpy(zero_copy_only=False).astype("M8[us]")
    probabilities = batch.column("probability").cast(pa.float64())
    velocity = [float("nan")] * batch.num_rows
    if "velocity_m_s" in batch.schema.names:
        velocity = batch.column("velocity_m_s").to_numpy(zero_copy_only=False).tolist()
    yield from map(
        PickRow._make,
        zip(
            *(text(name) for name in ("network", "station", "location", "channel", "phase")),
            np.datetime_as_string(times, unit="us").tolist(),
            times.astype(np.int64).tolist(),
            probabilities.to_numpy(zero_copy_only=False).tolist(),
            *(text(name) for name in ("model", "weights", "timechunk", "run_id")),
            velocity,
            strict=True,
        ),
    )
