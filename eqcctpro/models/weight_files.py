"""Weights that were found: their files, and the names that they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eqcctpro.errors import UnknownModelError, WeightsError, WeightsNotFoundError
from eqcctpro.models.locations import PICKER_CLASSES, canonical_class

__all__ = [
    "CHILD_NAME",
    "CLASS_NAME",
    "WEIGHT_FILE",
    "Source",
    "WeightFiles",
    "check_child",
    "class_of_file",
    "split_name",
]

Source = Literal["path", "cache", "package", "download"]

CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
CHILD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
WEIGHT_FILE = re.compile(r".+\.pt(\.v[^/\\]+)?")


@dataclass(frozen=True)
class WeightFiles:
    """Weights that were found.

    Attributes
    ----------
    parent, child : str
        SeisBench's class and the name of the weights.
    weight_path : pathlib.Path
        State dict, readable with ``torch.load(..., weights_only=True)``; of a picker
        with parts, the first part's.
    metadata_path : pathlib.Path or None
        JSON with the arguments of the class; None only for weights given by path.
    version : str
        Version in SeisBench's counting.
    sha256 : str
        Hash of the weight file; of a picker with parts, over the hashes of all.
    source : {"path", "cache", "package", "download"}
        How they were found.
    parts : tuple of WeightFiles
        The networks of a picker that has several, as EQCCT has; else empty.
    variant : str
        Which of several ways to use the weights, where the model knows several.
    described : tuple of (str, object)
        What a user says of weights without metadata, as `eqcctpro.models.description` checks
        it: component_order, labels, norm, sampling_rate and the like.
    """

    parent: str
    child: str
    weight_path: Path
    metadata_path: Path | None
    version: str
    sha256: str
    source: Source
    parts: tuple[WeightFiles, ...] = ()
    variant: str = ""
    described: tuple[tuple[str, Any], ...] = ()

    @property
    def single_files(self) -> tuple[WeightFiles, ...]:
        """The parts, or this one if it has none."""
        return self.parts or (self,)

    @property
    def name(self) -> str:
        """``parent/child``."""
        return f"{self.parent}/{self.child}"


def split_name(name: str) -> tuple[str, str]:
    """Split ``Class/child`` or ``Class/path`` at its first slash.

    Raises
    ------
    UnknownModelError
        If it does not have two parts.
    """
    parent, _, child = name.partition("/")
    if not child:
        raise UnknownModelError(
            f"{name!r} does not name a model",
            hint="write Class/weights, for example EQTransformer/original",
        )
    return canonical_class(parent), child


def check_child(child: str) -> str:
    """``child`` if it can be a file name in the cache.

    Raises
    ------
    WeightsNotFoundError
        If it cannot, and thus names no weights.
    """
    if not CHILD_NAME.fullmatch(child) or WEIGHT_FILE.fullmatch(child):
        raise WeightsNotFoundError(
            f"{child!r} is neither a file nor a name of weights",
            hint="names have letters, digits and _ . + -; paths must exist",
        )
    return child


def class_of_file(path: Path, metadata: Mapping[str, Any]) -> str:
    """SeisBench's class of a weight file, from its JSON or its folder's name.

    Raises
    ------
    WeightsError
        If neither says it.
    """
    stated = metadata.get("model_class")
    if isinstance(stated, str) and CLASS_NAME.fullmatch(stated):
        return stated
    folder = canonical_class(path.absolute().parent.name)
    if folder in PICKER_CLASSES:
        return folder
    raise WeightsError(
        f"{path} does not say which model it belongs to",
        hint=f"name the class, for example PhaseNet/{path}",
    )
