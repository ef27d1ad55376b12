"""The files of an input: which there are, and which time-chunk folder each lies in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eqcctpro.errors import InputError
from eqcctpro.times import parse_chunk_name

__all__ = ["ArchiveFile", "Layout", "detect_layout", "iter_files", "list_files"]

Layout = Literal["chunks", "files"]

# Files with these endings are meant to be miniSEED; an unreadable one is a failure.
MINISEED_SUFFIXES = frozenset({".mseed", ".miniseed", ".ms", ".msd", ".mseed2", ".mseed3", ".seed"})


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of an archive.

    Attributes
    ----------
    path : str
    folder : str
        Name of the station folder in the ``chunks`` layout, otherwise empty.
    chunk : str
        Name of the time-chunk folder in the ``chunks`` layout, otherwise empty.
    expected : bool
        Whether the file is meant to be miniSEED, by its ending or because it was named.
    """

    path: str
    folder: str
    chunk: str
    expected: bool


def detect_layout(inputs: Sequence[Path]) -> Layout:
    """``"chunks"`` when a single folder holds time-chunk folders, else ``"files"``."""
    if len(inputs) == 1 and inputs[0].is_dir():
        with os.scandir(inputs[0]) as entries:
            if any(entry.is_dir() and parse_chunk_name(entry.name) for entry in entries):
                return "chunks"
    return "files"


def list_files(inputs: Sequence[Path], layout: Layout) -> list[ArchiveFile]:
    """Every file below the inputs, sorted by path; see `iter_files`."""
    return list(iter_files(inputs, layout))


def iter_files(inputs: Sequence[Path], layout: Layout) -> Iterator[ArchiveFile]:
    """Every file below the inputs, in the order of their paths.

    Raises
    ------
    InputError
        An input is missing or unreadable, the folder holds no files, or the layout
        is ``"chunks"`` and there is no time-chunk folder.
    """
    for path in inputs:
        if not path.exists():
            raise InputError(f"input {path} does not exist", hint="check the path")
    files = _chunk_files(inputs) if layout == "chunks" else _plain_files(inputs)
    if len(inputs) > 1:
        files = iter(sorted(files, key=lambda file: file.path))
    found = False
    try:
        for file in files:
            found = True
            yield file
    except PermissionError as error:
        raise InputError(
            f"input folder {error.filename} may not be read", hint="check its permissions"
        ) from error
    if not found:
        names = ", ".join(str(path) for path in inputs)
        raise InputError(f"input {names} holds no files", hint="check the path")


def _chunk_files(inputs: Sequence[Path]) -> Iterator[ArchiveFile]:
    chunks = 0
    for root in inputs:
        if not root.is_dir():
            raise InputError(
                f"input {root} is a file, and the layout is 'chunks'",
                hint="name the folder that holds the time-chunk folders, or use --layout files",
            )
        for name, is_folder in _names(str(root)):
            if not is_folder or parse_chunk_name(name) is None:
                continue
            chunks += 1
            yield from _in_chunk(os.path.join(root, name), name)  # noqa: PTH118 (text)
    if not chunks:
        raise InputError(
            f"input {inputs[0]} holds no time-chunk folder",
            hint="folders are named 20241215T115800Z_20241215T123000Z; "
            "for other layouts use --layout files",
        )


def _plain_files(inputs: Sequence[Path]) -> Iterator[ArchiveFile]:
    for path in inputs:
        if path.is_dir():
            yield from _below(str(path), folder="", chunk="")
        else:
            yield ArchiveFile(str(path), "", "", expected=True)


def _in_chunk(folder: str, chunk: str) -> Iterator[ArchiveFile]:
    for name, is_folder in _names(folder):
        path = f"{folder}/{name}"
        if is_folder:
            yield from _below(path, folder=name, chunk=chunk)
        elif not name.startswith("."):
            yield _file(path, "", chunk)


def _names(folder: str) -> Iterator[tuple[str, bool]]:
    """Names in a folder and whether they are folders, in the order that paths below them have."""
    with os.scandir(folder) as entries:
        # Only text is kept: there may be many thousand stations.
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    return ((name.removesuffix("/"), name.endswith("/")) for name in names)


def _below(root: str, *, folder: str, chunk: str) -> Iterator[ArchiveFile]:
    root = root.removesuffix("/")
    for name, is_folder in _names(root or "/"):
        if name.startswith("."):
            continue
        path = f"{root}/{name}"
        if not is_folder:
            yield _file(path, folder, chunk)
        elif not os.path.islink(path):  # noqa: PTH114 (it might lead back here)
            yield from _below(path, folder=folder, chunk=chunk)


def _file(path: str, folder: str, chunk: str) -> ArchiveFile:
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 (hot)
    # Day files of SDS archives end in the day of the year.
    expected = suffix in MINISEED_SUFFIXES or suffix in ("", ".") or suffix[1:].isdigit()
    return ArchiveFile(path, folder, chunk, expected or path.lower().endswith("mseed"))
