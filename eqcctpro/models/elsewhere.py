"""The same weights on another machine: under the same path, or found there by name."""

from __future__ import annotations

from dataclasses import replace

from eqcctpro.errors import EQCCTProError, WeightsError, WeightsNotFoundError
from eqcctpro.models.checksums import file_sha256
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.models.weights import find_weights

__all__ = ["weights_here"]


def weights_here(files: WeightFiles) -> WeightFiles:
    """Weights that another machine found, as they are here.

    Parameters
    ----------
    files : WeightFiles
        As the other machine found them.

    Returns
    -------
    WeightFiles
        With paths of this machine, and the same content.

    Raises
    ------
    WeightsNotFoundError
        There are none.
    WeightsError
        There are others.
    """
    if not files.parts:
        return _here(files)
    parts = tuple(map(_here, files.parts))
    first = parts[0]
    return replace(
        files, parts=parts, weight_path=first.weight_path, metadata_path=first.metadata_path
    )


def _here(files: WeightFiles) -> WeightFiles:
    hint = (
        f"put {files.weight_path} there under the same path, or into that machine's cache: "
        f"eqcctpro models fetch {files.name}"
    )
    seen = ""
    if files.weight_path.is_file():
        seen = file_sha256(files.weight_path)
        described = files.metadata_path is None or files.metadata_path.is_file()
        if seen == files.sha256 and described:
            return files
    try:
        found = find_weights(files.parent, files.child, fetch=False)
    except EQCCTProError:
        found = None
    if found is not None and found.sha256 == files.sha256:
        return replace(found, described=files.described)
    if found is None and not seen:
        raise WeightsNotFoundError(f"the weights {files.name} are not there", hint=hint)
    other = seen or (found.sha256 if found is not None else "")
    raise WeightsError(
        f"the weights {files.name} are others there: {other[:12]}, not {files.sha256[:12]}",
        hint=hint,
    )
