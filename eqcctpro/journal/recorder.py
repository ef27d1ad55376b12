"""Writer of a run's journal: groups results and writes them in a background thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import EQCCTProError, OutputError
from eqcctpro.journal.parts import Findings, write_part
from eqcctpro.journal.store import JournalStore
from eqcctpro.picks.raw import TaskPicks
from eqcctpro.pipeline.records import PickOutcome

__all__ = ["Recorder"]

# A group is written when it has this many station tasks, or this long after the last one: a
# killed run picks again at most the results since then.
GROUP_TASKS = 4096
GROUP_SECONDS = 1.0
# Groups in the queue of the writer, before `add` blocks.
GROUPS_WAITING = 8


@dataclass
class _Group:
    """Outcomes, picks and detections that are written together."""

    outcomes: dict[int, PickOutcome] = field(default_factory=dict)
    picks: list[TaskPicks] = field(default_factory=list)
    detections: list[TaskPicks] = field(default_factory=list)
    ending: str | None = None


class Recorder:
    """Writes results in a background thread: part files first, then their journal entries.

    Nothing is written before the first group: a run of less than a second leaves no journal,
    because it is quickly repeated.

    Parameters
    ----------
    path : Path
        The journal; it is created if it does not exist.
    parts : Path
        Folder for part files.
    keys : ndarray of int32
        Key in the journal of every station task, by its index in the plan.
    prepare : callable
        Writes the first entries of the journal, in one transaction.
    attempt : int
        Number of this process among those that worked on the run.
    """

    def __init__(
        self,
        path: Path,
        parts: Path,
        keys: NDArray[np.int32],
        prepare: Callable[[JournalStore], None],
        attempt: int,
    ) -> None:
        self._path = path
        self._parts = parts
        self._keys = keys
        self._prepare = prepare
        self._attempt = attempt
        self._group = _Group()
        self._since = time.monotonic()
        self._waiting: queue.Queue[_Group | None] = queue.Queue(GROUPS_WAITING)
        self._failure: BaseException | None = None
        self._recorded = 0
        self._part = 0
        self._thread = threading.Thread(target=self._work, name="eqcctpro-record", daemon=True)
        self._started = False

    def open(self) -> None:
        """Create the journal now, without waiting for the first group."""
        self._send()

    def add(
        self, outcomes: Mapping[int, PickOutcome], picks: TaskPicks, detections: TaskPicks
    ) -> None:
        """Add results to the current group; blocks only if the queue of the writer is full.

        Raises
        ------
        OutputError
            Earlier results could not be written.
        """
        group = self._group
        group.outcomes.update(outcomes)
        if len(picks):
            group.picks.append(picks)
        if len(detections):
            group.detections.append(detections)
        if len(group.outcomes) >= GROUP_TASKS or time.monotonic() - self._since > GROUP_SECONDS:
            self._send()

    def _send(self, ending: str | None = None) -> None:
        self._group.ending = ending
        group, self._group = self._group, _Group()
        self._since = time.monotonic()
        if not self._started:
            self._thread.start()
            self._started = True
        while self._failure is None:
            try:
                self._waiting.put(group, timeout=0.5)
                break
            except queue.Full:
                continue  # unless the thread has ended meanwhile
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def settle(self) -> None:
        """Wait until all queued groups have been written.

        Raises
        ------
        OutputError
            A group could not be written.
        """
        while self._started and self._failure is None and self._waiting.unfinished_tasks:
            time.sleep(0.002)
        self._check()

    def close(self, ending: str) -> None:
        """Write the last group and the ending of the run, and end the thread.

        Parameters
        ----------
        ending : str
            ``"finished"``, ``"interrupted"``, or the error.

        Raises
        ------
        OutputError
            It could not be written.
        """
        try:
            self._send(ending)
        finally:
            self.stop()
        self._check()

    def stop(self) -> None:
        """End the thread after the queued groups; the current group is not written."""
        if not self._started:
            return
        while self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        self._thread.join()

    # In the background thread.

    def _work(self) -> None:
        store: JournalStore | None = None
        try:
            self._path.parent.mkdir(exist_ok=True)
            store = JournalStore(self._path, writable=True)
            with store.transaction():
                self._prepare(store)
            self._part = max(store.parts(), default=0)
            while (group := self._waiting.get()) is not None:
                self._write(store, group)
                self._waiting.task_done()
        except EQCCTProError as error:
            self._failure = error
        except OSError as error:
            self._failure = OutputError(
                f"cannot write to {self._parts.parent}: {error.strerror or error}",
                hint="check the folder's permissions and the space on the disk; then the same "
                "command goes on where the run stopped",
            )
        except BaseException as error:  # raised by the next call of the main thread
            self._failure = error
        finally:
            if store is not None:
                store.close()

    def _write(self, store: JournalStore, group: _Group) -> None:
        findings = Findings(self._keyed(group.picks), self._keyed(group.detections))
        part: tuple[int, str, int] | None = None
        if len(findings):
            self._part += 1
            name = f"{self._part:08d}.arrow"
            self._parts.mkdir(parents=True, exist_ok=True)
            part = self._part, name, write_part(self._parts / name, findings)
        keyed = {int(self._keys[task]): how for task, how in group.outcomes.items()}
        with store.transaction():
            if part is not None:
                store.add_part(*part)
            store.record(keyed, None if part is None else part[0])
            self._recorded += len(keyed)
            store.note_attempt(
                self._attempt, time.time(), recorded=self._recorded, ending=group.ending
            )
            if group.ending is not None:
                store.set_facts({"state": group.ending})

    def _keyed(self, parts: list[TaskPicks]) -> TaskPicks:
        joined = TaskPicks.concatenate(parts)
        return replace(joined, task=self._keys[joined.task])
