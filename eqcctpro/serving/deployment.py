"""The service's deployments on Ray Serve."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from eqcctpro.runtimes.base import Runtime
from eqcctpro.serving.app import create_app
from eqcctpro.serving.engines import Engine
from eqcctpro.serving.gpus import gpu_share
from eqcctpro.serving.hub import Hub, HubReplica, LocalHub, RemoteHub
from eqcctpro.serving.listener import Listener
from eqcctpro.serving.logs import SocketHandler
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.model_board import Version
from eqcctpro.serving.model_keeper import ModelKeeper
from eqcctpro.serving.model_loading import open_version
from eqcctpro.serving.networks import (
    NetworkReplica,
    RemoteRuntime,
    wait_for_networks,
    watch_networks,
)
from eqcctpro.serving.pages import page_routes
from eqcctpro.serving.replica import Replica
from eqcctpro.serving.routes import job_routes, model_routes, session_routes, stream_routes
from eqcctpro.serving.security import Guard
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import Scale, ServeSettings

if TYPE_CHECKING:
    from eqcctpro.serving.grpc_service import GrpcServer

__all__ = ["APPLICATION", "PickReplica", "build"]

#: What the service is called on Ray Serve.
APPLICATION = "eqcctpro"

# Threads of a replica change places this often: the one that picks must not wait 5 ms for the
# one that reads requests.
_SWITCH_SECONDS = 0.0005

# Replicas go more slowly than they come: a load that has gone may be back soon.
_TIMES_SLOWER = 20

_log = logging.getLogger("eqcctpro.serving")


class PickReplica:
    """Replica that receives requests, decodes, batches, picks and answers, in one process.

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
        self._replica = Replica(settings)
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._listener: Listener | None = None
        self._grpc: GrpcServer | None = None
        self._ended = threading.Event()
        with self._replica.starting():
            self._metrics = metrics = Metrics(settings.metrics)
            self._hub: Hub = (
                RemoteHub(hub, metrics) if hub is not None else LocalHub(settings, metrics)
            )
            # In a thread, for networks in other replicas are asked through this event loop.
            self._service = await asyncio.to_thread(self._open, secret, networks or {})
            watch_networks(lambda: self._service.engines.values(), networks or {}, self._ended)
            self._app = create_app(self._service, *self._more_routes())
            gc.collect()
            gc.freeze()
            await self._listen()
        self._service.metrics.ready.set(1)
        _log.info("a replica is ready")

    def _open(self, secret: str, networks: dict[str, DeploymentHandle]) -> Service:
        settings = self._settings
        wait_for_networks(networks)
        metrics = self._metrics
        logs = self._replica.logs
        if isinstance(logs, SocketHandler):
            metrics.watch(metrics.log_dropped, lambda: logs.dropped)

        def opened(version: Version) -> Engine:
            # Of a service that was built with networks, the first executes what comes later.
            host = next((n for n in networks if n == version.name), next(iter(networks), None))
            remote = _remote(networks[host], version.number, settings) if host is not None else None
            engine = open_version(version, settings, report=metrics.batch, open_runtime=remote)
            engine.network = host
            return engine

        keeper = ModelKeeper(self._hub, opened)
        guard = Guard(settings.security, secret)
        service = Service(
            settings, keeper.begin(), metrics, guard, self._replica.state, self._hub.publish
        )
        service.keeper = keeper
        keeper.follow(service.serve)
        return service

    async def _listen(self) -> None:
        """Take requests: HTTP, unless Ray Serve's proxy does, and gRPC."""
        settings, grpc = self._settings, None
        if settings.grpc.port is not None:
            from eqcctpro.serving.grpc_service import GrpcServer

            grpc = GrpcServer(self._service)
        if not settings.behind_proxy:
            self._listener = Listener(self._app, settings, grpc)
            self._listener.start()
        elif grpc is not None:
            await grpc.start()
            self._grpc = grpc

    def _more_routes(self) -> list[Any]:
        return [
            page_routes(),
            session_routes(self._service),
            job_routes(self._service, self._hub),
            stream_routes(self._service, self._hub),
            model_routes(self._service, self._hub),
        ]

    def __serve_build_asgi_app__(self) -> Any:
        """Return the ASGI application that gets the requests of Ray Serve's proxy."""
        return self._app

    async def check_health(self) -> None:
        """Health check of Ray Serve, which replaces a replica that fails three times."""
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
        if self._listener is not None:  # Ray Serve's proxy sends nothing more
            await asyncio.sleep(self._settings.drain_s)
        service.stopping = True
        if self._listener is not None:
            self._listener.close(self._settings.shutdown_s)
        if self._grpc is not None:
            await self._grpc.stop(self._settings.shutdown_s)
        self._ended.set()
        if service.keeper is not None:
            service.keeper.close()
        for engine in service.engines.values():
            engine.online.close(self._settings.shutdown_s)
        self._hub.close()
        if service.tracer is not None:
            service.tracer.close()
        _log.info("a replica has ended")
        self._replica.end(service.broken)


def _remote(
    handle: DeploymentHandle, number: int, settings: ServeSettings
) -> Callable[[], Runtime]:
    return lambda: RemoteRuntime(
        handle,
        number,
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
    replicas, hub = settings.replicas, None
    if settings.shared:
        deployment = serve.deployment(HubReplica).options(
            name="hub", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=10_000
        )
        hub = deployment.bind(content)
    if settings.mode == "staged":
        for choice in settings.models:
            name = f"network-{choice.name.replace('/', '-')}"
            share = gpu_share(settings, choice)
            options = _replica_options(settings, replicas.network_scale, share)
            deployment = serve.deployment(NetworkReplica).options(name=name, **options)
            networks[choice.name] = deployment.bind(content, choice.name, hub)
        front = _replica_options(settings, replicas.scale, 0.0)
    else:
        front = _replica_options(settings, replicas.scale, gpu_share(settings))
    ingress = serve.deployment(serve.ingress()(PickReplica)).options(name="pick", **front)
    return ingress.bind(content, secret, networks, hub)


def _replica_options(settings: ServeSettings, scale: Scale, gpus: float) -> dict[str, Any]:
    """Ray Serve's options of a deployment."""
    replicas, limits = settings.replicas, settings.limits
    options: dict[str, Any] = {
        "ray_actor_options": {
            "num_cpus": replicas.cpus,
            "num_gpus": gpus,
        },
        # Ours refuses first, with a reason; Ray Serve's count is of one caller only.
        "max_ongoing_requests": limits.capacity + 64,
        # Of those that are on their way to a replica, probes among them.
        "max_queued_requests": limits.capacity + 64,
        "backpressure_config": {"status_code": 429, "retry_after_s": limits.retry_after_s},
        "graceful_shutdown_timeout_s": settings.drain_s + settings.shutdown_s + 5,
        "graceful_shutdown_wait_loop_s": 0.2,
        "health_check_period_s": settings.watchdog.period_s,
        "health_check_timeout_s": max(30.0, 2 * settings.watchdog.period_s),
        "max_constructor_retry_count": 1,
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
    }
    if replicas.max_per_node is not None:
        options["max_replicas_per_node"] = replicas.max_per_node
    if scale.by_load:
        options["autoscaling_config"] = AutoscalingConfig(
            min_replicas=scale.least,
            max_replicas=scale.most,
            target_ongoing_requests=replicas.target_ongoing_requests,
            upscale_delay_s=replicas.scale_delay_s,
            downscale_delay_s=_TIMES_SLOWER * replicas.scale_delay_s,
        )
    else:
        options["num_replicas"] = scale.most
    return options
