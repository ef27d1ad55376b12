"""Input of a baseline: the stations of a workload, as the plan of a run lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from eqcctpro.archive.hydrophones import has_hydrophone
from eqcctpro.archive.plan import InputSettings, Plan, make_plan
from eqcctpro.archive.timechunks import Timechunk, read_span
from eqcctpro.config import PickConfig
from eqcctpro.errors import SettingsError
from eqcctpro.evaluation.subject import Workload
from eqcctpro.models.locations import COMPOSED_CLASSES
from eqcctpro.models.picker import Picker
from eqcctpro.models.weight_files import WeightFiles, split_name
from eqcctpro.orchestration.model_choice import describe_run, find_run_weights
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.places import local_paths

__all__ = [
    "BaselineInput",
    "BaselineJob",
    "StationInput",
    "failure_text",
    "list_stations",
    "resolve_job",
]

#: Settings that change what is computed in ways that only our pipeline knows.
_OURS_ONLY = {"window_grid": "trace", "bandpass": None, "fill_gaps": "none", "filters": ()}


@dataclass(frozen=True)
class StationInput:
    """One instrument of one station in one time chunk, and the files to read for it.

    Attributes
    ----------
    name : str
        ``NET.STA.LOC.INSTRUMENT``; the path of its folder or file if nothing is readable.
    station, folder : str
        Station code, and the station's folder, which may be empty.
    code : tuple of str
        Network, station, location and instrument; empty if unknown.
    chunk : Timechunk or None
        None where nothing readable says when it was recorded.
    span_ns : tuple of int or None
        What is read of the files; None reads all.
    files, unreadable : tuple of str
        All files, and those of them that cannot be read.
    """

    name: str
    station: str
    folder: str
    code: tuple[str, ...]
    chunk: Timechunk | None
    span_ns: tuple[int | None, int | None]
    files: tuple[str, ...]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class BaselineInput:
    """The stations of a workload.

    Attributes
    ----------
    stations : list of StationInput
        In the order of the plan.
    shared : Counter
        How many of the stations read each file.
    start_ns, end_ns : int
        First and last sample of all files.
    """

    stations: list[StationInput]
    shared: Counter[str]
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class BaselineJob:
    """Workload of a baseline, with every setting resolved."""

    workload: Workload
    config: PickConfig
    weights: WeightFiles
    picker: Picker
    settings: PipelineSettings

    @property
    def given_thresholds(self) -> dict[str, float]:
        """Thresholds that are not the model's own, as SeisBench's arguments name them."""
        named = {}
        for label, value in self.settings.thresholds.items():
            if value == self.picker.thresholds[label]:
                continue
            detection = label == self.picker.detection_label
            named["detection_threshold" if detection else f"{label}_threshold"] = value
        return named


def resolve_job(workload: Workload) -> BaselineJob:
    """Find the weights of a workload, and its thresholds.

    EQCCT is described in SeisBench's variant, the only one that others compute.

    Raises
    ------
    SettingsError
        A setting is wrong, or asks for what only this package computes.
    ModelError
        The weights cannot be found.
    """
    values: dict[str, Any] = dict(workload.settings)
    if split_name(workload.model)[0] in COMPOSED_CLASSES:
        values["model_arguments"] = {**values.get("model_arguments", {}), "variant": "seisbench"}
    config = PickConfig.checked(
        **(values | {"input": workload.input, "output": Path(), "model": workload.model})
    )
    for name, neutral in _OURS_ONLY.items():
        if getattr(config, name) not in (neutral, "off"):
            raise SettingsError(
                f"{name}: a baseline cannot compute this", hint="leave it out, or leave them out"
            )
    weights = find_run_weights(config)
    picker, settings = describe_run(config, weights)
    return BaselineJob(workload, config, weights, picker, settings)


def failure_text(failures: Mapping[str, str]) -> str:
    """The first failure in words, and the names of the others."""
    if not failures:
        return ""
    names = list(failures)
    others = f"; failed too: {', '.join(names[1:])}" if len(names) > 1 else ""
    return f"{names[0]}: {failures[names[0]]}{others}"


def list_stations(job: BaselineJob) -> BaselineInput:
    """List the stations of a workload from the headers of its files.

    A file that cannot be read belongs to the station in whose folder it lies, which
    will then fail when it is read; without one, it counts as a station of its own.

    Raises
    ------
    InputError
        There is nothing to read.
    SettingsError
        A name of the workload matches no station.
    """
    config = job.config
    everything = config.model_copy(update={"stations": (), "stations_at_most": None})
    hydrophone = has_hydrophone(job.picker.components)
    plan = make_plan(
        InputSettings.of(everything, context_ns=job.settings.context_ns, hydrophone=hydrophone)
    )
    inputs = local_paths(config.input, "a baseline")
    stations = _readable(plan, job.settings.context_ns) + _unreadable(plan, inputs)
    stations = _chosen(stations, job.workload.stations)
    extents = [extent for file in plan.files for extent in file.channels]
    return BaselineInput(
        stations,
        Counter(path for station in stations for path in station.files),
        min(extent.start_ns for extent in extents),
        max(extent.end_ns for extent in extents),
    )


def _readable(plan: Plan, context_ns: int) -> list[StationInput]:
    damaged = _damaged_by_folder(plan)
    owners = _station_folders(plan)
    stations = []
    for task in plan.tasks:
        folders = {str(Path(path).parent) for path in task.files}
        lost = [p for f in folders if len(owners[f]) == 1 for p in damaged.get(f, ())]
        stations.append(
            StationInput(
                task.name,
                task.station,
                task.folder,
                (task.network, task.station, task.location, task.instrument),
                task.chunk,
                read_span(task.chunk, context_ns),
                tuple(sorted({*task.files, *lost})),
                tuple(lost),
            )
        )
    return stations


def _unreadable(plan: Plan, inputs: Sequence[Path]) -> list[StationInput]:
    """Stations of which no file is readable, and damaged files that lie among several."""
    owners = _station_folders(plan)
    roots = {str(path) for path in inputs}
    lost: dict[str, list[str]] = {}
    for folder, paths in _damaged_by_folder(plan).items():
        if len(owners.get(folder, ())) == 1:
            continue
        whole = folder not in owners and folder not in roots
        for path in paths:
            lost.setdefault(folder if whole else path, []).append(path)
    return [
        StationInput(
            place,
            Path(place).name,
            Path(place).name,
            (),
            None,
            (None, None),
            tuple(files),
            tuple(files),
        )
        for place, files in lost.items()
    ]


def _damaged_by_folder(plan: Plan) -> dict[str, list[str]]:
    damaged: dict[str, list[str]] = {}
    for problem in plan.problems:
        damaged.setdefault(str(Path(problem.path).parent), []).append(problem.path)
    return damaged


def _station_folders(plan: Plan) -> dict[str, set[str]]:
    """Codes of the stations that have files in each folder."""
    owners: dict[str, set[str]] = {}
    for task in plan.tasks:
        for path in task.files:
            owners.setdefault(str(Path(path).parent), set()).add(task.station)
    return owners


def _chosen(stations: Sequence[StationInput], patterns: Sequence[str]) -> list[StationInput]:
    if not patterns:
        return list(stations)
    by_name: dict[str, list[int]] = {}
    for index, station in enumerate(stations):
        for name in _names(station):
            by_name.setdefault(name.upper(), []).append(index)
    chosen: set[int] = set()
    for pattern in patterns:
        found = _found(stations, by_name, pattern.upper())
        if not found:
            raise SettingsError(f"stations: no station matches {pattern!r}")
        chosen.update(found)
    return [stations[index] for index in sorted(chosen)]


def _found(
    stations: Sequence[StationInput], by_name: Mapping[str, list[int]], pattern: str
) -> list[int]:
    """Stations that a pattern means; one without wildcards is a name, which is found fast."""
    if set("*?[") & set(pattern):
        names = [name for name in by_name if fnmatchcase(name, pattern)]
        return [index for name in names for index in by_name[name]]
    if pattern in by_name or "." not in pattern:
        return by_name.get(pattern, [])
    # What is unreadable has no name but its folder's, which is the station's code.
    code = pattern.split(".")[1]
    return [index for index in by_name.get(code, []) if not stations[index].code]


def _names(station: StationInput) -> list[str]:
    """Every way to name a station, as the plan knows them."""
    names = [station.folder, station.station]
    if station.code:
        network, code, location, _ = station.code
        names += [f"{network}.{code}", f"{network}_{code}", f"{network}.{code}.{location}"]
        names.append(station.name)
    return names
