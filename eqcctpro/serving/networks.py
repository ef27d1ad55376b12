"""Deployments that only execute networks, and their client in the replicas that pick."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from uuid import uuid4

import numpy as np
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from eqcctpro.runtimes.base import Float32, Runtime
from eqcctpro.serving.engines import Engine
from eqcctpro.serving.hub import RemoteHub
from eqcctpro.serving.model_keeper import ModelKeeper
from eqcctpro.serving.model_loading import open_version
from eqcctpro.serving.network_queue import Asked, NetworkQueue
from eqcctpro.serving.problems import LateProblem, UnavailableProblem
from eqcctpro.serving.replica import Replica
from eqcctpro.serving.settings import ServeSettings

__all__ = ["NetworkReplica", "RemoteRuntime", "wait_for_networks", "watch_networks"]

# How often a network is asked whether it is there, and how long it may take to say so.
_GLANCE_S = 1.0
_ANSWER_S = 5.0

_log = logging.getLogger("eqcctpro.serving")


class NetworkReplica:
    """Replica that executes networks for the replicas that decode and pick.

    Parameters
    ----------
    content : str
        `ServeSettings` as JSON.
    name : str
        The model of the settings.
    hub : DeploymentHandle
        Says which versions are served.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, content: str, name: str, hub: DeploymentHandle
    ) -> None:
        settings = ServeSettings.model_validate_json(content)
        self._replica = Replica(settings)
        self._hub = RemoteHub(hub)
        self._keeper = ModelKeeper(
            self._hub, lambda version: open_version(version, settings), network=name
        )
        with self._replica.starting():
            await asyncio.to_thread(self._keeper.begin)
        self._keeper.follow()
        batching = settings.batching
        self._queue = NetworkQueue(self._predict, batching.max_batch_size, batching.aging_s)

    async def predict(self, asked: Asked) -> Float32:
        """Execute a network on a batch; see `NetworkQueue`."""
        return await self._queue.predict(asked)

    async def hurry(self, caller: str) -> None:
        """Have what a caller waits for go first."""
        self._queue.hurry(caller)

    def _predict(self, batches: Sequence[Asked]) -> list[Float32 | Exception]:
        """Execute what is asked for, each version at once.

        What goes wrong with a version is in the place of its curves.
        """
        found: list[Float32 | Exception] = [RuntimeError("not executed")] * len(batches)
        for number in sorted({asked.number for asked in batches}):
            places = [place for place, asked in enumerate(batches) if asked.number == number]
            answers = self._predict_alike(number, [batches[place].windows for place in places])
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
        return found

    def _predict_alike(self, number: int, batches: list[Float32]) -> Sequence[Float32 | Exception]:
        """Execute one version."""
        engine = self._keeper.engine(number)
        if engine is None or not engine.enter():
            missing = UnavailableProblem(
                "the model is not loaded here", hint="ask again", headers={"Retry-After": "1"}
            )
            return [missing] * len(batches)
        try:
            return _predict_together(engine.runtime, batches)
        except Exception as error:  # whatever a runtime raises ends these batches alone
            return [error] * len(batches)
        finally:
            engine.leave()

    def check_health(self) -> None:
        """Health check of Ray Serve, which replaces a replica that fails."""
        for engine in self._keeper.engines.values():
            if engine.online.failure is not None:
                raise RuntimeError(str(engine.online.failure))

    def alive(self) -> None:
        """Answer at once, whatever the network is doing."""

    def __del__(self) -> None:
        """Record the end of the replica."""
        keeper = getattr(self, "_keeper", None)
        if keeper is not None:
            failures = [engine.online.failure for engine in keeper.engines.values()]
            failure = next((one for one in failures if one is not None), None)
            keeper.close()
            self._hub.close()
            self._replica.end(None if failure is None else str(failure))


def _predict_together(runtime: Runtime, batches: list[Float32]) -> list[Float32]:
    together = np.concatenate(batches)
    size = runtime.batch_size
    curves = np.concatenate(
        [
            np.array(runtime.predict(together[first : first + size]))
            for first in range(0, len(together), size)
        ]
    )
    edges = np.cumsum([len(windows) for windows in batches])[:-1]
    return [np.ascontiguousarray(part) for part in np.split(curves, edges)]


class RemoteRuntime(Runtime):
    """Runtime that executes the network in another deployment.

    Parameters
    ----------
    handle : DeploymentHandle
        Of `NetworkReplica`.
    number : int
        Of the version.
    batch_size : int
    timeout_s : float
    """

    kind = "remote"
    ahead = 2

    def __init__(
        self, handle: DeploymentHandle, number: int, *, batch_size: int, timeout_s: float
    ) -> None:
        self.device = "another replica"
        self.batch_size = batch_size
        self._handle = handle
        self._number = number
        self._timeout_s = timeout_s
        self._caller = uuid4().hex

    def hurry(self) -> None:
        """Have what was sent go first from now on; see :meth:`Runtime.hurry`."""
        # Of several replicas that execute the network, one hears it; the others have `aging_s`.
        self._handle.hurry.remote(self._caller)

    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch; see :meth:`Runtime.predict`."""
        return self.submit(windows)()

    def submit(self, windows: Float32) -> Callable[[], Float32]:
        """Send a batch on its way; see :meth:`Runtime.submit`."""
        # A copy, for they are sent some time later.
        response = self._handle.predict.remote(
            Asked(self._number, windows.copy(), self.behind, self._caller)
        )

        def result() -> Float32:
            try:
                curves: Float32 = response.result(timeout_s=self._timeout_s)
            except TimeoutError as error:
                with suppress(Exception):  # Ray raises many kinds
                    response.cancel()
                raise LateProblem(f"the network took more than {self._timeout_s:g} s") from error
            except RayActorError as error:
                raise UnavailableProblem(
                    "the network's process has ended", hint="ask again, another one is started"
                ) from error
            return curves

        return result


def watch_networks(
    engines: Callable[[], Iterable[Engine]],
    networks: Mapping[str, DeploymentHandle],
    ended: threading.Event,
) -> None:
    """Tell engines when the replicas that execute their networks come or go.

    Parameters
    ----------
    engines : callable
        Those that are served.
    networks : mapping
        Deployments by the names that engines have of them.
    ended : threading.Event
        When it is enough.
    """

    def watch() -> None:
        while not ended.wait(_GLANCE_S):
            for name, handle in networks.items():
                answers = _answers(handle)
                for engine in engines():
                    if engine.network != name or answers == (engine.missing is None):
                        continue
                    model = engine.model.name
                    engine.missing = None if answers else f"the network of {model} does not answer"
                    _log.log(
                        logging.INFO if answers else logging.ERROR,
                        "the network of %s %s",
                        model,
                        "answers again" if answers else "does not answer",
                    )

    if networks:
        threading.Thread(target=watch, name="eqcctpro-networks", daemon=True).start()


def wait_for_networks(networks: Mapping[str, DeploymentHandle]) -> None:
    """Wait until the replicas that execute the networks are ready, which may take minutes."""
    for handle in networks.values():
        while not _answers(handle):  # where they cannot start, Ray ends this one, too
            time.sleep(_GLANCE_S)


def _answers(handle: DeploymentHandle) -> bool:
    response = handle.alive.remote()
    try:
        response.result(timeout_s=_ANSWER_S)
    except BackPressureError:  # it is there, with much to do
        return True
    except Exception:  # Ray raises many kinds
        with suppress(Exception):
            response.cancel()
        return False
    return True
