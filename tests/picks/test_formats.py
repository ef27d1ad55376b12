"""Picks in other programs' formats, read back by those programs."""

from __future__ import annotations

import csv
import io
import json
import warnings
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scml_picks import scml_picks_through_obspy

from eqcctpro.config import OutputFormat
from eqcctpro.errors import InputError, OutputError, SettingsError
from eqcctpro.picks.formats import FORMATS, ExportOptions, write_picks
from eqcctpro.picks.formats.rows import row_batches
from eqcctpro.picks.reading import read_picks
from eqcctpro.picks.table import PICK_SCHEMA

START = np.datetime64("2024-12-15T12:00:00", "us")
CHUNK = "20241215T120000Z_20241215T120200Z"


def table_of(rows: list[tuple[Any, ...]], **constant: str) -> pa.Table:
    """A pick table; a row is network, station, location, channel, phase, seconds, probability."""
    columns = list(zip(*rows, strict=True))
    times = START + np.round(np.array(columns[5]) * 1e6).astype("m8[us]")
    arrays: dict[str, Any] = dict(zip(PICK_SCHEMA.names[:5], columns[:5], strict=True))
    for name, shift in (("time", 0), ("start_time", -50_000), ("end_time", 70_000)):
        arrays[name] = pa.array(times + np.timedelta64(shift, "us")).cast(
            pa.timestamp("us", tz="UTC")
        )
    arrays["probability"] = pa.array(columns[6], pa.float32())
    facts = {"model": "PhaseNet", "weights": "original", "timechunk": CHUNK, "run_id": "0123abcd"}
    for name, value in (facts | constant).items():
        arrays[name] = [value] * len(rows)
    return pa.table({name: arrays[name] for name in PICK_SCHEMA.names}, schema=PICK_SCHEMA)


@pytest.fixture(scope="module")
def picks() -> pa.Table:
    return table_of(
        [
            ("XX", "DEM01", "00", "HH", "P", 1.234567, 0.91),
            ("XX", "DEM01", "00", "HH", "S", 3.5, 0.82),
            ("XX", "DEM02", "", "EH", "P", 3.75, 0.5),
            ("XX", "DEM02", "", "EH", "S", 59.999999, 0.125),
            ("YY", "A&<B", "10", "HN", "P", 60.0, 0.333333),
        ]
    )


def ids(table: pa.Table) -> list[tuple[str, ...]]:
    names = ("network", "station", "location", "channel", "phase")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def test_every_format_is_an_option() -> None:
    assert set(get_args(OutputFormat)) == set(FORMATS)


@pytest.mark.parametrize("kind", ["quakeml", "scml"])
class TestObsPyReadsEvents:
    def test_every_pick(self, kind: str, picks: pa.Table, tmp_path: Path) -> None:
        from obspy import UTCDateTime, read_events

        path = tmp_path / "picks.xml"
        write_picks(picks, path, kind, ExportOptions(agency="TEST", state_uncertainty=True))
        if kind == "scml":
            # ObsPy reads from SCML only picks that an event's origin refers to.
            found = scml_picks_through_obspy(path)
        else:
            catalogue = read_events(str(path))
            assert len(catalogue) == 1 and not catalogue[0].origins
            found = catalogue[0].picks
        rows = picks.to_pylist()
        assert len(found) == len(rows)
        for pick, row in zip(found, rows, strict=True):
            waveform = pick.waveform_id
            assert (waveform.network_code, waveform.station_code) == (
                row["network"],
                row["station"],
            )
            assert (waveform.location_code or "") == row["location"]
            assert waveform.channel_code == row["channel"]
            assert pick.phase_hint == row["phase"]
            assert pick.time == UTCDateTime(row["time"])
            assert pick.evaluation_mode == "automatic"
            assert pick.creation_info.agency_id == "TEST"
            assert pick.time_errors.uncertainty == {"P": 0.05, "S": 0.1}[row["phase"]]
            assert f"probability={row['probability']:.6f}" in pick.comments[0].text
        assert len({pick.resource_id.id for pick in found}) == len(rows)

    def test_valid_by_its_schema(self, kind: str, picks: pa.Table, tmp_path: Path) -> None:
        from lxml import etree
        from obspy.io import quakeml, seiscomp

        path = tmp_path / "picks.xml"
        write_picks(picks, path, kind)
        schema = {
            "quakeml": Path(quakeml.__file__).parent / "data" / "QuakeML-1.2.xsd",
            "scml": Path(seiscomp.__file__).parent / "data" / "sc3ml_0.12.xsd",
        }[kind]
        rules = etree.XMLSchema(etree.parse(str(schema)))
        rules.assertValid(etree.parse(str(path)))

    def test_back_again(self, kind: str, picks: pa.Table, tmp_path: Path) -> None:
        path = tmp_path / f"picks.{kind}"
        write_picks(picks, path, kind)
        back = read_picks(path)
        known = [name for name in PICK_SCHEMA.names if name not in ("start_time", "end_time")]
        for name in known:
            if name == "probability":
                assert np.allclose(back[name].to_numpy(), picks[name].to_numpy(), atol=1e-6)
            else:
                assert back[name].to_pylist() == picks[name].to_pylist()


def test_nonlinloc_lines_are_those_of_obspy(picks: pa.Table, tmp_path: Path) -> None:
    """ObsPy writes phase files but does not read them."""
    from obspy import UTCDateTime
    from obspy.core.event import Catalog, Event, Pick, QuantityError, WaveformStreamID

    error = {"P": 0.05, "S": 0.1}
    event = Event(
        picks=[
            Pick(
                time=UTCDateTime(row["time"]),
                time_errors=QuantityError(uncertainty=error[row["phase"]]),
                waveform_id=WaveformStreamID(
                    row["network"], row["station"], row["location"], row["channel"]
                ),
                phase_hint=row["phase"],
            )
            for row in picks.to_pylist()
        ]
    )
    theirs = io.BytesIO()
    Catalog([event]).write(theirs, format="NLLOC_OBS")
    write_picks(picks, tmp_path / "picks.obs", "nonlinloc")
    ours = (tmp_path / "picks.obs").read_text().splitlines()
    expected = [line for line in theirs.getvalue().decode().splitlines() if line[:6] != "PUBLIC"]
    # ObsPy writes a second 60, which NonLinLoc's minutes do not have.
    expected = [line.replace("1200 60.0000", "1201  0.0000") for line in expected]
    assert sorted(ours) == expected


def test_seisbench_gets_its_own_columns(picks: pa.Table, tmp_path: Path) -> None:
    """What `PickList.to_dataframe` gives for the same picks reads as the same picks."""
    from obspy import UTCDateTime
    from seisbench.util import Pick, PickList

    rows = picks.to_pylist()
    theirs = PickList(
        Pick(
            trace_id=f"{row['network']}.{row['station']}.{row['location']}",
            start_time=UTCDateTime(row["start_time"]),
            end_time=UTCDateTime(row["end_time"]),
            peak_time=UTCDateTime(row["time"]),
            peak_value=row["probability"],
            phase=row["phase"],
        )
        for row in rows
    ).to_dataframe()
    theirs.to_csv(tmp_path / "seisbench.csv", index=False)
    back = read_picks(tmp_path / "seisbench.csv")
    for name in ("network", "station", "location", "phase", "time", "start_time", "end_time"):
        assert back[name].to_pylist() == picks[name].to_pylist()
    write_picks(picks, tmp_path / "ours.csv", "seisbench")
    times = ["time", "start_time", "end_time"]
    ours, expected = (
        pd.read_csv(tmp_path / f"{name}.csv", parse_dates=times) for name in ("ours", "seisbench")
    )
    pd.testing.assert_frame_equal(ours, expected[list(ours.columns)], atol=1e-6)
    write_picks(picks, tmp_path / "pyocto.csv", "pyocto")
    ours = pd.read_csv(tmp_path / "pyocto.csv")
    assert ours["station"].tolist() == theirs["station"].tolist()
    assert ours["phase"].tolist() == theirs["phase"].tolist()
    expected = [UTCDateTime(row["time"]).timestamp for row in rows]
    assert np.abs(ours["time"].to_numpy() - expected).max() < 1e-6
    assert np.allclose(ours["probability"], theirs["probability"], atol=1e-6)


def test_gamma_and_phasenet_columns(picks: pa.Table, tmp_path: Path) -> None:
    write_picks(picks, tmp_path / "gamma.csv", "gamma")
    gamma = pd.read_csv(tmp_path / "gamma.csv", parse_dates=["timestamp"])
    assert list(gamma.columns) == ["id", "timestamp", "prob", "amp", "type"]
    assert gamma["type"].tolist() == ["p", "s", "p", "s", "p"]
    assert gamma["id"][2] == "XX.DEM02."
    assert gamma["timestamp"].dt.tz is None
    assert gamma["timestamp"].tolist() == [
        row["time"].replace(tzinfo=None) for row in picks.to_pylist()
    ]
    write_picks(picks, tmp_path / "phasenet.csv", "phasenet")
    with (tmp_path / "phasenet.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert first == {
        "file_name": CHUNK,
        "begin_time": "2024-12-15T12:00:00.000",
        "station_id": "XX.DEM01.00.HH",
        "phase_index": "123",
        "phase_time": "2024-12-15T12:00:01.234",
        "phase_score": "0.910000",
        "phase_amp": "",
        "phase_type": "P",
    }


@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "nonlinloc"])
def test_whatever_is_written_is_read(kind: str, picks: pa.Table, tmp_path: Path) -> None:
    target = tmp_path / (FORMATS[kind].file_name or "folders")
    write_picks(picks, target, kind)
    back = read_picks(target)
    wanted = picks
    if kind == "eqcctpro":
        # A P is in one row with its S; folders have no location, and hold letters and digits only.
        back = back.sort_by([("time", "ascending")])
    resolution = {"phasenet": 1000}.get(kind, 1)
    mine, theirs = (
        np.asarray(each["time"]).astype("M8[us]").astype(np.int64) // resolution
        for each in (wanted, back)
    )
    assert (mine == theirs).all()
    keep = {"eqcctpro": (0, 1, 3, 4), "gamma": (0, 1, 2, 4), "pyocto": (0, 1, 2, 4)}
    keep["seisbench"] = keep["pyocto"]
    kept = keep.get(kind, range(5))
    assert [[row[k] for k in kept] for row in ids(back)] == [
        [row[k] for k in kept] for row in ids(wanted)
    ]
    assert np.allclose(back["probability"].to_numpy(), wanted["probability"].to_numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", FORMATS)
def test_pieces_and_the_whole_are_the_same_bytes(
    kind: str, picks: pa.Table, tmp_path: Path
) -> None:
    """Nothing depends on how the picks are cut into batches."""
    plain = picks.filter(pc.equal(picks["network"], "XX"))
    write_picks(plain, tmp_path / "whole", kind)
    write_picks(plain.to_batches(max_chunksize=1), tmp_path / "pieces", kind)
    if kind == "parquet":  # row groups follow the batches
        assert read_picks_of(tmp_path / "pieces").equals(read_picks_of(tmp_path / "whole"))
        return
    files = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    for path in files or [tmp_path / "whole"]:
        twin = tmp_path / "pieces" / path.relative_to(tmp_path / "whole")
        assert (twin if files else tmp_path / "pieces").read_bytes() == path.read_bytes()


def read_picks_of(path: Path) -> pa.Table:
    path.rename(path.with_suffix(".parquet"))
    return read_picks(path.with_suffix(".parquet"))


@pytest.mark.parametrize("kind", FORMATS)
def test_no_picks_are_no_error(kind: str, picks: pa.Table, tmp_path: Path) -> None:
    target = tmp_path / (FORMATS[kind].file_name or "folders")
    write_picks(picks.slice(0, 0), target, kind)
    if kind == "eqcctpro":
        assert not target.exists()
    elif kind != "nonlinloc":
        assert read_picks(target).num_rows == 0
    else:
        assert target.read_text() == ""


def test_a_failed_write_leaves_what_was_there(picks: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "picks.quakeml"
    path.write_text("before")

    def breaks() -> Any:
        yield from row_batches(picks)
        raise InputError("the source is cut off")

    with pytest.raises(InputError):
        write_picks(breaks(), path, "quakeml")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_picks(picks, tmp_path / "file" / "picks.csv", "csv")
    with pytest.raises(SettingsError, match="unknown"):
        write_picks(picks, path, "hypodd")


class TestOtherTables:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "empty"),
            ("a,b\n1,2\n", "no columns of picks"),
            ("time,phase\n2024-12-15T12:00:00,P\n", "no column of stations"),
            ("station,time,phase\nA,yesterday,P\n", "no time"),
            ("station,time,phase\nA,2024-12-15T12:00:00,P\nA,,P\n", "row 2"),
            ("station,time,phase,prob\nA,2024-12-15T12:00:00,P,high\n", "probability"),
        ],
    )
    def test_what_is_wrong_is_said(self, text: str, message: str, tmp_path: Path) -> None:
        path = tmp_path / "picks.csv"
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_picks(path)

    def test_an_unknown_location_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "picks.csv"
        path.write_text("net,sta,loc,time,phase\nXX,A,--,2024-12-15 12:00:00.5+00:00,p\n")
        assert ids(read_picks(path)) == [("XX", "A", "", "", "P")]

    def test_catalogue_with_both_phases_in_a_row(self, tmp_path: Path) -> None:
        path = tmp_path / "picks.csv"
        path.write_text("network,station,p_time,s_time\nXX,A,2024-12-15T12:00:00Z,\n")
        assert ids(read_picks(path)) == [("XX", "A", "", "", "P")]

    @pytest.mark.parametrize("kind", [name for name in FORMATS if name != "nonlinloc"])
    def test_what_is_not_known_stays_so(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "picks.csv"
        path.write_text("station,time,phase\nA,2024-12-15T12:00:00.25,P\n")
        target = tmp_path / (FORMATS[kind].file_name or "folders")
        write_picks(read_picks(path), target, kind)
        back = read_picks(target).to_pylist()[0]
        assert back["probability"] is None
        assert back["start_time"] is None
        assert (back["station"], back["phase"], back["network"]) == ("A", "P", "")
        assert b",na" not in (target.read_bytes().lower() if target.suffix == ".csv" else b"")

    def test_broken_xml(self, tmp_path: Path) -> None:
        path = tmp_path / "picks.xml"
        path.write_text("<a><pick></a>")
        with pytest.raises(InputError, match="well-formed"):
            read_picks(path)


@pytest.mark.slow
def test_a_run_writes_all_formats_and_convert_the_same(
    pick: Any, generated_network: Any, imported_model: str, tmp_path: Path, cli: Any
) -> None:
    out = tmp_path / "out"
    result = pick(
        generated_network[0],
        model=imported_model,
        output=out,
        formats=tuple(FORMATS),
        stations=("DEM01",),
    )
    assert result.table.num_rows > 2
    for name, form in FORMATS.items():
        if name == "eqcctpro":
            continue
        assert result.summary["paths"][f"picks_{name}"] == str(out / form.file_name)
        converted = tmp_path / form.file_name
        run = cli("convert", out, "--to", name, "-o", converted)
        assert run.exit_code == 0, run.output
        if name == "parquet":
            assert read_picks(converted).equals(read_picks(out / form.file_name))
        else:
            assert converted.read_bytes() == (out / form.file_name).read_bytes()
    assert json.loads((out / "summary.json").read_text())["picks"]["total"] > 2
    assert cli("convert", out, "--to", "xml", "-o", tmp_path / "x").exit_code == 2
    assert cli("convert", tmp_path / "none.csv", "--to", "csv", "-o", "x").exit_code == 3
    bad = cli("convert", out, "--to", "scml", "-o", tmp_path / "x", "--uncertainty", "1")
    assert bad.exit_code == 2


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path) -> None:
    """A million picks through the QuakeML writer take the memory of a batch."""
    import tracemalloc

    batch = table_of([("XX", f"S{n:04d}", "", "HH", "P", n / 10, 0.5) for n in range(5000)])

    def many(count: int) -> Any:
        for _ in range(count):
            yield from batch.to_batches()

    def peak(count: int) -> int:
        tracemalloc.start()
        write_picks(many(count), tmp_path / "picks.quakeml", "quakeml")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert peak(12) < 1.5 * peak(3)


@pytest.mark.parametrize("kind", ["csv", "parquet", "quakeml", "scml", "pyocto", "gamma"])
def test_codes_that_look_like_numbers_stay_text(kind: str, picks: pa.Table, tmp_path: Path) -> None:
    """As a data frame too, where ``00`` must not be 0 and ``NA`` no missing value."""
    import eqcctpro

    rows = picks.slice(0, 2)
    for name, codes in (
        ("network", ["NA", "06"]),
        ("station", ["0010", "TRUE"]),
        ("location", ["00", "10"]),
    ):
        number = rows.column_names.index(name)
        rows = rows.set_column(number, rows.field(number), pa.array(codes))
    path = tmp_path / FORMATS[kind].file_name
    write_picks(rows, path, kind)
    found = eqcctpro.read_picks(path).to_pandas()
    names = ["network", "station", "location"]
    assert found[names].to_dict("list") == rows.select(names).to_pydict()
    if kind == "csv":
        # What the documentation says of pandas.
        assert pd.read_csv(path)["location"].tolist() == [0, 10]
        told = pd.read_csv(path, dtype=dict.fromkeys(names, str), keep_default_na=False)
        assert told[names].equals(found[names])
