"""Check that input files have not changed since the run was planned."""

from __future__ import annotations

import os
from collections.abc import Container

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import InputChangedError
from eqcctpro.places import is_address

__all__ = ["require_unchanged"]


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
