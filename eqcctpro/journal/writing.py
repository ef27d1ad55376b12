"""Removal of a run's files, and errors that name an output folder that cannot be written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eqcctpro.errors import OutputError

__all__ = ["remove", "writing"]


def remove(path: Path) -> None:
    """Remove a file, link or folder, if it exists.

    Raises
    ------
    OSError
        It cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an `OSError` into an `OutputError` that names the folder and the remedy.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}",
            hint="check the folder's permissions and the space on the disk; then the same "
            "command goes on where the run stopped",
        ) from error
