"""Subjects of benchmarks: each is prepared once and then picks a workload."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

__all__ = ["STAGES", "Outcome", "Subject", "Workload"]

#: Stages that every subject reports where it can tell them apart, in the order of the data.
STAGES = ("plan", "decode", "prepare", "infer", "pick", "write")


@dataclass(frozen=True)
class Workload:
    """Benchmark workload, independent of the implementation.

    Attributes
    ----------
    input : tuple of Path
        Folders or miniSEED files, as for `eqcctpro.PickConfig`.
    stations : tuple of str
        The stations, by the names that the plan gives them; none takes all.
    model : str
        ``Parent/child``.
    settings : dict
        Other fields of `eqcctpro.PickConfig` that say what is computed: thresholds, start, end,
        timechunk, overlap, model_arguments.
    """

    input: tuple[Path, ...]
    stations: tuple[str, ...]
    model: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Result of one run of a subject.

    Attributes
    ----------
    seconds : float
        Wall clock from the first look at the archive until the picks are on disk.
    stages : dict of str to float
        Seconds per stage of `STAGES`, added up over workers; stages that overlap may add up to
        more than `seconds`.  Only those that were measured.
    done, empty, failed : int
        Station tasks by how they ended.
    picks : dict of str to int
        Picks by phase.
    error : str
        What failed first, in words; empty text if nothing did.
    unreadable : int
        Station tasks and files among those that failed because the data themselves cannot be
        read, which is the same in every configuration.
    lost : tuple of str
        What of the data of other tasks could not be picked, in words.
    load_s : float or None
        Mean seconds in which a task loaded the model, where tasks do: in mode ripper.
    """

    seconds: float
    stages: dict[str, float]
    done: int
    empty: int
    failed: int
    picks: dict[str, int]
    error: str = ""
    unreadable: int = 0
    load_s: float | None = None
    lost: tuple[str, ...] = ()


class Subject(Protocol):
    """Something that can be benchmarked; lives in a process of its own."""

    def prepare(self) -> dict[str, Any]:
        """Load everything that later runs share; returns facts about what will run.

        Of these, the canonical files know ``runtime``, ``batch_size``, ``workers``, ``threads``;
        ``start_s`` until everything was ready, and ``model_load_s``, a worker's part of it;
        ``requested_workers``, ``requested_ram_mb`` and ``requested_vram_mb`` of a worker,
        ``planned_ram_mb`` of all processes, ``vram_limit_mb``; ``limits``, why there are fewer
        workers or threads than were asked for; and ``notes``.
        """
        ...

    def run(self, output: Path) -> Outcome:
        """Pick the whole workload once, from files to a table of picks below `output`."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...
