"""Stations of a trial: the same for every configuration that is compared."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.archive.files import ArchiveFile
from eqcctpro.archive.layouts import Layout, list_files
from eqcctpro.archive.plan import Plan, StationTask
from eqcctpro.archive.timechunks import MINUTE_NS
from eqcctpro.codes import safe_name
from eqcctpro.errors import SettingsError
from eqcctpro.times import parse_chunk_name

__all__ = ["StationSet", "StationSets"]


@dataclass(frozen=True)
class StationSet:
    """Some stations of an archive, as an archive of their own.

    Attributes
    ----------
    stations : tuple of str
        ``NET.STA``.
    folder : Path
        Links to their files; what is given to everything that is benchmarked.
    layout : {"chunks", "files", "sds"}
    shared_files : bool
        Whether the files also hold other stations, which then have to be left out by name.
    tasks : int
        Station tasks.
    timechunks : int
    chunk_minutes : float
        Length of the longest time chunk, with what it shares with its neighbours.
    span_minutes : float
        From the start of the first chunk to the end of the last.
    """

    stations: tuple[str, ...]
    folder: Path
    layout: Layout
    shared_files: bool
    tasks: int
    timechunks: int
    chunk_minutes: float
    span_minutes: float


class StationSets:
    """Seeded choices of stations, each containing the smaller ones.

    Parameters
    ----------
    inputs : sequence of Path
    plan : Plan
        Of all of it.
    folder : Path
        Where the links are made; nothing is written elsewhere.
    seed : int
    """

    def __init__(self, inputs: Sequence[Path], plan: Plan, folder: Path, seed: int) -> None:
        if plan.layout not in ("chunks", "files", "sds"):
            raise SettingsError(
                f"layout {plan.layout}: an evaluation takes chunks, files or sds",
                hint="copy some of its files to a folder",
            )
        self._plan = plan
        self._roots = [path.absolute() for path in inputs]
        self._files = list_files(inputs, plan.layout)
        self._folder = folder
        self._unusable = {problem.path for problem in plan.problems}
        tasks: dict[str, list[StationTask]] = defaultdict(list)
        for task in plan.tasks:
            tasks[f"{task.network}.{task.station}"].append(task)
        self._tasks = dict(sorted(tasks.items()))
        self._order = list(self._tasks)
        random.Random(seed).shuffle(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def choose(self, count: int) -> StationSet:
        """The first `count` stations of the seeded order."""
        stations = tuple(sorted(self._order[:count]))
        tasks = [task for station in stations for task in self._tasks[station]]
        folder = self._folder / f"{count:05d}_stations"
        holders: dict[str, set[str]] = defaultdict(set)
        for task in self._plan.tasks:
            for path in task.files:
                holders[path].add(f"{task.network}.{task.station}")
        files = {path for task in tasks for path in task.files}
        self._link(tasks, folder)
        return StationSet(
            stations,
            folder,
            self._plan.layout,
            any(not holders[path] <= set(stations) for path in files),
            len(tasks),
            len({task.chunk.index for task in tasks}),
            *_minutes({task.chunk.name for task in tasks}),
        )

    def _link(self, tasks: Sequence[StationTask], folder: Path) -> None:
        for file, place in self._places(tasks, folder):
            source = Path(file.path).absolute()
            place.mkdir(parents=True, exist_ok=True)
            link = place / source.name
            number = 1
            while link.is_symlink() and link.readlink() != source:
                link = place / f"{number}_{source.name}"
                number += 1
            if not link.is_symlink():
                link.symlink_to(source)

    def _places(
        self, tasks: Sequence[StationTask], folder: Path
    ) -> Iterator[tuple[ArchiveFile, Path]]:
        """Files of the tasks, and the folders that link to them."""
        wanted = {path: f"{task.network}.{task.station}" for task in tasks for path in task.files}
        station_folders = {(file.chunk, file.folder) for file in self._files if file.path in wanted}
        for file in self._files:
            if file.path in self._unusable:
                continue  # the sweep says so once, not every trial
            name = wanted.get(file.path)
            if file.folder and (file.chunk, file.folder) in station_folders:
                yield file, folder / file.chunk / file.folder
            elif name is not None and self._plan.layout == "sds":
                yield file, folder / self._below_root(Path(file.path).absolute()).parent
            elif name is not None:
                yield file, folder / file.chunk / safe_name(name)

    def _below_root(self, path: Path) -> Path:
        """A path from the first folder of the archive on, which means something in SDS."""
        return next(path.relative_to(root) for root in self._roots if path.is_relative_to(root))


def _minutes(names: set[str]) -> tuple[float, float]:
    """Length of the longest chunk, and of all from the first to the last."""
    spans = [span for name in names if (span := parse_chunk_name(name)) is not None]
    longest = max(end - start for start, end in spans)
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    return longest / MINUTE_NS, whole / MINUTE_NS
