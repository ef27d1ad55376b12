"""Selection of comparable trials, and of the best one among them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from eqcctpro.errors import SettingsError
from eqcctpro.evaluation.configuration import BestConfiguration, are_tied, execution_settings
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.prediction import Estimate, Point, predict, predict_between_cpus
from eqcctpro.evaluation.results import Trial
from eqcctpro.waveform.gaps import LONGEST_GAP_S

__all__ = [
    "best_overall",
    "choose_workload",
    "measured_at",
    "nearest",
    "predicted_at",
    "rank",
    "usable",
]

# Settings that say what is computed: trials that differ in them did different work.
_WORK: Final = (
    *("p_threshold", "s_threshold", "detection_threshold", "bandpass", "window_grid"),
    *("model_arguments", "start", "end", "timechunk", "overlap", "p_model", "s_model"),
    *("fill_gaps", "longest_gap", "filters"),
)
# Of these, what trials of earlier versions did without a word.
_UNSAID: Final = {"fill_gaps": "none", "longest_gap": LONGEST_GAP_S, "filters": []}


def usable(trials: Iterable[Trial], *, gpus: bool) -> list[Trial]:
    """Trials that can be an answer.

    They succeeded, are no baselines, ran where asked, and their model is known.
    """
    return [
        trial
        for trial in trials
        if trial.success
        and trial.mode != "baseline"
        and bool(trial.gpus) == gpus
        and bool(trial.model)
    ]


def rank(
    options: Sequence[BestConfiguration],
    key: Callable[[BestConfiguration], Any] | None = None,
) -> BestConfiguration:
    """The best of some configurations, which knows its runner-up.

    The fastest wins; of those that its time cannot be told from, the one that takes least.
    With a `key`, the one with the smallest.
    """
    if key is None:
        fastest = min(options, key=lambda option: (option.seconds, option.cost))
        tied = [option for option in options if are_tied(fastest, option)]
        best = min(tied, key=lambda option: (option.cost, option.seconds))
        others = sorted(options, key=lambda option: option.seconds)
    else:
        best, *_ = others = sorted(options, key=key)
    second = next((option for option in others if option is not best), None)
    return replace(best, runner_up=second)


def best_overall(trials: Sequence[Trial]) -> tuple[BestConfiguration, list[str]]:
    """The best of one model at the largest station count, and notes on it."""
    same, notes = choose_workload(trials)
    most = max(trial.stations for trial in same)
    return rank(measured_at(same, most)), notes


def choose_workload(
    trials: Sequence[Trial], stations: int | None = None
) -> tuple[list[Trial], list[str]]:
    """Trials of one workload, which differ in stations only, and a note if there are more.

    This machine's come first, then those with the station count that is asked for, then the
    longest time span, then the newest.
    """
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_workload(trial), []).append(trial)
    here = describe_machine()

    def preference(group: list[Trial]) -> tuple[Any, ...]:
        first = group[0]
        exact = any(trial.stations == stations for trial in group)
        return (first.machine == here, exact, first.timespan_min or 0, group[-1].line)

    chosen = max(groups.values(), key=preference)
    if len(groups) == 1:
        return chosen, []
    span = chosen[0].timespan_min
    return chosen, [
        f"{len(groups) - 1} other workloads (time span, chunks, thresholds, machine) are in the "
        f"file; this is the one of {f'{span:g} min' if span else chosen[0].place}"
    ]


def measured_at(trials: Sequence[Trial], stations: int) -> list[BestConfiguration]:
    """Configurations measured with that many stations, all on the same ones."""
    cells: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.stations == stations:
            cells.setdefault(trial.cell_id, []).append(trial)
    if not cells:
        return []
    chosen = max(cells.values(), key=lambda cell: (len(cell), cell[-1].line))
    return [BestConfiguration.measured(trial) for trial in chosen]


def predicted_at(
    trials: Sequence[Trial], stations: int, cpus: int | None = None
) -> tuple[list[BestConfiguration], list[str]]:
    """Predictions with that many stations, and why there are no others.

    Parameters
    ----------
    trials : sequence of Trial
        Of one workload.
    stations : int
    cpus : int, optional
        Only with that many CPUs; with each measured number of them by default.
    """
    families: dict[tuple[Any, ...], dict[int, list[Trial]]] = {}
    for trial in trials:
        families.setdefault(_family(trial), {}).setdefault(trial.cpus, []).append(trial)
    found: list[BestConfiguration] = []
    reasons: dict[str, None] = {}
    for by_cpus in families.values():
        for attempt in _attempts(by_cpus, stations, cpus):
            try:
                found.append(attempt())
            except SettingsError as error:
                reasons[str(error)] = None
    return found, list(reasons)


def nearest(trials: Sequence[Trial], stations: int, cpus: int | None) -> str:
    """The nearest measured configurations, in words."""

    def distance(trial: Trial) -> tuple[float, float]:
        ratios = [trial.stations / stations, trial.cpus / cpus if cpus else 1.0]
        return sum(max(ratio, 1 / ratio) - 1 for ratio in ratios), trial.seconds

    kept: dict[tuple[int, int], Trial] = {}
    for trial in sorted(trials, key=distance):
        kept.setdefault((trial.stations, trial.cpus), trial)
    return "; ".join(
        f"{trial.stations} stations with {trial.cpus} CPU{'s' if trial.cpus > 1 else ''}: "
        f"{trial.seconds:.3g} s ({trial.place})"
        for trial in list(kept.values())[:3]
    )


@dataclass(frozen=True)
class _Curve:
    """Time and memory of one configuration at the asked-for station count."""

    seconds: Estimate
    ram: Estimate | None
    trials: tuple[Trial, ...]


def _attempts(
    by_cpus: Mapping[int, list[Trial]], stations: int, cpus: int | None
) -> Iterator[Callable[[], BestConfiguration]]:
    """Every way to predict something from one family."""
    if cpus is not None and cpus not in by_cpus:
        yield partial(_over_cpus, by_cpus, stations, cpus)
        return
    for count in by_cpus if cpus is None else [cpus]:
        for same in _by_batch(by_cpus[count]):
            # What was measured needs no prediction.
            if cpus is not None or all(trial.stations != stations for trial in same):
                yield partial(_over_stations, same, stations)


def _over_stations(trials: Sequence[Trial], stations: int) -> BestConfiguration:
    curve, like = _curve(trials, stations), trials[-1]
    return BestConfiguration.from_estimate(
        curve.seconds,
        curve.ram,
        basis=curve.trials,
        stations=stations,
        cpus=like.cpus,
        settings=execution_settings(like.settings),
    )


def _over_cpus(by_cpus: Mapping[int, list[Trial]], stations: int, cpus: int) -> BestConfiguration:
    fewer = max((count for count in by_cpus if count < cpus), default=None)
    more = min((count for count in by_cpus if count > cpus), default=None)
    if fewer is None or more is None:
        raise SettingsError(
            f"{cpus} CPUs are not between the {min(by_cpus)} to {max(by_cpus)} that one "
            "configuration was measured with"
        )
    low, high = (
        min(
            (_curve(same, stations) for same in _by_batch(by_cpus[count])),
            key=lambda curve: curve.seconds.value,
        )
        for count in (fewer, more)
    )
    ram = None
    if low.ram is not None and high.ram is not None:
        ram = max(low.ram, high.ram, key=lambda estimate: estimate.high)
    return BestConfiguration.from_estimate(
        predict_between_cpus((fewer, low.seconds), (more, high.seconds), cpus),
        ram,
        basis=(*low.trials, *high.trials),
        stations=stations,
        cpus=cpus,
        settings=_with_cpus(low.trials[-1], high.trials[-1], cpus),
    )


def _by_batch(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of each batch size."""
    sizes: dict[Any, list[Trial]] = {}
    for trial in trials:
        sizes.setdefault(trial.settings.get("batch_size"), []).append(trial)
    return list(sizes.values())


def _curve(trials: Sequence[Trial], stations: int) -> _Curve:
    times = [
        Point(trial.stations, trial.seconds, (trial.spread_percent or 0.0) / 100)
        for trial in trials
    ]
    memory = [Point(trial.stations, trial.ram_mb) for trial in trials if trial.ram_mb]
    seconds = predict(times, stations)
    ram = predict(memory, stations) if len(memory) == len(trials) else None
    return _Curve(seconds, ram, tuple(trials))


def _workload(trial: Trial) -> tuple[Any, ...]:
    work = {name: trial.settings.get(name, _UNSAID.get(name)) for name in _WORK}
    return (
        trial.model.casefold(),
        trial.timespan_min,
        trial.timechunk_min,
        trial.total_timechunks,
        json.dumps(work, sort_keys=True, default=str),
        trial.machine,
        trial.layout,
    )


def _family(trial: Trial) -> tuple[Any, ...]:
    """Configurations that differ in the number of CPUs and the size of batches only.

    The best batch grows with the threads, so that it may be another one for each number.
    """
    settings = execution_settings(trial.settings)
    for name in ("cpu_ids", "batch_size"):
        settings.pop(name, None)
    shape = tuple(
        "all" if (count := settings.pop(name, None)) == trial.cpus else count
        for name in ("workers", "threads")
    )
    return (trial.gpus, shape, json.dumps(settings, sort_keys=True, default=str))


def _with_cpus(fewer: Trial, more: Trial, cpus: int) -> dict[str, Any]:
    """Settings for a number of CPUs between those of two trials of one family."""
    settings = execution_settings(more.settings)
    for name in ("workers", "threads"):
        if settings.get(name) == more.cpus:
            settings[name] = cpus
    if settings.get("batch_size") != fewer.settings.get("batch_size"):
        settings.pop("batch_size", None)
    if "cpu_ids" in settings:
        settings["cpu_ids"] = list(settings["cpu_ids"])[:cpus]
    return settings
