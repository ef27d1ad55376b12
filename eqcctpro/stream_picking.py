"""Picking of ObsPy streams in memory, with the picks of the same records in files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eqcctpro.archive.hydrophones import join_hydrophones
from eqcctpro.codes import code_of_text
from eqcctpro.config import ModelConfig, PickingConfig, PreparationConfig
from eqcctpro.errors import InputError, SettingsError
from eqcctpro.miniseed.index import LOWEST_RATE_HZ
from eqcctpro.notices import one_warning
from eqcctpro.orchestration.model_choice import describe_picking, find_run_weights, fit_to_model
from eqcctpro.picks.objects import PickTables
from eqcctpro.picks.raw import TaskPicks
from eqcctpro.picks.table import DETECTION_SCHEMA, PickRows
from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.pipeline.prepare import StationWaveforms, prepare
from eqcctpro.pipeline.records import PickOutcome, PickResult, samples_not_picked
from eqcctpro.runtimes.select import open_picker
from eqcctpro.times import chunk_name
from eqcctpro.waveform.segments import ChannelCode, Segment

if TYPE_CHECKING:
    import obspy

__all__ = ["StreamPicker", "StreamResult", "pick_stream"]

Key = tuple[str, str, str, str]

#: Settings of execution that mean something in this process.
_EXECUTION = ("device", "runtime", "batch_size", "precision", "threads", "inter_threads", "vram_mb")
_SETTINGS = frozenset(
    {*_EXECUTION, *ModelConfig.model_fields, *PreparationConfig.model_fields} - {"model"}
)


class StreamResult(PickTables):
    """Picks of a stream, and what became of each of its instruments.

    Attributes
    ----------
    outcomes : dict of str to PickOutcome
        Status, reason and notes of each instrument, by ``NET.STA.LOC.INSTRUMENT``.
    left_out : tuple of str
        Traces that are no time series to pick, with the reason.
    """

    def __init__(
        self,
        table: pa.Table,
        detections: pa.Table | None,
        outcomes: dict[str, PickOutcome],
        left_out: Sequence[str] = (),
    ) -> None:
        self._table = table
        self._detections = detections
        self.outcomes = outcomes
        self.left_out = tuple(left_out)

    @property
    def table(self) -> pa.Table:
        """The pick table, as in ``picks.parquet``; `timechunk` is the time of the stream."""
        return self._table

    @property
    def detections(self) -> pa.Table | None:
        """The detection table, of models that yield detections."""
        return self._detections

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.counts})"

    @property
    def counts(self) -> dict[str, int]:
        """Instruments done, empty and failed, and picks."""
        ended = [outcome.status for outcome in self.outcomes.values()]
        counts = {status: ended.count(status) for status in ("done", "empty", "failed")}
        return {**counts, "picks": len(self.table)}

    @property
    def problems(self) -> list[str]:
        """List what was not picked, and why: a line for each trace and instrument."""
        lines = [f"left out: {reason}" for reason in self.left_out]
        missing: Counter[str] = Counter()
        for name, outcome in self.outcomes.items():
            if outcome.status != "done":
                lines.append(f"{outcome.status}: {name}: {outcome.reason}")
            missing.update(dict(outcome.counts.left_out))
        held = sum(outcome.counts.held for outcome in self.outcomes.values())
        return lines + samples_not_picked(missing, held)


class StreamPicker:
    """A loaded model that picks one ObsPy stream after the other.

    Parameters
    ----------
    model : str
        Class and weights, such as ``"PhaseNet/original"``, or a path to weights.
    **settings
        Fields of `eqcctpro.PickConfig` about the model, the preparation of waveforms and the
        runtime, such as ``p_threshold=0.2``, ``filters="highpass:1"``, ``device="cuda"``.

    Raises
    ------
    SettingsError
        A setting is wrong, or does not apply to a stream in memory.
    ModelError
        There are no such weights, or they cannot be used.

    Examples
    --------
    >>> with StreamPicker("PhaseNet/original") as picker:  # doctest: +SKIP
    ...     for stream in streams:
    ...         print(picker.pick(stream).picks)
    """

    def __init__(self, model: str = "EQTransformer/original", **settings: Any) -> None:
        for name in settings.keys() - _SETTINGS:
            raise SettingsError(
                f"{name}: there is no such setting for a stream in memory",
                hint=f"settings are {', '.join(sorted(_SETTINGS))}; "
                "archives are picked with eqcctpro.run_picking",
            )
        config = PickingConfig.checked(model=model, **settings)
        weights = find_run_weights(config)
        picker, runtime = open_picker(
            weights,
            **{name: getattr(config, name) for name in _EXECUTION},
        )
        try:
            with one_warning():
                config = fit_to_model(config, picker)
            _, described = describe_picking(config, weights, picker)
            self._pipeline = Pipeline(picker, runtime, described)
        except BaseException:
            runtime.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the model and its threads."""
        self._pipeline.runtime.close()

    def pick(self, stream: obspy.Stream | obspy.Trace) -> StreamResult:
        """Pick a stream, which is left as it is.

        Every instrument (band and instrument code) at every location is picked by itself, as in
        a run on files.  Masked samples, as ``Stream.merge`` leaves them, are gaps.

        Parameters
        ----------
        stream : obspy.Stream or obspy.Trace
            Counts, of any number of stations.

        Raises
        ------
        InputError
            It is no stream, or there is nothing in it to be picked.
        """
        pipeline = self._pipeline
        left_out: list[str] = []
        instruments = _instruments(_segments(stream, left_out), pipeline.picker.components)
        if not instruments:
            raise InputError(
                "the stream holds no samples that can be picked"
                + "".join(f"; {reason}" for reason in left_out[:3]),
                hint="give the traces of three components, in counts, with their codes",
            )
        keys = sorted(instruments)
        pipeline.reset()
        results: dict[int, PickResult] = {}
        for number, key in enumerate(keys):
            waveforms = StationWaveforms(instruments[key])
            pipeline.feed(number, prepare(waveforms, pipeline.picker, pipeline.settings))
            results |= {result.ticket: result for result in pipeline.finished()}
        pipeline.drain()
        results |= {result.ticket: result for result in pipeline.finished()}
        return self._result(keys, instruments, results, left_out)

    def _result(
        self,
        keys: Sequence[Key],
        instruments: dict[Key, list[Segment]],
        results: dict[int, PickResult],
        left_out: Sequence[str],
    ) -> StreamResult:
        picker = self._pipeline.picker
        every = [segment for segments in instruments.values() for segment in segments]
        span = min(one.start_ns for one in every), max(one.end_ns for one in every)
        names = _Instruments(keys, chunk_name(*span))
        detections = None
        if picker.detection_label is not None:
            found = TaskPicks.of([(at, one.detections) for at, one in sorted(results.items())])
            detections = PickRows(found, names, picker, "", DETECTION_SCHEMA).table
        picks = TaskPicks.of([(at, one.picks) for at, one in sorted(results.items())])
        return StreamResult(
            PickRows(picks, names, picker, "").table,
            detections,
            {".".join(key): results[at].outcome for at, key in enumerate(keys)},
            left_out,
        )


def pick_stream(
    stream: obspy.Stream | obspy.Trace, model: str = "EQTransformer/original", **settings: Any
) -> StreamResult:
    """Pick an ObsPy stream in memory.

    The picks are those of the same records in files.  The model is loaded for each call:
    `StreamPicker` keeps it for the next stream.

    Parameters
    ----------
    stream : obspy.Stream or obspy.Trace
        Counts, of any number of stations; it is left as it is.
    model : str
        Class and weights, such as ``"PhaseNet/original"``, or a path to weights.
    **settings
        As in `StreamPicker`.

    Raises
    ------
    InputError
        It is no stream, or there is nothing in it to be picked.
    SettingsError, ModelError
        As in `StreamPicker`.

    Examples
    --------
    >>> import obspy
    >>> stream = obspy.read("station/*.mseed")  # doctest: +SKIP
    >>> pick_stream(stream, "PhaseNet/original", p_threshold=0.2).picks  # doctest: +SKIP
    """
    with StreamPicker(model, **settings) as picker:
        return picker.pick(stream)


class _Instruments:
    """Instruments of a stream by their numbers, as `PickRows` asks for station tasks."""

    def __init__(self, keys: Sequence[Key], chunk: str) -> None:
        self._keys = keys
        self._chunk = chunk

    def names(self, positions: Iterable[int]) -> Iterator[tuple[str, str, str, str, str]]:
        """Network, station, location, instrument and time span of some."""
        for position in positions:
            yield (*self._keys[position], self._chunk)


def _segments(stream: Any, left_out: list[str]) -> Iterator[Segment]:
    """Pieces without a gap of every trace; why a trace is none is added to `left_out`."""
    import obspy

    traces = [stream] if isinstance(stream, obspy.Trace) else stream
    if not isinstance(traces, (obspy.Stream, list, tuple)) or not all(
        isinstance(trace, obspy.Trace) for trace in traces
    ):
        raise InputError(
            f"{type(stream).__name__} is no stream of ObsPy",
            hint="obspy.read makes one of files; eqcctpro.run_picking picks the files themselves",
        )
    for trace in traces:
        reason = _why_not(trace)
        if reason is not None:
            left_out.append(f"{trace.id or 'a trace without codes'}: {reason}")
            continue
        stats = trace.stats
        codes = (stats.network, stats.station, stats.location, stats.channel)
        code = ChannelCode(*map(code_of_text, codes))
        whole = Segment(code, stats.starttime.ns, float(stats.sampling_rate), _plain(trace.data))
        mask = np.ma.getmaskarray(trace.data)
        if not mask.any():
            yield whole
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[True], mask, [True]]).astype(np.int8)))
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            yield Segment(
                code,
                round(whole.start_ns + first * whole.interval_ns),
                whole.sampling_rate,
                whole.samples[first:last],
            )


def _why_not(trace: obspy.Trace) -> str | None:
    """Reason why a trace cannot be picked, or None."""
    stats, data = trace.stats, trace.data
    if not stats.station or not stats.channel:
        return "it has no station or channel code"
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "iuf":
        return "its samples are no numbers"
    if data.ndim != 1 or not len(data) or np.ma.getmaskarray(data).all():
        return "it has no samples"
    if not np.isfinite(stats.sampling_rate) or stats.sampling_rate < LOWEST_RATE_HZ:
        return (
            f"its sampling rate is {stats.sampling_rate:g} Hz; "
            f"nothing below {LOWEST_RATE_HZ:g} Hz is picked"
        )
    return None


def _plain(data: NDArray[Any]) -> NDArray[Any]:
    """Samples without a mask, of a type that files can hold too."""
    plain = np.ma.getdata(data)
    kind: type[np.number[Any]]
    if plain.dtype.kind == "f":
        kind = np.float32 if plain.dtype.itemsize <= 4 else np.float64
    else:
        known, limits = np.ma.compressed(data), np.iinfo(np.int32)
        fits = limits.min <= known.min() and known.max() <= limits.max
        kind = np.int32 if fits else np.float64
    return np.ascontiguousarray(plain, dtype=kind)


def _instruments(segments: Iterator[Segment], components: str) -> dict[Key, list[Segment]]:
    """Segments of each instrument; hydrophones are with their seismometers if the model has one."""
    found: dict[Key, list[Segment]] = {}
    for segment in segments:
        code = segment.code
        key = (code.network, code.station, code.location, code.instrument)
        found.setdefault(key, []).append(segment)
    join_hydrophones(found, components)
    return found
