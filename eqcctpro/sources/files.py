"""Files of station tasks: fetched from addresses, decoded, and kept where they are needed again."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache

from eqcctpro.archive.plan import StationTask
from eqcctpro.archive.remote import fetch
from eqcctpro.archive.timechunks import read_span
from eqcctpro.errors import DecodeError, InputChangedError, InputError
from eqcctpro.places import is_address
from eqcctpro.roots import Roots
from eqcctpro.waveform.decode import DecodedFile, decode_file
from eqcctpro.waveform.resampling import LONGEST_RECORD, held_record

__all__ = ["LARGEST_KEPT", "FileCache", "require_unchanged"]

#: Bytes of a file of which all is decoded for the next station task; of larger ones each task
#: decodes what it needs.
LARGEST_KEPT = 64 * 2**20
# A station task has a few files, and those of the next one are fetched beside.
PARALLEL_FETCHES = 8


class FileCache:
    """Decodes files, and keeps what the next station task needs too.

    A day file that is read in short chunks, or a file that holds many stations, is so
    decoded once; nothing else stays in memory.

    Parameters
    ----------
    held : dict of str to bytes, optional
        Contents of files by their paths, which are not read then; they are taken out.
    roots : Roots, optional
        What files must lie in.
    needs_record : callable, optional
        Whether pieces of a sampling rate need all of their record.

    Attributes
    ----------
    at : str
        The file that was read last, or is being read.
    as_planned : set of str
        Files of the last task whose contents were held.
    """

    def __init__(
        self,
        held: dict[str, bytes] | None = None,
        roots: Roots | None = None,
        needs_record: Callable[[float], bool] | None = None,
    ) -> None:
        self._needs_record = None if needs_record is None else cache(needs_record)
        self.at = ""
        self._roots = Roots() if roots is None else roots
        self.as_planned: set[str] = set()
        self._held = {} if held is None else held
        self._kept: dict[str, DecodedFile] = {}
        self._fetched = _Fetched()

    def read(
        self, task: StationTask, following: StationTask | None, context_ns: int
    ) -> list[DecodedFile]:
        """The decoded files of a task.

        Raises
        ------
        DecodeError
            A file cannot be read or is not miniSEED.
        """
        wanted_next = set(following.files) if following is not None else set()
        for path, (size, _) in zip(task.files, task.stamps, strict=False):
            if size > LARGEST_KEPT:
                wanted_next.discard(path)
        span = read_span(task.chunk, context_ns)
        self._fetched.begin(task, following, known=self._kept)
        decoded = []
        self.as_planned = self._held.keys() & task.files
        for path in task.files:
            content = self._kept.get(path)
            if content is None:
                self.at = path
                limits = (None, None) if path in wanted_next else span
                held = self._held.pop(path, None)
                held = self._fetched.take(path) if held is None else held
                if held is None and self._roots:
                    held = self._roots.read(path)
                content = self._decoded(path, limits, held, kept=path in wanted_next)
            if path in wanted_next:
                self._kept[path] = content
            decoded.append(content)
        for path in set(self._kept) - wanted_next:
            del self._kept[path]
        return decoded

    def read_beside(self, task: StationTask, context_ns: int) -> list[DecodedFile]:
        """The decoded files that lie beside those of a task; as `read`, but nothing is kept."""
        decoded = []
        stamps = task.stamps[len(task.files) :]
        for path, stamp in zip(task.beside, stamps, strict=True):
            content = self._kept.get(path)
            if content is None:
                self.at = path
                held = self._held.get(path)
                if held is None and is_address(path):
                    held = fetch(path, stamp)
                if held is None and self._roots:
                    held = self._roots.read(path)
                content = decode_file(path, *read_span(task.chunk, context_ns), held)
            decoded.append(content)
        require_unchanged(replace(task, files=task.beside, stamps=stamps), self._held)
        return decoded

    def _decoded(
        self,
        path: str,
        limits: tuple[int | None, int | None],
        held: bytes | None,
        *,
        kept: bool,
    ) -> DecodedFile:
        """A decoded file, with the records that pieces of it need."""
        decoded = decode_file(path, *limits, held)
        needs = self._needs_record
        if needs is None or not any(needs(piece.sampling_rate) for piece in decoded.segments):
            return decoded
        if any(piece.samples_before or piece.samples_behind for piece in decoded.segments):
            if max(piece.record_length for piece in decoded.segments) > LONGEST_RECORD:
                return decoded
            decoded = decode_file(path, None, None, held)
        elif not kept:
            return decoded
        segments = [
            replace(piece, record=held_record(piece.samples))
            if needs(piece.sampling_rate)
            else piece
            for piece in decoded.segments
        ]
        return replace(decoded, segments=segments)

    def close(self) -> None:
        """Forget everything, and fetch nothing more."""
        self._kept.clear()
        self._fetched.close()


class _Fetched:
    """Contents of files at addresses; files of this machine are none of its business."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: dict[str, Future[bytes]] = {}

    def begin(
        self, task: StationTask, following: StationTask | None, known: Container[str]
    ) -> None:
        """Begin to fetch the files of a task and of the next one, but those that are known.

        What an earlier task left is forgotten.
        """
        stamps = _addresses(task) | (_addresses(following) if following is not None else {})
        if not stamps and not self._under_way:
            return
        for address in [one for one in self._under_way if one not in stamps]:
            self._under_way.pop(address).cancel()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(PARALLEL_FETCHES, "eqcctpro-fetch")
        for address, stamp in stamps.items():
            if address not in self._under_way and address not in known:
                self._under_way[address] = self._pool.submit(fetch, address, stamp)

    def take(self, path: str) -> bytes | None:
        """The content of a file at an address, waited for; None for others.

        Raises
        ------
        InputChangedError
            It is no longer what was planned.
        DecodeError
            It cannot be read.
        """
        if path not in self._under_way:
            return None
        try:
            return self._under_way.pop(path).result()
        except InputChangedError:
            raise
        except InputError as error:
            raise DecodeError(error.message, hint=error.hint) from error

    def close(self) -> None:
        """Fetch nothing more; what is on its way is not waited for."""
        self._under_way.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _addresses(task: StationTask) -> dict[str, tuple[int, int]]:
    return {
        path: stamp
        for path, stamp in zip(task.files, task.stamps, strict=False)
        if is_address(path)
    }


def require_unchanged(task: StationTask, known: Container[str] = ()) -> None:
    """Refuse a station task whose files changed or vanished since the plan was made.

    Called after they have been read: what was read is then what the plan names.

    Parameters
    ----------
    task : StationTask
    known : container of str
        Files that were read when the plan was made.

    Raises
    ------
    InputChangedError
    """
    for path, stamp in zip(task.files, task.stamps, strict=False):
        if path in known or is_address(path):
            continue  # addresses are looked at when they are fetched
        try:
            status = os.stat(path)  # noqa: PTH116 (hot)
        except OSError as error:
            raise InputChangedError(
                f"{path} has vanished since the run was planned: {error.strerror or error}",
                hint="bring it back and resume the run",
            ) from error
        if (status.st_size, status.st_mtime_ns) != stamp:
            raise InputChangedError(
                f"{path} has changed since the run was planned "
                f"({stamp[0]} bytes then, {status.st_size} now)",
                hint="resume the run once it is complete",
            )
