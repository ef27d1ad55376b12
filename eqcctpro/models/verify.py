"""Verification of the weights on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eqcctpro.errors import ModelError, UnknownModelError, WeightsError
from eqcctpro.models.checksums import tensors_sha256
from eqcctpro.models.download import require_class
from eqcctpro.models.inventory import LocalWeights, list_local
from eqcctpro.models.registry import find_known, find_source
from eqcctpro.models.weight_store import read_metadata, read_state, state_arrays

if TYPE_CHECKING:
    import torch

__all__ = ["VerifyRow", "load_into_class", "verify"]


@dataclass(frozen=True)
class VerifyRow:
    """Result of the verification of one weight file.

    Attributes
    ----------
    name, version : str
        ``Class/child`` and its version.
    path : pathlib.Path
    status : {"ok", "failed", "unknown"}
        ``"ok"``: loads into its class and has the registry's hash.  ``"unknown"``:
        loads, but is not in the registry.
    message : str
        Reason.
    """

    name: str
    version: str
    path: Path
    status: Literal["ok", "failed", "unknown"]
    message: str


def verify() -> list[VerifyRow]:
    """Check every weight file in the caches; one row for each."""
    return [_verify_one(row) for row in list_local() if row.source == "cache"]


def _verify_one(row: LocalWeights) -> VerifyRow:
    status: Literal["ok", "failed", "unknown"]
    try:
        if row.metadata_path is None:
            raise WeightsError("the JSON file beside it is missing")
        metadata = read_metadata(row.metadata_path)
        state = read_state(row.path)
        _require_finite(state, row.path)
        load_into_class(row.name.partition("/")[0], metadata, state, row.path)
        known, message = _compare_with_registry(row, metadata, state)
        status = "ok" if known else "unknown"
    except UnknownModelError as error:
        status, message = "unknown", error.message
    except (ModelError, OSError) as error:
        status, message = "failed", getattr(error, "message", str(error))
    return VerifyRow(row.name, row.version, row.path, status, message)


def _require_finite(state: Mapping[str, torch.Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise WeightsError(f"{path}: {name} holds NaN or infinity")


def _compare_with_registry(
    row: LocalWeights, metadata: Mapping[str, Any], state: Mapping[str, torch.Tensor]
) -> tuple[bool, str]:
    """Compare weights with the registry; returns True if they are in it, and a message.

    Raises
    ------
    WeightsError
        If they were converted from a known file and differ from the registry's conversion.
    """
    digest = tensors_sha256(state_arrays(state))
    known = find_known(row.name, row.version)
    if known is not None and known.tensors_sha256 == digest:
        return True, f"{known.licence}; hash as in the registry"
    origin = find_source(str(metadata.get("source_sha256", "")))
    if origin is not None and origin.tensors_sha256 == digest:
        return True, f"{origin.licence}; the registry's {origin.name} under another name"
    if origin is not None:
        raise WeightsError(
            f"converted from {origin.source.file}, but the hash is not the registry's: "
            f"{digest[:12]}..., not {str(origin.tensors_sha256)[:12]}..."
        )
    if known is not None:
        return False, "the registry has other weights under this name and version"
    return False, "loads; not in the registry"


def load_into_class(
    parent: str, metadata: Mapping[str, Any], state: Mapping[str, torch.Tensor], path: Path
) -> Any:
    """Build the model of the class that weights belong to, and load them into it.

    Parameters
    ----------
    parent : str
        SeisBench's class.
    metadata : mapping
        With ``model_args``, and optionally ``default_args``, ``version`` and
        ``seisbench_requirement``.
    state : mapping of str to torch.Tensor
    path : pathlib.Path
        Named in errors.

    Returns
    -------
    seisbench.models.SeisBenchModel

    Raises
    ------
    UnknownModelError
        If SeisBench has no such class.
    WeightsError
        If the metadata is incomplete or the tensors do not fit; names the first that
        does not, with both shapes.
    """
    arguments = _model_args(metadata, path)
    model_class = require_class(parent)
    try:
        model_class._check_version_requirement(metadata)
        model = model_class(**arguments)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise WeightsError(
            f"{path}: {parent} does not accept the metadata's "
            f"model_args {json.dumps(arguments)}: {error}"
        ) from error
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _require_same_tensors(parent, expected, state, path)
    model.load_state_dict(dict(state))
    return model


def _model_args(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    arguments = metadata.get("model_args")
    if not isinstance(arguments, dict):
        raise WeightsError(f"{path}: the metadata lacks the entry 'model_args'")
    if not isinstance(metadata.get("default_args", {}) or {}, dict):
        raise WeightsError(f"{path}: the metadata's 'default_args' is no JSON object")
    return arguments


def _require_same_tensors(
    parent: str,
    expected: Mapping[str, tuple[int, ...]],
    state: Mapping[str, torch.Tensor],
    path: Path,
) -> None:
    for name, shape in expected.items():
        if name not in state:
            raise WeightsError(f"{path} is not of {parent}: tensor {name!r} {shape} is missing")
        found = tuple(state[name].shape)
        if found != shape:
            raise WeightsError(
                f"{path} is not of {parent}: tensor {name!r} has the shape {found}, not {shape}"
            )
    surplus = sorted(set(state) - set(expected))
    if surplus:
        raise WeightsError(f"{path} is not of {parent}: it has no tensor {surplus[0]!r}")
