"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa

from eqcctpro.config import PickConfig
from eqcctpro.picks.writers import atomic_file
from eqcctpro.report.monitor import monitor_figures
from eqcctpro.report.page import Figure, render, seconds_text
from eqcctpro.report.record_section import record_section
from eqcctpro.report.run_data import RunData, StationFiles, load_run, station_of
from eqcctpro.report.run_figures import run_figures
from eqcctpro.times import format_utc

__all__ = ["REPORT", "write_report"]

#: Name of the page in a run's output folder.
REPORT: Final = "report.html"

#: Reasons and notes of which all stations are named, and how many of the others.
_MOST_NAMED = 200

_FEWEST_MOMENTS = 5

_FILES: Final = {
    "picks_csv": "Picks (CSV)",
    "picks_parquet": "Picks (Parquet)",
    "detections_csv": "Detections (CSV)",
    "detections_parquet": "Detections (Parquet)",
    "overview": "Overview picture",
    "tasks": "Station tasks (Parquet)",
    "summary": "Summary (JSON)",
    "log": "Log",
    "station_folders": "Results of each station",
}


def write_report(
    folder: Path | str,
    *,
    stations: StationFiles = None,
    table: pa.Table | None = None,
    output: Path | str | None = None,
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    folder : path
        The run's output folder.  The archive is read again for waveforms and gaps; where it is
        not there any more, the report goes without them.
    stations : path or sequence of path, optional
        StationXML or FDSN text with coordinates; by default one in the folders of the
        waveforms or of the results is taken.
    table : pyarrow.Table, optional
        The picks, when they are at hand.
    output : path, optional
        The page; ``report.html`` in `folder` by default.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        The folder holds no finished run, or `stations` cannot be read.
    OutputError
        The page cannot be written.
    """
    data = load_run(folder, stations=stations, table=table)
    path = Path(output).expanduser() if output else data.folder / REPORT
    figures = run_figures(data)
    if (section := record_section(data)) is not None:
        figures["record_section"] = section
    # Of a run that was over at once there is nothing to see.
    brief = len(data.summary.get("monitor") or ()) < _FEWEST_MOMENTS
    monitor = [] if brief else monitor_figures(data.summary)
    page = render("report.html.j2", **_values(data, figures, monitor, path.parent))
    with atomic_file(path) as file:
        file.write(page.encode())
    return path


def _values(
    data: RunData, figures: Mapping[str, Figure], monitor: list[Figure], where: Path
) -> dict[str, Any]:
    summary = data.summary
    return {
        "title": f"Picks of {summary.get('model', 'a run')}",
        "summary": summary,
        "tasks": summary["tasks"],
        "picks": {name: count for name, count in summary["picks"].items() if name != "total"},
        "span": _span_text(data),
        "took": _took(summary),
        "station_count": len(data.stations),
        "asked": _asked(summary),
        "done": _done(summary),
        "problems": _problems(data),
        "notes": _notes(data),
        "missing": data.missing,
        "files": _files(data, where),
        "figures": figures,
        "monitor": monitor,
        "rows": _rows(data),
    }


def _span_text(data: RunData) -> str:
    span = data.span_ns
    if span is None:
        return ""
    start, end = (format_utc(time, "seconds") for time in span)
    return f"{start} to {end} ({seconds_text((span[1] - span[0]) / 1e9)})"


def _took(summary: Mapping[str, Any]) -> float:
    return sum(
        value for value in summary.get("seconds", {}).values() if isinstance(value, int | float)
    )


def _asked(summary: Mapping[str, Any]) -> dict[str, str]:
    """Settings that differ from the defaults, and the ones that everybody looks for."""
    given = summary["settings"]
    fields = PickConfig.model_fields
    shown = {
        "input": _text(given.get("input")),
        "output": _text(given.get("output")),
        "model": _text(given.get("model")),
    }
    for name, value in given.items():
        default = fields[name].get_default(call_default_factory=True) if name in fields else None
        default = list(default) if isinstance(default, tuple) else default
        if name not in shown and value != default and value not in (None, [], {}):
            shown[name] = _text(value)
    return {name.replace("_", " "): value for name, value in shown.items()}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return str(value)


def _applied(summary: Mapping[str, Any]) -> dict[str, str | None]:
    """Thresholds and arguments that applied, whoever set them; for a methods section."""
    applied = summary.get("applied")
    if not applied:  # the run is of an earlier version
        return {}
    rate, band, filtered = applied["sampling_rate"], applied["bandpass"], applied["filter"]
    window = f"{applied['window_samples']:,} samples"
    window += f" at {rate:g} Hz" if rate else ""
    return {
        "Thresholds": _text(applied["thresholds"]),
        "Arguments": _text({name: _text(value) for name, value in applied["arguments"].items()}),
        "Window": f"{window}, moved by {applied['window_step']:,}, grid {applied['window_grid']}, "
        f"components {applied['component_order']}",
        "Gaps filled": _gaps(applied),
        "Filters": "; ".join(applied.get("filters") or ()) or None,
        "Band-pass": None if band is None else f"{band[0]:g} to {band[1]:g} Hz",
        "Labels": _text(applied.get("labels", ())),
        "Normalisation": applied.get("norm"),
        "Filter of the weights": None if filtered is None else str(filtered),
    }


def _gaps(applied: Mapping[str, Any]) -> str | None:
    """Describe the filling of gaps; None if gaps were not to be filled."""
    how, longest = applied.get("fill_gaps"), applied.get("longest_gap")
    return f"{how}, up to {longest:g} s" if how and longest is not None else None


#: What the modes are, for readers who do not know them.
_MODES = {
    "local": "local (one process)",
    "modelactor": "modelactor (Ray workers that keep the model)",
    "ripper": "ripper (Ray tasks that load the model, pick and end)",
}


def _done(summary: Mapping[str, Any]) -> dict[str, str]:
    """Describe the execution of the run: layout, mode, runtime, weights, resources."""
    plan, weights = summary.get("plan", {}), summary.get("weights", {})
    use = summary.get("resources", {})
    threads = summary.get("threads_per_worker")
    workers = summary.get("workers", 1)
    mode = summary.get("mode")
    how = f"{_MODES.get(str(mode), mode)}, {workers} worker{'' if workers == 1 else 's'}"
    how += f" with {threads} threads" if threads else ""
    lines = {
        "Run": summary.get("run_id"),
        "Layout": f"{plan.get('layout')}, {plan.get('timechunks'):,} time chunks, "
        f"{plan.get('station_tasks'):,} station tasks, {plan.get('files'):,} files",
        "Mode": how,
        "Executed by": f"{summary.get('runtime')} on {summary.get('device')}, "
        f"batches of {summary.get('batch_size')}",
        "Weights": f"{weights.get('file')} (version {weights.get('version')}, "
        f"{weights.get('source')})",
        "SHA-256": weights.get("sha256"),
        **_applied(summary),
        "Picked": f"{summary.get('windows', 0):,} of {summary.get('samples', 0):,} samples",
        "Memory": f"{use['peak_pss_mb']:,.0f} MB at most" if use.get("peak_pss_mb") else None,
        "CPU time": seconds_text(use["cpu_s"]) if use.get("cpu_s") else None,
        "Adaptations": "; ".join(map(str, summary.get("adaptations") or ())) or None,
        "Limits": "; ".join(map(str, summary.get("limits") or ())) or None,
        "Versions": _text(summary.get("versions", {})),
        "Machine": _text(summary.get("machine", {})),
    }
    return {name: str(value) for name, value in lines.items() if value}


def _problems(data: RunData) -> list[dict[str, Any]]:
    """Failed and empty tasks and files by reason, most frequent first."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in data.told:
        if item["status"] != "done":
            found[item["status"], item["reason"]].append(f"{item['station']} {item['timechunk']}")
    for item in data.summary.get("files_failed", ()):
        found["failed", _without(item["message"], item["file"])].append(item["file"])
    return _listed(found)


def _without(message: str, path: str) -> str:
    """A message that is the same for all files."""
    return message.replace(path, "file").strip()


def _notes(data: RunData) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in data.told:
        for note in item["notes"]:
            found["note", note].append(f"{item['station']} {item['timechunk']}")
    return _listed(found)[:_MOST_NAMED]


def _listed(found: Mapping[tuple[str, str], list[str]]) -> list[dict[str, Any]]:
    order = sorted(found, key=lambda key: (key[0] != "failed", -len(found[key]), key[1]))
    return [
        {
            "status": status,
            "reason": reason,
            "count": len(found[status, reason]),
            "named": found[status, reason][:_MOST_NAMED],
            "more": max(len(found[status, reason]) - _MOST_NAMED, 0),
        }
        for status, reason in order
    ]


def _files(data: RunData, where: Path) -> list[dict[str, str]]:
    """Links from the page to what the run wrote, as far as it is there."""
    files = []
    for kind, recorded in data.summary.get("paths", {}).items():
        # The folder may have been moved since.
        path = data.folder / Path(recorded).name if Path(recorded) != data.folder else data.folder
        if kind == "station_folders":
            path = data.folder
        if kind == "report" or not path.exists():
            continue
        link = os.path.relpath(path, where).replace(os.sep, "/")
        files.append(
            {
                "label": _FILES.get(kind, kind.replace("_", " ")),
                "name": path.name,
                "link": quote(link),
                "size": "" if path.is_dir() else _size(path.stat().st_size),
            }
        )
    return files


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:,.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"


def _rows(data: RunData) -> list[dict[str, Any]]:
    """A row for each station: how its tasks ended, its picks and its data."""
    of_status = {
        status: [item for item in data.told if item["status"] == status]
        for status in ("failed", "empty")
    }
    ended = {
        status: Counter(station_of(item["station"]) for item in items)
        for status, items in of_status.items()
    }
    reasons: dict[str, str] = {}
    for item in (*of_status["failed"], *of_status["empty"]):
        reasons.setdefault(station_of(item["station"]), item["reason"])
    tasks: Counter[str] = Counter()
    if data.plan is not None:
        tasks.update(f"{task.network}.{task.station}" for task in data.plan.tasks)
    span = data.span_ns
    whole = (span[1] - span[0]) / 1e9 if span else 0.0
    return [
        _row(data, name, tasks[name], ended, reasons.get(name, ""), whole) for name in data.stations
    ]


def _row(
    data: RunData,
    name: str,
    tasks: int,
    ended: Mapping[str, Counter[str]],
    reason: str,
    whole: float,
) -> dict[str, Any]:
    failed, empty = ended["failed"][name], ended["empty"][name]
    counts = {phase: data.picks.counts.get((name, phase), 0) for phase in ("P", "S")}
    held = data.coverage.get(name)
    hours = held.seconds / 3600 if held else 0.0
    status = "failed" if failed else "empty" if empty and empty >= tasks else "done"
    return {
        "station": name,
        "status": status,
        "tasks": tasks or None,
        "P": counts["P"],
        "S": counts["S"],
        "rate": round(sum(counts.values()) / hours, 2) if hours else None,
        "data": round(100 * held.seconds / whole, 2) if held and whole else None,
        "gaps": held.gaps if held else None,
        "gap_s": round(held.gap_seconds, 1) if held else None,
        "reason": reason,
    }
