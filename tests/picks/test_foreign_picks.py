"""Picks as other programs write them: phases of arrivals, stations of one code."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from obspy import UTCDateTime, read_events
from obspy.core.event import (
    Arrival,
    Catalog,
    Event,
    Origin,
    Pick,
    ResourceIdentifier,
    WaveformStreamID,
)

from eqcctpro.picks.formats import write_picks
from eqcctpro.picks.formats.nonlinloc import labels_of_stations
from eqcctpro.picks.reading import read_picks

TIME = UTCDateTime("2024-12-15T12:00:00")


def made_pick(name: str, phase: str | None = None) -> Pick:
    return Pick(
        resource_id=ResourceIdentifier(f"smi:local/pick/{name}"),
        time=TIME + ord(name),
        waveform_id=WaveformStreamID("XX", f"S{name}", "", "HHZ"),
        phase_hint=phase,
    )


def made_origin(name: str, phases: dict[str, str]) -> Origin:
    return Origin(
        resource_id=ResourceIdentifier(f"smi:local/origin/{name}"),
        time=TIME,
        latitude=0,
        longitude=0,
        arrivals=[
            Arrival(pick_id=ResourceIdentifier(f"smi:local/pick/{pick}"), phase=phase)
            for pick, phase in phases.items()
        ],
    )


@pytest.fixture
def catalogue() -> Catalog:
    """Two events; picks without hints, an origin that is preferred and one that is not."""
    first = Event(
        picks=[made_pick("a"), made_pick("b", "S"), made_pick("c"), made_pick("d")],
        origins=[
            made_origin("old", {"a": "S", "c": "Sg"}),
            made_origin("new", {"a": "Pn", "b": "P"}),
        ],
        preferred_origin_id=ResourceIdentifier("smi:local/origin/new"),
    )
    second = Event(picks=[made_pick("e")], origins=[made_origin("only", {"e": "P"})])
    return Catalog([first, second])


PHASES = {"a": "Pn", "b": "S", "c": "Sg", "d": "", "e": "P"}


@pytest.mark.parametrize(("format", "name"), [("QUAKEML", "c.quakeml"), ("SC3ML", "c.scml")])
def test_phases_of_arrivals(
    catalogue: Catalog,
    format: str,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / name
    catalogue.write(str(path), format=format)
    with caplog.at_level(logging.WARNING, logger="eqcctpro"):
        table = read_picks(path)
    found = dict(zip(table["station"].to_pylist(), table["phase"].to_pylist(), strict=True))
    assert found == {f"S{letter}": phase for letter, phase in PHASES.items()}
    for station, moment in zip(
        *(table[name].to_pylist() for name in ("station", "time")), strict=True
    ):
        assert moment == (TIME + ord(station[1])).datetime.replace(tzinfo=moment.tzinfo)
    assert "1 picks have neither a phase nor an arrival" in caplog.text


def test_picks_before_and_after_their_origin(catalogue: Catalog, tmp_path: Path) -> None:
    """QuakeML leaves the order of an event's elements open."""
    path = tmp_path / "c.quakeml"
    catalogue.write(str(path), format="QUAKEML")
    text = path.read_text()
    start, end = text.index("<pick "), text.rindex("</pick>", 0, text.index("</event>")) + 7
    moved = text[:start] + text[end:]
    place = moved.index("</event>")
    path.write_text(moved[:place] + text[start:end] + moved[place:])
    assert len(read_events(str(path))[0].picks) == 4
    table = read_picks(path)
    found = dict(zip(table["station"].to_pylist(), table["phase"].to_pylist(), strict=True))
    assert found == {f"S{letter}": phase for letter, phase in PHASES.items()}


def test_stations_of_one_code_in_nonlinloc(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stations = [("XX", "ABC"), ("YY", "ABC"), ("XX", "DEF"), ("XX", "A B"), ("XX", "A_B")]
    lines = [f"{n},{s},P,2024-12-15T12:00:{i:02d}" for i, (n, s) in enumerate(stations)]
    path = tmp_path / "picks.csv"
    path.write_text("\n".join(["network,station,phase,time", *lines, *lines]))
    with caplog.at_level(logging.WARNING, logger="eqcctpro"):
        write_picks(read_picks(path), tmp_path / "picks.obs", "nonlinloc")
    labels = [line.split()[0] for line in (tmp_path / "picks.obs").read_text().splitlines()]
    assert labels[:3] == ["XX_ABC", "YY_ABC", "DEF"]
    assert labels[:5] == labels[5:]
    assert len(set(labels)) == 5
    for name in ("XX.ABC is XX_ABC", "YY.ABC is YY_ABC", "XX.A B is XX.A~20B"):
        assert name in caplog.text


def test_labels_are_unique() -> None:
    stations = [("XX", "A"), ("YY", "A"), ("", "XX_A"), ("X", "X_A"), ("", "A"), ("?", "A")]
    labels = labels_of_stations(stations)
    assert len(set(labels.values())) == len(stations)
    assert labels_of_stations([("XX", "A"), ("XX", "B")]) == {("XX", "A"): "A", ("XX", "B"): "B"}


def test_identifiers_of_picks_are_unique(tmp_path: Path) -> None:
    codes = ["A/B", "A_B", "A B", "A~2FB", "A:B", "A%B"]
    path = tmp_path / "picks.csv"
    rows = [f"XX,{code},P,2024-12-15T12:00:00" for code in codes]
    path.write_text("\n".join(["network,station,phase,time", *rows]))
    table = read_picks(path)
    write_picks(table, tmp_path / "picks.quakeml", "quakeml")
    (event,) = read_events(str(tmp_path / "picks.quakeml"))
    assert len({str(pick.resource_id) for pick in event.picks}) == len(codes)
    assert (
        read_picks(tmp_path / "picks.quakeml")
        .select(["station", "time"])
        .equals(table.select(["station", "time"]))
    )
