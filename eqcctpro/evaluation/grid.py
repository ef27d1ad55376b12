"""The trials of a sweep: every combination of its axes that makes sense."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eqcctpro.config import PickConfig
from eqcctpro.evaluation.settings import PERCENT_STEPS, EvaluationConfig
from eqcctpro.evaluation.station_sets import StationSet
from eqcctpro.notices import gathered
from eqcctpro.places import local_paths
from eqcctpro.waveform.gaps import LONGEST_GAP_S

__all__ = [
    "COMPUTED",
    "TrialSpec",
    "concurrency_steps",
    "published_station_counts",
    "station_limit",
    "trial_specs",
]

# Settings of a run that say where results go, not what is measured.
_WHERE_ONLY = frozenset(
    {"input", "output", "log_file", "formats", "overview", "report", "stations"}
)
# Settings that trials of earlier versions did not know, and what they did.
_LATER: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("exclude", "channel_priority", "filters"), ([],)),
    "storage": ({},),
    "annotations": (False,),
    "fill_gaps": ("none",),
    "longest_gap": (LONGEST_GAP_S,),
}


@dataclass(frozen=True)
class TrialSpec:
    """One configuration to measure.

    Attributes
    ----------
    config : PickConfig
        What runs; its input is the station set's folder.
    station_set : StationSet
    baseline : str
        Name of a baseline, which takes from `config` what it can; empty for ours.
    configuration_id : str
        Of everything that affects the trial.
    cell_id : str
        Of what is computed: trials of one cell can be compared.
    """

    config: PickConfig
    station_set: StationSet
    baseline: str
    configuration_id: str
    cell_id: str

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        config = self.config
        what = self.baseline or config.mode
        parts = [config.model, what, f"{len(self.station_set.stations)} stations"]
        if config.workers is not None:
            parts.append(f"{config.workers} workers")
        if (chunks := self.station_set.timechunks) > 1:
            at_once = config.concurrent_timechunks
            parts.append(f"{chunks} time chunks" + (f", {at_once} at once" if at_once else ""))
        parts.append(f"{len(config.cpu_ids or ())} CPUs")
        if config.gpu_ids:
            parts.append(f"{len(config.gpu_ids)} GPUs")
        if config.runtime != "auto" and not self.baseline:
            parts.append(config.runtime)
        if config.batch_size is not None:
            parts.append(f"batch {config.batch_size}")
        return ", ".join(parts)


def published_station_counts(most: int, start: int = 1, step: int = 1) -> tuple[int, ...]:
    """EQCCTPro 0.8.2's station counts up to a number of stations.

    Parameters
    ----------
    most : int
        ``stations2use``.
    start, step : int
        ``starting_amount_of_stations`` and ``station_list_step_size``.

    Returns
    -------
    tuple of int
        Below ten stations all of them and nothing else.  With start 1 and step 1 the multiples
        of five from 10 on, and then every number from the last of them to `most`; else every
        step from `start` on, which may leave out `most`.
    """
    if most < 10:
        return (most,)
    if start == step == 1:
        last = most - most % 5
        return (*range(10, last, 5), *range(last, most + 1))
    return tuple(range(start, most + 1, step))


def concurrency_steps(
    stations: int, wanted: tuple[int, ...] | str, least: int = 1, step: int | None = None
) -> tuple[int, ...]:
    """Steps of concurrency for a number of stations.

    Parameters
    ----------
    stations : int
    wanted : tuple of int or {"percent", "max"}
    least : int
        Least number of ``"percent"`` and of `step`; of fewer stations all.
    step : int, optional
        In place of `wanted`: from `least` on by this step, and all.
    """
    least = min(least, stations)
    if step is not None:
        steps = [*range(least, stations, step), stations]
    elif wanted == "max":
        steps = [stations]
    elif wanted == "percent":
        steps = [max(round(stations * percent / 100), least) for percent in PERCENT_STEPS]
    else:
        steps = [int(value) for value in wanted if int(value) <= stations] or [stations]
    return tuple(dict.fromkeys(steps))


def trial_specs(
    config: EvaluationConfig,
    sets: dict[int, StationSet],
    environment: dict[str, Any],
) -> list[TrialSpec]:
    """Every trial, cell by cell, the small ones first.

    Parameters
    ----------
    config : EvaluationConfig
    sets : dict of int to StationSet
        By number of stations.
    environment : dict
        What else affects a trial: versions and the machine.
    """
    specs: dict[str, TrialSpec] = {}
    for stations in sorted(sets):
        chosen = sets[stations]
        for changes, baseline in _combinations(config, stations, chosen.timechunks):
            spec = _spec(config, chosen, changes, baseline, environment)
            specs.setdefault(spec.configuration_id, spec)
    return list(specs.values())


def _combinations(
    config: EvaluationConfig, stations: int, timechunks: int
) -> Iterator[tuple[dict[str, Any], str]]:
    """Changed settings, and the baseline's name, of each trial with so many stations."""
    for cpus in config.cpu_counts:
        cores = (config.pick.cpu_ids or tuple(range(cpus)))[:cpus]
        for gpus in config.gpu_counts:
            device = _device(config.pick.gpu_ids[:gpus])
            common = {"cpu_ids": cores, "device": device}
            for baseline in config.baselines:
                yield {**common, "mode": "local", "threads": cpus}, baseline
            for mode in config.modes:
                if mode == "local" and gpus > 1:
                    continue  # one process uses one GPU
                free = config.ripper_ignores_ram_cap and mode == "ripper"
                memory = {"ignore_ram_cap": True} if free else {}
                for concurrent in _concurrent(config, mode, stations, timechunks):
                    for runtime in config.runtimes:
                        for batch_size in config.batch_sizes:
                            yield (
                                {
                                    **common,
                                    **concurrent,
                                    **memory,
                                    "mode": mode,
                                    "runtime": runtime,
                                    "batch_size": batch_size,
                                },
                                "",
                            )


def _concurrent(
    config: EvaluationConfig, mode: str, stations: int, timechunks: int
) -> Iterator[dict[str, Any]]:
    if mode == "local":
        # One process takes all cores, as it does in a run.
        yield {"workers": None, "concurrent_timechunks": None, "threads": None}
        return
    for chunks in config.timechunk_concurrency:
        if chunks > timechunks and chunks > min(config.timechunk_concurrency):
            continue
        for workers in concurrency_steps(
            stations, config.concurrency, config.min_concurrency, config.concurrency_step
        ):
            yield {"workers": workers, "concurrent_timechunks": min(chunks, timechunks)}


def _device(gpu_ids: tuple[int, ...]) -> str:
    return "cuda:" + ",".join(map(str, gpu_ids)) if gpu_ids else "cpu"


def _spec(
    config: EvaluationConfig,
    chosen: StationSet,
    changes: dict[str, Any],
    baseline: str,
    environment: dict[str, Any],
) -> TrialSpec:
    base = {name: getattr(config.pick, name) for name in config.pick.model_fields_set}
    with gathered():  # a setting that only some trials heed was no mistake
        run = PickConfig.checked(
            **{
                **base,
                **changes,
                "input": (chosen.folder,),
                "layout": chosen.layout,
                "stations": chosen.stations if chosen.shared_files else (),
                "stations_at_most": None,
                "formats": ("csv",),
                "overview": False,
            }
        )
    settings = run.model_dump(mode="json", exclude=set(_WHERE_ONLY))
    # Trials keep the names that they had before there were these settings.
    settings = {k: v for k, v in settings.items() if v not in _LATER.get(k, ())}
    computed = {
        "stations": chosen.stations,
        "archive": [
            str(path.resolve()) for path in local_paths(config.pick.input, "an evaluation")
        ],
        "settings": {name: settings[name] for name in COMPUTED if name in settings},
    }
    everything = {
        **computed,
        "settings": settings,
        "baseline": baseline,
        "environment": environment,
    }
    return TrialSpec(run, chosen, baseline, _digest(everything), _digest(computed))


#: Settings that say what is computed, not how.
COMPUTED = (
    *("model", "p_model", "s_model", "model_arguments", "bandpass", "window_grid"),
    *("start", "end", "timechunk", "overlap", "exclude", "channel_priority"),
    *("p_threshold", "s_threshold", "detection_threshold"),
    *("fill_gaps", "longest_gap", "filters"),
)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def station_limit(counts: tuple[int, ...], available: int) -> tuple[int, ...]:
    """Station counts that the input has, the largest possible one in place of larger ones."""
    return tuple(dict.fromkeys(min(count, available) for count in counts))
