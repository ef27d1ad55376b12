"""Preparation of decoded segments for the network, station by station."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eqcctpro.archive.hydrophones import join_hydrophones
from eqcctpro.archive.selection import Key
from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.prepare import Prepared, StationWaveforms, prepare
from eqcctpro.pipeline.records import PickOutcome
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.serving.problems import InvalidProblem, TooLargeProblem
from eqcctpro.serving.settings import LimitSettings
from eqcctpro.serving.waveforms import MOST_STATIONS, Options
from eqcctpro.times import chunk_name
from eqcctpro.waveform.decode import DecodedFile
from eqcctpro.waveform.segments import Segment, sums_to_a_number

__all__ = [
    "StationRequest",
    "lay_out",
    "longest_resampled",
    "require_size",
    "samples_at_rate",
    "thresholds_of",
]

#: Notes that an answer lists.
MOST_NOTES = 1000


@dataclass(slots=True)
class StationRequest:
    """The stations of one request.

    Attributes
    ----------
    stations : list of tuple of str
        Network, station, location, and band and instrument code of each.
    prepared : list of Prepared
        Of the same order.
    timechunk : str
        Name of the span of all samples.
    notes : list of str
        What was left out of the body.
    latest_ns : int
        Time of the last sample.
    """

    stations: list[Key]
    prepared: list[Prepared]
    timechunk: str
    notes: list[str] = field(default_factory=list)
    latest_ns: int = 0

    @property
    def n_windows(self) -> int:
        """Windows that the network has to see."""
        return sum(prepared.n_windows for prepared in self.prepared)


def lay_out(
    decoded: DecodedFile,
    picker: Picker,
    settings: PipelineSettings,
    *,
    max_samples: int,
    thresholds: dict[str, float] | None = None,
    keep_curves: bool = False,
) -> StationRequest:
    """Prepare the stations of a request as a run prepares the station tasks of its plan.

    A station that cannot be used ends with a record that says why; the others go on.

    Raises
    ------
    TooLargeProblem
        There are more samples than `max_samples`, once they have the model's rate, or more
        stations than are taken at once.
    """
    stations: dict[Key, list[Segment]] = {}
    for segment in decoded.segments:
        code = segment.code
        key = (code.network, code.station, code.location, code.instrument)
        stations.setdefault(key, []).append(segment)
    join_hydrophones(stations, picker.components)
    if len(stations) > MOST_STATIONS:
        raise TooLargeProblem(
            f"{len(stations)} stations, and {MOST_STATIONS} are taken at once",
            hint="send fewer in a request",
        )
    _require_samples(samples_at_rate(decoded.segments, picker), picker, max_samples)
    first = min((segment.start_ns for segment in decoded.segments), default=0)
    last = max((segment.end_ns for segment in decoded.segments), default=0)
    keys = sorted(stations)
    prepared = []
    for key in keys:
        station = _prepare(stations[key], picker, settings)
        station.thresholds, station.keep_curves = thresholds, keep_curves
        prepared.append(station)
    return StationRequest(keys, prepared, _name(first, last), _some(decoded.warnings), last)


def _some(notes: list[str]) -> list[str]:
    """Notes, and how many more there are where they would fill the answer."""
    more = len(notes) - MOST_NOTES
    return notes[:MOST_NOTES] + ([f"and {more} more notes"] if more > 0 else [])


def _prepare(segments: list[Segment], picker: Picker, settings: PipelineSettings) -> Prepared:
    try:
        return prepare(StationWaveforms(segments), picker, settings)
    except (ValueError, ArithmeticError, MemoryError, LookupError, TypeError) as error:
        # A waveform that breaks our own arithmetic fails alone, under its own name.
        return Prepared(ended=PickOutcome.failure(error))


def require_size(segments: Sequence[Segment], picker: Picker, limits: LimitSettings) -> float:
    """Samples of a request at the model's rate, unless they are more than it may have.

    Raises
    ------
    TooLargeProblem
        There are too many, or too many pieces, counted with those between values that are no
        numbers.
    """
    pieces = len(segments) + sum(map(_holes, segments))
    if pieces > limits.max_pieces:
        raise TooLargeProblem(
            f"{pieces} pieces with gaps between them, and {limits.max_pieces} are taken at once",
            hint="send fewer stations or less time in a request",
        )
    total = samples_at_rate(segments, picker)
    _require_samples(total, picker, limits.max_samples)
    return total


def _holes(segment: Segment) -> int:
    """Stretches of values that are not finite."""
    if segment.samples.dtype.kind != "f" or sums_to_a_number(segment.samples):
        return 0
    finite = np.isfinite(segment.samples)
    return int(np.count_nonzero(finite[1:] < finite[:-1]))


def samples_at_rate(segments: Sequence[Segment], picker: Picker) -> float:
    """Samples of all segments, once they have the model's rate; no less than before."""
    total = 0.0
    for segment in segments:
        rate = picker.sampling_rate or segment.sampling_rate
        total += len(segment.samples) * max(rate / segment.sampling_rate, 1.0)
    return total


def longest_resampled(segments: Sequence[Segment], picker: Picker) -> int:
    """Samples of the longest segment that has not the model's rate, before or after it has."""
    return max(
        (
            int(samples_at_rate([segment], picker))
            for segment in segments
            if picker.sampling_rate not in (None, segment.sampling_rate)
        ),
        default=0,
    )


def _require_samples(total: float, picker: Picker, max_samples: int) -> None:
    if total > max_samples:
        raise TooLargeProblem(
            f"{total:.0f} samples at {picker.name}'s rate, and {max_samples} are taken at once",
            hint="send fewer stations or less time in a request",
        )


def _name(first_ns: int, last_ns: int) -> str:
    try:
        return chunk_name(first_ns, last_ns)
    except OverflowError:
        return "?"


def thresholds_of(
    options: Options | None, picker: Picker, settings: PipelineSettings
) -> dict[str, float] | None:
    """The thresholds that a request asks for, or None if it leaves them.

    Raises
    ------
    InvalidProblem
        A threshold is not between 0 and 1, or the model has no such curve.
    """
    if options is None:
        return None
    asked = {
        "P": options.p_threshold,
        "S": options.s_threshold,
        "Detection": options.detection_threshold,
    }
    if all(value is None for value in asked.values()):
        return None
    thresholds = dict(settings.thresholds)
    for initial, value in asked.items():
        if value is None:
            continue
        if not 0 < value < 1:
            raise InvalidProblem(f"{initial.lower()}_threshold: {value} is not between 0 and 1")
        labels = [label for label in thresholds if label.upper().startswith(initial.upper())]
        labels = [label for label in labels if (label == "Detection") == (initial == "Detection")]
        if not labels:
            raise InvalidProblem(f"{initial.lower()}_threshold: {picker.name} has no such curve")
        thresholds.update(dict.fromkeys(labels, value))
    return thresholds
