"""Names in folders of this machine, each folder within a time limit.

A folder that cannot be listed, because its file system hangs or it may not be read, is noted, and
the others are listed.
"""

from __future__ import annotations

import os

from eqcctpro.background import BackgroundTask
from eqcctpro.errors import InputError, InputTimeoutError

__all__ = ["FolderLister", "leads_to_folder"]


class FolderLister:
    """Lists folders.

    Parameters
    ----------
    limit_s : float or None
        Time in which a folder must be listed, and in which a link in it must say where it leads.

    Attributes
    ----------
    failed : dict of str to InputError
        Folders that could not be listed, and links that could not be followed, and why.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        self._limit_s = limit_s
        self.failed: dict[str, InputError] = {}

    def reach(self, path: str) -> None:
        """Make sure that the file system answers that a path is on.

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

    def names(self, folder: str) -> list[tuple[str, bool]]:
        """Names in a folder, and whether they are folders; none if it cannot be listed."""
        while folder not in self.failed:
            look = _Look(folder, self.failed)
            if self._limit_s is None:
                look.carry_out()
            else:
                task = BackgroundTask(lambda _, look=look: look.carry_out())  # type: ignore[misc]
                task.start()
                if not task.wait(self._limit_s):
                    # A link into a file system that hangs costs itself, and not its neighbours.
                    self.failed[look.at] = InputTimeoutError(
                        f"{look.at} could not be read in {self._limit_s:g} s",
                        hint="check the file system",
                    )
                    continue
            if look.error is None:
                return look.found
            self.failed[folder] = InputError(
                f"input folder {folder} cannot be listed: {look.error.strerror or look.error}",
                hint="check its permissions, and the file system",
            )
        return []


class _Look:
    """One look into a folder, which may never end."""

    def __init__(self, folder: str, skipped: dict[str, InputError]) -> None:
        self._folder = folder
        self._skipped = frozenset(skipped)
        self.at = folder
        self.found: list[tuple[str, bool]] = []
        self.error: OSError | None = None

    def carry_out(self) -> None:
        try:
            with os.scandir(self._folder or "/") as entries:
                for entry in entries:
                    path = f"{self._folder.rstrip('/')}/{entry.name}"
                    if path in self._skipped:
                        continue
                    self.at = path
                    self.found.append((entry.name, leads_to_folder(entry)))
                    self.at = self._folder
        except OSError as error:
            self.error = error


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link that leads nowhere is none."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or a folder that may not be entered
        return False
