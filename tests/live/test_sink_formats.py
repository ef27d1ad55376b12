"""Picks for SeisComP, GLASS3 and ANSS: files of a spool, and JSON of other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_messages import message
from scml_picks import scml_picks_through_obspy

from eqcctpro.errors import SettingsError
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.outbox import Outbox
from eqcctpro.live.sinks.base import Place, RejectedError
from eqcctpro.live.sinks.opening import Sinks, check_sinks
from eqcctpro.live.sinks.payload import anss_pick, glass3_pick, payload_of
from eqcctpro.live.sinks.target import read_target


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "state.sqlite")
    yield box
    box.close()


Spool = Callable[..., list[Path]]


@pytest.fixture
def spool(tmp_path: Path, outbox: Outbox) -> Spool:
    """Let a spool take what waits; its files."""

    def take(kind: str, options: str = "") -> list[Path]:
        folder = tmp_path / "spool"
        sink = check_sinks([f"{kind}:{folder}{options}"])[-1]
        with Sinks([sink], Place(tmp_path, outbox)) as sinks:
            sinks.close()
            assert [one.last_error for one in sinks.state()] == [""]
        return sorted(folder.iterdir())

    return take


def picks_of(path: Path) -> dict[str, tuple[str, str, str]]:
    from obspy import read_events

    return {
        pick.resource_id.id.partition("/pick/")[2]: (
            pick.time.isoformat(),
            pick.phase_hint,
            pick.waveform_id.station_code,
        )
        for pick in (
            scml_picks_through_obspy(path) if path.suffix == ".scml" else read_events(path)[0].picks
        )
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scml", "quakeml"])
def test_files_are_valid_and_read_by_obspy(kind: str, outbox: Outbox, spool: Spool) -> None:
    from lxml import etree
    from obspy.io import quakeml, seiscomp

    picks = [message(n, station="<&>" if n == 1 else "S1") for n in range(103)]
    picks[0] = message(0, snr=8.5, mb=123.25)
    early = message(500, status="preliminary")
    outbox.commit([*picks, early, message(3, version=2, status="retracted")])
    files = spool(kind, "?agency=TEST&send=all")
    assert [file.name for file in files] == [
        f"000000000001-000000000100.{kind}",
        f"000000000101-000000000105.{kind}",
    ]
    schema = {
        "quakeml": Path(quakeml.__file__).parent / "data" / "QuakeML-1.2.xsd",
        "scml": Path(seiscomp.__file__).parent / "data" / "sc3ml_0.12.xsd",
    }[kind]
    rules = etree.XMLSchema(etree.parse(str(schema)))
    for file in files:
        rules.assertValid(etree.parse(str(file)))
    found = picks_of(files[0]) | picks_of(files[1])
    assert found.keys() == {one.id for one in [*picks, early]}
    assert found[picks[102].id][1:] == ("P", "S1")
    assert found[picks[1].id][2] == "<&>"
    text = files[1].read_text()
    assert text.count("<evaluationStatus>preliminary</evaluationStatus>") == 1
    assert text.count("<evaluationStatus>rejected</evaluationStatus>") == 1
    assert "<agencyID>TEST</agencyID>" in text


def test_scml_has_the_amplitudes_that_scautoloc_wants(outbox: Outbox, spool: Spool) -> None:
    from lxml import etree

    outbox.commit([message(0, snr=8.5, mb=123.25), message(1, snr=float("nan")), message(2)])
    (file,) = spool("scml")
    tree = etree.parse(str(file)).getroot()
    names = {"s": tree.nsmap[None]}
    found = [
        (
            one.findtext("s:type", namespaces=names),
            float(one.findtext("s:amplitude/s:value", namespaces=names)),
            one.findtext("s:pickID", namespaces=names),
        )
        for one in tree.iterfind(".//s:amplitude[s:type]", names)
    ]
    pick = f"eqcctpro/pick/{message(0).id}"
    assert found == [("snr", 8.5, pick), ("mb", 123.25, pick)]
    assert tree.xpath("//s:pick/@publicID", namespaces=names)[0] == pick
    assert len(tree.xpath("//s:pick", namespaces=names)) == 3


def test_a_file_that_is_taken_away_is_not_written_again(
    tmp_path: Path, outbox: Outbox, spool: Spool
) -> None:
    outbox.commit([message(n) for n in range(4)])
    (file,) = spool("quakeml")
    content = file.read_bytes()
    # Killed behind the cursor, before the file had its name; and one of before the cursor.
    file.rename(file.with_name(f".{file.name}.part"))
    file.with_name(".000000000005-000000000009.quakeml.part").write_text("cut o")
    assert spool("quakeml") == [file] and file.read_bytes() == content
    file.unlink()
    assert spool("quakeml") == []
    outbox.commit([message(4)])
    assert [path.name for path in spool("quakeml")] == ["000000000005-000000000005.quakeml"]


def test_a_spool_of_json_has_a_pick_in_each_line(outbox: Outbox, spool: Spool) -> None:
    outbox.commit([message(n) for n in range(3)] + [message(9, status="preliminary")])
    (file,) = spool("glass3", "?agency=US")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert file.suffix == ".jsonpick" and [one["ID"] for one in lines] == [
        message(n).id for n in range(3)
    ]


def test_a_pick_of_glass3() -> None:
    assert json.loads(glass3_pick(message(0, components="EZ", snr=7.5), "US")) == {
        "Type": "Pick",
        "ID": message(0).id,
        "Site": {"Station": "S0", "Channel": "HHZ", "Network": "NC", "Location": "--"},
        "Time": "2024-03-02T23:59:00.000Z",
        "Source": {"AgencyID": "US", "Author": "eqcctpro"},
        "Phase": "P",
        "Picker": "other",
        "Amplitude": {"SNR": 7.5},
    }


def test_a_pick_of_anss() -> None:
    one = message(0, components="EN", location="00")
    source = {"agencyID": "US", "author": "eqcctpro"}
    assert json.loads(anss_pick(one, "US")) == {
        "type": "Pick",
        "id": one.id,
        "channel": {
            "type": "Feature",
            "properties": {
                "station": "S0",
                "channel": "HHE",
                "network": "NC",
                "location": "00",
            },
        },
        "source": source,
        "time": "2024-03-02T23:59:00.000Z",
        "phase": "P",
        "method": "PhaseNet/original",
        "analyticsInfo": {
            "predictions": [
                {
                    "label": "phase",
                    "value": "P",
                    "probability": 0.5,
                    "modelID": "PhaseNet",
                    "modelVersion": "original",
                    "source": source,
                }
            ]
        },
    }


def test_a_pick_of_anss_is_one_for_their_library() -> None:
    formats = pytest.importorskip("anssformats.pick", reason="anss-formats is not installed")
    one = formats.Pick.model_validate_json(anss_pick(message(0, snr=3.0), "US"))
    assert (one.id, one.phase, one.amplitudeInfo.snr) == (message(0).id, "P", 3.0)


def test_other_formats_cannot_take_back_and_have_no_versions() -> None:
    with pytest.raises(RejectedError, match="retracted"):
        anss_pick(message(0, status="retracted"), "US")
    sink = check_sinks(["redis://h/picks?format=anss&agency=US"])[-1]
    assert sink.sends == "final"
    assert json.loads(payload_of(sink.target)(message(0)))["type"] == "Pick"
    plain = payload_of(read_target("redis://h/picks"))
    assert PickMessage.from_json(plain(message(0))) == message(0)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/picks?format=xml", "format=xml is unknown"),
        ("redis://h/picks?format=anss", "agency"),
        ("redis://h/picks?format=anss&agency=US&send=all", "send=all is not possible"),
        ("glass3:/spool", "agency"),
        ("anss:/spool?agency=US&send=all", "send=all is not possible"),
        ("scml:", "a folder is expected"),
        ("scml://host/spool", "a folder is expected"),
        ("mqtt://h/a/+/b", "no . and no #"),
        ("nats://h/picks.*", "no subject"),
        ("postgresql://h/db?table=a.b.c", "TABLE or SCHEMA"),
        ("postgresql://h", "database"),
        ("kafka://h", "topic"),
    ],
)
def test_a_wrong_address_is_named(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_sinks([url])
