"""Decodes and prepares station tasks ahead of the network, within a memory bound."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from eqcctpro.archive.plan import StationTask
from eqcctpro.background import BackgroundTask
from eqcctpro.errors import EQCCTProError, InputTimeoutError
from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.prepare import Prepared, RunningRecords, prepare
from eqcctpro.pipeline.records import PickOutcome
from eqcctpro.roots import Roots
from eqcctpro.sources.files import FileCache, require_unchanged
from eqcctpro.sources.task_settings import TaskSettings
from eqcctpro.sources.task_waveforms import TaskPiece, has_gaps, pieces_of, task_waveforms

__all__ = ["Feeder"]

# Prepared waveforms that may wait for the network: a few batches of any model, and a third of a
# second of a small one on two cores.
WAITING_BYTES = 24 * 2**20
# How often a task that takes long is looked at, at most; and how long its thread is waited for
# when nothing of it is wanted any more.
GLANCE_SECONDS = 1.0
PARTING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Part:
    """Unit of reading and preparation: a station task, or a piece of one."""

    ticket: StationTask | TaskPiece
    task: StationTask
    following: StationTask | None
    position: int
    running: RunningRecords | None = None


class Feeder:
    """Prepares station tasks in order, in a thread beside; iterate to take them with their tickets.

    The ticket of a task is the task, and that of a piece of one is the piece.

    A task that is not read within ``settings.item_timeout_s``, because a file system hangs,
    ends as failed, and another thread goes on with the next one.  What the first one reads
    after all is not wanted any more.

    Parameters
    ----------
    tasks : sequence of StationTask
    picker : Picker
    settings : TaskSettings
    held : dict of str to bytes, optional
        Contents of files by their paths; they are taken out.
    stop : callable
        Whether no further pieces of a station task are to be prepared, which then does not end.
    """

    def __init__(
        self,
        tasks: Sequence[StationTask],
        picker: Picker,
        settings: TaskSettings,
        held: dict[str, bytes] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tasks = tasks
        self._stop = stop
        self._picker = picker
        self._settings = settings
        self._ready: deque[tuple[StationTask | TaskPiece, Prepared]] = deque()
        self._waiting_bytes = 0
        self._ended = False
        self._stopped = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._source = self._parts()
        self._failed = -1
        self._held = {} if held is None else held
        self._cache = self._new_cache()
        self._at: tuple[_Part, float] | None = None
        self._reader = BackgroundTask(self._work)
        self.seconds = {"decode": 0.0, "prepare": 0.0}

    def _new_cache(self) -> FileCache:
        roots = Roots(self._settings.input_roots)
        return FileCache(self._held, roots, self._settings.needs_record)

    def _parts(self) -> Iterator[_Part]:
        """Yield the units of reading: station tasks, or their pieces where they have some."""
        for position, task in enumerate(self._tasks):
            if not task.pieces:
                following = self._tasks[position + 1] if position + 1 < len(self._tasks) else None
                yield _Part(task, task, following, position)
                continue
            running = RunningRecords()
            for piece in pieces_of(task):
                if self._failed == position:
                    break  # it ends with the piece that failed
                if piece.number and self._stop():
                    return
                yield _Part(piece, piece.task, None, position, running)

    def __iter__(self) -> Iterator[tuple[StationTask | TaskPiece, Prepared]]:
        self._reader.start()
        try:
            while (item := self._take()) is not None:
                yield item
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            self._reader.wait(PARTING_SECONDS)

    def _take(self) -> tuple[StationTask | TaskPiece, Prepared] | None:
        with self._changed:
            while not self._ready and not self._ended:
                self._changed.wait(self._glance_seconds)
                if not self._ready and (late := self._late()) is not None:
                    return late
            if self._ready:
                item = self._ready.popleft()
                self._waiting_bytes -= item[1].n_bytes
                self._changed.notify_all()
                return item
        if self._failure is not None:
            raise self._failure
        return None

    @property
    def _glance_seconds(self) -> float | None:
        limit = self._settings.item_timeout_s
        return None if limit is None else min(GLANCE_SECONDS, limit)

    def _late(self) -> tuple[StationTask | TaskPiece, Prepared] | None:
        """The task whose time is over, given up: its thread is left to itself."""
        limit, at = self._settings.item_timeout_s, self._at
        if limit is None or at is None or time.monotonic() - at[1] <= limit:
            return None
        part = at[0]
        error = InputTimeoutError(
            f"{self._cache.at} could not be read in {limit:g} s",
            hint="check the file system, then resume the run",
        )
        self._at = None
        self._cache = self._new_cache()
        self._reader = BackgroundTask(self._work)
        self._reader.start()
        self._failed = part.position
        return part.ticket, Prepared(ended=PickOutcome.failure(error))

    def _put(self, part: _Part, prepared: Prepared, reader: BackgroundTask) -> bool:
        size = prepared.n_bytes
        with self._changed:
            if reader is not self._reader:
                return False  # it was given up
            self._at = None
            while self._ready and self._waiting_bytes + size > WAITING_BYTES and not self._stopped:
                self._changed.wait()
            self._ready.append((part.ticket, prepared))
            self._waiting_bytes += size
            self._changed.notify_all()
            # Whoever takes a day of a station is busy with it for longer than the next one takes
            # to read: until then there would be three of them.
            while self._waiting_bytes > WAITING_BYTES and not self._stopped:
                self._changed.wait()
            return not self._stopped

    def _work(self, reader: BackgroundTask) -> None:
        cache = self._cache
        try:
            for part in self._source:
                self._at = part, time.monotonic()
                if not self._put(part, self._timed(cache, part), reader):
                    return
        except BaseException as error:  # handed to the thread that iterates
            if reader is self._reader:
                self._failure = error
        finally:
            cache.close()
            with self._changed:
                if reader is self._reader:
                    self._ended = True
                    self._changed.notify_all()

    def _timed(self, cache: FileCache, part: _Part) -> Prepared:
        started = time.perf_counter()
        prepared = self._prepare(cache, part)
        prepared.seconds = time.perf_counter() - started
        prepared.keep_curves = self._settings.annotations is not None
        if prepared.ended is not None:
            prepared.ended = replace(prepared.ended, seconds=prepared.seconds)
            if prepared.ended.status == "failed":
                self._failed = part.position
        return prepared

    def _prepare(self, cache: FileCache, part: _Part) -> Prepared:
        started = time.perf_counter()
        task = part.task
        try:
            decoded = cache.read(task, part.following, self._settings.context_ns)
            require_unchanged(task, cache.as_planned)
            context_ns = self._settings.context_ns
            if task.beside and has_gaps(task, decoded, context_ns):
                decoded += cache.read_beside(task, context_ns)
        except EQCCTProError as error:
            return Prepared(ended=PickOutcome.failure(error))
        finally:
            self.seconds["decode"] += time.perf_counter() - started
        started = time.perf_counter()
        try:
            waveforms = task_waveforms(task, decoded, self._settings)
            return prepare(waveforms, self._picker, self._settings, part.running)
        except (ValueError, ArithmeticError, MemoryError, LookupError, TypeError) as error:
            # A waveform that breaks our own arithmetic fails alone, under its own name.
            return Prepared(ended=PickOutcome.failure(error))
        finally:
            self.seconds["prepare"] += time.perf_counter() - started
