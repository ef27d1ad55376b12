"""A record section of the traces with the picks on it, to see at once whether a run worked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eqcctpro.picks.arrow import numbers_of
from eqcctpro.picks.writers import atomic_file
from eqcctpro.report.raster import Paper, text_width
from eqcctpro.report.traces import (
    FILTER_NOTE,
    PHASE_COLOURS,
    OverviewTrace,
    columns_of,
    highpassed,
    trace_range,
)
from eqcctpro.times import NS_PER_S, format_utc

__all__ = ["draw_overview", "time_ticks"]

Float64 = NDArray[np.float64]

_OTHER_COLOUR = "#009E73"
_TRACE_GREY, _LINE_GREY = 0x60, 0xE5

# Pixels.
_WIDTH, _ROW, _TOP, _BOTTOM = 1320, 28, 52, 94
_LEFT, _RIGHT = 10, 40
_LABEL, _TITLE, _WORDS = 12, 17, 15
_THICKNESS = 0.9
_TRACE_HEIGHT, _MARK_HEIGHT = 0.36 * _ROW, 0.48 * _ROW

_FEWEST_ROWS = 8
_MOST_TICKS = 10
_FAINTEST = 0.35
_CLIP = 1.2


@dataclass(frozen=True, slots=True)
class _Marks:
    """Picks of one phase at one station."""

    times_ns: NDArray[np.int64]
    probability: Float64


@dataclass(frozen=True, slots=True)
class _Axes:
    """Axes of the picture: position of times and rows, in pixels."""

    left: int
    right: int
    start_ns: int
    end_ns: int
    rows: int

    @property
    def column_ns(self) -> float:
        """Time in a column of pixels."""
        return max(self.end_ns - self.start_ns, 1) / (self.right - self.left)

    @property
    def bottom(self) -> int:
        """Below the rows."""
        return _TOP + _ROW * max(self.rows, _FEWEST_ROWS)

    def middle(self, row: int) -> float:
        """Height that a row lies at."""
        return _TOP + _ROW * (row + 0.5)

    def columns(self, times_ns: NDArray[np.int64]) -> NDArray[np.intp]:
        """Columns that times lie in."""
        return self.left + ((times_ns - self.start_ns) / self.column_ns).astype(np.intp)


def draw_overview(
    path_png: str | Path,
    traces: Sequence[OverviewTrace],
    picks: pa.Table,
    *,
    title: str,
    max_traces: int = 60,
    stations: int | None = None,
    note: str = "",
) -> Path:
    """Draw traces with picks as a PNG.

    One row per station, the vertical component where there is one; stations in the order of their
    first P pick, those without picks below.  With more stations than `max_traces`, those with
    the most picks are shown.  P is marked above the middle of a trace and S below it, so that
    one does not hide the other; other phases reach to both sides.  A mark is the longer and the
    stronger, the higher the probability.  Traces are high-pass filtered at about 1 Hz.

    Parameters
    ----------
    path_png : path
        The file to write.
    traces : sequence of OverviewTrace
        May be empty.
    picks : pyarrow.Table
        With the columns network, station, phase, time (timestamp) and probability; may be empty.
    title : str
    max_traces : int
        Rows drawn at most.
    stations : int, optional
        Stations that were picked, where `traces` are of some of them only: the heading says how
        many of them the picture shows.
    note : str
        Written below, before what is said of the filter.

    Returns
    -------
    Path
        `path_png`.

    Raises
    ------
    OutputError
        The picture cannot be written.
    """
    path = Path(path_png)
    marks = _marks_by_station(picks)
    rows = [[highpassed(piece) for piece in row] for row in _choose_rows(traces, marks, max_traces)]
    widest = max((text_width(row[0].label, _LABEL) for row in rows), default=0.0)
    pieces = [piece for row in rows for piece in row]
    axes = _Axes(
        _LEFT + round(widest) + 8,
        _WIDTH - _RIGHT,
        min((piece.start_ns for piece in pieces), default=0),
        max((piece.end_ns for piece in pieces), default=0),
        len(rows),
    )
    paper = Paper(_WIDTH, axes.bottom + _BOTTOM, [_OTHER_COLOUR, *PHASE_COLOURS.values()])
    if rows:
        _draw_times(paper, axes)
        said = ". ".join(text for text in (note, FILTER_NOTE) if text)
        paper.write((axes.left + axes.right) / 2, axes.bottom + 70, f"{said}.", _WORDS, "middle")
        for level, row in enumerate(rows):
            _draw_row(paper, axes, level, row)
            _draw_marks(paper, axes, level, marks.get(row[0].station, {}))
    else:
        paper.write(_WIDTH / 2, (_TOP + axes.bottom) / 2, "no traces", _TITLE, "middle")
    if stations is None:
        stations = len({trace.station for trace in traces})
    paper.write(axes.left, _TOP / 2, _heading(title, len(rows), stations), _TITLE)
    _draw_legend(paper, axes.right, picks)
    with atomic_file(path) as file:
        # What the file says of itself must not depend on the machine that drew it.
        file.write(paper.png("EQCCTPro"))
    return path


def _marks_by_station(picks: pa.Table) -> dict[str, dict[str, _Marks]]:
    """Times in ns and probabilities by ``NET.STA`` and phase."""
    if picks.num_rows == 0:
        return {}
    time, value = picks["time"], picks["probability"]
    times = numbers_of(time, f"M8[{time.type.unit}]").astype("M8[ns]").astype(np.int64)
    kind = "f4" if pa.types.is_float32(value.type) else "f8"
    probability = numbers_of(value, kind).astype(np.float64)
    where: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    codes = (picks[name].to_pylist() for name in ("network", "station", "phase"))
    for index, (network, station, phase) in enumerate(zip(*codes, strict=True)):
        where[f"{network}.{station}"][phase].append(index)
    return {
        station: {
            phase: _Marks(times[rows], np.clip(np.nan_to_num(probability[rows]), 0.0, 1.0))
            for phase, rows in phases.items()
        }
        for station, phases in where.items()
    }


def _choose_rows(
    traces: Sequence[OverviewTrace], marks: Mapping[str, Mapping[str, _Marks]], limit: int
) -> list[list[OverviewTrace]]:
    """One list of trace pieces for each row, top row first."""
    by_station: dict[str, dict[str, list[OverviewTrace]]] = defaultdict(lambda: defaultdict(list))
    for trace in traces:
        if trace.samples.size:
            by_station[trace.station][trace.label].append(trace)
    shown = sorted(by_station, key=lambda name: (-_count(marks.get(name, {})), name))[:limit]
    shown.sort(key=lambda name: (_first_pick(marks.get(name, {})), name))
    return [_vertical(by_station[name]) for name in shown]


def _vertical(labelled: Mapping[str, list[OverviewTrace]]) -> list[OverviewTrace]:
    return labelled[min(labelled, key=lambda label: (not label.endswith("Z"), label))]


def _count(phases: Mapping[str, _Marks]) -> int:
    return sum(marks.times_ns.size for marks in phases.values())


def _first_pick(phases: Mapping[str, _Marks]) -> float:
    wanted = [phases["P"]] if "P" in phases else list(phases.values())
    return min((float(marks.times_ns.min()) for marks in wanted), default=np.inf)


def _draw_row(paper: Paper, axes: _Axes, level: int, row: Sequence[OverviewTrace]) -> None:
    """Write the label of a station and draw its trace, or its pieces."""
    lines = [columns_of(piece, axes.start_ns, axes.column_ns) for piece in row]
    offset, scale = trace_range(np.concatenate([side for _, *both in lines for side in both]))
    middle = axes.middle(level)
    for first, *extremes in lines:
        bottoms, tops = (
            middle - _TRACE_HEIGHT * np.clip((values - offset) / scale, -_CLIP, _CLIP)
            for values in extremes
        )
        paper.trace(axes.left + first, tops, bottoms, _THICKNESS, _TRACE_GREY)
    paper.write(axes.left - 5, middle, row[0].label, _LABEL, "right")


def _draw_marks(paper: Paper, axes: _Axes, level: int, phases: Mapping[str, _Marks]) -> None:
    """Draw the picks of a station."""
    middle = axes.middle(level)
    for phase, found in phases.items():
        above = below = _MARK_HEIGHT * (0.5 + 0.5 * found.probability)
        if phase == "P":
            below = np.zeros_like(above)
        elif phase == "S":
            above = np.zeros_like(below)
        shown = (found.times_ns >= axes.start_ns) & (found.times_ns <= axes.end_ns)
        paper.strokes(
            PHASE_COLOURS.get(phase, _OTHER_COLOUR),
            axes.columns(found.times_ns[shown]),
            np.rint(middle - above[shown]).astype(np.intp),
            np.rint(middle + below[shown]).astype(np.intp),
            _FAINTEST + (1.0 - _FAINTEST) * found.probability[shown],
        )


def _draw_times(paper: Paper, axes: _Axes) -> None:
    """Draw the axis of time, below the rows."""
    bottom = axes.bottom
    for time_ns, text in time_ticks(axes.start_ns, axes.end_ns, _MOST_TICKS):
        column = int(axes.columns(np.array(time_ns)))
        paper.box(column, column + 1, _TOP, bottom, _LINE_GREY)
        paper.box(column, column + 1, bottom, bottom + 5, 0)
        paper.write(column, bottom + 16, text, _WORDS, "middle")
    paper.box(axes.left, axes.right, bottom, bottom + 1, 0)
    start, end = format_utc(axes.start_ns, "seconds"), format_utc(axes.end_ns, "seconds")
    middle = (axes.left + axes.right) / 2
    paper.write(middle, bottom + 44, f"UTC, from {start} to {end}", _WORDS, "middle")


def _draw_legend(paper: Paper, right: int, picks: pa.Table) -> None:
    """Write how many picks of each phase there are, from right to left."""
    counts = Counter(picks["phase"].to_pylist())
    names = [*PHASE_COLOURS, *sorted(set(counts) - set(PHASE_COLOURS))]
    x, middle = float(right), _TOP // 2
    for name in reversed(names):
        text = f"{name}: {counts[name]:,} {'pick' if counts[name] == 1 else 'picks'}"
        paper.write(x, middle, text, _WORDS, "right")
        x -= text_width(text, _WORDS) + 14
        colour = PHASE_COLOURS.get(name, _OTHER_COLOUR)
        place = np.array([round(x)]), np.array([middle - 8]), np.array([middle + 8])
        paper.strokes(colour, *place, np.ones(1), width=3)
        x -= 26


def _heading(title: str, rows: int, stations: int) -> str:
    if rows >= stations:
        return title
    return f"{title}  ({rows} of {stations} stations, those with the most picks)"


_S, _DAY = NS_PER_S, 86_400 * NS_PER_S
_STEPS_NS = (
    *(digit * 10**power for power in range(3, 9) for digit in (1, 2, 5)),
    *(seconds * _S for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * 60 * _S for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3600 * _S for hours in (1, 2, 3, 6, 12)),
    *(days * 10**power * _DAY for power in range(5) for days in (1, 2, 5)),
)


def time_ticks(start_ns: int, end_ns: int, at_most: int) -> list[tuple[int, str]]:
    """Round times in a span, as close to each other as their number allows.

    Parameters
    ----------
    start_ns, end_ns : int
        Nanoseconds since 1970, UTC.
    at_most : int

    Returns
    -------
    list of (int, str)
        Times, and what is written at them: the time of the day, and the date where a day begins.
    """
    longest = _STEPS_NS[-1]
    step = next((s for s in _STEPS_NS if (end_ns - start_ns) // s < at_most), longest)
    first = -(-start_ns // step) * step
    return [(time, _label(time, step)) for time in range(first, end_ns + 1, step)][:at_most]


def _label(time_ns: int, step_ns: int) -> str:
    text = format_utc(time_ns)
    date, clock = text[:10], text[11:19]
    if time_ns % _DAY == 0:
        return date
    if time_ns % (60 * _S) == 0:
        return clock[:5]
    if step_ns >= _S:
        return clock
    digits = len(str(_S // step_ns - 1))
    return clock + text[19 : 20 + digits]
