"""Figures of the resources of a run over time: CPU, memory and GPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from eqcctpro.errors import InputError
from eqcctpro.report.page import Figure, write_page
from eqcctpro.report.style import PALETTE

__all__ = ["monitor_figures", "write_monitor"]


def monitor_figures(summary: Mapping[str, Any]) -> list[Figure]:
    """CPU, memory and GPU of a run over time; empty for one that kept no history.

    Parameters
    ----------
    summary : mapping
        Of ``summary.json``.
    """
    history: Sequence[Mapping[str, float]] = summary.get("monitor") or ()
    if len(history) < 2:
        return []
    seconds = [moment["seconds"] for moment in history]
    cores = _cores(history)
    figures = [
        _figure("monitor_cpu", "Processor", seconds, {"cores": cores}, "Cores in use"),
        _figure(
            "monitor_ram",
            "Memory",
            seconds,
            {"resident": [moment["ram_mb"] for moment in history]},
            "MB of all processes",
        ),
    ]
    names = {name for moment in history for name in moment}
    for kind, title, unit in (
        ("percent", "GPU use", "Percent of the time"),
        ("mb", "GPU memory", "MB of all processes"),
    ):
        gpus = sorted(name for name in names if re.fullmatch(rf"gpu\d+_{kind}", name))
        if gpus:
            series = {
                f"GPU {name[3:].partition('_')[0]}": [moment.get(name) for moment in history]
                for name in gpus
            }
            figures.append(_figure(f"monitor_gpu_{kind}", title, seconds, series, unit))
    return figures


def write_monitor(summary: Mapping[str, Any], path: Path, name: str) -> Path:
    """Write a page of `monitor_figures`.

    Raises
    ------
    InputError
        The run kept no history, because it was too short or an earlier version ran it.
    OutputError
        The page cannot be written.
    """
    figures = monitor_figures(summary)
    if not figures:
        raise InputError(
            f"{name}: the run kept no history of its resources",
            hint="runs of less than a second have none",
        )
    return write_page(path, title=f"Resources of {name}", figures=figures)


def _cores(history: Sequence[Mapping[str, float]]) -> list[float | None]:
    """Processor time over time since the moment before."""
    cores: list[float | None] = [None]
    for before, after in pairwise(history):
        seconds = after["seconds"] - before["seconds"]
        used = (after["cpu_s"] - before["cpu_s"]) / seconds if seconds > 0 else None
        # A process that ends takes its time along until its parent has it.
        cores.append(None if used is None else max(used, 0.0))
    return cores


def _figure(
    name: str,
    title: str,
    seconds: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    unit: str,
) -> Figure:
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": label,
            "x": list(seconds),
            "y": list(values),
            "line": {"color": PALETTE[index % len(PALETTE)], "width": 2},
            "showlegend": len(series) > 1,
            "hovertemplate": f"%{{x:.1f}} s<br>%{{y:,.3~g}} {unit}<extra></extra>",
        }
        for index, (label, values) in enumerate(series.items())
    ]
    layout = {
        "xaxis": {"title": {"text": "Time since picking began (s)"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": unit}, "rangemode": "tozero"},
    }
    return Figure(name, title, traces, layout, height=280)
