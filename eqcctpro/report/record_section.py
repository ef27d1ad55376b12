"""The record section of a report: traces with picks that can be zoomed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from eqcctpro.report.data_figures import PHASE_COLOURS, phases
from eqcctpro.report.page import Figure, plain
from eqcctpro.report.run_data import RunData
from eqcctpro.report.traces import (
    FILTER_NOTE,
    OverviewTrace,
    envelope,
    highpassed,
    trace_range,
)
from eqcctpro.times import format_utc

__all__ = ["record_section"]

#: Stations shown, those with the most picks.
MOST_ROWS = 40

#: Points of all rows together: enough to zoom in, and a page of a few megabytes.
_POINTS = 240_000

_HEIGHT = 0.42

#: P is marked above a trace and S below it, so that one does not hide the other.
_SIDE = {"P": -0.2, "S": 0.2}
_MS = 1_000_000
_NS_PER_DAY = 86_400 * 1_000_000_000


def record_section(data: RunData) -> Figure | None:
    """Vertical components of the time chunk with the most picks; None without an archive."""
    if data.plan is None:
        return None
    from eqcctpro.report.run_traces import busiest_chunk, vertical_traces

    chunk = busiest_chunk(data.plan, data.picks.table)
    counts = Counter(data.picks.station.tolist())
    tasks: dict[str, Any] = {}
    for task in data.plan.tasks:
        if task.chunk.name == chunk:
            tasks.setdefault(f"{task.network}.{task.station}", task)
    chosen = sorted(tasks, key=lambda name: (-counts[name], name))[:MOST_ROWS]
    rows = {name: list(map(highpassed, vertical_traces(tasks[name]))) for name in chosen}
    rows = {name: found for name, found in rows.items() if found}
    if not rows:
        return None
    start = min(trace.start_ns for found in rows.values() for trace in found)
    end = max(trace.end_ns for found in rows.values() for trace in found)
    order = sorted(rows, key=lambda name: (_first(data, name, start, end), name))
    columns = max(_POINTS // (2 * len(order)), 500)
    traces = [
        one
        for level, name in enumerate(order)
        for one in _lines(rows[name], level, (end - start) // columns)
    ]
    traces += _marks(data, order, start, end)
    layout = {
        "xaxis": {"type": "date", "range": [start // _MS, end // _MS]},
        "yaxis": {
            "range": [len(order) - 0.4, -0.6],
            "tickvals": list(range(len(order))),
            "ticktext": [plain(name) for name in order],
            "tickfont": {"size": 10},
            "zeroline": False,
            "showgrid": False,
        },
        "hovermode": "closest",
    }
    count = len(data.plan.chunks)
    which = f", the one with the most picks of {count}" if count > 1 else ""
    note = (
        f"Time chunk {chunk}{which}, {len(order)} of {len(tasks)} stations, vertical components. "
    )
    note += f"{FILTER_NOTE}. "
    return Figure(
        "record_section",
        "Record section",
        traces,
        layout,
        height=int(max(300, 120 + 22 * len(order))),
        note=note + "Drag to zoom, double-click to go back; point at a mark for its time.",
    )


def _first(data: RunData, station: str, start: int, end: int) -> int:
    picks = data.picks
    here = (picks.station == station) & (picks.time_ns >= start) & (picks.time_ns <= end)
    wanted = here & (picks.phase == "P")
    times = picks.time_ns[wanted if wanted.any() else here]
    return int(times.min()) if len(times) else int(np.iinfo(np.int64).max)


def _lines(found: list[OverviewTrace], level: int, column_ns: int) -> list[dict[str, Any]]:
    pieces = [envelope(trace, max(column_ns, 1)) for trace in found]
    offset, scale = trace_range(np.concatenate([samples for _, samples in pieces]))
    lines = []
    for days, samples in pieces:
        if len(days) < 2:
            continue
        shape = level - _HEIGHT * np.clip((samples - offset) / scale, -1.2, 1.2)
        step = (days[-1] - days[0]) / (len(days) - 1)
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x0": days[0] * _NS_PER_DAY / _MS,
                "dx": step * _NS_PER_DAY / _MS,
                "y": np.round(shape, 3).tolist(),
                "line": {"color": "--faint", "width": 0.7},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    return lines


def _marks(data: RunData, order: list[str], start: int, end: int) -> list[dict[str, Any]]:
    picks = data.picks
    level = {name: row for row, name in enumerate(order)}
    inside = (picks.time_ns >= start) & (picks.time_ns <= end) & np.isin(picks.station, order)
    traces = []
    for phase in phases(picks):
        rows = np.flatnonzero(inside & (picks.phase == phase))
        marks = [
            (int(picks.time_ns[row]), str(picks.station[row]), float(picks.probability[row]))
            for row in rows
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(phase),
                "x": [time // _MS for time, *_ in marks],
                "y": [level[name] + _SIDE.get(phase, 0.0) for _, name, _ in marks],
                "text": [
                    f"{plain(name)}<br>{format_utc(time, 'milliseconds')}<br>{probability:.3f}"
                    for time, name, probability in marks
                ],
                "hovertemplate": f"{plain(phase)} %{{text}}<extra></extra>",
                "marker": {
                    "symbol": "line-ns-open",
                    "size": 9 if phase in _SIDE else 16,
                    "color": PHASE_COLOURS.get(phase, "--good"),
                    "line": {"width": 2, "color": PHASE_COLOURS.get(phase, "--good")},
                },
            }
        )
    return traces
