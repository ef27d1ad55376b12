"""Breadth-first walk of an archive's folders, local or remote, with a filter of folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.archive.listing import FolderLister
from eqcctpro.archive.remote import list_folder
from eqcctpro.places import Place

__all__ = ["TreeFile", "folder_names", "walk_tree"]

# Requests in flight at a time: a store answers each in tens of milliseconds.
PARALLEL_LISTS = 16

Keep = Callable[[tuple[str, ...]], bool]


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file and its path below a root.

    Attributes
    ----------
    parts : tuple of str
        Names of the folders from the root to the file, and its own.
    path : str
    size, stamp : int
        For a file at an address; not looked up for local files.
    """

    parts: tuple[str, ...]
    path: str
    size: int = -1
    stamp: int = 0


def walk_tree(root: Place, keep: Keep, lister: FolderLister | None = None) -> Iterator[TreeFile]:
    """Iterate over the files below a root, in folders that `keep` accepts; sorted within a folder.

    Parameters
    ----------
    root : Place
    keep : callable
        Returns True if the folder with these names, from the root down, is entered.
    lister : FolderLister, optional
        Lists local folders, and records those that cannot be listed.
    """
    level: list[tuple[str, ...]] = [()]
    with ThreadPoolExecutor(PARALLEL_LISTS, "eqcctpro-list") as pool:
        while level:
            listed: Iterator[Listing]
            if isinstance(root, Path):
                lister = lister or FolderLister()
                lister.ahead([str(root.joinpath(*parts)) for parts in level])
                listed = map(_local_lister(root, lister), level)
            else:
                listed = pool.map(_remote_lister(root), level)
            below: list[tuple[str, ...]] = []
            for parts, (folders, files) in zip(level, listed, strict=True):
                yield from files
                below += [(*parts, name) for name in folders if keep((*parts, name))]
            level = below


def folder_names(root: Place, *below: str, lister: FolderLister | None = None) -> list[str]:
    """Names of the folders in a folder; none if it does not exist."""
    list_one = _local_lister(root, lister) if isinstance(root, Path) else _remote_lister(root)
    return list(list_one(below)[0])


Listing = tuple[Sequence[str], Sequence[TreeFile]]


def _local_lister(root: Path, lister: FolderLister | None) -> Callable[[tuple[str, ...]], Listing]:
    known = lister or FolderLister()

    def list_one(parts: tuple[str, ...]) -> Listing:
        folders, files = [], []
        folder = str(root.joinpath(*parts))
        for name, is_folder in known.names(folder):
            if name.startswith("."):
                continue
            if is_folder:
                folders.append(name)
            else:
                files.append(TreeFile((*parts, name), f"{folder.rstrip('/')}/{name}"))
        return sorted(folders), sorted(files, key=lambda file: file.path)

    return list_one


def _remote_lister(root: str) -> Callable[[tuple[str, ...]], Listing]:
    def list_one(parts: tuple[str, ...]) -> Listing:
        folders, files = list_folder("/".join((root, *parts)))
        return folders, [
            TreeFile((*parts, file.address.rsplit("/", 1)[-1]), file.address, file.size, file.stamp)
            for file in sorted(files, key=lambda file: file.address)
        ]

    return list_one
