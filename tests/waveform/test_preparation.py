"""Gaps are filled, and records filtered, as by programs that use ObsPy before SeisBench."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from field_records import START_NS, noise, records_of, write
from hypothesis import given, settings
from hypothesis import strategies as st
from stamped import by_clock, real_rows
from stamped import records_of as clock_records

from eqcctpro import PickConfig, RunEQCCTPro, SettingsWarning
from eqcctpro.errors import InputError, ReplaceError, ResumeError, SettingsError
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.conflicts import cut_conflicts
from eqcctpro.waveform.decode import decode_records
from eqcctpro.waveform.filters import apply_steps, parse_step, settling_s
from eqcctpro.waveform.gaps import fill_gaps
from eqcctpro.waveform.segments import ChannelCode, Segment, merge_segments

CODE = ChannelCode("XX", "GAP", "", "HHZ")
INTERVAL_NS = 10_000_000  # of 100 Hz
SAMPLE_NS = 10_000_000
STATIONS = ("ACR", "BJOB", "CVS", "DPP", "GDXB", "SB4")
MODELS = (
    "PhaseNet/original",
    pytest.param("EQTransformer/original", marks=pytest.mark.exhaustive),
)

Prepare = Callable[[obspy.Stream], Any]


def piece(samples: np.ndarray, first: float, rate: float = 100.0) -> Segment:
    """Samples that begin so many samples behind the start."""
    return Segment(CODE, START_NS + round(first * 1e9 / rate), rate, samples)


def as_stream(pieces: Sequence[Segment]) -> obspy.Stream:
    stream = obspy.Stream()
    for one in pieces:
        header = dict(zip(("network", "station", "location", "channel"), one.code, strict=True))
        start = obspy.UTCDateTime(ns=one.start_ns)
        stream += obspy.Trace(
            one.samples.copy(), {**header, "starttime": start, "sampling_rate": one.sampling_rate}
        )
    return stream


# Filters


FILTERS: list[tuple[str, Prepare]] = [
    ("highpass:1", lambda s: s.filter("highpass", freq=1)),
    (
        "lowpass:20,corners=2,zerophase",
        lambda s: s.filter("lowpass", freq=20, corners=2, zerophase=True),
    ),
    ("bandpass:3,15", lambda s: s.filter("bandpass", freqmin=3, freqmax=15)),
    (
        "bandstop:freqmin=10, freqmax=12, corners=3, zerophase=true",
        lambda s: s.filter("bandstop", freqmin=10, freqmax=12, corners=3, zerophase=True),
    ),
    ("detrend:linear", lambda s: s.detrend("linear")),
    ("detrend:demean", lambda s: s.detrend("demean")),
    ("detrend:constant", lambda s: s.detrend("constant")),
    ("detrend:simple", lambda s: s.detrend()),
    ("detrend:polynomial,order=3", lambda s: s.detrend("polynomial", order=3)),
]


@pytest.mark.parametrize("kind", [np.int32, np.float32, np.float64])
@pytest.mark.parametrize(("text", "by_obspy"), FILTERS, ids=[text for text, _ in FILTERS])
def test_a_filter_is_obspys(text: str, by_obspy: Prepare, kind: type) -> None:
    steps = np.random.default_rng(1).standard_normal(9001) * 100
    for rate, samples in ((100.0, 9001), (62.5, 700)):
        one = piece((1e5 + np.cumsum(steps[:samples])).astype(kind), 0, rate)
        stream = as_stream([one])
        by_obspy(stream)
        (ours,) = apply_steps([one], [parse_step(text)])
        assert ours.samples.dtype == stream[0].data.dtype
        np.testing.assert_array_equal(ours.samples, stream[0].data)
        assert (ours.start_ns, ours.sampling_rate) == (one.start_ns, rate)


def test_filters_apply_in_their_order() -> None:
    one = piece(noise(60), 0)
    stream = as_stream([one]).detrend("linear").filter("highpass", freq=2).filter("lowpass", 20)
    texts = ("detrend:linear", "highpass:2", "lowpass:20")
    (ours,) = apply_steps([one], [parse_step(text) for text in texts])
    np.testing.assert_array_equal(ours.samples, stream[0].data)
    (other,) = apply_steps([one], [parse_step(text) for text in texts[::-1]])
    assert (other.samples != ours.samples).any()


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("text", [text for text, _ in FILTERS])
def test_very_short_pieces(text: str, samples: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's on fits of few points
        (ours,) = apply_steps([piece(np.arange(samples, dtype="i4") + 5, 0)], [parse_step(text)])
    assert len(ours.samples) == samples and np.isfinite(ours.samples).all()


@pytest.mark.parametrize(
    "text",
    [
        *("highpass:0.1", "highpass:1,corners=8", "lowpass:0.5", "bandpass:1,20,corners=1"),
        *("bandpass:9.9,10,corners=2", "bandstop:9.5,10.5", "bandpass:0.2,0.3", "bandpass:1,49"),
    ],
)
def test_what_was_before_is_forgotten(text: str) -> None:
    """A filter that began earlier and one that begins now agree after its settling time."""
    step = parse_step(text)
    settled = int(settling_s(step) * 100)
    whole = piece(np.concatenate([np.full(500, 1e6), noise(settled / 100 + 60) + 1e5]), 0)
    late = piece(whole.samples[500:], 500)
    a, b = (one.samples[-6000:] for one in apply_steps([whole, late], [step]))
    before = apply_steps([late], [step])[0].samples[:200]
    assert np.abs(a - b).max() < 1e-3
    assert np.abs(before - apply_steps([whole], [step])[0].samples[500:700]).max() > 10


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no filter"),
        ("lowpass_cheby_2:3", "no filter; use highpass:HZ, lowpass:HZ, bandpass:HZ,HZ"),
        ("highpass", "highpass takes freq in Hz"),
        ("highpass:1,2", "highpass takes freq in Hz"),
        ("bandpass:5", "bandpass takes freqmin and freqmax"),
        ("bandpass:1,2,3", "bandpass takes freqmin and freqmax"),
        ("bandpass:5,1", "the low one first"),
        ("bandpass:5,5", "the low one first"),
        ("highpass:-1", "above 0 Hz"),
        ("highpass:a", "freq is a number of Hz, not 'a'"),
        ("highpass:inf", "freq is a number of Hz, not 'inf'"),
        ("highpass:1,freq=2", "freq twice"),
        ("highpass:1,corners=0", "corners is a whole number from 1 to 20"),
        ("highpass:1,corners=2.5", "corners is a whole number from 1 to 20"),
        ("highpass:1,zerophase=maybe", "zerophase is true or false"),
        ("highpass:1,causal,zerophase", "zerophase twice"),
        ("highpass:1,order=2", "order is not known"),
        ("highpass:0.00001", "rings for 266 h"),
        ("detrend", "detrend takes one of simple, linear, demean, constant, polynomial"),
        ("detrend:spline", "detrend takes one of"),
        ("detrend:polynomial", "needs its order"),
        ("detrend:polynomial,order=11", "order is a whole number from 1 to 10"),
    ],
)
def test_a_wrong_filter_is_named(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        PickConfig.checked(input="in", output="out", filters=["highpass:1", text])
    assert caught.value.message.startswith(f"filters: {text!r}") and says in caught.value.message


def test_filters_are_kept_with_their_defaults() -> None:
    config = PickConfig.checked(input="in", output="out", filters="HighPass: 1")
    assert config.filters == ("highpass:1,corners=4,causal",)
    assert PickConfig.checked(input="in", output="out", filters=config.filters) == config


def test_a_rate_that_is_too_low_is_named() -> None:
    low = piece(noise(60, rate=20), 0, 20.0)
    for text in ("lowpass:10", "highpass:12", "bandpass:1,10", "bandstop:2,10"):
        with pytest.raises(InputError, match=r"XX\.GAP\.\.HHZ: .* this channel has 20 Hz"):
            apply_steps([piece(noise(60), 0), low], [parse_step("highpass:1"), parse_step(text)])
    apply_steps([low], [parse_step("bandpass:1,9.9")])


# Gaps


@st.composite
def broken(draw: Any) -> list[Segment]:
    """Pieces of one channel with gaps, some of them between sampling points."""
    kind = draw(st.sampled_from(["i4", "f4", "f8"]))
    rate = draw(st.sampled_from([100.0, 40.0, 62.5]))
    pieces, at, beside = [], 0, 0.0
    seed = draw(st.integers(0, 99))
    values = np.random.default_rng(seed).normal(0, 1e4, 2000).astype(kind)
    for _ in range(draw(st.integers(1, 6))):
        length = draw(st.integers(1, 300))
        pieces.append(piece(values[:length], at + beside, rate))
        values = values[length:]
        gap = draw(st.one_of(st.just(0), st.integers(1, 400)))
        at += length + gap
        if gap:
            beside = draw(st.sampled_from([0.0, 0.0, 0.2, -0.3, 0.45]))
    return draw(st.permutations(pieces))


@pytest.mark.slow
@given(pieces=broken(), how=st.sampled_from(["zero", "interpolate"]))
@settings(max_examples=150, deadline=None)
def test_filled_gaps_are_obspys(pieces: list[Segment], how: Any) -> None:
    stream = as_stream(pieces)
    stream.merge(method=1, fill_value=0 if how == "zero" else "interpolate")
    (ours,), found = fill_gaps(merge_segments(pieces), how, 3600.0)
    np.testing.assert_array_equal(ours.samples, stream[0].data)
    assert ours.samples.dtype == stream[0].data.dtype
    assert abs(ours.start_ns - stream[0].stats.starttime.ns) <= 1000
    there = sum(len(one.samples) for one in pieces)
    assert sum(gap.n_samples for gap in found) == len(ours.samples) - there


@pytest.mark.parametrize("overlap", [2, 150])
def test_what_contradicts_is_filled_as_by_merging(overlap: int) -> None:
    """As by ``merge(method=0)``, where all of an overlap differs."""
    left, right = noise(10), noise(10, seed=1) + 5_000
    pieces = [piece(left, 0), piece(right, 1000 - overlap)]
    stream = as_stream(pieces).merge(method=0, fill_value=0)
    kept, found = cut_conflicts(pieces)
    (ours,), filled = fill_gaps(merge_segments(kept), "zero", 60.0)
    assert found and [gap.n_samples for gap in filled] == [overlap]
    np.testing.assert_array_equal(ours.samples, stream[0].data)


def test_longer_gaps_stay_gaps() -> None:
    row = noise(10)
    pieces = [piece(row, 0), piece(row, 1000 + 500), piece(row, 2500 + 501)]
    kept, found = fill_gaps(pieces, "zero", 5.0)
    assert [len(one.samples) for one in kept] == [2500, 1000]
    assert [gap.seconds for gap in found] == [5.0]
    kept, found = fill_gaps(pieces, "zero", 4.99)
    assert len(kept) == 3 and not found


def test_other_rates_and_channels_are_not_joined() -> None:
    row = noise(10)
    other = Segment(ChannelCode("XX", "GAP", "", "HHN"), START_NS + 15 * NS_PER_S, 100.0, row)
    pieces = [piece(row, 0), Segment(CODE, START_NS + 15 * NS_PER_S, 50.0, row), other]
    assert fill_gaps(pieces, "zero", 60.0)[1] == []


def test_one_shared_sample_is_the_later_ones() -> None:
    (ours,), found = fill_gaps([piece(np.full(10, 1), 0), piece(np.full(10, 2), 9.2)], "zero", 1.0)
    assert ours.samples.tolist() == [1] * 9 + [2] * 10 and not found


def test_gaps_are_bounded_before_anything_is_allocated() -> None:
    """Pieces of a second, a day apart, over years; and a sampling rate that no one can have."""
    row = noise(1)
    years = [piece(row, day * 8_640_000) for day in range(3000)]
    with pytest.raises(InputError, match=r"XX\.GAP\.\.HHZ: its gaps add up to 2\d+ s") as caught:
        fill_gaps(years, "interpolate", 86_400.0)
    assert "longest_gap" in str(caught.value.hint) and "timechunk" in str(caught.value.hint)
    kept, found = fill_gaps(years, "interpolate", 60.0)
    assert len(kept) == 3000 and not found
    fast = [Segment(CODE, START_NS + n * NS_PER_S, 1e12, row) for n in range(2)]
    with pytest.raises(InputError, match="gaps add up"):
        fill_gaps(fast, "zero", 60.0)


def test_gaps_of_a_clock_that_drifts() -> None:
    """Samples are as many as the time stamps say, and times are those of the records."""
    whole = noise(1200)
    records = by_clock(
        clock_records("HHZ", whole, START_NS), START_NS, 100.0, lambda t: t * (1 + 3e-4)
    )
    (complete,) = decode_records(b"".join(records), "test").segments
    third = len(records) // 3
    content = b"".join(records[:third] + records[third + 2 :])
    pieces = merge_segments(decode_records(content, "test").segments)
    assert len(pieces) == 2
    (ours,), (gap,) = fill_gaps(pieces, "zero", 60.0)
    assert ours.clock is not None
    missing = pieces[1].start_ns - pieces[0].time_of(len(pieces[0].samples))
    assert gap.n_samples == round(missing / INTERVAL_NS)
    for at in (0, 50_000, len(ours.samples) - 1):
        sample = at - (len(ours.samples) - len(complete.samples)) * (at > 0)
        assert abs(ours.time_of(at) - complete.time_of(sample)) <= INTERVAL_NS


@pytest.mark.parametrize("gap", [0.0, -1.0, 86_401.0, 1e12, float("nan")])
def test_the_longest_gap_is_bounded(gap: float) -> None:
    with pytest.raises(SettingsError, match="longest_gap"):
        PickConfig.checked(input="in", output="out", fill_gaps="zero", longest_gap=gap)


def test_a_longest_gap_without_filling_is_named() -> None:
    with pytest.warns(SettingsWarning, match="longest_gap=5 has no effect: fill_gaps is none"):
        assert PickConfig.checked(input="in", output="out", longest_gap=5).longest_gap == 60


# Whole runs


Found = tuple[str, str, int, float]


@cache
def model_of(name: str) -> Any:
    sbm = pytest.importorskip("seisbench.models")
    parent, child = name.split("/")
    return getattr(sbm, parent).from_pretrained(child)


def theirs(name: str, files: Sequence[Path], prepare: Prepare) -> list[Found]:
    """Picks of a user's program: station, phase, nanoseconds, probability."""
    stream = obspy.Stream()
    for path in sorted(files):
        stream += obspy.read(str(path))
    prepare(stream)
    picks = model_of(name).classify(stream).picks
    return sorted((p.trace_id, p.phase, p.peak_time.ns, float(p.peak_value)) for p in picks)


def ours(result: Any) -> list[Found]:
    rows = result.table.to_pandas()
    return sorted(
        (f"{row.network}.{row.station}.{row.location}", row.phase, row.time.value, row.probability)
        for row in rows.itertuples()
    )


def assert_same(found: Sequence[Found], expected: Sequence[Found]) -> None:
    """Pick for pick, within a sample and 1e-4."""
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert abs(one[2] - other[2]) <= SAMPLE_NS + 1000, (one, other)
        assert abs(one[3] - other[3]) <= 1e-4, (one, other)


@pytest.fixture(scope="module")
def gappy(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled records of some stations with gaps, before, in and behind the arrivals."""
    root = tmp_path_factory.mktemp("gappy")
    cuts = {"Z": [(1500, 1800), (4300, 4400)], "N": [(4100, 4350)], "E": [(2000, 5500)]}
    for station in STATIONS:
        for path in sorted(next(labelled.glob(f"*/{station}")).glob("*.mseed")):
            (trace,) = obspy.read(str(path))
            edges = [0, *(n for cut in cuts[trace.id[-1]] for n in cut), len(trace.data)]
            code, start = trace.id, trace.stats.starttime.ns
            records = [
                record
                for first, last in zip(edges[::2], edges[1::2], strict=True)
                for record in records_of(
                    code, trace.data[first:last], start_ns=start + first * INTERVAL_NS
                )
            ]
            write(root / path.parents[1].name / station / f"{code}.mseed", records)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("how", "value"), [("zero", 0), ("interpolate", "interpolate")])
def test_filled_gaps_draw_the_same_picks(
    pick: Any, gappy: Path, seisbench_cache: Path, how: str, value: Any, model: str
) -> None:
    result = pick(gappy, model=model, fill_gaps=how)
    expected = [
        found
        for station in STATIONS
        for found in theirs(
            model, [*gappy.glob(f"*/{station}/*")], lambda s: s.merge(0, fill_value=value)
        )
    ]
    assert len(expected) > 5
    assert_same(ours(result), sorted(expected))
    assert ours(pick(gappy, model=model)) != ours(result)
    what = "zeros" if how == "zero" else "straight lines"
    notes = [note for task in result.summary["notes"] for note in task["notes"]]
    said = [note for note in notes if note.startswith(f"filled 4 gaps with {what}, 41.5 s in all")]
    assert len(said) == len(STATIONS), notes
    assert result.summary["balanced"]
    assert result.summary["applied"]["fill_gaps"] == how
    assert result.summary["applied"]["longest_gap"] == 60
    assert result.summary["applied"]["filters"] is None


def test_shorter_gaps_only(pick: Any, gappy: Path, seisbench_cache: Path) -> None:
    """The 35 s of one component stay a gap."""
    result = pick(gappy, model=MODELS[0], fill_gaps="zero", longest_gap=10)
    notes = [note for task in result.summary["notes"] for note in task["notes"]]
    assert any(note.startswith("filled 3 gaps with zeros, 6.5 s in all") for note in notes)

    def prepare(stream: obspy.Stream) -> None:
        kept = stream.select(component="E")
        rest = stream.select(component="[ZN]").merge(0, fill_value=0)
        stream.traces = [*rest, *kept]

    expected = [f for s in STATIONS for f in theirs(MODELS[0], [*gappy.glob(f"*/{s}/*")], prepare)]
    assert_same(ours(result), sorted(expected))


ASKED: list[tuple[tuple[str, ...], Prepare]] = [
    (("highpass:1",), lambda s: s.filter("highpass", freq=1)),
    (
        ("detrend:demean", "bandpass:3,15,corners=2,zerophase"),
        lambda s: s.detrend("demean").filter(
            "bandpass", freqmin=3, freqmax=15, corners=2, zerophase=True
        ),
    ),
    (("detrend:linear", "lowpass:12"), lambda s: s.detrend("linear").filter("lowpass", freq=12)),
]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("filters", "by_obspy"), ASKED, ids=[one[0][-1] for one in ASKED])
def test_filters_draw_the_same_picks(
    pick: Any,
    labelled: Path,
    seisbench_cache: Path,
    filters: tuple[str, ...],
    by_obspy: Prepare,
    model: str,
) -> None:
    result = pick(labelled, model=model, stations=STATIONS, filters=filters)
    expected = [
        found
        for station in STATIONS
        for found in theirs(model, [*labelled.glob(f"*/{station}/*.mseed")], by_obspy)
    ]
    assert len(expected) > 5
    assert_same(ours(result), sorted(expected))
    assert result.summary["applied"]["filters"] == [str(parse_step(text)) for text in filters]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_mean_is_taken_off_in_double_precision(
    pick: Any, labelled: Path, seisbench_cache: Path, tmp_path: Path, model: str
) -> None:
    """With an offset that leaves float32 steps of 64 counts, the picks are those without it."""
    offset = 1_000_000_000

    def demean(stream: obspy.Stream) -> None:
        for trace in stream:
            trace.data = trace.data.astype("i4")
        stream.detrend("demean")

    for station in STATIONS:
        for path in sorted(next(labelled.glob(f"*/{station}")).glob("*.mseed")):
            (trace,) = obspy.read(str(path))
            data = trace.data.astype("i4") + offset
            records = records_of(trace.id, data, start_ns=trace.stats.starttime.ns)
            write(tmp_path / "in" / station / path.name, records)
    result = pick(tmp_path / "in", model=model, filters="detrend:demean", runtime="auto")
    expected = [
        found
        for station in STATIONS
        for found in theirs(model, [*next(labelled.glob(f"*/{station}")).glob("*.mseed")], demean)
    ]
    assert len(expected) > 5
    assert_same(ours(result), sorted(expected))


@pytest.mark.parametrize("rate", [200.0, 250.0])
def test_filters_come_before_resampling(
    pick: Any, labelled: Path, seisbench_cache: Path, tmp_path: Path, rate: float
) -> None:
    """Gaps, then filters, then resampling."""
    for path in sorted(next(labelled.glob("*/BJOB")).glob("*.mseed")):
        (trace,) = obspy.read(str(path))
        data = trace.data.astype("i4")
        for at in (slice(0, 3500), slice(3600, None)):
            start = trace.stats.starttime.ns + round((at.start or 0) * 1e9 / rate)
            records = records_of(trace.id, data[at], start_ns=start, rate=rate)
            write(tmp_path / "in" / "BJOB" / f"{trace.id}.{at.start}.mseed", records)
    result = pick(
        tmp_path / "in",
        model=MODELS[0],
        fill_gaps="interpolate",
        filters=["highpass:2", "lowpass:60,corners=2,zerophase"],
    )

    def prepare(stream: obspy.Stream) -> None:
        stream.merge(fill_value="interpolate").filter("highpass", freq=2)
        stream.filter("lowpass", freq=60, corners=2, zerophase=True)

    expected = theirs(MODELS[0], [*tmp_path.glob("in/BJOB/*")], prepare)
    assert expected
    assert_same(ours(result), expected)


def with_gaps(letter: str, rows: Any, cuts: Sequence[tuple[int, int]]) -> list[bytes]:
    edges = [0, *(n for cut in cuts for n in cut), len(rows)]
    return [
        record
        for first, last in zip(edges[::2], edges[1::2], strict=True)
        for record in records_of(
            f"XX.GAP..HH{letter}", rows[first:last], start_ns=START_NS + first * INTERVAL_NS
        )
    ]


@pytest.fixture(scope="module")
def half_an_hour(continuous: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One station, a file for each component: ``whole``, and ``gaps`` of up to 20 s."""
    rng = np.random.default_rng(3)
    root = tmp_path_factory.mktemp("half_an_hour")
    for letter, row in zip("ZNE", real_rows(continuous, 180_000), strict=True):
        firsts = np.sort(rng.choice(np.arange(1000, 178_000, 2500), 24, replace=False))
        # One gap lies across a border of chunks, one across the edge of what they read around it.
        cuts = [(n, n + int(rng.integers(5, 2000))) for n in firsts.tolist()]
        cuts = [cut for cut in cuts if not 57_000 < cut[0] < 64_000 and cut[0] < 90_000]
        cuts += [(59_500, 61_200), (101_000, 102_500), (132_000, 133_900)]
        write(root / "gaps/GAP" / f"HH{letter}.mseed", with_gaps(letter, row, sorted(cuts)))
        write(root / "whole/GAP" / f"HH{letter}.mseed", with_gaps(letter, row + 1_000_000, []))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["trace", "absolute"])
@pytest.mark.parametrize(
    ("record", "preparation"),
    [
        ("gaps", {"fill_gaps": "zero", "longest_gap": 20}),
        ("gaps", {"fill_gaps": "interpolate", "longest_gap": 20, "filters": "highpass:0.5"}),
        ("whole", {"filters": "bandpass:1,20"}),
        ("whole", {"filters": ("highpass:0.05", "lowpass:15,zerophase")}),
    ],
)
def test_a_cut_changes_no_pick(
    pick: Any,
    half_an_hour: Path,
    seisbench_cache: Path,
    grid: str,
    record: str,
    preparation: dict[str, Any],
) -> None:
    given = {"model": MODELS[0], "window_grid": grid, **preparation}
    whole = ours(pick(half_an_hour / record, **given))
    cut = pick(half_an_hour / record, timechunk=4, overlap=0, **given)
    assert cut.summary["plan"]["timechunks"] == 8 and cut.summary["balanced"]
    assert len(whole) > 60
    assert_same(ours(cut), whole)


def test_a_station_whose_rate_is_too_low_fails(
    pick: Any, gappy: Path, seisbench_cache: Path, tmp_path: Path
) -> None:
    for letter in "ZNE":
        records = records_of(f"XX.LOW..BH{letter}", noise(90, rate=20), rate=20)
        write(tmp_path / "in/LOW" / f"{letter}.mseed", records)
        (path,) = gappy.glob(f"*/ACR/*{letter}.mseed")
        write(tmp_path / "in/ACR" / path.name, [path.read_bytes()])
    result = pick(tmp_path / "in", model=MODELS[0], filters="bandpass:1,20")
    assert result.counts["failed"] == 1 and result.counts["done"] == 1
    (failed,) = result.summary["failed"]
    assert "XX.LOW..BHE: bandpass:1,20 needs a sampling rate above 40 Hz" in json.dumps(failed)
    assert "this channel has 20 Hz" in json.dumps(failed)


@pytest.mark.slow
def test_the_command_line(
    cli: Any, pick: Any, gappy: Path, seisbench_cache: Path, tmp_path: Path
) -> None:
    """The same from options, from a settings file, and from `RunEQCCTPro`."""
    asked = {"fill_gaps": "interpolate", "longest_gap": 40.0, "contradictions": "drop"}
    filters = ("detrend:linear", "bandpass:1,20,corners=2,causal")
    stations = ("ACR", "CVS")
    expected = pick(gappy, model=MODELS[0], stations=stations, filters=filters, **asked)
    common = ["--model", MODELS[0], "--stations", "ACR,CVS", "--runtime", "torch"]
    options = ["--fill-gaps", "interpolate", "--longest-gap", 40, "--contradictions", "drop"]
    options += [word for text in filters for word in ("--filter", text)]
    plain = ["--format", "csv,parquet", "--no-overview"]
    ended = cli("pick", gappy, "-o", tmp_path / "a", *common, *options, *plain)
    assert ended.exit_code == 0, ended.output
    file = tmp_path / "settings.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in asked.items()]
    file.write_text("\n".join([*lines, f"filters = {json.dumps(filters)}"]))
    ended = cli("pick", gappy, "-o", tmp_path / "b", *common, "--config", file, *plain)
    assert ended.exit_code == 0, ended.output
    run = RunEQCCTPro(
        input_dir=gappy,
        output_dir=tmp_path / "c",
        model_type="seisbench",
        seisbench_parent_model="PhaseNet",
        seisbench_child_model="original",
        specific_stations="ACR,CVS",
        mode="local",
        runtime="torch",
        overview=False,
        filters=filters,
        **asked,
    )
    run.run_eqcctpro()
    from eqcctpro import read_picks

    for name in "abc":
        table = read_picks(tmp_path / name)
        assert table.drop(["run_id"]).equals(expected.table.drop(["run_id"])), name
        settings = json.loads((tmp_path / name / "summary.json").read_text())["settings"]
        assert settings["filters"] == [filters[0], filters[1]]
        assert {key: settings[key] for key in asked} == asked


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fill-gaps", "latest"), "fill_gaps"),
        (("--fill-gaps", "zero", "--longest-gap", "1e9"), "longest_gap: gaps of 1e+09 s"),
        (("--filter", "bandpass:20,1"), "filters: 'bandpass:20,1'"),
        (("--filter", "highpass:1", "--filter", "median:3"), "filters: 'median:3' is no filter"),
    ],
)
def test_a_wrong_option_ends_before_any_work(
    cli: Any, gappy: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    ended = cli("pick", gappy, "-o", tmp_path / "out", *options)
    assert ended.exit_code == 2
    assert says in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_other_settings_do_not_go_on(
    pick: Any,
    gappy: Path,
    seisbench_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither with an unfinished run, nor in place of a finished one."""
    from eqcctpro.orchestration import session

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    asked = {"model": MODELS[0], "fill_gaps": "zero", "filters": "highpass:1"}
    given = {"output": tmp_path / "out", "formats": ("parquet",)}
    with monkeypatch.context() as patch:
        patch.setattr(session, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            pick(gappy, **given, **asked)
    with pytest.raises(ResumeError, match="fill_gaps was zero, is interpolate"):
        pick(gappy, **given, **(asked | {"fill_gaps": "interpolate"}))
    with pytest.raises(ResumeError, match=r"filters was \[\"highpass:1,corners=4,causal\"\], is"):
        pick(gappy, **given, **(asked | {"filters": "highpass:2"}))
    with pytest.raises(ResumeError, match=r"longest_gap was 60\.0, is 50\.0"):
        pick(gappy, **given, longest_gap=50, **asked)
    with pytest.raises(ResumeError, match="fill_gaps was zero, is not there"):
        pick(gappy, **given, model=MODELS[0])
    finished = pick(gappy, **given, **asked)
    assert finished.counts["failed"] == 0
    with pytest.raises(ReplaceError, match=r"filters was \['highpass:1,corners=4,causal'\], is"):
        pick(gappy, **given, **(asked | {"filters": ("highpass:1", "lowpass:20")}))
    assert pick(gappy, **given, longest_gap=60, **asked).table.num_rows == finished.table.num_rows
