"""Models of one process, which loads, serves and releases versions as the board says."""

from __future__ import annotations

import gc
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import psutil

from eqcctpro.errors import EQCCTProError, ModelError
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.serving.engines import Engine
from eqcctpro.serving.model_board import Instruction, ModelSet, Report, Version
from eqcctpro.serving.settings import LimitSettings

__all__ = ["ModelKeeper", "require_memory"]

# How often a process asks what it is to hold.
_GLANCE_S = 1.0
# How long a version is kept that nobody is known to ask for.
_RELEASE_S = 10.0
# Memory of a model beside that of the weights themselves, and for each byte of their file: state
# dict, exported model, and the network compiled for slices of several sizes.
_BASE_MB, _OF_A_BYTE = 150.0, 12.0

_log = logging.getLogger("eqcctpro.serving")


class _Board(Protocol):
    def call_models(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `ModelBoard`, wherever it is."""


class ModelKeeper:
    """Client of the `ModelBoard`, in threads of its own.

    Parameters
    ----------
    board : Hub
    open_version : callable
        Loads a version, and has it pick the example.
    network : str, optional
        The deployment, of a process that executes networks for others.
    """

    def __init__(
        self,
        board: _Board,
        open_version: Callable[[Version], Engine],
        network: str | None = None,
    ) -> None:
        self._board = board
        self._open = open_version
        self._network = network
        self._name = uuid.uuid4().hex
        self._held: dict[int, Engine] = {}
        self._failed: dict[int, str] = {}
        self._unwanted: dict[int, float] = {}
        self._set = ModelSet(-1, ())
        self._told: Instruction | None = None
        self._serving: dict[str, Engine] = {}
        self._serve: Callable[[Mapping[str, Engine]], None] = lambda _: None
        self._loading: threading.Thread | None = None
        self._wake, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="eqcctpro-models", daemon=True)
        self._reached = True

    @property
    def told(self) -> Instruction | None:
        """Last instruction of the board."""
        return self._told

    @property
    def default(self) -> str | None:
        """The first model of what is served, though this process may not have loaded it."""
        versions = self._set.versions
        return versions[0].name if versions else None

    @property
    def engines(self) -> dict[str, Engine]:
        """Engines of the served models, the default first."""
        return dict(self._serving)

    def engine(self, number: int) -> Engine | None:
        """A version that is held, by its number."""
        return self._held.get(number)

    def begin(self) -> dict[str, Engine]:
        """Load the served models, before the process takes any request.

        Raises
        ------
        EQCCTProError
            A model of the settings cannot be loaded, or none can.
        """
        while True:
            try:
                told: Instruction = self._board.call_models("present", self._network)
                break
            except TimeoutError:  # where it cannot start, Ray ends this process, too
                time.sleep(_GLANCE_S)
        for version in told.load:
            try:
                self._held[version.number] = self._open(version)
            except Exception as error:
                if version.started or len(told.load) == 1:
                    raise
                self._note_failure(version, error)
        self._take(told)
        return self.engines

    def follow(self, serve: Callable[[Mapping[str, Engine]], None] = lambda _: None) -> None:
        """Start to follow the board.

        Parameters
        ----------
        serve : callable
            Called with the engines whenever others are to be served.
        """
        self._serve = serve
        self._thread.start()

    def wake(self) -> None:
        """Contact the board now."""
        self._wake.set()

    def close(self) -> None:
        """Stop following the board."""
        self._ended.set()
        self._wake.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._step()
                self._reached = True
            except Exception:  # Ray raises many kinds; what is served goes on
                if self._reached:
                    _log.exception("what is to be served cannot be asked for")
                self._reached = False
            self._wake.wait(_GLANCE_S)
            self._wake.clear()

    def _step(self) -> None:
        told: Instruction = self._board.call_models("sync", self._report())
        if self._ended.is_set():
            return
        self._told = told
        missing = [
            version
            for version in told.load
            if version.number not in self._held and version.number not in self._failed
        ]
        if missing and self._loading is None:
            self._loading = threading.Thread(
                target=self._load, args=(missing[0],), name="eqcctpro-load", daemon=True
            )
            self._loading.start()
        numbers = {version.number for version in told.serves.versions}
        ahead = told.serves.revision > self._set.revision
        if ahead and not any(version.number in numbers for version in missing):
            self._take(told)
            self._serve(self.engines)
            self._board.call_models("sync", self._report())
        self._release(told)

    def _report(self) -> Report:
        loaded = {n: e.model.picker.weights_sha256 for n, e in list(self._held.items())}
        return Report(self._name, self._network, self._set, loaded, dict(self._failed))

    def _take(self, told: Instruction) -> None:
        """Serve a set, as far as this process could load it."""
        engines = {}
        for version in told.serves.versions:
            engine = self._held.get(version.number)
            if engine is not None:
                engine.since = version.since
            elif version.name in self._serving:
                # Its weights are not on this machine any more; all others serve them.
                engine = self._serving[version.name]
                engine.behind = self._failed.get(version.number)
            if engine is not None:
                engines[version.name] = engine
        self._told, self._set, self._serving = told, told.serves, engines

    def _load(self, version: Version) -> None:
        started = time.perf_counter()
        try:
            engine = self._open(version)
        except Exception as error:  # whatever a file can do to a loader, the service goes on
            self._note_failure(version, error)
        else:
            seconds = time.perf_counter() - started
            _log.info("%s: version %d loaded in %.2f s", version.name, version.number, seconds)
            self._held[version.number] = engine
        finally:
            self._loading = None
            self._wake.set()

    def _note_failure(self, version: Version, error: Exception) -> None:
        if not isinstance(error, EQCCTProError):
            _log.error("%s cannot be loaded", version.name, exc_info=error)
        said = error.message if isinstance(error, EQCCTProError) else type(error).__name__
        self._failed[version.number] = said
        while len(self._failed) > 100:
            del self._failed[next(iter(self._failed))]

    def _release(self, told: Instruction) -> None:
        """Close versions that are no longer served, after their last requests."""
        served = {id(engine) for engine in self._serving.values()}
        now = time.monotonic()
        grace = 0.0 if self._network is None else _RELEASE_S
        for number, engine in list(self._held.items()):
            if number in told.keep or (self._network is None and id(engine) in served):
                self._unwanted.pop(number, None)
                continue
            since = self._unwanted.setdefault(number, now)
            if now - since < grace or not engine.retire():
                continue
            del self._held[number], self._unwanted[number]
            engine.close()
            _log.info("%s: version %d is unloaded", engine.model.name, number)
            del engine
            gc.collect()


def require_memory(weights: WeightFiles, limits: LimitSettings) -> None:
    """Refuse to load what does not fit, before anything of it is read.

    Raises
    ------
    ModelError
    """
    paths = [file.weight_path for file in weights.single_files]
    need = _BASE_MB + _OF_A_BYTE * sum(path.stat().st_size for path in paths) / 2**20
    memory = psutil.virtual_memory()
    most = limits.model_memory_mb or memory.total / 2**21
    has = psutil.Process().memory_info().rss / 2**20
    if has + need > most or need > memory.available / 2**20:
        raise ModelError(
            f"{weights.name} may take {need:,.0f} MB; the process has {has:,.0f} MB of the "
            f"{most:,.0f} MB that it may have, and {memory.available / 2**20:,.0f} MB are free",
            hint="unload another model, or raise limits.model_memory_mb",
        )
