"""EQCCT as one picker: its P and S networks, their weights, and two ways to use them.

EQCCT (Saad et al. 2023, https://doi.org/10.1109/TGRS.2023.3319440) has a network for P
and a larger one for S.  Here both see the same windows and yield one table.  Nothing
here imports torch or TensorFlow, unless weights have to be read from a torch file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eqcctpro.errors import SettingsError, WeightsError, WeightsNotFoundError
from eqcctpro.models.checksums import file_sha256, require_sha256
from eqcctpro.models.keras_eqcct import Branch, convert_eqcct
from eqcctpro.models.keras_file import KerasFile
from eqcctpro.models.keras_layers import State
from eqcctpro.models.picker import Picker, WindowSettings
from eqcctpro.models.registry import find_source
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.models.weight_store import read_metadata, read_state, state_arrays

__all__ = ["BRANCHES", "IN_SAMPLES", "VARIANTS", "branch_state", "describe_eqcct", "find_eqcct"]

BRANCHES: tuple[Branch, ...] = ("P", "S")

#: Samples of a window: 60 s at 100 Hz, as in the paper.
IN_SAMPLES = 6000

#: EQCCTPro 0.8.2's preprocessing and picking, and SeisBench 0.12's.
VARIANTS = ("eqcctpro", "seisbench")

_WINDOWS = {
    # EQCCTPro shifts its windows of 60 s by 42 s, and keeps one P and one S of each.
    "eqcctpro": WindowSettings(
        overlap=1800, stride=1, stacking="max", blinding=(0, 0), picking="window_peak"
    ),
    # Defaults of seisbench.models.EQCCTP and EQCCTS.
    "seisbench": WindowSettings(
        overlap=3000, stride=1, stacking="max", blinding=(500, 500), picking="trigger"
    ),
}
_THRESHOLDS = {"eqcctpro": {"P": 0.001, "S": 0.02}, "seisbench": {"P": 0.3, "S": 0.5}}
_BANDPASS = {"eqcctpro": (1.0, 45.0), "seisbench": None}

_KERAS_SUFFIXES = (".h5", ".hdf5")
_COMPONENT_ORDER = "ENZ"


def find_eqcct(
    child: str,
    find: Callable[..., WeightFiles],
    *,
    p_model: Path | None = None,
    s_model: Path | None = None,
    variant: str = "eqcctpro",
    fetch: bool = True,
) -> WeightFiles:
    """Find the weights of both networks.

    Parameters
    ----------
    child : str
        Name of the weights, for example ``"original"``; of both networks, for those
        that no path is given for.
    find : callable
        `eqcctpro.models.weights.find_weights`, for these.
    p_model, s_model : pathlib.Path, optional
        Weight files: Keras's ``.h5`` or SeisBench's ``.pt``.
    variant : {"eqcctpro", "seisbench"}
        Whose preprocessing and picking.
    fetch : bool
        Whether weights may be downloaded.

    Returns
    -------
    WeightFiles
        With the P and the S network as its parts.

    Raises
    ------
    SettingsError
        If there is no such variant.
    WeightsNotFoundError
        If a file is not there, or weights of that name are not and cannot be fetched.
    WeightsError
        If a file is damaged, is not EQCCT's, or holds the other network.
    """
    if variant not in VARIANTS:
        raise SettingsError(
            f"variant: {variant!r} is not known to EQCCT", hint=f"use {' or '.join(VARIANTS)}"
        )
    if "/" in child or re.search(r"\.(h5|hdf5|pt)(\.v.+)?$", child):
        raise WeightsNotFoundError(
            f"EQCCT/{child}: one file cannot hold EQCCT, which has two networks",
            hint="name the files as p_model and s_model (--p-model, --s-model)",
        )
    given: dict[Branch, Path | None] = {"P": p_model, "S": s_model}
    parts = []
    for branch in BRANCHES:
        path = given[branch]
        if path is None:
            parts.append(find(f"EQCCT{branch}", child, fetch=fetch))
        else:
            parts.append(_given(branch, path))
    p, s = parts
    digest = hashlib.sha256(f"P {p.sha256}\nS {s.sha256}\n".encode()).hexdigest()
    return WeightFiles(
        parent="EQCCT",
        child=p.child if p.child == s.child else f"{p.child}+{s.child}",
        weight_path=p.weight_path,
        metadata_path=p.metadata_path,
        version=p.version if p.version == s.version else f"{p.version}+{s.version}",
        sha256=digest,
        source=p.source,
        parts=(p, s),
        variant=variant,
    )


def describe_eqcct(files: WeightFiles) -> Picker:
    """Describe EQCCT as a picker.

    Parameters
    ----------
    files : WeightFiles
        As :func:`find_eqcct` returns it.

    Raises
    ------
    WeightsError
        If the networks expect their components in different orders.
    """
    orders = {_component_order(part) for part in files.parts}
    if len(orders) > 1:
        raise WeightsError(
            f"{' and '.join(str(part.weight_path) for part in files.parts)} expect the "
            f"components in different orders: {' and '.join(sorted(orders))}"
        )
    return Picker(
        model=files.parent,
        weights=files.child,
        weights_sha256=files.sha256,
        sampling_rate=100.0,
        components=orders.pop(),
        in_samples=IN_SAMPLES,
        output="array",
        pred_sample=(0, IN_SAMPLES),
        out_samples=IN_SAMPLES,
        labels=BRANCHES,
        phases=BRANCHES,
        detection_label=None,
        windows=_WINDOWS[files.variant],
        thresholds=dict(_THRESHOLDS[files.variant]),
        bandpass=_BANDPASS[files.variant],
    )


def branch_state(part: WeightFiles) -> State:
    """Tensors of one network, named as in SeisBench's class.

    Parameters
    ----------
    part : WeightFiles
        A part of what :func:`find_eqcct` returns.

    Raises
    ------
    WeightsError
        If the file is damaged, is not EQCCT's, or holds the other network.
    """
    branch: Branch = "P" if part.parent == "EQCCTP" else "S"
    path = part.weight_path
    if path.suffix.lower() in _KERAS_SUFFIXES:
        with KerasFile(path) as file:
            found, state, _ = convert_eqcct(file)
    else:
        state = state_arrays(read_state(path))
        found = _branch_of_state(state, path)
    require_sha256(path, part.sha256)
    if found != branch:
        raise WeightsError(
            f"{path} holds EQCCT's {found} network, and was given as its {branch} network",
            hint="are the P and the S file swapped?",
        )
    return state


def _branch_of_state(state: State, path: Path) -> Branch:
    """Tell the networks apart: only S has convolutions between its attention layers."""
    names = [name.partition(".")[2] for name in state]
    if not any(name.startswith("encoder.position_embedding") for name in names):
        raise WeightsError(
            f"{path} holds no network of EQCCT: tensor "
            "'_eqcct_backbone.encoder.position_embedding.weight' (150, 40) is missing"
        )
    return "S" if any(name.startswith("extra_pre") for name in names) else "P"


def _given(branch: Branch, path: Path) -> WeightFiles:
    """A file that a user names, checked."""
    path = path.expanduser().absolute()
    if not path.is_file():
        raise WeightsNotFoundError(
            f"there is no weight file {path}",
            hint=f"{branch.lower()}_model names a .h5 or .pt file",
        )
    stem, is_torch, suffix = path.name.rpartition(".pt")
    keras = path.suffix.lower() in _KERAS_SUFFIXES
    if not (keras or is_torch):
        raise WeightsError(f"{path} is no weight file: its name ends in none of .h5, .hdf5, .pt")
    metadata = path.with_name(f"{stem}.json{suffix}")
    digest = file_sha256(path)
    known = find_source(digest)
    part = WeightFiles(
        parent=f"EQCCT{branch}",
        child=known.child if known is not None else (path.stem if keras else stem),
        weight_path=path,
        metadata_path=metadata if is_torch and metadata.is_file() else None,
        version=known.version if known is not None else suffix.removeprefix(".v") or "1",
        sha256=digest,
        source="path",
    )
    branch_state(part)
    return part


def _component_order(part: WeightFiles) -> str:
    metadata: dict[str, Any] = {}
    if part.metadata_path is not None:
        metadata = read_metadata(part.metadata_path)
    arguments = dict(part.described) | (metadata.get("model_args") or {})
    return str(arguments.get("component_order", _COMPONENT_ORDER))
