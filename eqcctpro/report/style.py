"""Colours and figures that look alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eqcctpro.picks.writers import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PALETTE", "colours", "new_figure", "save_png", "tidy"]

#: Okabe and Ito's palette, told apart with any kind of colour vision.
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")

#: The same approach has the same colour everywhere.
_FIXED: Final = {
    "CPU Local": PALETTE[2],
    "CPU ModelActor": PALETTE[0],
    "CPU Ripper": PALETTE[1],
    "GPU Local": "#004D38",
    "GPU ModelActor": PALETTE[5],
    "GPU Ripper": PALETTE[4],
}


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name."""
    free = [colour for colour in PALETTE if colour not in {_FIXED.get(name) for name in names}]
    others = [name for name in names if name not in _FIXED]
    return {
        **{name: _FIXED[name] for name in names if name in _FIXED},
        **{name: free[index % len(free)] for index, name in enumerate(others)},
    }


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, not pyplot's: no window system, no state shared between threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Any, *, xlabel: str, ylabel: str, title: str = "") -> None:
    """Labels, a light grid, and no frame."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if title:
        axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Software": "EQCCTPro"} if kind == "png" else None
    with atomic_file(path) as file:
        figure.savefig(file, dpi=130, format=kind or None, metadata=metadata)
    return path
