"""Picks of records that go on: windows of the absolute grid, with sums of curves carried on.

The result is that of `eqcctpro.pipeline.engine` with the grid ``absolute`` on the whole record:
the same windows, summed in the same order.  A pick is decided as soon as no window that is still
to come can change it, wherever the record ends.  Samples are counted from 1970.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import SettingsError
from eqcctpro.models.picker import Picker
from eqcctpro.picks.trigger import find_triggers
from eqcctpro.pipeline.batches import Batches
from eqcctpro.pipeline.curves import picked_labels
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.base import Runtime
from eqcctpro.windows.placement import window_step
from eqcctpro.windows.stacking import StackLayout, curve_rate

__all__ = ["CurveRules", "RunningBlock", "RunningPipeline", "RunningTrigger"]

Float32 = NDArray[np.float32]


class RunningTrigger(NamedTuple):
    """Trigger on a curve of a record that goes on, in samples since 1970.

    Attributes
    ----------
    label : int
        Index into the picker's labels.
    onset, end, peak : int
        Samples at which the trigger goes on, goes off (inclusive), and is highest.
    value : float
        Probability at the peak.
    """

    label: int
    onset: int
    end: int
    peak: int
    value: float


class _Run(NamedTuple):
    """Run of samples above half of the threshold whose end is not known; onset -1: none yet."""

    onset: int
    peak: int
    value: float


@dataclass(frozen=True, slots=True)
class CurveRules:
    """Rules of windows, stacking and picking, which all records share.

    Attributes
    ----------
    length, step : int
        Samples of a window, and from one to the next.
    average : bool
        Whether the mean of windows is taken, or the maximum.
    keep : tuple of slice
        Stretches of a window's curve that are not blinded.
    thresholds : dict of int to float
        Of the labels that are picked.
    """

    length: int
    step: int
    average: bool
    keep: tuple[slice, ...]
    thresholds: dict[int, float]

    @classmethod
    def of(cls, picker: Picker, settings: PipelineSettings) -> CurveRules:
        """Rules of a model with settings.

        Raises
        ------
        SettingsError
            The model has no curves of its own rate, or the settings need whole records.
        """
        windows, how = settings.windows, settings.conditioning
        reason = ""
        if picker.output == "point" or windows.picking != "trigger":
            reason = "picks on single windows"
        elif picker.features is not None:
            reason = "picks on features of whole records"
        elif curve_rate(picker) != 1 or picker.sampling_rate is None:
            reason = "has curves of another sampling rate than its windows"
        elif how.filters or settings.preparation.asked:
            reason = "needs filtered records"
        elif settings.strict:
            reason = "with strict=true needs all components"
        if reason:
            raise SettingsError(
                f"{picker.name} {reason}, which is not done with records that go on",
                hint="PhaseNet and EQTransformer, among others, pick real-time data",
            )
        layout = StackLayout.of(picker, windows, np.zeros(1, dtype=np.intp))
        thresholds = picked_labels(picker, settings.thresholds)
        detection = picker.detection_label
        if detection is not None:
            thresholds.pop(picker.labels.index(detection), None)
        step = window_step(picker, windows)
        return cls(picker.in_samples, step, layout.average, layout.keep, thresholds)

    @property
    def first_kept(self) -> int:
        """First sample of a window that is not blinded."""
        return self.keep[0].start


class _Curves:
    """Curves from the first sample on that is not decided: sums, and numbers of windows."""

    def __init__(self, rules: CurveRules, first: int) -> None:
        self.rules = rules
        self.first = first
        self.runs: list[_Run | None] = [None] * len(rules.thresholds)
        self._labels = list(rules.thresholds)
        self._fill = 0.0 if rules.average else -np.inf
        self._sums = np.empty((len(self._labels), 0), dtype=np.float32)
        self._counts = np.empty(0, dtype=np.float32)

    def copy(self) -> _Curves:
        new = copy.copy(self)
        new.runs = list(self.runs)
        new._sums, new._counts = self._sums.copy(), self._counts.copy()
        return new

    def add(self, start: int, predictions: Float32) -> None:
        """Add a window; what it says of decided samples is left out."""
        behind = start - self.first
        self._reach(behind + self.rules.keep[-1].stop)
        for kept in self.rules.keep:
            begin, end = max(behind + kept.start, 0), behind + kept.stop
            if begin >= end:
                continue
            values = predictions[begin - behind : end - behind, self._labels].T
            part = self._sums[:, begin:end]
            if self.rules.average:
                part += values
            else:
                np.fmax(part, values, out=part)
            self._counts[begin:end] += 1

    def scan(self, until: int) -> tuple[list[RunningTrigger], list[_Run | None]]:
        """Triggers that end before a sample, and the runs that are open there."""
        found: list[RunningTrigger] = []
        runs: list[_Run | None] = []
        values = self._values(max(until - self.first, 0))
        for row, (label, threshold) in enumerate(self.rules.thresholds.items()):
            more, run = _scan(values[row], self.first, self.runs[row], label, threshold)
            found += more
            runs.append(run)
        return found, runs

    def settle(self, until: int) -> list[RunningTrigger]:
        """Triggers that end before a sample, up to which all is decided."""
        if until <= self.first:
            return []
        found, self.runs = self.scan(until)
        past = until - self.first
        # Copies, which free what is decided.
        self._sums, self._counts = self._sums[:, past:].copy(), self._counts[past:].copy()
        self.first = until
        return found

    def close(self) -> list[RunningTrigger]:
        """All other triggers, where the record ends."""
        end = self.first + len(self._counts)
        found = self.settle(end)
        # A sample behind the end closes what is open.
        self.runs, runs = [None] * len(self.runs), self.runs
        for label, run in zip(self.rules.thresholds, runs, strict=True):
            if run is not None and run.onset >= 0:
                found.append(RunningTrigger(label, run.onset, end - 1, run.peak, run.value))
        return found

    def _reach(self, n: int) -> None:
        missing = n - len(self._counts)
        if missing > 0:
            more = np.full((len(self._labels), missing), self._fill, dtype=np.float32)
            self._sums = np.concatenate([self._sums, more], axis=1)
            self._counts = np.concatenate([self._counts, np.zeros(missing, dtype=np.float32)])

    def _values(self, n: int) -> Float32:
        """The first values; NaN where no window reaches."""
        values = np.full((len(self._labels), n), np.nan, dtype=np.float32)
        sums, counts = self._sums[:, :n], self._counts[:n]
        reached = slice(0, sums.shape[1])
        if self.rules.average:
            with np.errstate(invalid="ignore", divide="ignore"):
                np.divide(sums, counts, out=values[:, reached])
        else:
            values[:, reached] = sums
        return values


def _scan(
    values: Float32, start: int, run: _Run | None, label: int, threshold: float
) -> tuple[list[RunningTrigger], _Run | None]:
    """Triggers of a curve, of which a run may have begun before it and one may not end in it."""
    low = values >= np.float32(threshold / 2)
    found: list[RunningTrigger] = []
    first, n = 0, len(values)
    if run is not None:
        below = np.flatnonzero(~low)
        first = int(below[0]) if len(below) else n
        run = _longer(run, values[:first], start, threshold)
        if first == n:
            return found, run
        if run.onset >= 0:
            found.append(RunningTrigger(label, run.onset, start + first - 1, run.peak, run.value))
    elif not low.any():  # as nearly always
        return found, None
    last = n
    if n > first and low[-1]:
        below = np.flatnonzero(~low[first:])
        last = first + (int(below[-1]) + 1 if len(below) else 0)
    here = find_triggers(values[first:last], threshold)
    base = start + first
    for onset, end, peak, value in zip(*(one.tolist() for one in here), strict=True):
        found.append(RunningTrigger(label, base + onset, base + end, base + peak, value))
    if last == n:
        return found, None
    return found, _longer(_Run(-1, -1, 0.0), values[last:], start + last, threshold)


def _longer(run: _Run, values: Float32, start: int, threshold: float) -> _Run:
    """A run that goes on with some values."""
    if run.onset < 0:
        above = np.flatnonzero(values >= np.float32(threshold))
        if not len(above):
            return run
        first = int(above[0])
        run, values, start = _Run(start + first, -1, -1.0), values[first:], start + first
    if len(values):
        peak = int(np.argmax(values))
        if float(values[peak]) > run.value:
            return run._replace(peak=start + peak, value=float(values[peak]))
    return run


class RunningBlock:
    """Stretch of a record without a gap whose end is not known.

    Parameters
    ----------
    rules : CurveRules
    start : int
        Its first sample.
    ahead : int
        Samples by which the grid of windows is ahead of counted samples: where these lie in the
        middle between two of the grid, the later one counts.

    Attributes
    ----------
    rules, start, ahead
    taken : int or None
        Start of the last window that was taken to be predicted.
    again : list of int
        Starts of windows that are to be predicted once more, after a restart.
    """

    def __init__(self, rules: CurveRules, start: int, ahead: int = 0) -> None:
        self.rules = rules
        self.start = start
        self.ahead = ahead
        self.taken: int | None = None
        self.again: list[int] = []
        self._repeated: set[int] = set()
        self._last: int | None = None
        self._curves = _Curves(rules, start)
        # Windows that say something of what is not decided.
        self._added: list[int] = []
        # Triggers that are decided and were not told; those that most ends would not change; and
        # label and onset of those of them that were told.
        self._done: list[RunningTrigger] = []
        self._near: list[RunningTrigger] = []
        self._told: set[tuple[int, int]] = set()

    def copy(self) -> RunningBlock:
        """A block that goes on by itself."""
        new = copy.copy(self)
        new.again, new._added = list(self.again), list(self._added)
        new._repeated, new._told = set(self._repeated), set(self._told)
        new._done, new._near = list(self._done), list(self._near)
        new._curves = self._curves.copy()
        return new

    @property
    def decided_until(self) -> int:
        """First sample of which picks are not decided by windows that were added."""
        return self._curves.first

    @property
    def open_runs(self) -> list[int]:
        """Samples where triggers go on whose end is not known."""
        runs = self._curves.runs
        return [run.onset for run in runs if run is not None and run.onset >= 0]

    @property
    def _following(self) -> int:
        """Start of the next window of the grid."""
        return self.start if self.taken is None else self._behind(self.taken)

    def _behind(self, start: int) -> int:
        """Start of the first window of the grid behind that of another window."""
        return start + self.rules.step - (start + self.ahead) % self.rules.step

    @property
    def next_end(self) -> int:
        """Sample up to which the record must be known for the next window."""
        return (self.again[0] if self.again else self._following) + self.rules.length

    def needed_from(self, end: int) -> int:
        """First sample that a later window needs, where the record is known up to `end`."""
        if self.again:
            return self.again[0]
        return self.start if self.taken is None else max(self.taken + 1, end - self.rules.length)

    def replayed_from(self, end: int) -> int:
        """First sample that is needed to go on from `state`."""
        return min([*self._added, *self.again, self.needed_from(end)])

    def take(self, end: int) -> list[int]:
        """Starts of the windows that are next where the record is known up to a sample.

        They are to be predicted in their order, and handed over only once.
        """
        starts: list[int] = []
        while self.next_end <= end:
            if self.again:
                starts.append(self.again.pop(0))
                self._repeated.add(starts[-1])
            else:
                self.taken = self._following
                starts.append(self.taken)
        return starts

    def take_last(self, end: int) -> int | None:
        """Start of the one window that is missing where the record ends; None if none is."""
        start = end - self.rules.length
        if start < self.start or (self.taken is not None and start <= self.taken):
            return None
        self.taken = start
        return start

    def add(self, start: int, predictions: Float32) -> None:
        """Add the next window that was taken.

        Parameters
        ----------
        start : int
        predictions : ndarray of float32, shape (out_samples, labels)
        """
        first_kept = self.rules.first_kept
        if start in self._repeated:
            self._repeated.remove(start)
        else:
            # No window that follows says anything of what lies before this one.
            settled = self._curves.settle(start + first_kept)
            self._done += [one for one in settled if one[:2] not in self._told]
            self._told.difference_update(one[:2] for one in settled)
            self._last = start
        self._curves.add(start, predictions)
        first = self._curves.first
        self._added = [one for one in self._added if one + self.rules.length > first]
        self._added.append(start)
        if self._last is not None:
            self._near, _ = self._curves.scan(self._behind(self._last) + first_kept)

    def decided(self, end: int) -> list[RunningTrigger]:
        """Triggers that are final where the record is known up to a sample, each once."""
        found, self._done = self._done, []
        if self._near and self._last is not None and not self.again:
            # The record may end here, and its last window then begins so.
            following = max(end - self.rules.length, self._last + 1)
            border = following + self.rules.first_kept
            for one in self._near:
                if one.end + 1 < border and one[:2] not in self._told:
                    self._told.add(one[:2])
                    found.append(one)
        return found

    def close(self) -> list[RunningTrigger]:
        """All other triggers, where the record ends and its last window was added."""
        found, self._done = self._done, []
        if self._last is not None and not self.again:
            found += [one for one in self._curves.close() if one[:2] not in self._told]
        return found

    def state(self) -> dict[str, Any]:
        """All that `of_state` needs, as values of JSON; of a block whose windows were added."""
        return {
            "start": self.start,
            "ahead": self.ahead,
            "taken": self.taken,
            "again": [*self._added, *self.again],
            "first": self._curves.first,
            "runs": self._curves.runs,
            "told": sorted(self._told),
        }

    @classmethod
    def of_state(cls, rules: CurveRules, state: Mapping[str, Any]) -> RunningBlock:
        """The block whose state was kept; it takes the windows that it had once more."""
        block = cls(rules, state["start"], state["ahead"])
        block.taken = block._last = state["taken"]
        block.again = list(state["again"])
        block._curves.first = state["first"]
        block._curves.runs = [None if run is None else _Run(*run) for run in state["runs"]]
        block._told = {(label, onset) for label, onset in state["told"]}
        return block


class RunningPipeline:
    """Predicts windows of many records that go on, in batches.

    Parameters
    ----------
    picker : Picker
    runtime : Runtime
    settings : PipelineSettings

    Raises
    ------
    SettingsError
        As `CurveRules.of`.
    """

    def __init__(self, picker: Picker, runtime: Runtime, settings: PipelineSettings) -> None:
        self.picker = picker
        self.rules = CurveRules.of(picker, settings)
        self.windows = 0
        self._batches: Batches[tuple[RunningBlock, int]] = Batches(picker, runtime)

    @property
    def seconds(self) -> float:
        """Time that the network took."""
        return self._batches.seconds

    def window(self, block: RunningBlock, start: int) -> Float32:
        """An array for a window of a block, to be filled before the next call.

        Parameters
        ----------
        block : RunningBlock
            To which its predictions are added.
        start : int

        Returns
        -------
        ndarray of float32, shape (components, in_samples)
        """
        if not self._batches.room:
            self._batches.send()
            if self._batches.under_way >= self._batches.runtime.ahead:
                self._collect()
        self.windows += 1
        return self._batches.claim((block, start))

    def drain(self) -> None:
        """Predict all windows, and add them to their blocks."""
        self._batches.send()
        while self._batches.under_way:
            self._collect()

    def _collect(self) -> None:
        claims, predictions = self._batches.wait()
        for (block, start), values in zip(claims, predictions, strict=True):
            block.add(start, values)
