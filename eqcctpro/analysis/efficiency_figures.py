"""Figures of an efficiency analysis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eqcctpro.analysis.style import colours, new_figure, save_png, tidy
from eqcctpro.analysis.trials import METHODS, concurrency_name
from eqcctpro.evaluation.results import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_comparison", "draw_figures"]

#: More lines than this in one figure cannot be told apart; the others are left out evenly.
_MOST_LINES = 10

_CORRELATED = {
    "Stations": "stations",
    "CPUs": "CPUs",
    "GPU Count": "GPUs",
    "Effective Concurrency": "workers",
    "Picker Time (s)": "picker time",
    "Trial Time (s)": "trial time",
    "Picker Throughput (Stations/s)": "throughput",
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
    title = f"{first.model}, {kind} {METHODS.get(mode, mode)}"
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
    """Four views of the methods of one model, side by side."""
    figure = new_figure(12, 8.5)
    axes = figure.subplots(2, 2)
    names = sorted(set(table["Approach"]))
    colour = colours(names)
    for name in names:
        part = table[table["Approach"] == name]
        best = part.groupby("Stations")["Picker Time (s)"].min()
        axes[0, 0].plot(best.index, best, "o-", color=colour[name], label=name, ms=5)
        axes[0, 0].plot(
            part["Stations"], part["Picker Time (s)"], "o", color=colour[name], ms=3, alpha=0.35
        )
        rates = part.groupby("Stations")["Picker Throughput (Stations/s)"].max()
        axes[0, 1].plot(rates.index, rates, "o-", color=colour[name], ms=5)
        load = part.groupby("Effective Concurrency")["Picker Throughput (Stations/s)"]
        axes[1, 1].plot(load.max().index, load.max(), "o-", color=colour[name], ms=5)
    tidy(axes[0, 0], xlabel="Stations", ylabel="Picker time (s)", title="Fastest, and all trials")
    axes[0, 0].set_yscale("log")
    _line(axes[0, 0], desired)
    axes[0, 0].legend(frameon=False, fontsize=9)
    tidy(axes[0, 1], xlabel="Stations", ylabel="Stations/s", title="Best throughput")
    _boxes(axes[1, 0], table, names, colour)
    tidy(axes[1, 1], xlabel="Workers", ylabel="Stations/s", title="Best throughput over workers")
    _whole_numbers(axes[1, 1])
    for one in axes.flat:
        one.set_ylim(bottom=0 if one.get_yscale() == "linear" else None)
    figure.suptitle(f"{model}: methods compared", x=0.01, ha="left", fontsize=13)
    return save_png(figure, path)


def _boxes(axes: Axes, table: pd.DataFrame, names: Sequence[str], colour: dict[str, str]) -> None:
    known = [table[table["Approach"] == name]["Measured RAM (MB)"].dropna() for name in names]
    boxes = axes.boxplot([values.to_numpy() for values in known], patch_artist=True, widths=0.5)
    for box, name in zip(boxes["boxes"], names, strict=True):
        box.set(facecolor=colour[name], alpha=0.5)
    for median in boxes["medians"]:
        median.set(color="black")
    axes.set_xticks(range(1, len(names) + 1), [name.replace(" ", "\n", 1) for name in names])
    tidy(axes, xlabel="", ylabel="Memory of all processes (MB)", title="Memory")


def _runtime(
    path: Path,
    table: pd.DataFrame,
    column: str,
    title: str,
    concurrency: str,
    desired: float | None,
) -> Path:
    figure = new_figure(8.5, 5.2)
    axes = figure.add_subplot()
    levels = _levels(sorted(set(table["Effective Concurrency"])))
    shades = _shades(len(levels))
    for level, colour in zip(levels, shades, strict=True):
        part = table[table["Effective Concurrency"] == level]
        middle = part.groupby("Stations")[column].median()
        axes.plot(middle.index, middle, "-", color=colour, linewidth=1.4)
        axes.plot(part["Stations"], part[column], "o", color=colour, ms=5, label=f"{level:g}")
    tidy(axes, xlabel="Stations", ylabel=column, title=title)
    _line(axes, desired)
    axes.set_ylim(bottom=0)
    _whole_numbers(axes)
    _legend(axes, concurrency)
    return save_png(figure, path)


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
    axes.plot([0, most], [0, most], "--", color="#7F7F7F", linewidth=1, label="as requested")
    axes.set(xlim=(0, most), ylim=(0, most))
    tidy(axes, xlabel="Requested RAM (MB)", ylabel="Measured RAM (MB)", title=f"{title}: memory")
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
    figure = new_figure(8.5, 5.0)
    axes = figure.add_subplot()
    known = table[table["Parallel Efficiency"].notna()]
    levels = _levels(sorted(set(known["Stations"])))
    for stations, colour in zip(levels, _shades(len(levels)), strict=True):
        part = known[known["Stations"] == stations]
        best = part.groupby("Effective Concurrency")["Parallel Efficiency"].max()
        axes.plot(best.index, best, "o-", color=colour, ms=5, label=f"{stations:g}")
    axes.axhline(1.0, color="#7F7F7F", linestyle="--", linewidth=1)
    tidy(axes, xlabel=concurrency, ylabel="Parallel efficiency", title=f"{title}: more workers")
    axes.set_ylim(bottom=0)
    _whole_numbers(axes)
    _legend(axes, "Stations")
    return save_png(figure, path)


def _levels(values: list[Any]) -> list[Any]:
    if len(values) <= _MOST_LINES:
        return values
    chosen = np.linspace(0, len(values) - 1, _MOST_LINES).round().astype(int)
    return [values[index] for index in chosen]


def _shades(count: int) -> list[Any]:
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.0, 0.88, max(count, 1)))[:count])


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(axes: Axes, title: str) -> None:
    axes.legend(
        title=title, frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1.0)
    )


def _line(axes: Axes, desired: float | None) -> None:
    if desired is not None:
        axes.axhline(
            desired, color="#C00000", linestyle="--", linewidth=1.2, label=f"desired, {desired:g} s"
        )
