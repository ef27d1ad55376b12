"""What is said when the output folder cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eqcctpro.errors import OutputError

__all__ = ["writing"]


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
