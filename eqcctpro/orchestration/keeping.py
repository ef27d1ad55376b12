"""Journal of a run: results of an earlier run to resume, and results as they come."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import Plan, StationTask, Tasks
from eqcctpro.codes import printable
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, ResumeError
from eqcctpro.journal.earlier import EarlierRun, Restored, changed_files, changed_values
from eqcctpro.journal.folder import RunFolder
from eqcctpro.journal.identity import FileStamps, item_ids, pick_settings, plan_hash
from eqcctpro.journal.partition_record import IN_PARTITIONS
from eqcctpro.journal.recorder import Recorder
from eqcctpro.journal.started import StartedMarks, WatchedTasks, under_way
from eqcctpro.journal.store import Attempt, Item, JournalStore
from eqcctpro.models.picker import Picker
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.orchestration.outputs import package_versions
from eqcctpro.orchestration.worker import BundleResult
from eqcctpro.orchestration.workers import Workers
from eqcctpro.pipeline.records import PickOutcome
from eqcctpro.sources.task_settings import TaskSettings

__all__ = [
    "CUT",
    "HINT",
    "NoJournal",
    "RunJournal",
    "changed_execution",
    "command_line",
    "decisive_versions",
    "open_journal",
]

logger = logging.getLogger("eqcctpro")

# Packages whose versions may change a pick in its last digit.
DECISIVE = (
    *("eqcctpro", "numpy", "scipy", "pymseed", "torch", "openvino", "onnxruntime"),
    *("tensorflow", "tensorflow-cpu"),
)
# Settings that say how the input is cut into station tasks.
CUT = (
    *("layout", "timechunk", "overlap", "stations", "stations_at_most", "exclude"),
    *("channel_priority", "start", "end"),
)

HINT = "--fresh discards it and picks everything anew; another output folder leaves it as it is"


class NoJournal:
    """Journal that stores nothing and resumes nothing; for runs without one.

    Parameters
    ----------
    tasks : Tasks
    clear : callable, optional
        Removes what an earlier run left, once this one begins to pick.

    Attributes
    ----------
    restored : Restored
        What an earlier run had got.
    todo : Tasks
        What remains to be picked.
    suspects : Tasks
        What is to be picked one by one, because a process died over it.
    left_out : dict of int to PickOutcome
        What has failed before anything of it was read.
    graceful : bool
        Whether an interrupted run can be gone on with later.
    """

    graceful = False

    def __init__(self, tasks: Tasks, clear: Callable[[], None] | None = None) -> None:
        self._clear = clear
        self.restored = Restored()
        self.todo: Tasks = tasks
        self.suspects: Tasks = tasks[:0]
        self.left_out: dict[int, PickOutcome] = {}

    def pinned(self, config: PickConfig) -> PickConfig:
        """Configuration with the choices that the resumed run made automatically."""
        return config

    def leave_out(self, outcomes: Mapping[int, PickOutcome]) -> None:
        """Let station tasks end with these outcomes, by their rows, without picking them."""
        if not outcomes:
            return
        ended = list(outcomes)
        waiting: set[int] = set()
        for name in ("todo", "suspects"):
            tasks: Tasks = getattr(self, name)
            rows = np.array(tasks.rows, dtype=np.int64)
            waiting.update(rows.tolist())
            setattr(self, name, Tasks(tasks.table, rows[~np.isin(rows, ended)]))
        self.left_out = {row: how for row, how in outcomes.items() if row in waiting}

    def hand_over(self) -> Restored:
        """Return the restored results of an earlier run and release them here."""
        restored = self.restored
        self.restored = Restored(again=restored.again)
        return restored

    def begin(self, workers: Workers) -> None:  # noqa: ARG002 (for whoever records it)
        """Remove the files of an earlier run, and start to store results."""
        if self._clear is not None:
            self._clear()

    def watched(self, stop: Callable[[], bool]) -> Sequence[StationTask]:
        """Iterate over the station tasks to pick, for workers that take one at a time."""
        return WatchedTasks(self.todo, np.empty(0), None, stop)

    def add(self, bundle: BundleResult) -> None:
        """Store a result."""

    def settle(self) -> None:
        """Wait until all pending results are on disk."""

    def finish(self, failures: int) -> None:
        """Record that the results are written."""

    def end(self, reason: str) -> None:
        """Record that the run ends unfinished."""


@dataclass
class RunJournal(NoJournal):
    """The journal of one run; from `open_journal`.

    Attributes
    ----------
    folder : RunFolder
    facts : dict
        What the run is.
    died_over : set of int
        Keys of what a process died over before it had recorded anything.
    keys : ndarray of int32
        Key of every station task, by its index in the plan.
    """

    folder: RunFolder
    config: PickConfig
    plan: Plan
    ids: list[bytes]
    stamps: FileStamps
    facts: dict[str, Any]
    earlier: EarlierRun | None = None
    died_over: set[int] = field(default_factory=set)
    graceful = True
    restored: Restored = field(default_factory=Restored)
    _recorder: Recorder | None = field(init=False, default=None)
    _marks: StartedMarks | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        tasks = self.plan.tasks
        known = self.earlier.keys if self.earlier is not None else {}
        fresh = iter(range(max(known.values(), default=-1) + 1, 2**31))
        self.keys: NDArray[np.int32] = np.array(
            [known[id_] if id_ in known else next(fresh) for id_ in self.ids], dtype=np.int32
        )
        suspected = self._suspected()
        ended, keys = self.restored.outcomes, self.keys
        self.left_out = {}
        remaining = [index for index in range(len(tasks)) if index not in ended]
        self.todo = tasks.choose(i for i in remaining if int(keys[i]) not in suspected)
        self.suspects = tasks.choose(i for i in remaining if int(keys[i]) in suspected)

    def _suspected(self) -> set[int]:
        # Ray's workers die alone, and are found out while the run goes on.
        if self.config.mode != "local":
            return set()
        if self.earlier is None:
            return self.died_over
        return self.earlier.suspects()

    def pinned(self, config: PickConfig) -> PickConfig:
        """The configuration with the runtime and batch size of the earlier run."""
        if self.earlier is None:
            return config
        return config.model_copy(
            update={name: self.facts[name] for name in ("runtime", "batch_size")}
        )

    def begin(self, workers: Workers) -> None:
        """Remove files of runs that are not resumed, open the journal, start to store results."""
        if self.config.resume == "never":
            self.folder.discard()
        elif self.earlier is None:
            self.folder.forget()
        self.facts |= {"runtime": workers.runtime, "batch_size": workers.batch_size}
        attempts = self.earlier.attempts if self.earlier is not None else []
        number = len(attempts) + 1
        self._recorder = Recorder(
            self.folder.journal,
            self.folder.parts,
            self.keys,
            lambda store: self._prepare(store, number),
            number,
        )
        if self.earlier is not None or self.died_over:
            self._recorder.open()
        if self.config.mode == "local":
            size = int(self.keys.max(initial=0)) + 1
            self._marks = StartedMarks(self.folder.started, self.facts["plan"], size)

    def _prepare(self, store: JournalStore, number: int) -> None:
        """Write the journal's first entries, in the recorder's thread and one transaction."""
        now = time.time()
        if self.earlier is not None:
            self._take_over(store, self.earlier)
        known = self.earlier.keys if self.earlier is not None else {}
        store.set_facts(self.facts)
        if self.earlier is None or dict(self.stamps.pairs()) != self.earlier.files:
            store.set_files(self.stamps.pairs())
        store.add_items(
            Item(int(key), id_, task.name, task.chunk.name, task.folder)
            for key, id_, task in zip(self.keys, self.ids, self.plan.tasks, strict=True)
            if id_ not in known
        )
        self.ids = []  # the record has them
        store.blame(self.died_over)
        where = (os.getpid(), socket.gethostname(), self.config.mode, printable(command_line()))
        store.begin_attempt(Attempt(number, *where, now, now, None, None, 0))

    def _take_over(self, store: JournalStore, earlier: EarlierRun) -> None:
        last = earlier.attempts[-1] if earlier.attempts else None
        if last is not None and last.ending is None:
            store.blame(earlier.died_over())
            store.note_attempt(last.number, last.seen, recorded=last.recorded, ending="died")
        planned = set(self.ids)
        store.drop_items(key for id_, key in earlier.keys.items() if id_ not in planned)
        store.wait_again(self.restored.again)

    def watched(self, stop: Callable[[], bool]) -> Sequence[StationTask]:
        """Iterate over the station tasks to pick, and mark each as started."""
        return WatchedTasks(self.todo, self.keys, self._marks, stop)

    def add(self, bundle: BundleResult) -> None:
        """Store a result."""
        if self._recorder is None or not bundle.outcomes:
            return
        self._recorder.add(bundle.outcomes, bundle.picks, bundle.detections)
        if self._marks is not None:
            for task in bundle.outcomes:
                self._marks.end(int(self.keys[task]))

    def settle(self) -> None:
        """Wait until all pending results are on disk."""
        if self._recorder is not None:
            self._recorder.settle()

    def finish(self, failures: int) -> None:
        """Record that the results are written."""
        recorder, self._recorder = self._recorder, None
        self._close_marks()
        if recorder is None:
            return
        if failures:
            # What failed can be picked again later, and then needs the picks of the other tasks.
            recorder.close("finished")
            self.folder.started.unlink(missing_ok=True)
        else:
            recorder.stop()
            self.folder.forget()  # the summary says what there is to say

    def end(self, reason: str) -> None:
        """Record the results so far, and why the run ends unfinished."""
        recorder, self._recorder = self._recorder, None
        try:
            if recorder is not None:
                recorder.close(reason)
        except EQCCTProError as error:
            logger.error("some results could not be recorded: %s", error)
        finally:
            self._close_marks()

    def _close_marks(self) -> None:
        if self._marks is not None:
            self._marks.close()
            self._marks = None


def open_journal(
    config: PickConfig,
    folder: RunFolder,
    plan: Plan,
    picker: Picker,
    weights: WeightFiles,
    settings: TaskSettings,
) -> NoJournal:
    """Find an earlier run in the output folder, and decide whether to resume it.

    Raises
    ------
    ResumeError
        There is an unfinished run that differs from what is asked for, or there is none
        although one is to be gone on with.
    """
    if not config.journal:
        return _without(config, folder, plan)
    named = pick_settings(picker, weights.sha256, config.device, settings)
    ids = item_ids(plan.tasks, config.input, named)
    facts: dict[str, Any] = {
        "state": "running",
        "plan": plan_hash(ids),
        "settings": named,
        "cut": {name: config.model_dump(mode="json", include={name})[name] for name in CUT},
        "versions": decisive_versions(),
        "items": len(ids),
        "folder": str(Path.cwd()),
        "skipped": plan.skipped,
        "files_unusable": len(plan.problems),
    }
    stamps = FileStamps(plan.files, config.input)
    folder.tidy()
    earlier = _earlier(config, folder)
    if earlier is None:
        anew = config.resume == "never"
        died_over = set() if anew else under_way(folder.started, facts["plan"])
        journal = RunJournal(folder, config, plan, ids, stamps, facts, died_over=died_over)
        _warn_of(journal.suspects)
        return journal
    facts |= {name: earlier.facts[name] for name in ("runtime", "batch_size")}
    _require_same(config, earlier, facts, stamps, ids)
    earlier.tidy()
    retry_quarantined = earlier.finished  # it was asked for, with --resume
    restored = earlier.restore(
        ids, retry_failed=config.retry_failed, retry_quarantined=retry_quarantined
    )
    for name in restored.damaged:
        logger.warning("part %s is damaged: its station tasks are picked again", name)
    journal = RunJournal(
        folder, config, plan, ids, stamps, facts, earlier=earlier, restored=restored
    )
    logger.info(
        "going on with an earlier run: %d of %d station tasks are recorded",
        len(restored.outcomes),
        len(ids),
    )
    _warn_of(journal.suspects)
    return journal


def decisive_versions() -> dict[str, str]:
    """Versions of the packages that may change a pick."""
    return {k: v for k, v in package_versions().items() if k in DECISIVE}


def _warn_of(suspects: Tasks) -> None:
    if len(suspects):
        logger.warning(
            "%d station tasks were in progress when a process died: they are picked one by one",
            len(suspects),
        )


def _without(config: PickConfig, folder: RunFolder, plan: Plan) -> NoJournal:
    if config.resume == "require":
        raise ResumeError("a run without a journal cannot resume one", hint="leave out no-journal")
    if config.resume == "never":
        return NoJournal(plan.tasks, folder.discard)
    if folder.unfinished():
        raise ResumeError(f"{folder.output} holds an unfinished run", hint=HINT)
    return NoJournal(plan.tasks, folder.forget if folder.has_journal else None)


def _earlier(config: PickConfig, folder: RunFolder) -> EarlierRun | None:
    """Earlier run to resume, or None."""
    if config.resume == "never":
        return None
    earlier = EarlierRun(folder) if folder.has_journal else None
    if earlier is not None and not earlier.facts:
        earlier = None
    if earlier is not None and earlier.facts.get(IN_PARTITIONS) and not earlier.finished:
        raise ResumeError(
            f"{folder.output} holds an unfinished run in partitions",
            hint=f"leave out --partition off to go on; {HINT}",
        )
    if config.resume == "require":
        if earlier is None:
            raise ResumeError(
                f"{folder.output} holds no run to go on with: none was begun, or it finished and "
                "nothing in it failed",
                hint="without --resume everything is picked",
            )
        return earlier
    return None if earlier is None or earlier.finished else earlier


def _require_same(
    config: PickConfig,
    earlier: EarlierRun,
    facts: Mapping[str, Any],
    stamps: FileStamps,
    ids: Sequence[bytes],
) -> None:
    """Refuse to resume a run whose results were computed differently."""
    before = earlier.facts
    changes = changed_values(before["settings"], facts["settings"])
    changes += changed_values(before["versions"], facts["versions"])
    changes += changed_execution(config, before)
    if changes:
        raise ResumeError(
            f"{config.output} holds an unfinished run with other settings: {'; '.join(changes)}",
            hint=f"set them back to go on; {HINT}",
        )
    if before["plan"] == facts["plan"]:
        return
    changes = changed_values(before["cut"], facts["cut"])
    changes += changed_files(earlier.files, stamps)
    known = sum(id_ in earlier.keys for id_ in ids)
    if config.resume == "require" and known:
        logger.warning(
            "the plan has changed (%s): %d station tasks are as before, %d are not",
            "; ".join(changes),
            known,
            len(ids) - known,
        )
        return
    keeps = "--resume keeps the station tasks that are as before and picks the others; "
    raise ResumeError(
        f"{config.output} holds an unfinished run over other input: {'; '.join(changes)}",
        hint=(keeps if known else "") + HINT,
    )


def changed_execution(config: PickConfig, before: Mapping[str, Any]) -> list[str]:
    """Requested runtime and batch size that differ from those of the earlier run."""
    asked = {"runtime": None if config.runtime == "auto" else config.runtime}
    asked["batch_size"] = config.batch_size  # type: ignore[assignment]
    if config.device != "cpu":
        asked["runtime"] = None
    asked = {name: value for name, value in asked.items() if value is not None}
    return changed_values({name: before[name] for name in asked}, asked)


def command_line() -> str:
    """Command line that started this process, to be shown to users who resume the run."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 (text)
    return shlex.join(["eqcctpro" if name == "__main__.py" else name, *sys.argv[1:]])
