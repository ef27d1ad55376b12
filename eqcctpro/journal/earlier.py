"""Results of an earlier run in an output folder, and their comparison with a new request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eqcctpro.errors import QuarantinedError
from eqcctpro.journal.folder import RunFolder
from eqcctpro.journal.identity import Stamp
from eqcctpro.journal.parts import Findings, read_part
from eqcctpro.journal.started import under_way
from eqcctpro.journal.store import Attempt, JournalStore
from eqcctpro.journal.writing import remove, writing
from eqcctpro.picks.raw import TaskPicks
from eqcctpro.pipeline.records import PickOutcome

__all__ = ["EarlierRun", "Restored", "changed_files", "changed_values"]

# Names of files and settings that a message lists.
MOST_NAMED = 5


@dataclass
class Restored:
    """Results of an earlier run that a resumed run reuses.

    Attributes
    ----------
    outcomes : dict of int to PickOutcome
        By the task's index in the current plan.
    findings : Findings
        Picks and detections; their ``task`` is that index, too.
    again : list of int
        Keys of station tasks that had ended and are picked again.
    damaged : list of str
        Damaged part files; their station tasks are in `again`.
    """

    outcomes: dict[int, PickOutcome] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    again: list[int] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


class EarlierRun:
    """Contents of the journal of an earlier run.

    Parameters
    ----------
    folder : RunFolder

    Attributes
    ----------
    facts : dict
        Empty if the run was killed before it had written anything.
    keys : dict of bytes to int
        Keys of the station tasks, by the hash of what they compute.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        store = JournalStore(folder.journal, writable=False)
        try:
            self.facts: dict[str, Any] = store.facts()
            if not self.facts:
                return
            self.files: dict[str, Stamp] = store.files()
            self.keys = store.ids()
            self.attempts: list[Attempt] = store.attempts()
            self._ended = list(store.outcomes())
            self._parts = store.parts()
            self._suspects = store.suspects()
        finally:
            store.close()

    @property
    def finished(self) -> bool:
        """True if the results were written completely."""
        return self.facts.get("state") == "finished"

    def died_over(self) -> set[int]:
        """Keys of pending station tasks that were in flight when the last process died."""
        last = self.attempts[-1] if self.attempts else None
        if last is None or last.ending is not None:
            return set()
        ended = {key for key, _, _ in self._ended}
        return under_way(self._folder.started, self.facts["plan"]) - ended

    def suspects(self) -> set[int]:
        """Keys of all pending station tasks that were in flight when some process died."""
        return self._suspects | self.died_over()

    def restore(
        self, ids: Sequence[bytes], *, retry_failed: bool, retry_quarantined: bool
    ) -> Restored:
        """Load the recorded results of the station tasks `ids` of the current plan."""
        index_of = {self.keys[id_]: i for i, id_ in enumerate(ids) if id_ in self.keys}
        restored = Restored()
        part_of: dict[int, int] = {}
        for key, record, part in self._ended:
            index = index_of.get(key)
            if index is None:
                continue
            quarantined = record.error == QuarantinedError.__name__
            retry = retry_quarantined if quarantined else retry_failed
            if record.status == "failed" and retry:
                restored.again.append(key)
                continue
            restored.outcomes[index] = record
            part_of[key] = -1 if part is None else part
        self._restore_findings(restored, part_of, index_of)
        return restored

    def _restore_findings(
        self, restored: Restored, part_of: Mapping[int, int], index_of: Mapping[int, int]
    ) -> None:
        size = max(part_of, default=0) + 1
        owner = np.full(size, -2, dtype=np.int64)
        index = np.zeros(size, dtype=np.int32)
        for key, part in part_of.items():
            owner[key], index[key] = part, index_of[key]
        picks, detections = [], []
        for number, (name, crc) in self._parts.items():
            found = read_part(self._folder.parts / name, crc)
            if found is None:
                restored.damaged.append(name)
                for key in [key for key, part in part_of.items() if part == number]:
                    restored.again.append(key)
                    del restored.outcomes[index_of[key]]
                continue
            picks.append(_owned(found.picks, number, owner, index))
            detections.append(_owned(found.detections, number, owner, index))
        restored.findings = Findings(*map(TaskPicks.concatenate, (picks, detections)))

    def tidy(self) -> None:
        """Remove part files that the journal does not list."""
        known = {name for name, _ in self._parts.values()}
        if self._folder.parts.is_dir():
            for path in self._folder.parts.iterdir():
                if path.name not in known:
                    with writing(path.parent):
                        remove(path)


def _owned(picks: TaskPicks, part: int, owner: Any, index: Any) -> TaskPicks:
    """Rows of station tasks whose latest result is in this part, under their index in the plan."""
    inside = picks.task < len(owner)
    mine = picks.take(inside)
    mine = mine.take(owner[mine.task] == part)
    return replace(mine, task=index[mine.task])


def changed_values(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe each difference, such as ``"p_threshold was 0.3, is 0.2"``."""
    names = [name for name in (*before, *(n for n in now if n not in before))]
    return [
        f"{name} was {_shown(before.get(name))}, is {_shown(now.get(name))}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "not there"
    text = str(value)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:12] if is_hash else text


def changed_files(before: Mapping[str, Stamp], now: Mapping[str, Stamp]) -> list[str]:
    """List the input files that changed, are gone or are new; a long list ends with a count."""
    changed = [
        f"{name} has changed" for name in before if now.get(name, before[name]) != before[name]
    ]
    changed += [f"{name} is gone" for name in before if name not in now]
    changed += [f"{name} is new" for name in now if name not in before]
    if len(changed) > MOST_NAMED:
        changed[MOST_NAMED:] = [f"and {len(changed) - MOST_NAMED} more files"]
    return changed
