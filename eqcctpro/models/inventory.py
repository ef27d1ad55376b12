"""Inventory of the weights on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from eqcctpro.errors import WeightsError
from eqcctpro.models.checksums import file_sha256
from eqcctpro.models.locations import (
    FoundFile,
    canonical_class,
    class_folders,
    search_roots,
    stated_version,
    weight_files_in,
)
from eqcctpro.models.packages import packaged_weights

__all__ = ["LocalWeights", "list_local"]


@dataclass(frozen=True)
class LocalWeights:
    """Entry of the list of weights on this machine.

    Attributes
    ----------
    name : str
        ``Class/child``.
    version : str
    path : pathlib.Path
        The weight file, or the package's file that it can be made from.
    metadata_path : pathlib.Path or None
        None if the JSON is missing, and for files of packages.
    source : {"cache", "package"}
        ``"package"`` for weights that an installed package can provide.
    size : int
        Size in bytes.
    """

    name: str
    version: str
    path: Path
    metadata_path: Path | None
    source: Literal["cache", "package"]
    size: int

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, computed on first access."""
        return file_sha256(self.path)


def list_local() -> list[LocalWeights]:
    """List all weights on this machine, and those that installed packages can provide.

    Files without metadata are listed, too, with ``metadata_path=None``.
    """
    rows: list[LocalWeights] = []
    for root in search_roots():
        for folder in _all_class_folders(root):
            parent = canonical_class(folder.name)
            for file in weight_files_in(folder):
                name = f"{parent}/{file.child}"
                size = file.weight_path.stat().st_size
                version = file.version or _version_or_mark(file)
                rows.append(
                    LocalWeights(name, version, file.weight_path, file.metadata_path, "cache", size)
                )
    for item in packaged_weights():
        size = item.path.stat().st_size
        version = item.known.version
        rows.append(LocalWeights(item.known.name, version, item.path, None, "package", size))
    return rows


def _version_or_mark(file: FoundFile) -> str:
    """Return the version in a file's JSON; a damaged JSON must not stop a listing."""
    try:
        return stated_version(file)
    except WeightsError:
        return "?"


def _all_class_folders(root: Path) -> list[Path]:
    """Existing folders under ``root`` with weights of one class each."""
    probe = class_folders(root, "x")
    parents = [folder.parent for folder in probe if folder.parent.is_dir()]
    found = [sub for parent in parents for sub in sorted(parent.iterdir()) if sub.is_dir()]
    return [folder for folder in found if weight_files_in(folder)]
