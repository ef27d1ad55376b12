"""Places of input: paths in this machine's file systems, or addresses."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from eqcctpro.errors import SettingsError

__all__ = ["Place", "as_place", "is_address", "local_paths", "make_writable"]

#: A path, or the address of a folder or file, such as ``s3://bucket/folder``.
Place = Path | str

_FILE = "file://"


def is_address(place: object) -> bool:
    """True if a place is an address (``scheme://...``) and not a path."""
    return "://" in str(place)


def as_place(value: Place) -> Place:
    """Text of an address as it is, other text as a path."""
    if not isinstance(value, str):
        return value
    if value.startswith(_FILE):
        return Path(value.removeprefix(_FILE))
    return value.rstrip("/") if is_address(value) else Path(value)


def make_writable(folder: Path) -> None:
    """Create a folder where there is none, and try whether files can be written to it.

    Raises
    ------
    OSError
        They cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Access bits say nothing about read-only mounts and quotas.
    with tempfile.TemporaryFile(dir=folder):
        pass


def local_paths(places: Sequence[Place], what: str) -> tuple[Path, ...]:
    """Places that are all on this machine.

    Raises
    ------
    SettingsError
        One is an address, which `what` cannot use.
    """
    paths = tuple(place for place in places if isinstance(place, Path))
    for place in places:
        if not isinstance(place, Path):
            raise SettingsError(f"input {place}: {what} reads files of this machine only")
    return paths
