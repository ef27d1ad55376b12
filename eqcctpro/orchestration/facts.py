"""Facts about the execution of a run, for its summary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from eqcctpro.archive.plan import Tasks
from eqcctpro.config import ExecutionConfig, OutputConfig, PickConfig
from eqcctpro.models.description import assumed_text, origin_of_description
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.orchestration.workers import Workers
from eqcctpro.pipeline.records import StageSeconds
from eqcctpro.resources.sampler import ResourceUse

__all__ = ["run_facts", "run_id"]


class Executed(Protocol):
    """What has picked: one execution, or those of all partitions."""

    workers: Workers
    stages: StageSeconds
    model_loads: int
    adaptations: list[str]

    @property
    def use(self) -> ResourceUse:
        """Resources used by the run's processes."""


def run_facts(
    config: PickConfig,
    seconds: Mapping[str, float],
    weights: WeightFiles,
    run: Executed,
    name: str,
    paths: dict[str, str],
) -> dict[str, Any]:
    """Facts about the execution of a run, for ``summary.json``: mode, workers, seconds, paths."""
    placement = run.workers.placement
    workers = 1 if config.mode == "local" else placement.workers
    return {
        "run_id": name,
        "mode": config.mode,
        "workers": workers,
        "limits": list(placement.limits),
        "adaptations": run.adaptations,
        "nodes": [share.as_dict() for share in run.workers.nodes],
        "memory_plan": None if placement.plan is None else placement.plan.as_dict(),
        "resources": run.use.as_dict(),
        "monitor": run.use.history,
        "threads_per_worker": config.threads if config.mode == "local" else placement.threads,
        "runtime": run.workers.runtime,
        "batch_size": run.workers.batch_size,
        "device": config.device,
        "model": weights.name,
        "weights": {
            "file": str(weights.weight_path),
            "files": [str(part.weight_path) for part in weights.single_files],
            "version": weights.version,
            "sha256": weights.sha256,
            "source": weights.source,
            "description": {
                part.parent: origin_of_description(part) for part in weights.single_files
            },
            "assumed": [text for part in weights.single_files if (text := assumed_text(part))],
        },
        "seconds": {**seconds, "stages": run.stages.seconds},
        "model_loads": run.model_loads,
        # Absolute, for commands that are given in another folder.
        "settings": config.absolute().model_dump(mode="json"),
        "paths": {kind: str(Path(path).absolute()) for kind, path in paths.items()},
    }


def run_id(config: PickConfig, weights: WeightFiles, tasks: Tasks | None) -> str:
    """Identifier of the computation: the same plan, weights and settings give the same id.

    Without tasks, of a run in partitions, whose plan is not known before its end, the same
    weights and settings do.
    """
    execution = ExecutionConfig.model_fields.keys() - {"runtime", "batch_size", "precision"}
    # The weights' hash stands for the files.
    where_only = {"storage", "item_timeout", "p_model", "s_model"}
    without = where_only | execution | OutputConfig.model_fields.keys()
    settings = config.model_dump(mode="json", exclude=without)
    digest = hashlib.sha256(weights.sha256.encode())
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for task, n_bytes in () if tasks is None else tasks.outlines():
        digest.update(f"{task.name}|{task.chunk.name}|{n_bytes}\n".encode())
    return digest.hexdigest()[:16]
