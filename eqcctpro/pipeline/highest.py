"""Highest probabilities of a station task, which say how far it was from a pick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.findings import CurveOrigin, curve_times
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.spans import FOREVER_NS

__all__ = ["Highest", "own_samples", "phase_rows"]

_UNBOUNDED = (-FOREVER_NS, FOREVER_NS, None, None)


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
    """Samples of a curve of `n` samples that lie in its task's chunk and in the run's span."""
    chunk = origin.task.chunk
    bounds = (chunk.own_start_ns, chunk.own_end_ns, settings.start_ns, settings.end_ns)
    if bounds == _UNBOUNDED:
        return slice(0, n)
    shift_ns, interval_ns = curve_times(picker, settings, origin.sampling_rate, curve_rate)
    begin_ns = origin.start_ns + shift_ns
    first_ns, end_ns = chunk.own_start_ns, chunk.own_end_ns
    if settings.start_ns is not None:
        first_ns = max(first_ns, settings.start_ns)
    if settings.end_ns is not None:
        end_ns = min(end_ns, settings.end_ns)
    first, end = (-int((begin_ns - edge) // interval_ns) for edge in (first_ns, end_ns))
    first = min(max(first, 0), n)
    return slice(first, max(min(end, n), first))


def _higher(known: float | None, values: Sequence[float]) -> float | None:
    numbers = [value for value in values if not math.isnan(value)]
    if known is not None:
        numbers.append(known)
    return max(numbers, default=None)
