"""Probability curves of one station: what a run computes, uses and forgets, computed again."""

from __future__ import annotations

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import InputError
from eqcctpro.models.picker import Picker
from eqcctpro.picks.annotations import BlockCurves
from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.pipeline.prepare import prepare
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.base import Runtime
from eqcctpro.sources.files import FileCache
from eqcctpro.sources.task_waveforms import load_segments, task_waveforms
from eqcctpro.waveform.segments import Segment

__all__ = ["station_curves"]


def station_curves(
    task: StationTask, picker: Picker, runtime: Runtime, settings: PipelineSettings
) -> tuple[list[Segment], list[BlockCurves], str]:
    """Waveforms and curves of one station task.

    The pipeline is that of a run.

    Returns
    -------
    list of Segment
        As recorded, of every component.
    list of BlockCurves
    str
        Why there are no curves, such as that the record is too short; else empty.

    Raises
    ------
    InputError
        There are no waveforms; the message says why.
    """
    decoded = FileCache(needs_record=settings.needs_record).read(task, None, settings.context_ns)
    segments = load_segments(task, decoded, settings.context_ns)
    prepared = prepare(task_waveforms(task, decoded, settings), picker, settings)
    if prepared.ended is not None:
        reason = prepared.ended.reason
        if not segments:
            raise InputError(f"{task.name} in {task.chunk.name}: {reason}")
        return segments, [], reason
    prepared.keep_curves = True
    return segments, Pipeline(picker, runtime, settings).pick_one(prepared).curves, ""
