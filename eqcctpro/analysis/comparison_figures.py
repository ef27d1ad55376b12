"""Interactive plots that compare methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from eqcctpro.analysis.facets import Panel, cpu_panels
from eqcctpro.analysis.trial_points import (
    faceted,
    flat,
    numbers,
    panel_note,
    points,
    scene,
    symbols,
)
from eqcctpro.report.page import Figure, plain
from eqcctpro.report.style import colours

__all__ = ["comparison_figures", "optimal_figure"]

#: Marks of numbers of stations, from few to many; beyond these, the last.
_MARKS: Final = (
    *("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon"),
    *("hexagon", "triangle-down", "bowtie", "hourglass"),
)


def comparison_figures(table: pd.DataFrame, desired: float | None) -> list[Figure]:
    """The plots that compare methods of one model, a colour for each."""
    groups = _by_approach(table)
    colour = colours(list(groups))
    return [
        _compared_runtime(table, groups, colour, desired),
        _compared_scaling(table, groups, colour),
        _compared_3d(table, groups, colour),
        _distribution(
            "comparison_throughput_dist",
            "Picker throughput of all trials",
            "Picker Throughput (Stations/s)",
            groups,
            table,
            colour,
        ),
        _distribution(
            "comparison_ram_usage",
            "Memory of all trials",
            "Measured RAM (MB)",
            groups,
            table,
            colour,
        ),
    ]


def optimal_figure(table: pd.DataFrame) -> Figure:
    """The best configurations in three dimensions; the bigger, the more workers."""
    groups = _by_approach(table)
    colour = colours(list(groups))
    most = table["Effective Concurrency"].max()
    traces = []
    for name, rows in groups.items():
        part = table.loc[rows]
        traces.append(
            {
                **points(table, rows, "CPUs", "Stations", "Picker Time (s)"),
                "name": plain(name),
                "marker": {
                    "color": colour[name],
                    "size": [6 + 10 * n / most for n in part["Effective Concurrency"]],
                    "symbol": symbols(part),
                    "line": {"width": 0},
                    "opacity": 0.9,
                },
            }
        )
    return Figure(
        "optimal_3d",
        "Best configurations",
        traces,
        {
            "scene": scene(table, "Picker time (s)", times="Picker Time (s)"),
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
            "legend": {"y": 0},
        },
        height=620,
        note="The fastest trial at each number of stations, CPUs and GPUs. The bigger a mark, the "
        "more workers; its shape is the number of GPUs.",
    )


def _by_approach(table: pd.DataFrame) -> dict[str, list[int]]:
    groups = table.groupby("Approach").groups
    return {str(name): list(rows) for name, rows in sorted(groups.items())}


def _compared_runtime(
    table: pd.DataFrame,
    groups: Mapping[str, list[int]],
    colour: Mapping[str, str],
    desired: float | None,
) -> Figure:
    x, y = "Stations", "Picker Time (s)"
    found, left_out = cpu_panels(table)
    traces: list[dict[str, Any]] = []
    for name, number, rows in _in_panels(found, groups):
        best = table.loc[rows].groupby(x)[y].min()
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [int(value) for value in best.index],
                "y": numbers(best),
                "line": {"color": colour[name], "width": 1.5},
                "legendgroup": name,
                "showlegend": False,
                "hoverinfo": "skip",
                "meta": {"panel": number},
            }
        )
        dots = points(table, rows, x, y)
        first = all(trace.get("name") != plain(name) for trace in traces)
        traces.append(
            {
                **dots,
                "meta": {**dots["meta"], "panel": number},
                "name": plain(name),
                "legendgroup": name,
                "showlegend": first,
                "marker": {"color": colour[name], "size": 8, "opacity": 0.8},
            }
        )
    note = (
        f"{panel_note(found, left_out)} Every trial; lines join the fastest of each method. "
        "Time is logarithmic."
    )
    figure = Figure(
        "comparison_runtime_vs_stations",
        "Picking over stations",
        traces,
        note=note.strip(),
    )
    labels = ("Stations", "Picker time (s)")
    return faceted(figure, table, found, (x, y), labels=labels, desired=desired, log=True)


def _compared_scaling(
    table: pd.DataFrame, groups: Mapping[str, list[int]], colour: Mapping[str, str]
) -> Figure:
    """Every trial; a line for each method and number of stations, GPUs and so on."""
    x, y = "Effective Concurrency", "Picker Throughput (Stations/s)"
    found, left_out = cpu_panels(table)
    marks = dict(zip(sorted(set(table["Stations"])), _MARKS, strict=False))
    traces: list[dict[str, Any]] = []
    for name, number, rows in _in_panels(found, groups):
        part = table.loc[rows]
        for (stations, _, _), line in part.groupby(["Stations", "GPU Count", "Variant"]):
            dots = points(table, list(line.sort_values(x).index), x, y)
            first = all(trace["legendgroup"] != name for trace in traces)
            traces.append(
                {
                    **dots,
                    "meta": {**dots["meta"], "panel": number},
                    "mode": "lines+markers",
                    "name": plain(name),
                    "legendgroup": name,
                    "showlegend": first,
                    "line": {"color": colour[name], "width": 1.2},
                    "marker": {
                        "color": colour[name],
                        "size": 8,
                        "symbol": marks.get(stations, _MARKS[-1]),
                    },
                }
            )
    meaning = ", ".join(f"{mark} {count}" for count, mark in marks.items())
    note = f"{panel_note(found, left_out)} A line for each number of stations: {meaning}."
    figure = Figure(
        "comparison_throughput_scaling",
        "Picker throughput over workers",
        traces,
        note=note.strip(),
    )
    labels = ("Workers", "Picker throughput (stations/s)")
    return faceted(figure, table, found, (x, y), labels=labels)


def _in_panels(
    found: Sequence[Panel], groups: Mapping[str, list[int]]
) -> Iterator[tuple[str, int, list[int]]]:
    """Each method's rows in each panel, where it has any."""
    for name, rows in groups.items():
        for number, panel in enumerate(found):
            inside = set(panel.rows)
            if mine := [row for row in rows if row in inside]:
                yield name, number, mine


def _compared_3d(
    table: pd.DataFrame, groups: Mapping[str, list[int]], colour: Mapping[str, str]
) -> Figure:
    traces = [
        {
            **points(table, rows, "CPUs", "Stations", "Picker Time (s)"),
            "name": plain(name),
            "marker": {
                "size": 6,
                "color": colour[name],
                "opacity": 0.85,
                "symbol": symbols(table.loc[rows]),
            },
        }
        for name, rows in groups.items()
    ]
    return Figure(
        "comparison_3d_picker_runtime",
        "Picking over CPUs and stations",
        traces,
        {
            "scene": scene(table, "Picker time (s)", times="Picker Time (s)"),
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
            "legend": {"y": 0},
        },
        height=600,
    )


def _distribution(
    name: str,
    title: str,
    column: str,
    groups: Mapping[str, list[int]],
    table: pd.DataFrame,
    colour: Mapping[str, str],
) -> Figure:
    traces = []
    for approach, rows in groups.items():
        dots = points(table, rows, "Stations", column)
        del dots["x"], dots["mode"]
        traces.append(
            {
                **dots,
                "type": "box",
                "boxpoints": "all",
                "jitter": 0.4,
                "pointpos": 0,
                "name": plain(approach),
                "marker": {"color": colour[approach], "size": 5},
                "showlegend": False,
            }
        )
    layout = flat("", column)
    layout["xaxis"] = {"title": {"text": ""}}
    return Figure(name, title, traces, layout)
