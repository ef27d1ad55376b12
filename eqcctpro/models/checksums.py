"""Hashes that tell weight files and their contents apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import WeightsError

__all__ = ["file_sha256", "require_sha256", "tensors_sha256"]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_sha256(path: Path, sha256: str) -> None:
    """Refuse a file that is no longer the one that was found: it would pick otherwise.

    Raises
    ------
    WeightsError
    """
    try:
        found = file_sha256(path)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read any more: {error.strerror or error}",
            hint="bring it back, and give the command again",
        ) from error
    if found != sha256:
        raise WeightsError(
            f"{path} has changed since it was found: its SHA-256 was {sha256[:12]}..., "
            f"is {found[:12]}...",
            hint="bring it back to go on, or give the command again when it stays as it is",
        )


def tensors_sha256(state: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of named arrays, whatever file format they came from.

    The bytes of a ``.pt`` file depend on the release of torch that wrote it; names,
    types, shapes and values do not.  Batch-normalisation's batch counter is left out,
    since it plays no part in a prediction.

    Parameters
    ----------
    state : mapping of str to numpy.ndarray
        A state dict as arrays.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue
        array = np.asarray(state[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(little).tobytes())
    return digest.hexdigest()
