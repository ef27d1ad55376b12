"""Settings of picking station tasks: those of the pipeline, and of what is read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.places import Place

__all__ = ["TaskSettings"]


@dataclass(frozen=True)
class TaskSettings(PipelineSettings):
    """Settings of the pipeline, and how the files of its station tasks are read.

    Attributes
    ----------
    item_timeout_s : float or None
        Seconds in which a station task must be read and prepared.
    annotations : str or None
        Folder that probability curves are written to.
    storage : mapping or None
        Options of an object store's file system; None leaves those of this process.
    input_roots : tuple of Path or str
        Folders and addresses that every file must lie in; none allows all.
    """

    item_timeout_s: float | None = None
    annotations: str | None = None
    storage: Mapping[str, Any] | None = None
    input_roots: tuple[Place, ...] = ()

    @classmethod
    def of(cls, settings: PipelineSettings, **files: Any) -> Self:
        """Settings of a pipeline, with those of this class by name."""
        known = {each.name: getattr(settings, each.name) for each in fields(settings)}
        return cls(**known, **files)
