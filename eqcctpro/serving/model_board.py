"""Agreement of all replicas on the served versions of models, and on which are loaded.

A version is loaded by everybody before anybody serves it, and where one process cannot load it,
nobody does: the version before goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from eqcctpro.serving.problems import ConflictProblem, NotFoundProblem
from eqcctpro.serving.settings import ModelSettings, ServeSettings

__all__ = ["Change", "Instruction", "ModelBoard", "ModelSet", "Report", "Version"]

# A process that has said nothing for so long is not waited for.
_LOST_S = 20.0
# How long a version may take to be loaded, exporting it for the first time included.
_LOAD_S = 900.0

_log = logging.getLogger("eqcctpro.serving")


@dataclass(frozen=True)
class Version:
    """A model, its settings, and when it was asked for.

    Attributes
    ----------
    number : int
        No other version of the service has it.
    choice : ModelSettings
    since : float
        Seconds since 1970.
    started : bool
        Whether it is of the settings that the service started with.
    """

    number: int
    choice: ModelSettings
    since: float
    started: bool = False

    @property
    def name(self) -> str:
        """Name of the model, as clients call it."""
        return self.choice.name


@dataclass(frozen=True)
class ModelSet:
    """Served models, the default first; a later set has a higher revision."""

    revision: int
    versions: tuple[Version, ...]


@dataclass(frozen=True)
class Report:
    """Report of a process about the models that it serves and has loaded.

    Attributes
    ----------
    member : str
        The process; no other one has this name.
    network : str or None
        The deployment that it belongs to if it executes networks for others.
    serves : ModelSet
    loaded : mapping of int to str
        Hash of the weights of each version that it holds, by number.
    failed : mapping of int to str
        Why it could not load a version.
    """

    member: str
    network: str | None
    serves: ModelSet
    loaded: Mapping[int, str]
    failed: Mapping[int, str]


@dataclass(frozen=True)
class Change:
    """A version that is not served, as it is being loaded or could not be."""

    number: int
    name: str
    state: Literal["LOADING", "READY", "UNAVAILABLE"]
    since: float
    reason: str | None = None


@dataclass(frozen=True)
class Instruction:
    """Models that a process has to load and serve, and facts that it may publish.

    Attributes
    ----------
    serves : ModelSet
    load : tuple of Version
        What it has to hold, in the order in which it loads.
    keep : frozenset of int
        Numbers of the versions that somebody may still ask it for.
    changes : tuple of Change
        What is not served.
    ready : mapping of int to int
        How many replicas hold a version, by its number.
    replicas : int
        Those that take requests.
    """

    serves: ModelSet
    load: tuple[Version, ...]
    keep: frozenset[int]
    changes: tuple[Change, ...] = ()
    ready: Mapping[int, int] = field(default_factory=dict)
    replicas: int = 1


class ModelBoard:
    """Coordinator of the served models; changes are requested from any process.

    Parameters
    ----------
    settings : ServeSettings
    changed : callable, optional
        Called with the models whenever others are served.
    """

    def __init__(
        self,
        settings: ServeSettings,
        changed: Callable[[Sequence[ModelSettings]], None] | None = None,
    ) -> None:
        now = time.time()
        versions = tuple(
            Version(number, choice, now, started=True)
            for number, choice in enumerate(settings.models, start=1)
        )
        staged = settings.mode == "staged"
        self._hosts = [choice.name for choice in settings.models] if staged else []
        self._set = ModelSet(0, versions)
        self._next = len(versions) + 1
        self._pending: Version | None = None
        self._pending_since = 0.0
        self._failures: dict[str, Change] = {}
        self._members: dict[str, tuple[Report, float]] = {}
        self._committed: dict[int, int] = {}
        self._changed = changed
        self._lock = threading.Lock()

    def host(self, version: Version) -> str | None:
        """The deployment that executes a version for those that pick; None where they do."""
        if not self._hosts:
            return None
        return version.name if version.name in self._hosts else self._hosts[0]

    def present(self, network: str | None) -> Instruction:
        """Instruction for a starting process, which does not yet take part in pending changes."""
        with self._lock:
            return self._instruct(network, pending=False)

    def sync(self, report: Report) -> Instruction:
        """Take a process's report, and return its instruction."""
        with self._lock:
            self._members[report.member] = (report, time.monotonic())
            if report.serves.revision > self._set.revision:
                # This board is new, and the processes have gone on without the one before.
                self._set = report.serves
                self._tell_changed()
            numbers = [version.number for version in report.serves.versions]
            self._next = max(self._next, *(number + 1 for number in (*numbers, *report.loaded)), 0)
            self._advance()
            return self._instruct(report.network, pending=self._has_turn(report))

    def load(self, choice: ModelSettings) -> int:
        """Load a version in all processes, and serve it once all have it; returns its number.

        Raises
        ------
        ConflictProblem
            Another one is being loaded.
        """
        with self._lock:
            self._advance()
            if self._pending is not None:
                raise ConflictProblem(
                    f"{self._pending.name} is being loaded",
                    hint="one model is loaded at a time; ask again when GET /v1/models shows that "
                    "it is there",
                    headers={"Retry-After": "5"},
                )
            self._pending = Version(self._next, choice, time.time())
            self._pending_since = time.monotonic()
            self._next += 1
            self._failures.pop(choice.name, None)
            return self._pending.number

    def unload(self, name: str, default: str | None = None) -> int:
        """Stop serving a model; returns the revision without it.

        Parameters
        ----------
        name : str
        default : str, optional
            The model of requests that name none from then on.

        Raises
        ------
        NotFoundProblem
            It, or the new default, is not served.
        ConflictProblem
            It is the last one, being loaded, or the default without another one being named.
        """
        with self._lock:
            if self._pending is not None and self._pending.name == name:
                raise ConflictProblem(f"{name} is being loaded", headers={"Retry-After": "5"})
            left = tuple(version for version in self._set.versions if version.name != name)
            if len(left) == len(self._set.versions):
                served = ", ".join(version.name for version in left)
                raise NotFoundProblem(
                    f"the model {name[:100]!r} is not served", hint=f"served are {served}"
                )
            if not left:
                raise ConflictProblem(
                    f"{name} is the only model", hint="load another one before it is unloaded"
                )
            names = [version.name for version in left]
            if default is not None and default not in names:
                raise NotFoundProblem(
                    f"the model {default[:100]!r}, which is to be the default, is not served",
                    hint=f"served are {', '.join(names)} beside {name}",
                )
            if default is None and self._set.versions[0].name == name:
                raise ConflictProblem(
                    f"{name} is the default, which requests get that name no model",
                    hint='say which model they get from then on: {"default": "'
                    f'{names[0]}"}} in the body, or --default {names[0]}',
                )
            self._failures.pop(name, None)
            self._serve(tuple(sorted(left, key=lambda version: version.name != default)))
            return self._set.revision

    def followed(self, revision: int) -> bool:
        """True if all replicas serve the set of a revision, or a later one."""
        with self._lock:
            return not self._behind(revision)

    def outcome(self, number: int) -> Change:
        """State of a version that was requested: loading, ready or failed."""
        with self._lock:
            self._advance()
            if self._pending is not None and self._pending.number == number:
                return _loading(self._pending)
            for failure in self._failures.values():
                if failure.number == number:
                    return failure
            for version in self._set.versions:
                if version.number == number:
                    behind = self._behind(self._committed.get(number, 0))
                    state: Literal["LOADING", "READY"] = "LOADING" if behind else "READY"
                    return Change(number, version.name, state, version.since)
            return Change(number, "", "UNAVAILABLE", time.time(), "another one has taken its place")

    def _behind(self, revision: int) -> bool:
        """True if a replica still serves a set from before a revision."""
        return any(report.serves.revision < revision for report in self._replicas())

    def _live(self) -> list[Report]:
        least = time.monotonic() - _LOST_S
        self._members = {name: kept for name, kept in self._members.items() if kept[1] > least}
        return [report for report, _ in self._members.values()]

    def _replicas(self) -> list[Report]:
        return [report for report in self._live() if report.network is None]

    def _executing(self, version: Version) -> list[Report]:
        host = self.host(version)
        return [report for report in self._live() if host is not None and report.network == host]

    def _has_turn(self, report: Report) -> bool:
        """True if a process may load the pending version: networks load before their clients."""
        version = self._pending
        if version is None:
            return False
        if report.network is not None:
            return report.network == self.host(version)
        executing = self._executing(version)
        if self._hosts and not executing:
            return False
        return all(version.number in other.loaded for other in executing)

    def _advance(self) -> None:
        """Serve the pending version once all processes have it; drop it if one cannot load it."""
        version = self._pending
        if version is None:
            return
        number = version.number
        replicas, executing = self._replicas(), self._executing(version)
        concerned = [*executing, *replicas]
        why = next((r.failed[number] for r in concerned if number in r.failed), None)
        if why is None and time.monotonic() - self._pending_since > _LOAD_S:
            why = f"it was not loaded in {_LOAD_S:g} s"
        hashes = {report.loaded[number] for report in concerned if number in report.loaded}
        if why is None and len(hashes) > 1:
            why = "the weights changed while they were loaded"
        if why is not None:
            _log.error("%s is not loaded, and what was served is: %s", version.name, why)
            self._pending = None
            self._failures[version.name] = Change(
                number, version.name, "UNAVAILABLE", time.time(), why
            )
        elif (
            replicas
            and (executing or not self._hosts)
            and all(number in report.loaded for report in concerned)
        ):
            self._pending = None
            version = replace(version, since=time.time())
            names = [known.name for known in self._set.versions]
            if version.name in names:
                versions = list(self._set.versions)
                versions[names.index(version.name)] = version
            else:
                versions = [*self._set.versions, version]
            self._serve(tuple(versions))
            self._committed = {number: self._set.revision}

    def _serve(self, versions: tuple[Version, ...]) -> None:
        self._set = ModelSet(self._set.revision + 1, versions)
        self._tell_changed()

    def _tell_changed(self) -> None:
        if self._changed is not None:
            self._changed([version.choice for version in self._set.versions])

    def _instruct(self, network: str | None, *, pending: bool) -> Instruction:
        load = list(self._set.versions)
        if pending and self._pending is not None:
            load.append(self._pending)
        keep = {version.number for version in self._set.versions}
        replicas = self._replicas()
        if self._pending is not None:
            keep.add(self._pending.number)
        if network is not None:
            load = [version for version in load if self.host(version) == network]
            keep.update(number for report in replicas for number in report.loaded)
        changes = list(self._failures.values())
        if self._pending is not None:
            changes.append(_loading(self._pending))
        ready = {
            version.number: sum(version.number in report.loaded for report in replicas)
            for version in self._set.versions
        }
        return Instruction(
            self._set, tuple(load), frozenset(keep), tuple(changes), ready, len(replicas)
        )


def _loading(version: Version) -> Change:
    return Change(version.number, version.name, "LOADING", version.since)
