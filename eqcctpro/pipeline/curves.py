"""Curves of blocks: the times of their values, the picks on them, and how high they rise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eqcctpro.models.picker import Picker
from eqcctpro.picks.annotations import BlockCurves
from eqcctpro.picks.borders import reported, samples_within
from eqcctpro.picks.raw import RawPicks
from eqcctpro.picks.trigger import CurveTriggers
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.spans import ALWAYS, Span
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.clock import Clock, correction_at, corrections_at

__all__ = [
    "BlockPicks",
    "CurveOrigin",
    "Highest",
    "curve_times",
    "curves_of",
    "own_samples",
    "phase_rows",
    "picked_labels",
    "picks_of",
]


@dataclass(frozen=True, slots=True)
class CurveOrigin:
    """Time and sampling rate of a block's probability curves, which outlive the block.

    Attributes
    ----------
    own : Span
        Of which picks are wanted.
    start_ns : int
        Time of the block's first sample.
    sampling_rate : float
        Hz, of the block.
    clock : ndarray of int64 or None
        Corrections of the times of samples; see `eqcctpro.waveform.clock`.
    """

    own: Span
    start_ns: int
    sampling_rate: float
    clock: Clock | None = None


@dataclass(slots=True)
class BlockPicks:
    """Picks and detections on one block.

    Attributes
    ----------
    picks, detections : RawPicks
    n_outside : int
        Picks beyond the span of the settings.
    """

    picks: RawPicks = field(default_factory=RawPicks.empty)
    detections: RawPicks = field(default_factory=RawPicks.empty)
    n_outside: int = 0


def picked_labels(picker: Picker, thresholds: Mapping[str, float]) -> dict[int, float]:
    """Threshold of every curve that is picked, by its position in the output."""
    picked = {}
    for index, label in enumerate(picker.labels):
        if label == picker.detection_label:
            picked[index] = thresholds["Detection"]
        elif label in picker.phases:
            picked[index] = thresholds[label]
    return picked


def curve_times(
    picker: Picker, settings: PipelineSettings, rate: float, curve_rate: float
) -> tuple[int, float]:
    """From a block's first sample to its curve's, and between samples of the curve, ns."""
    if picker.output == "point":
        shift = picker.pred_sample[1]
        interval = settings.windows.stride * NS_PER_S / rate
    else:
        shift = picker.pred_sample[0]
        interval = NS_PER_S / (rate * curve_rate)
    return round(shift * NS_PER_S / rate), interval


def curves_of(
    origin: CurveOrigin, shift_ns: int, interval_ns: float, values: NDArray[np.float32]
) -> list[BlockCurves]:
    """A block's curves, in pieces whose times are right within half a sample.

    Values whose times come twice, as in a leap second, are left out the first time.

    Parameters
    ----------
    origin : CurveOrigin
    shift_ns : int
        From the block's first sample to its curve's.
    interval_ns : float
        Between samples of the curve.
    values : ndarray of float32, shape (labels, samples)
    """
    start_ns = origin.start_ns + shift_ns
    if origin.clock is None:
        return [BlockCurves(start_ns, interval_ns, values)]
    firsts, shifts = [0], [correction_at(origin.clock, shift_ns)]
    for offset, correction in origin.clock.tolist():
        first = math.ceil((offset - shift_ns) / interval_ns)
        if first > firsts[-1] and abs(correction - shifts[-1]) > interval_ns / 2:
            firsts.append(first)
            shifts.append(correction)
    starts = [
        start_ns + round(first * interval_ns) + shift
        for first, shift in zip(firsts, shifts, strict=True)
    ]
    pieces = []
    for at, (first, start) in enumerate(zip(firsts, starts, strict=True)):
        last = values.shape[1]
        if at + 1 < len(firsts):
            before_next = math.ceil((starts[at + 1] - start) / interval_ns - 1e-6)
            last = min(firsts[at + 1], first + max(before_next, 0))
        if first < last:
            pieces.append(BlockCurves(start, interval_ns, values[:, first:last]))
    return pieces


def picks_of(
    found: CurveTriggers,
    origins: Sequence[CurveOrigin],
    labels: Sequence[int],
    picker: Picker,
    settings: PipelineSettings,
    curve_rate: float,
) -> list[BlockPicks]:
    """Sort triggers by blocks, and keep those in the time that is wanted.

    Parameters
    ----------
    found : CurveTriggers
        On ``len(labels)`` curves for each block, block by block.
    origins : sequence of CurveOrigin
        Of the blocks, which share a sampling rate.
    labels : sequence of int
        Position of these curves among the picker's.
    picker : Picker
    settings : PipelineSettings
    curve_rate : float
        Curve samples for each sample of a block.
    """
    picks = [BlockPicks() for _ in origins]
    if not len(found.curve):
        return picks
    block, row = np.divmod(found.curve, len(labels))
    label = np.array(labels, dtype=np.int16)[row]
    shift_ns, interval_ns = curve_times(picker, settings, origins[0].sampling_rate, curve_rate)
    origin_ns = np.array([origin.start_ns + shift_ns for origin in origins], dtype=np.int64)[block]
    peak, onset, end = (
        origin_ns + np.round(samples * interval_ns).astype(np.int64)
        for samples in (found.triggers.peak, found.triggers.onset, found.triggers.end)
    )
    for index, origin in enumerate(origins):
        if origin.clock is not None:
            of_block = block == index
            for times in (peak, onset, end):
                offsets = times[of_block] - origin.start_ns
                times[of_block] += corrections_at(origin.clock, offsets)
    first_ns, end_ns = settings.span
    outside = (peak < first_ns) | (peak >= end_ns)
    for position, count in enumerate(np.bincount(block[outside]).tolist()):
        picks[position].n_outside = count
    own = np.array([origin.own for origin in origins], dtype=np.int64)
    keep = np.flatnonzero(reported(peak, own[block]) & ~outside)
    value = found.triggers.value[keep].astype(np.float32)
    raw = RawPicks(label[keep], peak[keep], onset[keep], end[keep], value)
    _share_out(raw, block[keep], picks, picker)
    return picks


def _share_out(
    raw: RawPicks, block: NDArray[np.intp], picks: Sequence[BlockPicks], picker: Picker
) -> None:
    """Give each block its picks and detections; `block` is ascending."""
    label = picker.detection_label
    is_detection = raw.label == (-1 if label is None else picker.labels.index(label))
    for which, name in ((~is_detection, "picks"), (is_detection, "detections")):
        part, owner = raw.take(which), block[which]
        edges = np.searchsorted(owner, np.arange(len(picks) + 1)).tolist()
        for found, first, last in zip(picks, edges, edges[1:], strict=False):
            if first < last:
                setattr(found, name, part.take(slice(first, last)))


@dataclass(slots=True)
class Highest:
    """Highest probability of P and of S so far; None before there is any."""

    p: float | None = None
    s: float | None = None

    def add(self, highest: Sequence[float], rows: tuple[list[int], list[int]]) -> None:
        """Take the highest value of each curve; those of no use are NaN."""
        self.p = _higher(self.p, [highest[row] for row in rows[0]])
        self.s = _higher(self.s, [highest[row] for row in rows[1]])


def phase_rows(picker: Picker, labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """Positions among `labels` of the picker's P phases and of its S phases."""
    names = [picker.labels[label].upper() for label in labels]
    phases = {name.upper() for name in picker.phases}
    p, s = (
        [row for row, name in enumerate(names) if name in phases and name.startswith(letter)]
        for letter in "PS"
    )
    return p, s


def own_samples(
    origin: CurveOrigin, picker: Picker, settings: PipelineSettings, curve_rate: float, n: int
) -> slice:
    """Samples of a curve of `n` samples in the time whose picks are wanted."""
    span = origin.own.within(settings.span)
    if span == ALWAYS:
        return slice(0, n)
    shift_ns, interval_ns = curve_times(picker, settings, origin.sampling_rate, curve_rate)
    return slice(*samples_within(origin.start_ns + shift_ns, interval_ns, n, span))


def _higher(known: float | None, values: Sequence[float]) -> float | None:
    numbers = [value for value in values if not math.isnan(value)]
    if known is not None:
        numbers.append(known)
    return max(numbers, default=None)
