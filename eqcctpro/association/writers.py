"""Events as QuakeML, as tables, and as NonLinLoc's phase file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eqcctpro.association.associate import Association
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
    resource_part,
    scml_pick,
)
from eqcctpro.picks.formats.rows import ExportOptions, PickRow, pick_rows
from eqcctpro.picks.writers import atomic_file, write_csv
from eqcctpro.times import moment_text

__all__ = ["write_association"]

Event = tuple[dict[str, Any], list[tuple[PickRow, float]]]


def write_association(
    association: Association, folder: str | Path, options: ExportOptions | None = None
) -> list[Path]:
    """Write ``events.quakeml``, ``events.scml``, two tables and ``events.obs``.

    The tables are ``events.csv`` and ``event_picks.csv``.  The phase file has one block for each
    event, which is how NonLinLoc reads them.

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
            file.write(_quakeml_event(event, picks, options).encode())
        file.write(QUAKEML_FOOT.encode())
    scml = root / "events.scml"
    with atomic_file(scml) as file:
        file.write(SCML_HEAD.encode())
        # All picks come first, then all origins, then all events.
        for write in (_scml_picks, _scml_origin, _scml_event):
            for event, picks in _events(association):
                file.write(write(event, picks, options).encode())
        file.write(SCML_FOOT.encode())
    _write_phases(association, phases, options)
    write_csv(association.events, root / "events.csv")
    picked = association.picks.take(association.assignments["pick"])
    table = association.assignments
    for name in ("network", "station", "location", "channel", "phase", "time", "probability"):
        table = table.append_column(name, picked[name])
    write_csv(table, root / "event_picks.csv")
    return [quakeml, scml, root / "events.csv", root / "event_picks.csv", phases]


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
    event: dict[str, Any], picks: list[tuple[PickRow, float]], options: ExportOptions
) -> str:
    time = moment_text(event["time"])
    name = _event_name(event)
    origin = f"smi:local/eqcctpro/origin/{name}"
    information = creation_info(options.agency)
    arrivals = "".join(
        f'<arrival publicID="smi:local/eqcctpro/arrival/{name}/{pick_id(row)}">'
        f"<pickID>smi:local/eqcctpro/pick/{pick_id(row)}</pickID>"
        f"<phase>{row.phase[:1].upper()}</phase><timeResidual>{residual:.4f}</timeResidual>"
        "</arrival>\n"
        for row, residual in picks
    )
    return (
        f'<event publicID="smi:local/eqcctpro/event/{name}">\n'
        f"<preferredOriginID>{origin}</preferredOriginID><type>earthquake</type>"
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
        + "".join(quakeml_pick(row, options) for row, _ in picks)
        + "</event>\n"
    )


def _event_name(event: dict[str, Any]) -> str:
    time = moment_text(event["time"]).replace("-", "").replace(":", "")
    return resource_part(f"{time}Z_{event['latitude']:.3f}_{event['longitude']:.3f}")


def _scml_picks(
    _: dict[str, Any], picks: list[tuple[PickRow, float]], options: ExportOptions
) -> str:
    return "".join(scml_pick(row, options) for row, _residual in picks)


def _scml_origin(
    event: dict[str, Any], picks: list[tuple[PickRow, float]], options: ExportOptions
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
        f"{creation_info(options.agency)}\n{arrivals}</origin>\n"
    )


def _scml_event(
    event: dict[str, Any], _: list[tuple[PickRow, float]], options: ExportOptions
) -> str:
    name = _event_name(event)
    return (
        f'<event publicID="eqcctpro/event/{name}">'
        f"<preferredOriginID>eqcctpro/origin/{name}</preferredOriginID>"
        "<type>earthquake</type><typeCertainty>suspected</typeCertainty>"
        f"{creation_info(options.agency)}"
        f"<originReference>eqcctpro/origin/{name}</originReference></event>\n"
    )
