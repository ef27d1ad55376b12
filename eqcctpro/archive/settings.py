"""Settings of a run's input: files, selection and time chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eqcctpro.places import Place
from eqcctpro.spans import FOREVER_NS, Span

if TYPE_CHECKING:
    from eqcctpro.config import PickConfig

__all__ = ["InputSettings"]


@dataclass(frozen=True)
class InputSettings:
    """Settings of the input: files, selection and time chunks.

    Attributes
    ----------
    inputs : tuple of Path or str
        Folders, files, patterns of them, or addresses.
    layout : str
        One of `eqcctpro.archive.layouts.LAYOUTS`, or ``"auto"``.
    start_ns, end_ns : int or None
        Time span of the run; picks outside are dropped by rule.
    timechunk_min : float or None
        Length of a time chunk in minutes; None makes a chunk of each folder or day, or only one.
    overlap_min : float
        Overlap of neighbouring time chunks, in minutes.
    stations : tuple of str
        Patterns; empty takes all.
    stations_at_most : int or None
        Number of stations of a seeded random sample.
    exclude : tuple of str
        Patterns of stations and instruments to leave out of these.
    channel_priority : tuple of str
        Patterns of band and instrument codes, the best first: of each station only the best
        one is picked in a chunk.  Empty picks every instrument.
    context_ns : int
        Data to read on either side of what a chunk owns, in nanoseconds.
    chunk_major : bool
        Finish a chunk's stations before the next chunk, even if files are then read more
        than once.
    hold_bytes : int
        Most bytes of local files that are kept with the plan; see `FileTable.held`.
    storage : mapping or None
        Options of an object store's file system; None keeps those of this process.
    hydrophone : bool
        Pick hydrophones with their seismometers, for models that have such a component.
    input_roots : tuple of Path or str
        Folders and addresses that every file must lie in; an empty tuple allows all.
    file_timeout_s : float or None
        Time limit for reading the headers of a file, in seconds.
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

    @property
    def span(self) -> Span:
        """Time span of the run."""
        start = -FOREVER_NS if self.start_ns is None else self.start_ns
        return Span(start, FOREVER_NS if self.end_ns is None else self.end_ns)

    @classmethod
    def of(
        cls,
        config: PickConfig,
        *,
        context_ns: int = 0,
        hold_bytes: int = 0,
        hydrophone: bool = False,
    ) -> InputSettings:
        """Input settings from the configuration of a run."""
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
