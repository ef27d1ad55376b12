"""The answer of a finder: settings to run with, and what is known about them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eqcctpro.evaluation.prediction import Estimate
from eqcctpro.evaluation.results import Trial

__all__ = ["PARALLELISM", "BestConfiguration", "are_tied", "execution_settings"]

#: Fields of `eqcctpro.PickConfig` that say how picks are computed, and `RunEQCCTPro`'s names
#: for them.  What is computed (thresholds, times, stations) is not a finder's to choose.
PARALLELISM: Final = {
    "mode": "mode",
    "workers": "number_of_concurrent_station_predictions",
    "concurrent_timechunks": "number_of_concurrent_timechunk_predictions",
    "device": "selected_gpus",
    "runtime": "runtime",
    "batch_size": "batch_size",
    "threads": "intra_threads",
    "inter_threads": "inter_threads",
    "cpu_ids": "cpu_id_list",
    "vram_mb": "vram_mb",
    "max_vram_mb": "max_vram_mb",
    "gpu_vram_safety_cap": "gpu_vram_safety_cap",
    "cudnn_headroom": "cudnn_headroom",
}

_ON_RAY = ("workers", "concurrent_timechunks")
_ON_GPU = ("vram_mb", "max_vram_mb", "gpu_vram_safety_cap", "cudnn_headroom")

# A tie is not decided by a spread beyond this: such a measurement was disturbed.
_WIDEST_TIE = 10.0


def execution_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a trial's settings those of `PARALLELISM` that its mode and device have."""
    chosen = {name: settings[name] for name in PARALLELISM if settings.get(name) is not None}
    chosen.setdefault("mode", "modelactor")
    chosen.setdefault("device", "cpu")
    without = (_ON_RAY if chosen["mode"] == "local" else ()) + (
        _ON_GPU if chosen["device"] == "cpu" else ()
    )
    return {name: value for name, value in chosen.items() if name not in without}


@dataclass(frozen=True)
class BestConfiguration:
    """Best configuration, the reason for it, and how certain it is.

    Attributes
    ----------
    trial : Trial
        The measured row; for a prediction the nearest one that it rests on.
    settings : mapping
        Fields of `eqcctpro.PickConfig` to run with.
    stations, cpus : int
    gpus : tuple of int
    seconds, seconds_low, seconds_high : float
        From files to picks with everything loaded: median and range of the repeats, or the
        prediction and the interval that it is expected in.
    ram_mb : float or None
        Highest memory of all processes, MB; for a prediction the upper end of its interval.
    predicted : bool
        Nobody measured this; see `basis`.
    basis : tuple of Trial
        Trials that a prediction rests on.
    runner_up : BestConfiguration or None
        The fastest of the others.
    notes : tuple of str
        What else one should know.
    """

    trial: Trial
    settings: Mapping[str, Any]
    stations: int
    cpus: int
    gpus: tuple[int, ...]
    seconds: float
    seconds_low: float
    seconds_high: float
    ram_mb: float | None
    predicted: bool = False
    basis: tuple[Trial, ...] = ()
    runner_up: BestConfiguration | None = None
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def measured(cls, trial: Trial) -> BestConfiguration:
        """A configuration as one trial measured it."""
        return cls(
            trial=trial,
            settings=execution_settings(trial.settings),
            stations=trial.stations,
            cpus=trial.cpus,
            gpus=trial.gpus,
            seconds=trial.seconds,
            seconds_low=trial.seconds_min,
            seconds_high=trial.seconds_max,
            ram_mb=trial.ram_mb,
        )

    @classmethod
    def from_estimate(
        cls,
        seconds: Estimate,
        ram: Estimate | None,
        *,
        basis: tuple[Trial, ...],
        stations: int,
        cpus: int,
        settings: Mapping[str, Any],
    ) -> BestConfiguration:
        """A configuration that was not measured, from trials that were."""
        nearest = min(
            basis, key=lambda trial: (abs(trial.stations - stations), abs(trial.cpus - cpus))
        )
        return cls(
            trial=nearest,
            settings=settings,
            stations=stations,
            cpus=cpus,
            gpus=nearest.gpus,
            seconds=seconds.value,
            seconds_low=seconds.low,
            seconds_high=seconds.high,
            ram_mb=None if ram is None else ram.high,
            predicted=True,
            basis=basis,
        )

    @property
    def model(self) -> str:
        """``Parent/child``."""
        return self.trial.model

    @property
    def mode(self) -> str:
        """``"local"``, ``"modelactor"`` or ``"ripper"``."""
        return str(self.settings["mode"])

    @property
    def workers(self) -> int:
        """Processes that pick."""
        return int(self.settings.get("workers") or self.trial.workers)

    @property
    def stations_per_second(self) -> float:
        """Stations, with all their time chunks, a second."""
        return self.stations / self.seconds

    @property
    def vram_mb(self) -> float | None:
        """GPU memory of the measured trial, MB."""
        return self.trial.vram_mb

    @property
    def uncertainty_percent(self) -> float | None:
        """Width of the range around `seconds`, percent of it; None if measured only once."""
        if not self.predicted and self.trial.repeats < 2:
            return None
        return (self.seconds_high - self.seconds_low) / self.seconds * 100

    @property
    def margin_percent(self) -> float | None:
        """By how much more time the runner-up takes; below zero if a tie was decided."""
        return None if self.runner_up is None else (self.runner_up.seconds / self.seconds - 1) * 100

    @property
    def is_tie(self) -> bool:
        """True if the runner-up differs by no more than repeats of one configuration do."""
        return self.runner_up is not None and are_tied(self, self.runner_up)

    @property
    def cost(self) -> tuple[float, ...]:
        """Resources that it takes: GPUs, then CPUs, then memory, then processes."""
        ram = math.inf if self.ram_mb is None else self.ram_mb
        return (len(self.gpus), self.cpus, ram, self.workers)

    def pick_settings(self) -> dict[str, Any]:
        """Fields of `eqcctpro.PickConfig` that say how to run."""
        return dict(self.settings)

    def parameters(self) -> dict[str, Any]:
        """Keyword arguments for `eqcctpro.RunEQCCTPro`: the model, and how to run it.

        ``RunEQCCTPro(configuration=...)`` takes the configuration itself.
        """
        settings = self.pick_settings()
        device = str(settings.pop("device"))
        parent, _, child = self.model.partition("/")
        model: dict[str, Any] = {"model_type": "eqcct"}
        if self.model != "EQCCT/original":
            model = {
                "model_type": "seisbench",
                "seisbench_parent_model": parent,
                "seisbench_child_model": child,
            }
        where: dict[str, Any] = {"use_gpu": device != "cpu"}
        if device != "cpu":
            where["selected_gpus"] = list(self.gpus)
        if "cpu_ids" in settings:
            settings["cpu_ids"] = list(settings["cpu_ids"])
        named = {PARALLELISM[name]: value for name, value in settings.items()}
        return {**model, **where, **named}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold."""
        trial = self.trial
        return {
            "model": self.model,
            "stations": self.stations,
            "timespan_min": trial.timespan_min,
            "timechunks": trial.total_timechunks,
            "mode": self.mode,
            "cpus": self.cpus,
            "gpus": list(self.gpus),
            "workers": self.workers,
            "seconds": self.seconds,
            "seconds_low": self.seconds_low,
            "seconds_high": self.seconds_high,
            "uncertainty_percent": self.uncertainty_percent,
            "repeats": trial.repeats,
            "trial_seconds": None if self.predicted else trial.total_seconds,
            "stations_per_second": self.stations_per_second,
            "peak_ram_mb": self.ram_mb,
            "vram_mb": self.vram_mb,
            "predicted": self.predicted,
            "settings": self.pick_settings(),
            "margin_percent": self.margin_percent,
            "tie": self.is_tie,
            "runner_up": None if self.runner_up is None else self.runner_up.as_dict(),
            "notes": list(self.notes),
            "trial": trial.number,
            "configuration_id": trial.configuration_id,
            "measured_by": "EQCCTPro" if trial.layout == "ours" else f"{trial.layout} (earlier)",
            "machine": trial.machine,
            "source": str(trial.source),
            "line": trial.line,
            "based_on_lines": [one.line for one in self.basis],
        }

    def to_json(self) -> str:
        """`as_dict` as text."""
        return json.dumps(self.as_dict(), indent=1)

    def __str__(self) -> str:
        return ". ".join([self._first_sentence(), *self._second_sentence(), *self.notes]) + "."

    def _first_sentence(self) -> str:
        span = self.trial.timespan_min
        work = f"{self.stations} stations" + (f" x {span:g} min" if span else "")
        took = "would take about" if self.predicted else "took"
        if self.uncertainty_percent is None:
            sure = "measured once"
        else:
            sure = f"{_seconds(self.seconds_low)} to {_seconds(self.seconds_high)}"
        memory = "" if self.ram_mb is None else f", {self.ram_mb:,.0f} MB of memory"
        kind = "predicted" if self.predicted else "measured"
        return (
            f"{self.model}: {self._how()}; {work} {took} {_seconds(self.seconds)} ({sure}){memory} "
            f"[{kind}; {self.trial.place}]"
        )

    def _how(self) -> str:
        parts = [self.mode]
        if self.mode != "local":
            parts.append(f"{self.workers} worker{'s' if self.workers > 1 else ''}")
        parts.append(f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}")
        if self.gpus:
            parts.append(f"GPU {', '.join(map(str, self.gpus))}")
        if self.settings.get("runtime") not in (None, "auto"):
            parts.append(str(self.settings["runtime"]))
        if self.settings.get("batch_size"):
            parts.append(f"batch {self.settings['batch_size']}")
        return ", ".join(parts)

    def _second_sentence(self) -> list[str]:
        other, margin = self.runner_up, self.margin_percent
        if other is None or margin is None:
            return []
        than = f"Next is {other._how()} with {_seconds(other.seconds)} ({margin:+.1f} %)"
        return [f"{than}, which is a tie" if self.is_tie else than]


def are_tied(one: BestConfiguration, other: BestConfiguration) -> bool:
    """True if two differ by no more than repeats of one of them do.

    With single measurements nothing is known about that, and only equal times are a tie.
    """
    widths = (one.uncertainty_percent or 0.0, other.uncertainty_percent or 0.0)
    faster, slower = sorted((one.seconds, other.seconds))
    return (slower / faster - 1) * 100 <= min(max(widths), _WIDEST_TIE)


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"
