"""Our own modes as benchmark subjects: a session that stays warm, and the cold command."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqcctpro.child import module_command
from eqcctpro.config import PickConfig
from eqcctpro.errors import DecodeError, EQCCTProError, InputError
from eqcctpro.evaluation.subject import Outcome, Workload
from eqcctpro.orchestration.result import SOME_FAILED
from eqcctpro.orchestration.session import PickSession
from eqcctpro.waveform.decode import NOT_PICKED

__all__ = ["CommandSubject", "SessionSubject"]

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
        return cls(PickConfig.checked(**_settings(workload, where), output=output))

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
        return _outcome(time.perf_counter() - started, result.summary)

    def close(self) -> None:
        """End the session."""
        self._session.close()


class CommandSubject:
    """``eqcctpro pick`` in a process of its own for each run, loading included.

    Parameters
    ----------
    workload : Workload
    **where
        As for `SessionSubject`.
    """

    def __init__(self, workload: Workload, **where: Any) -> None:
        self._workload = workload
        self._where = where
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def prepare(self) -> dict[str, Any]:
        """Write the settings; see `eqcctpro.evaluation.subject.Subject`."""
        settings = _settings(self._workload, self._where)
        config = PickConfig.checked(**settings, output=Path(tempfile.gettempdir()))
        self._scratch = tempfile.TemporaryDirectory(prefix="eqcctpro-command-")
        given = json.loads(config.model_dump_json(include=set(settings)))
        self._config_file.write_text(json.dumps(given), encoding="utf-8")
        return {
            "runtime": config.runtime,
            "device": config.device,
            "batch_size": config.batch_size,
            "workers": config.workers,
            "threads": config.threads,
            "notes": "a command for each run",
        }

    def run(self, output: Path) -> Outcome:
        """Pick the workload once; see `eqcctpro.evaluation.subject.Subject`.

        Raises
        ------
        EQCCTProError
            The command ended with an error.
        """
        command = module_command("eqcctpro", "pick", "--quiet")
        command += ["--config", str(self._config_file), "--output", str(output)]
        started = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if ended.returncode not in (0, SOME_FAILED):
            raise EQCCTProError(
                f"eqcctpro pick ended with {ended.returncode}: {ended.stderr.strip()[-500:]}"
            )
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        return _outcome(seconds, summary)

    def close(self) -> None:
        """Remove the settings."""
        if self._scratch is not None:
            self._scratch.cleanup()

    @property
    def _config_file(self) -> Path:
        assert self._scratch is not None
        return Path(self._scratch.name) / "settings.json"


def _settings(workload: Workload, where: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `PickConfig`, without the output; absolute paths, wherever a command runs."""
    return {
        **_RESULTS,
        **workload.settings,
        **{name: value for name, value in where.items() if value is not None},
        "input": tuple(path.absolute() for path in workload.input),
        "stations": workload.stations,
        "model": workload.model,
    }


def _outcome(seconds: float, summary: Mapping[str, Any]) -> Outcome:
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
