"""Decodes and prepares station tasks ahead of the network, within a memory bound."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import EQCCTProError
from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.prepare import FileCache, Prepared, failed_record, prepare
from eqcctpro.pipeline.settings import PipelineSettings

__all__ = ["Feeder"]

# Prepared waveforms that may wait for the network: a few batches of any model.
WAITING_BYTES = 64 * 2**20

# They are handed over in groups of about this size, unless the network is waiting.
GROUP_BYTES = 2**20


class Feeder:
    """A thread that prepares station tasks in order; iterate to take them.

    Parameters
    ----------
    tasks : sequence of StationTask
    picker : Picker
    settings : PipelineSettings
    """

    def __init__(
        self, tasks: Sequence[StationTask], picker: Picker, settings: PipelineSettings
    ) -> None:
        self._tasks = tasks
        self._picker = picker
        self._settings = settings
        self._ready: deque[list[Prepared]] = deque()
        self._waiting_bytes = 0
        self._wanted = False
        self._ended = False
        self._stopped = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="eqcctpro-feeder", daemon=True)
        self.seconds = {"decode": 0.0, "prepare": 0.0}

    def __iter__(self) -> Iterator[Prepared]:
        self._thread.start()
        try:
            while (group := self._take()) is not None:
                yield from group
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            self._thread.join()

    def _take(self) -> list[Prepared] | None:
        with self._changed:
            while not self._ready and not self._ended:
                self._wanted = True
                self._changed.wait()
            self._wanted = False
            if self._ready:
                group = self._ready.popleft()
                self._waiting_bytes -= _size(group)
                self._changed.notify_all()
                return group
        if self._failure is not None:
            raise self._failure
        return None

    def _put(self, group: list[Prepared]) -> bool:
        """Hand over a group; whether more are wanted."""
        size = _size(group)
        with self._changed:
            while self._ready and self._waiting_bytes + size > WAITING_BYTES and not self._stopped:
                self._changed.wait()
            self._ready.append(group)
            self._waiting_bytes += size
            self._changed.notify_all()
            return not self._stopped

    def _work(self) -> None:
        try:
            cache = FileCache()
            group: list[Prepared] = []
            size = 0
            for position, task in enumerate(self._tasks):
                following = self._tasks[position + 1] if position + 1 < len(self._tasks) else None
                group.append(self._prepare(cache, task, following))
                size += group[-1].n_bytes
                if self._wanted or size >= GROUP_BYTES or following is None:
                    if not self._put(group):
                        return
                    group, size = [], 0
        except BaseException as error:  # handed to the thread that iterates
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _prepare(
        self, cache: FileCache, task: StationTask, following: StationTask | None
    ) -> Prepared:
        started = time.perf_counter()
        try:
            decoded = cache.read(task, following, self._settings.context_ns)
        except EQCCTProError as error:
            return Prepared(task, failed_record(task, error))
        finally:
            self.seconds["decode"] += time.perf_counter() - started
        started = time.perf_counter()
        try:
            return prepare(task, decoded, self._picker, self._settings)
        except (ValueError, ArithmeticError, MemoryError, LookupError, TypeError) as error:
            # A waveform that breaks our own arithmetic fails alone, under its own name.
            return Prepared(task, failed_record(task, error))
        finally:
            self.seconds["prepare"] += time.perf_counter() - started


def _size(group: Sequence[Prepared]) -> int:
    return sum(item.n_bytes for item in group)
