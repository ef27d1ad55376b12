"""One station of a run: three components, probability curves, picks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.hydrophones import has_hydrophone
from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import InputError, SettingsError
from eqcctpro.journal.task_table import read_tasks
from eqcctpro.models.picker import Picker
from eqcctpro.picks.annotations import BlockCurves
from eqcctpro.picks.reading import read_picks
from eqcctpro.pipeline.opening import pipeline_on
from eqcctpro.pipeline.prepare import prepare
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.report.run_data import Picks, load_summary, run_config, run_plan
from eqcctpro.report.style import PALETTE, new_figure, tidy
from eqcctpro.report.traces import PHASE_COLOURS, OverviewTrace, envelope
from eqcctpro.runtimes.base import Runtime
from eqcctpro.sources.files import FileCache
from eqcctpro.sources.task_waveforms import load_segments, task_waveforms
from eqcctpro.times import NS_PER_S, Time, format_utc, parse_utc
from eqcctpro.waveform.segments import Segment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eqcctpro.orchestration.result import RunResult

__all__ = ["plot_station", "station_curves"]

#: Shown when nothing else is asked for, seconds.
_LENGTH_S = 60.0

#: Before the first pick, as a share of what is shown.
_BEFORE = 0.2

_DAY_NS = 86_400 * NS_PER_S
_DASHES = ("-", "--", ":", "-.")


def plot_station(
    run: RunResult | Path | str,
    station: str,
    *,
    time: Time | None = None,
    length_s: float | None = None,
    instrument: str | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw the components of a station, the model's curves, and the run's picks.

    Waveforms are read from the archive again, and curves computed again from them with the run's
    model and settings, by torch on the CPU.

    Parameters
    ----------
    run : RunResult or path
        A run, or its output folder.
    station : str
        ``NET.STA``, ``STA`` or ``NET.STA.LOC.INSTRUMENT``.
    time : str, datetime or UTCDateTime, optional
        The middle of what is shown, UTC; by default the run's first pick of the station, or,
        where it has none, the highest probability of a phase, or the middle of the data.
    length_s : float, optional
        Seconds shown; 60 by default.
    instrument : str, optional
        Such as ``HH``, where a station has several.
    figure : matplotlib.figure.Figure, optional
        One to draw on, such as ``pyplot.figure()``.

    Returns
    -------
    matplotlib.figure.Figure
        `figure`, or one of its own: notebooks show it, and ``savefig`` writes it.

    Raises
    ------
    InputError
        The folder holds no run, the archive is not there any more, or the station has no data
        then.
    SettingsError
        No such station, or `time` or `length_s` is wrong.
    ModelError
        The run's model is not there any more.
    """
    folder = Path(run) if isinstance(run, Path | str) else Path(run.summary["settings"]["output"])
    if length_s is not None and not length_s > 0:
        raise SettingsError(f"length: {length_s} s is not above 0")
    tasks, picker_and_curves = _tasks(folder, station, instrument)
    picks = _picks(run, tasks[0])
    task, middle_ns = _when(_most_promising_first(folder, tasks), picks, time)
    picker, segments, curves, thresholds, reason = picker_and_curves(task)
    traces = [
        OverviewTrace(
            str(segment.code), segment.start_ns, segment.sampling_rate, segment.samples, task.name
        )
        for segment in segments
    ]
    at_pick = middle_ns is not None and time is None
    if middle_ns is None:
        middle_ns = _most_likely(curves, picker) or _middle(traces)
    length = length_s or _LENGTH_S
    start = middle_ns - round(length * (_BEFORE if at_pick else 0.5) * NS_PER_S)
    end = start + round(length * NS_PER_S)
    shown = [trace for trace in traces if trace.start_ns < end and trace.end_ns > start]
    if not shown:
        first = min(trace.start_ns for trace in traces)
        last = max(trace.end_ns for trace in traces)
        raise InputError(
            f"{task.name} has no data around {format_utc(middle_ns, 'seconds')}",
            hint=f"it has from {format_utc(first, 'seconds')} to {format_utc(last, 'seconds')}",
        )
    return _draw(figure, task, picker, shown, curves, thresholds, picks, start, end, reason)


def _most_promising_first(folder: Path, tasks: Sequence[StationTask]) -> list[StationTask]:
    """Time chunks by the highest probability of a phase in them, as far as the run knows it."""
    table = read_tasks(folder)
    if table is None or len(tasks) < 2:
        return list(tasks)
    names = ("network", "station", "location", "channel", "timechunk")
    codes = zip(*(table[name].to_pylist() for name in names), strict=True)
    p, s = (table[f"max_probability_{phase}"].to_pylist() for phase in "PS")
    known = {code: max(a or 0.0, b or 0.0) for code, a, b in zip(codes, p, s, strict=True)}

    def highest(task: StationTask) -> float:
        code = (task.network, task.station, task.location, task.instrument, task.chunk.name)
        return known.get(code, 0.0)

    return sorted(tasks, key=highest, reverse=True)


def _most_likely(curves: Sequence[BlockCurves], picker: Picker) -> int | None:
    """Time of the highest probability of a phase; None without curves."""
    best, when = -1.0, None
    rows = [list(picker.labels).index(phase) for phase in picker.phases]
    for curve in curves:
        values = np.nan_to_num(curve.values[rows], nan=-1.0).max(axis=0)
        if values.size and values.max() > best:
            best, when = float(values.max()), int(curve.times_ns[values.argmax()])
    return when


def _middle(traces: Sequence[OverviewTrace]) -> int:
    """The middle of the longest trace."""
    longest = max(traces, key=lambda trace: trace.end_ns - trace.start_ns)
    return (longest.start_ns + longest.end_ns) // 2


def _tasks(folder: Path, station: str, instrument: str | None) -> tuple[list[StationTask], Any]:
    """Tasks of the station, and what computes the curves of one."""
    summary = load_summary(folder)
    # Settings of the place do not matter here, and may not hold on this machine.
    from eqcctpro.config import ExecutionConfig

    elsewhere = {name: field.default for name, field in ExecutionConfig.model_fields.items()}
    elsewhere |= {"runtime": "torch", "stations_at_most": None}
    from eqcctpro.orchestration.model_choice import describe_run, find_run_weights
    from eqcctpro.runtimes.select import open_picker

    config = run_config(summary, **elsewhere)
    weights = find_run_weights(config)
    picker, settings = describe_run(config, weights)
    # Curves around a border need what lies beyond it, as in the run.
    plan = run_plan(config, settings.context_ns, hydrophone=has_hydrophone(picker.components))
    tasks = [task for task in plan.tasks if _is(task, station)]
    tasks = [task for task in tasks if instrument in (None, task.instrument)]
    if not tasks:
        known = sorted({f"{task.network}.{task.station}" for task in plan.tasks})
        raise SettingsError(
            f"{station}: no such station in {folder}",
            hint=f"there are {', '.join(known[:10])}"
            + (f" and {len(known) - 10} more" if len(known) > 10 else ""),
        )

    def curves(
        task: StationTask,
    ) -> tuple[Picker, list[Segment], list[BlockCurves], dict[str, float], str]:
        _, runtime = open_picker(weights, runtime="torch", threads=config.threads)
        segments, found, reason = station_curves(task, picker, runtime, settings)
        return picker, segments, found, settings.thresholds, reason

    return tasks, curves


def _is(task: StationTask, station: str) -> bool:
    names = (
        task.station,
        f"{task.network}.{task.station}",
        f"{task.network}.{task.station}.{task.location}",
        task.name,
        task.folder,
    )
    return station.upper() in {name.upper() for name in names}


def _picks(run: RunResult | Path | str, task: StationTask) -> Picks:
    """Picks of the task's instrument in all chunks."""
    if isinstance(run, Path | str):
        summary = load_summary(run)
        table = read_picks(run) if summary["picks"]["total"] else None
    else:
        table = run.table
    if table is None or not table.num_rows:
        from eqcctpro.picks.table import PICK_SCHEMA

        return Picks(PICK_SCHEMA.empty_table())
    wanted = (task.network, task.station, task.location, task.instrument)
    names = ("network", "station", "location", "channel")
    columns = [np.asarray([text or "" for text in table[name].to_pylist()]) for name in names]
    mask = np.logical_and.reduce(
        [column == code for column, code in zip(columns, wanted, strict=True)]
    )
    return Picks(table.filter(mask))


def _when(
    tasks: Sequence[StationTask], picks: Picks, time: Time | None
) -> tuple[StationTask, int | None]:
    """The task to draw, and the time to draw it around, if it is known before drawing."""
    if time is None:
        if not len(picks):
            return tasks[0], None
        moment = int(picks.time_ns.min())
    else:
        moment = parse_utc(time)
    for task in tasks:
        if task.chunk.own_start_ns <= moment < task.chunk.own_end_ns:
            return task, moment
    raise InputError(
        f"{tasks[0].name} was not picked at {format_utc(moment, 'seconds')}",
        hint=f"its time chunks are {', '.join(task.chunk.name for task in tasks[:5])}",
    )


def _draw(
    figure: Figure | None,
    task: StationTask,
    picker: Picker,
    traces: Sequence[OverviewTrace],
    curves: Sequence[BlockCurves],
    thresholds: dict[str, float],
    picks: Picks,
    start: int,
    end: int,
    reason: str,
) -> Figure:
    labels = sorted({trace.label for trace in traces}, key=lambda name: "ZNE12".find(name[-1:]))
    if figure is None:
        figure = new_figure(11.0, 1.4 + 1.35 * len(labels) + 1.6)
        if "IPython" in sys.modules:
            import matplotlib.pyplot  # noqa: F401 (tells notebooks how figures are shown)
    axes = figure.subplots(len(labels) + 1, 1, sharex=True, squeeze=False)[:, 0]
    for panel, label in zip(axes, labels, strict=False):
        for trace in (trace for trace in traces if trace.label == label):
            _trace(panel, trace, start, end)
        tidy(panel, xlabel="", ylabel="Counts")
        panel.text(0.005, 0.94, label, transform=panel.transAxes, va="top", family="monospace")
    _curves(axes[-1], picker, curves, thresholds, start, end)
    if reason:
        place = {"ha": "center", "va": "center", "transform": axes[-1].transAxes}
        axes[-1].text(0.5, 0.5, f"not picked: {reason}", **place)
    shown = (picks.time_ns >= start) & (picks.time_ns < end)
    for row in np.flatnonzero(shown):
        colour = PHASE_COLOURS.get(str(picks.phase[row]), PALETTE[2])
        for panel in axes:
            panel.axvline(picks.time_ns[row] / _DAY_NS, color=colour, linewidth=1.3, alpha=0.85)
    found = _picked(picks, shown) if shown.any() else _highest(curves, picker)
    _finish(axes, f"{task.name}  {picker.name}", found, start, end, any_picks=bool(shown.any()))
    return figure


def _picked(picks: Picks, shown: NDArray[np.bool_]) -> str:
    """The first picks that are shown, in words."""
    found = [
        f"{picks.phase[row]} {format_utc(int(picks.time_ns[row]), 'milliseconds')[11:-1]} "
        f"({picks.probability[row]:.2f})"
        for row in np.flatnonzero(shown)[:6]
    ]
    more = int(shown.sum()) - len(found)
    return ", ".join(found) + (f" and {more} more" if more > 0 else "")


def _highest(curves: Sequence[BlockCurves], picker: Picker) -> str:
    """The highest probability of each phase in the whole record, in words."""
    if not curves:
        return ""
    labels = list(picker.labels)
    values = {
        phase: max(float(np.nanmax(curve.values[labels.index(phase)])) for curve in curves)
        for phase in picker.phases
    }
    return "no picks here; highest in the record: " + ", ".join(
        f"{phase} {value:.2f}" for phase, value in values.items()
    )


def _trace(panel: Any, trace: OverviewTrace, start: int, end: int) -> None:
    step = NS_PER_S / trace.sampling_rate
    first = max(int((start - trace.start_ns) / step), 0)
    last = max(int((end - trace.start_ns) / step) + 1, 0)
    part = replace(
        trace,
        start_ns=trace.start_ns + round(first * step),
        samples=trace.samples[first:last],
    )
    if not part.samples.size:
        return
    days, samples = envelope(part, max((end - start) // 4000, 1))
    panel.plot(days, samples, color="#404040", linewidth=0.7)


def _curves(
    panel: Any,
    picker: Picker,
    curves: Sequence[BlockCurves],
    thresholds: dict[str, float],
    start: int,
    end: int,
) -> None:
    labels = [label for label in picker.labels if label in thresholds or label == "Detection"]
    if picker.detection_label is not None and picker.detection_label not in labels:
        labels.append(picker.detection_label)
    for number, label in enumerate(labels):
        row = list(picker.labels).index(label)
        colour = PHASE_COLOURS.get(label, PALETTE[2])
        name: str | None = label
        for curve in curves:
            times = curve.times_ns
            inside = (times >= start) & (times < end)
            if not inside.any():
                continue
            panel.plot(
                times[inside] / _DAY_NS,
                curve.values[row, inside],
                color=colour,
                linewidth=1.3,
                linestyle=_DASHES[0] if label in PHASE_COLOURS else _DASHES[number % 4],
                label=name,
            )
            name = None
        limit = thresholds.get("Detection" if label == picker.detection_label else label)
        if limit is not None:
            panel.axhline(limit, color=colour, linewidth=0.8, linestyle=":", alpha=0.8)
    tidy(panel, xlabel="", ylabel="Probability")
    panel.set_ylim(-0.02, 1.05)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=9, loc="upper right", ncols=4)


def _finish(axes: Any, name: str, found: str, start: int, end: int, *, any_picks: bool) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=9)
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    axes[-1].set_xlim(start / _DAY_NS, end / _DAY_NS)
    axes[-1].set_xlabel(
        f"UTC, from {format_utc(start, 'seconds')}; dotted lines are thresholds"
        if any_picks
        else f"UTC, from {format_utc(start, 'seconds')}; no picks, dotted lines are thresholds"
    )
    axes[0].set_title(name, loc="left", fontsize=11)
    axes[0].set_title(found, loc="right", fontsize=9)


def station_curves(
    task: StationTask, picker: Picker, runtime: Runtime, settings: PipelineSettings
) -> tuple[list[Segment], list[BlockCurves], str]:
    """Waveforms and curves of one station task.

    The pipeline is that of a run.

    Returns
    -------
    list of Segment
        As recorded, of every component.
    list of BlockCurves
    str
        Why there are no curves, such as that the record is too short; else empty.

    Raises
    ------
    InputError
        There are no waveforms; the message says why.
    """
    decoded = FileCache(needs_record=settings.needs_record).read(task, None, settings.context_ns)
    segments = load_segments(task, decoded, settings.context_ns)
    prepared = prepare(task_waveforms(task, decoded, settings), picker, settings)
    if prepared.ended is not None:
        reason = prepared.ended.reason
        if not segments:
            raise InputError(f"{task.name} in {task.chunk.name}: {reason}")
        return segments, [], reason
    prepared.keep_curves = True
    return segments, pipeline_on(picker, runtime, settings).pick_one(prepared).curves, ""
