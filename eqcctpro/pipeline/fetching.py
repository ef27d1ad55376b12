"""Files at addresses, fetched while the station task before them is worked on."""

from __future__ import annotations

from collections.abc import Container
from concurrent.futures import Future, ThreadPoolExecutor

from eqcctpro.archive.plan import StationTask
from eqcctpro.archive.remote import fetch
from eqcctpro.errors import DecodeError, InputChangedError, InputError
from eqcctpro.places import is_address

__all__ = ["Fetched"]

# A station task has a few files, and those of the next one are fetched beside.
PARALLEL_FETCHES = 8


class Fetched:
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
