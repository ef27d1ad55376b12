"""The columns of ``cpu_test_results.csv`` and ``gpu_test_results.csv``: one table.

The first 38 are those of EQCCTPro 0.8.2, in its order and with its definitions, so that scripts
that read its files keep reading ours; the rest are ours.  `docs/evaluation.md` has a line on
each of ours, and on each of the others that is measured in another way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from eqcctpro.config import PickConfig
    from eqcctpro.evaluation.subject import Outcome
    from eqcctpro.evaluation.trial import TrialResult

__all__ = [
    "CANONICAL_CSV_HEADER",
    "CONCURRENCY",
    "EARLIER_NAMES",
    "ESSENTIAL",
    "OUR_COLUMNS",
    "PUBLISHED_COLUMNS",
    "RIPPER",
    "RIPPER_TASKS",
    "STAGE_COLUMNS",
    "model_name",
    "published_name",
    "trial_row",
]

#: How many stations were asked to be picked at a time.
CONCURRENCY: Final = "Number of Concurrent Station Tasks"
RIPPER_TASKS: Final = "Actual Ripper Concurrent Tasks"

#: The word by which Comments of EQCCTPro's files name the mode.
RIPPER: Final = "[RIPPER MODE]"

#: What EQCCTPro adds to its request for each actor or task, MB.
_TASK_RAM_MB: Final = 256.0
_TASK_VRAM_MB: Final = 128.0

_NOUNS: Final = {"modelactor": "actors", "ripper": "tasks"}

#: Stages of a run and their columns; seconds are added up over workers.
STAGE_COLUMNS: Final = {
    "plan": "Plan Time (s)",
    "decode": "Decode Time (s)",
    "prepare": "Prepare Time (s)",
    "infer": "Inference Time (s)",
    "pick": "Pick Time (s)",
    "write": "Write Time (s)",
}


def model_name(text: str) -> str:
    """A model as ``Parent/child``."""
    return "EQCCT/original" if text.strip().lower() == "eqcct" else text.strip()


def published_name(model: str) -> str:
    """A model as EQCCTPro's files name it: ``eqcct``, or ``Parent/child``."""
    return "eqcct" if model_name(model) == "EQCCT/original" else model


@dataclass(frozen=True)
class _Trial:
    """The arguments of `trial_row`, and what several columns need of them."""

    result: TrialResult
    environment: Mapping[str, Any]
    seed: int | None

    def fact(self, name: str) -> Any:
        """Value that the subject reported when it was ready; None if it did not."""
        return self.result.facts.get(name)

    @property
    def run(self) -> PickConfig:
        return self.result.spec.config

    @cached_property
    def mode(self) -> str:
        return "baseline" if self.result.spec.baseline else self.run.mode

    @cached_property
    def workers(self) -> int:
        """Workers that really ran; those that were asked for, if it never came to that."""
        return int(self.fact("workers") or self.run.workers or 1)

    @cached_property
    def requested(self) -> int:
        """Workers that were asked for; by default as many as there are cores or GPUs."""
        asked = self.run.workers or self.fact("requested_workers")
        return int(asked or self.workers)

    @cached_property
    def median(self) -> Outcome | None:
        return self.result.median() if self.result.repeats else None

    @cached_property
    def seconds(self) -> list[float]:
        return [run.seconds for run in self.result.repeats]

    @cached_property
    def load_s(self) -> float | None:
        """Seconds in which tasks loaded the model, where they do."""
        return self.median.load_s if self.median else None

    @cached_property
    def total_ram_mb(self) -> float | None:
        return self._total(self.fact("requested_ram_mb"), _TASK_RAM_MB)

    @cached_property
    def total_vram_mb(self) -> float | None:
        return self._total(self.fact("requested_vram_mb"), _TASK_VRAM_MB)

    def _total(self, each: float | None, more: float) -> float | None:
        return None if each is None else self.workers * (each + more)

    @cached_property
    def tree_ram_mb(self) -> float | None:
        return self.result.use.peak_rss_mb or None

    @cached_property
    def tree_vram_mb(self) -> float | None:
        return _sum(self.result.use.peak_vram_mb)

    @cached_property
    def pss_mb(self) -> float | None:
        """Highest memory of all processes, pages that they share counted once."""
        return self.result.use.peak_pss_mb or None

    def of_median(self, value: Callable[[Outcome], Any]) -> Any:
        """Something of the median repeat; None without any."""
        return value(self.median) if self.median else None

    @property
    def total_s(self) -> float | None:
        """As published: one run with everything that comes before it."""
        if self.median:
            return self.result.prepare_s + self.median.seconds
        return self.result.total_s or None

    @property
    def comments(self) -> str:
        """As EQCCTPro writes them: the mode of Ripper trials, and why there are fewer workers."""
        ripper = f"{RIPPER} Task-based approach (no ModelActors)"
        comments = [ripper] if self.mode == "ripper" else []
        if self.mode in _NOUNS and self.workers < self.requested:
            known = [one for one in self.fact("limits") or () if ", created " in one]
            words = f"Requested {self.requested} {_NOUNS[self.mode]}, created {self.workers}"
            comments += known or [words]
        return "; ".join(comments)

    @property
    def settings(self) -> str:
        """Requested settings, with those that the run chose itself filled in."""
        spec = self.result.spec
        settings = spec.config.model_dump(
            mode="json", exclude_none=True, exclude={"input", "output", "stations", "log_file"}
        )
        if not spec.baseline:
            chosen = {name: self.fact(name) for name in ("runtime", "batch_size", "threads")}
            settings |= {name: value for name, value in chosen.items() if value is not None}
            if spec.config.mode != "local":
                settings["workers"] = self.workers
        return json.dumps(settings)


class _Column(NamedTuple):
    """A column of the files.

    Attributes
    ----------
    name : str
        With the unit.
    value : callable
        What a trial has there; None leaves the cell empty.
    essential : bool
        A row without it says nothing that a finder could use.
    earlier : str
        Its name in versions before EQCCTPro 0.7.
    """

    name: str
    value: Callable[[_Trial], Any]
    essential: bool = False
    earlier: str = ""


def _run(value: Callable[[Any], Any]) -> Callable[[_Trial], Any]:
    """A column that says what was asked of the run."""
    return lambda trial: value(trial.run)


def _use(value: Callable[[Any], Any]) -> Callable[[_Trial], Any]:
    """A column that says what the processes took."""
    return lambda trial: value(trial.result.use)


def _fact(name: str) -> Callable[[_Trial], Any]:
    return lambda trial: trial.fact(name)


def _median(value: Callable[[Outcome], Any]) -> Callable[[_Trial], Any]:
    return lambda trial: trial.of_median(value)


def _stage(name: str) -> _Column:
    return _Column(STAGE_COLUMNS[name], _median(lambda run: run.stages.get(name)))


def _stations(value: Callable[[Any], Any]) -> Callable[[_Trial], Any]:
    """A column that says which data were picked."""
    return lambda trial: value(trial.result.spec.station_set)


#: EQCCTPro 0.8.2's columns.
_PUBLISHED: Final = (
    _Column("Trial Number", lambda _: None),  # given by the file that the row is added to
    _Column("Model Used", _run(lambda run: published_name(run.model))),
    _Column("Number of Stations Used", _stations(lambda one: len(one.stations)), essential=True),
    _Column(
        "Number of CPUs Allocated for Ray to Use",
        _run(lambda run: len(run.cpu_ids or ())),
        essential=True,
    ),
    _Column("GPUs Used", _run(lambda run: str(list(run.gpu_ids)))),
    _Column("N ModelActors", lambda t: t.workers if t.mode == "modelactor" else 0),
    _Column(
        CONCURRENCY,
        lambda t: t.requested,
        earlier="Number of Stations Running Predictions Concurrently",
    ),
    _Column(RIPPER_TASKS, lambda t: t.workers if t.mode == "ripper" else None),
    _Column("Concurrent Timechunks Used", _run(lambda run: run.concurrent_timechunks or 1)),
    _Column("Total Number of Timechunks", _stations(lambda one: one.timechunks)),
    _Column("Length of Timechunk (min)", _stations(lambda one: one.chunk_minutes)),
    _Column("Total Waveform Analysis Timespace (min)", _stations(lambda one: one.span_minutes)),
    _Column("Requested VRAM per Actor (MB)", _fact("requested_vram_mb")),
    _Column("Requested RAM per Actor (MB)", _fact("requested_ram_mb")),
    _Column("Total Requested VRAM (MB)", lambda t: t.total_vram_mb),
    _Column("Total Requested RAM (MB)", lambda t: t.total_ram_mb),
    _Column("Process Tree VRAM (MB)", lambda t: t.tree_vram_mb),
    _Column("Num GPU Processes", _use(lambda use: use.gpu_processes)),
    _Column("Process Tree RAM (MB)", lambda t: t.tree_ram_mb),
    _Column("Peak RAM (MB)", _use(lambda use: use.root_rss_mb or None)),
    _Column("RAM Growth (MB)", lambda t: _minus(t.tree_ram_mb, t.result.use.start_rss_mb)),
    _Column("Num Worker Processes", _use(lambda use: use.ray_workers)),
    _Column("VRAM Overhead (MB)", lambda t: _minus(t.tree_vram_mb, t.total_vram_mb)),
    _Column("RAM Overhead (MB)", lambda t: _minus(t.tree_ram_mb, t.total_ram_mb)),
    _Column("VRAM Utilization (%)", lambda t: _percent(t.tree_vram_mb, t.total_vram_mb)),
    _Column("RAM Utilization (%)", lambda t: _percent(t.tree_ram_mb, t.total_ram_mb)),
    _Column("Total Trial Time (s)", lambda t: t.total_s),
    _Column(
        "Actor Creation Time (s)", lambda t: t.fact("start_s") if t.mode == "modelactor" else None
    ),
    _Column("Avg Model Load Time (s)", lambda t: t.load_s if t.mode == "ripper" else None),
    _Column("Waveform Processing Time (s)", _median(lambda run: _waveforms(run))),
    _Column("Total Run time for Picker (s)", _median(lambda run: run.seconds), essential=True),
    _Column("Intra-parallelism Threads", lambda t: t.fact("threads") or t.run.threads),
    _Column("Inter-parallelism Threads", _run(lambda run: run.inter_threads or 1)),
    _Column(
        "Inference Actor Memory Limit (MB)", _fact("vram_limit_mb"), earlier="VRAM Used Per Task"
    ),
    _Column("Trial Success", lambda t: int(t.result.success), essential=True),
    _Column("Error Message", lambda t: t.result.error),
    _Column("Comments", lambda t: t.comments),
    _Column("Stations Used", _stations(lambda one: str(list(one.stations)))),
)

#: What we add.
_OURS: Final = (
    # what ran
    _Column("Configuration ID", lambda t: t.result.spec.configuration_id),
    _Column("Cell ID", lambda t: t.result.spec.cell_id),
    _Column("Mode", lambda t: t.mode),
    _Column("Baseline", lambda t: t.result.spec.baseline),
    _Column("Workers", lambda t: t.workers),
    _Column("Runtime", lambda t: t.fact("runtime") or t.run.runtime),
    _Column("Device", _run(lambda run: run.device)),
    _Column("Batch Size", lambda t: t.fact("batch_size") or t.run.batch_size),
    _Column("Settings (JSON)", lambda t: t.settings),
    _Column("Station Seed", lambda t: t.seed),
    # how often, and how far apart
    _Column("Repeats", lambda t: len(t.seconds)),
    _Column("Picker Time Min (s)", lambda t: min(t.seconds, default=None)),
    _Column("Picker Time Max (s)", lambda t: max(t.seconds, default=None)),
    _Column(
        "Picker Time Spread (%)",
        lambda t: t.of_median(lambda r: 100 * (max(t.seconds) - min(t.seconds)) / r.seconds),
    ),
    # what comes before the first run; tasks load the model where no worker has loaded it before
    _Column("Start Time (s)", _fact("start_s")),
    _Column(
        "Model Load Time (s)", lambda t: t.fact("model_load_s") if t.load_s is None else t.load_s
    ),
    # where the time of the median repeat went
    *map(_stage, STAGE_COLUMNS),
    _Column("Warm-up Time (s)", lambda t: sum(run.seconds for run in t.result.warm_ups) or None),
    _Column("CPU Time (s)", _use(lambda use: use.cpu_s or None)),
    # memory of all processes, pages that they share counted once
    _Column("Peak PSS (MB)", lambda t: t.pss_mb),
    _Column("PSS Growth (MB)", lambda t: _minus(t.pss_mb, t.result.use.start_pss_mb)),
    _Column("Planned RAM (MB)", _fact("planned_ram_mb")),
    _Column("PSS Utilization (%)", lambda t: _percent(t.pss_mb, t.fact("planned_ram_mb"))),
    _Column("Processes", _use(lambda use: use.processes or None)),
    # what came out
    _Column("Station Tasks Done", _median(lambda run: run.done)),
    _Column("Station Tasks Empty", _median(lambda run: run.empty)),
    _Column(
        "Station Tasks Failed", lambda t: max((r.failed for r in t.result.repeats), default=None)
    ),
    _Column("P Picks", _median(lambda run: run.picks.get("P", 0))),
    _Column("S Picks", _median(lambda run: run.picks.get("S", 0))),
    _Column(
        "Stations per Second",
        lambda t: t.of_median(lambda r: len(t.result.spec.station_set.stations) / r.seconds),
    ),
    _Column(
        "Notes", lambda t: "; ".join(filter(None, (*(t.fact("limits") or ()), t.fact("notes"))))
    ),
    # energy, where a counter can be read
    _Column(
        "GPU Energy (J)",
        _use(lambda use: _sum(use.gpu_energy_j)),
    ),
    _Column("CPU Energy (J)", lambda t: t.result.cpu_energy_j),
    # where and with what
    _Column("EQCCTPro Version", lambda t: t.environment["versions"]["eqcctpro"]),
    _Column("Versions (JSON)", lambda t: json.dumps(t.environment["versions"])),
    _Column("Machine", lambda t: t.environment["machine"]),
    _Column("Recorded At", lambda _: datetime.now(UTC).isoformat(timespec="seconds")),
)

_COLUMNS: Final = _PUBLISHED + _OURS

PUBLISHED_COLUMNS: Final[tuple[str, ...]] = tuple(column.name for column in _PUBLISHED)
OUR_COLUMNS: Final[tuple[str, ...]] = tuple(column.name for column in _OURS)

#: All columns, in the order of the files.
CANONICAL_CSV_HEADER: Final[tuple[str, ...]] = PUBLISHED_COLUMNS + OUR_COLUMNS

ESSENTIAL: Final = tuple(column.name for column in _COLUMNS if column.essential)

#: Present names of columns by their earlier ones.
EARLIER_NAMES: Final = {column.earlier: column.name for column in _COLUMNS if column.earlier}


def trial_row(
    result: TrialResult, environment: Mapping[str, Any], *, seed: int | None = None
) -> dict[str, Any]:
    """A trial in the columns of `CANONICAL_CSV_HEADER`, but for the number.

    Parameters
    ----------
    result : TrialResult
    environment : mapping
        ``machine`` and ``versions``.
    seed : int, optional
        Of the choice of stations.
    """
    trial = _Trial(result, environment, seed)
    return {column.name: column.value(trial) for column in _COLUMNS[1:]}


def _waveforms(run: Outcome) -> float | None:
    """Seconds of decoding and preparation for a station task."""
    known = [run.stages[name] for name in ("decode", "prepare") if name in run.stages]
    return sum(known) / max(run.done + run.empty + run.failed, 1) if known else None


def _sum(of_each: Mapping[int, float]) -> float | None:
    return sum(of_each.values()) if of_each else None


def _minus(used: float | None, less: float | None) -> float | None:
    return None if used is None or less is None else used - less


def _percent(used: float | None, requested: float | None) -> float | None:
    return None if used is None or not requested else 100 * used / requested
