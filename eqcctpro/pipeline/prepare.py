"""A station task to blocks with their windows laid out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import StationTask
from eqcctpro.archive.remote import fetch
from eqcctpro.archive.timechunks import read_span
from eqcctpro.errors import EQCCTProError
from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.balance import SampleBalance
from eqcctpro.pipeline.fetching import Fetched
from eqcctpro.pipeline.pieces import RunningRecords
from eqcctpro.pipeline.records import NOT_COUNTED, SampleCounts, TaskRecord
from eqcctpro.pipeline.settings import Contradictions, PipelineSettings
from eqcctpro.pipeline.unchanged import require_unchanged
from eqcctpro.places import is_address
from eqcctpro.roots import Roots
from eqcctpro.spans import FOREVER_NS
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.blocks import Block, assemble_blocks, component_rows
from eqcctpro.waveform.clock import largest_correction
from eqcctpro.waveform.conditioning import condition
from eqcctpro.waveform.conflicts import cut_conflicts, drop_conflicts, in_words
from eqcctpro.waveform.decode import DecodedFile, decode_file
from eqcctpro.waveform.features import FeatureSettings, feature_block
from eqcctpro.waveform.resampling import LONGEST_RECORD, held_record
from eqcctpro.waveform.segments import (
    ChannelCode,
    Segment,
    join_at_leap_seconds,
    merge_segments,
    split_at_nan,
    trim,
)
from eqcctpro.windows.placement import window_offsets

__all__ = ["LARGEST_KEPT", "FileCache", "Prepared", "has_gaps", "load_segments", "prepare"]

#: Bytes of a file of which all is decoded for the next station task; of larger ones each task
#: decodes what it needs.
LARGEST_KEPT = 64 * 2**20


@dataclass(slots=True)
class Prepared:
    """A station task that is ready for the network, or has ended before it.

    Attributes
    ----------
    task : StationTask
    record : TaskRecord or None
        Set when there is nothing for the network to do.
    blocks : list of (Block, ndarray of intp)
        With the first sample of each window.
    notes : list of str
    n_samples : int
        Decoded samples.
    counts : SampleCounts
        Those that the task has, and what becomes of them.
    thresholds : dict or None
        Other ones than the pipeline's, by the names of its settings.
    keep_curves : bool
        Whether the result is to hold the curves.
    seconds : float
        That reading and preparing it took.
    whole : StationTask or None
        The station task of which `task` is a piece.
    piece : int
        Its number.
    """

    task: StationTask
    record: TaskRecord | None = None
    blocks: list[tuple[Block, NDArray[np.intp]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_samples: int = 0
    counts: SampleCounts = NOT_COUNTED
    thresholds: dict[str, float] | None = None
    keep_curves: bool = False
    seconds: float = 0.0
    whole: StationTask | None = None
    piece: int = 0

    @property
    def n_bytes(self) -> int:
        """Memory of the blocks."""
        return sum(block.data.nbytes for block, _ in self.blocks)

    @property
    def n_windows(self) -> int:
        """Windows of all blocks."""
        return sum(len(offsets) for _, offsets in self.blocks)


class FileCache:
    """Decodes files, and keeps what the next station task needs too.

    A day file that is read in short chunks, or a file that holds many stations, is so
    decoded once; nothing else stays in memory.

    Parameters
    ----------
    held : dict of str to bytes, optional
        Contents of files by their paths, which are not read then; they are taken out.
    roots : Roots, optional
        What files must lie in.
    needs_record : callable, optional
        Whether pieces of a sampling rate need all of their record.

    Attributes
    ----------
    at : str
        The file that was read last, or is being read.
    as_planned : set of str
        Files of the last task whose contents were held.
    """

    def __init__(
        self,
        held: dict[str, bytes] | None = None,
        roots: Roots | None = None,
        needs_record: Callable[[float], bool] | None = None,
    ) -> None:
        self._needs_record = None if needs_record is None else cache(needs_record)
        self.at = ""
        self._roots = Roots() if roots is None else roots
        self.as_planned: set[str] = set()
        self._held = {} if held is None else held
        self._kept: dict[str, DecodedFile] = {}
        self._fetched = Fetched()

    def read(
        self, task: StationTask, following: StationTask | None, context_ns: int
    ) -> list[DecodedFile]:
        """The decoded files of a task.

        Raises
        ------
        DecodeError
            A file cannot be read or is not miniSEED.
        """
        wanted_next = set(following.files) if following is not None else set()
        for path, (size, _) in zip(task.files, task.stamps, strict=False):
            if size > LARGEST_KEPT:
                wanted_next.discard(path)
        span = read_span(task.chunk, context_ns)
        self._fetched.begin(task, following, known=self._kept)
        decoded = []
        self.as_planned = self._held.keys() & task.files
        for path in task.files:
            content = self._kept.get(path)
            if content is None:
                self.at = path
                limits = (None, None) if path in wanted_next else span
                held = self._held.pop(path, None)
                held = self._fetched.take(path) if held is None else held
                if held is None and self._roots:
                    held = self._roots.read(path)
                content = self._decoded(path, limits, held, kept=path in wanted_next)
            if path in wanted_next:
                self._kept[path] = content
            decoded.append(content)
        for path in set(self._kept) - wanted_next:
            del self._kept[path]
        return decoded

    def read_beside(self, task: StationTask, context_ns: int) -> list[DecodedFile]:
        """The decoded files that lie beside those of a task; as `read`, but nothing is kept."""
        decoded = []
        stamps = task.stamps[len(task.files) :]
        for path, stamp in zip(task.beside, stamps, strict=True):
            content = self._kept.get(path)
            if content is None:
                self.at = path
                held = self._held.get(path)
                if held is None and is_address(path):
                    held = fetch(path, stamp)
                if held is None and self._roots:
                    held = self._roots.read(path)
                content = decode_file(path, *read_span(task.chunk, context_ns), held)
            decoded.append(content)
        require_unchanged(replace(task, files=task.beside, stamps=stamps), self._held)
        return decoded

    def _decoded(
        self,
        path: str,
        limits: tuple[int | None, int | None],
        held: bytes | None,
        *,
        kept: bool,
    ) -> DecodedFile:
        """A decoded file, with the records that pieces of it need."""
        decoded = decode_file(path, *limits, held)
        needs = self._needs_record
        if needs is None or not any(needs(piece.sampling_rate) for piece in decoded.segments):
            return decoded
        if any(piece.samples_before or piece.samples_behind for piece in decoded.segments):
            if max(piece.record_length for piece in decoded.segments) > LONGEST_RECORD:
                return decoded
            decoded = decode_file(path, None, None, held)
        elif not kept:
            return decoded
        segments = [
            replace(piece, record=held_record(piece.samples))
            if needs(piece.sampling_rate)
            else piece
            for piece in decoded.segments
        ]
        return replace(decoded, segments=segments)

    def close(self) -> None:
        """Forget everything, and fetch nothing more."""
        self._kept.clear()
        self._fetched.close()


def has_gaps(task: StationTask, decoded: Sequence[DecodedFile], context_ns: int) -> bool:
    """True if a task's files lack samples of a channel in the time that its chunk owns.

    So do channels that hold no more than `context_ns`, which may be less than a window.
    """
    start_ns, end_ns = task.chunk.own_start_ns, task.chunk.own_end_ns
    channels: dict[ChannelCode, list[Segment]] = {}
    for file in decoded:
        for segment in file.segments:
            if _is_of(segment.code, task):
                channels.setdefault(segment.code, []).append(segment)
    for pieces in channels.values():
        latest = start_ns
        if max(p.end_ns for p in pieces) - min(p.start_ns for p in pieces) <= context_ns:
            return True
        for piece in sorted(pieces, key=lambda piece: piece.start_ns):
            # Half a sample more than from one to the next.
            missing = latest != -FOREVER_NS and piece.start_ns - latest > 1.5 * piece.interval_ns
            if missing and latest < end_ns:
                return True
            latest = max(latest, piece.end_ns)
        if end_ns != FOREVER_NS and end_ns - latest > 1.5 * pieces[0].interval_ns:
            return True
    return False


def _is_of(code: ChannelCode, task: StationTask) -> bool:
    """True if a channel belongs to a task's instrument or to its hydrophone."""
    return code[:3] == (task.network, task.station, task.location) and code.instrument in (
        *(task.instrument, task.hydrophone or task.instrument),
    )


def load_segments(
    task: StationTask,
    decoded: Sequence[DecodedFile],
    context_ns: int,
    notes: list[str],
    contradictions: Contradictions = "cut",
    balance: SampleBalance | None = None,
) -> list[Segment]:
    """The segments of a task's instrument, trimmed to what its chunk reads.

    Parameters
    ----------
    task : StationTask
    decoded : sequence of DecodedFile
    context_ns : int
        Data wanted around what the chunk owns.
    notes : list of str
        What is left out is added.
    contradictions : {"cut", "drop"}
        Whether stretches for which a channel has two records are left out here; ``"drop"``
        leaves such records in.
    balance : SampleBalance, optional
        Counts them.
    """
    start_ns, end_ns = read_span(task.chunk, context_ns)
    segments: list[Segment] = []
    missing = 0
    for file in decoded:
        notes.extend(file.warnings)
        for segment in file.segments:
            if not _is_of(segment.code, task):
                continue
            part = trim(segment, start_ns, end_ns)
            if part is None:
                continue
            pieces, not_finite = split_at_nan(part)
            segments.extend(pieces)
            missing += not_finite
            if not_finite and balance is not None:
                balance.not_numbers(part, pieces)
    if missing:
        notes.append(f"{missing} samples that are not numbers were treated as a gap")
    segments = join_at_leap_seconds(segments)
    kept, found = cut_conflicts(segments) if contradictions == "cut" else (segments, [])
    notes.extend(in_words(found))
    merged = merge_segments(kept)
    if balance is not None:
        balance.resolved(segments, merged, found)
    return merged


def prepare(
    task: StationTask,
    decoded: Sequence[DecodedFile],
    picker: Picker,
    settings: PipelineSettings,
    running: RunningRecords | None = None,
) -> Prepared:
    """Clean, filter, resample and lay out the windows of one station task.

    Never raises for bad waveforms: the task then ends with a record that says why.

    Parameters
    ----------
    task : StationTask
    decoded : sequence of DecodedFile
    picker : Picker
    settings : PipelineSettings
    running : RunningRecords, optional
        Records that the piece before had, where the task is a piece of one.
    """
    prepared = Prepared(task)
    balance = SampleBalance(task, settings)
    segments: Sequence[Segment] = []
    try:
        read: Sequence[Segment] = load_segments(
            task, decoded, settings.context_ns, prepared.notes, settings.contradictions, balance
        )
        segments = _picked(read, task, settings)
        _note_drift(segments, prepared.notes)
        prepared.n_samples = sum(len(segment.samples) for segment in segments)
        used, reason = _usable(segments, picker, settings, prepared.notes, balance)
        if reason is None:
            if settings.preparation.asked:
                read = _as_asked(read, used, decoded, settings, prepared.notes, balance)
                segments = _picked(read, task, settings)
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
        counts = balance.counts().failed
        prepared.record = failed_record(task, error, told_once(prepared.notes), counts)
        return prepared
    prepared.notes = list(told_once(prepared.notes))
    prepared.counts = balance.counts()
    if reason is not None:
        because = [note for note in prepared.notes if "contradict each other" in note]
        reason += "".join(f" ({note})" for note in because[:1])
        prepared.record = TaskRecord(
            task.index,
            "empty",
            reason,
            notes=tuple(prepared.notes),
            n_samples=prepared.n_samples,
            counts=prepared.counts,
        )
    return prepared


def _picked(
    segments: Sequence[Segment], task: StationTask, settings: PipelineSettings
) -> Sequence[Segment]:
    """Segments without what was read for their preparation alone."""
    if not settings.preparation.margin_ns:
        return segments
    span = read_span(task.chunk, settings.picked_context_ns)
    return [part for segment in segments if (part := trim(segment, *span)) is not None]


def _as_asked(
    segments: Sequence[Segment],
    used: Sequence[Segment],
    decoded: Sequence[DecodedFile],
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
        held: dict[ChannelCode, list[tuple[int, int]]] = {}
        for file in decoded:
            for code, spans in file.held().items():
                held.setdefault(code, []).extend(spans)
        segments = preparation.filled(segments, held, notes)
    return preparation.filtered(segments)


def failed_record(
    task: StationTask,
    error: Exception,
    notes: tuple[str, ...] = (),
    counts: SampleCounts = NOT_COUNTED,
) -> TaskRecord:
    """The record of a task that ended with an error."""
    return TaskRecord(
        task.index, "failed", str(error), type(error).__name__, notes, counts=counts.failed
    )


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
    if not any(segment.samples.any() for segment in used):
        balance.unusable("all_zero", used)
        return [], "all samples are zero"
    if len(usable) > len({rows[letter] for letter in usable}):
        balance.shared_rows(used, rows)
    if constant := _constant_components(segments, usable):
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
