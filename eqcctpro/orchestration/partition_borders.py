"""Picks at the borders of partitions: what the next partition may still change waits for it."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import Tasks
from eqcctpro.errors import OutputError
from eqcctpro.journal.parts import Findings, read_part, write_part
from eqcctpro.models.picker import Picker
from eqcctpro.picks.borders import BORDER_GUARD_NS, settle
from eqcctpro.picks.day_tables import DAY_US
from eqcctpro.picks.raw import TaskPicks
from eqcctpro.picks.table import DETECTION_SCHEMA, PICK_SCHEMA, PickRows
from eqcctpro.picks.writers import atomic_file

__all__ = ["BorderPicks", "SettledPicks", "last_whole_day"]

# Reports of neighbours are compared within so much of a border, twice, as chunks may be short.
_COMPARED_NS = 3 * BORDER_GUARD_NS


class _BorderTask(NamedTuple):
    """A station task of an earlier partition, of which there are such picks."""

    partition: int
    row: int
    network: str
    station: str
    location: str
    instrument: str
    folder: str
    chunk: str
    own_start_ns: int
    own_end_ns: int


@dataclass(frozen=True)
class SettledPicks:
    """Picks and detections that no later partition changes.

    Attributes
    ----------
    picks : PickRows
    detections : PickRows or None
        None when the model yields none.
    of_tasks : dict of int to (int, int)
        Picks and detections of each station task of this partition that has any, by its row.
    of_earlier : list of (int, int, int, int)
        Partition, row, picks and detections of station tasks of earlier ones.
    """

    picks: PickRows
    detections: PickRows | None
    of_tasks: dict[int, tuple[int, int]]
    of_earlier: list[tuple[int, int, int, int]]


@dataclass(frozen=True)
class BorderPicks:
    """Picks, as reported, from the last whole day on that a partition has completed.

    Attributes
    ----------
    findings : Findings
        Their ``task`` is an index into `tasks`.
    tasks : list
    until_us : int or None
        Picks before this time, microseconds since 1970, are written; None before any are.
    """

    findings: Findings = field(default_factory=Findings)
    tasks: list[_BorderTask] = field(default_factory=list)
    until_us: int | None = None

    def settle(
        self,
        reported: tuple[TaskPicks, TaskPicks],
        tasks: Tasks,
        number: int,
        until_us: int | None,
        picker: Picker,
        run_id: str,
    ) -> tuple[SettledPicks, BorderPicks]:
        """Join with the picks of the next partition, and take what is complete.

        Parameters
        ----------
        reported : tuple of TaskPicks
            Picks and detections of the partition, in the order of its plan.
        tasks : Tasks
        number : int
            Of the partition.
        until_us : int or None
            Time before which no later partition has picks; None for the last one.
        picker : Picker
        run_id : str

        Returns
        -------
        SettledPicks, BorderPicks
            What is complete, and what waits.
        """
        joint = _JointTasks(self.tasks, tasks)
        owned = joint.owned()
        rows: list[PickRows] = []
        waiting: list[TaskPicks] = []
        earlier = (self.findings.picks, self.findings.detections)
        schemas = (PICK_SCHEMA, DETECTION_SCHEMA)
        for before, new, schema in zip(earlier, reported, schemas, strict=True):
            shifted = replace(new, task=new.task + np.int32(len(self.tasks)))
            both = TaskPicks.concatenate([before, shifted])
            if until_us is not None:
                waiting.append(both.take(both.time_ns >= until_us * 1000 - _COMPARED_NS))
            settled = settle(both, owned[both.task], joint.stations_of(both))
            rows.append(
                PickRows(
                    settled.take(self._complete(settled, until_us)), joint, picker, run_id, schema
                )
            )
        with_detections = picker.detection_label is not None
        of_tasks, of_earlier = _per_task(rows, joint)
        done = SettledPicks(rows[0], rows[1] if with_detections else None, of_tasks, of_earlier)
        return done, _waiting(waiting, joint, number, until_us)

    def _complete(self, settled: TaskPicks, until_us: int | None) -> NDArray[Any]:
        times = (settled.time_ns + 500) // 1000
        complete = np.ones(len(settled), dtype=bool) if until_us is None else times < until_us
        if self.until_us is not None:
            # Those of earlier partitions are written; they are here to be compared with.
            complete &= (times >= self.until_us) | (settled.task >= len(self.tasks))
        return complete

    def save(self, path: Path) -> tuple[int, int]:
        """Write to a part file, and a list of the tasks beside it; returns the CRC-32 of both."""
        text = json.dumps({"until_us": self.until_us, "tasks": self.tasks})
        with atomic_file(path.with_suffix(".json")) as file:
            file.write(text.encode())
        return write_part(path, self.findings), zlib.crc32(text.encode())

    @classmethod
    def load(cls, path: Path, crc: int) -> BorderPicks:
        """Read what `save` has written.

        Raises
        ------
        OutputError
            It is missing or damaged.
        """
        findings = read_part(path, crc)
        try:
            known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            tasks = [_BorderTask(*task) for task in known["tasks"]]
        except (OSError, ValueError, KeyError, TypeError):
            findings = None
        if findings is None:
            raise OutputError(
                f"{path}, picks at the border of two partitions, is missing or damaged",
                hint="--fresh discards the run and picks everything anew",
            )
        return cls(findings, tasks, known["until_us"])


class _JointTasks:
    """Tasks of earlier partitions, then those of a partition."""

    def __init__(self, earlier: list[_BorderTask], tasks: Tasks) -> None:
        self.earlier = earlier
        self.tasks = tasks

    def names(self, positions: Iterable[int]) -> Iterator[tuple[str, str, str, str, str]]:
        """Network, station, location, instrument and time chunk of some tasks."""
        first = len(self.earlier)
        for at in positions:
            if at < first:
                task = self.earlier[at]
                yield task.network, task.station, task.location, task.instrument, task.chunk
            else:
                yield from self.tasks.names([at - first])

    def owned(self) -> NDArray[Any]:
        """Spans that the tasks own, ns; shape (tasks, 2)."""
        earlier = [(task.own_start_ns, task.own_end_ns) for task in self.earlier]
        parts = [np.array(earlier, dtype=np.int64).reshape(-1, 2)]
        return np.concatenate([*parts, self.tasks.owned()] if len(self.tasks) else parts)

    def stations_of(self, picks: TaskPicks) -> Callable[[int], tuple[str, str]]:
        """Function that names the instrument of a pick, with its folder."""
        return lambda pick: self._station(int(picks.task[pick]))

    def _station(self, at: int) -> tuple[str, str]:
        if at < len(self.earlier):
            task = self.earlier[at]
            codes = (task.network, task.station, task.location, task.instrument)
            return ".".join(codes), task.folder
        heading = next(self.tasks.headings([at - len(self.earlier)]))
        return heading.name, heading.folder

    def kept(self, positions: list[int], number: int) -> list[_BorderTask]:
        """Some of the tasks, when those of this partition are earlier ones."""
        first, found = len(self.earlier), []
        for at in positions:
            if at < first:
                found.append(self.earlier[at])
                continue
            task = next(self.tasks.headings([at - first]))
            codes = (task.network, task.station, task.location, task.instrument, task.folder)
            own = (task.chunk.own_start_ns, task.chunk.own_end_ns)
            found.append(_BorderTask(number, at - first, *codes, task.chunk.name, *own))
        return found


def _per_task(
    rows: list[PickRows], joint: _JointTasks
) -> tuple[dict[int, tuple[int, int]], list[tuple[int, int, int, int]]]:
    picks, detections = (Counter(one.per_task) for one in rows)
    of_tasks, of_earlier = {}, []
    for at in sorted(picks.keys() | detections.keys()):
        counts = picks[at], detections[at]
        if at < len(joint.earlier):
            task = joint.earlier[at]
            of_earlier.append((task.partition, task.row, *counts))
        else:
            of_tasks[at - len(joint.earlier)] = counts
    return of_tasks, of_earlier


def _waiting(
    parts: list[TaskPicks], joint: _JointTasks, number: int, until_us: int | None
) -> BorderPicks:
    if not parts:
        return BorderPicks(until_us=until_us)
    used = np.unique(np.concatenate([part.task for part in parts]))
    renumbered = [
        replace(part, task=np.searchsorted(used, part.task).astype(np.int32)) for part in parts
    ]
    return BorderPicks(Findings(*renumbered), joint.kept(used.tolist(), number), until_us)


def last_whole_day(time_ns: int) -> int:
    """Start of the day that a time lies in, microseconds since 1970."""
    return time_ns // 1000 // DAY_US * DAY_US
