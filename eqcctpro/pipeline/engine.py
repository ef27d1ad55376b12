"""Pipeline object: packs windows into batches, predicts, stacks and picks, for any ticket."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.models.picker import Picker
from eqcctpro.picks.annotations import BlockCurves
from eqcctpro.picks.raw import RawPicks
from eqcctpro.picks.trigger import CurveTriggers, find_triggers_on
from eqcctpro.picks.window_peak import WindowPeaks
from eqcctpro.pipeline.curves import (
    BlockPicks,
    CurveOrigin,
    Highest,
    curve_times,
    curves_of,
    own_samples,
    phase_rows,
    picked_labels,
    picks_of,
)
from eqcctpro.pipeline.prepare import Prepared
from eqcctpro.pipeline.records import PickOutcome, PickResult, StageSeconds
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.base import Runtime
from eqcctpro.waveform.blocks import Block
from eqcctpro.windows.stacking import CurveStack, StackLayout, curve_rate, stack_alike

__all__ = ["Batch", "OpenBlock", "Pipeline", "Windows"]

Float32 = NDArray[np.float32]

# Layouts of short blocks that are remembered: networks hold records of a few lengths.
LAYOUTS = 16


@dataclass(slots=True)
class _Open:
    """Waveforms of a ticket of which not all is picked."""

    ticket: Any
    prepared: Prepared
    missing_blocks: int
    n_windows: int
    thresholds: list[float]
    n_outside: int = 0
    highest: Highest = field(default_factory=Highest)
    picks: list[RawPicks] = field(default_factory=list)
    detections: list[RawPicks] = field(default_factory=list)
    curves: list[BlockCurves] = field(default_factory=list)


@dataclass(slots=True)
class OpenBlock:
    """A block of which not all is picked.

    Attributes
    ----------
    owner : _Open
    origin : CurveOrigin
    offsets : ndarray of intp
        First sample of each window.
    layout : StackLayout or None
        Where it is known already.
    stack : object or None
        What its windows have come to so far, where some are missing.
    shown : CurveStack or None
        The same of curves that are kept and not picked on.
    """

    owner: _Open
    origin: CurveOrigin
    offsets: NDArray[np.intp]
    layout: StackLayout | None
    stack: Any = None
    shown: CurveStack | None = None

    def alike(self, other: OpenBlock) -> bool:
        """True if both blocks can be stacked and picked in one call."""
        return (
            self.layout is not None
            and self.layout is other.layout
            and self.origin.sampling_rate == other.origin.sampling_rate
        )


@dataclass(slots=True)
class Windows:
    """Windows of a ticket that are not packed yet, in blocks, the first ones first.

    Attributes
    ----------
    left : int
    """

    left: int
    _blocks: deque[tuple[Block, OpenBlock]]
    _next: int = 0

    def take(self, most: int) -> Iterator[tuple[OpenBlock, Block, list[int]]]:
        """No more than so many windows: blocks, and where windows begin in them."""
        while most and self._blocks:
            block, opened = self._blocks[0]
            offsets = opened.offsets[self._next : self._next + most].tolist()
            self._next += len(offsets)
            self.left -= len(offsets)
            most -= len(offsets)
            if self._next == len(opened.offsets):
                self._blocks.popleft()
                self._next = 0
            yield opened, block, offsets


@dataclass(slots=True)
class Batch:
    """A batch under way, and whose windows it holds, block by block.

    Attributes
    ----------
    curves : callable
        Waits for the predictions.
    claims : list of (OpenBlock, int)
        Blocks, and how many of their next windows.
    started : float
    """

    curves: Callable[[], Any]
    claims: list[tuple[OpenBlock, int]]
    started: float


class Pipeline:
    """Cuts, predicts, stacks and picks prepared waveforms; the same object in every mode.

    Parameters
    ----------
    picker : Picker
    runtime : Runtime
    settings : PipelineSettings
    """

    def __init__(self, picker: Picker, runtime: Runtime, settings: PipelineSettings) -> None:
        self.picker = picker
        self.runtime = runtime
        self.settings = settings
        self.stages = StageSeconds()
        # While some batches are under way, the next one is filled.
        self._arena: deque[Any] = deque(self._places())
        self._filled = 0
        self._claims: list[tuple[OpenBlock, int]] = []
        self._under_way: deque[Batch] = deque()
        self._inferred: deque[tuple[Batch, Any]] = deque()
        self._collected = 0.0
        self._finished: deque[PickResult] = deque()
        self._apply_settings()

    def reset(self) -> None:
        """Forget what is under way, and heed settings that were changed."""
        self._filled = 0
        for leftovers in (self._claims, self._under_way, self._inferred, self._finished):
            leftovers.clear()
        self._apply_settings()

    def feed(self, ticket: Any, prepared: Prepared) -> None:
        """Pack the windows of waveforms; batches that become full are sent on their way.

        Parameters
        ----------
        ticket : object
            Handed back with the result.
        prepared : Prepared
        """
        windows = self.open(ticket, prepared)
        while windows.left:
            self.pack(windows, self.room)
            if not self.room:
                self.flush()
                if self.under_way >= self.runtime.ahead:
                    self.wait()
                    self.settle()

    def open(self, ticket: Any, prepared: Prepared) -> Windows:
        """Begin waveforms whose windows may be packed a few at a time.

        The result is the same, whatever lies between them.  Without windows they are finished.
        """
        if prepared.ended is not None:
            self._finished.append(PickResult(ticket, prepared.ended))
            return Windows(0, deque())
        thresholds = self._thresholds
        if prepared.thresholds is not None:
            thresholds = list(picked_labels(self.picker, prepared.thresholds).values())
        n_windows = prepared.n_windows
        owner = _Open(ticket, prepared, len(prepared.blocks), n_windows, thresholds)
        blocks: deque[tuple[Block, OpenBlock]] = deque()
        for block, offsets in prepared.blocks:
            origin = CurveOrigin(prepared.own, block.start_ns, block.sampling_rate, block.clock)
            layout = None
            small = len(offsets) <= self.runtime.batch_size
            if self.settings.windows.picking == "trigger" and small:
                layout = self._layout(offsets.tobytes())
            blocks.append((block, OpenBlock(owner, origin, offsets, layout)))
        prepared.blocks.clear()  # each is forgotten when the network can read all of it
        return Windows(n_windows, blocks)

    @property
    def room(self) -> int:
        """Windows for which there is room in the batch that is being packed."""
        return self.runtime.batch_size - self._filled

    def pack(self, windows: Windows, most: int) -> None:
        """Pack no more than so many windows of a ticket, for which there is room."""
        length = self.picker.in_samples
        batch = self._arena[0]
        for opened, block, offsets in windows.take(min(most, self.room)):
            for row, offset in enumerate(offsets, self._filled):
                batch[row] = block.data[:, offset : offset + length]
            self._claims.append((opened, len(offsets)))
            self._filled += len(offsets)

    @property
    def under_way(self) -> int:
        """Batches that were sent on their way and not waited for."""
        return len(self._under_way)

    def finished(self) -> Iterator[PickResult]:
        """Results of what is picked, each once; which may be in another order than fed."""
        while self._finished:
            yield self._finished.popleft()

    def pick_one(self, prepared: Prepared) -> PickResult:
        """Pick the waveforms of one instrument by themselves."""
        self.reset()
        self.feed(None, prepared)
        self.drain()
        (result,) = self.finished()
        return result

    def drain(self) -> None:
        """Finish everything that was fed."""
        self.flush()
        while self.under_way:
            self.wait()
            self.settle()

    def _apply_settings(self) -> None:
        """Update the state that depends on the settings, which may change between runs."""
        thresholds = picked_labels(self.picker, self.settings.thresholds)
        self._labels, self._thresholds = list(thresholds), list(thresholds.values())
        self._phase_rows = phase_rows(self.picker, self._labels)
        self._layout = lru_cache(maxsize=LAYOUTS)(self._layout_of)

    def _layout_of(self, offsets: bytes) -> StackLayout:
        starts = np.frombuffer(offsets, dtype=np.intp)
        return StackLayout.of(self.picker, self.settings.windows, starts)

    def flush(self) -> None:
        """Send what is packed on its way, also if the batch is not full."""
        if not self._filled:
            return
        if self._inferred and self.under_way >= self.runtime.ahead - 1:
            self.settle()  # the next batch's predictions take the place of these
        started = time.perf_counter()
        self._under_way.append(Batch(self._send(), self._claims, started))
        self._arena.rotate(-1)
        self._claims, self._filled = [], 0

    def _places(self) -> Sequence[Any]:
        """Places for batches, which are filled in turn."""
        return self.runtime.arena(len(self.picker.components), self.picker.in_samples)

    def _send(self) -> Callable[[], Any]:
        """Begin to execute the network on the batch that is packed."""
        return self.runtime.submit(self._arena[0][: self._filled])

    def wait(self) -> None:
        """Wait for the oldest batch that is under way."""
        batch = self._under_way.popleft()
        predictions = batch.curves()
        inferred = time.perf_counter()
        self.stages.seconds["infer"] += inferred - max(batch.started, self._collected)
        self._collected = inferred
        self._inferred.append((batch, predictions))

    def settle(self) -> None:
        """Stack and pick what the batches complete that were waited for."""
        started = time.perf_counter()
        while self._inferred:
            self._settle(*self._inferred.popleft())
        self.stages.seconds["pick"] += time.perf_counter() - started

    def _settle(self, batch: Batch, predictions: Any) -> None:
        position = 0
        for blocks, n in _runs(batch.claims):
            part = predictions[position : position + n]
            position += n
            if n == len(blocks) * len(blocks[0].offsets) and blocks[0].layout is not None:
                self._pick_whole(blocks, blocks[0].layout, part)
            else:
                self._add(blocks[0], part)

    def _pick_whole(
        self, blocks: Sequence[OpenBlock], layout: StackLayout, predictions: Float32
    ) -> None:
        """Pick blocks with the same layout whose windows are all there."""
        shape = (len(blocks), len(layout.starts), *predictions.shape[1:])
        predictions = predictions.reshape(shape)
        if any(map(self._shows, blocks)):
            everything = stack_alike(predictions, layout, range(len(self.picker.labels)))
            self._keep_curves(blocks, everything)
            curves = everything[:, self._labels]
        else:
            curves = stack_alike(predictions, layout, self._labels)
        self._pick(blocks, curves)

    def _add(self, block: OpenBlock, predictions: Float32) -> None:
        """Add to a block some of its windows, and pick it if they are the last."""
        if block.stack is None:
            block.stack = self._stack(block)
        block.stack.add(predictions)
        if block.shown is not None:
            block.shown.add(predictions)
        if not block.stack.complete:
            return
        stack, block.stack = block.stack, None
        if isinstance(stack, WindowPeaks):
            self._close_peaks(block, stack)
            return
        curves = stack.finish()[np.newaxis]
        if self._shows(block):
            self._keep_curves([block], curves)
            curves = curves[:, self._labels]
        self._pick([block], curves)

    def _close_peaks(self, block: OpenBlock, stack: WindowPeaks) -> None:
        """Pick a block of whose windows all peaks are known."""
        if block.shown is not None:
            self._keep_curves([block], block.shown.finish()[np.newaxis])
        block.owner.highest.add(stack.highest[self._labels].tolist(), self._phase_rows)
        self._close([block], stack.triggers_of(self._labels), stack.rate_factor)

    def _shows(self, block: OpenBlock) -> bool:
        """True if a block's probability curves are requested, and not only its picks."""
        return block.owner.prepared.keep_curves

    def _keep_curves(self, blocks: Sequence[OpenBlock], everything: Float32) -> None:
        """Keep curves that are wanted until all is picked; shape (blocks, labels, samples)."""
        for block, values in zip(blocks, everything, strict=True):
            if self._shows(block):
                origin, rate = block.origin, curve_rate(self.picker)
                shift_ns, interval_ns = curve_times(
                    self.picker, self.settings, origin.sampling_rate, rate
                )
                pieces = curves_of(origin, shift_ns, interval_ns, values.copy())
                block.owner.curves.extend(pieces)

    def _stack(self, block: OpenBlock) -> CurveStack | WindowPeaks:
        """Create the accumulator of the predictions of a block's windows."""
        picker, windows = self.picker, self.settings.windows
        if windows.picking == "window_peak":
            if self._shows(block):
                shown = StackLayout.of(picker, replace(windows, stacking="max"), block.offsets)
                block.shown = CurveStack(shown, range(len(picker.labels)))
            length = int(block.offsets[-1]) + picker.in_samples
            own = own_samples(block.origin, picker, self.settings, WindowPeaks.rate_factor, length)
            rate = block.origin.sampling_rate
            return WindowPeaks(block.offsets, self._label_thresholds(block), rate, own)
        layout = block.layout or StackLayout.of(picker, windows, block.offsets)
        every = range(len(picker.labels))
        return CurveStack(layout, every if self._shows(block) else self._labels)

    def _label_thresholds(self, block: OpenBlock) -> list[float | None]:
        """Threshold of every label, None for those that are not picked."""
        known = dict(zip(self._labels, block.owner.thresholds, strict=True))
        return [known.get(index) for index in range(len(self.picker.labels))]

    def _pick(self, blocks: Sequence[OpenBlock], curves: Float32) -> None:
        """Find triggers on curves of shape (blocks, labels, samples)."""
        self._note_highest(blocks, curves)
        rows = curves.reshape(-1, curves.shape[2])
        thresholds = [value for block in blocks for value in block.owner.thresholds]
        self._close(blocks, find_triggers_on(rows, thresholds), curve_rate(self.picker))

    def _note_highest(self, blocks: Sequence[OpenBlock], curves: Float32) -> None:
        rate, n = curve_rate(self.picker), curves.shape[2]
        own = [own_samples(block.origin, self.picker, self.settings, rate, n) for block in blocks]
        if all(part == own[0] for part in own):
            values = np.fmax.reduce(curves[:, :, own[0]], axis=2, initial=np.nan)
        else:
            parts = zip(curves, own, strict=True)
            values = np.stack(
                [np.fmax.reduce(rows[:, part], axis=1, initial=np.nan) for rows, part in parts]
            )
        for block, highest in zip(blocks, values.tolist(), strict=True):
            block.owner.highest.add(highest, self._phase_rows)

    def _close(self, blocks: Sequence[OpenBlock], found: CurveTriggers, rate: float) -> None:
        origins = [block.origin for block in blocks]
        picks = picks_of(found, origins, self._labels, self.picker, self.settings, rate)
        for block, found_here in zip(blocks, picks, strict=True):
            _keep(block.owner, found_here)
            if block.owner.missing_blocks == 0:
                self._finished.append(_result_of(block.owner))


def _runs(claims: Sequence[tuple[OpenBlock, int]]) -> Iterator[tuple[list[OpenBlock], int]]:
    """Neighbouring whole blocks that are alike, and other blocks singly, with their windows."""
    run: list[OpenBlock] = []
    total = 0
    for block, n in claims:
        whole = n == len(block.offsets)
        if run and not (whole and total and block.alike(run[0])):
            yield run, total
            run, total = [], 0
        run.append(block)
        total += n
        if not whole:
            yield run, total
            run, total = [], 0
    if run:
        yield run, total


def _keep(owner: _Open, found: BlockPicks) -> None:
    owner.missing_blocks -= 1
    owner.n_outside += found.n_outside
    if len(found.picks):
        owner.picks.append(found.picks)
    if len(found.detections):
        owner.detections.append(found.detections)


def _result_of(owner: _Open) -> PickResult:
    prepared = owner.prepared
    outcome = PickOutcome(
        "done",
        notes=tuple(prepared.notes),
        n_windows=owner.n_windows,
        n_samples=prepared.n_samples,
        n_outside=owner.n_outside,
        highest_p=owner.highest.p,
        highest_s=owner.highest.s,
        seconds=prepared.seconds,
        counts=prepared.counts,
    )
    return PickResult(
        owner.ticket,
        outcome,
        RawPicks.concatenate(owner.picks),
        RawPicks.concatenate(owner.detections),
        owner.curves,
    )
