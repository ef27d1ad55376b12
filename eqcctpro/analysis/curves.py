"""Probability curves of one station: what a run computes, uses and forgets, computed again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import InputError
from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.prepare import FileCache, load_segments, prepare
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.base import Runtime
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.blocks import Block
from eqcctpro.waveform.segments import Segment
from eqcctpro.windows.stacking import CurveStack, StackLayout, curve_rate

__all__ = ["Curve", "station_curves"]


@dataclass(frozen=True)
class Curve:
    """Curves of one stretch of data without a gap.

    Attributes
    ----------
    start_ns : int
        Time of the first value.
    interval_ns : float
        Between values.
    values : ndarray of float32, shape (samples, labels)
        Probabilities; NaN where no window reaches.
    """

    start_ns: int
    interval_ns: float
    values: NDArray[np.float32]

    @property
    def times_ns(self) -> NDArray[np.int64]:
        """Time of every value."""
        steps = np.arange(len(self.values)) * self.interval_ns
        return self.start_ns + np.round(steps).astype(np.int64)


def station_curves(
    task: StationTask, picker: Picker, runtime: Runtime, settings: PipelineSettings
) -> tuple[list[Segment], list[Curve]]:
    """Waveforms and curves of one station task.

    The stages are those of a run.  Where a model picks on single windows, which are not joined,
    the curve is the highest value of all windows.

    Returns
    -------
    list of Segment
        As recorded, of every component.
    list of Curve

    Raises
    ------
    InputError
        The station cannot be picked; the message says why.
    """
    decoded = FileCache().read(task, None, settings.context_ns)
    segments = load_segments(task, decoded, settings.context_ns, [])
    prepared = prepare(task, decoded, picker, settings)
    if prepared.record is not None:
        raise InputError(f"{task.name} in {task.chunk.name}: {prepared.record.reason}")
    return segments, [
        _curve(block, offsets, picker, runtime, settings) for block, offsets in prepared.blocks
    ]


def _curve(
    block: Block,
    offsets: NDArray[np.intp],
    picker: Picker,
    runtime: Runtime,
    settings: PipelineSettings,
) -> Curve:
    windows = settings.windows
    if windows.picking == "window_peak":
        windows = replace(windows, stacking="max")
    stack = CurveStack(StackLayout.of(picker, windows, offsets), len(picker.labels))
    for first in range(0, len(offsets), runtime.batch_size):
        batch = np.stack(
            [
                block.data[:, offset : offset + picker.in_samples]
                for offset in offsets[first : first + runtime.batch_size].tolist()
            ]
        ).astype(np.float32)
        stack.add(runtime.predict(batch))
    rate = block.sampling_rate
    if picker.output == "point":
        shift, interval = picker.pred_sample[1], windows.stride * NS_PER_S / rate
    else:
        shift, interval = picker.pred_sample[0], NS_PER_S / (rate * curve_rate(picker))
    return Curve(block.start_ns + round(shift * NS_PER_S / rate), interval, stack.finish())
