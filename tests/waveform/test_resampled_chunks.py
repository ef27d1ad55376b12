"""Records of other sampling rates give the same picks whole and in chunks, at the right times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import obspy
import pytest
from stamped import by_clock, real_rows, records_of, write

from eqcctpro import PickConfig
from eqcctpro.orchestration.model_choice import describe_run, find_run_weights
from eqcctpro.times import NS_PER_S, parse_utc
from eqcctpro.waveform.blocks import assemble_blocks, component_rows
from eqcctpro.waveform.resampling import resample
from eqcctpro.waveform.segments import ChannelCode, Segment, trim
from eqcctpro.windows.placement import window_offsets, window_step

MODEL = "PhaseNet/original"
WINDOW_S = 30.01
THRESHOLD = 0.3
# On no grid of samples.
START_NS = parse_utc("2024-12-15T12:00:00") + 3_700_000
CODE = ChannelCode("XX", "CLK", "", "HHZ")

RATES = (20.0, 40.0, 50.0, 62.5, 80.0, 99.98, 100.02, 125.0, 200.0, 250.0, 500.0, 1000.0)
FEW = (40.0, 125.0, 200.0)


def few_of(rates: Sequence[float]) -> list[Any]:
    """All rates, of which a few are tested each time."""
    rest = pytest.mark.exhaustive
    return [rate if rate in FEW else pytest.param(rate, marks=rest) for rate in rates]


class Pick(NamedTuple):
    phase: str
    time_ns: int
    probability: float


# Waveforms


def is_decimated(rate: float) -> bool:
    return rate % 100 == 0


def as_of_seisbench(row: np.ndarray, rate: float) -> np.ndarray:
    """What SeisBench makes of a whole record, by ObsPy."""
    trace = obspy.Trace(row.astype(np.float64), {"sampling_rate": rate})
    if is_decimated(rate):
        trace.filter("lowpass", freq=50.0, zerophase=True)
        trace.decimate(int(rate / 100), no_filter=True)
    else:
        trace.resample(100.0, no_filter=True)
    return np.asarray(trace.data)


def tremor(samples: int, rate: float) -> np.ndarray:
    """Signals below 15 Hz and a little noise at all frequencies, on an offset."""
    rng = np.random.default_rng(round(rate * 100))
    smooth = np.convolve(rng.normal(0, 1000, samples), np.hanning(round(rate / 6)), "same")
    return (smooth + rng.normal(0, 5, samples) + 5000).astype(np.int32)


@pytest.mark.parametrize("more", [0, 1, 3])
@pytest.mark.parametrize("rate", few_of([*RATES, 33.3, 100.00371, 128.0]))
def test_a_piece_is_resampled_as_its_record(rate: float, more: int) -> None:
    """Also where the record has a length that is no multiple of the new interval."""
    row = tremor(round(600 * rate) + more, rate)
    whole = Segment(CODE, START_NS, rate, row)
    expected = as_of_seisbench(row, rate)
    np.testing.assert_allclose(resample(whole, 100.0).samples, expected, rtol=1e-9, atol=1e-6)
    size = np.std(expected)
    sharp = not is_decimated(rate) and rate > 100
    for first, last in ((1, 200.0), (round(123.4 * rate), 520.0), (round(300 * rate) + 3, 600.0)):
        end = min(round(last * rate) + 1, len(row)) if last < 600 else len(row)
        piece = resample(whole.part(first, end), 100.0)
        # The same samples, by their times.
        at = (piece.start_ns - START_NS) / 1e7
        assert abs(at - round(at)) < 1e-6
        assert piece.start_ns - piece.origin_ns == pytest.approx(piece.start_ns - START_NS, abs=2)
        at = round(at)
        assert -1 < at - first / rate * 100 < 2
        # Far enough from the ends that the piece has what the record has.
        inside = slice(at + 500, at + len(piece.samples) - 500)
        found = piece.samples[500:-500]
        if last == 600:
            assert at + len(piece.samples) == len(expected)
        np.testing.assert_allclose(found, expected[inside], atol=(3e-3 if sharp else 1e-3) * size)
        if is_decimated(rate):
            np.testing.assert_array_equal(found, expected[inside])


@pytest.mark.parametrize("offset_ns", [3_700_000, 5_000_000, 12_500_000])
@pytest.mark.parametrize("rate", few_of([*RATES, 33.3, 100.00371]))
def test_pieces_on_the_absolute_grid_have_the_same_samples(rate: float, offset_ns: int) -> None:
    row = tremor(round(400 * rate) + 3, rate)
    start = parse_utc("2024-12-15T12:00:00") + offset_ns
    whole = Segment(CODE, start, rate, row)
    made = resample(whole, 100.0, absolute=True)
    for first in (0, 1, 2, 3, round(77.7 * rate)):
        part = whole.part(first, round((first / rate + 300) * rate))
        # Nothing is known of the record that it comes from, as when files end there.
        alone = Segment(CODE, part.start_ns, rate, part.samples)
        for piece in (part, alone):
            found = resample(piece, 100.0, absolute=True)
            at = round((found.start_ns - made.start_ns) / 1e7)
            assert abs(found.start_ns - made.start_ns - at * 10_000_000) < 100
            inside = slice(at + 400, at + len(found.samples) - 400)
            expected = made.samples[inside]
            np.testing.assert_allclose(
                found.samples[400:-400], expected, atol=1e-5 * np.std(expected)
            )
    # It differs from SeisBench's by the part of a sample that it is moved by, and near 50 Hz.
    nearest = as_of_seisbench(row, rate)
    at = round((made.start_ns - start) / 1e7)
    both = min(len(made.samples), len(nearest) - at)
    likeness = np.corrcoef(made.samples[500 : both - 500], nearest[at + 500 : at + both - 500])
    assert likeness[0, 1] > 0.98


def test_long_pieces_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for rate, more in ((250.0, 1), (80.0, 0), (62.5, 2)):
        row = tremor(round(500 * rate) + more, rate)
        piece = Segment(CODE, START_NS, rate, row).part(11, len(row) - 7)
        for absolute in (False, True):
            made = []
            for at_once in (10**6, 7000):
                monkeypatch.setattr("eqcctpro.waveform.resampling.SAMPLES_AT_ONCE", at_once)
                made.append(resample(piece, 100.0, absolute=absolute).samples)
            size = np.std(made[0])
            np.testing.assert_allclose(made[0], made[1], atol=(1e-6 if absolute else 3e-3) * size)


def test_a_piece_of_a_few_samples_is_no_error() -> None:
    for rate in (40.0, 99.98, 125.0, 200.0):
        whole = Segment(CODE, START_NS, rate, tremor(1000, rate))
        for first, last in ((0, 1), (7, 8), (7, 9), (990, 1000), (999, 1000)):
            for absolute in (False, True):
                made = resample(whole.part(first, last), 100.0, absolute=absolute)
                assert np.isfinite(made.samples).all()
                assert len(made.samples) <= math.ceil((last - first) * 100 / rate)


@pytest.mark.parametrize("rate", [40.0, 62.5, 100.0, 200.0])
def test_windows_between_samples_are_on_one_grid(rate: float, imported_model: str) -> None:
    """Records that begin half a sample beside the grid, read from any of their samples on."""
    config = PickConfig.checked(input=".", output="out", model=imported_model)
    picker, settings = describe_run(config, find_run_weights(config))
    step = window_step(picker, settings.windows)
    start = parse_utc("2024-12-15T12:00:00") + round(NS_PER_S / rate / 2)
    phases = set()
    for sample in range(50):
        # Times of samples are off by that much, as floats are of seconds since 1970.
        for off_ns in (-240, 0, 240):
            offsets = window_offsets(
                picker,
                settings.windows,
                3 * picker.in_samples,
                grid="absolute",
                start_ns=start + round(sample * NS_PER_S / rate) + off_ns,
                sampling_rate=rate,
            )
            phases.add((sample + int(offsets[1])) % step)
    assert len(phases) == 1


@pytest.mark.parametrize("late_s", [0.29, 0.57, 1.13, 2.3])
def test_a_piece_is_shifted_as_its_record(late_s: float) -> None:
    """SeisBench's truncation moves a component that begins later by a sample, in pieces as well."""
    rows = np.array([tremor(60_000, 100.0) for _ in "ZNE"])
    starts = [START_NS + round(late * NS_PER_S) for late in (0, late_s, 0)]
    segments = [
        Segment(ChannelCode("XX", "CLK", "", f"HH{letter}"), start, 100.0, row)
        for letter, start, row in zip("ZNE", starts, rows, strict=True)
    ]
    (whole,) = assemble_blocks(segments, component_rows("ZNE"), 3)
    for first_s in (100, 123.45, 333.33):
        begin = START_NS + round(first_s * NS_PER_S)
        cut = [trim(segment, begin, begin + 200 * NS_PER_S) for segment in segments]
        pieces = [piece for piece in cut if piece is not None]
        (block,) = assemble_blocks(pieces, component_rows("ZNE"), 3)
        at = round((block.start_ns - whole.start_ns) / 1e7)
        assert at == round((block.start_ns - block.origin_ns) / 1e7)
        expected = whole.data[:, at + 3 : at + 19_997]
        np.testing.assert_array_equal(block.data[:, 3:19_997], expected)


# Whole runs


def of_run(result: Any) -> list[Pick]:
    assert result.counts["failed"] == 0
    table = result.table
    times = (table["time"].cast("int64").to_numpy() * 1000).tolist()
    rows = zip(table["phase"].to_pylist(), times, table["probability"].to_pylist(), strict=True)
    return sorted(Pick(*row) for row in rows)


def of_seisbench(rows: np.ndarray, rate: float) -> list[Pick]:
    sbm = pytest.importorskip("seisbench.models")
    head = {"network": "XX", "station": "CLK", "sampling_rate": rate}
    stream = obspy.Stream()
    for letter, row in zip("ZNE", rows, strict=True):
        stream += obspy.Trace(row, {**head, "channel": f"HH{letter}"})
        stream[-1].stats.starttime = obspy.UTCDateTime(ns=START_NS)
    found = sbm.PhaseNet.from_pretrained("original").classify(stream).picks
    return sorted(Pick(one.phase, one.peak_time.ns, one.peak_value) for one in found)


def same(
    found: Sequence[Pick],
    expected: Sequence[Pick],
    *,
    within_ns: int,
    probability: float,
    span: tuple[float, float] = (-math.inf, math.inf),
) -> None:
    """Each pick has one of its phase and time, but for those that are hardly picks."""
    first, last = (START_NS + edge * NS_PER_S for edge in span)
    for ours, theirs in ((found, expected), (expected, found)):
        for one in ours:
            if one.probability < THRESHOLD + probability or not first <= one.time_ns <= last:
                continue
            alike = [
                abs(other.probability - one.probability)
                for other in theirs
                if other.phase == one.phase and abs(other.time_ns - one.time_ns) <= within_ns
            ]
            assert alike, one
            assert min(alike) <= probability, one


@pytest.fixture(scope="module")
def real(continuous: Path) -> np.ndarray:
    """Seventy minutes of aftershocks."""
    return real_rows(continuous, 720_000)[:, 300_000:]


def archive(real: np.ndarray, rate: float, folder: Path, seconds: float = 600) -> np.ndarray:
    """A record that is said to be of another rate, of a length that nothing divides."""
    rows = np.array([np.resize(row, round(seconds * rate) + 3) for row in real])
    for letter, row in zip("ZNE", rows, strict=True):
        write(folder / f"{letter}.mseed", records_of(f"HH{letter}", row, START_NS, rate))
    return rows


def check_chunks(
    pick: Any, real: np.ndarray, rate: float, folder: Path, minutes: float = 3.0
) -> None:
    seconds = 600
    rows = archive(real, rate, folder, seconds)
    cut = {"timechunk": minutes, "overlap": 0.5}
    whole = of_run(pick(folder, model=MODEL))
    assert len(whole) > 5 or rate <= 20 or rate >= 500
    same(whole, of_seisbench(rows, rate), within_ns=1000, probability=1e-4)
    # At the ends of the record its transform joins them to each other.
    inside = (WINDOW_S, seconds - WINDOW_S)
    probability = 2e-3
    if is_decimated(rate) or rate > 110:
        inside, probability = (-math.inf, math.inf), 1e-6
    pieces = of_run(pick(folder, model=MODEL, **cut))
    same(pieces, whole, within_ns=1000, probability=probability, span=inside)
    absolute = {"model": MODEL, "window_grid": "absolute"}
    whole = of_run(pick(folder, **absolute))
    pieces = of_run(pick(folder, **absolute, **cut))
    assert len(pieces) == len(whole)
    same(pieces, whole, within_ns=1000, probability=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rate", few_of(RATES))
def test_chunks_have_the_picks_of_the_whole(
    pick: Any, seisbench_cache: Path, real: np.ndarray, tmp_path: Path, rate: float
) -> None:
    check_chunks(pick, real, rate, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["trace", "absolute"])
@pytest.mark.parametrize("rate", [40.0, 200.0])
def test_a_drift_together_with_resampling(
    pick: Any, seisbench_cache: Path, real: np.ndarray, tmp_path: Path, rate: float, grid: str
) -> None:
    """Picks have the times of records from a clock that is 200 ppm slow, in chunks as well."""
    rows = archive(real, rate, tmp_path / "plain")
    for letter, row in zip("ZNE", rows, strict=True):
        records = records_of(f"HH{letter}", row, START_NS, rate)
        write(
            tmp_path / f"late/{letter}.mseed",
            by_clock(records, START_NS, rate, lambda time: time * 1.0002),
        )
    right = sorted(
        one._replace(time_ns=START_NS + round((one.time_ns - START_NS) * 1.0002))
        for one in of_seisbench(rows, rate)
    )
    assert len(right) > 5
    interval = round(NS_PER_S / rate)
    whole = pick(tmp_path / "late", model=MODEL, window_grid=grid)
    if grid == "absolute":  # its windows are others than those of SeisBench
        right = of_run(whole)
        assert len(right) > 5
    same(of_run(whole), right, within_ns=interval, probability=1e-4)
    pieces = pick(tmp_path / "late", model=MODEL, window_grid=grid, timechunk=3, overlap=0.5)
    inside = (WINDOW_S, 600 - WINDOW_S)
    same(of_run(pieces), right, within_ns=interval, probability=2e-3, span=inside)


@pytest.mark.slow
@pytest.mark.parametrize("rate", few_of([62.5, 125.0, 500.0]))
def test_day_files_on_the_absolute_grid(
    pick: Any, seisbench_cache: Path, real: np.ndarray, tmp_path: Path, rate: float
) -> None:
    """Files that end at midnight, picked day by day, have the picks of one record."""
    samples = round(600 * rate) + 3
    first_ns = parse_utc("2024-12-16T00:00:00") - 277 * NS_PER_S + 3_700_000
    middle = samples // 2 - round(23 * rate) + 1
    for letter, row in zip("ZNE", real, strict=True):
        row = np.resize(row, samples)
        write(tmp_path / f"one/{letter}.mseed", records_of(f"HH{letter}", row, first_ns, rate))
        second_ns = first_ns + round(middle / rate * NS_PER_S)
        for day, part, start in (
            ("350", row[:middle], first_ns),
            ("351", row[middle:], second_ns),
        ):
            place = f"sds/2024/XX/CLK/HH{letter}.D/XX.CLK..HH{letter}.D.2024.{day}"
            write(tmp_path / place, records_of(f"HH{letter}", part, start, rate))
    settings = {"model": MODEL, "window_grid": "absolute"}
    whole = of_run(pick(tmp_path / "one", **settings))
    days = of_run(pick(tmp_path / "sds", **settings))
    assert len(whole) > 5
    same(days, whole, within_ns=200_000, probability=1e-4)
