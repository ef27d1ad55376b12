"""Output files of a run: tables, summary, figures, report."""

from __future__ import annotations

import json
import logging
import platform
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from eqcctpro.archive.coverage import planned_samples, station_hours
from eqcctpro.archive.plan import Plan, StationTask, Tasks
from eqcctpro.config import PickConfig
from eqcctpro.errors import OutputError, QuarantinedError
from eqcctpro.journal.task_table import TASKS_FILE, task_table
from eqcctpro.orchestration.task_records import TaskRecords
from eqcctpro.picks.annotations import CURVE_FOLDER
from eqcctpro.picks.day_tables import StoredRows, remove_table
from eqcctpro.picks.eqcctpro_folders import write_eqcctpro_folders
from eqcctpro.picks.formats import FORMATS, write_picks
from eqcctpro.picks.table import PickRows
from eqcctpro.picks.writers import atomic_file, write_csv, write_parquet
from eqcctpro.pipeline.records import PickOutcome
from eqcctpro.signals_after import signals_after
from eqcctpro.times import format_utc

if TYPE_CHECKING:
    pass

__all__ = [
    "RunTables",
    "StoredTables",
    "draw_run",
    "package_versions",
    "provenance",
    "report_run",
    "summarise",
    "write_summary",
    "write_tables",
]

PACKAGES = (
    *("numpy", "scipy", "torch", "seisbench", "pymseed"),
    *("openvino", "onnxruntime", "ray", "pyarrow"),
    # Of TensorFlow one of two packages is installed, where any is.
    *("tensorflow", "tensorflow-cpu", "keras"),
)
_ENDED = ("empty", "failed")
_Item = TypeVar("_Item")
OVERVIEW_TRACES = 60
# Tasks and files that the summary lists of each reason; tasks.parquet has all tasks.
MOST_LISTED = 100
# Reasons that the summary counts and lists, the most frequent first.
MOST_REASONS = 20
OTHERS = "other reasons"


@dataclass(frozen=True)
class RunTables:
    """Pick and detection tables of a run.

    Attributes
    ----------
    picks : PickRows
        Of `eqcctpro.picks.table.PICK_SCHEMA`.
    detections : PickRows or None
        None when the model yields no detections.
    """

    picks: PickRows
    detections: PickRows | None


@dataclass(frozen=True)
class StoredTables:
    """Pick and detection tables of a run in partitions, which are read when they are asked for.

    Attributes
    ----------
    picks : StoredRows
    detections : StoredRows or None
        None when the model yields no detections.
    """

    picks: StoredRows
    detections: StoredRows | None


def write_tables(
    config: PickConfig,
    tables: RunTables,
    tasks: Tasks,
    records: TaskRecords,
) -> dict[str, str]:
    """Write the files that the configuration asks for; returns their paths by kind."""
    paths: dict[str, str] = {}
    for name, write in (("csv", write_csv), ("parquet", write_parquet)):
        for kind, rows in (("picks", tables.picks), ("detections", tables.detections)):
            if name in config.formats and rows is not None:
                path = config.output / f"{kind}.{name}"
                if path.is_dir():  # of an earlier run in partitions
                    remove_table(path)
                write(rows, path)
                paths[f"{kind}_{name}"] = str(path)
    if "eqcctpro" in config.formats:
        _write_folders(config, tables, tasks, records)
        paths["station_folders"] = str(config.output)
    paths["tasks"] = str(config.output / TASKS_FILE)
    detections = tables.detections.per_task if tables.detections is not None else {}
    table = task_table(tasks.headings(), records, tables.picks.per_task, detections)
    write_parquet(table, config.output / TASKS_FILE)
    measured: pa.Table | None = None
    if config.amplitudes:
        from eqcctpro.amplitudes import measure_amplitudes, write_amplitudes

        measured = measure_amplitudes(
            tables.picks.table,
            config.input,
            config.response,
            layout=config.layout,
            input_roots=config.input_roots,
        )
        write_amplitudes(measured, config.output / "amplitudes.csv")
        paths["amplitudes"] = str(config.output / "amplitudes.csv")
    for name in config.formats:
        if name not in {"csv", "parquet", "eqcctpro"}:
            path = config.output / FORMATS[name].file_name
            write_picks(tables.picks.table if measured is None else measured, path, name)
            paths[f"picks_{name}"] = str(path)
    if config.annotations:
        paths["annotations"] = str(config.output / CURVE_FOLDER)
    return paths


def _write_folders(
    config: PickConfig, tables: RunTables, tasks: Tasks, records: TaskRecords
) -> None:
    """Write EQCCTPro's folders; a station whose file cannot be written has failed."""

    def fail(task: StationTask, error: OutputError) -> None:
        earlier = records[task.index]
        records.add({task.index: PickOutcome.failure(error, earlier.notes, earlier.counts)})

    ended = [tasks[index] for index in records.ended("done", "empty")]
    write_eqcctpro_folders(tables.picks.table, ended, config.output, fail)


def draw_run(config: PickConfig, plan: Plan, picks: pa.Table, model: str, *, chunks: int) -> str:
    """Draw ``overview.png``: traces of the chunk with the most picks, of so many, and its picks."""
    with signals_after():
        from eqcctpro.report.overview import draw_overview
        from eqcctpro.report.run_traces import busiest_chunk, vertical_traces

    chunk = busiest_chunk(plan, picks)
    tasks = [task for task in plan.tasks if task.chunk.name == chunk]
    counts = Counter(zip(picks["network"].to_pylist(), picks["station"].to_pylist(), strict=True))
    tasks.sort(key=lambda task: (-counts[task.network, task.station], task.name))
    stations = list(dict.fromkeys((task.network, task.station) for task in tasks))
    shown = set(stations[:OVERVIEW_TRACES])
    traces = [
        trace
        for task in tasks
        if (task.network, task.station) in shown
        for trace in vertical_traces(task, config.input_roots)
    ]
    note = ""
    if chunks > 1:
        note = f"This is the time chunk with the most picks, of {chunks}"
        import pyarrow.compute

        picks = picks.filter(pyarrow.compute.equal(picks["timechunk"], chunk))
    path = config.output / "overview.png"
    draw_overview(
        path,
        traces,
        picks,
        title=f"{model}, {chunk}",
        max_traces=OVERVIEW_TRACES,
        stations=len(stations),
        note=note,
    )
    return str(path)


def report_run(config: PickConfig, table: pa.Table | None, logger: logging.Logger) -> str | None:
    """Write ``report.html``; errors are only logged, since the picks are already written."""
    from eqcctpro.report.run_report import write_report

    try:
        return str(write_report(config.output, table=table))
    except Exception as error:
        logger.warning("no report: %s: %s", type(error).__name__, error, exc_info=True)
        return None


def summarise(
    plan: Plan,
    records: TaskRecords,
    tables: RunTables,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Content of ``summary.json``.

    Every station task of the plan is in exactly one of done, empty and failed; the
    balance says so.
    """
    statuses, totals, told = records.counts(), records.totals(), records.with_texts()
    samples = _sample_balance(plan, records)
    ended = np.fromiter(records.ended("done", "empty"), dtype=np.int64)
    reasons = {
        **{
            s: _counted(_kind(record) for record in told.values() if record.status == s)
            for s in _ENDED
        },
        "files_failed": _counted(problem.error for problem in plan.problems),
    }
    instruments = Counter(task.instrument for task in plan.tasks.headings())
    return {
        **facts,
        "plan": {
            "layout": plan.layout,
            "instruments": dict(sorted(instruments.items())),
            "timechunks": len(plan.chunks),
            "station_tasks": len(plan.tasks),
            "files": len(plan.files),
            "files_unusable": len(plan.problems),
            "files_ignored": len(plan.ignored),
        },
        "tasks": statuses,
        "quarantined": sum(record.error == QuarantinedError.__name__ for record in told.values()),
        "skipped": plan.skipped,
        "balance": samples,
        "balanced": sum(statuses.values()) == len(plan.tasks)
        and samples["input"] == samples["picked"] + sum(samples["not_picked"].values()),
        "station_hours": round(station_hours(plan, ended, records.data_ns(ended)), 6),
        "picks": {"total": len(tables.picks), **dict(sorted(tables.picks.phases.items()))},
        "detections": None if tables.detections is None else len(tables.detections),
        "picks_outside_span": totals["n_outside"],
        "windows": totals["n_windows"],
        "samples": totals["n_samples"],
        "reasons": reasons,
        **{status: _listed(plan, told, status, reasons[status]) for status in _ENDED},
        "files_failed": [
            {"file": p.path, "error": p.error, "message": p.message}
            for p in _first_of_each(plan.problems, lambda p: p.error, reasons["files_failed"])
        ],
        "files_ignored": [
            {"file": path, "reason": reason}
            for path, reason in islice(plan.ignored.items(), MOST_LISTED)
        ],
        "notes": _notes(plan, told),
        **provenance(),
    }


def provenance() -> dict[str, Any]:
    """Versions and machine, for ``summary.json``."""
    return {
        "versions": package_versions(),
        "machine": {"system": platform.platform(), "python": platform.python_version()},
    }


def _sample_balance(plan: Plan, records: TaskRecords) -> dict[str, Any]:
    """Samples that were picked, and those that were not, by cause, most frequent first.

    Those of stations that failed before they were read are counted by headers at the ends of
    their files.
    """
    counts = records.sample_counts()
    unknown = int(planned_samples(plan, records.unknown()).sum())
    causes = Counter(dict(counts.left_out))
    if unknown:
        causes["failed"] += unknown
    return {
        "input": counts.held + unknown,
        "picked": counts.picked,
        "not_picked": dict(causes.most_common()),
        "by_file_ends": unknown,
    }


def _kind(record: PickOutcome) -> str:
    """Category of a task's failure: the error's class, or the reason up to its first colon."""
    return record.error or record.reason.partition(":")[0]


def _counted(kinds: Iterable[str]) -> dict[str, int]:
    """Number of tasks for each reason, most frequent first; rare reasons are added up."""
    counts = Counter(kinds).most_common()
    counted = dict(counts[:MOST_REASONS])
    if more := sum(count for _, count in counts[MOST_REASONS:]):
        counted[OTHERS] = more
    return counted


def _first_of_each(
    items: Iterable[_Item], kind_of: Callable[[_Item], str], kinds: Collection[str]
) -> Iterator[_Item]:
    """The first hundred of each kind."""
    seen: Counter[str] = Counter()
    for item in items:
        kind = kind_of(item)
        seen[kind] += 1
        if kind in kinds and seen[kind] <= MOST_LISTED:
            yield item


def _listed(
    plan: Plan, told: Mapping[int, PickOutcome], status: str, kinds: Collection[str]
) -> list[dict[str, str]]:
    mine = [(task, outcome) for task, outcome in told.items() if outcome.status == status]
    some = list(_first_of_each(mine, lambda item: _kind(item[1]), kinds))
    tasks = plan.tasks.headings(task for task, _ in some)
    listed = []
    for task, (_, record) in zip(tasks, some, strict=True):
        entry = {"station": task.name, "timechunk": task.chunk.name, "reason": record.reason}
        if record.error:
            entry["error"] = record.error
        listed.append(entry)
    return listed


def _notes(plan: Plan, told: Mapping[int, PickOutcome]) -> list[dict[str, Any]]:
    noted = dict([item for item in told.items() if item[1].notes][:MOST_LISTED])
    return [
        {"station": task.name, "timechunk": task.chunk.name, "notes": list(record.notes)}
        for task, record in zip(plan.tasks.headings(noted), noted.values(), strict=True)
    ]


def package_versions() -> dict[str, str]:
    """Versions of this package and of those that a result depends on."""
    return dict(_package_versions())


@cache
def _package_versions() -> tuple[tuple[str, str], ...]:
    from eqcctpro import __version__

    versions = {"eqcctpro": __version__}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return tuple(versions.items())


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``."""
    with atomic_file(path) as file:
        file.write(json.dumps(summary, indent=2, default=str).encode() + b"\n")


def span_text(plan: Plan) -> str:
    """First and last sample of the files of a plan, for the log."""
    spans = plan.files.spans()
    first, last = int(spans[:, 0].min()), int(spans[:, 1].max())
    return f"{format_utc(first, 'seconds')} to {format_utc(last, 'seconds')}"
