"""The record of a run in partitions: what it is, and what each finished partition came to.

It is the journal of the run, in which each finished partition is a fact; the partition under way
has a journal of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from eqcctpro.errors import OutputError
from eqcctpro.journal.folder import RunFolder
from eqcctpro.journal.store import Attempt, JournalStore

__all__ = [
    "FinishedPartition",
    "PartitionRecord",
    "finished_partitions",
    "partition_facts",
]

#: The fact that says that a run is one in partitions.
IN_PARTITIONS = "in_partitions"
_NAME = "partition:"


@dataclass(frozen=True)
class FinishedPartition:
    """A partition whose results are written.

    Attributes
    ----------
    number : int
    own : tuple of (int, int)
        Half-open span of time, ns.
    last : bool
        True if no data follow.
    digest : str
        Hash of the names, sizes and times of change of its files.
    until_us : int or None
        Time before which its picks, and all earlier ones, are written; None for the last one.
    border, border_tasks : int
        CRC-32 of the file with the picks that wait for the next one, and of the list of their
        station tasks.
    tasks : dict of str to int
        Number of its station tasks by status.
    of_earlier : list
        Picks and detections that station tasks of earlier partitions had here.
    reached_ns : int or None
        Last sample of its data.
    data_s : float
        Seconds of data that were picked, over all stations.
    seconds : float
        Since the one before was finished.
    quoted : list of bool
        Whether the CSV of its picks, and of its detections, needs quotes.
    busiest : tuple of (int, str, int, int) or None
        Most picks of a time chunk, its name, and the span of its picks in ns.
    summary : dict
        Content of ``summary.json`` for this partition alone.
    """

    number: int
    own: tuple[int, int]
    last: bool
    digest: str
    until_us: int | None
    border: int
    border_tasks: int
    tasks: dict[str, int]
    of_earlier: list[tuple[int, int, int, int]]
    reached_ns: int | None
    data_s: float
    seconds: float
    quoted: tuple[bool, bool]
    busiest: tuple[int, str, int, int] | None
    summary: dict[str, Any] = field(default_factory=dict)


def partition_facts(folder: RunFolder) -> dict[str, Any]:
    """Facts of the run in partitions that an output folder holds; empty if it holds none."""
    if not folder.has_journal:
        return {}
    store = JournalStore(folder.journal, writable=False)
    try:
        facts = store.facts()
    finally:
        store.close()
    return facts if facts.get(IN_PARTITIONS) else {}


def finished_partitions(facts: Mapping[str, Any]) -> list[FinishedPartition]:
    """Finished partitions, from the facts of a run, in the order of their numbers.

    Raises
    ------
    OutputError
        The facts are damaged.
    """
    try:
        found = [
            FinishedPartition(**value) for name, value in facts.items() if name.startswith(_NAME)
        ]
    except TypeError as error:
        raise OutputError(
            f"the record of the run in partitions is damaged: {error}",
            hint="--fresh discards it and picks everything anew",
        ) from error
    return sorted(found, key=lambda one: one.number)


class PartitionRecord:
    """The open record of a run in partitions.

    Parameters
    ----------
    folder : RunFolder
    facts : dict
        What the run is.
    attempt : Attempt
        This process.
    """

    def __init__(self, folder: RunFolder, facts: Mapping[str, Any], attempt: Attempt) -> None:
        folder.partitions.mkdir(parents=True, exist_ok=True)
        self._store = JournalStore(folder.journal, writable=True)
        self._number = attempt.number
        self._recorded = 0
        with self._store.transaction():
            self._store.set_facts({**facts, IN_PARTITIONS: True})
            self._store.begin_attempt(attempt)

    def finish(self, partition: FinishedPartition, facts: Mapping[str, Any]) -> None:
        """Record that a partition is finished, with facts of the run that have changed."""
        self._recorded += sum(partition.tasks.values())
        with self._store.transaction():
            self._store.set_facts({**facts, f"{_NAME}{partition.number:06d}": asdict(partition)})
            self._store.note_attempt(self._number, time.time(), recorded=self._recorded)

    def end(self, state: str) -> None:
        """Record how this process ended, and close the record."""
        with self._store.transaction():
            self._store.set_facts({"state": state})
            now = time.time()
            self._store.note_attempt(self._number, now, recorded=self._recorded, ending=state)
        self._store.close()
