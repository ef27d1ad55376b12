"""Pick tables as arrays that can be matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eqcctpro.errors import SettingsError

__all__ = ["Level", "PickArrays", "as_arrays", "phase_of", "place_names"]

Level = Literal["station", "location", "instrument"]
"""What a pick and its label must have in common: ``NET.STA``, the location, the instrument."""

_FIELDS: dict[Level, tuple[str, ...]] = {
    "station": ("network", "station"),
    "location": ("network", "station", "location"),
    "instrument": ("network", "station", "location", "channel"),
}


@dataclass(frozen=True)
class PickArrays:
    """Picks or labels of one phase.

    Attributes
    ----------
    place : ndarray of int64
        Index into the names of the places.
    time_us : ndarray of int64
        UTC, microseconds since 1970.
    probability : ndarray of float64
        NaN where it is not known.
    row : ndarray of int64
        Row of the table.
    """

    place: NDArray[np.int64]
    time_us: NDArray[np.int64]
    probability: NDArray[np.float64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time_us)

    def where(self, keep: NDArray[np.bool_]) -> PickArrays:
        """Those of a mask."""
        return PickArrays(
            self.place[keep], self.time_us[keep], self.probability[keep], self.row[keep]
        )


def phase_of(table: pa.Table) -> pa.ChunkedArray:
    """P or S of every row: by the first letter, so that Pn and Pg are P."""
    return pc.utf8_upper(pc.utf8_slice_codeunits(pc.fill_null(table["phase"], ""), 0, 1))


def place_names(tables: Sequence[pa.Table], level: Level) -> tuple[list[str], list[pa.Array]]:
    """Names of all places in some tables, and each row's index into them.

    Raises
    ------
    SettingsError
        There is no such level.
    """
    if level not in _FIELDS:
        raise SettingsError(f"per: {level!r} is unknown", hint=f"one of {', '.join(_FIELDS)}")
    parts = []
    for table in tables:
        columns = [pc.fill_null(table[name], "") for name in _FIELDS[level]]
        parts.append(pc.binary_join_element_wise(*columns, "."))
    encoded = pa.chunked_array(
        [chunk for part in parts for chunk in part.chunks], pa.string()
    ).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    encoded = encoded.dictionary_encode()
    ends = np.cumsum([len(part) for part in parts])
    indices = np.split(encoded.indices.to_numpy(), ends[:-1])
    return encoded.dictionary.to_pylist(), [pa.array(each) for each in indices]


def as_arrays(table: pa.Table, place: pa.Array, phase: str) -> PickArrays:
    """The rows of one phase."""
    rows = np.flatnonzero(np.asarray(pc.equal(phase_of(table), phase)))
    times = np.asarray(table["time"].cast(pa.timestamp("us"))).astype("M8[us]").astype(np.int64)
    probability = np.asarray(table["probability"].cast(pa.float64())).astype(np.float64)
    where = np.asarray(place).astype(np.int64)
    return PickArrays(where[rows], times[rows], probability[rows], rows)
