"""Listing of an input's files, with the time-chunk folder of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.archive.listing import FolderLister
from eqcctpro.errors import InputError
from eqcctpro.miniseed.index import ChannelExtent
from eqcctpro.spans import Span
from eqcctpro.times import parse_chunk_name

__all__ = ["ArchiveFile", "chunk_files", "expected_miniseed", "has_chunk_folders", "plain_files"]

_USUAL_SUFFIX = ".mseed"
# Files with these endings are meant to be miniSEED; an unreadable one is a failure.
MINISEED_SUFFIXES = frozenset(
    {_USUAL_SUFFIX, ".miniseed", ".ms", ".msd", ".mseed2", ".mseed3", ".seed"}
)

#: Endings of files that are decompressed when they are read.
COMPRESSED_SUFFIXES = frozenset({".gz", ".bz2", ".xz"})


@dataclass(slots=True)  # not frozen: there are many, and each would take twice as long
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
        True if the file should be miniSEED, by its ending or because it is an input itself.
    size, stamp : int
        Of a file at an address, if the list of its folder contains them; see `RemoteFile`.
    channels : tuple of ChannelExtent or None
        Its channels, if they are known without opening the file.
    guest : bool
        True if it belongs to another partition of a run, and is read for the border with it.
    near : Span or None
        Time in which the partitions of a run look for its records, by its name.
    """

    path: str
    folder: str
    chunk: str
    expected: bool
    size: int = -1
    stamp: int = 0
    channels: tuple[ChannelExtent, ...] | None = None
    guest: bool = False
    near: Span | None = None


Enters = Callable[[str], bool]


def _anywhere(folder: str) -> bool:
    del folder
    return True


def has_chunk_folders(folder: Path, lister: FolderLister) -> bool:
    """True if a folder contains time-chunk folders."""
    names = lister.names(str(folder))
    return any(is_folder and parse_chunk_name(name) for name, is_folder in names)


def chunk_files(
    inputs: Sequence[Path],
    passed_over: dict[str, str],
    enters: Enters = _anywhere,
    lister: FolderLister | None = None,
    only: Container[str] | None = None,
) -> Iterator[ArchiveFile]:
    """Iterate over all files below the time-chunk folders of the inputs.

    Parameters
    ----------
    inputs : sequence of Path
    passed_over : dict of str to str
        Receives the reason for each file or folder that is not read.
    enters : callable
        Returns True if the folder with a path may be read.
    lister : FolderLister, optional
        Records folders that cannot be listed.
    only : container of str, optional
        Names of the time-chunk folders that are entered; by default all.

    Raises
    ------
    InputError
        There is no time-chunk folder.
    """
    chunks = 0
    folders = _Folders(inputs, passed_over, enters, lister or FolderLister())
    for root in inputs:
        if not root.is_dir():
            raise InputError(
                f"input {root} is a file, and the layout is 'chunks'",
                hint="name the folder that holds the time-chunk folders, or use --layout files",
            )
        for name, is_folder in folders.names(str(root)):
            path = os.path.join(root, name)  # noqa: PTH118 (text)
            if not is_folder or parse_chunk_name(name) is None:
                if not name.startswith("."):
                    kind = "folder" if is_folder else "file"
                    passed_over[path] = f"a {kind} beside time-chunk folders"
                continue
            chunks += 1
            if only is not None and name not in only:
                continue
            if not folders.enters(path):
                continue
            yield from _in_chunk(path, name, folders)
    if not chunks and str(inputs[0]) not in folders.lister.failed:
        raise InputError(
            f"input {inputs[0]} holds no time-chunk folder",
            hint="folders are named 20241215T115800Z_20241215T123000Z; "
            "for other layouts use --layout files",
        )


def plain_files(
    inputs: Sequence[Path],
    passed_over: dict[str, str],
    enters: Enters = _anywhere,
    lister: FolderLister | None = None,
) -> Iterator[ArchiveFile]:
    """Iterate over the inputs that are files, and all files below folders; see `chunk_files`."""
    folders = _Folders(inputs, passed_over, enters, lister or FolderLister())
    for path in inputs:
        if path.is_dir():
            yield from _below(str(path), "", "", folders)
        else:
            yield ArchiveFile(str(path), "", "", expected=True)


class _Folders:
    """Lister of folders that follows each link to a folder once, and none to a folder of the input.

    Parameters
    ----------
    inputs : sequence of Path
    passed_over : dict of str to str
    enters : callable
    lister : FolderLister
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        passed_over: dict[str, str],
        enters: Enters,
        lister: FolderLister,
    ) -> None:
        self.enters = enters
        self.lister = lister
        self._roots = [str(path.resolve()) for path in inputs if path.is_dir()]
        self.passed_over = passed_over
        self._followed: set[str] = set()

    def names(self, folder: str) -> list[tuple[str, bool]]:
        """Names in a folder, sorted as paths below it; True for folders."""
        # Only text is kept: there may be many thousand stations.
        found = sorted(f"{name}/" if leads else name for name, leads in self.lister.names(folder))
        return [(name.removesuffix("/"), name.endswith("/")) for name in found]

    def follow(self, link: str) -> bool:
        """True if a link to a folder must be followed; its target counts as read from then on."""
        target = os.path.realpath(link)
        read_anyway = any(
            target == root or target.startswith(f"{root.rstrip('/')}/")
            for root in (*self._roots, *self._followed)
        )
        above = any(root.startswith(f"{target.rstrip('/')}/") for root in self._roots)
        if read_anyway or above:
            self.passed_over[link] = f"a link to {target}, which is read already"
            return False
        self._followed.add(target)
        return True


def _in_chunk(folder: str, chunk: str, folders: _Folders) -> Iterator[ArchiveFile]:
    stations: dict[str, bool] = {}
    for name, is_folder in folders.names(folder):
        path = f"{folder}/{name}"
        if not name.startswith(".") and (not is_folder or folders.enters(path)):
            stations[name] = is_folder
    folders.lister.ahead([f"{folder}/{name}" for name, is_folder in stations.items() if is_folder])
    for name, is_folder in stations.items():
        path = f"{folder}/{name}"
        if is_folder:
            yield from _below(path, name, chunk, folders)
        else:
            yield _file(path, "", chunk)


def _below(root: str, folder: str, chunk: str, folders: _Folders) -> Iterator[ArchiveFile]:
    root = root.removesuffix("/")
    names = folders.names(root or "/")
    if root in folders.lister.failed:
        return
    if not names and os.path.splitext(root)[1].lower() in MINISEED_SUFFIXES:  # noqa: PTH122 (hot)
        folders.passed_over[root] = "an empty folder with the name of a file"
    for name, is_folder in names:
        if name.startswith("."):
            continue
        path = f"{root}/{name}"
        if not is_folder:
            yield _file(path, folder, chunk)
        elif not os.path.islink(path) or (folders.enters(path) and folders.follow(path)):  # noqa: PTH114 (text)
            yield from _below(path, folder, chunk, folders)


def _file(path: str, folder: str, chunk: str) -> ArchiveFile:
    return ArchiveFile(path, folder, chunk, expected_miniseed(path))


def expected_miniseed(path: str) -> bool:
    """True if a file should be miniSEED by its ending."""
    if path.endswith(_USUAL_SUFFIX):
        return True
    plain, suffix = os.path.splitext(path)  # noqa: PTH122 (hot)
    suffix = suffix.lower()
    if suffix in COMPRESSED_SUFFIXES:
        return expected_miniseed(plain)
    # Day files of SDS archives end in the day of the year.
    expected = suffix in MINISEED_SUFFIXES or suffix in ("", ".") or suffix[1:].isdigit()
    return expected or path.lower().endswith("mseed")
