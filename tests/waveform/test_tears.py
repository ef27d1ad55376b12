"""Pieces that follow each other a little early or late are joined as SeisBench joins them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stamped import real_rows

from eqcctpro.times import NS_PER_S, parse_utc
from eqcctpro.waveform.blocks import assemble_blocks, component_rows
from eqcctpro.waveform.conflicts import drop_conflicts
from eqcctpro.waveform.decode import decode_file
from eqcctpro.waveform.segments import ChannelCode, Segment, merge_segments

START_NS = parse_utc("2024-12-15T12:00:00")
PIECE = 400  # samples

#: Component, start and samples of each piece.
Pieces = list[tuple[str, int, np.ndarray]]
Arrays = list[tuple[int, np.ndarray]]


@pytest.fixture(scope="module")
def seisbench_model() -> Iterator[Any]:
    """A model of SeisBench, for its way of making arrays of streams; its weights do not matter."""
    sbm = pytest.importorskip("seisbench.models")
    logger = logging.getLogger("seisbench")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of short fragments
    yield sbm.PhaseNet(component_order="ZNE")
    logger.setLevel(level)


def seisbench_arrays(model: Any, stream: obspy.Stream) -> Arrays:
    stream = model.sanitize_mismatching_overlapping_records(stream)
    if not len(stream):
        return []
    rows, _ = model._build_comp_dict(stream, True)
    groups = model._grouping.group_stream(stream, strict=False, min_length_s=0, comp_dict=rows)
    made = [model.stream_to_array(obspy.Stream(group), {}) for group in groups if group]
    return sorted((one.start_time.ns, one.data) for one in made)


def our_arrays(segments: Sequence[Segment]) -> Arrays:
    kept, _ = drop_conflicts(merge_segments(segments))
    blocks = assemble_blocks(kept, component_rows("ZNE"), 3)
    return [(block.start_ns, block.data) for block in blocks]


def check(model: Any, pieces: Pieces, rate: float) -> None:
    stream = obspy.Stream(
        obspy.Trace(
            samples,
            {
                "network": "XX",
                "station": "TEAR",
                "channel": f"HH{component}",
                "sampling_rate": rate,
                "starttime": obspy.UTCDateTime(ns=start),
            },
        )
        for component, start, samples in pieces
    )
    segments = [
        Segment(ChannelCode("XX", "TEAR", "", f"HH{component}"), start, rate, samples)
        for component, start, samples in pieces
    ]
    same(our_arrays(segments), seisbench_arrays(model, stream))


def same(ours: Arrays, theirs: Arrays) -> None:
    assert [data.shape for _, data in ours] == [data.shape for _, data in theirs]
    for (start, data), (their_start, their_data) in zip(ours, theirs, strict=True):
        assert abs(start - their_start) < 100_000  # ns; ObsPy moves pieces onto each other's grid
        np.testing.assert_array_equal(data, their_data.astype(np.float32))


def torn(
    rows: np.ndarray, starts: Sequence[Sequence[float]], rate: float, piece: int = PIECE
) -> Pieces:
    """Pieces of equal length of each row, each so many samples after the one before."""
    pieces = []
    for component, row, tears in zip("ZNE", rows, starts, strict=True):
        start = float(START_NS)
        for number, tear in enumerate(tears):
            start += tear / rate * NS_PER_S if number else 0.0
            samples = row[number * piece : (number + 1) * piece]
            pieces.append((component, round(start), samples))
            start += piece / rate * NS_PER_S
    return pieces


def signal(samples: int) -> np.ndarray:
    return np.random.default_rng(5).integers(-999, 999, (3, samples)).astype(np.int32)


@pytest.mark.parametrize("rate", [20.0, 40.0, 50.0, 62.5, 80.0, 100.0, 125.0, 200.0, 250.0])
def test_equal_tears(seisbench_model: Any, rate: float) -> None:
    for tear in np.linspace(-1, 1, 21):
        check(seisbench_model, torn(signal(8 * PIECE), [[tear] * 8] * 3, rate), rate)


# ObsPy aligns samples that are beside the grid by up to 0.01; what lies just there is left to
# its rounding.
tears_in_samples = st.just(0.0) | st.integers(-100, 99).map(lambda part: part / 100 + 0.003)


@pytest.mark.slow
@given(
    rate=st.sampled_from([40.0, 50.0, 62.5, 80.0, 100.0, 125.0, 200.0]),
    tears=st.lists(st.lists(tears_in_samples, min_size=5, max_size=5), min_size=3, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_any_tears(seisbench_model: Any, rate: float, tears: list[list[float]]) -> None:
    check(seisbench_model, torn(signal(5 * PIECE), tears, rate), rate)


@pytest.mark.parametrize("one_file", [True, False])
@pytest.mark.parametrize("tear", [-1.0, -0.6, -0.4, 0.0, 0.1, 0.3, 0.6, 1.0])
def test_tears_in_files(
    seisbench_model: Any, write_mseed: Any, tmp_path: Path, tear: float, one_file: bool
) -> None:
    paths: list[Path] = []
    by_channel: dict[str, list[tuple[int, np.ndarray]]] = {}
    for component, start, samples in torn(signal(8 * PIECE), [[tear] * 8] * 3, 100.0):
        by_channel.setdefault(component, []).append((start, samples))
    for component, pieces in by_channel.items():
        parts = [pieces] if one_file else [[piece] for piece in pieces]
        for number, part in enumerate(parts):
            path = tmp_path / f"{component}{number}.mseed"
            paths.append(write_mseed(path, f"XX.TEAR..HH{component}", part))
    stream = obspy.Stream()
    for path in paths:
        stream += obspy.read(str(path))
    segments = [segment for path in paths for segment in decode_file(path).segments]
    same(our_arrays(segments), seisbench_arrays(seisbench_model, stream))


def test_picks_over_tears(
    pick: Any, write_mseed: Any, continuous: Path, seisbench_cache: Path, tmp_path: Path
) -> None:
    """Eight pieces of 40 s that follow each other 0.4 samples early."""
    sbm = pytest.importorskip("seisbench.models")
    rows = real_rows(continuous, 32_000)
    stream = obspy.Stream()
    for component, start, samples in torn(rows, [[-0.4] * 8] * 3, 100.0, 4000):
        path = tmp_path / f"in/{component}.{start}.mseed"
        write_mseed(path, f"XX.TEAR..HH{component}", [(start, samples)])
        stream += obspy.read(str(path))
    expected = sbm.PhaseNet.from_pretrained("original").classify(stream).picks
    found = pick(tmp_path / "in", model="PhaseNet/original").table
    theirs = sorted((one.phase, one.peak_time.ns, one.peak_value) for one in expected)
    times = found["time"].cast("int64").to_numpy() * 1000
    ours = sorted(
        zip(found["phase"].to_pylist(), times, found["probability"].to_pylist(), strict=True)
    )
    assert len(theirs) > 4
    assert [one[0] for one in ours] == [one[0] for one in theirs]
    np.testing.assert_allclose([o[1] for o in ours], [t[1] for t in theirs], atol=1e7, rtol=0)
    np.testing.assert_allclose([o[2] for o in ours], [t[2] for t in theirs], atol=1e-4)
