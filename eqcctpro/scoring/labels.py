"""Labels, to which picks are compared."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from eqcctpro.errors import InputError
from eqcctpro.picks.reading import read_picks
from eqcctpro.picks.table import PICK_SCHEMA

__all__ = ["read_labels"]

_ARRIVAL = re.compile(r"trace_(\w+?)_arrival_sample$", re.IGNORECASE)


def read_labels(path: str | Path) -> pa.Table:
    """Labels as rows of `eqcctpro.picks.table.PICK_SCHEMA`.

    Parameters
    ----------
    path : path
        SeisBench dataset: its folder or a ``metadata*.csv``; everything that
        `eqcctpro.picks.reading.read_picks` reads: CSV, QuakeML, and the manifest of a synthetic
        network (its folder or ``arrivals.csv``).

    Raises
    ------
    InputError
        There is no such file, or nothing in it is a label.
    """
    source = Path(path)
    if source.is_dir():
        tables = sorted(source.glob("metadata*.csv"))
        manifest = source / "arrivals.csv"
        if tables:
            return pa.concat_tables([_seisbench(file) for file in tables])
        return read_picks(manifest if manifest.is_file() else source)
    if source.suffix.lower() == ".csv" and source.is_file() and _is_seisbench(source):
        return _seisbench(source)
    return read_picks(source)


def _is_seisbench(file: Path) -> bool:
    with file.open(encoding="utf-8", errors="replace") as lines:
        names = lines.readline().strip().split(",")
    return "trace_start_time" in names and any(map(_ARRIVAL.match, names))


def _seisbench(file: Path) -> pa.Table:
    """Arrivals from SeisBench's metadata: one row a trace, arrivals in samples."""
    codes = {"station_code": str, "station_network_code": str, "station_location_code": str}
    try:
        table = pd.read_csv(file, dtype=codes, keep_default_na=True, low_memory=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    for name in ("trace_start_time", "station_code"):
        if name not in table:
            raise InputError(
                f"{file} has no column {name}", hint="without it, labels cannot be compared"
            )
    rate = _rates(table, file)
    start = pd.to_datetime(table["trace_start_time"], utc=True, format="ISO8601", errors="coerce")
    parts = []
    for column in table.columns:
        phase = _ARRIVAL.match(column)
        if phase is None:
            continue
        sample = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
        # A label at sample 0 is a label: only what is not a number is none.
        given = np.isfinite(sample)
        if bad := int((given & (start.isna().to_numpy() | ~np.isfinite(rate))).sum()):
            raise InputError(
                f"{file}: {bad} arrivals of {column} are on traces without a start time or rate"
            )
        after = pd.to_timedelta(np.rint(sample[given] / rate[given] * 1e6), unit="us")
        parts.append(_rows(table[given], phase.group(1), start[given] + after))
    return pa.concat_tables(parts)


def _rates(table: pd.DataFrame, file: Path) -> np.ndarray:
    if "trace_sampling_rate_hz" in table:
        return pd.to_numeric(table["trace_sampling_rate_hz"], errors="coerce").to_numpy(float)
    if "trace_dt_s" in table:
        return 1.0 / pd.to_numeric(table["trace_dt_s"], errors="coerce").to_numpy(float)
    raise InputError(
        f"{file} has no column trace_sampling_rate_hz",
        hint="add it: arrivals are in samples, and the rate tells when they are",
    )


def _rows(table: pd.DataFrame, phase: str, times: pd.Series) -> pa.Table:
    def text(name: str) -> pa.Array:
        if name not in table:
            return pa.array([""] * len(table), pa.string())
        return pa.array(table[name].fillna("").astype(str).str.strip().tolist(), pa.string())

    columns = {
        "network": text("station_network_code"),
        "station": text("station_code"),
        "location": text("station_location_code"),
        "channel": text("trace_channel"),
        "phase": pa.array([phase] * len(table), pa.string()),
        "time": pa.array(times.dt.tz_localize(None).to_numpy().astype("M8[us]")).cast(
            pa.timestamp("us", tz="UTC")
        ),
    }
    missing = {
        field.name: pa.nulls(len(table), field.type)
        for field in PICK_SCHEMA
        if field.name not in columns
    }
    return pa.table(columns | missing).select(PICK_SCHEMA.names).cast(PICK_SCHEMA)
