"""Registry of weights with known origin, licence and hashes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eqcctpro.errors import ModelError

__all__ = ["KnownSource", "KnownWeights", "find_known", "find_source", "load_registry"]


@dataclass(frozen=True)
class KnownSource:
    """Source of weights.

    Attributes
    ----------
    kind : {"package", "file", "seisbench"}
        A file of an installable package, a file of a repository, or SeisBench's server.
    package, package_version, file : str or None
        Name and release of the package, and the file's path inside it.
    sha256 : str or None
        Hash of that file.
    upstream : str
        The authors' own publication of the same weights.
    url : str or None
        Where the file can be downloaded.
    """

    kind: str
    package: str | None
    package_version: str | None
    file: str | None
    sha256: str | None
    upstream: str
    url: str | None = None


@dataclass(frozen=True)
class KnownWeights:
    """One entry of the registry.

    Attributes
    ----------
    name : str
        ``Class/child``.
    version : str
        Version of the weights in SeisBench's counting.
    description, reference, licence : str
        Description, the paper to cite, and the licence that the source states.
    source : KnownSource
    tensors_sha256 : str or None
        :func:`eqcctpro.models.checksums.tensors_sha256` of the weights.
    file_sha256 : str or None
        Hash of the weight file, if it is distributed in SeisBench's format.
    """

    name: str
    version: str
    description: str
    reference: str
    licence: str
    source: KnownSource
    tensors_sha256: str | None
    file_sha256: str | None

    @property
    def parent(self) -> str:
        """The model class."""
        return self.name.partition("/")[0]

    @property
    def child(self) -> str:
        """The name of the weights within the class."""
        return self.name.partition("/")[2]


def _registry_path() -> Path:
    shipped = Path(__file__).with_name("registry.json")
    # A checkout keeps the file at its top level, so that it is found without looking
    # into the package; a wheel carries a copy beside this module.
    return shipped if shipped.is_file() else Path(__file__).parents[2] / "models" / "registry.json"


@cache
def load_registry() -> tuple[KnownWeights, ...]:
    """Read the registry.

    Raises
    ------
    ModelError
        If the file is missing or damaged, that is, if the installation is incomplete.
    """
    path = _registry_path()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["models"]
        return tuple(_entry(item) for item in entries)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the model registry {path} cannot be read: {error!r}",
            hint="install eqcctpro again",
        ) from error


def _entry(item: dict[str, Any]) -> KnownWeights:
    source = item["source"]
    return KnownWeights(
        name=item["name"],
        version=item["version"],
        description=item["description"],
        reference=item["reference"],
        licence=item["licence"],
        source=KnownSource(
            kind=source["kind"],
            package=source.get("package"),
            package_version=source.get("package_version"),
            file=source.get("file"),
            sha256=source.get("sha256"),
            upstream=source["upstream"],
            url=source.get("url"),
        ),
        tensors_sha256=item.get("tensors_sha256"),
        file_sha256=item.get("file_sha256"),
    )


def find_known(name: str, version: str | None = None) -> KnownWeights | None:
    """Return the entry of ``Class/child`` (of that version), if there is one."""
    for entry in load_registry():
        if entry.name == name and version in (None, entry.version):
            return entry
    return None


def find_source(sha256: str) -> KnownWeights | None:
    """Return the entry whose source file, or weight file, has that hash."""
    for entry in load_registry():
        if sha256 in (entry.source.sha256, entry.file_sha256):
            return entry
    return None
