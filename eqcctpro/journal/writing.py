"""Files of a run are removed, and it is said where the output folder cannot be written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eqcctpro.errors import OutputError

__all__ = ["remove", "writing"]


def remove(path: Path) -> None:
    """Remove a file, link or folder, whichever it is, if there is one.

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
    """Say which folder it is that cannot be written, and how to go on.

    Raises
    ------
    OutputError
        For an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}",
            hint="check the folder's permissions and the space on the disk; then the same "
            "command goes on where the run stopped",
        ) from error
