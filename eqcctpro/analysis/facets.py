"""Trials split for a figure: a panel for each number of CPUs and GPUs, and lines in it.

What differs in more than the axes of a panel is another line, so that no line or point mixes
configurations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

__all__ = ["Line", "Panel", "cpu_panels", "hardware", "one_panel", "panels", "reach", "shades"]

#: More panels than this cannot be read; others are left out evenly, which the figure says.
MOST_PANELS: Final = 12

#: A desired runtime this many times above what was measured would squeeze the data.
_FAR: Final = 1.3


@dataclass(frozen=True)
class Line:
    """Trials that differ in the horizontal axis only.

    Attributes
    ----------
    value : float
        What the line's colour says: workers, or stations.
    variant : str
        Runtime, batch size and so on, where these differ in the table.
    rows : list
        Index of the trials in the table, in the order of the axis.
    """

    value: float
    variant: str
    rows: list[Any]


@dataclass(frozen=True)
class Panel:
    """The trials with one number of CPUs and GPUs."""

    title: str
    rows: list[Any]
    lines: list[Line]


def panels(table: pd.DataFrame, x: str, colour: str) -> tuple[list[Panel], str]:
    """The panels of a figure, and a note on those that are left out.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `eqcctpro.analysis.efficiency_metrics.efficiency_table`.
    x, colour : str
        Columns: of the horizontal axis, and what a line's colour says.
    """
    groups = table.groupby(["CPUs", "GPU Count"]).groups
    keys = sorted(groups)
    shown = _evenly(keys)
    found = [
        Panel(hardware(*key), list(groups[key]), _lines(table.loc[groups[key]], x, colour))
        for key in shown
    ]
    note = "" if len(shown) == len(keys) else f"{len(shown)} of {len(keys)} numbers of CPUs or GPUs"
    return found, note


def cpu_panels(table: pd.DataFrame) -> tuple[list[Panel], str]:
    """A panel without lines for each number of CPUs, and a note on those that are left out."""
    groups = table.groupby("CPUs").groups
    keys = sorted(groups)
    shown = _evenly(keys)
    note = "" if len(shown) == len(keys) else f"{len(shown)} of {len(keys)} numbers of CPUs"
    return [Panel(hardware(key), list(groups[key]), []) for key in shown], note


def one_panel(table: pd.DataFrame, x: str, colour: str) -> Panel:
    """All trials in one panel; columns as in `panels`."""
    return Panel("", list(table.index), _lines(table, x, colour))


def _lines(part: pd.DataFrame, x: str, colour: str) -> list[Line]:
    return [
        Line(float(value), str(variant), list(rows.sort_values(x).index))
        for (value, variant), rows in part.groupby([colour, "Variant"])
    ]


def hardware(cpus: float, gpus: float = 0) -> str:
    """Words such as ``4 CPUs, 1 GPU``."""
    text = f"{cpus:g} CPU{'' if cpus == 1 else 's'}"
    return text + (f", {gpus:g} GPU{'' if gpus == 1 else 's'}" if gpus else "")


def _evenly(keys: Sequence[Any]) -> list[Any]:
    if len(keys) <= MOST_PANELS:
        return list(keys)
    step = (len(keys) - 1) / (MOST_PANELS - 1)
    return [keys[round(number * step)] for number in range(MOST_PANELS)]


def shades(values: Sequence[float]) -> dict[float, float]:
    """The place of each value between 0 and 1 in a scale of colours: by rank, a little below 1."""
    ordered = sorted(set(values))
    most = max(len(ordered) - 1, 1)
    return {value: 0.88 * rank / most for rank, value in enumerate(ordered)}


def reach(values: Any, desired: float | None) -> float | None:
    """The desired runtime, if a figure of these times can show it without squeezing them."""
    if desired is None:
        return None
    largest = float(pd.Series(values).max())
    return desired if math.isfinite(largest) and desired <= _FAR * largest else None
