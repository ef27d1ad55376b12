"""Status of one station in a run, with the reason if it has no picks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eqcctpro.errors import InputError, SettingsError
from eqcctpro.journal.folder import RunFolder
from eqcctpro.journal.store import JournalStore

__all__ = ["StationTaskStatus", "read_station_status"]

_NAMED = 10


@dataclass(frozen=True)
class StationTaskStatus:
    """One station task: an instrument of the station in a time chunk.

    Attributes
    ----------
    name : str
        ``NET.STA.LOC.INSTRUMENT``.
    timechunk : str
    status : {"done", "empty", "failed", "waiting"}
    reason, error : str
        Why it is empty or failed, and the class of the error; empty otherwise.
    notes : list of str
        How the waveforms were processed.
    windows : int
    picks : int or None
        None while the run is unfinished.
    outside : int
        Picks that were dropped because they are before the run's start or after its end.
    highest : dict of str to float
        Highest probability of ``P`` and ``S``; a phase that no window covers is absent.
    thresholds : dict of str to float
        Of ``P`` and ``S``, if they are known.
    """

    name: str
    timechunk: str
    status: str
    reason: str
    error: str
    notes: list[str]
    windows: int
    picks: int | None
    outside: int
    highest: dict[str, float]
    thresholds: dict[str, float]

    @property
    def why(self) -> str:
        """Explanation of the status: counts, highest probabilities and the reason of no picks."""
        if self.status == "waiting":
            return "waiting: it is not picked yet"
        if self.status != "done":
            return f"{self.status}: {self.error + ': ' if self.error else ''}{self.reason}"
        told = [self._phase(phase) for phase in self.highest]
        highest = f"highest probability {', '.join(told)}" if told else "no window reaches it"
        if self.picks is None:
            return f"done; {highest}"
        found = f"{self.picks} picks" if self.picks != 1 else "1 pick"
        if self.picks:
            return f"done, {found}; {highest}"
        if self.outside:
            return f"done, no picks: {self.outside} are outside of the run's span; {highest}"
        if not self._reached:
            return f"done, no picks; {highest}"
        return f"done, no picks: what reaches the threshold is a neighbouring chunk's; {highest}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "why": self.why}

    @property
    def _reached(self) -> bool:
        return any(
            value >= self.thresholds.get(phase, float("inf"))
            for phase, value in self.highest.items()
        )

    def _phase(self, phase: str) -> str:
        text = f"{phase} {self.highest[phase]:.3f}"
        if (threshold := self.thresholds.get(phase)) is None:
            return text
        side = "above" if self.highest[phase] >= threshold else "below"
        return f"{text} ({side} the threshold of {threshold:g})"


def read_station_status(output: Path, station: str) -> list[StationTaskStatus]:
    """Read all station tasks of a station, in the order of their time chunks.

    Parameters
    ----------
    output : Path
        Output folder of a run, finished or not.
    station : str
        ``STA``, ``NET.STA``, ``NET.STA.LOC`` or ``NET.STA.LOC.INSTRUMENT``.

    Raises
    ------
    InputError
        There is no journal of a run, or the run has no table of station tasks.
    SettingsError
        The run has no such station.
    """
    folder = RunFolder(output)
    tasks = list(_recorded(folder) if folder.unfinished() else _finished(output))
    found = [task for task in tasks if _is(task.name, station)]
    if not found:
        known = sorted({".".join(task.name.split(".")[:2]) for task in tasks})
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        raise SettingsError(
            f"{station}: no such station in {output}",
            hint=f"there are {', '.join(known[:_NAMED]) or 'none'}{more}; stations that were left "
            "out are under `skipped` and `files_ignored` in summary.json",
        )
    return sorted(found, key=lambda task: (task.timechunk, task.name))


def _is(name: str, station: str) -> bool:
    codes, wanted = name.upper().split("."), station.upper().replace("--", "")
    return wanted == codes[1] or any(wanted == ".".join(codes[:n]) for n in (2, 3, 4))


def _finished(output: Path) -> Iterator[StationTaskStatus]:
    from eqcctpro.journal.task_table import read_tasks

    table = read_tasks(output)
    if table is None:
        raise InputError(
            f"{output} holds no table of station tasks", hint="name the output folder of a run"
        )
    thresholds = _of_phases(_applied(output))
    for row in table.to_pylist():
        highest = {phase: row[f"max_probability_{phase}"] for phase in "PS"}
        yield StationTaskStatus(
            ".".join(row[name] for name in ("network", "station", "location", "channel")),
            row["timechunk"],
            row["status"],
            row["reason"],
            row["error"],
            row["notes"],
            row["windows"],
            row["picks"],
            row["picks_outside_span"],
            {phase: value for phase, value in highest.items() if value is not None},
            thresholds,
        )


def _applied(output: Path) -> Mapping[str, Any]:
    try:
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        return dict(summary["applied"]["thresholds"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _recorded(folder: RunFolder) -> Iterator[StationTaskStatus]:
    store = JournalStore(folder.journal, writable=False)
    try:
        settings = store.facts()["settings"]
        items, ended = store.items(), {key: how for key, how, _ in store.outcomes()}
    finally:
        store.close()
    end = "_threshold"
    named = {name.removesuffix(end): value for name, value in settings.items() if end in name}
    thresholds = _of_phases({name.capitalize(): float(value) for name, value in named.items()})
    for key, name, chunk in items:
        record = ended.get(key)
        if record is None:
            yield StationTaskStatus(name, chunk, "waiting", "", "", [], 0, None, 0, {}, thresholds)
            continue
        highest = {"P": record.highest_p, "S": record.highest_s}
        yield StationTaskStatus(
            name,
            chunk,
            record.status,
            record.reason,
            record.error,
            list(record.notes),
            record.n_windows,
            None,
            record.n_outside,
            {phase: value for phase, value in highest.items() if value is not None},
            thresholds,
        )


def _of_phases(thresholds: Mapping[str, float]) -> dict[str, float]:
    """The lowest threshold of P and of S over all labels of that phase."""
    found: dict[str, float] = {}
    for label, value in thresholds.items():
        if (phase := label[:1].upper()) in ("P", "S"):
            found[phase] = min(value, found.get(phase, value))
    return found
