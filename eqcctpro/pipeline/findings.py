"""Triggers on curves to picks of station tasks: their times, and whose they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import StationTask
from eqcctpro.models.picker import Picker
from eqcctpro.picks.raw import RawPicks
from eqcctpro.picks.trigger import CurveTriggers
from eqcctpro.pipeline.records import BlockCurves
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.spans import FOREVER_NS
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.clock import Clock, correction_at, corrections_at

__all__ = [
    "BORDER_GUARD_NS",
    "BlockFindings",
    "CurveOrigin",
    "curve_times",
    "curves_of",
    "findings_of",
    "picked_labels",
]

# Picks this close to a border are reported by both neighbours, which are then compared.
BORDER_GUARD_NS = NS_PER_S


@dataclass(frozen=True, slots=True)
class CurveOrigin:
    """Station task, start time and sampling rate of a block's probability curves.

    Attributes
    ----------
    task : StationTask
    start_ns : int
        Time of the block's first sample.
    sampling_rate : float
        Hz, of the block.
    clock : ndarray of int64 or None
        Corrections of the times of samples; see `eqcctpro.waveform.clock`.
    """

    task: StationTask
    start_ns: int
    sampling_rate: float
    clock: Clock | None = None


@dataclass(slots=True)
class BlockFindings:
    """Picks and detections on one block.

    Attributes
    ----------
    picks, detections : RawPicks
    n_outside : int
        Picks before the run's start or from its end on.
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


def findings_of(
    found: CurveTriggers,
    origins: Sequence[CurveOrigin],
    labels: Sequence[int],
    picker: Picker,
    settings: PipelineSettings,
    curve_rate: float,
) -> list[BlockFindings]:
    """Sort triggers by blocks, and keep those that belong to their tasks and the run.

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
    findings = [BlockFindings() for _ in origins]
    if not len(found.curve):
        return findings
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
    outside = _outside(peak, settings)
    for position, count in enumerate(np.bincount(block[outside]).tolist()):
        findings[position].n_outside = count
    keep = np.flatnonzero(_within(peak, origins, block) & ~outside)
    block = block[keep]
    task = np.array([origin.task.index for origin in origins], dtype=np.int32)[block]
    value = found.triggers.value[keep].astype(np.float32)
    raw = RawPicks(task, label[keep], peak[keep], onset[keep], end[keep], value)
    _share_out(raw, block, findings, picker)
    return findings


def _within(
    times_ns: NDArray[np.int64], origins: Sequence[CurveOrigin], block: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """True for times in the chunks of their blocks, or within the guard around these."""
    chunks = [origin.task.chunk for origin in origins]
    # Chunks without a border own all that 64 bits hold.
    starts = [max(chunk.own_start_ns - BORDER_GUARD_NS, -FOREVER_NS) for chunk in chunks]
    ends = [min(chunk.own_end_ns + BORDER_GUARD_NS, FOREVER_NS) for chunk in chunks]
    first, last = np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64)
    return (times_ns >= first[block]) & (times_ns < last[block])


def _outside(times_ns: NDArray[np.int64], settings: PipelineSettings) -> NDArray[np.bool_]:
    outside = np.zeros(len(times_ns), dtype=bool)
    if settings.start_ns is not None:
        outside |= times_ns < settings.start_ns
    if settings.end_ns is not None:
        outside |= times_ns >= settings.end_ns
    return outside


def _share_out(
    raw: RawPicks, block: NDArray[np.intp], findings: Sequence[BlockFindings], picker: Picker
) -> None:
    """Give each block its picks and detections; `block` is ascending."""
    label = picker.detection_label
    is_detection = raw.label == (-1 if label is None else picker.labels.index(label))
    for which, name in ((~is_detection, "picks"), (is_detection, "detections")):
        part, owner = raw.take(which), block[which]
        edges = np.searchsorted(owner, np.arange(len(findings) + 1)).tolist()
        for found, first, last in zip(findings, edges, edges[1:], strict=False):
            if first < last:
                setattr(found, name, part.take(slice(first, last)))
