"""The service's deployments on Ray Serve."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from eqcctpro.errors import EQCCTProError
from eqcctpro.runtimes.base import Float32, Runtime
from eqcctpro.serving.app import create_app
from eqcctpro.serving.engines import Engine, find_model, open_engine
from eqcctpro.serving.hub import Hub, HubReplica, LocalHub, RemoteHub
from eqcctpro.serving.listener import Listener
from eqcctpro.serving.logs import set_up_logs
from eqcctpro.serving.metrics import Metrics, forget_dead
from eqcctpro.serving.pages import page_routes
from eqcctpro.serving.routes import job_routes, session_routes, stream_routes
from eqcctpro.serving.security import Guard
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import ModelSettings, ServeSettings
from eqcctpro.serving.state import StateFolder

__all__ = ["APPLICATION", "NetworkReplica", "PickReplica", "RemoteRuntime", "build"]

#: What the service is called on Ray Serve.
APPLICATION = "eqcctpro"

# Threads of a replica change places this often: the one that picks must not wait 5 ms for the
# one that reads requests.
_SWITCH_SECONDS = 0.0005

_log = logging.getLogger("eqcctpro.serving")


class PickReplica:
    """Takes requests, decodes, batches, picks and answers: everything in one process.

    Parameters
    ----------
    content : str
        `ServeSettings` as JSON.
    secret : str
        What tokens are signed with.
    networks : dict of DeploymentHandle, optional
        Deployments that execute the networks, by model; without them this process does.
    hub : DeploymentHandle, optional
        What replicas share; without it this is the only one.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        content: str,
        secret: str,
        networks: dict[str, DeploymentHandle] | None = None,
        hub: DeploymentHandle | None = None,
    ) -> None:
        self._settings = settings = ServeSettings.model_validate_json(content)
        self._state = StateFolder.of_environment()
        set_up_logs(settings.logs, self._state.log_socket if self._state else None)
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._listener: Listener | None = None
        try:
            self._hub: Hub = RemoteHub(hub) if hub is not None else LocalHub(settings)
            # In a thread, for networks in other replicas are asked through this event loop.
            self._service = await asyncio.to_thread(self._open, secret, networks or {})
            self._app = create_app(self._service, *self._more_routes())
            if settings.grpc.port is not None:
                from eqcctpro.serving.grpc_service import GrpcPicker

                self._grpc = GrpcPicker(self._service)
            if settings.http.listener == "replica":
                self._listener = Listener(self._app, settings)
                self._listener.start()
        except EQCCTProError as error:
            if self._state is not None:
                self._state.note_failure(error)
            raise
        if self._state is not None:
            self._state.note_start(settings.replicas.max or settings.replicas.front_count)
        self._service.metrics.ready.set(1)
        gc.collect()
        gc.freeze()
        _log.info("a replica is ready")

    def _open(self, secret: str, networks: dict[str, DeploymentHandle]) -> Service:
        settings = self._settings
        if self._state is not None and self._state.metrics.is_dir():
            forget_dead(self._state.metrics)
        metrics = Metrics(settings.metrics)
        engines: dict[str, Engine] = {}
        for choice in settings.models:
            model = find_model(choice)
            remote = networks.get(choice.name)
            engine = open_engine(
                model,
                settings,
                report=metrics.batch,
                open_runtime=_remote(remote, settings) if remote is not None else None,
            )
            engines[choice.name] = engine
            _log.info(
                "%s on %s (%s), warm after %.2f s",
                choice.name,
                engine.runtime.kind,
                engine.runtime.device,
                engine.warm_s,
            )
        published = self._hub.publish if settings.stream.enabled else None
        guard = Guard(settings.security, secret)
        return Service(settings, engines, metrics, guard, self._state, published)

    def _more_routes(self) -> list[Any]:
        routes = [
            page_routes(),
            session_routes(self._service),
            job_routes(self._service, self._hub),
        ]
        if self._settings.stream.enabled:
            routes.append(stream_routes(self._service, self._hub))
        return routes

    def __serve_build_asgi_app__(self) -> Any:
        """What Ray Serve's proxy hands requests to."""
        return self._app

    async def Pick(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802 (gRPC's name)
        """Picks through gRPC."""
        return await self._grpc.pick(request, grpc_context)

    async def Annotate(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Curves through gRPC."""
        return await self._grpc.pick(request, grpc_context, with_curves=True)

    async def Models(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Models through gRPC."""
        del request
        return await self._grpc.models(grpc_context)

    async def check_health(self) -> None:
        """Ray Serve asks every now and then, and replaces a replica that raises three times."""
        await self._service.test_itself()
        problem = self._service.broken
        if problem is not None:
            raise RuntimeError(problem)

    async def __del__(self) -> None:
        """Finish what was accepted."""
        service = getattr(self, "_service", None)
        if service is None:
            return
        service.draining = True
        service.metrics.ready.set(0)
        await asyncio.sleep(self._settings.drain_s)
        service.stopping = True
        if self._listener is not None:
            self._listener.close(self._settings.shutdown_s)
        for engine in service.engines.values():
            engine.online.close(self._settings.shutdown_s)
        self._hub.close()
        _log.info("a replica has ended")


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
        state = StateFolder.of_environment()
        set_up_logs(settings.logs, state.log_socket if state else None)
        choice = next(model for model in settings.models if model.name == name)
        try:
            self._engine = await asyncio.to_thread(open_engine, find_model(choice), settings)
        except EQCCTProError as error:
            if state is not None:
                state.note_failure(error)
            raise
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
            curves: Float32 = response.result(timeout_s=self._timeout_s)
            return curves

        return result


def _remote(handle: DeploymentHandle, settings: ServeSettings) -> Callable[[], Runtime]:
    return lambda: RemoteRuntime(
        handle,
        batch_size=settings.batching.max_batch_size,
        timeout_s=settings.limits.forward_timeout_s,
    )


def build(settings: ServeSettings, secret: str) -> Any:
    """The application for Ray Serve.

    Parameters
    ----------
    settings : ServeSettings
    secret : str
        What tokens are signed with.
    """
    content = settings.model_dump_json()
    networks: dict[str, Any] = {}
    replicas = settings.replicas
    if replicas.placement == "staged":
        for choice in settings.models:
            name = f"network-{choice.name.replace('/', '-')}"
            options = _replica_options(settings, replicas.count, choice)
            deployment = serve.deployment(NetworkReplica).options(name=name, **options)
            networks[choice.name] = deployment.bind(content, choice.name)
        front = _replica_options(settings, replicas.front, None)
    else:
        front = _replica_options(settings, replicas.count, settings.models[0])
    ingress = serve.deployment(serve.ingress()(PickReplica)).options(name="pick", **front)
    hub = None
    if replicas.front_count > 1 or replicas.max is not None:
        hub = serve.deployment(HubReplica).options(
            name="hub", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=10_000
        )
    return ingress.bind(content, secret, networks, hub.bind(content) if hub else None)


def _replica_options(
    settings: ServeSettings, count: int | None, choice: ModelSettings | None
) -> dict[str, Any]:
    """How Ray Serve runs a deployment."""
    replicas, limits = settings.replicas, settings.limits
    on_gpu = choice is not None and choice.device != "cpu"
    options: dict[str, Any] = {
        "ray_actor_options": {
            "num_cpus": replicas.cpus if replicas.cpus is not None else 1,
            "num_gpus": replicas.gpus or (1 if on_gpu else 0),
        },
        # Ours refuses first, with a reason; Ray Serve's count is of one caller only.
        "max_ongoing_requests": limits.capacity + 64,
        "max_queued_requests": limits.capacity,
        "backpressure_config": {"status_code": 429, "retry_after_s": limits.retry_after_s},
        "graceful_shutdown_timeout_s": settings.drain_s + settings.shutdown_s + 5,
        "graceful_shutdown_wait_loop_s": 0.2,
        "health_check_period_s": settings.watchdog.period_s,
        "health_check_timeout_s": max(30.0, 2 * settings.watchdog.period_s),
        "max_constructor_retry_count": replicas.constructor_retries,
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
    }
    if replicas.max_per_node is not None:
        options["max_replicas_per_node"] = replicas.max_per_node
    if replicas.max is not None:
        options["autoscaling_config"] = AutoscalingConfig(
            min_replicas=replicas.min or 0,
            max_replicas=replicas.max,
            target_ongoing_requests=replicas.target_ongoing_requests,
            upscale_delay_s=replicas.upscale_delay_s,
            downscale_delay_s=replicas.downscale_delay_s,
        )
    else:
        options["num_replicas"] = count or 1
    return options
