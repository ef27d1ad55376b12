"""Memory footprints of workers: published, shipped, or measured on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from eqcctpro.errors import SettingsError
from eqcctpro.resources.published_footprints import published_footprint
from eqcctpro.resources.shipped_footprints import SHIPPED
from eqcctpro.resources.userfile import config_folder, read_user_file, write_user_file

__all__ = [
    "FILE_NAME",
    "Footprint",
    "find_footprint",
    "footprints_path",
    "save_footprints",
    "worst_footprint",
]

FILE_NAME = "footprints.json"

Device = Literal["cpu", "cuda"]
Source = Literal["published", "shipped", "calibrated"]


@dataclass(frozen=True)
class Footprint:
    """Memory of one worker, MB of 2**20 bytes.

    Attributes
    ----------
    model : str
        ``Parent/child``.
    runtime : str
    device : {"cpu", "cuda"}
    card : str
        Name of the GPU that it was measured on; empty on the CPU and where that is not known.
    ram_mb : float
        Highest memory of the worker's process while it picks with full batches.
    load_mb : float
        Its memory when the model is loaded; 0 where it was not measured.
    ram_per_window_mb : float
        What every window of a batch adds.
    vram_mb : float
        GPU memory of the process, CUDA's context included; 0 on the CPU.
    vram_context_mb : float
        The part of it that CUDA takes for itself.
    vram_per_window_mb : float
    batch_size : int or None
        Windows in the batches it was measured with; None where that is unknown.
    source : {"published", "shipped", "calibrated"}
        Published values are those of one classification of a minute of waveforms, and need
        buffers; the others are peaks of a working worker.
    """

    model: str
    runtime: str
    device: Device
    ram_mb: float
    load_mb: float = 0.0
    ram_per_window_mb: float = 0.0
    vram_mb: float = 0.0
    vram_context_mb: float = 0.0
    vram_per_window_mb: float = 0.0
    batch_size: int | None = None
    source: Source = "calibrated"
    card: str = ""

    @property
    def parent(self) -> str:
        """Class of the model."""
        return self.model.partition("/")[0]

    def ram_for(self, batch_size: int | None) -> float:
        """Peak memory with batches of so many windows; None takes those it was measured with."""
        return self.ram_mb + self._more(batch_size) * self.ram_per_window_mb

    def vram_for(self, batch_size: int | None) -> float:
        """Peak GPU memory with batches of so many windows."""
        return self.vram_mb + self._more(batch_size) * self.vram_per_window_mb

    def _more(self, batch_size: int | None) -> int:
        """Windows beyond the measured batch; a smaller batch is not counted as less."""
        if batch_size is None or self.batch_size is None:
            return 0
        return max(0, batch_size - self.batch_size)


def find_footprint(
    model: str, runtime: str, device: Device, card: str | None = None
) -> Footprint | None:
    """Footprint of a worker: measured here, else shipped or published, else None.

    Parameters
    ----------
    model : str
        ``Parent/child``.
    runtime : str
        Not ``"auto"``; see :func:`worst_footprint`.
    device : {"cpu", "cuda"}
    card : str, optional
        Name of the GPU; without it, the largest of what was measured on any.

    Raises
    ------
    SettingsError
        The user's file of footprints is damaged.
    """
    wanted = (model.lower(), runtime, device)
    own = [
        item
        for key, item in _calibrated().items()
        if key[:3] == wanted and (card is None or item.card in ("", card))
    ]
    if own:
        return max(own, key=lambda item: (bool(card) and item.card == card, item.vram_mb))
    values: Mapping[str, Any] | None
    source: Source = "shipped"
    if runtime in ("torch", "tensorflow"):
        values, source = published_footprint(model, device), "published"
    else:
        parent = model.partition("/")[0].lower()
        values = SHIPPED.get((parent, runtime)) if device == "cpu" else None
    if values is None:
        return None
    return Footprint(model, runtime, device, source=source, **values)


def worst_footprint(
    model: str,
    runtimes: tuple[str, ...],
    device: Device,
    cards: tuple[str | None, ...] = (None,),
) -> Footprint | None:
    """The largest of what several runtimes need on several cards; None if one is unknown."""
    found = [find_footprint(model, runtime, device, card) for runtime in runtimes for card in cards]
    known = [footprint for footprint in found if footprint is not None]
    if len(known) < len(found) or not found:
        return None
    return max(known, key=lambda item: (item.vram_mb, item.ram_mb))


def footprints_path() -> Path:
    """The user's file of measured footprints; it need not exist."""
    return config_folder() / FILE_NAME


def save_footprints(measured: list[Footprint]) -> Path:
    """Add measured footprints to the user's file, in place of earlier ones of the same kind.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    everything = _calibrated()
    everything.update({_key(item): item for item in measured})
    rows = [asdict(item) for _, item in sorted(everything.items())]
    return write_user_file(FILE_NAME, {"unit": "MB of 2**20 bytes", "footprints": rows})


def _key(item: Footprint) -> tuple[str, str, str, str]:
    return item.model.lower(), item.runtime, item.device, item.card


def _calibrated() -> dict[tuple[str, str, str, str], Footprint]:
    rows = read_user_file(FILE_NAME).get("footprints", [])
    try:
        found = [_checked(row) for row in rows]
    except (TypeError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"{footprints_path()}: {error}",
            hint="run eqcctpro calibrate after removing the file",
        ) from error
    return {_key(item): item for item in found}


def _checked(row: dict[str, Any]) -> Footprint:
    footprint = Footprint(**row)
    for item in fields(footprint):
        value = getattr(footprint, item.name)
        if item.name.endswith("_mb") and not (isinstance(value, int | float) and 0 <= value < 1e9):
            raise ValueError(f"{footprint.model}: {item.name} is {value!r}")
    if footprint.ram_mb <= 0:
        raise ValueError(f"{footprint.model}: ram_mb is not positive")
    return footprint
