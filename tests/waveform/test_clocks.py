"""Picks have the times of their records: clocks that drift, are set, or count a leap second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymseed.clib import clibmseed
from stamped import by_clock, counts, real_rows, records_of, stamped, write

from eqcctpro.times import NS_PER_S, parse_utc
from eqcctpro.waveform.blocks import assemble_blocks, component_rows
from eqcctpro.waveform.clock import LEAP_SECONDS_NS, one_clock
from eqcctpro.waveform.decode import decode_records
from eqcctpro.waveform.segments import Segment, join_at_leap_seconds, merge_segments, trim

MODEL = "PhaseNet/original"
START_NS = parse_utc("2024-12-15T12:00:00")
MIDNIGHT_NS = parse_utc("2017-01-01T00:00:00")
SAMPLES = 60_000  # ten minutes
MINUTE_NS = 60 * NS_PER_S

Times = dict[str, np.ndarray]


def true_times(records: Sequence[bytes], rate: float = 100.0) -> np.ndarray:
    """Time of every sample, by the record that it lies in."""
    from pymseed import MS3Record

    times = []
    for record in records:
        head = MS3Record.parse(record)
        behind = np.round(np.arange(head.samplecnt) / rate * NS_PER_S)
        times.append(head.starttime + behind.astype(np.int64))
    return np.concatenate(times)


def drifting(seconds: float) -> float:
    """A clock that is 200 ppm slow."""
    return seconds * 1.0002


def wandering(seconds: float) -> float:
    """A clock that is 0.1 s late in the middle, and right at both ends."""
    return seconds + 0.1 * np.sin(np.pi * seconds / (SAMPLES / 100))


def random_row(samples: int = SAMPLES) -> np.ndarray:
    return np.random.default_rng(3).integers(-999, 999, samples).astype(np.int32)


@pytest.mark.parametrize("clock", [drifting, wandering])
def test_samples_have_the_times_of_their_records(clock: Callable[[float], float]) -> None:
    made = records_of("HHZ", random_row(), START_NS)
    made = by_clock(made, START_NS, 100.0, clock)
    (segment,) = decode_records(b"".join(made), "test").segments
    expected = true_times(made)
    found = [segment.time_of(sample) for sample in range(0, SAMPLES, 77)]
    # Between the stamps of two records times are interpolated.
    assert np.abs(np.array(found) - expected[::77]).max() < 1_500_000  # ns
    before = np.cumsum(counts(made)) - counts(made)
    at_stamps = np.array([segment.time_of(first) for first in before.tolist()])
    assert np.abs(at_stamps - expected[before]).max() < 1000
    assert abs(segment.end_ns - expected[-1]) < 1_500_000


@pytest.mark.parametrize("clock", [drifting, wandering])
def test_a_part_has_the_same_samples_and_times(clock: Callable[[float], float]) -> None:
    """Whether the whole file is decoded and trimmed, or only records of the span."""
    made = by_clock(records_of("HHZ", random_row(), START_NS), START_NS, 100.0, clock)
    content = b"".join(made)
    expected = true_times(made)
    (whole,) = decode_records(content, "test").segments
    for first in (10, 12_345, 30_000, 47_111):
        start, end = whole.time_of(first), whole.time_of(first + 6000)
        (cut,) = decode_records(content, "test", start, end).segments
        for segment in (whole, cut):
            part = trim(segment, start, end)
            assert part is not None
            np.testing.assert_array_equal(part.samples, whole.samples[first : first + 6000])
            assert abs(part.start_ns - start) < 1000
            assert abs(part.time_of(5999) - whole.time_of(first + 5999)) < 1000
            assert abs(part.time_of(5999) - int(expected[first + 5999])) < 1_500_000
            # Windows count from the first sample of the continuous record.
            assert round((part.start_ns - part.origin_ns) / 1e7) == first


def test_tidy_records_need_no_clock() -> None:
    for rate in (62.5, 100.0, 130.0):
        made = records_of("HHZ", random_row(20_000), START_NS, rate)
        (segment,) = decode_records(b"".join(made), "test").segments
        assert segment.clock is None
        assert segment.end_ns == START_NS + round(19_999 / rate * NS_PER_S)


def test_drifts_of_stretches_between_gaps_do_not_add_up() -> None:
    made: list[bytes] = []
    for number in range(8):  # each ends 0.3 samples late
        start = START_NS + number * 40 * NS_PER_S
        records = records_of("HHZ", random_row(3000), start)
        made += by_clock(records, start, 100.0, lambda seconds: seconds * 1.0001)
    assert len(made) > 64  # few records have a check of their own
    found = decode_records(b"".join(made), "test").segments
    assert [segment.clock for segment in found] == [None] * 8


def test_leap_seconds_are_those_of_libmseed() -> None:
    midnights = [
        parse_utc(f"{year}-{month}-01") for year in range(1972, 2040) for month in ("01", "07")
    ]
    known = [
        midnight
        for midnight in midnights
        if clibmseed.ms_sampletime(midnight - NS_PER_S, 10, 1.0) != midnight + 9 * NS_PER_S
    ]
    # The first one began the count.
    assert tuple(known[1:]) == LEAP_SECONDS_NS


def across_leap_second(records: Sequence[bytes], rate: float = 100.0) -> list[bytes]:
    """Records that count on, stamped as clocks do that know of the leap second."""
    made = []
    before = np.cumsum(counts(records)) - counts(records)
    first = MIDNIGHT_NS - SAMPLES // 2 * 10_000_000
    for record, samples in zip(records, before.tolist(), strict=True):
        begins = first + round(samples / rate * NS_PER_S)
        if begins >= MIDNIGHT_NS + NS_PER_S:
            made.append(stamped(record, begins - NS_PER_S))
        else:
            made.append(stamped(record, begins, leap_second=begins >= MIDNIGHT_NS))
    return made


def leap_times(first_ns: int, samples: int, rate: float = 100.0) -> np.ndarray:
    times = first_ns + np.round(np.arange(samples) / rate * NS_PER_S).astype(np.int64)
    return np.where(times >= MIDNIGHT_NS + NS_PER_S, times - NS_PER_S, times)


@pytest.mark.parametrize("in_two_files", [False, True])
@pytest.mark.parametrize("record_samples", [None, 40])
def test_a_leap_second(record_samples: int | None, in_two_files: bool) -> None:
    """In a record, between two, or with records of its own; also where files end there."""
    first_ns = MIDNIGHT_NS - SAMPLES // 2 * 10_000_000
    row = random_row()
    parts = [row] if record_samples is None else np.split(row, SAMPLES // record_samples)
    begins = [first_ns + sum(map(len, parts[:k])) * 10_000_000 for k in range(len(parts))]
    made = [
        record
        for start, part in zip(begins, parts, strict=True)
        for record in records_of("HHZ", part, start)
    ]
    made = across_leap_second(made)
    expected = leap_times(first_ns, SAMPLES)
    before = np.cumsum(counts(made)) - counts(made)
    middle = int(np.searchsorted(before, SAMPLES // 2))
    files = [made[:middle], made[middle:]] if in_two_files else [made]
    pieces = [p for file in files for p in decode_records(b"".join(file), "test").segments]
    (segment,) = merge_segments(join_at_leap_seconds(pieces))
    np.testing.assert_array_equal(segment.samples, row)
    found = np.array([segment.time_of(sample) for sample in range(0, SAMPLES, 7)])
    assert np.abs(found - expected[::7]).max() < 1000


def test_a_clock_that_does_not_know_of_the_leap_second() -> None:
    """Records that count on over the midnight are one segment, at their own times."""
    first_ns = MIDNIGHT_NS - SAMPLES // 2 * 10_000_000
    made = by_clock(records_of("HHZ", random_row(), START_NS), first_ns, 100.0, lambda time: time)
    pieces = decode_records(b"".join(made), "test").segments
    (segment,) = merge_segments(join_at_leap_seconds(pieces))
    assert segment.clock is None
    assert segment.end_ns == first_ns + (SAMPLES - 1) * 10_000_000


def test_components_stay_together_beside_a_gap() -> None:
    """Behind a gap of one component the others have drifted on."""
    rows = real = np.array([random_row(), random_row()[::-1], random_row() // 2])
    del real
    pieces: list[Segment] = []
    for letter, row in zip("ZNE", rows, strict=True):
        made = by_clock(records_of(f"HH{letter}", row, START_NS), START_NS, 100.0, drifting)
        if letter == "Z":
            before = np.cumsum(counts(made)) - counts(made)
            gap = slice(20, 30)
            lost = slice(int(before[gap.start]), int(before[gap.stop]))
            del made[gap]
        pieces.extend(decode_records(b"".join(made), "test").segments)
    (block,) = assemble_blocks(merge_segments(pieces), component_rows("ZNE"), 3)
    expected = rows.astype(np.float32)
    expected[0, lost] = 0
    assert block.data.shape == expected.shape
    np.testing.assert_array_equal(block.data[1:], expected[1:])
    np.testing.assert_array_equal(block.data[0, : lost.start], expected[0, : lost.start])
    # Half a sample of rounding where the vertical sets in again.
    behind = block.data[0, lost.stop + 1 : -1]
    shifts = [
        np.array_equal(behind, expected[0, lost.stop + 1 + by : len(expected[0]) - 1 + by])
        for by in (-1, 0, 1)
    ]
    assert any(shifts)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)), min_size=1, max_size=6),
    st.integers(-500, 500),
)
def test_one_clock_keeps_true_times(spans: list[tuple[int, int]], ppm: int) -> None:
    """Wherever pieces lie, their nominal starts and the clock give their true starts again."""
    starts = [start * 10**6 for start, _ in spans]
    lengths = [length * 10**6 for _, length in spans]
    clocks = []
    for length in lengths:
        at = np.arange(0, length, max(length // 9, 1), dtype=np.int64)
        clocks.append(np.stack([at, at * ppm // 10**6], axis=1))
    nominal, clock = one_clock(starts, lengths, clocks)
    assert (np.diff(clock[:, 0]) > 0).all()
    for start, at in zip(starts, nominal, strict=True):
        row = max(int(np.searchsorted(clock[:, 0], at, side="right")) - 1, 0)
        step = abs(np.diff(clock[:, 1])).max(initial=0)
        assert abs(at + int(clock[row, 1]) - start) <= step


# Whole runs


def picked(result: Any) -> list[tuple[str, int, float]]:
    table = result.table
    times = (table["time"].cast("int64").to_numpy() * 1000).tolist()
    phases, values = table["phase"].to_pylist(), table["probability"].to_pylist()
    return sorted(zip(phases, times, values, strict=True))


def same(found: Any, expected: Any, within_ns: int = 10_000_000) -> None:
    assert len(found) == len(expected) > 5
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[0] == theirs[0]
        assert abs(ours[1] - theirs[1]) <= within_ns
        assert abs(ours[2] - theirs[2]) < 1e-4


def notes_of(result: Any) -> str:
    return " ".join(note for task in result.summary["notes"] for note in task["notes"])


@pytest.fixture(scope="module")
def rows(continuous: Path) -> np.ndarray:
    return real_rows(continuous, SAMPLES)


@pytest.fixture(scope="module")
def expected(
    rows: np.ndarray, seisbench_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, int, float]]:
    """Picks of SeisBench, as phases, samples and probabilities."""
    sbm = pytest.importorskip("seisbench.models")
    head = {"network": "XX", "station": "CLK", "sampling_rate": 100.0}
    stream = obspy.Stream(
        obspy.Trace(row, {**head, "channel": f"HH{letter}"})
        for letter, row in zip("ZNE", rows, strict=True)
    )
    picks = sbm.PhaseNet.from_pretrained("original").classify(stream).picks
    return sorted(
        (one.phase, round(one.peak_time.ns / 10_000_000), one.peak_value) for one in picks
    )


def test_a_drift_in_a_run_and_in_its_chunks(
    pick: Any, rows: np.ndarray, expected: list[tuple[str, int, float]], tmp_path: Path
) -> None:
    times = {}
    for letter, row in zip("ZNE", rows, strict=True):
        made = by_clock(records_of(f"HH{letter}", row, START_NS), START_NS, 100.0, drifting)
        times[letter] = true_times(made)
        write(tmp_path / f"in/{letter}.mseed", made)
    right = [(phase, int(times["Z"][sample]), value) for phase, sample, value in expected]
    whole = pick(tmp_path / "in", model=MODEL)
    same(picked(whole), sorted(right))
    assert "time stamps of HH" in notes_of(whole)
    assert "0.12 s" in notes_of(whole)
    cut = pick(tmp_path / "in", model=MODEL, timechunk=2.0, overlap=0.5)
    same(picked(cut), sorted(right))


@pytest.mark.slow
def test_a_leap_second_in_a_run_and_in_day_files(
    pick: Any, rows: np.ndarray, expected: list[tuple[str, int, float]], tmp_path: Path
) -> None:
    first_ns = MIDNIGHT_NS - SAMPLES // 2 * 10_000_000
    for letter, row in zip("ZNE", rows, strict=True):
        made = across_leap_second(records_of(f"HH{letter}", row, first_ns))
        write(tmp_path / f"one/{letter}.mseed", made)
        before = np.cumsum(counts(made)) - counts(made)
        middle = int(np.searchsorted(before, SAMPLES // 2))
        days = {"2016.366": made[:middle], "2017.001": made[middle:]}
        for day, part in days.items():
            place = f"sds/{day[:4]}/XX/CLK/HH{letter}.D/XX.CLK..HH{letter}.D.{day}"
            write(tmp_path / place, part)
    times = leap_times(first_ns, SAMPLES)
    right = sorted((phase, int(times[sample]), value) for phase, sample, value in expected)
    for name in ("one", "sds"):
        result = pick(tmp_path / name, model=MODEL)
        same(picked(result), right)


@pytest.mark.slow
def test_curves_across_a_leap_second(
    pick: Any, rows: np.ndarray, seisbench_cache: Path, tmp_path: Path
) -> None:
    """They have the times of the records; the values of the leap second itself have none."""
    first_ns = MIDNIGHT_NS - SAMPLES // 2 * 10_000_000
    for letter, row in zip("ZNE", rows, strict=True):
        made = records_of(f"HH{letter}", row, first_ns)
        day_before = first_ns - 86_400 * NS_PER_S
        write(
            tmp_path / f"plain/{letter}.mseed", by_clock(made, day_before, 100.0, lambda time: time)
        )
        write(tmp_path / f"leap/{letter}.mseed", across_leap_second(made))
    read = {}
    for name in ("plain", "leap"):
        out = tmp_path / f"{name}-out"
        pick(tmp_path / name, model=MODEL, annotations=True, output=out)
        (path,) = (out / "annotations").rglob("*.mseed")
        read[name] = obspy.read(str(path)).select(channel="HHP")
    (plain,) = read["plain"]
    # What is before and behind the leap second adjoins in the time of computers.
    (leap,) = read["leap"]
    assert leap.stats.starttime.ns - plain.stats.starttime.ns == 86_400 * NS_PER_S
    assert len(leap) == len(plain) - 100
    before = (MIDNIGHT_NS - leap.stats.starttime.ns) // 10_000_000
    np.testing.assert_allclose(leap.data[:before], plain.data[:before], atol=1e-6)
    np.testing.assert_allclose(leap.data[before:], plain.data[before + 100 :], atol=1e-6)


@pytest.mark.parametrize("drift_ppm", [0, 50, 400, 3000])
@pytest.mark.parametrize("rate", [40.0, 100.0])
def test_the_fast_check_of_few_records_misses_nothing(drift_ppm: float, rate: float) -> None:
    from field_records import noise
    from field_records import records_of as records

    from eqcctpro.miniseed.headers import steady_rate
    from eqcctpro.waveform import clock

    whole = records("XX.AAA.00.HHZ", noise(200, rate=rate), rate=rate)
    late = [
        b"".join(
            records(
                "XX.AAA.00.HHZ",
                noise(4, rate=rate, seed=number),
                rate=rate,
                start_ns=START_NS + round(number * 4e9 * (1 + drift_ppm * 1e-6)),
            )
        )
        for number in range(20)
    ]
    for content in (b"".join(whole[:60]), b"".join(late)):
        steady = steady_rate(content) == rate
        headers = np.frombuffer(content, dtype=clock._header_dtype(512, little=False))
        assert not (steady and clock._wanders(headers, rate))
        assert steady or drift_ppm
