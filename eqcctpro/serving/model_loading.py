"""Permission to load models while the service runs, and the loading itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from eqcctpro.config import sentences
from eqcctpro.errors import (
    EQCCTProError,
    ExportError,
    RuntimeUnavailableError,
    UnknownModelError,
)
from eqcctpro.models.export_process import export_apart
from eqcctpro.models.locations import COMPOSED_CLASSES, PICKER_CLASSES
from eqcctpro.models.weight_files import WeightFiles, split_name
from eqcctpro.models.weights import may_be_fetched
from eqcctpro.runtimes.base import Runtime
from eqcctpro.runtimes.libraries import load_libraries
from eqcctpro.runtimes.select import needs_export
from eqcctpro.serving.engines import Engine, find_model, open_engine
from eqcctpro.serving.model_board import Version
from eqcctpro.serving.model_keeper import require_memory
from eqcctpro.serving.online import BatchReport
from eqcctpro.serving.problems import ForbiddenProblem, InvalidProblem
from eqcctpro.serving.settings import ModelSettings, ServeSettings

__all__ = ["LoadRequest", "UnloadRequest", "choice_to_load", "open_version"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}(/[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63})?")
_LONGEST_TEXT = 4096

_log = logging.getLogger("eqcctpro.serving")


class LoadRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Weights and settings of a model, as in the service's settings; what is not given stays."""

    weights: str | None = None
    p_threshold: float | None = None
    s_threshold: float | None = None
    detection_threshold: float | None = None
    bandpass: list[float] | str | None = None
    runtime: str | None = None
    device: str | None = None
    precision: str | None = None
    arguments: dict[str, Any] | None = None


class UnloadRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of a request to unload a model."""

    default: str | None = None


def choice_to_load(
    name: str, request: LoadRequest, settings: ServeSettings, present: ModelSettings | None
) -> ModelSettings:
    """Check a request to load a model; return the model's settings.

    Parameters
    ----------
    name : str
        As clients call it.
    request : LoadRequest
    settings : ServeSettings
    present : ModelSettings or None
        What is served under this name.

    Raises
    ------
    InvalidProblem
        A setting is wrong.
    ForbiddenProblem
        The weights are neither SeisBench's nor in one of the folders that models are loaded from.
    """
    known = {choice.name: choice for choice in settings.models}
    base = present or known.get(name)
    if base is None and not _NAME.fullmatch(name):
        raise InvalidProblem(
            f"{name[:100]!r} is no name for a model",
            hint="names are such as PhaseNet/mine: letters, digits and _ . + -",
        )
    fields = msgspec.structs.asdict(request)
    given = {key: value for key, value in fields.items() if value is not None}
    values = {} if base is None else base.model_dump(exclude_unset=True)
    try:
        choice = ModelSettings(**{**values, **given, "name": name})
    except ValidationError as error:
        raise InvalidProblem("; ".join(sentences(error, ModelSettings))) from error
    weights = choice.weights or name
    trusted = {one.weights or one.name for one in known.values()}
    if present is not None:
        trusted.add(present.weights or present.name)
    if weights not in trusted:
        choice = choice.model_copy(update={"weights": _inside(weights, settings)})
    return choice


def _inside(text: str, settings: ServeSettings) -> str:
    """Weights that a client names; a file as its path, links followed.

    Raises
    ------
    InvalidProblem, ForbiddenProblem
    """
    try:
        parent, child = split_name(text[:_LONGEST_TEXT])
    except UnknownModelError as error:
        raise InvalidProblem(f"weights: {error.message}", hint=error.hint) from error
    if parent not in (*PICKER_CLASSES, *COMPOSED_CLASSES):
        raise InvalidProblem(
            f"weights: {parent[:100]!r} is no model class",
            hint="write Class/weights, for example EQTransformer/original",
        )
    if may_be_fetched(parent, child):
        return f"{parent}/{child}"
    for root in settings.security.model_roots:
        try:
            path = (root / child).resolve()
            # Also X, of X.pt and X.json.
            there = path.exists() or path.with_name(f"{path.name}.pt").exists()
        except (OSError, ValueError, RuntimeError):
            continue
        if there and _is_in(path, settings):
            return f"{parent}/{path}"
    raise ForbiddenProblem(
        f"weights: {child[:200]!r} is not in a folder that models may be loaded from",
        hint="the service's setting security.model_roots names them",
    )


def _is_in(path: Path, settings: ServeSettings) -> bool:
    return any(path.is_relative_to(root.resolve()) for root in settings.security.model_roots)


def open_version(
    version: Version,
    settings: ServeSettings,
    *,
    report: Callable[[BatchReport], None] | None = None,
    open_runtime: Callable[[], Runtime] | None = None,
) -> Engine:
    """Load a version, with nothing from elsewhere unless the service's settings name it.

    Parameters
    ----------
    version : Version
    settings : ServeSettings
    report, open_runtime : callable, optional
        As `open_engine` takes them.

    Raises
    ------
    EQCCTProError
        It cannot be loaded, or is more than the process's memory may hold.
    """
    choice = version.choice

    def prepare(weights: WeightFiles) -> None:
        _require_trust(version, weights, settings)
        if open_runtime is None:
            require_memory(weights, settings.limits)
        _prepare(weights, choice)

    if version.started:
        model = find_model(choice)  # nobody asks this process for anything yet
    else:
        try:
            model = find_model(choice, fetch=False, found=prepare)
        except (ExportError, RuntimeUnavailableError) as error:
            if choice.runtime != "auto":
                raise
            _log.warning("%s runs on torch: %s", choice.name, error)
            choice = choice.model_copy(update={"runtime": "torch"})
            model = find_model(choice, fetch=False, found=prepare)
    engine = open_engine(model, settings, report=report, open_runtime=open_runtime)
    engine.since = version.since
    _log.info(
        "%s on %s (%s), warm after %.2f s",
        model.name,
        engine.runtime.kind,
        engine.runtime.device,
        engine.warm_s,
    )
    return engine


def _prepare(weights: WeightFiles, choice: ModelSettings) -> None:
    """Do what would keep all threads of this process waiting, while requests are answered."""
    if needs_export(weights, choice.runtime, choice.device):
        export_apart(weights)
    elif choice.runtime in ("torch", "tensorflow") or choice.device != "cpu":
        load_libraries("tensorflow" if choice.runtime == "tensorflow" else "torch")


def _require_trust(version: Version, weights: WeightFiles, settings: ServeSettings) -> None:
    """Refuse files that links have led elsewhere since a client named them.

    Raises
    ------
    EQCCTProError
    """
    for file in weights.single_files:
        paths = [file.weight_path, *([file.metadata_path] if file.metadata_path else [])]
        if file.source == "path" and not all(
            _is_in(path.resolve(), settings) or _is_named(version, settings) for path in paths
        ):
            raise EQCCTProError(f"{version.name}: a link leads out of security.model_roots")


def _is_named(version: Version, settings: ServeSettings) -> bool:
    """True if the service's settings name these weights."""
    weights = version.choice.weights or version.name
    return weights in {choice.weights or choice.name for choice in settings.models}
