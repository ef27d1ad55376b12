"""Damaged miniSEED: never a crash or a hang, and every file is accounted for.

What is damaged: every kind of fault that archives are known for, ObsPy's own test files, and
seeded mutations of both.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eqcctpro.errors import DecodeError
from eqcctpro.miniseed.index import index_file
from eqcctpro.miniseed.salvage import whole_records
from eqcctpro.waveform.decode import decode_file
from eqcctpro.waveform.encode import encode_file
from eqcctpro.waveform.segments import ChannelCode, Segment

RECORD = 512
START = 1_734_264_000 * 10**9


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two minutes of noise, in records of 512 bytes."""
    path = tmp_path_factory.mktemp("sound") / "sound.mseed"
    noise = np.random.default_rng(0).normal(0, 300, 12_000).astype(np.int32)
    encode_file(path, [Segment(ChannelCode("XX", "AAA", "00", "HHZ"), START, 100.0, noise)])
    content = path.read_bytes()
    assert len(content) % RECORD == 0
    assert len(content) > 20 * RECORD
    return content


def put(content: bytes, offset: int, new: bytes, record: int = 8) -> bytes:
    at = record * RECORD + offset
    return content[:at] + new + content[at + len(new) :]


def noise(length: int) -> bytes:
    return random.Random(1).randbytes(length)


def full_seed(content: bytes) -> bytes:
    """Volume and station control headers before the data."""
    header = b"000001V " + b"010009502.3121970,001,00:00:00.0000~".ljust(RECORD - 8)
    return header + b"000002A ".ljust(RECORD) + content


def plausible_junk(content: bytes) -> bytes:
    """A header that looks right in front of bytes that are no samples."""
    return put(content, 64, noise(RECORD - 64))


#: What is done to a file, and the least share of its samples that has to come back.
FAULTS: dict[str, tuple[Callable[[bytes], bytes], float]] = {
    "cut in a record": (lambda b: b[: 8 * RECORD + 100], 0.16),
    "cut in a header": (lambda b: b[: 8 * RECORD + 20], 0.16),
    "one byte too many": (lambda b: b + b"\0", 1.0),
    "a block of zeros": (lambda b: put(b, 0, bytes(4 * RECORD)), 0.7),
    "zeros at the end, as of a file that was allocated": (lambda b: b + bytes(8 * RECORD), 1.0),
    "zeros at the beginning": (lambda b: bytes(4 * RECORD) + b, 1.0),
    "noise between records": (lambda b: b[: 8 * RECORD] + noise(700) + b[8 * RECORD :], 1.0),
    "noise of a record's length": (
        lambda b: b[: 8 * RECORD] + noise(RECORD) + b[8 * RECORD :],
        0.9,
    ),
    "text in front": (lambda b: b"HTTP/1.1 200 OK\r\n\r\n" + b, 1.0),
    "no samples said, but there": (lambda b: put(b, 30, struct.pack(">H", 0)), 0.8),
    "more samples said than there": (lambda b: put(b, 30, struct.pack(">H", 60_000)), 0.8),
    "fewer samples said than there": (lambda b: put(b, 30, struct.pack(">H", 3)), 0.8),
    "data begin beyond the record": (lambda b: put(b, 44, struct.pack(">H", 5_000)), 0.8),
    "blockette that leads to itself": (lambda b: put(b, 48, struct.pack(">HH", 1000, 48)), 0.8),
    "blockette beyond the record": (lambda b: put(b, 46, struct.pack(">H", 4_000)), 0.8),
    "record length of 2 to the 200": (lambda b: put(b, 54, b"\xc8"), 0.8),
    "unknown encoding": (lambda b: put(b, 52, b"\x63"), 0.8),
    "samples that are no Steim": (plausible_junk, 0.8),
    "codes that are no letters": (lambda b: put(b, 8, b"\xe5\x90\xd0\xff\xfe"), 0.8),
    "year 2599": (lambda b: put(b, 20, struct.pack(">HH", 2599, 1)), 0.8),
    "day 999": (lambda b: put(b, 22, struct.pack(">H", 999)), 0.8),
    "a sample every nine hours": (lambda b: put(b, 32, struct.pack(">hh", -32_000, 1)), 0.8),
    "32,767 samples a second": (lambda b: put(b, 32, struct.pack(">hh", 32_767, 1)), 0.8),
    "rate of zero": (lambda b: put(b, 32, struct.pack(">hh", 0, 0)), 0.8),
    "records twice": (lambda b: b + b, 1.0),
    "records in another order": (lambda b: b[10 * RECORD :] + b[: 10 * RECORD], 1.0),
    "full SEED": (full_seed, 1.0),
    "nothing but zeros": (lambda b: bytes(len(b)), 0.0),
    "nothing but noise": (lambda b: noise(len(b)), 0.0),
    "a web page": (lambda _: b"<!DOCTYPE html><html>not found</html>" * 40, 0.0),
}


#: Only a gap is left of these, and stations have gaps; or a record of another station.
UNSEEN = {
    "no samples said, but there",
    "fewer samples said than there",
    "codes that are no letters",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_archives(fault: str, sound: bytes, tmp_path: Path) -> None:
    damage, share = FAULTS[fault]
    path = tmp_path / "damaged.mseed"
    path.write_bytes(damage(sound))
    reading = outcome(path)
    if share == 0:
        assert "failed" in reading or "damaged.mseed" in reading["recovered"]
        return
    assert "failed" not in reading, reading["failed"]
    assert reading["samples"] >= share * 12_000
    if reading["samples"] < 12_000 and fault not in UNSEEN:
        assert "damaged.mseed" in reading["recovered"], "a loss is said"


def outcome(path: Path) -> dict[str, Any]:
    """What became of a file; anything but an answer raises."""
    try:
        index_file(path)
        decoded = decode_file(path)
    except DecodeError as error:
        return {"failed": str(error)}
    for segment in decoded.segments:
        assert len(segment.samples)
        assert 1 <= segment.sampling_rate < 1e9
    samples = sum(len(s.samples) for s in decoded.segments if str(s.code) == "XX.AAA.00.HHZ")
    return {"samples": samples, "recovered": "; ".join(decoded.warnings)}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to eight small damages."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if not data:
            break
        at = rng.randrange(len(data))
        size = rng.choice((1, 8, 64, 512))
        in_header = at // RECORD * RECORD + rng.randrange(64)
        kind = rng.randrange(6)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at : at + size] = b""
        elif kind == 3:
            data[at : at + size] = bytes(size)
        elif kind == 4:
            data[at:at] = rng.randbytes(size)
        else:
            data[in_header : in_header + 2] = rng.randbytes(2)
    return bytes(data)


@pytest.fixture(scope="module")
def obspy_files() -> list[Path]:
    """ObsPy's own test files of miniSEED, where its package has them."""
    import obspy.io.mseed

    folder = Path(obspy.io.mseed.__file__).parent / "tests" / "data"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        pytest.skip("this ObsPy came without its test files")
    return files


def test_test_files_of_obspy(obspy_files: list[Path]) -> None:
    readings = {path.name: outcome(path) for path in obspy_files if path.stat().st_size}
    failed = {name for name, reading in readings.items() if "failed" in reading}
    assert {"not.mseed", "not2.mseed", "not3.mseed", "not4.mseed"} <= failed
    for name in ("fullseed.mseed", "gaps.mseed", "steim2.mseed", "various_noise_records.mseed"):
        assert name not in failed, readings[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "seeds", [range(1_000), pytest.param(range(1_000, 40_000), marks=pytest.mark.exhaustive)]
)
def test_mutations(seeds: range, sound: bytes, obspy_files: list[Path], tmp_path: Path) -> None:
    sources = [sound, *(path.read_bytes() for path in obspy_files if path.stat().st_size < 2e5)]
    path = tmp_path / "mutated.mseed"
    answers = {"failed": 0, "recovered": 0, "clean": 0}
    for seed in seeds:
        rng = random.Random(seed)
        path.write_bytes(mutated(rng.choice(sources), rng))
        reading = outcome(path)
        kind = "failed" if "failed" in reading else "recovered" if reading["recovered"] else "clean"
        answers[kind] += 1
    assert min(answers.values()) > 20, answers


@pytest.mark.slow
@pytest.mark.parametrize("timechunk", [None, 10.0])
def test_a_folder_of_damaged_files_is_picked(
    sound: bytes, imported_model: str, pick: Any, tmp_path: Path, timechunk: float | None
) -> None:
    """Also with damaged times and rates: neither plan nor memory grow with them."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for number, (damage, _) in enumerate(FAULTS.values()):
        station = f"S{number:03d} ".encode()
        content = damage(sound).replace(b"AAA  ", station)
        (folder / f"{number:03d}.mseed").write_bytes(content)
    settings: dict[str, Any] = {} if timechunk is None else {"timechunk": timechunk}
    result = pick(folder, model=imported_model, runtime="openvino", **settings)
    counts = result.counts
    assert counts["files_failed"] == 3
    assert counts["done"] >= len(FAULTS) - 6
    assert result.summary["balanced"]
    listed = [item["file"] for item in result.summary["files_failed"]]
    assert len(set(listed)) == 3


@pytest.mark.parametrize("number", [b"0000", b"\0\0\0\0"], ids=["number", "no number"])
def test_records_are_found_behind_zeros_of_any_length(sound: bytes, number: bytes) -> None:
    first = number + sound[4:RECORD]
    for piece in (1, 2):
        for length in range(piece * 65_536 - 12, piece * 65_536 + 4):
            content = b"\x07" + bytes(length) + first + bytes(70_000)
            assert list(whole_records(content)) == [first], length
