"""Networks in replicas of their own: what executes them, and how those that pick reach them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from eqcctpro.runtimes.base import Float32, Runtime
from eqcctpro.serving.engines import Engine, find_model, open_engine
from eqcctpro.serving.problems import LateProblem, UnavailableProblem
from eqcctpro.serving.replica import Replica
from eqcctpro.serving.settings import ServeSettings

__all__ = ["NetworkReplica", "RemoteRuntime", "wait_for_networks", "watch_networks"]

# How often a network is asked whether it is there, and how long it may take to say so.
_GLANCE_S = 1.0
_ANSWER_S = 5.0

_log = logging.getLogger("eqcctpro.serving")


def _windows_of(batches: list[Float32]) -> int:
    return sum(len(windows) for windows in batches)


class NetworkReplica:
    """Executes one model for the replicas that decode and pick.

    Parameters
    ----------
    content : str
        `ServeSettings` as JSON.
    name : str
        The model.
    """

    async def __init__(self, content: str, name: str) -> None:  # type: ignore[misc]
        self._settings = settings = ServeSettings.model_validate_json(content)
        self._replica = Replica(settings)
        choice = next(model for model in settings.models if model.name == name)
        with self._replica.starting():
            self._engine = await asyncio.to_thread(open_engine, find_model(choice), settings)
        self._runtime = self._engine.runtime
        self._one_at_a_time = asyncio.Lock()
        self.predict.set_max_batch_size(self._runtime.batch_size)

    @serve.batch(max_batch_size=1024, batch_wait_timeout_s=0.0, batch_size_fn=_windows_of)
    async def predict(self, batches: list[Float32]) -> list[Float32]:
        """Execute the network on the windows of batches that have come meanwhile."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._predict, batches)

    def _predict(self, batches: list[Float32]) -> list[Float32]:
        together = np.concatenate(batches)
        size = self._runtime.batch_size
        curves = np.concatenate(
            [
                np.array(self._runtime.predict(together[first : first + size]))
                for first in range(0, len(together), size)
            ]
        )
        edges = np.cumsum([len(windows) for windows in batches])[:-1]
        return [np.ascontiguousarray(part) for part in np.split(curves, edges)]

    def check_health(self) -> None:
        """Ray Serve replaces a replica that raises."""
        if self._engine.online.failure is not None:
            raise RuntimeError(str(self._engine.online.failure))

    def alive(self) -> None:
        """Answer at once, whatever the network is doing."""

    def __del__(self) -> None:
        """Record that it ends."""
        engine = getattr(self, "_engine", None)
        if engine is not None:
            failure = engine.online.failure
            self._replica.end(None if failure is None else str(failure))


class RemoteRuntime(Runtime):
    """A runtime in another deployment.

    Parameters
    ----------
    handle : DeploymentHandle
        Of `NetworkReplica`.
    batch_size : int
    timeout_s : float
    """

    kind = "remote"
    ahead = 2

    def __init__(self, handle: DeploymentHandle, *, batch_size: int, timeout_s: float) -> None:
        self.device = "another replica"
        self.batch_size = batch_size
        self._handle = handle
        self._timeout_s = timeout_s

    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch; see :meth:`Runtime.predict`."""
        return self.submit(windows)()

    def submit(self, windows: Float32) -> Callable[[], Float32]:
        """Send a batch on its way; see :meth:`Runtime.submit`."""
        # A copy, for they are sent some time later.
        response = self._handle.predict.remote(windows.copy())

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
    engines: Mapping[str, Engine], networks: Mapping[str, DeploymentHandle], ended: threading.Event
) -> None:
    """Have engines know whether the replicas that execute their networks are there.

    Parameters
    ----------
    engines, networks : mapping
        By model.
    ended : threading.Event
        When it is enough.
    """

    def watch() -> None:
        while not ended.wait(_GLANCE_S):
            for name, handle in networks.items():
                answers, engine = _answers(handle), engines[name]
                if answers == (engine.missing is None):
                    continue
                engine.missing = None if answers else f"the network of {name} does not answer"
                _log.log(
                    logging.INFO if answers else logging.ERROR,
                    "the network of %s %s",
                    name,
                    "answers again" if answers else "does not answer",
                )

    if networks:
        threading.Thread(target=watch, name="eqcctpro-networks", daemon=True).start()


def wait_for_networks(networks: Mapping[str, DeploymentHandle]) -> None:
    """Wait until the replicas that execute the networks are there, which may load for minutes."""
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
