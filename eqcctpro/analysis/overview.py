"""A record section of the traces with the picks on it, to see at once whether a run worked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eqcctpro.errors import OutputError
from eqcctpro.picks.arrow import numbers_of
from eqcctpro.times import NS_PER_S, format_utc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Float64 = NDArray[np.float64]

__all__ = ["PHASE_COLOURS", "OverviewTrace", "draw_overview", "envelope", "trace_range"]

PHASE_COLOURS = {"P": "#D55E00", "S": "#0072B2"}
"""Vermillion and blue of Okabe and Ito's palette, told apart with any kind of colour vision."""

_OTHER_COLOUR = "#009E73"
_TRACE_COLOUR = "#606060"
_COLUMNS = 1600
"""Columns of the picture that a long trace is reduced to, a minimum and a maximum in each."""

_WIDTH_INCHES = 12.0
_ROW_INCHES = 0.26
_TOP_INCHES, _BOTTOM_INCHES = 0.45, 0.65
_LABEL_POINTS = 7.5
_LETTER_INCHES = 0.603 * _LABEL_POINTS / 72
"""Letters of Matplotlib's fixed-width font are 0.602 of its size wide."""
_COMPRESSION = 3
_TRACE_HEIGHT = 0.36
_MARK_HEIGHT = 0.48
_FAINTEST = 0.35
_CLIP = 1.2
_PERCENTILE = 99.5
_DENSE = 30
"""With more picks than this on a row, P keeps to the upper and S to the lower half of it."""


_DAY_NS = 86_400 * NS_PER_S


@dataclass(frozen=True, slots=True)
class OverviewTrace:
    """One row of the picture, or a piece of one: traces with the same label share a row.

    Attributes
    ----------
    label : str
        ``NET.STA.LOC.CHA``, written beside the row.
    start_ns : int
        Time of the first sample, UTC, nanoseconds since 1970.
    sampling_rate : float
        Hz.
    samples : ndarray, shape (samples,)
        In any unit; each row is normalised by itself.
    station : str
        ``NET.STA``; picks of that station are drawn on the row.
    """

    label: str
    start_ns: int
    sampling_rate: float
    samples: NDArray[Any]
    station: str

    @property
    def end_ns(self) -> int:
        """Time just after the last sample."""
        return self.start_ns + round(self.samples.size / self.sampling_rate * NS_PER_S)


@dataclass(frozen=True, slots=True)
class _Marks:
    """Picks of one phase at one station."""

    times_ns: NDArray[np.int64]
    probability: Float64


def draw_overview(
    path_png: str | Path,
    traces: Sequence[OverviewTrace],
    picks: pa.Table,
    *,
    title: str,
    max_traces: int = 60,
) -> Path:
    """Draw traces with picks as a PNG.

    One row per station, the vertical component where there is one; stations in the order of their
    first P pick, those without picks below.  With more stations than `max_traces`, those with
    the most picks are shown.  A pick's mark is the longer and the stronger, the higher
    its probability.

    Parameters
    ----------
    path_png : path
        The file to write; its folder must be there.
    traces : sequence of OverviewTrace
        May be empty.
    picks : pyarrow.Table
        With the columns network, station, phase, time (timestamp) and probability; may be empty.
    title : str
    max_traces : int
        Rows drawn at most.

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
    rows = _choose_rows(traces, marks, max_traces)
    # A figure of its own, not pyplot's: no window system and no state shared between threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = _TOP_INCHES + _BOTTOM_INCHES + _ROW_INCHES * max(len(rows), 8)
    figure = Figure(figsize=(_WIDTH_INCHES, height))
    # A layout that is measured by drawing everything once more takes as long as the picture.
    widest = max((len(row[0].label) for row in rows), default=0)
    figure.subplots_adjust(
        left=(0.15 + widest * _LETTER_INCHES) / _WIDTH_INCHES,
        right=1.0 - 0.35 / _WIDTH_INCHES,
        bottom=_BOTTOM_INCHES / height,
        top=1.0 - _TOP_INCHES / height,
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if rows:
        _draw_rows(axes, rows, marks)
    else:
        axes.text(0.5, 0.5, "no traces", transform=axes.transAxes, ha="center", va="center")
        axes.set_axis_off()
    stations = len({trace.station for trace in traces})
    axes.set_title(_heading(title, len(rows), stations), loc="left", fontsize=11)
    _legend(axes, picks)
    try:
        # What the decoration says must not depend on the machine that drew it.
        figure.savefig(
            path,
            dpi=110,
            metadata={"Software": "EQCCTPro"},
            pil_kwargs={"compress_level": _COMPRESSION},
        )
    except OSError as error:
        raise OutputError(
            f"cannot write the overview picture {path}: {error.strerror or error}",
            hint="check that the folder exists and may be written",
        ) from error
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


def _draw_rows(
    axes: Axes, rows: list[list[OverviewTrace]], marks: Mapping[str, Mapping[str, _Marks]]
) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    start_ns = min(piece.start_ns for row in rows for piece in row)
    end_ns = max(piece.end_ns for row in rows for piece in row)
    column_ns = max(1, (end_ns - start_ns) // _COLUMNS)
    strokes: list[Float64] = []
    colours: list[tuple[float, ...]] = []
    for level, row in enumerate(rows):
        lines = [envelope(piece, column_ns) for piece in row]
        offset, scale = trace_range(np.concatenate([samples for _, samples in lines]))
        for days, samples in lines:
            shape = np.clip((samples - offset) / scale, -_CLIP, _CLIP)
            height = level - _TRACE_HEIGHT * shape
            axes.add_line(Line2D(days, height, color=_TRACE_COLOUR, linewidth=0.5, zorder=2))
        phases = marks.get(row[0].station, {})
        for phase, found in phases.items():
            _add_marks(strokes, colours, level, phase, found, dense=_count(phases) > _DENSE)
    strokes_of_all = LineCollection(strokes, colors=colours, linewidths=1.6, zorder=3)
    axes.add_collection(strokes_of_all, autolim=False)
    _decorate(axes, [row[0].label for row in rows], start_ns, end_ns)


def _add_marks(
    strokes: list[Float64],
    colours: list[tuple[float, ...]],
    level: int,
    phase: str,
    found: _Marks,
    *,
    dense: bool,
) -> None:
    from matplotlib.colors import to_rgb

    above = below = _MARK_HEIGHT * (0.5 + 0.5 * found.probability)
    if dense and phase == "P":
        below = np.zeros_like(above)
    elif dense and phase == "S":
        above = np.zeros_like(below)
    colour = to_rgb(PHASE_COLOURS.get(phase, _OTHER_COLOUR))
    strength = _FAINTEST + (1.0 - _FAINTEST) * found.probability
    days = _days(found.times_ns)
    ends = np.stack([days, level - above, days, level + below], axis=1)
    strokes.extend(ends.reshape(-1, 2, 2))
    colours.extend((*colour, alpha) for alpha in strength.tolist())


def _decorate(axes: Axes, labels: list[str], start_ns: int, end_ns: int) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=5, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    axes.set_xlim(start_ns / _DAY_NS, end_ns / _DAY_NS)
    axes.set_xlabel(
        f"UTC, from {format_utc(start_ns, 'seconds')} to {format_utc(end_ns, 'seconds')}"
    )
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), labels, fontsize=_LABEL_POINTS, family="monospace")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.6, zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def envelope(trace: OverviewTrace, column_ns: int) -> tuple[Float64, Float64]:
    """Times in days and samples; of a long trace only the extremes within each column."""
    step_ns = NS_PER_S / trace.sampling_rate
    width = int(column_ns / step_ns)
    if width <= 2:
        samples = np.where(np.isfinite(trace.samples), trace.samples, np.nan)
        return _days(trace.start_ns + np.arange(samples.size) * step_ns), samples.astype(np.float64)
    whole = trace.samples.size - trace.samples.size % width
    parts = [trace.samples[:whole].reshape(-1, width), trace.samples[whole:].reshape(1, -1)]
    extremes = np.concatenate([_extremes(part) for part in parts if part.size])
    starts = np.arange(extremes.shape[0]) * width
    times = np.repeat(trace.start_ns + (starts + 0.5 * width) * step_ns, 2)
    return _days(times), extremes.ravel()


def _extremes(columns: NDArray[Any]) -> Float64:
    """Smallest and largest finite sample of each column, NaN where there is none."""
    found = np.stack([columns.min(axis=1), columns.max(axis=1)], axis=1).astype(np.float64)
    if not np.isfinite(found).all():
        finite = np.where(np.isfinite(columns), columns, np.nan)
        found = np.stack([np.fmin.reduce(finite, axis=1), np.fmax.reduce(finite, axis=1)], axis=1)
    return found.astype(np.float64)


def trace_range(samples: Float64) -> tuple[float, float]:
    """What a row is centred on and divided by; a few outliers must not flatten the rest."""
    finite = samples[np.isfinite(samples)]
    if not finite.size:
        return 0.0, 1.0
    offset = float(np.median(finite))
    away = np.abs(finite - offset)
    return offset, float(np.percentile(away, _PERCENTILE)) or float(away.max()) or 1.0


def _days(times_ns: NDArray[Any]) -> Float64:
    """Matplotlib's dates: days since 1970."""
    return np.asarray(times_ns, dtype=np.float64) / _DAY_NS


def _heading(title: str, rows: int, stations: int) -> str:
    return title if rows >= stations else f"{title}  ({rows} of {stations} stations)"


def _legend(axes: Axes, picks: pa.Table) -> None:
    from matplotlib.lines import Line2D

    counts = Counter(picks["phase"].to_pylist())
    names = [*PHASE_COLOURS, *sorted(set(counts) - set(PHASE_COLOURS))]
    handles = [
        Line2D(
            [],
            [],
            color=PHASE_COLOURS.get(name, _OTHER_COLOUR),
            linestyle="none",
            marker="|",
            markersize=11,
            markeredgewidth=2.2,
            label=f"{name}: {counts[name]:,} {'pick' if counts[name] == 1 else 'picks'}",
        )
        for name in names
    ]
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        borderaxespad=0.2,
    )
