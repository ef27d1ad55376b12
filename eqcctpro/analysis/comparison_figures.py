"""Interactive plots that compare methods."""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from typing import Any

import pandas as pd

from eqcctpro.analysis.page import Figure, plain
from eqcctpro.analysis.style import colours
from eqcctpro.analysis.trial_points import (
    flat,
    numbers,
    points,
    scene,
    symbols,
    target,
    whole_steps,
)

__all__ = ["comparison_figures", "optimal_figure"]


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
            "Throughput of all trials",
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
    traces: list[dict[str, Any]] = []
    for name, rows in groups.items():
        best = table.loc[rows].groupby("Stations")["Picker Time (s)"].min()
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
            }
        )
        dots = points(table, rows, "Stations", "Picker Time (s)")
        marker = {"color": colour[name], "size": 8, "opacity": 0.8}
        traces.append({**dots, "name": plain(name), "legendgroup": name, "marker": marker})
    layout = flat("Stations", "Picker time (s)", **target(desired))
    layout["yaxis"] |= {"type": "log", "rangemode": "normal", "dtick": "D2", "tickformat": "~g"}
    for one in layout.get("annotations", ()):
        # Annotations of a logarithmic axis want the exponent, shapes the value.
        one["y"] = log10(one["y"])
    return Figure(
        "comparison_runtime_vs_stations",
        "Picking over stations",
        traces,
        layout,
        note="Every trial; lines join the fastest of each method. Time is logarithmic.",
    )


def _compared_scaling(
    table: pd.DataFrame, groups: Mapping[str, list[int]], colour: Mapping[str, str]
) -> Figure:
    traces = []
    for name, rows in groups.items():
        part = table.loc[rows].groupby("Effective Concurrency")["Picker Throughput (Stations/s)"]
        spread = part.std().fillna(0.0)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(name),
                "x": [int(value) for value in part.mean().index],
                "y": numbers(part.mean()),
                "error_y": {"type": "data", "array": numbers(spread), "thickness": 1},
                "marker": {"color": colour[name], "size": 8},
                "hovertemplate": f"{plain(name)}<br>%{{x}} workers<br>%{{y:.3g}} stations/s "
                "on average<extra></extra>",
            }
        )
    return Figure(
        "comparison_throughput_scaling",
        "Throughput over workers",
        traces,
        flat("Workers", "Stations/s, mean and standard deviation", **whole_steps(table)),
    )


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
