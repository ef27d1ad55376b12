"""Efficiency of trials: speed-up and use of CPUs, GPUs and memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from eqcctpro.analysis.trials import approach, method, trial_type
from eqcctpro.evaluation.canonical import STAGE_COLUMNS
from eqcctpro.evaluation.results import Trial, cell_number

__all__ = [
    "GPU_COST",
    "chunks_text",
    "chunks_title",
    "efficiency_table",
    "requested_name",
    "scaling_group",
    "variants",
]

#: CPUs that a GPU counts as in the resource cost score, as EQCCTPro's analysis has it.
GPU_COST: Final = 10


def efficiency_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Table of successful trials with the measures derived from them.

    Parameters
    ----------
    trials : sequence of Trial
        Failed ones are left out.

    Returns
    -------
    pandas.DataFrame
        One row for each trial: the columns of its file, then

        - ``Effective Concurrency``: workers that ran;
        - ``Variant``: what else differs among these trials, in words: runtime, batch size,
          threads, time chunks, machine;
        - ``Start of Workers (s)``, ``Loading of the Model (s)``: what comes before picking;
        - ``Throughput (Stations/s)`` over the whole trial, and ``Picker Throughput
          (Stations/s)`` over the picking alone, also for each CPU, worker and GPU;
        - ``Measured RAM (MB)``, the highest memory of all processes, and what it is for each
          station and worker; ``Requested RAM (MB)``, in our rows what was planned with the driver
          and Ray; their difference (overhead), and one in percent of the other (utilisation);
        - ``Resource Cost Score``: CPUs and ten for each GPU; throughput for each unit of it;
        - ``Parallel Efficiency``: picker throughput over that of the trial with the fewest
          workers, divided by the ratio of workers; 1 where workers do not slow each other;
        - ``Marginal Gain of a Worker (Stations/s)``: picker throughput gained over the next
          smaller number of workers, for each worker added;
        - ``Share of Time in Model (%)``: inference in the time of all stages;
        - ``Real-time Stations``: stations whose data are picked as fast as they come, at the
          speed of the slowest repeat.

        Workers are compared among trials that did the same work in the same mode, with the
        same CPUs, GPUs, runtime and batch size.
    """
    done = [trial for trial in trials if trial.success]
    rows = [{**_described(trial), **_derived(trial)} for trial in done]
    for row, trial, scaling, words in zip(rows, done, _scaling(done), variants(done), strict=True):
        row.update(scaling)
        row |= {"Variant": words, "Time Chunks": chunks_text(trial)}
    table = pd.DataFrame(rows)
    original = dict.fromkeys(name for trial in done for name in trial.cells)
    cells = pd.DataFrame([{name: trial.cells.get(name, "") for name in original} for trial in done])
    return pd.concat([cells.apply(_as_numbers), table], axis=1)


def scaling_group(trial: Trial) -> tuple[Any, ...]:
    """Values that must be equal for two trials to show the effect of more workers."""
    return (
        trial.model,
        trial.cell_id or (trial.stations, trial.timespan_min, trial.total_timechunks),
        trial.mode,
        trial.baseline,
        trial.cpus,
        trial.gpus,
        trial.settings.get("runtime"),
        trial.settings.get("batch_size"),
        trial.concurrent_timechunks,
        trial.machine,
        trial.layout,
    )


def _as_numbers(column: Any) -> Any:
    """Numbers where every cell that is not empty is one."""
    values = pd.to_numeric(column.replace("", None), errors="coerce")
    return values if values.notna().sum() == (column != "").sum() else column


def _described(trial: Trial) -> dict[str, Any]:
    return {
        "Model": trial.model,
        "Trial Type": trial_type(trial),
        "Method": method(trial),
        "Approach": approach(trial),
        "Stations": trial.stations,
        "CPUs": trial.cpus,
        "GPU Count": len(trial.gpus),
        "Effective Concurrency": trial.workers,
        "Picker Time (s)": trial.seconds,
        "Trial Time (s)": trial.total_seconds or trial.seconds,
        "Start of Workers (s)": _first(trial, "Start Time (s)", "Actor Creation Time (s)"),
        "Loading of the Model (s)": _first(trial, "Model Load Time (s)", "Avg Model Load Time (s)"),
    }


def chunks_title(trials: Sequence[Trial]) -> str:
    """Part of a figure's title on its trials' time chunks; empty where each has one."""
    texts = sorted({chunks_text(trial) for trial in trials if trial.success})
    if all(trial.total_timechunks == 1 for trial in trials if trial.success):
        return ""
    return f", {texts[0]}" if len(texts) == 1 else ", several divisions into time chunks"


def requested_name(table: pd.DataFrame) -> str:
    """Name of ``Requested RAM (MB)`` of a table: ``Planned`` in our rows, else ``Requested``."""
    planned = "Planned RAM (MB)" in table and pd.to_numeric(
        table["Planned RAM (MB)"], errors="coerce"
    )
    return "Planned" if planned is not False and planned.notna().any() else "Requested"


def _first(trial: Trial, *columns: str) -> float | None:
    """The number in the first of some columns that has one: ours before the published one."""
    return next((x for name in columns if (x := cell_number(trial.cells, name)) is not None), None)


def variants(trials: Sequence[Trial]) -> list[str]:
    """Label of each trial by what differs besides stations, CPUs, GPUs and workers.

    Only what differs among trials with the same of those is named, as batches and threads grow
    with cores by themselves; without any difference the words are empty.
    """
    described = [_variant(trial) for trial in trials]
    alike: dict[tuple[Any, ...], list[dict[str, str]]] = defaultdict(list)
    for trial, one in zip(trials, described, strict=True):
        alike[trial.model, trial.mode, trial.cpus, len(trial.gpus), trial.workers].append(one)
    differing = {
        name
        for group in alike.values()
        for name in group[0]
        if len({one[name] for one in group}) > 1
    }
    return [
        ", ".join(text for name, text in one.items() if name in differing and text)
        for one in described
    ]


def _variant(trial: Trial) -> dict[str, str]:
    settings = trial.settings
    return {
        "runtime": str(settings.get("runtime") or ""),
        "batch": f"batch {settings['batch_size']}" if settings.get("batch_size") else "",
        "threads": f"{settings['threads']} threads" if settings.get("threads") else "",
        "thresholds": _thresholds(settings),
        "chunks": chunks_text(trial),
        "machine": trial.machine,
        "layout": "" if trial.layout == "ours" else trial.layout,
    }


def _thresholds(settings: Mapping[str, Any]) -> str:
    known = {phase: settings.get(f"{phase.lower()}_threshold") for phase in ("P", "S")}
    return " ".join(f"{phase} {value:g}" for phase, value in known.items() if value is not None)


def chunks_text(trial: Trial) -> str:
    """The time chunks of a trial, such as ``4 time chunks of 30 min, 2 at once``."""
    length = trial.timechunk_min or trial.timespan_min
    text = f"{trial.total_timechunks} time chunk{'s' if trial.total_timechunks > 1 else ''}"
    text += f" of {length:g} min" if length else ""
    at_once = trial.concurrent_timechunks
    return f"{text}, {at_once} at once" if trial.total_timechunks > 1 and at_once else text


def _derived(trial: Trial) -> dict[str, float | None]:
    whole = trial.stations / (trial.total_seconds or trial.seconds)
    picking = trial.stations / trial.seconds
    gpus, cost = len(trial.gpus), trial.cpus + GPU_COST * len(trial.gpus)
    requested = _first(trial, "Planned RAM (MB)", "Total Requested RAM (MB)")
    return {
        "Throughput (Stations/s)": whole,
        "Picker Throughput (Stations/s)": picking,
        "Throughput/CPU": picking / trial.cpus,
        "Throughput/Concurrency": picking / trial.workers,
        "Throughput/GPU": picking / gpus if gpus else None,
        "Measured RAM (MB)": trial.ram_mb,
        "Requested RAM (MB)": requested,
        "RAM per Station (MB)": _over(trial.ram_mb, trial.stations),
        "RAM per Concurrency Unit (MB)": _over(trial.ram_mb, trial.workers),
        "Calculated RAM Overhead (MB)": _minus(trial.ram_mb, requested),
        "Calculated RAM Utilization (%)": _over(trial.ram_mb, requested, 100.0),
        **_vram(trial),
        "Resource Cost Score": cost,
        "Throughput per Cost Unit": picking / cost,
        "Share of Time in Model (%)": _model_share(trial.cells),
        "Real-time Stations": _real_time(trial),
    }


def _vram(trial: Trial) -> dict[str, float | None]:
    if not trial.gpus:
        return {}
    requested = cell_number(trial.cells, "Total Requested VRAM (MB)")
    return {
        "VRAM per Station (MB)": _over(trial.vram_mb, trial.stations),
        "VRAM per Concurrency Unit (MB)": _over(trial.vram_mb, trial.workers),
        "Calculated VRAM Overhead (MB)": _minus(trial.vram_mb, requested),
        "Calculated VRAM Utilization (%)": _over(trial.vram_mb, requested, 100.0),
    }


def _over(value: float | None, by: float | None, times: float = 1.0) -> float | None:
    return value / by * times if value is not None and by else None


def _minus(value: float | None, less: float | None) -> float | None:
    return value - less if value is not None and less is not None else None


def _model_share(cells: Mapping[str, str]) -> float | None:
    """Percent; RAPID has sums over tasks instead of stages, EQCCTPro has neither."""
    times = [cell_number(cells, name) for name in STAGE_COLUMNS.values()]
    inference = cell_number(cells, STAGE_COLUMNS["infer"])
    whole = sum(value or 0.0 for value in times)
    if inference is None:
        inference = cell_number(cells, "Sum Inference Time (s)")
        whole = cell_number(cells, "Sum Task Compute Time (s)") or 0.0
    return _over(inference, whole, 100.0)


def _real_time(trial: Trial) -> float | None:
    if not trial.timespan_min:
        return None
    minutes = trial.stations * trial.timespan_min
    tasks = [cell_number(trial.cells, f"Station Tasks {end}") or 0.0 for end in ("Done", "Empty")]
    if sum(tasks) and trial.timechunk_min:
        # Stations need not be there in every chunk.
        minutes = min(minutes, sum(tasks) * trial.timechunk_min)
    return math.floor(minutes * 60.0 / trial.seconds_max)


def _scaling(trials: Sequence[Trial]) -> list[dict[str, float | None]]:
    """Parallel efficiency and marginal gain of every trial."""
    groups: dict[tuple[Any, ...], dict[int, float]] = defaultdict(dict)
    for trial in trials:
        counts = groups[scaling_group(trial)]
        rate = trial.stations / trial.seconds
        counts[trial.workers] = max(rate, counts.get(trial.workers, 0.0))
    rows = []
    for trial in trials:
        counts = groups[scaling_group(trial)]
        fewest = min(counts)
        rate = trial.stations / trial.seconds
        efficiency = gain = None
        if len(counts) > 1:
            efficiency = rate / counts[fewest] / (trial.workers / fewest)
        if trial.workers > fewest:
            before = max(count for count in counts if count < trial.workers)
            gain = (rate - counts[before]) / (trial.workers - before)
        rows.append(
            {"Parallel Efficiency": efficiency, "Marginal Gain of a Worker (Stations/s)": gain}
        )
    return rows
