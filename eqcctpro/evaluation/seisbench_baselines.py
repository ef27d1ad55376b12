"""SeisBench's own ways to pick an archive, as benchmark subjects.

Each reads with ObsPy, picks with SeisBench, and writes a CSV file of picks.
"""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from eqcctpro.evaluation.baseline_input import (
    BaselineInput,
    StationInput,
    failure_text,
    list_stations,
    resolve_job,
)
from eqcctpro.evaluation.subject import Outcome, Workload
from eqcctpro.models.description import without_description
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.runtimes.slices import available_cores

__all__ = ["SEISBENCH_BATCH_SIZE", "SeisbenchSubject", "Way"]

Way = Literal["classify-stations", "reload-stations", "classify-merged", "annotate-merged"]

#: What SeisBench takes when it is not told.
SEISBENCH_BATCH_SIZE = 256

_COLUMNS = ("trace_id", "phase", "peak_time", "start_time", "end_time", "peak_value")


class SeisbenchSubject:
    """Picks with SeisBench on torch.

    Stations are read as the plan of a run lists them, one time chunk at a time, and a pick
    counts in the chunk that owns its peak.  EQCCT is EQCCTP and EQCCTS on what was read once,
    with SeisBench's windows, normalisation and thresholds.

    Parameters
    ----------
    workload : Workload
    way : {"classify-stations", "reload-stations", "classify-merged", "annotate-merged"}
        ``classify`` on every station, on every station with the model loaded anew for
        each, or on all of a time chunk; or ``annotate`` on all of a time chunk, and the
        picks that ``classify`` would take from that.
    threads : int, optional
        Of torch on a CPU; None for one a core.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    batch_size : int, optional
        None for SeisBench's own.

    Notes
    -----
    Of the stages, ``decode`` is reading with ObsPy, ``infer`` the network with its
    normalisation (the device is synchronised around it), ``pick`` what turns curves into
    picks, and ``prepare`` the rest of SeisBench's work: filtering, resampling, grouping,
    cutting and stacking.
    """

    def __init__(
        self,
        workload: Workload,
        way: Way,
        *,
        threads: int | None = None,
        device: str = "cpu",
        batch_size: int | None = None,
    ) -> None:
        self._workload = workload
        self._way = way
        self._threads = threads or available_cores()
        self._device = device
        self._batch_size = batch_size or SEISBENCH_BATCH_SIZE
        self._models: list[_Probed] = []
        self._threads_before: int | None = None

    def prepare(self) -> dict[str, Any]:
        """Load the model; see `eqcctpro.evaluation.subject.Subject`.

        Raises
        ------
        EQCCTProError
            The workload asks for what SeisBench cannot do, or the model or device is not here.
        """
        import torch

        from eqcctpro.resources.devices import resolve

        resolve(self._device)
        self._job = resolve_job(self._workload)
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        started = time.perf_counter()
        self._models = self._load()
        return {
            "runtime": "torch",
            "device": self._device,
            "batch_size": self._batch_size,
            "workers": 1,
            "threads": torch.get_num_threads(),
            "model_load_s": time.perf_counter() - started,
            "notes": self._comments(),
            "versions": {name: version(name) for name in ("seisbench", "torch", "obspy")},
        }

    def run(self, output: Path) -> Outcome:
        """Pick the workload once; see `eqcctpro.evaluation.subject.Subject`."""
        run = _Run()
        started = time.perf_counter()
        source = list_stations(self._job)
        run.stages["plan"] = time.perf_counter() - started
        reader = _Reader(source)
        for members in _by_chunk(source.stations):
            if self._way.endswith("merged"):
                self._pick_merged(run, reader, members)
            else:
                self._pick_each(run, reader, members)
        writing = time.perf_counter()
        _write(run.rows, output / "picks.csv")
        run.stages["write"] = time.perf_counter() - writing
        return run.outcome(source.stations, time.perf_counter() - started)

    def close(self) -> None:
        """Forget the model, and give torch its threads back."""
        self._models = []
        if self._threads_before is not None:
            import torch

            torch.set_num_threads(self._threads_before)
            self._threads_before = None

    def _load(self) -> list[_Probed]:
        from eqcctpro.models.seisbench import load_module

        return [
            _Probed(
                load_module(
                    part.parent, part.weight_path, part.metadata_path, dict(part.described)
                ),
                part,
                self._device,
            )
            for part in self._job.weights.single_files
        ]

    def _comments(self) -> str:
        names = " and ".join(part.name for part in self._job.weights.single_files)
        call, _, of = self._way.partition("-")
        call = {"reload": "model loaded for every station, classify"}.get(call, call)
        return f"SeisBench {names}: {call}, {of}, read with ObsPy"

    def _pick_each(self, run: _Run, reader: _Reader, stations: list[StationInput]) -> None:
        for station in stations:
            try:
                stream = run.timed("decode", reader.read, station)
                if self._way == "reload-stations":
                    self._models = run.timed("prepare", self._load)
                self._pick(run, stream, [station])
            except Exception as error:  # counted as a failure of this station, by name
                run.failures[station] = error

    def _pick_merged(self, run: _Run, reader: _Reader, stations: list[StationInput]) -> None:
        import obspy

        merged = obspy.Stream()
        readable = []
        for station in stations:
            try:
                merged += run.timed("decode", reader.read, station)
                readable.append(station)
            except Exception as error:  # counted as a failure of this station, by name
                run.failures[station] = error
        try:
            self._pick(run, merged, readable)
        except Exception as error:  # it fails for all that were in the call
            run.failures.update(dict.fromkeys(readable, error))

    def _pick(self, run: _Run, stream: Any, stations: list[StationInput]) -> None:
        if not stations:
            return
        found = []
        for model in self._models:
            before = dict(model.seconds)
            started = time.perf_counter()
            found += self._call(model, stream)
            seconds = time.perf_counter() - started
            for stage in ("infer", "pick"):
                spent = model.seconds[stage] - before[stage]
                run.stages[stage] += spent
                seconds -= spent
            run.stages["prepare"] += seconds
            run.annotated |= {(_chunk_name(stations[0]), name) for name in model.annotated}
        run.rows += [pick for pick in found if _owned(pick, stations[0])]

    def _call(self, model: _Probed, stream: Any) -> list[Any]:
        arguments = self._arguments(model)
        if self._way != "annotate-merged":
            return list(model.module.classify(stream, **arguments).picks)
        annotations = model.module.annotate(stream, **arguments)
        settled = {**model.module.default_args, **arguments}
        return list(model.module.classify_aggregate(annotations, settled).picks)

    def _arguments(self, model: _Probed) -> dict[str, Any]:
        """Arguments for SeisBench: thresholds, and the workload's model arguments."""
        given = without_description(self._job.config.model_arguments)
        given.pop("variant", None)
        branch = model.part.parent.removeprefix("EQCCT")
        thresholds = {
            name: value
            for name, value in self._job.given_thresholds.items()
            if not self._job.weights.parts or name == f"{branch}_threshold"
        }
        return {**given, **thresholds, "batch_size": self._batch_size}


class _Probed:
    """A model of SeisBench that says how long its parts take, and whom it annotated.

    The hooks that SeisBench lets subclasses replace are wrapped on this one model.
    """

    def __init__(self, module: Any, part: WeightFiles, device: str) -> None:
        self.module = module.to(device)
        self.part = part
        self.seconds = {"infer": 0.0, "pick": 0.0}
        self.annotated: set[str] = set()
        self._on_gpu = device != "cpu"
        self._began = 0.0
        self._before, self._after = module.annotate_batch_pre, module.annotate_batch_post
        self._aggregate = module.classify_aggregate
        module.annotate_batch_pre = self._batch_begins
        module.annotate_batch_post = self._batch_ends
        module.classify_aggregate = self._find_picks

    def _now(self) -> float:
        if self._on_gpu:
            import torch

            torch.cuda.synchronize(self.module.device)
        return time.perf_counter()

    def _batch_begins(self, *arguments: Any, **named: Any) -> Any:
        self._began = self._now()
        return self._before(*arguments, **named)

    def _batch_ends(self, *arguments: Any, **named: Any) -> Any:
        result = self._after(*arguments, **named)
        self.seconds["infer"] += self._now() - self._began
        return result

    def _find_picks(self, annotations: Any, *arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        result = self._aggregate(annotations, *arguments, **named)
        self.seconds["pick"] += time.perf_counter() - started
        self.annotated = {_station_id(trace) for trace in annotations}
        return result


class _Reader:
    """Reads stations with ObsPy; a file that several stations share is read once."""

    def __init__(self, source: BaselineInput) -> None:
        self._uses = source.shared.copy()
        self._kept: dict[str, Any] = {}

    def read(self, station: StationInput) -> Any:
        import obspy

        stream = obspy.Stream()
        for path in station.files:
            stream += self._file(path, station)
        if station.code:
            network, code, location, instrument = station.code
            stream = stream.select(network, code, location, f"{instrument}?")
        start_ns, end_ns = station.span_ns
        if start_ns is not None or end_ns is not None:
            stream = stream.slice(_utc(start_ns), _utc(end_ns))
        return stream

    def _file(self, path: str, station: StationInput) -> Any:
        import obspy

        self._uses[path] -= 1
        if path in self._kept:
            return self._kept[path] if self._uses[path] else self._kept.pop(path)
        if self._uses[path]:
            self._kept[path] = obspy.read(path)
            return self._kept[path]
        start_ns, end_ns = station.span_ns
        return obspy.read(path, starttime=_utc(start_ns), endtime=_utc(end_ns))


class _Run:
    """State of a run that is under way."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = dict.fromkeys(("decode", "prepare", "infer", "pick"), 0.0)
        self.rows: list[Any] = []
        self.annotated: set[tuple[str, str]] = set()
        self.failures: dict[StationInput, Exception] = {}

    def timed(self, stage: str, work: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return work(*arguments)
        finally:
            self.stages[stage] += time.perf_counter() - started

    def outcome(self, stations: list[StationInput], seconds: float) -> Outcome:
        alive = [station for station in stations if station not in self.failures]
        done = sum((_chunk_name(one), ".".join(one.code[:3])) in self.annotated for one in alive)
        failures = {
            one.name: f"{type(error).__name__}: {error}" for one, error in self.failures.items()
        }
        return Outcome(
            seconds,
            self.stages,
            done,
            len(alive) - done,
            len(failures),
            dict(Counter(pick.phase for pick in self.rows)),
            failure_text(failures),
        )


def _by_chunk(stations: list[StationInput]) -> list[list[StationInput]]:
    """Stations of each time chunk."""
    chunks: dict[str, list[StationInput]] = {}
    for station in stations:
        chunks.setdefault(_chunk_name(station), []).append(station)
    return list(chunks.values())


def _chunk_name(station: StationInput) -> str:
    return "" if station.chunk is None else station.chunk.name


def _station_id(trace: Any) -> str:
    return f"{trace.stats.network}.{trace.stats.station}.{trace.stats.location}"


def _owned(pick: Any, station: StationInput) -> bool:
    chunk = station.chunk
    return chunk is None or chunk.own_start_ns <= pick.peak_time.ns < chunk.own_end_ns


def _utc(time_ns: int | None) -> Any:
    from obspy import UTCDateTime

    return None if time_ns is None else UTCDateTime(ns=time_ns)


def _write(picks: list[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for pick in picks:
            times = (pick.peak_time, pick.start_time, pick.end_time)
            writer.writerow([pick.trace_id, pick.phase, *times, pick.peak_value])
