"""The summary of an efficiency analysis, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from eqcctpro.analysis.efficiency_metrics import GPU_COST, chunks_text
from eqcctpro.analysis.trials import METHODS, concurrency_name
from eqcctpro.evaluation.results import Trial

__all__ = ["comparison_text", "summary_text"]

_WIDTH = 78
_PICKER, _RATE = "Picker Time (s)", "Picker Throughput (Stations/s)"
_TRIAL, _WHOLE = "Trial Time (s)", "Throughput (Stations/s)"
_EFFICIENCY, _GAIN = "Parallel Efficiency", "Marginal Gain of a Worker (Stations/s)"

FORMULAS = f"""\
Throughput                 = stations / time of the whole trial, as "trial st/s"
Picker throughput          = stations / picker time, as "picker st/s"
Effective concurrency      = ModelActors, or Ripper tasks at a time, that really ran
Parallel efficiency        = gain in picker throughput over the fewest workers / ratio of workers
Marginal gain of a worker  = picker throughput gained over the next smaller number of workers,
                             for each worker added; same work, CPUs, GPUs, runtime and batch size
Share of time in the model = inference / all stages, added up over workers
Real-time stations         = time of the stations' data / slowest repeat: how many stations are
                             picked as fast as their data come, in pieces as long as a trial's
RAM utilisation            = measured / planned memory of all processes; in files of EQCCTPro
                             and RAPID measured / requested memory of the workers
Resource cost score        = CPUs + {GPU_COST} x GPUs"""


def summary_text(
    table: pd.DataFrame, trials: Sequence[Trial], mode: str, desired: float | None
) -> str:
    """Everything that the trials of one model and mode say.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `eqcctpro.analysis.efficiency_metrics.efficiency_table`.
    trials : sequence of Trial
        With those that failed.
    mode : str
    desired : float or None
        Seconds.
    """
    first = next(trial for trial in trials if trial.success)
    failed = [trial for trial in trials if not trial.success]
    lines = [
        "=" * _WIDTH,
        f"EFFICIENCY OF {first.model}, {METHODS.get(mode, mode).upper()}",
        "=" * _WIDTH,
        f"{len(table)} trials of {len(trials)} succeeded; {_origin(first)}",
        _division(trials),
        *(
            f"  failed: trial {t.number} ({t.place}): {t.error or 'no reason given'}"
            for t in failed
        ),
        *_section("How it is computed", FORMULAS.splitlines()),
        *_section("Best configurations", _best(table, trials)),
        *_section("Desired runtime", _desired(table, trials, desired)),
        *_section(f"What more {concurrency_name(trials).lower()} do", _workers(table)),
        *_section("What more CPUs do", _cpus(table)),
        *_section("Workload", _workload(table)),
        *_section("Where the time goes", _stages(table)),
        *_section("Memory", _memory(table)),
        *_section("Correlation with picker time", _correlations(table)),
    ]
    return "\n".join(lines) + "\n"


def comparison_text(table: pd.DataFrame, trials: Sequence[Trial]) -> str:
    """Compare the methods of one model at the station counts they share."""
    lines = [
        "=" * _WIDTH,
        f"COMPARISON OF METHODS, {trials[0].model}",
        "=" * _WIDTH,
        "Fastest configuration of each method at each number of stations",
        "",
    ]
    best = table.loc[table.groupby(["Stations", "Approach"])[_PICKER].idxmin()].copy()
    fastest = best.groupby("Stations")[_PICKER].transform("min")
    best["Times Fastest"] = best[_PICKER] / fastest
    columns = {
        "Stations": "stations",
        "Approach": "method",
        "CPUs": "CPUs",
        "GPU Count": "GPUs",
        "Effective Concurrency": "workers",
        _PICKER: "picker s",
        _TRIAL: "trial s",
        _RATE: "picker st/s",
        _WHOLE: "trial st/s",
        "Measured RAM (MB)": "RAM MB",
        "Times Fastest": "x fastest",
    }
    lines += _frame(best.sort_values(["Stations", _PICKER]), columns)
    lines += ["", "All trials, means", ""]
    means = table.groupby("Approach")[[_PICKER, _TRIAL, _RATE, _WHOLE, "Measured RAM (MB)"]].mean()
    lines += means.to_string(float_format="%.3g").splitlines()
    return "\n".join(lines) + "\n"


def _origin(trial: Trial) -> str:
    who = "this version" if trial.layout == "ours" else f"{trial.layout} (one run of each)"
    return f"measured by {who}" + (f" on {trial.machine}" if trial.machine else "")


def _division(trials: Sequence[Trial]) -> str:
    texts = sorted({chunks_text(trial) for trial in trials if trial.success})
    return "time chunks of a trial: " + "; ".join(texts)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, "-" * len(title), *lines] if lines else []


def _frame(table: pd.DataFrame, columns: dict[str, str]) -> list[str]:
    """Columns under shorter names; those without any value are left out."""
    kept = {
        name: short
        for name, short in columns.items()
        if table[name].notna().any() and (table[name] != "").any()
    }
    text = table[list(kept)].rename(columns=kept)
    for name in text.columns:
        if pd.api.types.is_float_dtype(text[name]):
            text[name] = [_number(value) for value in text[name]]
    return text.to_string(index=False).splitlines()


def _number(value: float) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _describe(row: Any) -> str:
    return (
        f"{_resources(row)}: {_count(row['Stations'], 'station')} in {row[_PICKER]:.3g} s "
        f"(picker {row[_RATE]:.3g} st/s, trial {row[_WHOLE]:.3g} st/s)"
    )


def _resources(row: Any) -> str:
    parts = [_count(row["CPUs"], "CPU"), _count(row["Effective Concurrency"], "worker")]
    if row["GPU Count"]:
        parts.insert(1, _count(row["GPU Count"], "GPU"))
    return ", ".join(parts)


def _count(value: float, noun: str) -> str:
    return f"{value:,.0f} {noun}{'' if value == 1 else 's'}"


def _best(table: pd.DataFrame, trials: Sequence[Trial]) -> list[str]:
    most = table["Stations"].max()
    largest = table[table["Stations"] == most]
    lines = [
        f"Fastest with {most:.0f} stations:  {_describe(largest.loc[largest[_PICKER].idxmin()])}",
        f"Most picker throughput:   {_describe(table.loc[table[_RATE].idxmax()])}",
        f"Most for its cost:        "
        f"{_describe(table.loc[table['Throughput per Cost Unit'].idxmax()])}",
    ]
    live = table["Real-time Stations"]
    if live.notna().any():
        row = table.loc[live.idxmax()]
        span = next(t.timechunk_min or t.timespan_min for t in trials if t.timespan_min)
        lines.append(
            f"Real time:                about {_count(row['Real-time Stations'], 'station')} with "
            f"{_resources(row)}, in pieces of {span:g} min"
        )
    return lines


def _desired(table: pd.DataFrame, trials: Sequence[Trial], desired: float | None) -> list[str]:
    if desired is None:
        return []
    slowest = pd.Series([trial.seconds_max for trial in trials if trial.success])
    keeping = table[(slowest <= desired).to_numpy()]
    if keeping.empty:
        return [f"No trial ended within {desired:g} s."]
    lines = [f"{len(keeping)} of {len(table)} trials end within {desired:g} s."]
    for stations, part in keeping.groupby("Stations"):
        row = part.sort_values(["Resource Cost Score", "Effective Concurrency", _PICKER]).iloc[0]
        lines.append(f"  smallest for {stations} stations: {_describe(row)}")
    return lines


def _workers(table: pd.DataFrame) -> list[str]:
    scaled = table[table[_EFFICIENCY].notna()]
    if scaled.empty:
        return ["No trials differ in the number of workers only."]
    columns = {
        "Stations": "stations",
        "CPUs": "CPUs",
        "GPU Count": "GPUs",
        "Effective Concurrency": "workers",
        "Variant": "variant",
        _PICKER: "picker s",
        _TRIAL: "trial s",
        _RATE: "picker st/s",
        _WHOLE: "trial st/s",
        _EFFICIENCY: "efficiency",
        _GAIN: "gain/worker",
    }
    order = ["Stations", "CPUs", "GPU Count", "Effective Concurrency", _PICKER]
    return _frame(scaled.sort_values(order), columns)


def _cpus(table: pd.DataFrame) -> list[str]:
    """The best time at each number of CPUs, at the station count with most of them."""
    counts = table.groupby("Stations")["CPUs"].nunique()
    if counts.max() < 2:
        return []
    stations = counts[counts == counts.max()].index.max()
    best = table[table["Stations"] == stations].groupby("CPUs")[_PICKER].min()
    fewest = best.index.min()
    lines = [f"Fastest with {stations} stations:", "  CPUs  picker s  speed-up  efficiency"]
    for cpus, seconds in best.items():
        speedup = best[fewest] / seconds
        lines.append(
            f"  {cpus:4d}  {seconds:8.3g}  {speedup:8.3g}  {speedup / (cpus / fewest):10.0%}"
        )
    return lines


def _workload(table: pd.DataFrame) -> list[str]:
    names = ("stations", "trials", "best picker s", "median picker s", "best picker st/s")
    lines = ["  ".join(("", *names, "best trial st/s"))]
    for stations, part in table.groupby("Stations"):
        lines.append(
            f"  {stations:8d}  {len(part):6d}  {part[_PICKER].min():13.3g}  "
            f"{part[_PICKER].median():15.3g}  {part[_RATE].max():16.3g}  {part[_WHOLE].max():15.3g}"
        )
    return lines


def _stages(table: pd.DataFrame) -> list[str]:
    lines = []
    shares = table["Share of Time in Model (%)"].dropna()
    if len(shares):
        lines.append(
            f"Share of time in the model: {shares.median():.0f} % "
            f"({shares.min():.0f} to {shares.max():.0f} %)"
        )
    for name in ("Start of Workers (s)", "Loading of the Model (s)", "Warm-up Time (s)"):
        if name in table and pd.to_numeric(table[name], errors="coerce").notna().any():
            values = pd.to_numeric(table[name], errors="coerce")
            lines.append(f"{name}: {values.mean():.3g} on average, {values.max():.3g} at most")
    return lines


def _memory(table: pd.DataFrame) -> list[str]:
    measured, requested = table["Measured RAM (MB)"], table["Requested RAM (MB)"]
    if measured.isna().all():
        return []
    lines = [f"Measured: {measured.mean():,.0f} MB on average, {measured.max():,.0f} MB at most"]
    if requested.notna().any():
        use = table["Calculated RAM Utilization (%)"].dropna()
        lines.append(
            f"Planned or requested: {requested.mean():,.0f} MB on average; "
            f"measured is {use.median():.0f} % of it ({use.min():.0f} to {use.max():.0f} %)"
        )
    each = table["RAM per Concurrency Unit (MB)"].dropna()
    lines.append(f"For each worker: {each.median():,.0f} MB (median)")
    return lines


def _correlations(table: pd.DataFrame) -> list[str]:
    names = ("Stations", "CPUs", "GPU Count", "Effective Concurrency")
    return list(_correlated(table, names))


def _correlated(table: pd.DataFrame, names: Sequence[str]) -> Iterator[str]:
    if len(table) < 3:
        return
    for name in names:
        if table[name].nunique() > 1:
            value = table[name].corr(table[_PICKER])
            yield f"  {name:24s}{value:+.2f}  ({'slower' if value > 0 else 'faster'} with more)"
