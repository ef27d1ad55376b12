"""Folders and file names of weights on disk.

SeisBench's cache is read and never written: other programs would load weights that are converted
or downloaded here under SeisBench's names.

Folders have SeisBench's layout: ``ROOT/models/v3/<class in lower
case>/<name>.pt.v<version>`` with a ``.json.v<version>`` beside it.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from eqcctpro.models.weight_store import read_metadata

__all__ = [
    "COMPOSED_CLASSES",
    "PICKER_CLASSES",
    "FoundFile",
    "cache_root",
    "canonical_class",
    "class_folder",
    "class_folders",
    "preferred_root",
    "search_roots",
    "stated_version",
    "user_root",
    "weight_files_in",
    "writable_class_folder",
]

MODELS_VARIABLE = "EQCCTPRO_MODELS"
SEISBENCH_VARIABLE = "SEISBENCH_CACHE_ROOT"
CACHE_VARIABLE = "EQCCTPRO_CACHE"

#: Classes of SeisBench 0.12 that pick or detect; folder names are in lower case.
PICKER_CLASSES = (
    "BasicPhaseAE",
    "CRED",
    "DKPN",
    "DPPDetector",
    "DPPPicker",
    "DeepPhasePick",
    "EQCCTP",
    "EQCCTS",
    "EQTP",
    "EQTransformer",
    "GPD",
    "LFEDetect",
    "OBSTransformer",
    "PhaseNet",
    "PhaseNetLight",
    "PhaseTEAM",
    "Skynet",
    "VariableLengthPhaseNet",
)

#: Pickers that consist of several of SeisBench's classes.
COMPOSED_CLASSES = ("EQCCT",)

_BY_LOWER_CASE = {name.lower(): name for name in (*PICKER_CLASSES, *COMPOSED_CLASSES)}
_VERSIONED = re.compile(r"(?P<child>.+)\.pt(?:\.v(?P<version>[^/]+))?")

_log = logging.getLogger("eqcctpro")


@dataclass(frozen=True)
class FoundFile:
    """A weight file in a folder.

    Attributes
    ----------
    child, version : str
        Taken from the file's name; an unnumbered file has version ``""``.
    weight_path : pathlib.Path
    metadata_path : pathlib.Path or None
        None if there is no JSON file beside the weights.
    """

    child: str
    version: str
    weight_path: Path
    metadata_path: Path | None


def canonical_class(name: str) -> str:
    """``name`` in SeisBench's spelling if the class is known, otherwise unchanged."""
    return _BY_LOWER_CASE.get(name.lower(), name)


def user_root() -> Path:
    """Return the folder for weights in the user's cache.

    Under ``$EQCCTPRO_CACHE``, else ``$XDG_CACHE_HOME/eqcctpro``, else ``~/.cache/eqcctpro``.
    """
    own = _configured(CACHE_VARIABLE)
    return own / "weights" if own else _usual_user_root()


def _usual_user_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "eqcctpro" / "weights"


def _configured(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def _seisbench_root() -> Path:
    return _configured(SEISBENCH_VARIABLE) or Path.home() / ".seisbench"


def search_roots() -> list[Path]:
    """Folders that are searched for weights, in order."""
    own = _configured(MODELS_VARIABLE)
    roots = [*([own] if own else []), _seisbench_root(), user_root(), _usual_user_root()]
    return list(dict.fromkeys(roots))


def preferred_root() -> Path:
    """Return the configured folder for new weights, even if it cannot be written."""
    return _configured(MODELS_VARIABLE) or user_root()


def cache_root() -> Path:
    """Return the folder that weights are written to.

    ``$EQCCTPRO_MODELS`` if it is set and can be written, otherwise :func:`user_root`.
    """
    preferred = preferred_root()
    if _can_write(preferred):
        return preferred
    fallback = user_root()
    _say_fallback(preferred, fallback)
    return fallback


@cache
def _say_fallback(preferred: Path, fallback: Path) -> None:
    """Log the fallback folder for weights, once for each pair of folders."""
    _log.info("%s cannot be written; weights go to %s", preferred, fallback)


def _can_write(folder: Path) -> bool:
    """True if files can be created in ``folder``, which need not exist yet."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def class_folders(root: Path, parent: str) -> list[Path]:
    """Folders under ``root`` that may contain weights of class ``parent``.

    A root given by ``$EQCCTPRO_MODELS`` may contain class folders directly.
    """
    folders = [root / "models" / "v3" / parent.lower()]
    if root == _configured(MODELS_VARIABLE):
        folders.append(root / parent.lower())
    return folders


def class_folder(root: Path, parent: str) -> Path:
    """Return the folder that new weights of class ``parent`` are written to."""
    nested, *direct = class_folders(root, parent)
    holds_classes = any((root / name).is_dir() for name in _BY_LOWER_CASE)
    if direct and holds_classes and not (root / "models" / "v3").is_dir():
        return direct[0]
    return nested


def writable_class_folder(parent: str) -> Path:
    """Return a writable folder for new weights of a class, in the user's cache if necessary.

    The class folder itself may be read-only while the cache's root is not.
    """
    folder = class_folder(cache_root(), parent)
    if _can_write(folder):
        return folder
    fallback = class_folder(user_root(), parent)
    _say_fallback(folder, fallback)
    return fallback


def weight_files_in(folder: Path) -> list[FoundFile]:
    """All weight files in ``folder``, with or without metadata, sorted by name."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        match = _VERSIONED.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        child, version = match["child"], match["version"] or ""
        metadata = folder / (f"{child}.json.v{version}" if version else f"{child}.json")
        found.append(FoundFile(child, version, path, metadata if metadata.is_file() else None))
    return found


def stated_version(found: FoundFile) -> str:
    """Return the version in a file's name, else the one in its JSON, else ``"1"``.

    Raises
    ------
    WeightsError
        If the JSON is damaged.
    """
    if found.version:
        return found.version
    metadata = {} if found.metadata_path is None else read_metadata(found.metadata_path)
    return str(metadata.get("version", "1"))
