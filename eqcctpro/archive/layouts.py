"""Layouts of archives: detection of the layout, and listing of the files."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

from eqcctpro.archive.day_files import DAY_LAYOUTS, is_sds, layout_of_bucket, list_day_files
from eqcctpro.archive.file_list import LIST_SUFFIXES, check_lists, read_file_list
from eqcctpro.archive.files import (
    ArchiveFile,
    chunk_files,
    expected_miniseed,
    has_chunk_folders,
    plain_files,
)
from eqcctpro.archive.listing import FolderLister
from eqcctpro.archive.remote import RemoteFile, describe, glob_addresses
from eqcctpro.archive.selection import Wanted
from eqcctpro.archive.trees import folder_names, walk_tree
from eqcctpro.errors import InputError, SettingsError
from eqcctpro.places import Place, is_address
from eqcctpro.times import parse_chunk_name

__all__ = ["LAYOUTS", "Layout", "detect_layout", "iter_files", "list_files"]

Layout = Literal["chunks", "files", "sds", "list", "scedc", "ncedc", "earthscope"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def detect_layout(inputs: Sequence[Place], lister: FolderLister | None = None) -> Layout:
    """Detect the layout of an input.

    ``list``: the inputs are tables.  ``scedc``, ``ncedc``, ``earthscope``: the buckets of these.
    ``chunks``: a single folder holds time-chunk folders.  ``sds``: a folder holds years with
    networks, stations and channels.  Otherwise ``files``.
    """
    if all(isinstance(p, Path) and p.suffix.lower() in LIST_SUFFIXES for p in inputs):
        return "list"
    place = inputs[0]
    if len(inputs) > 1 or (isinstance(place, Path) and not place.is_dir()):
        return "files"
    if isinstance(place, Path):
        lister = lister or FolderLister()
        if has_chunk_folders(place, lister):
            return "chunks"
        return "sds" if is_sds(place, lister) else "files"
    bucket = layout_of_bucket(place)
    if bucket is not None:
        return bucket  # type: ignore[return-value]
    if _is_pattern(place):
        return "files"
    if any(map(parse_chunk_name, folder_names(place))):
        return "chunks"
    return "sds" if is_sds(place) else "files"


def list_files(
    inputs: Sequence[Place], layout: Layout, wanted: Wanted | None = None
) -> list[ArchiveFile]:
    """List the files of an archive, sorted by path; see `iter_files`."""
    return list(iter_files(inputs, layout, wanted))


def iter_files(
    inputs: Sequence[Place], layout: Layout, wanted: Wanted | None = None
) -> Iterator[ArchiveFile]:
    """Iterate over the files of an archive, in the order of their paths.

    Parameters
    ----------
    inputs : sequence of Path or str
    layout : str
    wanted : Wanted, optional
        Selection of stations and times, for the names of day files and the rows of file lists.

    Raises
    ------
    InputError
        An input is missing or unreadable, the folder holds no files, or they are not laid out
        in that way.
    """
    wanted = wanted or Wanted()
    places = _expanded(inputs)
    files = _files(places, layout, wanted)
    if len(places) > 1 or layout not in ("chunks", "files"):
        files = iter(sorted(files, key=lambda file: file.path))
    found = False
    for file in files:
        found = True
        yield file
    if not found and wanted.lister.failed:
        raise next(iter(wanted.lister.failed.values()))
    if not found and not wanted.unwanted and not wanted.refused_spans:
        names = ", ".join(str(path) for path in inputs)
        kind = f" that are laid out as {layout}" if layout in DAY_LAYOUTS else ""
        raise InputError(f"input {names} holds no files{kind}", hint="check the path and --layout")


def _files(places: Sequence[Place], layout: Layout, wanted: Wanted) -> Iterator[ArchiveFile]:
    if layout in DAY_LAYOUTS:
        for place in places:
            yield from list_day_files(place, DAY_LAYOUTS[layout], wanted)
        return
    local = [place for place in places if isinstance(place, Path)]
    remote = [place for place in places if not isinstance(place, Path)]
    if layout == "list":
        if remote:
            raise SettingsError(
                f"input {remote[0]}: file lists are read from this machine", hint="copy it here"
            )
        check_lists(local)
        for path in local:
            yield from read_file_list(path, wanted)
    elif layout == "chunks":
        if local:
            yield from chunk_files(local, wanted.passed_over, wanted.enters, wanted.lister)
        for place in remote:
            yield from _remote_chunk_files(place, wanted.passed_over)
    else:
        yield from plain_files(local, wanted.passed_over, wanted.enters, wanted.lister)
        for place in remote:
            found = glob_addresses(place) if _is_pattern(place) else _below(place)
            yield from (_remote_file(file, "", "") for file in found)


def _below(root: str) -> list[RemoteFile]:
    """All files below a folder, or the file itself."""
    files = [
        RemoteFile(file.path, file.size, file.stamp) for file in walk_tree(root, lambda _: True)
    ]
    if not files and expected_miniseed(root):
        with suppress(InputError):
            return [describe(root)]
    return files


def _remote_chunk_files(root: str, passed_over: dict[str, str]) -> list[ArchiveFile]:
    files = []

    def keep(parts: tuple[str, ...]) -> bool:
        if len(parts) > 1 or parse_chunk_name(parts[0]):
            return True
        passed_over[f"{root}/{parts[0]}"] = "a folder beside time-chunk folders"
        return False

    for file in walk_tree(root, keep):
        if len(file.parts) == 1:
            passed_over[file.path] = "a file beside time-chunk folders"
        else:
            folder = file.parts[1] if len(file.parts) > 2 else ""
            remote = RemoteFile(file.path, file.size, file.stamp)
            files.append(_remote_file(remote, folder, file.parts[0]))
    return files


def _remote_file(file: RemoteFile, folder: str, chunk: str) -> ArchiveFile:
    expected = expected_miniseed(file.address)
    return ArchiveFile(file.address, folder, chunk, expected, file.size, file.stamp)


def _expanded(inputs: Sequence[Place]) -> list[Place]:
    """Inputs with patterns replaced by the paths that match them."""
    places: list[Place] = []
    for place in inputs:
        if not isinstance(place, Path) or place.exists():
            places.append(place)
        elif _is_pattern(place):
            found = sorted(glob.glob(str(place), recursive=True))  # noqa: PTH207 (absolute ones too)
            if not found:
                raise InputError(f"input {place}: nothing matches", hint="check the pattern")
            places += map(Path, found)
        else:
            raise InputError(f"input {place} does not exist", hint="check the path")
    return places


def _is_pattern(place: Place) -> bool:
    text = str(place).partition("://")[2] if is_address(place) else str(place)
    return glob.has_magic(text)
