"""Hashes that tell weight files and their contents apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["file_sha256", "tensors_sha256"]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
