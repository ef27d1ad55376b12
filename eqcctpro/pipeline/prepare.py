"""Waveforms of an instrument to blocks with their windows laid out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import EQCCTProError
from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.balance import SampleBalance
from eqcctpro.pipeline.records import NOT_COUNTED, PickOutcome, SampleCounts
from eqcctpro.pipeline.settings import Contradictions, PipelineSettings
from eqcctpro.spans import ALWAYS, Span
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.blocks import Block, assemble_blocks, component_rows
from eqcctpro.waveform.clock import largest_correction
from eqcctpro.waveform.conditioning import condition
from eqcctpro.waveform.conflicts import cut_conflicts, drop_conflicts, in_words
from eqcctpro.waveform.decode import DecodedFile
from eqcctpro.waveform.features import FeatureSettings, feature_block
from eqcctpro.waveform.segments import (
    ChannelCode,
    Segment,
    join_at_leap_seconds,
    merge_segments,
    split_at_nan,
    trim,
)
from eqcctpro.windows.placement import window_offsets

__all__ = ["Prepared", "RunningRecords", "StationWaveforms", "clean_segments", "prepare"]

# How far beside the sampling points of what it goes on from a piece may lie, in samples.
MISALIGNMENT = 0.5


@dataclass(slots=True)
class StationWaveforms:
    """Waveforms of one instrument of a station, to be picked at once.

    Attributes
    ----------
    segments : sequence of Segment
        As decoded, in any order, of channels that are picked together.
    own : Span
        Time whose picks are wanted; samples around it are for its first and last windows.
    limits : tuple of int or None
        First time that windows may cover, and the first that they may not; what lies beyond is
        for filters alone.
    notes : list of str
        What is known of the waveforms that is to be told.
    recorded : mapping, optional
        First and last samples of all that was recorded of each channel without a gap,
        nanoseconds, where `segments` are a part of it.
    """

    segments: Sequence[Segment]
    own: Span = ALWAYS
    limits: tuple[int | None, int | None] = (None, None)
    notes: Sequence[str] = ()
    recorded: Mapping[ChannelCode, Sequence[tuple[int, int]]] | None = None


@dataclass(slots=True)
class Prepared:
    """Waveforms that are ready for the network, or have ended before it.

    Attributes
    ----------
    own : Span
        Time whose picks are wanted.
    ended : PickOutcome or None
        Set when there is nothing for the network to do.
    blocks : list of (Block, ndarray of intp)
        With the first sample of each window.
    notes : list of str
    n_samples : int
        Decoded samples.
    counts : SampleCounts
        Those that there are, and what becomes of them.
    thresholds : dict or None
        Other ones than the pipeline's, by the names of its settings.
    keep_curves : bool
        Whether the result is to hold the curves.
    seconds : float
        That reading and preparing took.
    """

    own: Span = ALWAYS
    ended: PickOutcome | None = None
    blocks: list[tuple[Block, NDArray[np.intp]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_samples: int = 0
    counts: SampleCounts = NOT_COUNTED
    thresholds: dict[str, float] | None = None
    keep_curves: bool = False
    seconds: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Memory of the blocks."""
        return sum(block.data.nbytes for block, _ in self.blocks)

    @property
    def n_windows(self) -> int:
        """Windows of all blocks."""
        return sum(len(offsets) for _, offsets in self.blocks)


class RunningRecords:
    """Start of records and blocks that continue from one stretch of time to the next.

    A record may have begun in a file that is not read for the next stretch, and a block where a
    component went on that has a gap since.
    """

    def __init__(self) -> None:
        self._segments: list[tuple[Segment, int]] = []
        self._blocks: list[tuple[Block, int]] = []

    def segments(self, segments: Sequence[Segment]) -> list[Segment]:
        """Segments that go on with those of the stretch before, from where these began."""
        moved = []
        for segment in segments:
            for known, length in self._segments:
                if known.code != segment.code or known.sampling_rate != segment.sampling_rate:
                    continue
                position = known.position_of(segment.start_ns)
                if -MISALIGNMENT <= position <= length + MISALIGNMENT:
                    before = known.samples_before + round(position)
                    anchor = segment.start_ns - round(before * segment.interval_ns)
                    segment = replace(segment, anchor_ns=anchor)
                    break
            moved.append(segment)
        self._segments = [
            (replace(one, samples=one.samples[:0].copy(), record=None), len(one.samples))
            for one in moved
        ]
        return moved

    def blocks(self, blocks: Sequence[Block]) -> list[Block]:
        """The same of blocks."""
        moved = []
        for block in blocks:
            for known, length in self._blocks:
                rate = block.sampling_rate
                position = (block.start_ns - known.start_ns) * rate / NS_PER_S
                if known.sampling_rate == rate and -MISALIGNMENT <= position <= length:
                    block = replace(block, origin_ns=known.origin_ns)
                    break
            moved.append(block)
        self._blocks = [
            (replace(one, data=one.data[:, :0].copy()), one.data.shape[1]) for one in moved
        ]
        return moved


def clean_segments(
    segments: Sequence[Segment],
    notes: list[str],
    contradictions: Contradictions = "cut",
    balance: SampleBalance | None = None,
) -> list[Segment]:
    """Segments without samples that are no numbers or twice there, joined where they go on.

    Parameters
    ----------
    segments : sequence of Segment
    notes : list of str
        What is left out is added.
    contradictions : {"cut", "drop"}
        Whether stretches for which a channel has two records are left out here; ``"drop"``
        leaves such records in.
    balance : SampleBalance, optional
        Counts them.
    """
    finite: list[Segment] = []
    missing = 0
    for segment in segments:
        pieces, not_finite = split_at_nan(segment)
        finite.extend(pieces)
        missing += not_finite
        if not_finite and balance is not None:
            balance.not_numbers(segment, pieces)
    if missing:
        notes.append(f"{missing} samples that are not numbers were treated as a gap")
    joined = join_at_leap_seconds(finite)
    kept, found = cut_conflicts(joined) if contradictions == "cut" else (joined, [])
    notes.extend(in_words(found))
    merged = merge_segments(kept)
    if balance is not None:
        balance.resolved(joined, merged, found)
    return merged


def prepare(
    waveforms: StationWaveforms,
    picker: Picker,
    settings: PipelineSettings,
    running: RunningRecords | None = None,
) -> Prepared:
    """Clean, filter, resample and lay out the windows of the waveforms of one instrument.

    Never raises for bad waveforms: they then end with an outcome that says why.

    Parameters
    ----------
    waveforms : StationWaveforms
    picker : Picker
    settings : PipelineSettings
    running : RunningRecords, optional
        Of the stretch of time before, where this one goes on from it.
    """
    prepared = Prepared(waveforms.own, notes=list(waveforms.notes))
    balance = SampleBalance(waveforms.own.within(settings.span))
    segments: Sequence[Segment] = []
    try:
        read: Sequence[Segment] = clean_segments(
            waveforms.segments, prepared.notes, settings.contradictions, balance
        )
        segments = _picked(read, waveforms.limits)
        _note_drift(segments, prepared.notes)
        prepared.n_samples = sum(len(segment.samples) for segment in segments)
        used, reason = _usable(segments, picker, settings, prepared.notes, balance)
        if reason is None:
            if settings.preparation.asked:
                read = _as_asked(read, used, waveforms, settings, prepared.notes, balance)
                segments = _picked(read, waveforms.limits)
            if running is not None:
                segments = running.segments(segments)
            blocks = _blocks(segments, used, picker, settings, prepared.notes, balance)
            if running is not None:
                blocks = running.blocks(blocks)
            laid_out = _lay_out(prepared, blocks, picker, settings)
            strict = _is_strict(picker, settings)
            balance.windows(used, laid_out, picker.in_samples, strict=strict)
            if not prepared.blocks:
                reason = _too_short(blocks, picker)
    except EQCCTProError as error:
        prepared.ended = PickOutcome.failure(error, told_once(prepared.notes), balance.counts())
        return prepared
    prepared.notes = list(told_once(prepared.notes))
    prepared.counts = balance.counts()
    if reason is not None:
        because = [note for note in prepared.notes if "contradict each other" in note]
        reason += "".join(f" ({note})" for note in because[:1])
        prepared.ended = PickOutcome(
            "empty",
            reason,
            notes=tuple(prepared.notes),
            n_samples=prepared.n_samples,
            counts=prepared.counts,
        )
    return prepared


def _picked(
    segments: Sequence[Segment], limits: tuple[int | None, int | None]
) -> Sequence[Segment]:
    """Segments without what is there for their preparation alone."""
    if limits == (None, None):
        return segments
    return [part for segment in segments if (part := trim(segment, *limits)) is not None]


def _as_asked(
    segments: Sequence[Segment],
    used: Sequence[Segment],
    waveforms: StationWaveforms,
    settings: PipelineSettings,
    notes: list[str],
    balance: SampleBalance,
) -> Sequence[Segment]:
    """Segments with their gaps filled, and filtered, as the user asks for it."""
    preparation = settings.preparation
    if preparation.fill_gaps != "none":
        if settings.contradictions == "drop":
            segments, found = drop_conflicts(segments)
            notes.extend(in_words(found))
            balance.contradicted(used, found)
        recorded = waveforms.recorded
        if recorded is None:
            recorded = DecodedFile(list(waveforms.segments)).held()
        segments = preparation.filled(segments, recorded, notes)
    return preparation.filtered(segments)


def told_once(notes: Sequence[str]) -> tuple[str, ...]:
    """Each note once, in the order of the first ones, with how often it was made."""
    if not notes:
        return ()
    times = Counter(notes)
    return tuple(note if n == 1 else f"{note} ({n} times)" for note, n in times.items())


def _is_strict(picker: Picker, settings: PipelineSettings) -> bool:
    """True if only the time is picked that all components cover."""
    return settings.strict or picker.features is not None


def _usable(
    segments: Sequence[Segment],
    picker: Picker,
    settings: PipelineSettings,
    notes: list[str],
    balance: SampleBalance,
) -> tuple[list[Segment], str | None]:
    """Segments of components that the model uses, and why none can be picked, if so."""
    if not segments:
        return [], "no samples in the time that is read"
    rows = component_rows(picker.recorded, flexible=settings.flexible)
    components = {segment.code.component for segment in segments}
    usable = components & rows.keys()
    used = list(segments)
    if components - usable:
        notes.append(f"components not used: {', '.join(sorted(components - usable))}")
        used = [segment for segment in segments if segment.code.component in usable]
        others = [segment for segment in segments if segment.code.component not in usable]
        balance.unusable("component_not_used", others)
    if not usable:
        return [], f"no component that {picker.name} knows ({', '.join(picker.recorded)})"
    missing = [letter for letter in picker.recorded if rows[letter] not in map(rows.get, usable)]
    if missing:
        lacking = f"components {', '.join(missing)} missing"
        if _is_strict(picker, settings):
            balance.unusable("components_missing", used)
            why = "strict is set" if picker.features is None else f"{picker.model} needs all three"
            return [], f"{lacking}, and {why}"
        notes.append(f"{lacking}: filled with zeros")
    for first, second in (("1", "N"), ("2", "E")):
        if first in usable and second in usable and rows[first] == rows[second]:
            notes.append(f"components {first} and {second} are both there and share a row")
    constant = _constant_components(segments, usable)
    if len(constant) == len(usable) and not any(segment.samples.any() for segment in used):
        balance.unusable("all_zero", used)
        return [], "all samples are zero"
    if len(usable) > len({rows[letter] for letter in usable}):
        balance.shared_rows(used, rows)
    if constant:
        notes.append(f"components {', '.join(constant)} hold a constant only: zero in every window")
    return used, None


def _constant_components(segments: Sequence[Segment], usable: set[str]) -> list[str]:
    """Components of which all samples are the same, as of a dead channel with an offset."""
    varying = set()
    for segment in segments:
        samples = segment.samples
        # Nearly every segment is told by its ends.
        if samples[0] != samples[-1] or samples.min() != samples.max():
            varying.add(segment.code.component)
    return sorted(usable - varying)


def _blocks(
    segments: Sequence[Segment],
    used: Sequence[Segment],
    picker: Picker,
    settings: PipelineSettings,
    notes: list[str],
    balance: SampleBalance,
) -> list[Block]:
    rates = sorted({segment.sampling_rate for segment in segments})
    target = picker.sampling_rate
    if target is None and len(rates) > 1:
        raise EQCCTProError(
            f"{segments[0].code} has several sampling rates ({rates}) and {picker.name} has none"
        )
    resampled = [rate for rate in rates if target is not None and rate != target]
    if resampled:
        listed = ", ".join(f"{rate:g}" for rate in resampled)
        notes.append(f"resampled from {listed} Hz to {target:g} Hz")
    # Where a clock drifts, the time of a sample does not say which one of its record it is.
    drifts = any(segment.clock is not None for segment in segments)
    absolute = settings.grid == "absolute" and not drifts
    conditioned = condition(segments, settings.conditioning, absolute=absolute)
    if any(new is not old for new, old in zip(conditioned, segments, strict=True)):
        conditioned = merge_segments(conditioned)  # pieces of different rates have one now
    resolve = cut_conflicts if settings.contradictions == "cut" else drop_conflicts
    kept, found = resolve(conditioned)
    notes.extend(in_words(found))
    if found:
        balance.contradicted(used, found)
    rows = component_rows(picker.recorded, flexible=settings.flexible)
    strict = _is_strict(picker, settings)
    # What is to give the same picks however it is cut must not depend on where a block begins.
    blocks = assemble_blocks(
        kept, rows, len(picker.recorded), strict=strict, truncated=settings.grid == "trace"
    )
    if picker.features is not None:
        features = FeatureSettings.of(picker.features)
        made = (feature_block(block, features) for block in blocks)
        blocks = [block for block in made if block is not None]
    if len(kept) > len({segment.code for segment in kept}):
        notes.append(f"gaps: {len(kept)} pieces in {len(blocks)} blocks")
    return blocks


def _lay_out(
    prepared: Prepared, blocks: Sequence[Block], picker: Picker, settings: PipelineSettings
) -> list[tuple[Block, NDArray[np.intp]]]:
    """Lay out the windows; returns all blocks, also those that have none."""
    laid_out = []
    for block in blocks:
        offsets = window_offsets(
            picker,
            settings.windows,
            block.data.shape[1],
            grid=settings.grid,
            start_ns=block.start_ns,
            origin_ns=block.origin_ns,
            sampling_rate=block.sampling_rate,
            clock=block.clock,
        )
        laid_out.append((block, offsets))
        if len(offsets):
            prepared.blocks.append((block, offsets))
    short = len(blocks) - len(prepared.blocks)
    if short and prepared.blocks:
        notes = f"{short} stretches shorter than a window ({picker.in_samples} samples) left out"
        prepared.notes.append(notes)
    return laid_out


def _too_short(blocks: Sequence[Block], picker: Picker) -> str:
    if not blocks:
        return "no stretch of usable samples"
    longest = max(block.data.shape[1] for block in blocks)
    return f"too short: {longest} samples, and a window has {picker.in_samples}"


def _note_drift(segments: Sequence[Segment], notes: list[str]) -> None:
    """Say where time stamps leave the nominal sampling rate by more than half a sample."""
    found = [
        (largest_correction(piece.clock), piece) for piece in segments if piece.clock is not None
    ]
    if not found:
        return
    drift_ns, worst = max(found, key=lambda pair: pair[0])
    if drift_ns > worst.interval_ns / 2:
        notes.append(
            f"time stamps of {worst.code.channel} leave its {worst.sampling_rate:g} Hz by up to "
            f"{drift_ns / NS_PER_S:.3g} s: picks have the times of their records"
        )
