"""Description of weights: order of components, labels, normalisation and sampling rate.

SeisBench's ``model.save`` writes it into a JSON file beside the weights; a bare state dict, as
``torch.save(model.state_dict())`` writes it, has none.  With its components in the wrong order a
model gives plausible but wrong picks, so nothing is assumed silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eqcctpro.errors import SettingsError, WeightsError
from eqcctpro.models.locations import PICKER_CLASSES
from eqcctpro.models.registry import find_source
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.models.weight_store import read_metadata

__all__ = [
    "assumed_text",
    "described_weights",
    "needed_of",
    "origin_of_description",
    "without_description",
]

#: Settings that describe weights, among a model's arguments, with an example of each.
_EXAMPLES = {
    "component_order": "ZNE",
    "labels": "NPS",
    "norm": "std",
    "sampling_rate": "100",
}
#: Further arguments of SeisBench's classes that change what weights compute.
_FURTHER = ("in_samples", "norm_amp_per_comp", "norm_detrend", "original_compatible")
_NAMES = (*_EXAMPLES, "phases", *_FURTHER)

_WITHOUT_LABELS = frozenset({"CRED", "EQCCTP", "EQCCTS"})
_WITHOUT_NORM = frozenset({"BasicPhaseAE", "CRED", "DKPN", "DPPDetector", "DPPPicker", "GPD"})
#: Classes that compute their own components from the recorded ones.
_WITHOUT_ORDER = frozenset({"DKPN"})
#: Classes that are refused elsewhere, each with its own reason.
_NOT_RUN = frozenset({"DPPDetector", "DPPPicker", "DeepPhasePick", "PhaseTEAM"})
_NORMS = ("std", "peak")
_SUFFIXES_OF_KERAS = (".h5", ".hdf5")
ORDER_OF_KERAS = "ENZ"


def described_weights(files: WeightFiles, arguments: Mapping[str, Any]) -> WeightFiles:
    """Add a user's description to weights.

    Parameters
    ----------
    files : WeightFiles
    arguments : mapping
        A model's arguments; those that describe weights are used.

    Raises
    ------
    WeightsError
        They are a bare state dict without a description.
    SettingsError
        A value is impossible, or contradicts the JSON beside the weights.
    """
    given = _given(arguments)
    if files.parts:
        _require_order_alone(given)
        parts = tuple(_described(part, given) for part in files.parts)
        return replace(files, parts=parts)
    return _described(files, given)


def without_description(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A model's arguments without those that describe its weights."""
    return {name: value for name, value in arguments.items() if name not in _NAMES}


def origin_of_description(files: WeightFiles) -> dict[str, Any]:
    """Description of weights by its source, for a run's summary.

    Returns
    -------
    dict
        ``settings``: values from the user; ``json``: values from the file beside the weights;
        ``defaults``: names of the others, for which SeisBench's class has a default.
    """
    said = dict(files.described)
    written = _written(files)
    stated = {name: written[name] for name in _NAMES if written.get(name) is not None}
    known = {"labels" if name == "phases" else name for name in (*said, *stated)}
    defaults = [name for name in needed_of(files.parent) if name not in known]
    return {"settings": said, "json": stated, "defaults": defaults}


def assumed_text(files: WeightFiles) -> str:
    """Description of weights given by path, with its sources, in one line; empty for others."""
    if files.source != "path":
        return ""
    origin = origin_of_description(files)
    if files.weight_path.suffix.lower() in _SUFFIXES_OF_KERAS:
        return ""
    texts = [
        ", ".join(f"{name}={_text(value)}" for name, value in origin[kind].items()) + where
        for kind, where in (
            ("settings", " as set"),
            ("json", f" by {files.metadata_path and files.metadata_path.name}"),
        )
        if origin[kind]
    ]
    if origin["defaults"]:
        names = ", ".join(origin["defaults"])
        texts.append(f"{names} by default of {files.parent}")
    return f"{files.weight_path}: {'; '.join(texts)}"


def needed_of(parent: str) -> list[str]:
    """Names of the settings that are needed to describe the weights of a class."""
    if parent.startswith("EQCCT"):
        return ["component_order"]
    left_out = {
        "component_order": _WITHOUT_ORDER,
        "labels": _WITHOUT_LABELS,
        "norm": _WITHOUT_NORM,
    }
    return [name for name in _EXAMPLES if parent not in left_out.get(name, ())]


def _described(files: WeightFiles, given: Mapping[str, Any]) -> WeightFiles:
    if files.weight_path.suffix.lower() in _SUFFIXES_OF_KERAS:
        if given.get("component_order", ORDER_OF_KERAS) != ORDER_OF_KERAS:
            raise SettingsError(
                f"component_order={given['component_order']}: {files.weight_path} are EQCCT's "
                f"own weights, which take {ORDER_OF_KERAS}",
                hint="leave the argument out",
            )
        return files
    written = _written(files)
    for name, value in given.items():
        known = written.get(name, written.get({"labels": "phases"}.get(name, name)))
        if known is not None and _comparable(known) != _comparable(value):
            raise SettingsError(
                f"{name}={_text(value)} contradicts {files.metadata_path}, "
                f"which says {_text(known)}",
                hint="leave the argument out, or correct the file",
            )
    new = {name: value for name, value in given.items() if name not in written}
    if "phases" in written:
        new.pop("labels", None)
    described = replace(files, described=tuple(new.items()))
    _require_description(described, written)
    return described


def _require_description(files: WeightFiles, written: Mapping[str, Any]) -> None:
    runs = files.parent in PICKER_CLASSES and files.parent not in _NOT_RUN
    if files.source != "path" or written or not runs:
        return
    if files.parent.startswith("EQCCT") and find_source(files.sha256) is not None:
        return  # the authors' weights, whose order of components is known
    missing = [name for name in needed_of(files.parent) if name not in dict(files.described)]
    if not missing:
        return
    path = files.weight_path
    _refuse_other_than_weights(path)
    beside = files.metadata_path or _json_beside(path)
    example = " ".join(f"--set {name}={_EXAMPLES[name]}" for name in missing)
    raise WeightsError(
        f"{path} is a bare state dict, which does not say its {_listed(missing)}; "
        "wrong ones give wrong picks without an error",
        hint=f"say how it was trained, such as {example}; or save it with SeisBench's model.save, "
        f"which writes {beside.name} with model_args",
    )


def _refuse_other_than_weights(path: Path) -> None:
    """Raise a specific error for a file that is not a state dict.

    Raises
    ------
    WeightsError
        It is damaged, a whole pickled model, or a training checkpoint.
    """
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" not in str(error):
            raise _damaged(path) from error
        raise WeightsError(
            f"{path} holds a whole Python object, as torch.save(model) writes it, not weights; "
            "loading it would run code",
            hint="save it with SeisBench's model.save, or save model.state_dict()",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise _damaged(path) from error
    inner = (
        [
            name
            for name, value in content.items()
            if isinstance(value, Mapping) and any(map(torch.is_tensor, value.values()))
        ]
        if isinstance(content, Mapping)
        else []
    )
    if inner:
        raise WeightsError(
            f"{path} is a checkpoint of a training: its weights are under {inner[0]!r}",
            hint=f"load it, load the model from checkpoint[{inner[0]!r}], "
            "and save that with SeisBench's model.save",
        )


def _damaged(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} is damaged, or is no file of weights", hint="copy or fetch it again"
    )


def _listed(names: list[str]) -> str:
    words = [name.replace("_", " ") for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _json_beside(path: Path) -> Path:
    stem, _, version = path.name.rpartition(".pt")
    return path.with_name(f"{stem}.json{version}")


def _written(files: WeightFiles) -> dict[str, Any]:
    """``model_args`` of the JSON beside the weights."""
    if files.metadata_path is None:
        return {}
    stated = read_metadata(files.metadata_path).get("model_args")
    return dict(stated) if isinstance(stated, dict) else {}


def _require_order_alone(given: Mapping[str, Any]) -> None:
    """Raise an error for other settings: EQCCT's variant sets normalisation and 100 Hz."""
    unknown = [name for name in given if name != "component_order"]
    if unknown:
        raise SettingsError(
            f"{', '.join(unknown)}: of EQCCT's weights only component_order can be said",
            hint="leave the argument out",
        )


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that describe weights, validated; ``phases`` is renamed to ``labels``."""
    if "phases" in arguments and "labels" in arguments:
        raise SettingsError("phases and labels mean the same", hint="leave one of them out")
    given: dict[str, Any] = {}
    for name in _NAMES:
        if name in arguments:
            given["labels" if name == "phases" else name] = _checked(name, arguments[name])
    return given


def _checked(name: str, value: Any) -> Any:
    """Validate a value and convert it to the type that SeisBench's classes take."""
    if name == "component_order":
        order = str(value).upper()
        if not re.fullmatch(r"[A-Z0-9]{1,6}", order) or len(set(order)) != len(order):
            raise SettingsError(f"component_order: {value!r} is not an order such as ZNE or ENZ")
        return order
    if name in ("labels", "phases"):
        labels = value.split(",") if isinstance(value, str) and "," in value else list(value)
        labels = [str(label).strip() for label in labels]
        if not all(labels) or len(set(labels)) != len(labels):
            raise SettingsError(f"{name}: {value!r} is no list of labels such as NPS or Pg,Sg,N")
        return "".join(labels) if all(len(label) == 1 for label in labels) else tuple(labels)
    if name == "norm":
        if str(value).lower() not in _NORMS:
            raise SettingsError(f"norm: {value!r} is not known", hint="use std or peak")
        return str(value).lower()
    if name in ("sampling_rate", "in_samples"):
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"{name}: {value!r} is not a number") from error
        if not 0 < number < 1e9 or (name == "in_samples" and number != int(number)):
            raise SettingsError(f"{name}: {value!r} is not a possible value")
        return int(number) if number == int(number) else number
    if str(value).lower() not in ("true", "false"):
        raise SettingsError(f"{name}: {value!r} is not true or false")
    return str(value).lower() == "true"


def _comparable(value: Any) -> Any:
    return "".join(map(str, value)) if isinstance(value, (str, list, tuple)) else value


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
