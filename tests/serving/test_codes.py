"""Codes that clients choose: one rule, whatever brings them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from eqcctpro.codes import code_of_text, header_of_code, is_code, is_tidy
from eqcctpro.picks.formats.registry import write_picks
from eqcctpro.picks.reading import read_picks
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.problems import InvalidProblem
from eqcctpro.serving.waveforms import read_body

LETTERS = "=+-@\t\r\n\x1b\x00"
ODD = {
    b"=cmd|": "~3Dcmd|",
    b"+1+1 ": "~2B1+1",
    b"@SUM ": "~40SUM",
    b"-2+3 ": "~2D2+3",
    b"\t=A  ": "~09=A",
    b"A\r\nB ": "A~0D~0AB",
    b"A\x1b[2J": "A~1B[2J",
    b"--   ": "--",
    b"A-B+C": "A-B+C",
}


@pytest.mark.parametrize(("station", "code"), ODD.items())
def test_codes_of_records(station: bytes, code: str) -> None:
    content = bytearray(example_miniseed())
    for at in range(8, len(content), 512):
        content[at : at + 5] = station
    segments = read_body(bytes(content), "").decoded.segments
    assert {segment.code.station for segment in segments} == {code}
    header = header_of_code(("XX", code, "00", "HHZ"))
    assert header == station + b"00HHZXX"
    assert is_tidy(header) == (code == station.decode().strip() and "\x1b" not in code)
    assert is_code(code, 8)
    assert code_of_text(code) == code


def arrays(station: str) -> bytes:
    import msgspec

    entry = {"station": station, "channels": ["HHZ"], "start": 0, "sampling_rate": 1.0}
    return msgspec.json.encode({"stations": [{**entry, "samples": [[1.0, 2.0]]}]})


@pytest.mark.parametrize(
    ("station", "good"),
    [
        *((code, True) for code in ("ABC", "A_B-1", "A.B", "--", "~3Dcmd|", "ABCDEFGH")),
        *((code, False) for code in ("ABC\n", "=cmd|", "-2+3", "@A", "+A", "\tA", "A\r\nB")),
        *((code, False) for code in (" A", "Ä", "A\x1b", "A~", "~3d", "", "ABCDEFGHI")),
    ],
)
def test_codes_of_arrays(station: str, good: bool) -> None:
    if good:
        (segment,) = read_body(arrays(station), "application/json").decoded.segments
        assert segment.code.station == station
    else:
        with pytest.raises(InvalidProblem, match="code"):
            read_body(arrays(station), "application/json")


def picks(**columns: str) -> pa.Table:
    """One pick, with these codes."""
    kinds = {name: PICK_SCHEMA.field(name).type for name in PICK_SCHEMA.names}
    values: dict[str, Any] = {
        name: columns.get(name, "x") if pa.types.is_string(kind) else 0
        for name, kind in kinds.items()
    }
    values |= {"phase": "P", "run_id": columns.get("run_id", "1")}
    return pa.table(
        {name: pa.array([value]).cast(kinds[name]) for name, value in values.items()},
        schema=PICK_SCHEMA,
    )


@pytest.mark.parametrize("kind", ["csv", "pyocto", "gamma", "phasenet"])
@pytest.mark.parametrize("code", ["=cmd|", "+1", "-2+3", "@A", "\t=A", "A\r\n=B"])
def test_no_cell_of_a_table_is_a_formula(code: str, kind: str, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.parquet"
    pa.parquet.write_table(picks(network=code, station=code, channel=code, timechunk=code), foreign)
    for table in (pa.parquet.read_table(foreign), read_picks(foreign)):
        path = tmp_path / "picks.csv"
        write_picks(table, path, kind)
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
        assert len(rows) == 2
        for cell in rows[1]:
            assert not cell or cell[0] not in "=+-@\t\r"
    # What was read once is read the same again, from either kind of file.
    once = read_picks(foreign)
    for name in ("a.csv", "a.parquet"):
        write_picks(once, tmp_path / name, name[2:])
        again = read_picks(tmp_path / name)
        for column in ("network", "station", "location", "channel"):
            assert again[column].to_pylist() == once[column].to_pylist()
            assert not set(LETTERS[4:]) & set(again[column][0].as_py())


def test_usual_codes_are_written_as_they_are(tmp_path: Path) -> None:
    table = picks(network="NC", station="A-B_1", location="--", channel="HH")
    write_picks(table, tmp_path / "a.csv", "csv")
    assert b"\nNC,A-B_1,--,HH,P," in (tmp_path / "a.csv").read_bytes()
    assert read_picks(tmp_path / "a.csv")["location"].to_pylist() == ["--"]
