"""Pipeline whose windows are cut, predicted, stacked and picked on the device.  Imports torch.

Samples go to the device once, and only picks come back, and curves where they are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eqcctpro.models.picker import Picker
from eqcctpro.picks.device_trigger import find_triggers_along, highest_along, peaks_of_windows
from eqcctpro.pipeline.curves import own_samples
from eqcctpro.pipeline.engine import Batch, OpenBlock, Pipeline, Windows
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.device_runtime import DeviceRuntime
from eqcctpro.runtimes.lanes import Lane
from eqcctpro.windows.device_stacking import finished, stack_on, windows_over_a_sample
from eqcctpro.windows.stacking import StackLayout, curve_rate

__all__ = ["DevicePipeline"]

Float32 = NDArray[np.float32]


@dataclass(slots=True)
class _Growing:
    """Curves of a block of which some windows have come.

    Attributes
    ----------
    layout : StackLayout
    axis : torch.Tensor of float32, shape (samples, labels)
        Sums or maxima so far.
    windows : int
        Number of windows so far.
    """

    layout: StackLayout
    axis: torch.Tensor
    windows: int = 0


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Part of a block's curve that the windows of a batch are about.

    Attributes
    ----------
    block : OpenBlock
    layout : StackLayout
    rows : list of range
        Of its windows among the batch's.
    growing : _Growing or None
        Where the block has other windows in other batches.
    begin : int
        First sample of the block's curve.
    length : int
    """

    block: OpenBlock
    layout: StackLayout
    rows: list[range]
    growing: _Growing | None
    begin: int
    length: int

    @property
    def starts(self) -> NDArray[np.intp]:
        """Where its windows begin, counted from its own beginning."""
        first = 0 if self.growing is None else self.growing.windows
        n = sum(map(len, self.rows))
        return self.layout.starts[first : first + n] - self.begin


class DevicePipeline(Pipeline):
    """`Pipeline` on a device; picks are the same.

    Parameters
    ----------
    picker : Picker
    runtime : DeviceRuntime
    settings : PipelineSettings
    """

    runtime: DeviceRuntime

    def __init__(self, picker: Picker, runtime: DeviceRuntime, settings: PipelineSettings) -> None:
        super().__init__(picker, runtime, settings)

    def pack(self, windows: Windows, most: int) -> None:
        """Pack no more than so many windows of a ticket, for which there is room."""
        lane: Lane = self._arena[0]
        if not self._filled:
            lane.clear()
        for opened, block, offsets in windows.take(min(most, self.room)):
            lane.add(block.data, offsets)
            self._claims.append((opened, len(offsets)))
            self._filled += len(offsets)

    def _places(self) -> Sequence[Any]:
        return self.runtime.lanes

    def _send(self) -> Callable[[], Any]:
        return self.runtime.run(self._arena[0])

    def _settle(self, batch: Batch, predictions: Any) -> None:
        peaks = self.settings.windows.picking == "window_peak"
        settle = self._settle_peaks if peaks else self._settle_curves
        with torch.inference_mode():
            self.runtime.queue.beside(lambda: settle(batch, predictions))

    def _settle_curves(self, batch: Batch, predictions: torch.Tensor) -> None:
        stretches = list(self._stretches(batch))
        rows = [row for stretch in stretches for part in stretch.rows for row in part]
        if rows != list(range(len(rows))):  # windows of a block lie between those of others
            predictions = predictions[torch.tensor(rows, device=predictions.device)]
        axis, counts = self._stacked(stretches, predictions)
        whole: list[tuple[OpenBlock, torch.Tensor]] = []
        edges = np.cumsum([0, *(stretch.length for stretch in stretches)]).tolist()
        average = stretches[0].layout.average
        for stretch, first, last in zip(stretches, edges, edges[1:], strict=False):
            if stretch.growing is None:
                curves = finished(axis[first:last], counts[first:last], average=average)
            elif self._grown(stretch, axis[first:last]):
                reached = torch.from_numpy(stretch.layout.counts[:, np.newaxis]).to(axis.device)
                curves = finished(stretch.growing.axis, reached, average=average)
            else:
                continue
            whole.append((stretch.block, curves))
        for _, group in groupby(whole, lambda pair: pair[0].origin.sampling_rate):
            self._pick_along(list(group))

    def _stretches(self, batch: Batch) -> Iterator[_Stretch]:
        """Blocks of a batch, each once, in the order of their first windows."""
        rows: dict[int, list[range]] = {}
        blocks: dict[int, OpenBlock] = {}
        position = 0
        for block, n in batch.claims:
            blocks[id(block)] = block
            rows.setdefault(id(block), []).append(range(position, position + n))
            position += n
        for key, block in blocks.items():
            n = sum(map(len, rows[key]))
            layout = self._layout_for(block)
            if block.stack is None and n == len(block.offsets):
                yield _Stretch(block, layout, rows[key], None, 0, layout.n_samples)
                continue
            growing = block.stack = block.stack or self._growing(layout)
            starts = layout.starts[growing.windows : growing.windows + n]
            begin, end = int(starts[0]), int(starts[-1]) + self.picker.out_samples
            yield _Stretch(block, layout, rows[key], growing, begin, end - begin)

    def _layout_for(self, block: OpenBlock) -> StackLayout:
        if block.layout is None:
            windows = self.settings.windows
            block.layout = StackLayout.of(self.picker, windows, block.offsets)
        return block.layout

    def _growing(self, layout: StackLayout) -> _Growing:
        shape = (layout.n_samples, len(self.picker.labels))
        fill = 0.0 if layout.average else -np.inf
        return _Growing(layout, torch.full(shape, fill, device=self.runtime.device))

    def _stacked(
        self, stretches: Sequence[_Stretch], predictions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums or maxima of all stretches, one after the other, and the windows behind them."""
        device, layout = predictions.device, stretches[0].layout
        begins = np.cumsum([0, *(stretch.length for stretch in stretches)])
        starts = np.concatenate(
            [stretch.starts + begin for stretch, begin in zip(stretches, begins, strict=False)]
        )
        shape = (int(begins[-1]), predictions.shape[2])
        axis = torch.full(shape, 0.0 if layout.average else -torch.inf, device=device)
        for stretch, begin in zip(stretches, begins.tolist(), strict=False):
            if stretch.growing is not None:
                end = stretch.begin + stretch.length
                axis[begin : begin + stretch.length] = stretch.growing.axis[stretch.begin : end]
        keep = np.zeros(predictions.shape[1], dtype=bool)
        for part in layout.keep:
            keep[part] = True
        counts = stack_on(
            axis,
            predictions,
            torch.from_numpy(starts.astype(np.int64)).to(device),
            torch.from_numpy(keep).to(device),
            windows_over_a_sample(starts, predictions.shape[1]),
            average=layout.average,
        )
        return axis, counts

    def _grown(self, stretch: _Stretch, axis: torch.Tensor) -> bool:
        """Keep what windows have added to a block's curve; true if they were its last ones."""
        growing = stretch.growing
        assert growing is not None
        growing.axis[stretch.begin : stretch.begin + stretch.length] = axis
        growing.windows += sum(map(len, stretch.rows))
        if growing.windows < len(growing.layout.starts):
            return False
        stretch.block.stack = None
        return True

    def _pick_along(self, whole: Sequence[tuple[OpenBlock, torch.Tensor]]) -> None:
        """Pick blocks that are complete, and keep their curves where they are wanted."""
        blocks = [block for block, _ in whole]
        for block, curves in whole:
            if self._shows(block):
                self._keep_curves([block], curves.T.cpu().numpy()[np.newaxis])
        lengths = [len(curves) for _, curves in whole]
        joined = whole[0][1] if len(whole) == 1 else torch.cat([curves for _, curves in whole])
        along = joined.T[self._labels].contiguous()
        rate = curve_rate(self.picker)
        own = [
            own_samples(block.origin, self.picker, self.settings, rate, n)
            for block, n in zip(blocks, lengths, strict=True)
        ]
        for block, highest in zip(blocks, highest_along(along, lengths, own).tolist(), strict=True):
            block.owner.highest.add(highest, self._phase_rows)
        thresholds = np.array([block.owner.thresholds for block in blocks], dtype=np.float64)
        self._close(blocks, find_triggers_along(along, lengths, thresholds), rate)

    def _settle_peaks(self, batch: Batch, predictions: torch.Tensor) -> None:
        length = predictions.shape[1]
        thresholds, own = [], []
        before: Counter[int] = Counter()
        for block, n in batch.claims:
            if block.stack is None:
                block.stack = self._stack(block)
            known = self._label_thresholds(block)
            thresholds += [[np.inf if value is None else value for value in known]] * n
            own.append(block.stack.own_of(before[id(block)], n, length))
            before[id(block)] += n
        found = peaks_of_windows(
            predictions, np.array(thresholds, dtype=np.float64), np.concatenate(own)
        )
        position = 0
        for block, n in batch.claims:
            part = slice(position, position + n)
            position += n
            block.stack.add_peaks(*(values[part] for values in found))
            if block.shown is not None:
                block.shown.add(predictions[part].cpu().numpy())
            if block.stack.complete:
                stack, block.stack = block.stack, None
                self._close_peaks(block, stack)
