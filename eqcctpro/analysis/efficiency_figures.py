"""Figures of an efficiency analysis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eqcctpro.analysis.efficiency_metrics import chunks_title, requested_name
from eqcctpro.analysis.facets import Panel, hardware, one_panel, panels, reach, shades
from eqcctpro.analysis.trials import METHODS, concurrency_name
from eqcctpro.evaluation.results import Trial
from eqcctpro.report.style import colours, new_figure, save_png, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_comparison", "draw_figures"]

#: Colours that the legend of a figure names; of more, some between the first and the last.
_MOST_KEYS = 10

#: Columns of the comparison.
_MOST_COLUMNS = 6

_CORRELATED = {
    "Stations": "stations",
    "CPUs": "CPUs",
    "GPU Count": "GPUs",
    "Effective Concurrency": "workers",
    "Picker Time (s)": "picker time",
    "Trial Time (s)": "trial time",
    "Picker Throughput (Stations/s)": "picker throughput",
    "Measured RAM (MB)": "memory",
    "Share of Time in Model (%)": "share in model",
}


def draw_figures(
    folder: Path,
    table: pd.DataFrame,
    trials: Sequence[Trial],
    mode: str,
    desired: float | None = None,
) -> list[Path]:
    """Draw the figures of one model and mode; returns their paths.

    A figure whose columns the trials do not have is left out.
    """
    first = next(trial for trial in trials if trial.success)
    kind = "GPU" if first.gpus else "CPU"
    title = f"{first.model}, {kind} {METHODS.get(mode, mode)}{chunks_title(trials)}"
    name = concurrency_name([trial for trial in trials if trial.success])
    paths = [
        _runtime(
            folder / f"runtime_vs_stations_by_concurrency_{mode}.png",
            table,
            "Trial Time (s)",
            f"{title}: whole trials",
            name,
            desired,
        ),
        _runtime(
            folder / f"picker_runtime_vs_stations_by_concurrency_{mode}.png",
            table,
            "Picker Time (s)",
            f"{title}: picking",
            name,
            desired,
        ),
    ]
    if table["Requested RAM (MB)"].notna().any() and table["Measured RAM (MB)"].notna().any():
        path = folder / f"requested_vs_actual_ram_{mode}.png"
        paths.append(_memory(path, table, title, name))
    names = [column for column in _CORRELATED if table[column].nunique() > 1]
    if len(table) > 2 and len(names) > 1:
        path = folder / f"correlation_matrix_{mode}.png"
        paths.append(_correlation(path, table[names].astype(float), title))
    if table["Parallel Efficiency"].nunique() > 1:
        paths.append(_scaling(folder / f"parallel_efficiency_{mode}.png", table, title, name))
    return paths


def draw_comparison(path: Path, table: pd.DataFrame, model: str, desired: float | None) -> Path:
    """The methods of one model: a column for each number of CPUs, a colour for each method.

    From top to bottom: time and throughput over stations, throughput over workers, memory.
    """
    counts = sorted(set(table["CPUs"]))
    shown = counts if len(counts) <= _MOST_COLUMNS else _evenly(counts, _MOST_COLUMNS)
    names = sorted(set(table["Approach"]))
    colour = colours(names)
    figure = new_figure(2.2 + 3.6 * len(shown), 13)
    axes = figure.subplots(4, len(shown), squeeze=False, sharey="row")
    for column, cpus in enumerate(shown):
        part = table[table["CPUs"] == cpus]
        top, rate, load, memory = axes[:, column]
        for name in names:
            one = part[part["Approach"] == name]
            _best_line(top, one, "Picker Time (s)", "min", colour[name], name)
            _best_line(rate, one, "Picker Throughput (Stations/s)", "max", colour[name])
            _over_workers(load, one, colour[name])
        rates = "Picker throughput (stations/s)"
        tidy(top, xlabel="Stations", ylabel="Picker time (s)", title=hardware(cpus))
        tidy(rate, xlabel="Stations", ylabel=rates)
        tidy(load, xlabel="Workers", ylabel=rates)
        _boxes(memory, part, names, colour)
        for one_axes in (top, rate, load):
            _whole_numbers(one_axes)
    for inner in axes[:, 1:].flat:
        inner.set_ylabel("")
    axes[0, 0].set_yscale("log")
    for row in axes[1:, 0]:
        row.set_ylim(bottom=0)
    for top in axes[0]:
        _line(top, desired, table["Picker Time (s)"])
    handles = {
        label: handle
        for top in axes[0]
        for handle, label in zip(*top.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower left", ncols=4, frameon=False)
    left_out = ""
    if len(shown) < len(counts):
        left_out = f"; {len(shown)} of {len(counts)} numbers of CPUs"
    figure.suptitle(
        f"{model}: methods compared\nLines join the fastest trials with so many stations; over "
        f"workers there is one for each number of stations, which is at its end{left_out}",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return save_png(figure, path)


def _best_line(
    axes: Axes, part: pd.DataFrame, column: str, how: str, colour: str, label: str | None = None
) -> None:
    """Every trial as a point, and a line through the best at each number of stations."""
    best = part.groupby("Stations")[column].agg(how)
    axes.plot(best.index, best, "o-", color=colour, label=label, ms=5)
    axes.plot(part["Stations"], part[column], "o", color=colour, ms=3, alpha=0.35)


def _over_workers(axes: Axes, part: pd.DataFrame, colour: str) -> None:
    """A line for each number of stations and GPUs, through the best of other settings."""
    rates = "Picker Throughput (Stations/s)"
    written: list[float] = []
    for (stations, _), rows in part.groupby(["Stations", "GPU Count"]):
        best = rows.groupby("Effective Concurrency")[rates].max()
        axes.plot(best.index, best, "o-", color=colour, ms=4, linewidth=1.2, alpha=0.8)
        end = float(best.iloc[-1])
        if all(abs(end - other) > 0.08 * part[rates].max() for other in written):
            written.append(end)
            place: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
            axes.annotate(
                f"{stations:g}", (best.index[-1], end), (4, 0), fontsize=7, color=colour, **place
            )


def _boxes(axes: Axes, table: pd.DataFrame, names: Sequence[str], colour: dict[str, str]) -> None:
    known = [table[table["Approach"] == name]["Measured RAM (MB)"].dropna() for name in names]
    boxes = axes.boxplot([values.to_numpy() for values in known], patch_artist=True, widths=0.5)
    for box, name in zip(boxes["boxes"], names, strict=True):
        box.set(facecolor=colour[name], alpha=0.5)
    for median in boxes["medians"]:
        median.set(color="black")
    axes.set_xticks(range(1, len(names) + 1), [name.replace(" ", "\n", 1) for name in names])
    tidy(axes, xlabel="", ylabel="Memory of all processes (MB)")


def _runtime(
    path: Path,
    table: pd.DataFrame,
    column: str,
    title: str,
    concurrency: str,
    desired: float | None,
) -> Path:
    """Time over stations: a panel for each number of CPUs, a line for each number of workers."""
    if table["Effective Concurrency"].nunique() == table["GPU Count"].nunique() == 1:
        # One process: what differs is its number of CPUs, which one panel has room for.
        found = [one_panel(table, "Stations", "CPUs")]
        return _panels(path, table, found, ("Stations", column), "CPUs", title, "", desired)
    found, note = panels(table, "Stations", "Effective Concurrency")
    return _panels(path, table, found, ("Stations", column), concurrency, title, note, desired)


def _panels(
    path: Path,
    table: pd.DataFrame,
    found: Sequence[Panel],
    columns: tuple[str, str],
    colour_name: str,
    title: str,
    note: str,
    desired: float | None = None,
    *,
    xlabel: str | None = None,
) -> Path:
    """Draw panels with the same axes; colours say a number, dashes the variant."""
    x, y = columns
    across = min(len(found), 3)
    down = -(-len(found) // across)
    figure = new_figure(2.6 + 4.6 * across, 0.8 + 3.6 * down)
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[len(found) :]:
        axes.set_visible(False)
    lines = [line for panel in found for line in panel.lines]
    place = shades([line.value for line in lines])
    styles = _styles([line.variant for line in lines])
    for axes, panel in zip(grid, found, strict=False):
        for line in panel.lines:
            part = table.loc[line.rows]
            colour = _shade(place[line.value])
            style, marker = styles[line.variant]
            middle = part.groupby(x)[y].median()
            axes.plot(middle.index, middle, style, color=colour, linewidth=1.4)
            axes.plot(part[x], part[y], marker, color=colour, ms=5)
        tidy(axes, xlabel=xlabel or x, ylabel=y, title=panel.title if len(found) > 1 else "")
        axes.tick_params(labelbottom=True, labelleft=True)
        _whole_numbers(axes)
    bottom, top = grid[0].get_ylim()
    grid[0].set_ylim(0, top + 0.02 * (top - bottom))
    for axes in grid[: len(found)]:
        _line(axes, desired, table[y])
    heading = f"{title}; {found[0].title}" if len(found) == 1 and found[0].title else title
    figure.suptitle(f"{heading} ({note})" if note else heading, x=0.01, ha="left", fontsize=12)
    _keys(figure, place, styles, colour_name)
    return save_png(figure, path)


def _keys(
    figure: Figure,
    place: dict[float, float],
    styles: dict[str, tuple[str, str]],
    colour_name: str,
) -> None:
    """The legend: what colours mean, and what dashes and marks do where they differ."""
    from matplotlib.lines import Line2D

    values = list(place)
    chosen = values if len(values) <= _MOST_KEYS else _evenly(values, _MOST_KEYS)
    keys = [Line2D([], [], color="none", label=colour_name)]
    keys += [Line2D([], [], color=_shade(place[v]), marker="o", label=f"{v:g}") for v in chosen]
    if len(styles) > 1:
        keys.append(Line2D([], [], color="none", label=""))
        keys += [
            Line2D([], [], color="#444444", ls=style, marker=marker, label=name or "other")
            for name, (style, marker) in styles.items()
        ]
    figure.legend(handles=keys, loc="outside right center", frameon=False, fontsize=9)


def _styles(variants: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Dashes and a mark for each variant."""
    known = [(style, marker) for marker in "os^Dvx" for style in ("-", "--", "-.", ":")]
    names = sorted(set(variants))
    return {name: known[5 * number % len(known)] for number, name in enumerate(names)}


def _shade(place: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](place)


def _evenly(values: Sequence[Any], most: int) -> list[Any]:
    return [values[index] for index in np.linspace(0, len(values) - 1, most).round().astype(int)]


def _memory(path: Path, table: pd.DataFrame, title: str, concurrency: str) -> Path:
    figure = new_figure(7.2, 5.6)
    axes = figure.add_subplot()
    known = table[table["Requested RAM (MB)"].notna() & table["Measured RAM (MB)"].notna()]
    points = axes.scatter(
        known["Requested RAM (MB)"],
        known["Measured RAM (MB)"],
        c=known["Effective Concurrency"],
        s=20 + 60 * known["Stations"] / known["Stations"].max(),
        cmap="viridis",
        alpha=0.8,
        linewidths=0,
    )
    most = 1.08 * max(known["Requested RAM (MB)"].max(), known["Measured RAM (MB)"].max())
    axes.plot([0, most], [0, most], "--", color="#7F7F7F", linewidth=1, label="equal")
    axes.set(xlim=(0, most), ylim=(0, most))
    asked = requested_name(table)
    tidy(axes, xlabel=f"{asked} RAM (MB)", ylabel="Measured RAM (MB)", title=f"{title}: memory")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    bar = figure.colorbar(points, ax=axes, label=concurrency)
    levels = sorted(set(known["Effective Concurrency"]))
    if len(levels) <= 8:
        bar.set_ticks(levels)
    return save_png(figure, path)


def _correlation(path: Path, table: pd.DataFrame, title: str) -> Path:
    values = table.corr().to_numpy()
    names = [_CORRELATED[column] for column in table.columns]
    figure = new_figure(1.6 + 0.85 * len(names), 1.3 + 0.75 * len(names))
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            shade = "white" if abs(value) > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, size=9)
    axes.set_title(f"{title}: correlations", loc="left", fontsize=11)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return save_png(figure, path)


def _scaling(path: Path, table: pd.DataFrame, title: str, concurrency: str) -> Path:
    """Parallel efficiency over workers: a panel for each number of CPUs, a line for stations."""
    known = table[table["Parallel Efficiency"].notna()]
    found, note = panels(known, "Effective Concurrency", "Stations")
    columns = ("Effective Concurrency", "Parallel Efficiency")
    heading = f"{title}: what more workers bring"
    return _panels(path, known, found, columns, "Stations", heading, note, xlabel=concurrency)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _line(axes: Axes, desired: float | None, measured: Any) -> None:
    """The desired runtime: a line where the data are, words where it is far above them."""
    if desired is None:
        return
    place: dict[str, Any] = {"color": "#C00000", "fontsize": 9, "ha": "left"}
    if reach(measured, desired) is None:
        text = f"desired, {desired:g} s: above what is shown"
        axes.text(0.01, 0.98, text, transform=axes.transAxes, va="top", **place)
        return
    axes.axhline(desired, color="#C00000", linestyle="--", linewidth=1.2)
    axes.text(
        0.01, desired, f"desired, {desired:g} s", transform=axes.get_yaxis_transform(),
        va="bottom", **place,
    )  # fmt: skip
