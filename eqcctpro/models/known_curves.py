"""Phases and detections that a model predicts, as far as they are known without torch."""

from __future__ import annotations

from eqcctpro.models.export import find_export
from eqcctpro.models.locations import PICKER_CLASSES
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.models.weight_store import read_metadata

__all__ = ["known_curves"]

#: Phases of classes that do not predict both P and S, by first letter.
_PHASES = {"CRED": "", "EQCCTP": "P", "EQCCTS": "S"}

#: Classes with a curve of detections.
_DETECTING = frozenset({"CRED", "EQTransformer", "OBSTransformer"})


def known_curves(files: WeightFiles) -> tuple[frozenset[str], bool] | None:
    """Phases that a model predicts, and True if it predicts detections.

    Parameters
    ----------
    files : WeightFiles

    Returns
    -------
    tuple or None
        First letters of the phases, in upper case, and True if there is a detection curve;
        None if this is not known before the weights are loaded.
    """
    if files.parts:
        return frozenset("PS"), False
    export = find_export(files)
    if export is not None:
        picker = export.picker
        initials = frozenset(phase[:1].upper() for phase in picker.phases)
        return initials, picker.detection_label is not None
    if files.parent not in PICKER_CLASSES:
        return None
    arguments = {} if files.metadata_path is None else read_metadata(files.metadata_path)
    stated = arguments.get("model_args")
    stated = {**dict(files.described), **(stated if isinstance(stated, dict) else {})}
    if "labels" in dict(files.described):
        return _of_phases(files.parent, list(stated["labels"]))
    if isinstance(stated, dict) and "labels" in stated:
        return None  # custom labels
    if isinstance(stated, dict) and "phases" in stated:
        return _of_phases(files.parent, stated["phases"])
    return frozenset(_PHASES.get(files.parent, "PS")), files.parent in _DETECTING


def _of_phases(parent: str, phases: object) -> tuple[frozenset[str], bool] | None:
    if not isinstance(phases, (str, list)):
        return None
    initials = {str(phase)[:1].upper() for phase in phases} & {"P", "S"}
    return frozenset(initials), parent in _DETECTING
