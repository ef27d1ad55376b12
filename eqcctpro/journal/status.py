"""Progress and state of the run in an output folder: running, dead, interrupted or finished."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from eqcctpro.errors import InputError, OutputError
from eqcctpro.journal.folder import RunFolder
from eqcctpro.journal.lock import Holder, holder_at_work
from eqcctpro.journal.partition_record import IN_PARTITIONS, finished_partitions
from eqcctpro.journal.store import WAITING, Attempt, JournalStore
from eqcctpro.times import format_utc

__all__ = ["PartitionReach", "RunStatus", "read_status"]

CODES = ("network", "station", "location", "channel")

State = Literal["running", "dead", "interrupted", "finished"]


@dataclass(frozen=True)
class PartitionReach:
    """Progress of a run in partitions.

    Attributes
    ----------
    partitions : int
        Finished ones.
    reached, end : str or None
        Last time with data that is picked, and the estimated end of the archive, UTC.
    station_days : float
        Days of data that are picked, over all stations.
    times_real_time : float or None
        Data in the time that it took to pick them.
    """

    partitions: int
    reached: str | None
    end: str | None
    station_days: float
    times_real_time: float | None


@dataclass(frozen=True)
class RunStatus:
    """Status of a run, read from its journal or its summary.

    Attributes
    ----------
    output : Path
    state : {"running", "dead", "interrupted", "finished"}
    ending : str or None
        What ended the last attempt: ``"interrupted"``, or an error.
    counts : dict of str to int
        Station tasks ``waiting``, ``done``, ``empty`` and ``failed``; they add up to `total`.
    total : int
        Station tasks of the plan.
    quarantined : int
        Number of failed ones that killed their workers.
    skipped : dict of str to int
        Number of instruments, stations or station tasks that each rule of the plan left out.
    files_unusable : int
    failures : list of dict
        Station, time chunk, error and reason.
    rate : float or None
        Station tasks per second, in the last attempt.
    seconds_left : float or None
        Estimate at that rate; None unless the run is running.
    attempts : list of Attempt
        Empty if there is no journal: in a run's first second, or after it has finished
        without failures.
    folder : str or None
        Working directory of the last attempt, to which relative paths of its command refer.
    holder : Holder or None
        Process that writes to the folder now.
    reach : PartitionReach or None
        Of a run in partitions, whose number of waiting station tasks is an estimate.
    """

    output: Path
    state: State
    ending: str | None
    counts: dict[str, int]
    total: int
    quarantined: int
    skipped: dict[str, int]
    files_unusable: int
    failures: list[dict[str, str]]
    rate: float | None
    seconds_left: float | None
    attempts: list[Attempt]
    folder: str | None = None
    holder: Holder | None = None
    reach: PartitionReach | None = None

    @property
    def advice(self) -> str | None:
        """Advice on what to do next; None if there is nothing to do."""
        if self.state in ("dead", "interrupted"):
            command = f": {self.attempts[-1].command}" if self.attempts else ""
            elsewhere = self.folder is not None and self.folder != str(Path.cwd())
            where = f" in {self.folder}" if elsewhere else ""
            return f"run the same command again{where}, and it goes on{command}"
        if self.state == "finished" and self.failures:
            return "the same command with --resume picks again what failed"
        return None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        last = self.attempts[-1] if self.attempts else None
        return {
            "output": str(self.output),
            "state": self.state,
            "ending": self.ending,
            "station_tasks": {**self.counts, "total": self.total},
            "quarantined": self.quarantined,
            "skipped": self.skipped,
            "files_unusable": self.files_unusable,
            "per_second": self.rate,
            "seconds_left": self.seconds_left,
            "attempts": len(self.attempts),
            **{
                name: getattr(last or self.holder, name, None)
                for name in ("pid", "host", "mode", "command")
            },
            "folder": self.folder,
            "partitions": None if self.reach is None else asdict(self.reach),
            "advice": self.advice,
            "failures": self.failures,
        }


def read_status(output: Path) -> RunStatus:
    """Read the status of the run in an output folder, without changing anything there.

    Raises
    ------
    InputError
        There is no journal of a run.
    OutputError
        The journal cannot be read.
    """
    folder = RunFolder(output)
    facts: dict[str, Any] = {}
    if folder.has_journal:
        store = JournalStore(folder.journal, writable=False)
        try:
            if facts := store.facts():
                attempts, counts, failures = store.attempts(), store.counts(), store.troubles()
        finally:
            store.close()
    if not facts:
        return _without_record(folder)
    state = _state(folder, facts, attempts[-1])
    reach: PartitionReach | None = None
    if facts.get(IN_PARTITIONS):
        reach, counts, failures = _partitions(folder, facts, failures)
        facts |= {"items": sum(counts.values())}
    rate, left = _pace(attempts[-1], counts.get(WAITING, 0), running=state == "running")
    return RunStatus(
        output,
        state,
        attempts[-1].ending,
        {name: counts.get(name, 0) for name in (WAITING, "done", "empty", "failed")},
        facts["items"],
        sum(item["error"] == "QuarantinedError" for item in failures),
        facts["skipped"],
        facts["files_unusable"],
        failures,
        rate,
        left,
        attempts,
        facts.get("folder"),
        reach=reach,
    )


def _partitions(
    folder: RunFolder, facts: Mapping[str, Any], failures: list[dict[str, str]]
) -> tuple[PartitionReach, dict[str, int], list[dict[str, str]]]:
    """Progress of a run in partitions, with the station tasks of the partition under way."""
    finished = finished_partitions(facts)
    counts = Counter[str]()
    for one in finished:
        counts.update(one.tasks)
        failures = [*failures, *({"status": "failed", **item} for item in one.summary["failed"])]
    under_way = folder.partition(max((one.number for one in finished), default=-1) + 1)
    now: Counter[str] = Counter()
    with suppress(OutputError):  # it may just be finished
        if under_way.has_journal:
            store = JournalStore(under_way.journal, writable=False)
            try:
                now.update(store.counts())
                failures = [*failures, *store.troubles()]
            finally:
                store.close()
    done = sum(now.values()) - now[WAITING]
    left = max(facts.get("left", 0) - done, now[WAITING])
    counts.update(now)
    counts[WAITING] = left
    seconds = sum(one.seconds for one in finished)
    data_s = sum(one.data_s for one in finished)
    reached = [one.reached_ns for one in finished if one.reached_ns is not None]
    return (
        PartitionReach(
            len(finished),
            format_utc(max(reached), "seconds") if reached else None,
            format_utc(facts["span"][1], "seconds") if "span" in facts else None,
            data_s / 86400,
            data_s / seconds if seconds else None,
        ),
        counts,
        failures,
    )


def _run_at_work(output: Path) -> Holder | None:
    """The run that writes to a folder; None for other commands."""
    holder = holder_at_work(output)
    return None if holder is None or holder.doing else holder


def _without_record(folder: RunFolder) -> RunStatus:
    """Status of a run without a journal: it has just begun, or it has finished."""
    if (holder := _run_at_work(folder.output)) is not None:
        return replace(_bare(folder.output, "running", {}, {}), holder=holder)
    try:
        summary = json.loads((folder.output / "summary.json").read_text(encoding="utf-8"))
        counts = {name: int(summary["tasks"][name]) for name in ("done", "empty", "failed")}
    except OSError:
        summary = None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder.output / 'summary.json'} cannot be read: {error}") from error
    if folder.started.exists():
        return _bare(folder.output, "dead", {}, {})
    if summary is None:
        raise InputError(
            f"{folder.output} holds no record of a run", hint="name the output folder of a run"
        )
    return _bare(folder.output, "finished", counts, summary)


def _failures(output: Path, summary: dict[str, Any]) -> list[dict[str, str]]:
    """All station tasks that failed; the summary lists only the first ones."""
    if not summary.get("failed"):
        return []
    from eqcctpro.journal.task_table import read_tasks

    table = read_tasks(output)
    if table is None:
        return list(summary["failed"])
    return [
        {
            "station": ".".join(row[name] for name in CODES),
            **{name: row[name] for name in ("timechunk", "status", "error", "reason")},
        }
        for row in table.to_pylist()
        if row["status"] == "failed"
    ]


def _bare(output: Path, state: State, counts: dict[str, int], summary: dict[str, Any]) -> RunStatus:
    return RunStatus(
        output,
        state,
        None,
        {name: counts.get(name, 0) for name in (WAITING, "done", "empty", "failed")},
        sum(counts.values()),
        summary.get("quarantined", 0),
        summary.get("skipped", {}),
        summary.get("plan", {}).get("files_unusable", 0),
        _failures(output, summary),
        None,
        None,
        [],
    )


def _state(folder: RunFolder, facts: dict[str, Any], last: Attempt) -> State:
    if facts["state"] == "finished":
        return "finished"
    if last.ending is not None:
        return "interrupted"
    elsewhere = last.host != socket.gethostname()
    # A lock on a shared file system may not reach this machine.
    return "running" if _run_at_work(folder.output) or (elsewhere and _recent(last)) else "dead"


def _recent(last: Attempt) -> bool:
    return time.time() - last.seen < 60.0


def _pace(last: Attempt, waiting: int, *, running: bool) -> tuple[float | None, float | None]:
    """Station tasks per second, and estimate of the seconds left."""
    elapsed = last.seen - last.started
    if not last.recorded or elapsed <= 0:
        return None, None
    rate = last.recorded / elapsed
    return rate, waiting / rate if running else None
