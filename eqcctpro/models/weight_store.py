"""Reading and writing weight files in SeisBench's format.

Loading never runs code from the file: ``weights_only=True`` admits tensors alone.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import OutputError, WeightsError

if TYPE_CHECKING:
    import torch

__all__ = ["read_metadata", "read_state", "replace_pair", "state_arrays", "write_weights"]


def _replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step: readers see the old file or the whole new one.

    Raises
    ------
    OutputError
        If the file or its folder cannot be written; nothing is left behind.
    """
    # The name must not look like a weight file to SeisBench, which lists the folder.
    draft = path.with_name(f".draft-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="set EQCCTPRO_MODELS to a folder that you may write to",
        ) from error


def replace_pair(
    folder: Path, child: str, version: str, weights: bytes, metadata: bytes
) -> tuple[Path, Path]:
    """Write ``<child>.pt.v<version>`` and its JSON into ``folder``, both or none.

    Returns
    -------
    weight_path, metadata_path : pathlib.Path

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    weight_path = folder / f"{child}.pt.v{version}"
    metadata_path = folder / f"{child}.json.v{version}"
    # SeisBench looks for the JSON first, so it comes last.
    _replace_file(weight_path, weights)
    try:
        _replace_file(metadata_path, metadata)
    except OutputError:
        weight_path.unlink(missing_ok=True)
        raise
    return weight_path, metadata_path


def write_weights(
    folder: Path,
    child: str,
    version: str,
    state: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
) -> tuple[Path, Path]:
    """Write ``<child>.pt.v<version>`` and its JSON into ``folder``.

    The same weights give the same bytes with the same release of torch.

    Returns
    -------
    weight_path, metadata_path : pathlib.Path

    Raises
    ------
    OutputError
        If the files cannot be written.
    """
    import torch

    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    # Through a buffer, because torch puts the file's own name into the archive.
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    text = json.dumps(metadata, indent=4) + "\n"
    return replace_pair(folder, child, version, buffer.getvalue(), text.encode())


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict.

    Raises
    ------
    WeightsError
        If the file is damaged, or holds anything else than named tensors.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise WeightsError(
            f"{path} is damaged or no weight file{f': {reason}' if reason else ''}",
            hint="remove it and fetch or import the weights again",
        ) from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is damaged, or holds more than weights",
            hint="only plain tensors are loaded; save model.state_dict() instead",
        ) from error
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path} holds {type(state).__name__}, not a dict of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(f"{path}: the entry {name!r} is no tensor")
    return dict(state)


def state_arrays(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Return a state dict as NumPy arrays."""
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the JSON file beside weights.

    Raises
    ------
    WeightsError
        If it is unreadable or no JSON object.
    """
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is no readable JSON file: {error}") from error
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return metadata
