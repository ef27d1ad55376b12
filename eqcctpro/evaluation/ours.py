"""Our own pipeline as something to benchmark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from eqcctpro.config import PickConfig
from eqcctpro.evaluation.subject import Outcome
from eqcctpro.orchestration.result import RunResult
from eqcctpro.orchestration.session import PickSession

__all__ = ["PickSubject"]


class PickSubject:
    """A configuration of ``eqcctpro pick`` with workers that stay ready.

    Parameters
    ----------
    config : PickConfig
    """

    def __init__(self, config: PickConfig) -> None:
        self._session = PickSession(config)

    def prepare(self) -> dict[str, Any]:
        """Load the model and start the workers."""
        workers = self._session.open()
        placement = workers.placement
        plan = placement.plan
        return {
            "runtime": workers.runtime,
            "batch_size": workers.batch_size,
            "workers": placement.workers,
            "threads": placement.threads,
            "actor_creation_s": workers.load_s,
            "model_load_s": workers.model_load_s,
            "requested_ram_mb": None if plan is None else plan.ram_per_worker_mb,
            "requested_vram_mb": placement.vram_limit(0),
            "comments": "; ".join(placement.limits),
        }

    def run(self, output: Path) -> Outcome:
        """Pick once, to ``picks.csv`` and ``summary.json`` below `output`."""
        started = time.perf_counter()
        result = self._session.run(output=output)
        return _outcome(result, time.perf_counter() - started)

    def close(self) -> None:
        """End the workers."""
        self._session.close()


def _outcome(result: RunResult, seconds: float) -> Outcome:
    summary = result.summary
    tasks, picks = summary["tasks"], dict(summary["picks"])
    picks.pop("total")
    parts = summary["seconds"]
    stages = {**parts["stages"], "plan": parts["plan"], "write": parts["write"]}
    failures = [f"{item['station']}: {item['reason']}" for item in summary["failed"]]
    failures += [item["message"] for item in summary["files_failed"]]
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return Outcome(
        seconds,
        stages,
        tasks["done"],
        tasks["empty"],
        tasks["failed"] + len(summary["files_failed"]),
        picks,
        failures[0] + more if failures else "",
    )
