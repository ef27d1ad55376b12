"""Interactive plots of the trials of one model and mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from eqcctpro.analysis.page import Figure
from eqcctpro.analysis.style import colours
from eqcctpro.analysis.trial_points import (
    SYMBOLS,
    colour_bar,
    flat,
    known,
    numbers,
    points,
    scene,
    symbols,
    target,
    whole_steps,
)

__all__ = ["trial_figures"]


def trial_figures(table: pd.DataFrame, concurrency: str, desired: float | None) -> list[Figure]:
    """The plots of one model and mode.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `eqcctpro.analysis.metrics.efficiency_table`, with a plain index.
    concurrency : str
        What workers are called.
    desired : float or None
        Seconds, drawn as a line.
    """
    measures = [
        ("runtime_3d", "Trial Time (s)", "Whole trials over CPUs and stations"),
        ("picker_runtime_3d", "Picker Time (s)", "Picking over CPUs and stations"),
        ("ram_3d", "Measured RAM (MB)", "Memory over CPUs and stations"),
        ("vram_3d", "Process Tree VRAM (MB)", "GPU memory over CPUs and stations"),
        ("ram_utilization_3d", "Calculated RAM Utilization (%)", "Memory used of requested"),
        ("vram_utilization_3d", "Calculated VRAM Utilization (%)", "GPU memory used of requested"),
    ]
    found = [
        _resources(name, title, table, column, concurrency)
        for name, column, title in measures
        if known(table, column)
    ]
    found.append(_runtime(table, concurrency, desired))
    found.append(_throughput(table, concurrency))
    for name, used, asked, what in (
        ("requested_vs_actual_ram_2d", "Measured RAM (MB)", "Requested RAM (MB)", "memory"),
        (
            "requested_vs_actual_vram_2d",
            "Process Tree VRAM (MB)",
            "Total Requested VRAM (MB)",
            "GPU memory",
        ),
    ):
        if known(table, used) and known(table, asked):
            found.append(_memory(name, table, used, asked, what, concurrency))
    return found


def _resources(name: str, title: str, table: pd.DataFrame, column: str, concurrency: str) -> Figure:
    rows = list(range(len(table)))
    trace = {
        **points(table, rows, "CPUs", "Stations", column),
        "marker": {
            "size": 6,
            "opacity": 0.9,
            "symbol": symbols(table),
            "color": numbers(table["Effective Concurrency"]),
            **colour_bar(table, concurrency),
        },
    }
    note = ""
    if table["GPU Count"].max() > 1:
        note = "Shapes: " + ", ".join(
            f"{SYMBOLS[min(count, 4)]} {count} GPU{'s' if count > 1 else ''}"
            for count in sorted(int(count) for count in set(table["GPU Count"]))
        )
    layout = {"scene": scene(table, column), "margin": {"l": 0, "r": 0, "t": 0, "b": 0}}
    return Figure(name, title, [trace], layout, height=560, note=note)


def _runtime(table: pd.DataFrame, concurrency: str, desired: float | None) -> Figure:
    trace = {
        **points(table, range(len(table)), "Stations", "Picker Time (s)"),
        "marker": {
            "size": 9,
            "opacity": 0.85,
            "color": numbers(table["Effective Concurrency"]),
            **colour_bar(table, concurrency),
        },
    }
    layout = flat("Stations", "Picker time (s)", **target(desired))
    return Figure("runtime_vs_stations_2d", "Picking over stations", [trace], layout)


def _throughput(table: pd.DataFrame, concurrency: str) -> Figure:
    """A line for each number of stations and CPUs; with many of them, points."""
    groups = table.groupby(["Stations", "CPUs", "GPU Count"]).groups
    several = {key: sorted(rows, key=_order(table)) for key, rows in groups.items()}
    lines = max(len(rows) for rows in several.values()) > 1 and len(several) <= 12
    shades = colours([str(key) for key in several])
    traces = []
    for (stations, cpus, gpus), rows in several.items():
        name = f"{stations} stations, {cpus} CPUs" + (f", {gpus} GPUs" if gpus else "")
        traces.append(
            {
                **points(table, rows, "Effective Concurrency", "Picker Throughput (Stations/s)"),
                "mode": "lines+markers" if lines else "markers",
                "name": name,
                "showlegend": len(several) <= 12,
                "marker": {"size": 8, "color": shades[str((stations, cpus, gpus))]},
            }
        )
    layout = flat(concurrency, "Stations/s", **whole_steps(table))
    return Figure("throughput_vs_concurrency_2d", "Throughput scaling", traces, layout)


def _order(table: pd.DataFrame) -> Callable[[Any], Any]:
    return lambda row: (table.at[row, "Effective Concurrency"], table.at[row, "Picker Time (s)"])


def _memory(
    name: str, table: pd.DataFrame, used: str, asked: str, what: str, concurrency: str
) -> Figure:
    most = 1.05 * max(
        max(value or 0 for value in numbers(table[column])) for column in (used, asked)
    )
    dots = {
        **points(table, range(len(table)), asked, used),
        "name": "trials",
        "showlegend": False,
        "marker": {
            "size": 9,
            "opacity": 0.85,
            "color": numbers(table["Effective Concurrency"]),
            **colour_bar(table, concurrency),
        },
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, most],
        "y": [0, most],
        "line": {"dash": "dash", "color": "--faint", "width": 1},
        "name": "as much as requested",
        "hoverinfo": "skip",
    }
    layout = flat("Requested (MB)", "Measured (MB)")
    return Figure(name, f"Requested and measured {what}", [line, dots], layout)
