"""Picks from tables of text with other columns than ours.

Recognised are our own columns, those of SeisBench's ``PickList``, of PyOcto, GaMMA, PhaseNet and
QuakeFlow (one pick a row), and those of EQCCTPro's results and of catalogues with a P and an S in
each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eqcctpro.errors import InputError
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.times import US_PER_S

__all__ = ["picks_of_text"]

# In the order of preference: EQCCTPro has both a station and a file name.
_NAMES = {
    "station": ("station", "station_id", "trace_id", "id", "station_code", "sta"),
    "network": ("network", "network_code", "net"),
    "location": ("location", "location_code", "loc"),
    "channel": ("channel", "instrument", "instrument_type", "channel_code"),
    "phase": ("phase", "phase_type", "type", "phase_hint"),
    "time": ("time", "phase_time", "timestamp", "peak_time", "pick_time", "arrival_time"),
    "start_time": ("start_time",),
    "end_time": ("end_time",),
    "probability": ("probability", "phase_score", "prob", "peak_value", "score"),
    "model": ("model",),
    "weights": ("weights",),
    "timechunk": ("timechunk",),
    "run_id": ("run_id",),
    "amplitude_counts": ("amplitude_counts",),
    "velocity_m_s": ("velocity_m_s", "phase_amp", "amp"),
    "wood_anderson_mm": ("wood_anderson_mm",),
}
_WIDE = {
    "P": (("p_arrival_time", "p_time"), ("p_probability",)),
    "S": (("s_arrival_time", "s_time"), ("s_probability",)),
}
_UNKNOWN_LOCATION = "--"
# Seconds with nanoseconds.
_DECIMAL = pa.decimal128(30, 9)

Columns = Mapping[str, pa.Array]


def picks_of_text(columns: Columns, source: str, schema: pa.Schema = PICK_SCHEMA) -> pa.Table:
    """Rows of `PICK_SCHEMA` from columns of text.

    Parameters
    ----------
    columns : mapping of str to pyarrow.Array of string
        All of one length.
    source : str
        Name of the file, for messages.
    schema : pyarrow.Schema
        `PICK_SCHEMA`, or `eqcctpro.picks.table.MEASURED_SCHEMA` for the amplitudes, too.

    Raises
    ------
    InputError
        Columns of station, phase or time are missing, or a time or probability is unreadable.
    """
    lower = {name.strip().lower(): values for name, values in columns.items()}
    if _first(lower, _NAMES["phase"]) is not None and _first(lower, _NAMES["time"]) is not None:
        return _table(lower, source, schema)
    wide = {
        phase: (_first(lower, times), _first(lower, probabilities))
        for phase, (times, probabilities) in _WIDE.items()
    }
    if all(times is None for times, _ in wide.values()):
        raise InputError(
            f"{source}: no columns of picks; it has {', '.join(lower) or 'none'}",
            hint="a table of picks has station, phase and time, or p_time and s_time",
        )
    parts = []
    for phase, (times, probabilities) in wide.items():
        if times is None:
            continue
        given = pc.not_equal(pc.utf8_trim_whitespace(pc.fill_null(times, "")), "")
        part = {name: values.filter(given) for name, values in lower.items()}
        part["time"] = times.filter(given)
        part["phase"] = pa.array([phase] * len(part["time"]), pa.string())
        if probabilities is not None:
            part["probability"] = probabilities.filter(given)
        parts.append(_table(part, source, schema))
    return pa.concat_tables(parts)


def _first(columns: Columns, names: tuple[str, ...]) -> pa.Array | None:
    return next((columns[name] for name in names if name in columns), None)


def _table(columns: Columns, source: str, schema: pa.Schema) -> pa.Table:
    found = {ours: _first(columns, names) for ours, names in _NAMES.items()}
    station = found["station"]
    if station is None:
        raise InputError(
            f"{source}: no column of stations; it has {', '.join(columns)}",
            hint="name it station, or station_id for NET.STA.LOC",
        )
    rows = len(station)
    # Codes come padded from some programs, EQCCTPro's own among them.
    found.update(
        {
            name: pc.utf8_trim_whitespace(pc.fill_null(values, ""))
            for name, values in found.items()
            if values is not None
        }
    )
    empty = pa.array([""] * rows, pa.string())
    if found["network"] is None:
        found.update(_split_codes(found["station"]))
    location, run = found["location"], found["run_id"]
    if location is not None:
        unknown = pc.equal(location, _UNKNOWN_LOCATION)
        if run is not None:  # of ours, which tell codes as the records do
            unknown = pc.and_(unknown, pc.equal(run, ""))
        found["location"] = pc.if_else(unknown, "", location)
    arrays = {
        name: _as_type(found[name], field.type, name, source)
        if found[name] is not None
        else (empty if pa.types.is_string(field.type) else pa.nulls(rows, field.type))
        for name, field in zip(schema.names, schema, strict=True)
    }
    arrays["phase"] = _phases(arrays["phase"])
    return pa.table(arrays, schema=schema)


def _split_codes(station: pa.Array) -> dict[str, pa.Array]:
    """Codes from ``NET.STA``, ``NET.STA.LOC`` or ``NET.STA.LOC.CHA``; others are stations."""
    encoded = station.dictionary_encode()
    parts = []
    for text in encoded.dictionary.to_pylist():
        codes = text.split(".")
        parts.append(["", text, "", ""] if len(codes) == 1 else [*codes, "", ""][:4])
    names = ("network", "station", "location", "channel")
    return {
        name: pa.array([codes[number] for codes in parts], pa.string()).take(encoded.indices)
        for number, name in enumerate(names)
    }


def _phases(phases: pa.Array) -> pa.Array:
    """GaMMA writes p and s; every other name is kept."""
    single = pc.equal(pc.utf8_length(phases), 1)
    return pc.if_else(single, pc.utf8_upper(phases), phases)


def _as_type(values: pa.Array, kind: pa.DataType, name: str, source: str) -> pa.Array:
    if pa.types.is_string(kind):
        return values
    given = pc.not_equal(values, "")
    filled = pc.if_else(given, values, None)
    if pa.types.is_floating(kind):
        try:
            return filled.cast(kind)
        except pa.ArrowInvalid as error:
            raise InputError(f"{source}: column {name}: {error}") from error
    times = _times(filled, name, source)
    if name == "time" and times.null_count:
        row = pc.index(pc.is_null(times), True).as_py()
        raise InputError(f"{source}: row {row + 1} of the picks has no time")
    return times


def _times(values: pa.Array, name: str, source: str) -> pa.Array:
    """Times that are ISO-8601, with or without T and zone, or seconds since 1970."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    kind = pa.timestamp("us", tz="UTC")
    missing = np.asarray(pc.is_null(values))
    if missing.all():
        return pa.nulls(len(values), kind)
    texts = values.drop_null()
    # An offset other than UTC would be a different time; none of the known programs writes it.
    plain = pc.replace_substring_regex(texts, r"(Z|[+]00:?00)$", "")
    sample = plain[0].as_py()
    try:
        if "-" in sample[1:]:
            found = np.array(plain.to_pylist(), dtype="M8[us]").astype(np.int64)
        else:
            found = _microseconds(plain)
    except (ValueError, ArithmeticError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{source}: column {name} holds what is no time: {error}",
            hint="write times as 2024-12-15T12:00:00.123456Z (UTC) or seconds since 1970",
        ) from error
    out = np.zeros(len(values), np.int64)
    out[~missing] = found
    return pa.array(out, pa.int64(), mask=missing).cast(kind)


def _microseconds(seconds: pa.Array) -> NDArray[np.int64]:
    """Seconds as text to the nearest microseconds, without the rounding of binary fractions."""
    try:
        exact = pc.multiply(seconds.cast(_DECIMAL), pa.scalar(US_PER_S, pa.decimal128(7, 0)))
        whole = pc.round(exact).cast(pa.int64())
    except pa.ArrowInvalid:  # more digits than these
        texts = seconds.to_pylist()
        whole = pa.array([int((Decimal(text) * US_PER_S).to_integral_value()) for text in texts])
    found: NDArray[np.int64] = whole.to_numpy(zero_copy_only=False)
    return found
