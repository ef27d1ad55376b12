"""A run in partitions: planned, picked, written and recorded one after the other."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from eqcctpro.archive.partitions import PartitionPlanner, PlannedPartition
from eqcctpro.archive.plan import Part, Plan
from eqcctpro.codes import printable
from eqcctpro.config import PickConfig
from eqcctpro.errors import InputError, ResumeError
from eqcctpro.journal.earlier import changed_values
from eqcctpro.journal.folder import RunFolder
from eqcctpro.journal.identity import pick_settings
from eqcctpro.journal.lock import OutputLock
from eqcctpro.journal.partition_record import (
    FinishedPartition,
    PartitionRecord,
    finished_partitions,
    partition_facts,
)
from eqcctpro.journal.store import Attempt, JournalStore
from eqcctpro.journal.task_table import TASK_SCHEMA, TASKS_FILE, task_table
from eqcctpro.models.picker import Picker
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.orchestration.execution import Execution
from eqcctpro.orchestration.interrupt import RunInterrupted
from eqcctpro.orchestration.keeping import (
    CUT,
    HINT,
    NoJournal,
    changed_execution,
    command_line,
    decisive_versions,
    open_journal,
)
from eqcctpro.orchestration.outputs import RunTables, StoredTables
from eqcctpro.orchestration.partition_borders import BorderPicks, last_whole_day
from eqcctpro.orchestration.partition_summary import add_summaries, summarise_partition
from eqcctpro.orchestration.task_records import TaskRecords
from eqcctpro.orchestration.workers import Workers
from eqcctpro.picks.borders import BORDER_GUARD_NS
from eqcctpro.picks.day_tables import DAY_US, DayTables, StoredRows, remove_table
from eqcctpro.picks.raw import TaskPicks
from eqcctpro.picks.table import DETECTION_SCHEMA, PICK_SCHEMA
from eqcctpro.picks.writers import needs_quotes, write_csv_parts, write_parquet, write_parquet_parts
from eqcctpro.pipeline.records import StageSeconds
from eqcctpro.resources.allocator import return_free_memory
from eqcctpro.resources.sampler import ResourceSampler, ResourceUse
from eqcctpro.sources.task_settings import TaskSettings
from eqcctpro.spans import FOREVER_NS, Span
from eqcctpro.times import NS_PER_S, format_utc

__all__ = ["PartitionedRun"]

logger = logging.getLogger("eqcctpro")

# Partitions that a message names.
MOST_NAMED = 3


@dataclass
class PartitionedRun:
    """One run in partitions.

    Parameters
    ----------
    config : PickConfig
    planner : PartitionPlanner
    folder : RunFolder
    lock : OutputLock
    picker : Picker
    weights : WeightFiles
    settings : TaskSettings
    name : str
        The run's identifier.
    ready : callable
        Starts workers for a plan, or takes those that are there.
    pick : callable
        Picks what an execution holds; returns True if a stop came after the last task.
    begin : callable
        Called once, before anything of an earlier run is touched.
    reach : callable
        Told how far the finished partitions reach; see `PartitionProgress.reach`.
    gpus : bool

    Attributes
    ----------
    workers : Workers
        Of the last partition.
    stages, model_loads, adaptations
        Sums over partitions, as in `Execution`.
    """

    config: PickConfig
    planner: PartitionPlanner
    folder: RunFolder
    lock: OutputLock
    picker: Picker
    weights: WeightFiles
    settings: TaskSettings
    name: str
    ready: Callable[[Plan, NoJournal, PickConfig], Workers]
    pick: Callable[[Execution, PlannedPartition], bool]
    begin: Callable[[], None]
    reach: Callable[[int | None, int, int, int], None]
    gpus: bool = False
    stages: StageSeconds = field(default_factory=StageSeconds)
    model_loads: int = 0
    adaptations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        output = self.config.output
        self.picks = DayTables(output / "picks.parquet", PICK_SCHEMA)
        self.detections = DayTables(output / "detections.parquet", DETECTION_SCHEMA)
        self.finished: dict[int, FinishedPartition] = {}
        self.workers: Workers
        self._pinned = self.config
        self._resumed = False
        self._before: dict[int, FinishedPartition] = {}
        self._nothing_yet: list[tuple[PlannedPartition, Callable[[], int | None]]] = []
        self._overlap_ns = round(self.config.overlap * 60 * NS_PER_S)
        self._sampler = ResourceSampler(gpus=self.gpus)
        self._record: PartitionRecord | None = None
        self._border: tuple[int, BorderPicks] = (-1, BorderPicks())
        self._since = time.monotonic()

    @property
    def use(self) -> ResourceUse:
        """Resources used by the run's processes; complete once the run has ended."""
        return self._sampler.wait()

    @property
    def failures(self) -> int:
        """Station tasks that failed."""
        return sum(one.tasks["failed"] for one in self.finished.values())

    # What is known from before.

    def take_up(self) -> None:
        """Find an unfinished run in the output folder, and what of it is finished.

        Raises
        ------
        ResumeError
            There is one that differs from what is asked for, or none although there must be.
        """
        config = self.config
        self._facts: dict[str, Any] = {
            "state": "running",
            "plan": "00",
            "settings": pick_settings(
                self.picker, self.weights.sha256, config.device, self.settings
            ),
            "cut": {name: config.model_dump(mode="json", include={name})[name] for name in CUT},
            "versions": decisive_versions(),
            "items": 0,
            "runtime": None,
            "batch_size": None,
            "skipped": {},
            "files_unusable": 0,
            "folder": str(Path.cwd()),
            "run_id": self.name,
        }
        self._attempts: list[Attempt] = []
        facts = {} if config.resume == "never" else partition_facts(self.folder)
        if facts.get("state") == "finished" and config.resume == "auto":
            facts = {}
        if not facts:
            if config.resume == "require":
                raise ResumeError(
                    f"{config.output} holds no run in partitions to go on with: none was begun, or "
                    "it finished and nothing in it failed",
                    hint="without --resume everything is picked",
                )
            return
        changes = changed_values(facts["settings"], self._facts["settings"])
        changes += changed_values(facts["versions"], self._facts["versions"])
        changes += changed_values(facts["cut"], self._facts["cut"])
        changes += changed_execution(config, facts)
        if changes:
            raise ResumeError(
                f"{config.output} holds an unfinished run with other settings: "
                f"{'; '.join(changes)}",
                hint=f"set them back to go on; {HINT}",
            )
        store = JournalStore(self.folder.journal, writable=False)
        try:
            self._attempts = store.attempts()
        finally:
            store.close()
        self._facts |= {name: facts[name] for name in ("runtime", "batch_size", "run_id")}
        self.name = facts["run_id"]
        self._resumed = True
        runtime = {name: facts[name] for name in ("runtime", "batch_size")}
        self._pinned = self.config.model_copy(update=runtime)
        self.planner.selection.grid_start_ns = facts.get("grid_start_ns")
        self.finished = {one.number: one for one in finished_partitions(facts)}

    def _stale(self) -> set[int]:
        """Finished partitions that are picked again: their input has changed, or tasks failed."""
        changed: set[int] = set()
        for number, one in self.finished.items():
            if self.planner.digest(Part(Span(*one.own), one.last)) != one.digest:
                changed.add(number)
        if changed and self.config.resume != "require":
            spans = [_span_text(self.finished[number].own) for number in sorted(changed)]
            more = f", and of {len(spans) - MOST_NAMED} more" if len(spans) > MOST_NAMED else ""
            raise ResumeError(
                f"{self.config.output} holds an unfinished run over other input: files of "
                f"{len(spans)} partitions have changed, {', '.join(spans[:MOST_NAMED])}{more}",
                hint=f"--resume picks these partitions again and keeps the others; {HINT}",
            )
        again = {n for n, one in self.finished.items() if one.tasks["failed"]}
        return changed | (again if self.config.retry_failed else set())

    # The run.

    def run(self) -> bool:
        """Pick everything; returns True if a stop came when all tasks had already ended.

        Raises
        ------
        InputError
            There is nothing to pick.
        """
        if self.finished:
            ends = max(one.own[1] for one in self.finished.values())
            logger.info(
                "going on with an earlier run: %d partitions are finished%s",
                len(self.finished),
                "" if ends == FOREVER_NS else f", to {format_utc(ends, 'seconds')}",
            )
            self._changing_facts()
        stale, asked = self._stale(), False
        try:
            for number in sorted(self.finished):
                if number in stale:
                    asked = self._again(self.finished[number])
                    if self._borders_differ(number):
                        stale.add(number + 1)
            for planned, ahead in self._new():
                asked = self._do(planned, partial(_until, planned, ahead, self._overlap_ns))
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.end("interrupted" if interrupted else f"{type(error).__name__}: {error}")
            raise
        if self._record is None and not self.finished:
            raise InputError(
                f"nothing to pick in {', '.join(map(str, self.config.input))}",
                hint="compare stations, start and end with the archive",
            )
        return asked

    def _again(self, before: FinishedPartition) -> bool:
        """Pick a finished partition again, with the borders that it had."""
        self._before[before.number] = before
        planned = self.planner.plan(before.number, Part(Span(*before.own), before.last))
        return self._do(planned, lambda: before.until_us)

    def _borders_differ(self, number: int) -> bool:
        """True if the next partition was joined with other picks than there are now."""
        before, now = self._before[number], self.finished[number]
        return (before.border, before.border_tasks) != (now.border, now.border_tasks)

    def _new(self) -> Iterator[tuple[PlannedPartition, Future[PlannedPartition | None]]]:
        """Partitions that are not finished, each with the next one, which is being planned."""
        last, begin = max(self.finished, default=-1), -FOREVER_NS
        if last >= 0:
            if self.finished[last].last:
                return
            begin = self.finished[last].own[1]
        plans = self.planner.plans(last + 1, begin)
        with ThreadPoolExecutor(1, "eqcctpro-plan") as pool:
            try:
                planned = pool.submit(next, plans, None).result()
                while planned is not None:
                    ahead = pool.submit(next, plans, None)
                    yield planned, ahead
                    planned = ahead.result()
            finally:
                self.planner.stop.set()

    def _do(self, planned: PlannedPartition, until: Callable[[], int | None]) -> bool:
        """Pick one partition, and write and record its results."""
        plan, asked = planned.plan, False
        if not plan.tasks:
            for problem in plan.problems:
                logger.warning("unusable file: %s", problem.message)
            if self._record is None:
                self._nothing_yet.append((planned, until))
            else:
                self._settle(planned, None, until())
            return False
        folder = self.folder.partition(planned.number)
        resume = self.config.resume == "require" and folder.has_journal
        config = self._pinned.model_copy(update={"resume": "require" if resume else "auto"})
        journal = open_journal(config, folder, plan, self.picker, self.weights, self.settings)
        self.workers = self.ready(plan, journal, self._pinned)
        if self._record is None:
            self._begin()
        try:
            journal.begin(self.workers)
            run = Execution(
                plan,
                self.workers,
                self.settings,
                journal=journal,
                open_chunks=config.concurrent_timechunks,
                sampler=self._sampler,
            )
            asked = self.pick(run, planned)
            self.lock.check()
            journal.settle()  # what cannot be recorded is said before results are written
            self.stages.add(run.stages.seconds)
            self.model_loads += run.model_loads
            self.adaptations += run.adaptations
            self._settle(planned, run, until())
            journal.finish(run.records.counts()["failed"])
            return_free_memory()  # before the next partition is among it
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            journal.end("interrupted" if interrupted else f"{type(error).__name__}: {error}")
            raise
        if asked and not planned.part.last:
            raise RunInterrupted(
                f"interrupted: {len(self.finished)} partitions are finished",
                hint="the same command goes on from there; "
                f"eqcctpro status {self.config.output} shows how far it is",
            )
        return asked

    def _begin(self) -> None:
        """Open the record; only now earlier results may go."""
        self.begin()
        if self.config.resume == "never":
            self.folder.discard()
        elif not self._resumed:
            self.folder.forget()
        if not self._resumed:
            for days in (self.picks, self.detections):
                remove_table(days.folder)
        runtime = {"runtime": self.workers.runtime, "batch_size": self.workers.batch_size}
        self._pinned = self._pinned.model_copy(update=runtime)
        self._facts |= runtime
        self._facts["span"] = list(self.planner.span)
        now = time.time()
        where = (os.getpid(), socket.gethostname(), self.config.mode, printable(command_line()))
        attempt = Attempt(len(self._attempts) + 1, *where, now, now, None, None, 0)
        self._record = PartitionRecord(self.folder, self._facts, attempt)
        self._sampler.start()
        for planned, until in self._nothing_yet:
            self._settle(planned, None, until())
        self._nothing_yet = []

    def _settle(
        self, planned: PlannedPartition, run: Execution | None, until_us: int | None
    ) -> None:
        """Write the picks that are complete, and record the partition."""
        plan, number = planned.plan, planned.number
        records = TaskRecords(0) if run is None else run.records
        reported = (TaskPicks.empty(), TaskPicks.empty()) if run is None else run.take_reported()
        border = self._border_before(number)
        if until_us is not None and border.until_us is not None:
            until_us = max(until_us, border.until_us)
        done, waiting = border.settle(
            reported, plan.tasks, number, until_us, self.picker, self.name
        )
        if number in self.finished:
            for days in (self.picks, self.detections):
                days.clear(border.until_us, until_us)
        self.picks.write(done.picks, from_us=border.until_us, number=number)
        if done.detections is not None:
            self.detections.write(done.detections, from_us=border.until_us, number=number)
        counts = [{at: each[n] for at, each in done.of_tasks.items()} for n in (0, 1)]
        table = task_table(plan.tasks.headings(), records, *counts)
        write_parquet(table, self._file(number, "tasks.parquet"))
        crc, tasks_crc = waiting.save(self._file(number, "border"))
        tables = RunTables(done.picks, done.detections)
        summary = summarise_partition(plan, records, tables)
        now = time.monotonic()
        spans = plan.tasks.spans_of(range(len(plan.tasks)))
        both = (done.picks, done.detections)
        self.finished[number] = finished = FinishedPartition(
            number,
            (planned.part.own.start_ns, planned.part.own.end_ns),
            planned.part.last,
            planned.digest,
            until_us,
            crc,
            tasks_crc,
            summary["tasks"],
            done.of_earlier,
            int(spans[:, 3].max()) if len(spans) else None,
            summary["station_hours"] * 3600,
            now - self._since,
            tuple(rows is not None and needs_quotes(rows) for rows in both),  # type: ignore[arg-type]
            _busiest(plan, reported[0], spans),
            summary,
        )
        self._since = now
        assert self._record is not None  # a partition is settled when the record is open
        self._record.finish(finished, self._changing_facts())
        self._border = (number, waiting)

    def _changing_facts(self) -> dict[str, Any]:
        """Facts that change with every partition, which the progress is told, too."""
        skipped = Counter(self.planner.selection.skipped())
        unusable = 0
        for one in self.finished.values():
            skipped.update(one.summary["skipped"])
            unusable += one.summary["plan"]["files_unusable"]
        ends = max((one.own[1] for one in self.finished.values()), default=-FOREVER_NS)
        done = sum(sum(one.tasks.values()) for one in self.finished.values())
        left = self.planner.left(done, ends) if done else 0
        reached = [ns for one in self.finished.values() if (ns := one.reached_ns) is not None]
        self.reach(max(reached, default=None), self.planner.span.end_ns, done, left)
        return {
            "left": left,
            "skipped": dict(skipped),
            "files_unusable": unusable,
            "grid_start_ns": self.planner.selection.grid_start_ns,
        }

    def _border_before(self, number: int) -> BorderPicks:
        """Picks of earlier partitions that a partition may change."""
        known, border = self._border
        if number == 0:
            return BorderPicks()
        if known == number - 1:
            return border
        before = self.finished[number - 1]
        return BorderPicks.load(self._file(number - 1, "border"), before.border)

    def _file(self, number: int, name: str) -> Path:
        return self.folder.partitions / f"{number:06d}.{name}"

    # The end.

    def stop_watching(self) -> None:
        """Take the last sample of the resources."""
        self._sampler.stop()

    def write(self) -> dict[str, str]:
        """Write the tables of the whole run; returns their paths by kind."""
        output, paths = self.config.output, {}
        kinds = [("picks", self.picks, 0)]
        if self.picker.detection_label is not None:
            kinds.append(("detections", self.detections, 1))
        for kind, days, at in kinds:
            days.folder.mkdir(exist_ok=True)
            paths[f"{kind}_parquet"] = str(days.folder)
            if "csv" in self.config.formats:
                path = output / f"{kind}.csv"
                quoted = any(one.quoted[at] for one in self.finished.values())
                write_csv_parts(days.parts(), days.schema, path, quoted=quoted)
                paths[f"{kind}_csv"] = str(path)
        write_parquet_parts(self._task_tables(), TASK_SCHEMA, output / TASKS_FILE)
        return {**paths, "tasks": str(output / TASKS_FILE)}

    def _task_tables(self) -> Iterator[pa.Table]:
        """Rows of all station tasks, partition by partition, with the picks of later ones."""
        later: dict[int, list[tuple[int, int, int]]] = {}
        for one in self.finished.values():
            for partition, row, picks, detections in one.of_earlier:
                later.setdefault(partition, []).append((row, picks, detections))
        for number in sorted(self.finished):
            table = pyarrow.parquet.read_table(self._file(number, "tasks.parquet"))
            for at, name in enumerate(("picks", "detections"), 1):
                column = np.array(table[name].to_numpy())
                for counts in later.get(number, ()):
                    column[counts[0]] += counts[at]
                place = table.schema.get_field_index(name)
                table = table.set_column(place, table.schema.field(name), pa.array(column))
            yield table.cast(TASK_SCHEMA)

    def tables(self, summary: Mapping[str, Any]) -> StoredTables:
        """The tables of the run, as they are read from its folder."""
        phases = dict(summary["picks"])
        total = phases.pop("total")
        found = summary["detections"]
        return StoredTables(
            StoredRows(self.picks, total, phases),
            None if found is None else StoredRows(self.detections, found),
        )

    def summary(self) -> dict[str, Any]:
        """The summaries of all partitions, added up."""
        total = add_summaries(self.finished[number].summary for number in sorted(self.finished))
        total["skipped"] = self._changing_facts()["skipped"]
        sample = self.busiest()
        total["partitions"] = {
            "number": len(self.finished),
            "sample": None
            if sample is None
            else dict(zip(_SAMPLE, sample[1].busiest or (), strict=False)),
        }
        return total

    def unmatched(self) -> list[str]:
        """Warnings of patterns that match no station."""
        if self._resumed:  # what the finished partitions hold is not read again
            return []
        selection = self.planner.selection
        return [
            f"stations: no station matches {pattern!r}"
            for pattern in self.config.stations
            if pattern not in selection.matched
        ]

    def busiest(self) -> tuple[int, FinishedPartition] | None:
        """The partition with the time chunk that has the most picks."""
        found = [(one.busiest[0], -n) for n, one in self.finished.items() if one.busiest]
        if not found:
            return None
        number = -max(found)[1]
        return number, self.finished[number]

    def sample(self) -> tuple[Plan, pa.Table] | None:
        """Plan of the busiest partition, and the picks of its busiest time chunk."""
        found = self.busiest()
        if found is None or found[1].busiest is None:
            return None
        number, one = found
        _, chunk, start_ns, end_ns = found[1].busiest
        plan = self.planner.plan(number, Part(Span(*one.own), one.last)).plan
        picks = self.picks.read((start_ns // 1000 // DAY_US - 1, end_ns // 1000 // DAY_US + 2))
        import pyarrow.compute as pc

        return plan, picks.filter(pc.equal(picks["timechunk"], chunk))

    def end(self, state: str) -> None:
        """Close the record; of a finished run without failures nothing is left of it."""
        record, self._record = self._record, None
        if record is not None:
            record.end(state)
        if state == "finished" and not self.failures:
            self.folder.forget()


_SAMPLE = ("picks", "timechunk")


def _span_text(own: Sequence[int]) -> str:
    start, end = own
    first = "the beginning" if start == -FOREVER_NS else format_utc(start, "seconds")
    return f"from {first} to {'the end' if end == FOREVER_NS else format_utc(end, 'seconds')}"


def _until(
    planned: PlannedPartition, ahead: Future[PlannedPartition | None], overlap_ns: int
) -> int | None:
    """Last whole day before which no later partition reports a pick, microseconds since 1970."""
    if planned.part.last:
        return None
    following = ahead.result()
    first = planned.part.own.end_ns - overlap_ns
    if following is not None and following.plan.tasks:
        tasks = following.plan.tasks
        first = min(first, int(tasks.spans_of(range(len(tasks)))[:, 2].min()))
    return last_whole_day(first - 2 * BORDER_GUARD_NS)


def _busiest(
    plan: Plan, reported: TaskPicks, spans: NDArray[np.int64]
) -> tuple[int, str, int, int] | None:
    """Most picks of a time chunk, its name, and the span of its data."""
    if not len(reported):
        return None
    names = [heading.chunk.name for heading in plan.tasks.headings()]
    counts: Counter[str] = Counter(names[task] for task in reported.task.tolist())
    name, count = counts.most_common(1)[0]
    mine = spans[np.isin(spans[:, 0], [row for row, other in enumerate(names) if other == name])]
    return count, name, int(mine[:, 2].min()), int(mine[:, 3].max())
