"""Picks with amplitudes as CSV."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from eqcctpro.picks.table import AMPLITUDE_FIELDS
from eqcctpro.picks.writers import write_csv

__all__ = ["write_amplitudes"]


def write_amplitudes(measured: pa.Table, path: Path) -> None:
    """The columns of ``picks.csv`` and the amplitudes; empty where there is none.

    Velocities are small numbers: six decimals, as probabilities have, would lose them.
    """
    for field in AMPLITUDE_FIELDS:
        number = measured.column_names.index(field.name)
        texts = [
            "" if value is None else f"{value:.6g}" for value in measured[field.name].to_pylist()
        ]
        measured = measured.set_column(number, field.name, pa.array(texts, pa.string()))
    write_csv(measured, path)
