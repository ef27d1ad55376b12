"""From a pick table to events, through PyOcto."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eqcctpro.association import pyocto_worker
from eqcctpro.association.pyocto_environment import python_with_pyocto
from eqcctpro.association.settings import AssociationSettings
from eqcctpro.association.stations import StationTable
from eqcctpro.errors import EQCCTProError, InputError

__all__ = ["Association", "associate"]


@dataclass(frozen=True)
class Association:
    """Events and the picks that belong to them.

    Attributes
    ----------
    events : pyarrow.Table
        event (a number from 0, in the order of time), time (UTC), latitude, longitude, depth_km,
        picks, p_picks, s_picks, stations, rms_s (of the residuals).
    assignments : pyarrow.Table
        event, pick (row of `picks`), residual_s; in the order of events and times.
    picks : pyarrow.Table
        The pick table that was given.
    without_coordinates : list of str
        Stations whose picks were left out.
    settings : AssociationSettings
        What applied; the numbers of picks are those for `stations`.
    stations : int
        Stations with coordinates and picks.
    """

    events: pa.Table
    assignments: pa.Table
    picks: pa.Table = field(repr=False)
    without_coordinates: list[str]
    settings: AssociationSettings = field(default_factory=AssociationSettings)
    stations: int = 0


def associate(
    picks: pa.Table,
    stations: StationTable,
    settings: AssociationSettings | None = None,
    *,
    install: bool = True,
) -> Association:
    """Find events whose arrivals the picks are.

    Parameters
    ----------
    picks : pyarrow.Table
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`; P and S take part.
    stations : StationTable
    settings : AssociationSettings, optional
        Numbers of picks that are left open depend on how many stations have picks.
    install : bool
        Let PyOcto be installed in an environment of its own if it is not here.

    Raises
    ------
    InputError
        No pick is at a station with coordinates.
    SettingsError
        More picks of an event are wanted than the stations can give.
    RuntimeUnavailableError
        PyOcto is not here and cannot be installed.
    EQCCTProError
        PyOcto failed.
    """
    names = pc.binary_join_element_wise(picks["network"], picks["station"], ".")
    where = pc.index_in(names, pa.array(stations.names))
    phase = pc.utf8_upper(pc.utf8_slice_codeunits(picks["phase"], 0, 1))
    is_phase = pc.is_in(phase, pa.array(["P", "S"]))
    unknown = pc.unique(names.filter(pc.is_null(where))).to_pylist()
    rows = np.flatnonzero(np.asarray(pc.and_(is_phase, pc.is_valid(where))))
    if not len(rows):
        raise InputError(
            f"none of {picks.num_rows} picks is a P or S at a station with coordinates",
            hint=f"the stations are {', '.join(stations.names[:5])} ..., the picks at "
            f"{', '.join(unknown[:5]) or 'none'}",
        )
    kept = pa.array(rows)
    count = len(pc.unique(where.take(kept)))
    settings = (settings or AssociationSettings()).for_stations(count)
    times = picks["time"].cast(pa.timestamp("us")).cast(pa.int64()).take(kept).to_numpy()
    output = _run_pyocto(
        {
            "names": np.array(stations.names),
            "latitude": np.array(stations.latitude),
            "longitude": np.array(stations.longitude),
            "elevation_m": np.array(stations.elevation_m),
            "station": where.take(kept).to_numpy(),
            "is_p": np.asarray(pc.equal(phase.take(kept), "P")),
            "time_s": times / 1e6,
        },
        settings,
        python_with_pyocto(install=install),
    )
    events, assignments = _tables(output, picks, rows)
    return Association(events, assignments, picks, sorted(unknown), settings, count)


def _run_pyocto(
    arrays: dict[str, NDArray[np.generic]], settings: AssociationSettings, python: Path
) -> dict[str, NDArray[np.generic]]:
    with tempfile.TemporaryDirectory(prefix="eqcctpro-associate-") as name:
        folder = Path(name)
        values = asdict(settings)
        if settings.travel_times is not None:
            values["travel_times"] = str(settings.travel_times.resolve())
        (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")
        np.savez(folder / "input.npz", allow_pickle=False, **arrays)
        script = Path(pyocto_worker.__file__)
        # Isolated: the environment must see its own packages, and nothing of this one.
        ended = subprocess.run(
            [str(python), "-I", str(script), str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            raise EQCCTProError(
                f"PyOcto failed: {said[-1]}",
                hint="write its input with --format pyocto to look into it",
            )
        with np.load(folder / "output.npz", allow_pickle=False) as output:
            return {name: output[name] for name in output.files}


def _tables(
    output: dict[str, NDArray[np.generic]], picks: pa.Table, rows: NDArray[np.int64]
) -> tuple[pa.Table, pa.Table]:
    """Events, and the picks that belong to them."""
    order = np.argsort(output["time"], kind="stable")
    rank = {int(output["idx"][old]): new for new, old in enumerate(order.tolist())}
    event = np.array([rank[int(number)] for number in output["event"]], np.int64)
    pick = rows[output["pick"].astype(np.int64)]
    residual = output["residual"].astype(np.float64)
    times = picks["time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    sequence = np.lexsort((pick, times[pick], event))
    event, pick, residual = event[sequence], pick[sequence], residual[sequence]
    assigned = picks.take(pa.array(pick))
    is_p = np.asarray(
        pc.equal(pc.utf8_slice_codeunits(pc.utf8_upper(assigned["phase"]), 0, 1), "P")
    )
    names = pc.binary_join_element_wise(assigned["network"], assigned["station"], ".")
    station = names.combine_chunks().dictionary_encode().indices.to_numpy()
    count = len(order)
    total = np.bincount(event, minlength=count)
    pairs = np.unique(np.stack([event, station]), axis=1)
    squares = np.bincount(event, weights=residual**2, minlength=count)
    microseconds = np.rint(output["time"][order].astype(np.float64) * 1e6).astype(np.int64)
    events = pa.table(
        {
            "event": np.arange(count),
            "time": pa.array(microseconds).cast(pa.timestamp("us", tz="UTC")),
            "latitude": output["latitude"][order],
            "longitude": output["longitude"][order],
            "depth_km": output["depth"][order],
            "picks": total,
            "p_picks": np.bincount(event[is_p], minlength=count),
            "s_picks": np.bincount(event[~is_p], minlength=count),
            "stations": np.bincount(pairs[0], minlength=count),
            "rms_s": np.sqrt(squares / np.maximum(total, 1)),
        }
    )
    assignments = pa.table({"event": event, "pick": pick, "residual_s": residual})
    return events, assignments
