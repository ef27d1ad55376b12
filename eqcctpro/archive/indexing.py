"""Index of local files in a background thread, each within a time limit.

A read from a hanging file system may never return: its thread is abandoned, and another one
goes on with the next file.
"""

from __future__ import annotations

from collections.abc import Sequence

from eqcctpro.background import BackgroundTask
from eqcctpro.errors import DecodeError, InputError, InputTimeoutError
from eqcctpro.miniseed.index import IndexedFile, index_file
from eqcctpro.roots import Roots

__all__ = ["FILES_AT_ONCE", "index_files"]

#: Files per background task: more would save nothing.
FILES_AT_ONCE = 64


def index_files(
    paths: Sequence[str], roots: Roots, limit_s: float | None
) -> list[IndexedFile | InputError]:
    """Index local files in order.

    Parameters
    ----------
    paths : sequence of str
    roots : Roots
    limit_s : float or None
        Time limit of a file: it is given up after one to two times this long.

    Returns
    -------
    list of IndexedFile or InputError
        Index or error of each file.
    """
    if limit_s is None:
        return [_indexed(path, roots) for path in paths]
    found: list[IndexedFile | InputError] = []
    while len(found) < len(paths):
        found += _Batch(paths[len(found) :], roots).wait(limit_s)
        if len(found) < len(paths):
            path = paths[len(found)]
            found.append(
                InputTimeoutError(
                    f"{path} could not be read in {limit_s:g} s", hint="check the file system"
                )
            )
    return found


class _Batch:
    """Batch of files that a background thread indexes."""

    def __init__(self, paths: Sequence[str], roots: Roots) -> None:
        self._paths = paths
        self._roots = roots
        self._found: list[IndexedFile | InputError] = []
        self._given_up = False

    def wait(self, limit_s: float) -> list[IndexedFile | InputError]:
        """Index of all files, or of those before one that exceeds the time limit."""
        task = BackgroundTask(self._work)
        task.start()
        before = 0
        while not task.wait(limit_s):
            if len(self._found) == before:
                self._given_up = True
                return self._found[:before]
            before = len(self._found)
        return self._found

    def _work(self, _: BackgroundTask) -> None:
        for path in self._paths:
            if self._given_up:
                return
            self._found.append(_indexed(path, self._roots))


def _indexed(path: str, roots: Roots) -> IndexedFile | InputError:
    try:
        return index_file(path, roots)
    except InputError as error:
        return error
    except Exception as error:  # a file that breaks our own reading fails alone
        return DecodeError(f"{path} cannot be read: {type(error).__name__}: {error}")
