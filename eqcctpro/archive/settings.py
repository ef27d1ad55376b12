"""What of an archive is read, and how time is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eqcctpro.places import Place

if TYPE_CHECKING:
    from eqcctpro.config import PickConfig

__all__ = ["InputSettings"]


@dataclass(frozen=True)
class InputSettings:
    """What is read, and how time is cut.

    Attributes
    ----------
    inputs : tuple of Path or str
        Folders, files, patterns of them, or addresses.
    layout : str
        One of `eqcctpro.archive.layouts.LAYOUTS`, or ``"auto"``.
    start_ns, end_ns : int or None
        Picks outside are dropped by rule.
    timechunk_min : float or None
        Length of a chunk in minutes; None takes the folders, days, or one chunk.
    overlap_min : float
        What neighbouring chunks share, in minutes.
    stations : tuple of str
        Patterns; empty takes all.
    stations_at_most : int or None
        A seeded random choice of that many stations.
    exclude : tuple of str
        Patterns of what is left out of these.
    channel_priority : tuple of str
        Patterns of band and instrument codes, the best first: of each station only the best
        one is picked in a chunk.  Empty picks every instrument.
    context_ns : int
        Data wanted around what a chunk owns, where files hold it.
    chunk_major : bool
        Finish a chunk's stations before the next chunk, even if files are then read more
        than once.
    hold_bytes : int
        Contents that files of this machine may leave with the plan; see `FileTable.held`.
    storage : mapping or None
        Options of an object store's file system; None leaves those of this process.
    hydrophone : bool
        Pick hydrophones with their seismometers, for models that have such a component.
    input_roots : tuple of Path or str
        Folders and addresses that every file must lie in; none allows all.
    file_timeout_s : float or None
        Time in which the headers of a file must be read.
    """

    inputs: tuple[Place, ...]
    layout: str = "auto"
    start_ns: int | None = None
    end_ns: int | None = None
    timechunk_min: float | None = None
    overlap_min: float = 0.0
    stations: tuple[str, ...] = ()
    stations_at_most: int | None = None
    exclude: tuple[str, ...] = ()
    channel_priority: tuple[str, ...] = ()
    context_ns: int = 0
    chunk_major: bool = False
    hold_bytes: int = 0
    storage: Mapping[str, Any] | None = None
    hydrophone: bool = False
    input_roots: tuple[Place, ...] = ()
    file_timeout_s: float | None = None

    @classmethod
    def of(
        cls,
        config: PickConfig,
        *,
        context_ns: int = 0,
        hold_bytes: int = 0,
        hydrophone: bool = False,
    ) -> InputSettings:
        """Those of a run."""
        return cls(
            inputs=config.input,
            layout=config.layout,
            start_ns=config.start_ns,
            end_ns=config.end_ns,
            timechunk_min=config.timechunk,
            overlap_min=config.overlap,
            stations=config.stations,
            stations_at_most=config.stations_at_most,
            exclude=config.exclude,
            channel_priority=config.channel_priority,
            context_ns=context_ns,
            chunk_major=config.concurrent_timechunks is not None,
            hold_bytes=hold_bytes,
            storage=config.storage,
            hydrophone=hydrophone,
            input_roots=config.input_roots,
            file_timeout_s=config.item_timeout,
        )
