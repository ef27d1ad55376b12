"""Records of a channel that contradict each other cost the stretch where they do, not the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stamped import real_rows, records_of, write

from eqcctpro.times import parse_utc
from eqcctpro.waveform.conflicts import cut_conflicts, drop_conflicts
from eqcctpro.waveform.decode import decode_records
from eqcctpro.waveform.segments import ChannelCode, Segment, merge_segments

MODEL = "PhaseNet/original"
MIDNIGHT_NS = parse_utc("2024-12-16T00:00:00")
INTERVAL_NS = 10_000_000  # of 100 Hz
CODE = ChannelCode("XX", "CON", "", "HHZ")
SPANS = 400


def piece(samples: np.ndarray, start: float, quality: int = 2) -> Segment:
    """Samples that begin so many samples behind the midnight."""
    return Segment(CODE, MIDNIGHT_NS + round(start * INTERVAL_NS), 100.0, samples, None, quality)


def spans(segments: list[Segment]) -> list[tuple[int, int]]:
    """First and last sample of each, counted from the midnight."""
    return [
        (
            round((one.start_ns - MIDNIGHT_NS) / INTERVAL_NS),
            round((one.end_ns - MIDNIGHT_NS) / INTERVAL_NS),
        )
        for one in segments
    ]


def row(samples: int) -> np.ndarray:
    return np.arange(samples, dtype=np.int32)


def resolved(*pieces: Segment) -> tuple[list[tuple[int, int]], int]:
    kept, found = cut_conflicts(pieces)
    return spans(merge_segments(kept)), sum(one.n_samples for one in found)


def test_equal_overlaps_are_joined() -> None:
    whole = row(1000)
    assert resolved(piece(whole[:600], 0), piece(whole[400:], 400)) == ([(0, 999)], 0)
    assert resolved(piece(whole, 0), piece(whole[400:500], 400)) == ([(0, 999)], 0)
    assert resolved(piece(whole, 0), piece(whole, 0)) == ([(0, 999)], 0)


def test_only_the_stretch_is_left_out() -> None:
    left, right = row(600), row(1000)[400:].copy()
    right[100:110] += 1  # samples 500 to 509
    assert resolved(piece(left, 0), piece(right, 400)) == ([(0, 499), (510, 999)], 10)
    # In one file or another, the earlier first or last.
    assert resolved(piece(right, 400), piece(left, 0)) == ([(0, 499), (510, 999)], 10)


def test_samples_that_agree_by_chance_are_left_out_too() -> None:
    left, right = row(1000), row(1000).copy()
    right[300:400:2] += 1
    right[700] += 1
    expected = [(0, 299), (399, 699), (701, 999)], 99 + 1
    assert resolved(piece(left, 0), piece(right, 0)) == expected


def test_other_sampling_points_contradict() -> None:
    """An overlap of 2.3 samples with other numbers."""
    kept, found = cut_conflicts([piece(row(500), 0), piece(row(500) + 7, 497.7)])
    assert [len(one.samples) for one in kept] == [498, 498]
    assert [one.n_samples for one in found] == [2]
    assert kept[1].start_ns > kept[0].end_ns


@pytest.mark.parametrize("late", [-2, -1, 1, 3])
def test_copies_whose_stamps_differ_by_few_samples_are_copies(late: int) -> None:
    """Within long records of a clock that drifts, times are counted from other stamps."""
    noise = np.random.default_rng(4).integers(-99, 99, 1000).astype(np.int32)
    kept, found = cut_conflicts([piece(noise[:600], 0), piece(noise[400:], 400 + late)])
    assert not found
    assert abs(sum(len(one.samples) for one in kept) - 1000) <= abs(late)
    other = noise.copy()
    other[500] += 1
    _, found = cut_conflicts([piece(noise[:600], 0), piece(other[400:], 400 + late)])
    assert found


def test_the_time_of_one_sample_is_no_contradiction() -> None:
    for start in (499.0, 499.3, 499.6, 500.0, 500.4):
        kept, found = cut_conflicts([piece(row(500), 0), piece(row(500) + 7, start)])
        assert not found
        assert [len(one.samples) for one in kept] == [500, 500]


@pytest.mark.parametrize(("better", "worse"), [(3, 2), (4, 1), (4, 3), (2, 1)])
def test_higher_quality_wins(better: int, worse: int) -> None:
    good, bad = row(1000), row(1000) + 5
    kept, found = cut_conflicts([piece(bad, 0, worse), piece(good[300:600], 300, better)])
    (merged,) = merge_segments(kept)
    expected = bad.copy()
    expected[300:600] = good[300:600]
    np.testing.assert_array_equal(merged.samples, expected)
    assert [one.decided for one in found] == [True]


@pytest.mark.parametrize(("better", "worse"), [("Q", "D"), ("M", "R")])
def test_qualities_of_records(better: str, worse: str) -> None:
    """In one file, also where records of both qualities alternate."""
    samples = np.random.default_rng(1).integers(-999, 999, 6000).astype(np.int32)
    good = records_of("HHZ", samples, MIDNIGHT_NS, quality=better)
    bad = records_of("HHZ", samples + 1, MIDNIGHT_NS, quality=worse)
    for content in (good[:9] + bad[4:], bad + good, good + bad):
        segments = decode_records(b"".join(content), "test").segments
        kept, _ = cut_conflicts(segments)
        (merged,) = merge_segments(kept)
        assert len(merged.samples) == 6000
        last = 6000 if len(content) > len(good) + 9 else 9 * 200
        np.testing.assert_array_equal(merged.samples[:last], samples[:last])


def test_three_records_of_one_time() -> None:
    """What two of them leave out, no third one fills in."""
    one, two, three = row(1000), row(1000).copy(), row(1000)
    two[500:600] += 3
    expected = [(0, 499), (600, 999)]
    assert resolved(piece(one, 0), piece(two, 0), piece(three, 0))[0] == expected
    assert resolved(piece(two, 0), piece(one, 0), piece(three[400:], 400))[0] == expected


def test_a_single_sample_hides_no_contradiction() -> None:
    """Of the third piece one sample is left, at the time of the second's first."""
    one, two = row(200), row(200) + 1000
    pieces = [piece(one[:180], 0), piece(two[:184], 0), piece(one[:181], 0)]
    kept, _ = cut_conflicts([*pieces, piece(one[181:184], 181)])
    assert spans(kept) == [(180, 180)]


def test_many_short_overlapping_files() -> None:
    """A day of files that share a tenth with their neighbours does not take for ever."""
    whole = row(400_000)
    pieces = [piece(whole[at : at + 110], at) for at in range(0, 400_000, 100)]
    kept, found = cut_conflicts(pieces)
    assert not found
    assert sum(len(one.samples) for one in kept) == 400_000


@pytest.mark.slow
@given(
    pieces=st.lists(
        st.tuples(
            st.integers(0, SPANS), st.integers(1, SPANS), st.integers(0, 2), st.integers(1, 4)
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=200, deadline=None)
def test_every_sample_is_kept_or_contradicted(
    pieces: list[tuple[int, int, int, int]],
) -> None:
    """Of any pieces: no two overlap, and what agrees with all others of its time is kept."""
    base = np.arange(2 * SPANS, dtype=np.int32) * 10
    segments, copies = [], []
    for start, length, shift, quality in pieces:
        samples = base[start : start + length] + np.int32(shift)
        segments.append(piece(samples, start, quality))
        copies.append((start, start + length, shift, quality))
    kept, _ = cut_conflicts(segments)
    found: dict[int, int] = {}
    firsts = [round((one.start_ns - MIDNIGHT_NS) / INTERVAL_NS) for one in kept]
    ends = {first + len(one.samples) - 1 for first, one in zip(firsts, kept, strict=True)}
    for first, one in zip(firsts, kept, strict=True):
        for at, value in enumerate(one.samples.tolist(), first):
            # Two pieces may share the time of one sample, which is no contradiction.
            assert found.setdefault(at, value) == value or at in ends.union(firsts)
    for at in range(2 * SPANS):
        here = [(q, s) for begin, end, s, q in copies if begin <= at < end]
        best = {shift for quality, shift in here if quality == max(here)[0]}
        if len(best) == 1 and at not in found:
            # Left out beside samples that contradict each other: less than a second of agreement.
            near = range(max(at - 100, 0), at + 101)
            assert any(len({s for b, e, s, _ in copies if b <= x < e}) > 1 for x in near)
        if at in found:
            assert found[at] - base[at] in {shift for _, shift in here}


# Whole runs


@pytest.fixture(scope="module")
def two_days(continuous: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Day files of minutes on either side of midnight, and the second one by itself.

    The second day's file begins 2.3 samples before the first one ends, with other numbers.
    """
    root = tmp_path_factory.mktemp("days")
    half = 45_000
    for letter, samples in zip("ZNE", real_rows(continuous, 2 * half), strict=True):
        before = np.concatenate([samples[:half], samples[half : half + 3]])
        files = {
            "350": records_of(f"HH{letter}", before, MIDNIGHT_NS - half * INTERVAL_NS),
            "351": records_of(f"HH{letter}", samples[half:] + 1, MIDNIGHT_NS - 3_000_000),
        }
        for day, records in files.items():
            place = f"2024/XX/CLK/HH{letter}.D/XX.CLK..HH{letter}.D.2024.{day}"
            write(root / "both" / place, records)
            write(root / day / place, records)
    return root / "both", root


def picks_of(table: Any) -> list[tuple[str, int, float]]:
    times = (table["time"].cast("int64").to_numpy() * 1000).tolist()
    return sorted(
        zip(table["phase"].to_pylist(), times, table["probability"].to_pylist(), strict=True)
    )


@pytest.mark.slow
def test_day_files_that_touch(
    pick: Any, two_days: tuple[Path, Path], seisbench_cache: Path
) -> None:
    """The picks are SeisBench's on the days without the samples that contradict each other."""
    sbm = pytest.importorskip("seisbench.models")
    both, root = two_days
    result = pick(both, model=MODEL)
    assert result.counts["done"] == 2
    before, behind = (obspy.read(str(root / day / "2024/XX/CLK/*/*")) for day in ("350", "351"))
    for trace in before:
        trace.data = trace.data[:-3]
    for trace in behind:
        trace.data = trace.data[3:]
        trace.stats.starttime += 0.03
    stream = before + behind
    expected = sorted(
        (one.phase, one.peak_time.ns, one.peak_value)
        for one in sbm.PhaseNet.from_pretrained("original").classify(stream).picks
    )
    ours = picks_of(result.table)
    assert [one[0] for one in ours] == [one[0] for one in expected]
    assert min(one[1] for one in ours) < MIDNIGHT_NS < max(one[1] for one in ours)
    np.testing.assert_allclose([o[1] for o in ours], [e[1] for e in expected], atol=1e7, rtol=0)
    np.testing.assert_allclose([o[2] for o in ours], [e[2] for e in expected], atol=1e-4)
    notes = [note for task in result.summary["notes"] for note in task["notes"]]
    assert any("contradict" in note and "XX.CLK..HHZ 3 samples" in note for note in notes)


def test_a_day_by_itself_has_picks(
    pick: Any, two_days: tuple[Path, Path], seisbench_cache: Path
) -> None:
    result = pick(two_days[0], model=MODEL, start="2024-12-16", end="2024-12-17")
    assert result.counts["done"] == 1
    assert result.table.num_rows > 2


def test_seisbenchs_way(pick: Any, two_days: tuple[Path, Path], seisbench_cache: Path) -> None:
    """All is left out, and the reason names the cause."""
    result = pick(two_days[0], model=MODEL, contradictions="drop")
    assert result.table.num_rows == 0
    assert result.counts["empty"] == 2
    assert all("contradict" in task["reason"] for task in result.summary["empty"])


@pytest.mark.slow
def test_nothing_is_left(
    pick: Any, continuous: Path, seisbench_cache: Path, tmp_path: Path
) -> None:
    """Two copies of a record with other numbers: the reason names the cause; quality decides."""
    samples = real_rows(continuous, 12_000)
    for letter, one in zip("ZNE", samples, strict=True):
        first = records_of(f"HH{letter}", one, MIDNIGHT_NS)
        write(tmp_path / f"in/{letter}.D.mseed", first)
        write(tmp_path / f"plain/{letter}.mseed", first)
        write(tmp_path / f"in/{letter}.2.mseed", records_of(f"HH{letter}", one * 2, MIDNIGHT_NS))
    (empty,) = pick(tmp_path / "in", model=MODEL).summary["empty"]
    assert "where records contradict each other" in empty["reason"]
    for letter, one in zip("ZNE", samples, strict=True):
        worse = records_of(f"HH{letter}", one[::-1], MIDNIGHT_NS, quality="R")
        write(tmp_path / f"in/{letter}.2.mseed", worse)
    result = pick(tmp_path / "in", model=MODEL)
    assert picks_of(result.table) == picks_of(pick(tmp_path / "plain", model=MODEL).table)
    (noted,) = result.summary["notes"]
    assert "where records of a higher quality say something else" in noted["notes"][0]


def test_seisbench_and_drop_leave_out_the_same() -> None:
    pieces = [piece(row(100), 0), piece(row(100) + 1, 98), piece(row(10), 300)]
    kept, found = drop_conflicts(pieces)
    assert spans(kept) == [(300, 309)]
    assert len(found) == 2
