"""A trial as a row of the canonical CSV file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from eqcctpro.evaluation.settings import EvaluationConfig
from eqcctpro.evaluation.trial import TrialResult

__all__ = ["trial_row"]


def trial_row(
    config: EvaluationConfig, result: TrialResult, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """Columns of `eqcctpro.evaluation.canonical.CANONICAL_CSV_HEADER`, but for the number.

    Parameters
    ----------
    config : EvaluationConfig
    result : TrialResult
    environment : mapping
        ``machine`` and ``versions``.
    """
    row = {**_what_ran(config, result), **_memory(result), **_outcome(result)}
    row |= {
        "EQCCTPro Version": environment["versions"]["eqcctpro"],
        "Versions (JSON)": json.dumps(environment["versions"]),
        "Machine": environment["machine"],
        "Recorded At": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return row


def _what_ran(config: EvaluationConfig, result: TrialResult) -> dict[str, Any]:
    spec, facts = result.spec, result.facts
    run, chosen = spec.config, spec.station_set
    workers = _workers(result)
    mode = "baseline" if spec.baseline else run.mode
    comments = [facts.get("comments")]
    if mode == "ripper":
        # The words by which scripts for EQCCTPro's files know the mode.
        comments.insert(0, "[RIPPER MODE] one Ray task for each bundle of stations")
    return {
        "Model Used": run.model,
        "Number of Stations Used": len(chosen.stations),
        "Number of CPUs Allocated for Ray to Use": len(run.cpu_ids or ()),
        "GPUs Used": str(list(run.gpu_ids)),
        "N ModelActors": workers if mode == "modelactor" else 0,
        "Number of Concurrent Station Tasks": workers,
        "Actual Ripper Concurrent Tasks": workers if mode == "ripper" else None,
        "Concurrent Timechunks Used": run.concurrent_timechunks or 1,
        "Total Number of Timechunks": chosen.timechunks,
        "Length of Timechunk (min)": chosen.chunk_minutes,
        "Total Waveform Analysis Timespace (min)": chosen.span_minutes,
        "Intra-parallelism Threads": facts.get("threads") or run.threads,
        "Inter-parallelism Threads": run.inter_threads or 1,
        "Comments": "; ".join(comment for comment in comments if comment),
        "Stations Used": str(list(chosen.stations)),
        "Configuration ID": spec.configuration_id,
        "Cell ID": spec.cell_id,
        "Mode": mode,
        "Baseline": spec.baseline,
        "Runtime": facts.get("runtime") or run.runtime,
        "Device": run.device,
        "Batch Size": facts.get("batch_size") or run.batch_size,
        "Settings (JSON)": _settings(result),
        "Station Seed": config.seed,
        "Repeats": len(result.repeats),
    }


def _workers(result: TrialResult) -> int:
    """Workers that really ran; those that were asked for, if it never came to that."""
    return int(result.facts.get("workers") or result.spec.config.workers or 1)


def _settings(result: TrialResult) -> str:
    """What was asked for, with what the run chose for itself filled in."""
    settings = result.spec.config.model_dump(
        mode="json", exclude_none=True, exclude={"input", "output", "stations", "log_file"}
    )
    if not result.spec.baseline:
        for name in ("runtime", "batch_size", "threads"):
            if result.facts.get(name) is not None:
                settings[name] = result.facts[name]
        if result.spec.config.mode != "local":
            settings["workers"] = _workers(result)
    return json.dumps(settings)


def _memory(result: TrialResult) -> dict[str, Any]:
    use, facts = result.use, result.facts
    workers = _workers(result)
    ram, vram = facts.get("requested_ram_mb"), facts.get("requested_vram_mb")
    used_vram = sum(use.peak_vram_mb.values()) if use.peak_vram_mb else None
    total_ram = None if ram is None else ram * workers
    total_vram = None if vram is None else vram * workers
    return {
        "Requested VRAM per Actor (MB)": vram,
        "Requested RAM per Actor (MB)": ram,
        "Total Requested VRAM (MB)": total_vram,
        "Total Requested RAM (MB)": total_ram,
        "Process Tree VRAM (MB)": used_vram,
        "Num GPU Processes": workers if used_vram else 0,
        "Process Tree RAM (MB)": use.peak_rss_mb,
        "Peak RAM (MB)": use.peak_pss_mb,
        "RAM Growth (MB)": max(use.peak_pss_mb - use.start_pss_mb, 0.0),
        "Num Worker Processes": use.processes,
        "VRAM Overhead (MB)": _minus(used_vram, total_vram),
        "RAM Overhead (MB)": _minus(use.peak_pss_mb, total_ram),
        "VRAM Utilization (%)": _percent(used_vram, total_vram),
        "RAM Utilization (%)": _percent(use.peak_pss_mb, total_ram),
        "Inference Actor Memory Limit (MB)": vram,
        "GPU Energy (J)": sum(use.gpu_energy_j.values()) if use.gpu_energy_j else None,
        "CPU Energy (J)": result.cpu_energy_j,
        "CPU Time (s)": use.cpu_s,
    }


def _outcome(result: TrialResult) -> dict[str, Any]:
    facts = result.facts
    row: dict[str, Any] = {
        "Trial Success": int(result.success),
        "Error Message": result.error,
        "Actor Creation Time (s)": facts.get("actor_creation_s"),
        "Avg Model Load Time (s)": facts.get("model_load_s"),
        "Warm-up Time (s)": sum(run.seconds for run in result.warm_ups) or None,
        "Total Trial Time (s)": result.total_s,
    }
    if not result.repeats:
        return row
    seconds = [run.seconds for run in result.repeats]
    median = result.median()
    tasks = median.done + median.empty + median.failed
    stages = median.stages
    loading = [stages[name] for name in ("decode", "prepare") if name in stages]
    row |= {
        # As published: one run with everything that comes before it.
        "Total Trial Time (s)": result.prepare_s + median.seconds,
        "Total Run time for Picker (s)": median.seconds,
        "Waveform Processing Time (s)": sum(loading) / max(tasks, 1) if loading else None,
        "Picker Time Min (s)": min(seconds),
        "Picker Time Max (s)": max(seconds),
        "Picker Time Spread (%)": 100 * (max(seconds) - min(seconds)) / median.seconds,
        "Plan Time (s)": stages.get("plan"),
        "Decode Time (s)": stages.get("decode"),
        "Prepare Time (s)": stages.get("prepare"),
        "Inference Time (s)": stages.get("infer"),
        "Pick Time (s)": stages.get("pick"),
        "Write Time (s)": stages.get("write"),
        "Station Tasks Done": median.done,
        "Station Tasks Empty": median.empty,
        "Station Tasks Failed": max(run.failed for run in result.repeats),
        "P Picks": median.picks.get("P", 0),
        "S Picks": median.picks.get("S", 0),
        "Stations per Second": len(result.spec.station_set.stations) / median.seconds,
    }
    return row


def _minus(used: float | None, requested: float | None) -> float | None:
    return None if used is None or requested is None else used - requested


def _percent(used: float | None, requested: float | None) -> float | None:
    return None if used is None or not requested else 100 * used / requested
