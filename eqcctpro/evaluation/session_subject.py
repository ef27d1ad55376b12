"""Benchmark subject of our own modes: a session that stays warm."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqcctpro.config import PickConfig
from eqcctpro.errors import DecodeError, InputError
from eqcctpro.evaluation.subject import Outcome, Workload
from eqcctpro.orchestration.session import PickSession
from eqcctpro.waveform.decode import NOT_PICKED

__all__ = ["SessionSubject", "pick_settings", "run_outcome"]

#: What a run writes when it is benchmarked: the file of picks that others write too.
_RESULTS = {"formats": ("csv",), "overview": False, "journal": False, "resume": "never"}

#: Errors of station tasks and files that say that the data cannot be read, however they are picked.
_UNREADABLE = {InputError.__name__, DecodeError.__name__}


class SessionSubject:
    """A `PickSession`: the model is loaded and workers are started before the first run.

    Parameters
    ----------
    config : PickConfig
    """

    def __init__(self, config: PickConfig) -> None:
        self._config = config
        self._session = PickSession(config)

    @classmethod
    def of(cls, workload: Workload, **where: Any) -> SessionSubject:
        """For a workload, and fields of `PickConfig` that say how it is computed."""
        output = Path(tempfile.gettempdir())
        return cls(PickConfig.checked(**pick_settings(workload, where), output=output))

    def prepare(self) -> dict[str, Any]:
        """Start the session; see `eqcctpro.evaluation.subject.Subject`."""
        workers = self._session.open()
        placement, plan = workers.placement, workers.placement.plan
        config = self._config
        ram, vram = (None, None) if plan is None else plan.published_request_mb()
        return {
            "runtime": workers.runtime,
            "device": config.device,
            "batch_size": workers.batch_size,
            "workers": placement.workers,
            "threads": placement.threads,
            "start_s": workers.load_s,
            "model_load_s": workers.model_load_s,
            "requested_workers": None if plan is None else plan.requested,
            "requested_ram_mb": ram,
            "requested_vram_mb": config.vram_mb or vram,
            "planned_ram_mb": None if plan is None else plan.planned_ram_mb,
            "vram_limit_mb": placement.vram_limit(0),
            "limits": list(placement.limits),
        }

    def run(self, output: Path) -> Outcome:
        """Pick the workload once; see `eqcctpro.evaluation.subject.Subject`."""
        started = time.perf_counter()
        result = self._session.run(output=output)
        return run_outcome(time.perf_counter() - started, result.summary)

    def close(self) -> None:
        """End the session."""
        self._session.close()


def pick_settings(workload: Workload, where: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `PickConfig`, without the output; absolute paths, wherever a command runs."""
    return {
        **_RESULTS,
        **workload.settings,
        **{name: value for name, value in where.items() if value is not None},
        "input": tuple(path.absolute() for path in workload.input),
        "stations": workload.stations,
        "model": workload.model,
    }


def run_outcome(seconds: float, summary: Mapping[str, Any]) -> Outcome:
    """Outcome of a run, from its wall-clock seconds and its ``summary.json``."""
    parts, tasks = summary["seconds"], summary["tasks"]
    stages = {stage: parts[stage] for stage in ("plan", "write")} | parts["stages"]
    lost = [f"{one['station']}: {one['reason']}" for one in summary["failed"]]
    lost += [one["message"] for one in summary["files_failed"]]
    errors = [summary["reasons"][kind] for kind in ("failed", "files_failed")]
    n_lost = tasks["failed"] + summary["plan"]["files_unusable"]
    notes = [note for item in summary["notes"] for note in item["notes"]]
    picks = {phase: count for phase, count in summary["picks"].items() if phase != "total"}
    return Outcome(
        seconds,
        stages,
        tasks["done"],
        tasks["empty"],
        n_lost,
        picks,
        "; ".join(lost),
        sum(counts.get(kind, 0) for counts in errors for kind in _UNREADABLE),
        stages["load"] / loads if (loads := summary["model_loads"]) else None,
        tuple(dict.fromkeys(note for note in notes if note.startswith(NOT_PICKED))),
    )
