"""A trial as a row of the canonical CSV file.

EQCCTPro's columns follow its definitions, with what was measured here; what we define ourselves
is in columns of our own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from eqcctpro.evaluation.results import published_name
from eqcctpro.evaluation.subject import Outcome
from eqcctpro.evaluation.trial import TrialResult

__all__ = ["trial_row"]

#: What EQCCTPro adds to its request for each actor or task, MB.
TASK_RAM_MB: Final = 256.0
TASK_VRAM_MB: Final = 128.0

#: The words by which scripts for EQCCTPro's files know the mode.
_RIPPER: Final = "[RIPPER MODE] Task-based approach (no ModelActors)"

_NOUNS: Final = {"modelactor": "actors", "ripper": "tasks"}


def trial_row(
    result: TrialResult, environment: Mapping[str, Any], *, seed: int | None = None
) -> dict[str, Any]:
    """Columns of `eqcctpro.evaluation.canonical.CANONICAL_CSV_HEADER`, but for the number.

    Parameters
    ----------
    result : TrialResult
    environment : mapping
        ``machine`` and ``versions``.
    seed : int, optional
        Of the choice of stations.
    """
    return {
        **_what_ran(result),
        "Station Seed": seed,
        **_memory(result),
        **_outcome(result),
        "EQCCTPro Version": environment["versions"]["eqcctpro"],
        "Versions (JSON)": json.dumps(environment["versions"]),
        "Machine": environment["machine"],
        "Recorded At": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _mode(result: TrialResult) -> str:
    return "baseline" if result.spec.baseline else result.spec.config.mode


def _workers(result: TrialResult) -> int:
    """Workers that really ran; those that were asked for, if it never came to that."""
    return int(result.facts.get("workers") or result.spec.config.workers or 1)


def _requested(result: TrialResult) -> int:
    """Workers that were asked for; by default as many as there are cores or GPUs."""
    asked = result.spec.config.workers or result.facts.get("requested_workers")
    return int(asked or _workers(result))


def _what_ran(result: TrialResult) -> dict[str, Any]:
    spec, facts = result.spec, result.facts
    run, chosen = spec.config, spec.station_set
    workers, mode = _workers(result), _mode(result)
    return {
        "Model Used": published_name(run.model),
        "Number of Stations Used": len(chosen.stations),
        "Number of CPUs Allocated for Ray to Use": len(run.cpu_ids or ()),
        "GPUs Used": str(list(run.gpu_ids)),
        "N ModelActors": workers if mode == "modelactor" else 0,
        "Number of Concurrent Station Tasks": _requested(result),
        "Actual Ripper Concurrent Tasks": workers if mode == "ripper" else None,
        "Concurrent Timechunks Used": run.concurrent_timechunks or 1,
        "Total Number of Timechunks": chosen.timechunks,
        "Length of Timechunk (min)": chosen.chunk_minutes,
        "Total Waveform Analysis Timespace (min)": chosen.span_minutes,
        "Intra-parallelism Threads": facts.get("threads") or run.threads,
        "Inter-parallelism Threads": run.inter_threads or 1,
        "Comments": _comments(result),
        "Stations Used": str(list(chosen.stations)),
        "Configuration ID": spec.configuration_id,
        "Cell ID": spec.cell_id,
        "Mode": mode,
        "Baseline": spec.baseline,
        "Workers": workers,
        "Runtime": facts.get("runtime") or run.runtime,
        "Device": run.device,
        "Batch Size": facts.get("batch_size") or run.batch_size,
        "Settings (JSON)": _settings(result),
        "Repeats": len(result.repeats),
        "Notes": "; ".join(filter(None, (*facts.get("limits", ()), facts.get("notes")))),
    }


def _comments(result: TrialResult) -> str:
    """As EQCCTPro writes them: the mode of Ripper trials, and why there are fewer workers."""
    mode, ran, asked = _mode(result), _workers(result), _requested(result)
    comments = [_RIPPER] if mode == "ripper" else []
    if mode in _NOUNS and ran < asked:
        known = [one for one in result.facts.get("limits", ()) if ", created " in one]
        comments += known or [f"Requested {asked} {_NOUNS[mode]}, created {ran}"]
    return "; ".join(comments)


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
    total_ram = None if ram is None else workers * (ram + TASK_RAM_MB)
    total_vram = None if vram is None else workers * (vram + TASK_VRAM_MB)
    tree_ram, pss = use.peak_rss_mb or None, use.peak_pss_mb or None
    tree_vram = sum(use.peak_vram_mb.values()) if use.peak_vram_mb else None
    return {
        "Requested VRAM per Actor (MB)": vram,
        "Requested RAM per Actor (MB)": ram,
        "Total Requested VRAM (MB)": total_vram,
        "Total Requested RAM (MB)": total_ram,
        "Process Tree VRAM (MB)": tree_vram,
        "Num GPU Processes": use.gpu_processes,
        "Process Tree RAM (MB)": tree_ram,
        "Peak RAM (MB)": use.root_rss_mb or None,
        "RAM Growth (MB)": _minus(tree_ram, use.start_rss_mb),
        "Num Worker Processes": use.ray_workers,
        "VRAM Overhead (MB)": _minus(tree_vram, total_vram),
        "RAM Overhead (MB)": _minus(tree_ram, total_ram),
        "VRAM Utilization (%)": _percent(tree_vram, total_vram),
        "RAM Utilization (%)": _percent(tree_ram, total_ram),
        "Inference Actor Memory Limit (MB)": facts.get("vram_limit_mb"),
        "Peak PSS (MB)": pss,
        "PSS Growth (MB)": _minus(pss, use.start_pss_mb),
        "Planned RAM (MB)": facts.get("planned_ram_mb"),
        "PSS Utilization (%)": _percent(pss, facts.get("planned_ram_mb")),
        "Processes": use.processes or None,
        "GPU Energy (J)": sum(use.gpu_energy_j.values()) if use.gpu_energy_j else None,
        "CPU Energy (J)": result.cpu_energy_j,
        "CPU Time (s)": use.cpu_s or None,
    }


def _outcome(result: TrialResult) -> dict[str, Any]:
    facts, mode = result.facts, _mode(result)
    row: dict[str, Any] = {
        "Trial Success": int(result.success),
        "Error Message": result.error,
        "Start Time (s)": facts.get("start_s"),
        "Model Load Time (s)": facts.get("model_load_s"),
        "Warm-up Time (s)": sum(run.seconds for run in result.warm_ups) or None,
        "Total Trial Time (s)": result.total_s or None,
    }
    if mode == "modelactor":
        row["Actor Creation Time (s)"] = facts.get("start_s")
    return row | _times(result) if result.repeats else row


def _times(result: TrialResult) -> dict[str, Any]:
    """Columns of a trial that has repeats."""
    seconds, median = [run.seconds for run in result.repeats], result.median()
    stages, load_s = median.stages, median.load_s
    # Tasks load the model where they do; then no worker has loaded it before.
    loading: dict[str, Any] = {} if load_s is None else {"Model Load Time (s)": load_s}
    if _mode(result) == "ripper":
        loading["Avg Model Load Time (s)"] = load_s
    return loading | {
        # As published: one run with everything that comes before it.
        "Total Trial Time (s)": result.prepare_s + median.seconds,
        "Total Run time for Picker (s)": median.seconds,
        "Waveform Processing Time (s)": _waveforms(median),
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


def _waveforms(run: Outcome) -> float | None:
    """Seconds of decoding and preparation for a station task."""
    known = [run.stages[name] for name in ("decode", "prepare") if name in run.stages]
    return sum(known) / max(run.done + run.empty + run.failed, 1) if known else None


def _minus(used: float | None, less: float | None) -> float | None:
    return None if used is None or less is None else used - less


def _percent(used: float | None, requested: float | None) -> float | None:
    return None if used is None or not requested else 100 * used / requested
