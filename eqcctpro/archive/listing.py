"""Listing of local folders, each within a time limit.

A folder that cannot be listed, because its file system hangs or it may not be read, is recorded,
and the listing goes on.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence

from eqcctpro.background import BackgroundTask
from eqcctpro.errors import InputError, InputTimeoutError

__all__ = ["FolderLister", "leads_to_folder"]

# Folders per background task: to hand over each alone would take longer than to list it.
_AT_ONCE = 64


class FolderLister:
    """Lister of local folders with a time limit.

    Parameters
    ----------
    limit_s : float or None
        Time limit for listing a folder, and for resolving a link in it.

    Attributes
    ----------
    failed : dict of str to InputError
        Errors of folders that could not be listed and links that could not be resolved.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        self._limit_s = limit_s
        self.failed: dict[str, InputError] = {}
        self._next: deque[str] = deque()
        self._found: dict[str, list[tuple[str, bool]]] = {}

    def reach(self, path: str) -> None:
        """Check that the file system of a path responds within the time limit.

        Raises
        ------
        InputTimeoutError
        """
        if self._limit_s is None:
            return

        def look(_: BackgroundTask) -> None:
            os.path.exists(path)  # noqa: PTH110 (text)

        task = BackgroundTask(look)
        task.start()
        if not task.wait(self._limit_s):
            raise InputTimeoutError(
                f"input {path} does not answer in {self._limit_s:g} s", hint="check the file system"
            )

    def ahead(self, folders: Sequence[str]) -> None:
        """Announce the next folders, in order, so that they are listed in batches."""
        self._next, self._found = deque(folders), {}

    def names(self, folder: str) -> list[tuple[str, bool]]:
        """Names in a folder, with True for folders; an empty list if it cannot be listed."""
        if (found := self._found.pop(folder, None)) is not None:
            return found
        folders = [folder]
        if self._next and self._next[0] == folder:
            folders = [self._next.popleft() for _ in range(min(len(self._next), _AT_ONCE))]
        while folder not in self.failed and folder not in self._found:
            look = _Look(folders, self.failed)
            if self._limit_s is None:
                look.carry_out()
            else:
                look.wait(self._limit_s)
                if look.given_up:
                    # A link into a hanging file system is left out, and its neighbours are listed.
                    self.failed[look.at] = InputTimeoutError(
                        f"{look.at} could not be read in {self._limit_s:g} s",
                        hint="check the file system",
                    )
            self._found.update(look.found)
            for path, error in look.errors.items():
                self.failed[path] = InputError(
                    f"input folder {path} cannot be listed: {error.strerror or error}",
                    hint="check its permissions, and the file system",
                )
            folders = [folder]
        return self._found.pop(folder, [])


class _Look:
    """Listing of several folders, which may hang."""

    def __init__(self, folders: Sequence[str], skipped: Mapping[str, InputError]) -> None:
        self._folders = folders
        self._skipped = frozenset(skipped)
        self.at = folders[0]
        self.found: dict[str, list[tuple[str, bool]]] = {}
        self.errors: dict[str, OSError] = {}
        self.given_up = False

    def wait(self, limit_s: float) -> None:
        """List in a background thread, until one folder or link exceeds the time limit."""
        task = BackgroundTask(lambda _: self.carry_out())
        task.start()
        before = ""
        while not task.wait(limit_s):
            if self.at == before:
                self.given_up = True
                # The thread may resume later; its further results are discarded.
                self.found, self.errors = dict(self.found), dict(self.errors)
                return
            before = self.at

    def carry_out(self) -> None:
        for folder in self._folders:
            if self.given_up:
                return
            self.at = folder
            found = []
            try:
                with os.scandir(folder or "/") as entries:
                    for entry in entries:
                        path = f"{folder.rstrip('/')}/{entry.name}"
                        if path in self._skipped:
                            continue
                        self.at = path
                        found.append((entry.name, leads_to_folder(entry)))
                        self.at = folder
            except OSError as error:
                self.errors[folder] = error
            else:
                self.found[folder] = found


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """True if an entry is a folder or a link to one; False for a broken link."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or a folder that may not be entered
        return False
