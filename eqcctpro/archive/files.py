"""The files of an input: which there are, and which time-chunk folder each lies in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.archive.index import ChannelExtent
from eqcctpro.errors import InputError
from eqcctpro.times import parse_chunk_name

__all__ = ["ArchiveFile", "chunk_files", "expected_miniseed", "has_chunk_folders", "plain_files"]

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
    size, stamp : int
        Of a file at an address, where its folder's list tells them; see `RemoteFile`.
    channels : tuple of ChannelExtent or None
        What it holds, where that is believed without opening it.
    """

    path: str
    folder: str
    chunk: str
    expected: bool
    size: int = -1
    stamp: int = 0
    channels: tuple[ChannelExtent, ...] | None = None


def has_chunk_folders(folder: Path) -> bool:
    """Whether a folder holds time-chunk folders."""
    with os.scandir(folder) as entries:
        return any(entry.is_dir() and parse_chunk_name(entry.name) for entry in entries)


def chunk_files(inputs: Sequence[Path]) -> list[ArchiveFile]:
    """Every file below the time-chunk folders of some folders.

    Raises
    ------
    InputError
        There is no time-chunk folder.
    """
    files: list[ArchiveFile] = []
    chunks = 0
    for root in inputs:
        if not root.is_dir():
            raise InputError(
                f"input {root} is a file, and the layout is 'chunks'",
                hint="name the folder that holds the time-chunk folders, or use --layout files",
            )
        for chunk in _folders(root):
            if parse_chunk_name(chunk.name) is None:
                continue
            chunks += 1
            for entry in sorted(os.scandir(chunk.path), key=lambda item: item.name):
                if entry.is_dir():
                    files.extend(_below(entry.path, folder=entry.name, chunk=chunk.name))
                elif not entry.name.startswith("."):
                    files.append(_file(entry.path, "", chunk.name))
    if not chunks:
        raise InputError(
            f"input {inputs[0]} holds no time-chunk folder",
            hint="folders are named 20241215T115800Z_20241215T123000Z; "
            "for other layouts use --layout files",
        )
    return files


def plain_files(inputs: Sequence[Path]) -> list[ArchiveFile]:
    """Files, and every file below folders."""
    files: list[ArchiveFile] = []
    for path in inputs:
        if path.is_dir():
            files.extend(_below(str(path), folder="", chunk=""))
        else:
            files.append(ArchiveFile(str(path), "", "", expected=True))
    return files


def _folders(root: Path) -> list[os.DirEntry[str]]:
    with os.scandir(root) as entries:
        return sorted((entry for entry in entries if entry.is_dir()), key=lambda item: item.name)


def _below(root: str, *, folder: str, chunk: str) -> Iterator[ArchiveFile]:
    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield _file(os.path.join(parent, name), folder, chunk)  # noqa: PTH118 (hot)


def _file(path: str, folder: str, chunk: str) -> ArchiveFile:
    return ArchiveFile(path, folder, chunk, expected_miniseed(path))


def expected_miniseed(path: str) -> bool:
    """Whether a file is meant to be miniSEED, by its ending."""
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 (hot)
    # Day files of SDS archives end in the day of the year.
    expected = suffix in MINISEED_SUFFIXES or suffix in ("", ".") or suffix[1:].isdigit()
    return expected or path.lower().endswith("mseed")
