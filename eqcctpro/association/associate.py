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

from eqcctpro.association.pyocto_environment import python_with_pyocto
from eqcctpro.association.settings import AssociationSettings
from eqcctpro.errors import EQCCTProError, InputError
from eqcctpro.station_coordinates import StationTable

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
    outside_epochs : list of str
        Stations of which picks were left out that lie in none of their epochs, and the epochs.
    """

    events: pa.Table
    assignments: pa.Table
    picks: pa.Table = field(repr=False)
    without_coordinates: list[str]
    settings: AssociationSettings = field(default_factory=AssociationSettings)
    stations: int = 0
    outside_epochs: list[str] = field(default_factory=list)


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
    phase = pc.utf8_upper(pc.utf8_slice_codeunits(picks["phase"], 0, 1))
    is_phase = np.asarray(pc.is_in(phase, pa.array(["P", "S"])))
    times = picks["time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    site, unknown, outside = _sites_of(names, times, stations)
    rows = np.flatnonzero(is_phase & (site >= 0))
    if not len(rows):
        raise _no_picks(picks.num_rows, stations, unknown, outside)
    kept = pa.array(rows)
    count = len(pc.unique(names.take(kept)))
    settings = (settings or AssociationSettings()).for_stations(count)
    used, of_used = _used_sites(stations, site[rows], (int(times.min()), int(times.max())))
    output = _run_pyocto(
        {
            "names": np.array(_names_of_sites(stations, used)),
            "latitude": np.array(stations.latitude)[used],
            "longitude": np.array(stations.longitude)[used],
            "elevation_m": np.array(stations.elevation_m)[used],
            "station": of_used,
            "is_p": np.asarray(pc.equal(phase.take(kept), "P")),
            "time_s": times[rows] / 1e6,
        },
        settings,
        python_with_pyocto(install=install),
    )
    events, assignments = _tables(output, picks, rows)
    return Association(events, assignments, picks, unknown, settings, count, outside)


def _sites_of(
    names: pa.ChunkedArray, times_us: NDArray[np.int64], stations: StationTable
) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """Coordinates of stations at the times of picks.

    Returns
    -------
    ndarray of int64
        Row of `stations` for each pick, or -1.
    list of str
        Stations that are not there.
    list of str
        Stations that were nowhere at the time of a pick, and their epochs.
    """
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(stations.names):
        rows_of.setdefault(name, []).append(row)
    encoded = names.combine_chunks().dictionary_encode()
    which = encoded.indices.to_numpy()
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(encoded.dictionary)))
    site = np.full(len(which), -1, np.int64)
    unknown, outside = [], []
    for name, members in zip(
        encoded.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=len(order) > 0
    ):
        if name not in rows_of:
            unknown.append(name)
            continue
        for row in rows_of[name]:
            start, end = stations.epoch(row)
            inside = (times_us[members] >= start) & (times_us[members] < end)
            site[members[inside]] = row
        if (site[members] < 0).any():
            outside.append(f"{name} ({stations.epochs_text(name)})")
    return site, sorted(unknown), sorted(outside)


def _used_sites(
    stations: StationTable, of_picks: NDArray[np.int64], span_us: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Rows of stations that take part: those that were there while picks were made.

    Rows of a station at one place are one.

    Returns
    -------
    ndarray of int64
        Rows of `stations`.
    ndarray of intp
        Which of these each pick has.
    """
    place: dict[tuple[object, ...], int] = {}
    same = np.empty(len(stations.names), np.int64)
    for row, name in enumerate(stations.names):
        where = stations.latitude[row], stations.longitude[row], stations.elevation_m[row]
        same[row] = place.setdefault((name, *where), row)
    epochs = [stations.epoch(row) for row in range(len(same))]
    there = [row for row, (a, b) in enumerate(epochs) if a <= span_us[1] and b > span_us[0]]
    used = np.unique(same[there])
    return used, np.searchsorted(used, same[of_picks])


def _names_of_sites(stations: StationTable, rows: NDArray[np.int64]) -> list[str]:
    """Names that tell the places of a station apart that was moved between the picks."""
    count: dict[str, int] = {}
    names = []
    for row in rows.tolist():
        name = stations.names[row]
        count[name] = count.get(name, 0) + 1
        names.append(name if count[name] == 1 else f"{name}#{count[name]}")
    return names


def _no_picks(
    count: int, stations: StationTable, unknown: list[str], outside: list[str]
) -> InputError:
    if outside:
        return InputError(
            f"none of {count} picks is a P or S at a station that has an epoch then",
            hint=f"epochs: {'; '.join(outside[:5])}",
        )
    return InputError(
        f"none of {count} picks is a P or S at a station with coordinates",
        hint=f"the stations are {', '.join(stations.names[:5])} ..., the picks at "
        f"{', '.join(unknown[:5]) or 'none'}",
    )


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
        script = Path(__file__).with_name("pyocto_worker.py")
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
