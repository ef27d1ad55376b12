"""Events as QuakeML, as tables, and as NonLinLoc's phase file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from eqcctpro.association.associate import Association
from eqcctpro.association.magnitudes import WOOD_ANDERSON_GAIN, Magnitudes
from eqcctpro.association.pyocto_environment import PYOCTO
from eqcctpro.picks.formats.nonlinloc import labels_of_stations, nonlinloc_line
from eqcctpro.picks.formats.quakeml import (
    QUAKEML_FOOT,
    QUAKEML_HEAD,
    SCML_FOOT,
    SCML_HEAD,
    creation_info,
    pick_id,
    quakeml_pick,
    quakeml_waveform,
    resource_part,
    scml_pick,
)
from eqcctpro.picks.formats.rows import ExportOptions, PickRow, pick_rows
from eqcctpro.picks.formats.station_tables import PickedStations, write_station_file
from eqcctpro.picks.writers import atomic_file, write_csv
from eqcctpro.station_coordinates import StationTable
from eqcctpro.times import moment_text

__all__ = ["write_association"]

Event = tuple[dict[str, Any], list[tuple[PickRow, float]]]


def write_association(
    association: Association,
    folder: str | Path,
    options: ExportOptions | None = None,
    magnitudes: Magnitudes | None = None,
    stations: StationTable | None = None,
) -> list[Path]:
    """Write ``events.quakeml``, ``events.scml``, two tables and ``events.obs``.

    The tables are ``events.csv`` and ``event_picks.csv``.  The phase file has one block for each
    event, which is how NonLinLoc reads them.

    Parameters
    ----------
    association : Association
    folder : path
    options : ExportOptions, optional
    magnitudes : Magnitudes, optional
        Are written to QuakeML and SCML and to ``events.csv``, and those of stations to
        ``station_magnitudes.csv``.
    stations : StationTable, optional
        Are written to ``events.in``, with which NonLinLoc locates the phases of ``events.obs``.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    root, options = Path(folder), options or ExportOptions()
    quakeml, phases = root / "events.quakeml", root / "events.obs"
    with atomic_file(quakeml) as file:
        file.write(QUAKEML_HEAD.encode())
        for event, picks in _events(association):
            sizes = _sizes(association, magnitudes, event)
            file.write(_quakeml_event(event, picks, options, sizes).encode())
        file.write(QUAKEML_FOOT.encode())
    scml = root / "events.scml"
    with atomic_file(scml) as file:
        file.write(SCML_HEAD.encode())
        # All picks come first, then all origins, then all events.
        for write in (_scml_picks, _scml_origin, _scml_event):
            for event, picks in _events(association):
                sizes = _sizes(association, magnitudes, event)
                file.write(write(event, picks, options, sizes).encode())
        file.write(SCML_FOOT.encode())
    _write_phases(association, phases, options)
    events = association.events
    if magnitudes is not None:
        for name in magnitudes.events.column_names[1:]:
            events = events.append_column(name, magnitudes.events[name])
    write_csv(events, root / "events.csv")
    members = association.picks.take(association.assignments["pick"])
    table = association.assignments
    for name in ("network", "station", "location", "channel", "phase", "time", "probability"):
        table = table.append_column(name, members[name])
    write_csv(table, root / "event_picks.csv")
    paths = [quakeml, scml, root / "events.csv", root / "event_picks.csv", phases]
    if stations is not None and len(members):
        picked = PickedStations()
        for _ in picked.noting(members.combine_chunks().to_batches()):
            pass
        paths.append(write_station_file(picked, stations, phases, "nonlinloc"))
    if magnitudes is not None:
        paths.append(root / "station_magnitudes.csv")
        of_stations = magnitudes.stations
        owners = association.picks.take(of_stations["pick"])
        for name in ("network", "station", "location", "channel", "time"):
            of_stations = of_stations.append_column(name, owners[name])
        write_csv(of_stations, paths[-1])
    return paths


class _Size(NamedTuple):
    """Local magnitude of an event, and those of its stations with their picks."""

    value: float
    std: float | None
    attenuation: str
    stations: list[tuple[PickRow, float, float]]


def _sizes(
    association: Association, magnitudes: Magnitudes | None, event: dict[str, Any]
) -> _Size | None:
    """Magnitudes of an event, with amplitude in mm and magnitude of each station."""
    if magnitudes is None:
        return None
    row = magnitudes.events.slice(event["event"], 1).to_pylist()[0]
    if row["local_magnitude"] is None:
        return None
    here = magnitudes.stations.filter(pc.equal(magnitudes.stations["event"], event["event"]))
    picks = association.picks.take(here["pick"]).combine_chunks()
    rows = [one for batch in picks.to_batches() for one in pick_rows(batch)]
    values = (here[name].to_pylist() for name in ("wood_anderson_mm", "magnitude"))
    return _Size(
        row["local_magnitude"],
        row["magnitude_std"],
        magnitudes.attenuation.name,
        list(zip(rows, *values, strict=True)),
    )


def _quakeml_size(size: _Size, name: str, options: ExportOptions) -> str:
    """Amplitudes, station magnitudes and the magnitude of an event, as QuakeML."""
    about, method = creation_info(options.agency), f"smi:local/eqcctpro/ml/{size.attenuation}"
    origin, parts, contributions = f"smi:local/eqcctpro/origin/{name}", [], []
    for row, amplitude_mm, value in size.stations:
        key = f"{name}/{pick_id(row)}"
        codes = quakeml_waveform(row.network, row.station, row.location, row.channel)
        ground_m = amplitude_mm / 1000 / WOOD_ANDERSON_GAIN
        parts.append(
            f'<amplitude publicID="smi:local/eqcctpro/amplitude/{key}">'
            f"<genericAmplitude><value>{ground_m:.6g}</value></genericAmplitude><type>AML</type>"
            f"<unit>m</unit><pickID>smi:local/eqcctpro/pick/{pick_id(row)}</pickID>{codes}"
            f"<magnitudeHint>ML</magnitudeHint>{about}</amplitude>\n"
            f'<stationMagnitude publicID="smi:local/eqcctpro/stationMagnitude/{key}">'
            f"<originID>{origin}</originID><mag><value>{value:.3f}</value></mag><type>ML</type>"
            f"<amplitudeID>smi:local/eqcctpro/amplitude/{key}</amplitudeID>"
            f"<methodID>{method}</methodID>{codes}{about}</stationMagnitude>\n"
        )
        contributions.append(
            "<stationMagnitudeContribution><stationMagnitudeID>"
            f"smi:local/eqcctpro/stationMagnitude/{key}</stationMagnitudeID>"
            f"<residual>{value - size.value:.3f}</residual></stationMagnitudeContribution>\n"
        )
    return (
        "".join(parts) + f'<magnitude publicID="smi:local/eqcctpro/magnitude/{name}">'
        f"<mag><value>{size.value:.3f}</value>{_std(size)}</mag><type>ML</type>"
        f"<originID>{origin}</originID><methodID>{method}</methodID>"
        f"<stationCount>{len(size.stations)}</stationCount>"
        "<evaluationMode>automatic</evaluationMode>"
        f"{about}\n{''.join(contributions)}</magnitude>\n"
    )


def _std(size: _Size) -> str:
    return "" if size.std is None else f"<uncertainty>{size.std:.3f}</uncertainty>"


def _write_phases(association: Association, path: Path, options: ExportOptions) -> None:
    picked = association.picks.take(association.assignments["pick"])
    stations = picked.group_by(["network", "station"]).aggregate([])
    labels = labels_of_stations(
        zip(stations["network"].to_pylist(), stations["station"].to_pylist(), strict=True)
    )
    with atomic_file(path) as file:
        for _, picks in _events(association):
            lines = (
                nonlinloc_line(row, labels[row.network, row.station], options) for row, _ in picks
            )
            file.write(f"{''.join(lines)}\n".encode())


def _events(association: Association) -> Iterator[Event]:
    """Each event with its picks; only those of one event are Python objects at a time."""
    ends = np.cumsum(association.events["picks"].to_numpy())
    assigned = association.assignments
    for event, end in zip(association.events.to_pylist(), ends.tolist(), strict=True):
        part = assigned.slice(end - event["picks"], event["picks"])
        picks = association.picks.take(part["pick"]).combine_chunks()
        rows = [row for batch in picks.to_batches() for row in pick_rows(batch)]
        yield event, list(zip(rows, part["residual_s"].to_pylist(), strict=True))


def _quakeml_event(
    event: dict[str, Any],
    picks: list[tuple[PickRow, float]],
    options: ExportOptions,
    size: _Size | None,
) -> str:
    time = moment_text(event["time"])
    name = _event_name(event)
    origin = f"smi:local/eqcctpro/origin/{name}"
    information = creation_info(options.agency)
    preferred = ""
    if size is not None:
        magnitude = f"smi:local/eqcctpro/magnitude/{name}"
        preferred = f"<preferredMagnitudeID>{magnitude}</preferredMagnitudeID>"
    arrivals = "".join(
        f'<arrival publicID="smi:local/eqcctpro/arrival/{name}/{pick_id(row)}">'
        f"<pickID>smi:local/eqcctpro/pick/{pick_id(row)}</pickID>"
        f"<phase>{row.phase[:1].upper()}</phase><timeResidual>{residual:.4f}</timeResidual>"
        "</arrival>\n"
        for row, residual in picks
    )
    return (
        f'<event publicID="smi:local/eqcctpro/event/{name}">\n'
        f"<preferredOriginID>{origin}</preferredOriginID>{preferred}<type>earthquake</type>"
        f"<typeCertainty>suspected</typeCertainty>{information}\n"
        f'<origin publicID="{origin}"><time><value>{time}Z</value></time>'
        f"<latitude><value>{event['latitude']:.6f}</value></latitude>"
        f"<longitude><value>{event['longitude']:.6f}</value></longitude>"
        f"<depth><value>{event['depth_km'] * 1000:.1f}</value></depth>"
        f"<methodID>smi:local/pyocto/{PYOCTO}</methodID>"
        f"<quality><usedPhaseCount>{event['picks']}</usedPhaseCount>"
        f"<usedStationCount>{event['stations']}</usedStationCount>"
        f"<standardError>{event['rms_s']:.4f}</standardError></quality>"
        f"<evaluationMode>automatic</evaluationMode><evaluationStatus>preliminary"
        f"</evaluationStatus>{information}\n{arrivals}</origin>\n"
        + ("" if size is None else _quakeml_size(size, name, options))
        + "".join(quakeml_pick(row, options) for row, _ in picks)
        + "</event>\n"
    )


def _event_name(event: dict[str, Any]) -> str:
    time = moment_text(event["time"]).replace("-", "").replace(":", "")
    return resource_part(f"{time}Z_{event['latitude']:.3f}_{event['longitude']:.3f}")


def _scml_picks(
    _: dict[str, Any],
    picks: list[tuple[PickRow, float]],
    options: ExportOptions,
    size: _Size | None,
) -> str:
    del size  # amplitudes are in QuakeML only
    return "".join(scml_pick(row, options) for row, _residual in picks)


def _scml_size(size: _Size, name: str, options: ExportOptions) -> str:
    """Station magnitudes and the magnitude of an origin, in the order of SCML's schema."""
    about, parts, contributions = creation_info(options.agency), [], []
    for row, _, value in size.stations:
        key = f"eqcctpro/stationMagnitude/{name}/{pick_id(row)}"
        parts.append(
            f'<stationMagnitude publicID="{key}"><originID>eqcctpro/origin/{name}</originID>'
            f"<magnitude><value>{value:.3f}</value></magnitude><type>ML</type>"
            f"<methodID>{size.attenuation}</methodID>"
            f"{quakeml_waveform(row.network, row.station, row.location, row.channel)}"
            f"{about}</stationMagnitude>\n"
        )
        contributions.append(
            f"<stationMagnitudeContribution><stationMagnitudeID>{key}</stationMagnitudeID>"
            f"<residual>{value - size.value:.3f}</residual></stationMagnitudeContribution>\n"
        )
    return (
        "".join(parts) + f'<magnitude publicID="eqcctpro/magnitude/{name}">'
        f"<magnitude><value>{size.value:.3f}</value>{_std(size)}</magnitude><type>ML</type>"
        f"<originID>eqcctpro/origin/{name}</originID><methodID>{size.attenuation}</methodID>"
        f"<stationCount>{len(size.stations)}</stationCount>{about}\n"
        f"{''.join(contributions)}</magnitude>\n"
    )


def _scml_origin(
    event: dict[str, Any],
    picks: list[tuple[PickRow, float]],
    options: ExportOptions,
    size: _Size | None,
) -> str:
    """An origin of SCML: depth in km, and elements in the order of its schema."""
    arrivals = "".join(
        f"<arrival><pickID>eqcctpro/pick/{pick_id(row)}</pickID>"
        f"<phase>{row.phase[:1].upper()}</phase><timeResidual>{residual:.4f}</timeResidual>"
        "</arrival>\n"
        for row, residual in picks
    )
    return (
        f'<origin publicID="eqcctpro/origin/{_event_name(event)}">'
        f"<time><value>{moment_text(event['time'])}Z</value></time>"
        f"<latitude><value>{event['latitude']:.6f}</value></latitude>"
        f"<longitude><value>{event['longitude']:.6f}</value></longitude>"
        f"<depth><value>{event['depth_km']:.4f}</value></depth>"
        f"<methodID>pyocto/{PYOCTO}</methodID>"
        f"<quality><usedPhaseCount>{event['picks']}</usedPhaseCount>"
        f"<usedStationCount>{event['stations']}</usedStationCount>"
        f"<standardError>{event['rms_s']:.4f}</standardError></quality>"
        "<evaluationMode>automatic</evaluationMode>"
        "<evaluationStatus>preliminary</evaluationStatus>"
        f"{creation_info(options.agency)}\n{arrivals}"
        f"{'' if size is None else _scml_size(size, _event_name(event), options)}</origin>\n"
    )


def _scml_event(
    event: dict[str, Any],
    _: list[tuple[PickRow, float]],
    options: ExportOptions,
    size: _Size | None,
) -> str:
    name = _event_name(event)
    magnitude = f"<preferredMagnitudeID>eqcctpro/magnitude/{name}</preferredMagnitudeID>"
    return (
        f'<event publicID="eqcctpro/event/{name}">'
        f"<preferredOriginID>eqcctpro/origin/{name}</preferredOriginID>"
        f"{'' if size is None else magnitude}"
        "<type>earthquake</type><typeCertainty>suspected</typeCertainty>"
        f"{creation_info(options.agency)}"
        f"<originReference>eqcctpro/origin/{name}</originReference></event>\n"
    )
