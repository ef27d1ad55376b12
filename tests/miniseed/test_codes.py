"""Codes as they are found in records: read, told apart, selected, written, and used in names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import odd_records
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pymseed import DataEncoding, MS3Record, sourceid2nslc

from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.archive.timechunks import Timechunk
from eqcctpro.codes import (
    code_of_header,
    code_of_source,
    component_of,
    file_name,
    header_of_code,
    instrument_of,
    is_tidy,
    record_code,
    safe_name,
    source_of_code,
)
from eqcctpro.download.asking import Request
from eqcctpro.download.received import read_records, write_chunk, write_days
from eqcctpro.errors import SettingsError
from eqcctpro.miniseed.index import index_file, scan
from eqcctpro.picks.formats import write_picks
from eqcctpro.picks.reading import read_picks
from eqcctpro.times import chunk_name
from eqcctpro.waveform.decode import decode_file, decode_records
from eqcctpro.waveform.encode import Series, encode_series

MODEL = "PhaseNet/original"
PADDING = b" \0"

#: Fields of a header (network, station, location, channel), and the codes that they are.
ODD = {
    (b"", b"AN6", b"", b"S Z"): ("", "AN6", "", "S Z"),
    (b"IO", b"OBS01", b"GL", b"Z"): ("IO", "OBS01", "GL", "Z"),
    (b"XX", b"TWO", b"00", b"EZ"): ("XX", "TWO", "00", "EZ"),
    (b"xx", b"abc1", b"00", b"hhZ"): ("xx", "abc1", "00", "hhZ"),
    (b"XX", b"DASH", b"--", b"HHZ"): ("XX", "DASH", "--", "HHZ"),
    (b"XX", b"AB 1", b"0 ", b"HHZ"): ("XX", "AB 1", "0", "HHZ"),
    (b"XX", b"AB1", b"0 ", b"HHZ"): ("XX", "AB1", "0", "HHZ"),
    (b"XX", b"NUL\0\0", b"\0\0", b"HHZ"): ("XX", "NUL", "", "HHZ"),
    (b"XX", b"CA\xd1A", b"00", b"HHZ"): ("XX", "CA~D1A", "00", "HHZ"),
    (b"XX", b"CA\xd1O", b"00", b"HHZ"): ("XX", "CA~D1O", "00", "HHZ"),
    (b"XX", b"A/B", b"00", b"HHZ"): ("XX", "A/B", "00", "HHZ"),
    (b"XX", b"A_B", b"0_", b"HHZ"): ("XX", "A_B", "0_", "HHZ"),
    (b"XX", b"ST_1", b"00", b"HHZ"): ("XX", "ST_1", "00", "HHZ"),
    (b"XX", b"~D1", b"00", b"HHZ"): ("XX", "~7ED1", "00", "HHZ"),
    (b"XX", b"/../.", b"..", b"HHZ"): ("XX", "/../.", "..", "HHZ"),
}

header_fields = st.binary(min_size=12, max_size=12)
# Mostly letters and what is common in fields, and any byte now and then.
likely = st.lists(
    st.sampled_from(b"AZ09~_ \0-./\xd1\xff\n") | st.integers(0, 255), min_size=12, max_size=12
).map(bytes)


def signal(samples: int = 3000) -> np.ndarray:
    return np.random.default_rng(1).integers(-1000, 1000, samples).astype(np.int32)


def stripped(fields: bytes) -> tuple[bytes, ...]:
    parts = fields[:5], fields[5:7], fields[7:10], fields[10:12]
    return tuple(part.strip(PADDING) for part in parts)


@given(header_fields | likely)
def test_a_header_is_read_and_written_alike(fields: bytes) -> None:
    code = code_of_header(fields)
    written = header_of_code(code)
    assert written is not None
    assert stripped(written) == stripped(fields)
    assert code_of_header(written) == code
    assert all(text.isascii() and text.isprintable() for text in code)
    assert code_of_source(source_of_code(code)) == code


@given(likely, likely)
def test_different_codes_stay_different(first: bytes, second: bytes) -> None:
    same = stripped(first) == stripped(second)
    one, other = code_of_header(first), code_of_header(second)
    assert (one == other) is same
    assert (file_name(*one) == file_name(*other)) is same
    assert (source_of_code(one) == source_of_code(other)) is same


@given(likely)
@example(b"AAAAAAA_\x00_AA")
def test_the_component_is_the_last_letter(fields: bytes) -> None:
    channel = code_of_header(fields)[3]
    raw = stripped(fields)[2]
    component = component_of(channel)
    alone = code_of_header(fields[:7] + raw[-1:].ljust(3) + fields[10:])[3]
    # What a spreadsheet takes for a formula is escaped at the beginning of a code.
    assert component == alone or (raw[-1:] in b"=+-@" and component.encode() == raw[-1:])
    assert channel.startswith(instrument_of(channel))
    assert channel[len(instrument_of(channel)) :].strip(" _").endswith(component.strip("_"))


@pytest.mark.parametrize(
    ("channel", "instrument", "component"),
    [
        *(("HHZ", "HH", "Z"), ("EZ", "E", "Z"), ("Z", "", "Z"), ("S Z", "S", "Z"), ("", "", "")),
        *(("XX_YY_ZZ", "XX_YY", "ZZ"), ("HH~D1", "HH", "~D1"), ("H_Z", "H", "Z")),
    ],
)
def test_instrument_and_component(channel: str, instrument: str, component: str) -> None:
    assert (instrument_of(channel), component_of(channel)) == (instrument, component)


@pytest.mark.slow
@given(st.text() | st.lists(st.sampled_from([*"./\\~a\0", "..", "2F"])).map("".join))
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    folder = Path("/output/folder")
    for made in (safe_name(name), file_name(name), file_name("", name, "..")):
        assert Path(folder, made).parent == folder
        assert made not in (".", "..")
        assert not made.startswith(".")
        assert "\0" not in made


def test_usual_codes_are_what_libmseed_reads() -> None:
    rng = np.random.default_rng(5)
    letters = np.frombuffer(b"AZaz09-/. ", np.uint8)
    usual = 0
    for _ in range(2000):
        fields = rng.choice(letters, 12).tobytes()
        if not is_tidy(fields):
            continue
        usual += 1
        (record,) = odd_records.records(fields, signal(10))
        assert sourceid2nslc(MS3Record.parse(record).sourceid) == code_of_header(fields)
        assert record_code(record) == code_of_header(fields)
    assert usual > 50


def test_one_file_with_all_of_them(tmp_path: Path) -> None:
    """Records of many stations one after the other, some of them with equal usual letters."""
    content = []
    for number, header in enumerate(ODD):
        samples = signal() + number
        content.append(odd_records.records(odd_records.fields(*header), samples))
    mixed = [record for records in zip(*content, strict=True) for record in records]
    path = odd_records.write(tmp_path / "all.mseed", mixed)
    found = decode_file(path)
    assert found.warnings == []
    held = {tuple(segment.code): segment.samples[0] for segment in found.segments}
    first = int(signal()[0])
    assert held == {code: first + number for number, code in enumerate(ODD.values())}
    assert {extent.code for extent in scan(path.read_bytes(), path)} == set(ODD.values())
    # Records of different lengths, and one that is cut off.
    traces = odd_records.records(odd_records.fields(b"XX", b"CA\xd1A", b"", b"HHZ"), signal())
    long = encode_series(
        [Series(("XX", "LONG", "", "HHZ"), odd_records.T0, 100.0, signal())],
        DataEncoding.STEIM2,
        4096,
    )
    codes = {segment.code for segment in decode_records(b"".join([*long, *traces]), "x").segments}
    assert codes == {("XX", "LONG", "", "HHZ"), ("XX", "CA~D1A", "", "HHZ")}
    cut = decode_records(b"".join(mixed) + mixed[0][:100], "x")
    assert {tuple(segment.code) for segment in cut.segments} == set(ODD.values())


@pytest.mark.parametrize("header", ODD, ids=str)
def test_each_alone_is_indexed_and_decoded(header: Any, tmp_path: Path) -> None:
    fields = odd_records.fields(*header)
    path = odd_records.write(tmp_path / "one.mseed", odd_records.records(fields, signal()))
    (extent,) = index_file(path).channels
    start, end = odd_records.T0 + 2_000_000_000, odd_records.T0 + 9_000_000_000
    (segment,) = decode_file(path).segments
    (part,) = decode_file(path, start, end).segments
    assert extent.code == tuple(segment.code) == tuple(part.code) == ODD[header]
    assert part.origin_ns == odd_records.T0
    np.testing.assert_array_equal(segment.samples, signal())


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("FDSN:XA2024_LONGST00_00_H_H_Z", ("XA2024", "LONGST00", "00", "HHZ")),
        ("FDSN:XX_TWO_00_E_Z_", ("XX", "TWO", "00", "EZ")),
        ("FDSN:XX_ONE__Z__", ("XX", "ONE", "", "Z")),
        ("FDSN:XX_S_A_00_H_H_Z", ("XX", "S_A", "00", "HHZ")),
        ("FDSN:XX_STA_00_XX_YY_ZZ", ("XX", "STA", "00", "XX_YY_ZZ")),
        ("FDSN:XX_S\xd1A_00_H_H_Z", ("XX", "S~C3~91A", "00", "HHZ")),
    ],
)
def test_source_identifiers(source: str, code: tuple[str, ...], tmp_path: Path) -> None:
    record = MS3Record()
    record.sourceid, record.starttime, record.samprate = source, odd_records.T0, 100.0
    record.formatversion, record.encoding = 3, DataEncoding.STEIM2
    content = list(record.generate(signal().tolist(), "i"))
    path = odd_records.write(tmp_path / "one.mseed3", content)
    (segment,) = decode_file(path).segments
    (extent,) = index_file(path).channels
    assert tuple(segment.code) == extent.code == code


def test_what_is_written_holds_the_same_codes() -> None:
    codes = [*ODD.values(), ("XA2024", "LONGST00", "00", "HHZ"), ("XX", "A_VERY_L", "", "XX_YY_Z")]
    series = [
        Series(code, odd_records.T0, 100.0, signal(100) + number)
        for number, code in enumerate(codes)
    ]
    content = list(encode_series(series, DataEncoding.STEIM2, 512))
    held = {
        tuple(segment.code): segment.samples[0]
        for segment in decode_records(b"".join(content), "x").segments
    }
    assert held == {code: int(signal(100)[0]) + number for number, code in enumerate(codes)}
    version_2 = [record for record in content if not record.startswith(b"MS\x03")]
    headers = {stripped(record[8:20]) for record in version_2}
    # What was read is written byte by byte.
    assert headers == {stripped(odd_records.fields(*header)) for header in ODD}


def test_locations_and_channels_in_patterns(tmp_path: Path) -> None:
    for header in ((b"XX", b"DASH", b"--", b"HHZ"), (b"XX", b"EMPTY", b"", b"HHZ")):
        path = tmp_path / header[1].decode()
        odd_records.write(path, odd_records.records(odd_records.fields(*header), signal()))
    for number, channel in enumerate((b"EZ", b"EHZ", b"Z")):
        fields = odd_records.fields(b"XX", b"FEW", b"00", channel)
        odd_records.write(tmp_path / f"few{number}", odd_records.records(fields, signal()))

    def chosen(pattern: str) -> list[str]:
        settings = InputSettings((tmp_path,), stations=(pattern,))
        return [task.name for task in make_plan(settings).tasks]

    assert chosen("XX.DASH.--.HH") == chosen("XX.DASH.--") == ["XX.DASH.--.HH"]
    assert chosen("XX.EMPTY.--.HH?") == chosen("XX.EMPTY..HH") == ["XX.EMPTY..HH"]
    assert chosen("*.--.*") == ["XX.DASH.--.HH", "XX.EMPTY..HH"]
    assert chosen("XX.FEW.00.E") == ["XX.FEW.00.E"]
    assert chosen("XX.FEW.00.") == ["XX.FEW.00."]
    assert chosen("XX.FEW.00.E?") == ["XX.FEW.00.E", "XX.FEW.00.EH"]
    # Small letters are matched by capitals, in an order of instruments, too.
    small = odd_records.fields(b"xx", b"few", b"00", b"hhZ")
    odd_records.write(tmp_path / "small", odd_records.records(small, signal()))
    assert chosen("xx.few.00.hh") == chosen("XX.FEW.00.HH?") == ["xx.few.00.hh"]
    best = InputSettings((tmp_path / "small",), channel_priority=("HH",))
    assert [task.name for task in make_plan(best).tasks] == ["xx.few.00.hh"]
    # Every name in the hint can be used.
    with pytest.raises(SettingsError) as caught:
        chosen("XX.DASH.00.HH")
    names = re.search(r"that station has (\S+)", str(caught.value))
    assert names is not None
    assert chosen(names[1].strip(",)")) == ["XX.DASH.--.HH"]


def test_day_files_of_such_codes(tmp_path: Path) -> None:
    codes = {"ST_1": ("00", "HHZ"), "TWO": ("00", "EZ"), "ONE": ("GL", "Z"), "ABC": ("--", "HHZ")}
    for station, (location, channel) in codes.items():
        fields = odd_records.fields(b"XX", station.encode(), location.encode(), channel.encode())
        name = f"XX.{station}.{location}.{channel}.D.2024.350"
        path = tmp_path / "2024" / "XX" / station / f"{channel}.D" / name
        odd_records.write(path, odd_records.records(fields, signal()))
    plan = make_plan(InputSettings((tmp_path,)))
    assert plan.layout == "sds"
    names = {"XX.ST_1.00.HH", "XX.TWO.00.E", "XX.ONE.GL.", "XX.ABC.--.HH"}
    assert {task.name for task in plan.tasks} == names
    assert not plan.ignored


def test_our_tables_keep_locations(tmp_path: Path) -> None:
    """Two dashes are a location where records say so, and none in tables of other programs."""
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    ours.write_text("network,station,location,phase,time,run_id\nXX,A,--,P,2024-12-15,0123\n")
    theirs.write_text("network,station,location,phase,time\nXX,A,--,P,2024-12-15\n")
    for path, location in ((ours, "--"), (theirs, "")):
        table = read_picks(path)
        assert table["location"].to_pylist() == [location]
        write_picks(table, tmp_path / "again.quakeml", "quakeml")
        assert read_picks(tmp_path / "again.quakeml")["location"].to_pylist() == [location]


@pytest.mark.parametrize("write", [write_chunk, write_days])
def test_what_a_server_sends_stays_in_the_folder(write: Any, tmp_path: Path) -> None:
    content = []
    for network, station, channel in ((b"..", b"..", b"HHZ"), (b"/x", b"/../.", b"../")):
        fields = odd_records.fields(network, station, b"..", channel)
        content += odd_records.records(fields, signal(100))
    output = tmp_path / "a" / "b" / "c" / "out"
    span = odd_records.T0, odd_records.T0 + 60_000_000_000
    chunk = Timechunk(0, chunk_name(*span), *span, *span)
    written = write(output, Request("..", "..", chunk, ()), read_records(b"".join(content)))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(written) == 2
    assert all(path.is_relative_to(output) for path in files)


# Whole runs


def three(folder: Path, header: tuple[bytes, bytes, bytes, bytes], stream: Any) -> None:
    """Three components whose channel ends in the letters of a stream's."""
    network, station, location, channel = header
    for trace in stream:
        letter = trace.stats.channel[-1].encode()
        fields = odd_records.fields(network, station, location, channel[:-1] + letter)
        content = odd_records.records(fields, trace.data.astype(np.int32))
        odd_records.write(folder / f"{letter.decode()}.mseed", content)


@pytest.fixture(scope="module")
def record(labelled: Path) -> obspy.Stream:
    """A labelled record as 32-bit counts."""
    stream = obspy.read(str(labelled / "*" / "ACR" / "*.mseed"))
    for trace in stream:
        scale = 1e5 / abs(trace.data).max()
        trace.data = np.rint(trace.data * scale).astype(np.int32)
        trace.stats.starttime = obspy.UTCDateTime(ns=odd_records.T0)
    return stream


@pytest.fixture(scope="module")
def odd_run(
    pick: Any, record: obspy.Stream, seisbench_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A run with curves over stations with odd codes; returns what holds its output folder."""
    root = tmp_path_factory.mktemp("odd")
    for number, header in enumerate(ODD):
        three(root / "input" / str(number), header, record)
    output = root / "inside" / "of" / "output"
    result = pick(
        root / "input",
        model=MODEL,
        annotations=True,
        output=output,
        formats=("csv", "quakeml", "nonlinloc", "eqcctpro"),
        stations="*",
    )
    return root, result


def test_every_station_has_seisbenchs_picks(odd_run: Any, record: obspy.Stream) -> None:
    from seisbench.models import PhaseNet

    _, result = odd_run
    picks = PhaseNet.from_pretrained("original").classify(record).picks
    expected = [(pick.phase, pick.peak_time.ns // 1000) for pick in picks]
    assert expected
    rows: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    for row in result.table.to_pylist():
        code = (row["network"], row["station"], row["location"], row["channel"])
        moment = obspy.UTCDateTime(row["time"]).ns // 1000
        rows.setdefault(code, []).append((row["phase"], moment))
    wanted = {(*code[:3], instrument_of(code[3])) for code in ODD.values()}
    assert set(rows) == wanted
    usual = {code: found for code, found in rows.items() if code[1] not in ("AB1",)}
    assert all(sorted(found) == sorted(expected) for found in usual.values()), rows


def test_nothing_is_written_outside_of_the_output(odd_run: Any) -> None:
    root, _ = odd_run
    output = root / "inside" / "of" / "output"
    written = {path for path in root.rglob("*") if path.is_file()}
    written -= set((root / "input").rglob("*"))
    assert all(output in path.parents for path in written)
    (chunk,) = (output / "annotations").iterdir()
    names = {path.name for path in chunk.iterdir()}
    assert "XX.~2F~2E~2E~2F~2E.~2E~2E.HH.mseed" in names
    assert "XX.CA~D1A.00.HH.mseed" in names
    assert len(names) == len(ODD)
    folders = {path.parent.name for path in output.glob("*/*/X_prediction_results.csv")}
    assert "~2F..~2F._outputs" in folders
    assert len(folders) == len(ODD)


def test_curves_hold_the_codes_that_were_read(odd_run: Any) -> None:
    root, _ = odd_run
    output = root / "inside" / "of" / "output"
    found = set()
    for path in (output / "annotations").glob("*/*"):
        assert obspy.read(str(path), headonly=True)  # any program reads miniSEED 2
        found |= {tuple(segment.code) for segment in decode_file(path).segments}
    wanted = {
        (*code[:3], instrument_of(code[3]) + letter) for code in ODD.values() for letter in "XPS"
    }
    assert found == wanted


def test_other_outputs_keep_them_apart(odd_run: Any) -> None:
    root, result = odd_run
    output = root / "inside" / "of" / "output"
    catalogue = obspy.read_events(str(output / "picks.quakeml"))
    identifiers = [str(pick.resource_id) for pick in catalogue[0].picks]
    assert len(set(identifiers)) == len(identifiers) == result.table.num_rows
    stations = [line.split()[0] for line in (output / "picks.obs").read_text().splitlines()]
    assert len(stations) == result.table.num_rows
    assert len(set(stations)) == len(ODD)


def test_long_codes(pick: Any, record: obspy.Stream, seisbench_cache: Path, tmp_path: Path) -> None:
    """Codes that only miniSEED 3 holds; a negative sampling rate is a period there."""
    from seisbench.models import PhaseNet

    for number, rate in enumerate((100.0, -0.01)):
        for trace in record:
            made = MS3Record()
            component = trace.stats.channel[-1]
            made.sourceid = f"FDSN:XA2024_LONGST0{number}_00_H_H_{component}"
            made.starttime, made.samprate = odd_records.T0, rate
            made.formatversion, made.encoding = 3, DataEncoding.STEIM2
            content = list(made.generate(trace.data.tolist(), "i"))
            odd_records.write(tmp_path / f"in/{number}{component}.mseed3", content)
    formats = ("csv", "quakeml", "nonlinloc", "pyocto", "phasenet")
    result = pick(
        tmp_path / "in", model=MODEL, annotations=True, output=tmp_path / "out", formats=formats
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["tasks"] == {"done": 2, "empty": 0, "failed": 0}
    model = PhaseNet.from_pretrained("original")
    expected = model.classify(record).picks
    assert result.table.num_rows == 2 * len(expected) > 0
    assert set(result.table["network"].to_pylist()) == {"XA2024"}
    curves = {trace.stats.channel[-1]: trace.data for trace in model.annotate(record)}
    for number in range(2):
        (path,) = (tmp_path / "out" / "annotations").glob(f"*/XA2024.LONGST0{number}.00.HH.mseed")
        assert path.read_bytes().startswith(b"MS\x03")
        for segment in decode_file(path).segments:
            assert segment.code[:3] == ("XA2024", f"LONGST0{number}", "00")
            name = {"X": "N"}.get(segment.code.component, segment.code.component)
            np.testing.assert_allclose(segment.samples, curves[name], rtol=0, atol=1e-4)


def test_other_components(
    pick: Any, record: obspy.Stream, seisbench_cache: Path, tmp_path: Path
) -> None:
    """UD, NS and EW, of which no letter is one of a component; Z, Y and X, of which one is."""
    from seisbench.models import PhaseNet

    for station, channels in {
        b"AIC01": (b"UD", b"NS", b"EW"),
        b"OBS01": (b"Z", b"Y", b"X"),
    }.items():
        for trace, channel in zip(record.sort(["channel"], reverse=True), channels, strict=True):
            fields = odd_records.fields(b"BO", station, b"", channel)
            content = odd_records.records(fields, trace.data)
            odd_records.write(tmp_path / "in" / f"{station.decode()}{channel.decode()}", content)
    result = pick(tmp_path / "in", model=MODEL, output=tmp_path / "out")
    reason = "no component that PhaseNet/original knows"
    assert {item["station"]: item["reason"][: len(reason)] for item in result.summary["empty"]} == {
        f"BO.AIC01..{letter}": reason for letter in "UNE"
    }
    assert result.summary["tasks"] == {"done": 1, "empty": 3, "failed": 0}
    vertical = record.select(component="Z")
    expected = PhaseNet.from_pretrained("original").classify(vertical).picks
    assert result.table["phase"].to_pylist() == [pick.phase for pick in expected]
    found = result.table["probability"].to_pylist()
    assert found == pytest.approx([pick.peak_value for pick in expected], abs=1e-4)


def test_an_output_that_fails_fails_its_station(
    pick: Any, record: obspy.Stream, seisbench_cache: Path, tmp_path: Path
) -> None:
    for station in (b"ONE", b"TWO", b"THREE"):
        three(tmp_path / "in" / station.decode(), (b"XX", station, b"", b"HHZ"), record)
    first = pick(tmp_path / "in", model=MODEL, output=tmp_path / "first")
    chunk = first.table["timechunk"][0].as_py()
    # Folders where files should be.
    for name in (f"annotations/{chunk}/XX.ONE..HH.mseed", f"{chunk}/TWO_outputs"):
        blocked = tmp_path / "out" / name
        blocked.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("mseed"):
            (blocked / "x").mkdir(parents=True)
        else:
            blocked.write_text("in the way")
    result = pick(
        tmp_path / "in",
        model=MODEL,
        annotations=True,
        output=tmp_path / "out",
        formats=("csv", "eqcctpro"),
    )
    failed = {entry["station"]: entry for entry in result.summary["failed"]}
    assert result.summary["tasks"] == {"done": 1, "empty": 0, "failed": 2}
    assert set(failed) == {"XX.ONE..HH", "XX.TWO..HH"}
    assert all(entry["error"] == "OutputError" for entry in failed.values())
    assert (tmp_path / "out" / chunk / "THREE_outputs" / "X_prediction_results.csv").is_file()
    assert len(list((tmp_path / "out" / "annotations" / chunk).glob("XX.T*.mseed"))) == 2
