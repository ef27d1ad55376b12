"""Interactive plots of the trials of one model and mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pandas as pd

from eqcctpro.analysis.efficiency_metrics import requested_name
from eqcctpro.analysis.facets import Panel, one_panel, panels, shades
from eqcctpro.analysis.trial_points import (
    SYMBOLS,
    colour_bar,
    faceted,
    flat,
    known,
    numbers,
    panel_note,
    points,
    scene,
    symbols,
)
from eqcctpro.report.page import Figure, plain

__all__ = ["trial_figures"]

_DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash")


def trial_figures(table: pd.DataFrame, concurrency: str, desired: float | None) -> list[Figure]:
    """The plots of one model and mode.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `eqcctpro.analysis.efficiency_metrics.efficiency_table`, with a plain index.
    concurrency : str
        What workers are called.
    desired : float or None
        Seconds, drawn as a line.
    """
    asked = requested_name(table).lower()
    measures = [
        ("runtime_3d", "Trial Time (s)", "Whole trials over CPUs and stations"),
        ("picker_runtime_3d", "Picker Time (s)", "Picking over CPUs and stations"),
        ("ram_3d", "Measured RAM (MB)", "Memory over CPUs and stations"),
        ("vram_3d", "Process Tree VRAM (MB)", "GPU memory over CPUs and stations"),
        ("ram_utilization_3d", "Calculated RAM Utilization (%)", f"Memory used of {asked}"),
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
    """Picker time over stations: a panel for each number of CPUs, a line for each of workers."""
    x, y, colour = "Stations", "Picker Time (s)", "Effective Concurrency"
    if table[colour].nunique() == table["GPU Count"].nunique() == 1:
        # One process: what differs is its number of CPUs, which one panel has room for.
        found, note, colour, concurrency = [one_panel(table, x, "CPUs")], "", "CPUs", "CPUs"
    else:
        found, note = panels(table, x, colour)
    scale = (colour, concurrency)
    figure = _lines("runtime_vs_stations_2d", "Picking over stations", table, found, (x, y), scale)
    figure = replace(figure, note=panel_note(found, note))
    labels = ("Stations", "Picker time (s)")
    return faceted(figure, table, found, (x, y), labels=labels, desired=desired)


def _throughput(table: pd.DataFrame, concurrency: str) -> Figure:
    """Picker throughput over workers: a panel for each number of CPUs, a line for stations."""
    x, y = "Effective Concurrency", "Picker Throughput (Stations/s)"
    found, note = panels(table, x, "Stations")
    name, title = "throughput_vs_concurrency_2d", "Picker throughput over workers"
    figure = _lines(name, title, table, found, (x, y), ("Stations", "Stations"))
    figure = replace(figure, note=panel_note(found, note))
    labels = (concurrency, "Picker throughput (stations/s)")
    return faceted(figure, table, found, (x, y), labels=labels)


def _lines(
    name: str,
    title: str,
    table: pd.DataFrame,
    found: Sequence[Panel],
    columns: tuple[str, str],
    scale: tuple[str, str],
) -> Figure:
    """A trace for each line of each panel; colours are numbers, dashes and marks variants."""
    from plotly.colors import sample_colorscale

    x, y = columns
    place = shades([line.value for panel in found for line in panel.lines])
    shade = dict(zip(place, sample_colorscale("Viridis", list(place.values())), strict=True))
    variants = sorted({line.variant for panel in found for line in panel.lines})
    style = {variant: number for number, variant in enumerate(variants)}
    traces = []
    told: set[str] = set()
    for number, panel in enumerate(found):
        for line in panel.lines:
            which = style[line.variant]
            dots = points(table, line.rows, x, y)
            traces.append(
                {
                    **dots,
                    "meta": {**dots["meta"], "panel": number},
                    "mode": "lines+markers",
                    "line": {"color": shade[line.value], "width": 1.5, "dash": _DASHES[which % 5]},
                    "marker": {
                        "size": 8,
                        "symbol": SYMBOLS[which % len(SYMBOLS)],
                        "color": [place[line.value]] * len(line.rows),
                        "coloraxis": "coloraxis",
                    },
                    "name": plain(line.variant),
                    "legendgroup": line.variant,
                    "showlegend": bool(line.variant) and line.variant not in told,
                }
            )
            told.add(line.variant)
    ticks = list(place) if len(place) <= 8 else list(place)[:: -(-len(place) // 8)]
    bar = {
        "title": {"text": scale[1], "side": "right"},
        "thickness": 14,
        "len": 0.85,
        "tickvals": [place[value] for value in ticks],
        "ticktext": [f"{value:g}" for value in ticks],
    }
    shades_of = {"colorscale": "Viridis", "cmin": 0.0, "cmax": 1.0, "colorbar": bar}
    return Figure(name, title, traces, {"coloraxis": shades_of})


def _memory(
    name: str, table: pd.DataFrame, used: str, asked: str, what: str, concurrency: str
) -> Figure:
    word = requested_name(table) if asked == "Requested RAM (MB)" else "Requested"
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
        "name": f"as much as {word.lower()}",
        "hoverinfo": "skip",
    }
    layout = flat(f"{word} (MB)", "Measured (MB)")
    return Figure(name, f"{word} and measured {what}", [line, dots], layout)
