"""The pipeline picks waveforms with tickets: spans of a stream as the whole, for any owner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import obspy
import pytest

from eqcctpro.models.weight_files import split_name
from eqcctpro.models.weights import find_weights
from eqcctpro.picks.borders import settle
from eqcctpro.picks.raw import RawPicks
from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.pipeline.prepare import RunningRecords, StationWaveforms, prepare
from eqcctpro.pipeline.settings import resolve_settings
from eqcctpro.runtimes.select import open_picker
from eqcctpro.spans import FOREVER_NS, Span
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.segments import SAME_TIME_NS, ChannelCode, Segment

SPAN_S = 150


@pytest.fixture(scope="module")
def stream(continuous: Path) -> obspy.Stream:
    """Half an hour of a station, with a gap on one component."""
    records = obspy.read(str(continuous / "*" / "WILZ" / "*"))
    start = max(trace.stats.starttime for trace in records)
    records.trim(start, start + 1800)
    (north,) = records.select(component="N")
    parts = [north.slice(start, start + 640), north.slice(start + 655.5)]
    return obspy.Stream([*(t for t in records if t is not north), *parts])


@pytest.fixture(scope="module")
def pipeline(seisbench_cache: Path) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEISBENCH_CACHE_ROOT", str(seisbench_cache))
        weights = find_weights(*split_name("PhaseNet/original"))
    picker, runtime = open_picker(weights, batch_size=16, threads=1)
    yield Pipeline(picker, runtime, resolve_settings(picker))


def received(stream: obspy.Stream, first_ns: int, end_ns: int) -> list[Segment]:
    """Samples of some time, which know of no others, as a rolling buffer holds them."""
    segments = []
    for trace in stream:
        times = trace.stats.starttime.ns + np.arange(trace.stats.npts) * 10_000_000
        inside = (times >= first_ns) & (times < end_ns)
        if inside.any():
            code = ChannelCode(*trace.id.split("."))
            segments.append(Segment(code, int(times[inside][0]), 100.0, trace.data[inside]))
    return segments


def columns(picks: RawPicks) -> list[tuple[Any, ...]]:
    return sorted(zip(*(column.tolist() for column in picks.columns()), strict=True))


def spans_of(stream: obspy.Stream) -> list[Span]:
    start = min(trace.stats.starttime.ns for trace in stream)
    borders = [start + n * SPAN_S * NS_PER_S for n in range(1, 1800 // SPAN_S)]
    return [Span(*each) for each in pairwise([-FOREVER_NS, *borders, FOREVER_NS])]


@pytest.fixture(scope="module")
def whole(stream: obspy.Stream, pipeline: Pipeline) -> RawPicks:
    waveforms = StationWaveforms(received(stream, 0, FOREVER_NS))
    result = pipeline.pick_one(prepare(waveforms, pipeline.picker, pipeline.settings))
    assert result.outcome.status == "done" and len(result.picks) > 20
    return result.picks


def test_the_whole_is_as_seisbench_picks_it(
    stream: obspy.Stream, whole: RawPicks, seisbench_cache: Path, pipeline: Pipeline
) -> None:
    import seisbench.models

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seisbench, "cache_root", seisbench_cache)
        patch.setattr(seisbench, "cache_model_root", seisbench_cache / "models" / "v3")
        model = seisbench.models.PhaseNet.from_pretrained("original")
    expected = model.classify(stream.copy(), batch_size=16).picks
    label, at, *_, value = (column.tolist() for column in whole.columns())
    phases = [pipeline.picker.labels[one] for one in label]
    ours = sorted(zip(phases, at, value, strict=True))
    theirs = sorted((pick.phase, pick.peak_time.ns, pick.peak_value) for pick in expected)
    assert [phase for phase, *_ in ours] == [phase for phase, *_ in theirs]
    times, values = (
        np.array([[pick[n] for pick in picks] for picks in (ours, theirs)]) for n in (1, 2)
    )
    assert np.abs(np.diff(times, axis=0)).max() <= 1000
    assert np.abs(np.diff(values, axis=0)).max() < 1e-4


def test_spans_of_a_stream_give_the_picks_of_the_whole(
    stream: obspy.Stream, whole: RawPicks, pipeline: Pipeline
) -> None:
    context, running = pipeline.settings.context_ns, RunningRecords()
    spans = spans_of(stream)
    pipeline.reset()
    for span in spans:
        segments = received(stream, span.start_ns - context, span.end_ns + context)
        waveforms = StationWaveforms(segments, span)
        prepared = prepare(waveforms, pipeline.picker, pipeline.settings, running)
        pipeline.feed([span], prepared)  # a list: tickets are neither hashed nor compared
    pipeline.drain()
    results = sorted(pipeline.finished(), key=lambda result: result.ticket[0])
    assert [result.ticket for result in results] == [[span] for span in spans]
    own = np.repeat(np.array(spans), [len(result.picks) for result in results], axis=0)
    found = settle(RawPicks.concatenate([result.picks for result in results]), own)
    found, expected = (one.take(np.lexsort((one.time_ns, one.label))) for one in (found, whole))
    assert len(found) == len(expected)
    for ours, theirs in zip(found.columns(), expected.columns(), strict=True):
        # Times are those of positions on a grid of seconds in floats.
        assert np.abs(ours - theirs).max() <= (SAME_TIME_NS if ours.dtype == np.int64 else 0)


@pytest.mark.slow
def test_tickets_keep_apart_what_shares_batches(stream: obspy.Stream, pipeline: Pipeline) -> None:
    """The same waveforms under several tickets, and some too short under another."""

    class Ticket:
        __eq__ = __hash__ = __bool__ = __len__ = None  # type: ignore[assignment]

    settings = pipeline.settings
    spans, context = spans_of(stream)[1:5], settings.context_ns
    made = {
        span: StationWaveforms(
            received(stream, span.start_ns - context, span.end_ns + context), span
        )
        for span in spans
    }
    alone = {}
    for span, waveforms in made.items():
        alone[span] = pipeline.pick_one(prepare(waveforms, pipeline.picker, settings))
    short = replace(made[spans[0]], segments=received(stream, 0, spans[0].start_ns)[:0])
    fed: list[tuple[Ticket, Any]] = [(Ticket(), None)]
    pipeline.reset()
    pipeline.feed(fed[0][0], prepare(short, pipeline.picker, settings))
    order = [span for span in spans for _ in range(3)]
    Random(5).shuffle(order)
    for span in order:
        fed.append((Ticket(), span))
        pipeline.feed(fed[-1][0], prepare(made[span], pipeline.picker, settings))
    pipeline.drain()
    results = list(pipeline.finished())
    assert len(results) == len(fed)
    for ticket, span in fed:
        (result,) = [one for one in results if one.ticket is ticket]
        if span is None:
            assert result.outcome.status == "empty" and not len(result.picks)
            continue
        assert result.outcome == alone[span].outcome
        assert columns(result.picks) == columns(alone[span].picks)
    assert any(len(result.picks) for result in results)
