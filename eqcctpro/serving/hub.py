"""State that all replicas share: the stream of picks, the jobs, and the served models."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from eqcctpro.serving.answers import Answer, PickRow
from eqcctpro.serving.jobs import JobBoard
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.model_board import ModelBoard
from eqcctpro.serving.replica import Replica
from eqcctpro.serving.settings import ModelSettings, ServeSettings
from eqcctpro.serving.stream import Event, PickLogs

__all__ = ["Hub", "HubReplica", "LocalHub", "RemoteHub"]

# How often a replica hands its picks on where another process keeps them.
_HAND_ON_S = 0.2

_log = logging.getLogger("eqcctpro.serving")


class Hub(Protocol):
    """Interface of the shared state, in this process or another one."""

    def publish(self, answer: Answer, owner: str) -> None:
        """Add the picks of an answer to their owner's stream."""

    async def end(self, owner: str) -> str:
        """Id of the last pick of an owner's stream."""

    async def after(self, owner: str, event_id: str, wait_s: float) -> list[Event]:
        """Picks of an owner after an event; waits some seconds for the first if there are none."""

    async def ask_jobs(self, method: str, *arguments: Any) -> Any:
        """Call a method of the job board."""

    def call_models(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `ModelBoard`, and wait for what it returns."""

    def close(self) -> None:
        """Stop running jobs."""


class LocalHub:
    """Shared state of a service of one replica, in its process.

    Parameters
    ----------
    settings : ServeSettings
    metrics : Metrics, optional
        What counts jobs.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics | None = None) -> None:
        self.logs = PickLogs(settings.stream.keep, shared=settings.stream.shared)
        self.board = JobBoard(settings.jobs, [model.name for model in settings.models], metrics)
        self.models = ModelBoard(settings, self._use_models)
        self._use_models(settings.models)

    def _use_models(self, choices: Sequence[ModelSettings]) -> None:
        self.board.use_models({choice.name: choice.weights or choice.name for choice in choices})

    def publish(self, answer: Answer, owner: str) -> None:
        """Add the picks of an answer to their owner's stream."""
        self.logs.publish(answer.rows(), owner)

    async def end(self, owner: str) -> str:
        """Id of the last pick of an owner's stream."""
        return self.logs.of(owner).end

    async def after(self, owner: str, event_id: str, wait_s: float) -> list[Event]:
        """Picks of an owner after an event; waits some seconds for the first if there are none."""
        return await self.logs.after(owner, event_id, wait_s)

    async def ask_jobs(self, method: str, *arguments: Any) -> Any:
        """Call a method of the job board."""
        return await asyncio.to_thread(getattr(self.board, method), *arguments)

    def call_models(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `ModelBoard`."""
        return getattr(self.models, method)(*arguments)

    def close(self) -> None:
        """Stop running jobs, so that they can be resumed."""
        self.board.close()


class HubReplica:
    """Shared state of a service of several replicas: a deployment with one replica.

    Parameters
    ----------
    content : str
        `ServeSettings` as JSON.
    """

    def __init__(self, content: str) -> None:
        settings = ServeSettings.model_validate_json(content)
        self._replica = Replica(settings)
        with self._replica.starting():
            self._hub = LocalHub(settings, Metrics(settings.metrics))

    async def add(self, picks: Sequence[tuple[str, list[PickRow]]]) -> None:
        """Add picks to the streams of their owners."""
        for owner, rows in picks:
            self._hub.logs.publish(rows, owner)

    async def end(self, owner: str) -> str:
        """Id of the last pick of an owner's stream."""
        return await self._hub.end(owner)

    async def after(self, owner: str, event_id: str, wait_s: float) -> list[Event]:
        """Picks of an owner after an event; waits some seconds for the first if there are none."""
        return await self._hub.after(owner, event_id, wait_s)

    async def ask_jobs(self, method: str, *arguments: Any) -> Any:
        """Call a method of the job board."""
        return await self._hub.ask_jobs(method, *arguments)

    async def call_models(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `ModelBoard`."""
        return self._hub.call_models(method, *arguments)

    def __del__(self) -> None:
        """Stop running jobs."""
        hub = getattr(self, "_hub", None)
        if hub is not None:
            hub.close()
            self._replica.end()


class RemoteHub:
    """Client of the shared state in another process.

    Parameters
    ----------
    handle : ray.serve.handle.DeploymentHandle
        Of `HubReplica`.
    metrics : Metrics, optional
        What counts picks that do not get there.
    """

    def __init__(self, handle: Any, metrics: Metrics | None = None) -> None:
        self._handle = handle
        self._metrics = metrics
        self._waiting: list[tuple[str, list[PickRow]]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._hand_on, name="eqcctpro-hub", daemon=True)
        self._thread.start()

    def publish(self, answer: Answer, owner: str) -> None:
        """Add the picks of an answer to their owner's stream, a moment later."""
        if rows := answer.rows():
            self._waiting.append((owner, rows))

    def _hand_on(self) -> None:
        while True:
            ended = self._ended.wait(_HAND_ON_S)
            picks, self._waiting = self._waiting, []
            if picks:
                try:
                    self._handle.add.remote(picks).result(timeout_s=10.0)
                except Exception:  # Ray raises many kinds; the stream lacks these picks
                    _log.exception("picks of %d requests did not reach the stream", len(picks))
                    if self._metrics is not None:
                        lost = sum(len(rows) for _, rows in picks)
                        self._metrics.stream_dropped.labels("unreachable").inc(lost)
            if ended:
                return

    async def end(self, owner: str) -> str:
        """Id of the last pick of an owner's stream."""
        return str(await asyncio.to_thread(self._call, "end", owner))

    async def after(self, owner: str, event_id: str, wait_s: float) -> list[Event]:
        """Picks of an owner after an event; waits some seconds for the first if there are none."""
        found: list[Event] = await asyncio.to_thread(self._call, "after", owner, event_id, wait_s)
        return found

    async def ask_jobs(self, method: str, *arguments: Any) -> Any:
        """Call a method of the job board."""
        return await asyncio.to_thread(self._call, "ask_jobs", method, *arguments)

    def call_models(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `ModelBoard`, and wait for what it returns."""
        return self._call("call_models", method, *arguments)

    def _call(self, method: str, *arguments: Any) -> Any:
        from ray.exceptions import RayTaskError

        try:
            return getattr(self._handle, method).remote(*arguments).result(timeout_s=60.0)
        except RayTaskError as error:
            cause = error.cause if hasattr(error, "cause") else None
            raise (cause or error) from error

    def close(self) -> None:
        """Send the picks that are still queued."""
        self._ended.set()
        self._thread.join(5.0)
