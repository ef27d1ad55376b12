"""Shared parts of interactive plots of trials: points with details, axes, colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log10
from typing import Any, Final

import pandas as pd

from eqcctpro.analysis.facets import Panel, reach
from eqcctpro.report.page import Figure, plain

__all__ = [
    "FILTERS",
    "SYMBOLS",
    "colour_bar",
    "faceted",
    "flat",
    "known",
    "numbers",
    "page_rows",
    "panel_note",
    "points",
    "scene",
    "symbols",
]

#: Columns that a page of trials can be filtered by.
FILTERS: Final = ("Model", "Approach", "Stations", "CPUs", "GPUs", "Workers")

#: Times that differ by more than this factor need a logarithmic axis.
_WIDE: Final = 20

#: Of what plotly.js can draw in three dimensions, by number of GPUs.
SYMBOLS: Final = ("circle", "diamond", "square", "cross", "x")

_HOVER: Final = (
    ("Model", "{}", "Model"),
    ("Approach", "{}", "Method"),
    ("Stations", "{:.0f}", "Stations"),
    ("CPUs", "{:.0f}", "CPUs"),
    ("GPU Count", "{:.0f}", "GPUs"),
    ("Effective Concurrency", "{:.0f}", "Workers that ran"),
    ("Number of Concurrent Station Tasks", "{:.0f}", "Workers asked for"),
    ("Runtime", "{}", "Runtime"),
    ("Batch Size", "{:.0f}", "Batch size"),
    ("Time Chunks", "{}", "Data"),
    ("Picker Time (s)", "{:,.3g} s", "Picker time"),
    ("Trial Time (s)", "{:,.3g} s", "Whole trial"),
    ("Start of Workers (s)", "{:.3g} s", "Creation of workers"),
    ("Loading of the Model (s)", "{:.3g} s", "Loading of the model"),
    ("Waveform Processing Time (s)", "{:.3g} s", "Waveforms of a station"),
    ("Picker Throughput (Stations/s)", "{:,.3g} stations/s", "Picker throughput"),
    ("Throughput (Stations/s)", "{:,.3g} stations/s", "Throughput of the whole trial"),
    ("Parallel Efficiency", "{:.0%}", "Parallel efficiency"),
    ("Share of Time in Model (%)", "{:.0f} %", "Time in the model"),
    ("Real-time Stations", "{:,.0f}", "Real-time stations"),
    ("Measured RAM (MB)", "{:,.0f} MB", "Memory"),
    ("Requested RAM (MB)", "{:,.0f} MB", "Memory planned or requested"),
    ("Process Tree VRAM (MB)", "{:,.0f} MB", "GPU memory"),
)


def page_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Values by which a page can filter trials."""
    return [
        {
            "Model": row["Model"],
            "Approach": row["Approach"],
            "Stations": int(row["Stations"]),
            "CPUs": int(row["CPUs"]),
            "GPUs": int(row["GPU Count"]),
            "Workers": int(row["Effective Concurrency"]),
        }
        for _, row in table.iterrows()
    ]


def known(table: pd.DataFrame, column: str) -> bool:
    """True if a column has any number but zero."""
    if column not in table:
        return False
    values = pd.to_numeric(table[column], errors="coerce")
    return bool(values.notna().any() and (values.fillna(0) != 0).any())


def _hover(row: Any) -> str:
    lines = []
    for column, form, label in _HOVER:
        value = row.get(column)
        if value is None or value == "" or pd.isna(value):
            continue
        if "f" in form or "g" in form or "%" in form:
            value = float(value)
        lines.append(f"{label}: {plain(form.format(value))}")
    return "<br>".join(lines)


def points(
    table: pd.DataFrame, rows: Sequence[int], x: str, y: str, z: str | None = None
) -> dict[str, Any]:
    """A trace of trials, with details to read when pointed at."""
    part = table.loc[list(rows)]
    found: dict[str, Any] = {
        "type": "scatter" if z is None else "scatter3d",
        "mode": "markers",
        "x": numbers(part[x]),
        "y": numbers(part[y]),
        "text": [_hover(row) for _, row in part.iterrows()],
        "hovertemplate": "%{text}<extra></extra>",
        "meta": {"rows": list(rows)},
    }
    return found if z is None else {**found, "z": numbers(part[z])}


def numbers(column: Any) -> list[float | None]:
    """A column as plain numbers; None where there is none."""
    return [
        None if pd.isna(value) else float(value) for value in pd.to_numeric(column, errors="coerce")
    ]


def symbols(part: pd.DataFrame) -> list[str]:
    """Marks that say the number of GPUs."""
    return [SYMBOLS[min(int(count), len(SYMBOLS) - 1)] for count in part["GPU Count"]]


def scene(table: pd.DataFrame, z: str, *, times: str | None = None) -> dict[str, Any]:
    """Three axes: CPUs, stations and a measure; that of very different times is logarithmic."""
    upward: dict[str, Any] = {"title": {"text": z}, "rangemode": "tozero"}
    if times is not None and table[times].max() > _WIDE * table[times].min():
        upward = {"title": {"text": z}, "type": "log", "dtick": "D2", "tickformat": "~g"}
    return {
        "xaxis": {"title": {"text": "CPUs"}, **_ticks(table["CPUs"])},
        "yaxis": {"title": {"text": "Stations"}, **_ticks(table["Stations"])},
        "zaxis": upward,
        "aspectmode": "manual",
        "aspectratio": {"x": 1.1, "y": 1.1, "z": 0.8},
        "camera": {"eye": {"x": 1.5, "y": -1.8, "z": 0.75}, "center": {"x": 0, "y": 0, "z": -0.12}},
    }


def _ticks(values: Any) -> dict[str, Any]:
    """Ticks where the values are, when they are few; and some space around a single one."""
    there = sorted({int(value) for value in values})
    ticks: dict[str, Any] = {"tickvals": there} if len(there) <= 8 else {}
    if len(there) == 1:
        ticks["range"] = [there[0] - 1, there[0] + 1]
    return ticks


def colour_bar(table: pd.DataFrame, title: str) -> dict[str, Any]:
    """Colours for numbers of workers, and their scale."""
    values = table["Effective Concurrency"]
    few = values.nunique() <= 8
    bar: dict[str, Any] = {"title": {"text": title, "side": "right"}, "thickness": 14, "len": 0.85}
    if few:
        bar |= {"tickvals": sorted(int(value) for value in set(values))}
    return {
        "colorscale": "Turbo" if len(set(values)) > 8 else "Viridis",
        "cmin": float(values.min()),
        "cmax": float(max(values.max(), values.min() + 1)),
        "colorbar": bar,
    }


def flat(x: str, y: str, **more: Any) -> dict[str, Any]:
    """Two axes; `more` is of the layout, and what it says of an axis is added to it."""
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": x}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero"},
        "hovermode": "closest",
    }
    for name, value in more.items():
        layout[name] = (
            {**layout[name], **value} if name in layout and name != "hovermode" else value
        )
    return layout


def panel_note(found: Sequence[Panel], left_out: str) -> str:
    """Note below the panels for their reader."""
    words = "A panel for each number of CPUs." if len(found) > 1 else ""
    if left_out:
        words += f" There is room for {left_out}; the plot over CPUs and stations has all."
    return words


def faceted(
    figure: Figure,
    table: pd.DataFrame,
    found: Sequence[Panel],
    columns: tuple[str, str],
    *,
    labels: tuple[str, str],
    desired: float | None = None,
    log: bool = False,
) -> Figure:
    """A figure with its traces spread over panels with the same axes.

    Parameters
    ----------
    figure : Figure
        Its traces have ``meta.panel``, the position of their panel in `found`.
    table : pandas.DataFrame
    found : sequence of Panel
    columns, labels : (x, y)
        Columns of the table, and what the axes are called.
    desired : float, optional
        Seconds; a line in every panel, or words in the note where that would squeeze the data.
    log : bool
        A logarithmic vertical axis.
    """
    across = 1 if len(found) == 1 else 2
    down = -(-len(found) // across)
    height = 420 if down == 1 else 80 + 300 * down
    near = reach(table[columns[1]], desired)
    layout: dict[str, Any] = {"hovermode": "closest", "shapes": [], "annotations": []}
    if len(found) > 1:
        # Room for the titles of the panels below the legend.
        layout |= {"margin": {"t": 58}, "legend": {"y": 1 + 22 / (height - 104)}}
    for number, panel in enumerate(found):
        end = str(number + 1) if number else ""
        layout |= _axes(number, across, down, labels, log=log)
        if len(found) > 1:
            layout["annotations"].append(_title(panel.title, end))
        if near is not None:
            layout["shapes"].append(_desired_line(near, end))
            layout["annotations"].append(_desired_words(near, end, log=log))
    traces = []
    for trace in figure.traces:
        number = trace["meta"]["panel"]
        axes = {"xaxis": f"x{number + 1}", "yaxis": f"y{number + 1}"} if number else {}
        traces.append({**trace, **axes})
    note = figure.note
    if desired is not None and near is None:
        note = f"{note} The desired {desired:g} s are far above what is shown.".strip()
    return replace(
        figure, traces=traces, layout={**layout, **figure.layout}, height=height, note=note
    )


def _axes(
    number: int, across: int, down: int, labels: tuple[str, str], *, log: bool
) -> dict[str, Any]:
    """The two axes of a panel; all panels zoom together."""
    end = str(number + 1) if number else ""
    row, column = divmod(number, across)
    width, height = 1 / across, 1 / down
    across_pad, down_pad = 0.06 * (across > 1), (0.16 / down) * (down > 1)
    x: dict[str, Any] = {
        "title": {"text": labels[0], "standoff": 4},
        "anchor": f"y{end}",
        "domain": [column * width + across_pad * (column > 0), (column + 1) * width],
        "rangemode": "tozero",
    }
    y: dict[str, Any] = {
        "title": {"text": labels[1] if column == 0 else ""},
        "anchor": f"x{end}",
        "domain": [1 - (row + 1) * height + down_pad, 1 - row * height - down_pad / 2],
        "rangemode": "tozero",
    }
    if log:
        y |= {"type": "log", "rangemode": "normal", "dtick": "D2", "tickformat": "~g"}
    if number:
        x["matches"], y["matches"] = "x", "y"
    return {f"xaxis{end}": x, f"yaxis{end}": y}


def _title(text: str, end: str) -> dict[str, Any]:
    return {
        "xref": f"x{end} domain",
        "yref": f"y{end} domain",
        "x": 0,
        "y": 1.0,
        "xanchor": "left",
        "yanchor": "bottom",
        "text": f"<b>{plain(text)}</b>",
        "showarrow": False,
    }


def _desired_line(seconds: float, end: str) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": f"x{end} domain",
        "x0": 0,
        "x1": 1,
        "yref": f"y{end}",
        "y0": seconds,
        "y1": seconds,
        "line": {"color": "--bad", "dash": "dash", "width": 2},
    }


def _desired_words(seconds: float, end: str, *, log: bool) -> dict[str, Any]:
    return {
        "xref": f"x{end} domain",
        "x": 1,
        "xanchor": "right",
        "yref": f"y{end}",
        # Annotations of a logarithmic axis want the exponent, shapes the value.
        "y": log10(seconds) if log and seconds > 0 else seconds,
        "yanchor": "bottom",
        "text": f"desired: {seconds:g} s",
        "showarrow": False,
        "font": {"color": "--bad"},
    }
