"""Starting the service, watching over it, and ending it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eqcctpro.errors import SettingsError, WorkerError
from eqcctpro.orchestration.cluster import ray_session
from eqcctpro.runtimes.slices import available_cores
from eqcctpro.serving.engines import find_model
from eqcctpro.serving.listener import require_free_port
from eqcctpro.serving.logs import LogReader
from eqcctpro.serving.metrics import SHARED_FOLDER
from eqcctpro.serving.proxy import proxy_grpc_options, proxy_http_options, proxy_location
from eqcctpro.serving.security import find_authenticator, read_people, read_secret
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.state import VARIABLE, StateFolder

__all__ = ["RunningService", "check_start", "running_service", "serve_until_ended"]

_GLANCE_S = 0.5

# Ray Serve's own settings; what the user sets in the environment counts.
_RAY_SERVE = {"RAY_SERVE_LOG_TO_STDERR": "0", "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000"}

_log = logging.getLogger("eqcctpro.serving")


@dataclass(frozen=True)
class RunningService:
    """A service that takes requests.

    Attributes
    ----------
    url : str
    settings : ServeSettings
    state : StateFolder
    problem : callable
        Why it should end, if it should.
    """

    url: str
    settings: ServeSettings
    state: StateFolder
    problem: Callable[[], str | None]


def check_start(settings: ServeSettings) -> None:
    """Find out what can be known to fail before anything is started.

    Raises
    ------
    SettingsError
        A port is taken, or a setting names something that is not there.
    ModelError
        A model's weights are missing.
    """
    if settings.address is None:
        for port in _ports(settings):
            require_free_port(settings.http.host, port)
    find_authenticator(settings.security)
    read_secret(settings.security)
    read_people(settings.security)
    for root in settings.jobs.roots:
        if isinstance(root, Path) and not root.is_dir():
            raise SettingsError(f"jobs.roots: {root} is no folder")
    for choice in settings.models:
        find_model(choice)


def _ports(settings: ServeSettings) -> list[int]:
    more = (settings.grpc.port, settings.metrics.port, settings.grpc.proxy_port)
    return [settings.http.port, *(port for port in more if port is not None)]


@contextmanager
def running_service(settings: ServeSettings) -> Iterator[RunningService]:
    """A service that runs until the end of the block, and then finishes what it has accepted.

    Raises
    ------
    EQCCTProError
        It cannot be started; the error says why.
    """
    secret = read_secret(settings.security)
    with _state_folder() as state, _environment(settings, state):
        reader = LogReader(state.log_socket, settings.logs.file)
        try:
            with ray_session(
                address=settings.address,
                cpus=max(available_cores(), _cpus(settings)),
                gpu_ids=_gpu_ids(settings),
                temp_dir=settings.ray_temp_dir,
                sheltered=True,
            ):
                try:
                    problem = _deploy(settings, secret, state)
                    with _metrics_port(settings, state):
                        yield RunningService(_url(settings), settings, state, problem)
                finally:
                    _end()
        finally:
            reader.close()


@contextmanager
def _state_folder() -> Iterator[StateFolder]:
    # Sockets have short names.
    path = Path(tempfile.mkdtemp(prefix="eqp-serve-"))
    state = StateFolder(path)
    state.make()
    try:
        yield state
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _environment(settings: ServeSettings, state: StateFolder) -> Iterator[None]:
    """What Ray's processes inherit."""
    wanted = dict(_RAY_SERVE)
    wanted[VARIABLE] = str(state.path)
    # Of Ray Serve's proxy: uvicorn would believe whatever comes from loopback.
    wanted["FORWARDED_ALLOW_IPS"] = ",".join(settings.http.trusted_proxies)
    replicas = settings.replicas
    if replicas.front_count > 1 or replicas.max is not None or settings.metrics.port is not None:
        wanted[SHARED_FOLDER] = str(state.metrics)
    earlier = {name: os.environ.get(name) for name in wanted}
    for name, value in wanted.items():
        if name in _RAY_SERVE:
            os.environ.setdefault(name, value)
        else:
            os.environ[name] = value
    try:
        yield
    finally:
        for name, before in earlier.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before


@contextmanager
def _metrics_port(settings: ServeSettings, state: StateFolder) -> Iterator[None]:
    """The metrics of all replicas at a port of their own, if one is wanted."""
    port = settings.metrics.port
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(state.metrics))
    server, thread = start_http_server(port, addr=settings.http.host, registry=registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)


def _cpus(settings: ServeSettings) -> int:
    replicas = settings.replicas
    each = replicas.cpus if replicas.cpus is not None else 1
    most = replicas.max or replicas.count or 1
    if replicas.placement == "staged":
        most = most * len(settings.models) + replicas.front
    return int(most * each + 0.999) + settings.jobs.at_a_time


def _gpu_ids(settings: ServeSettings) -> list[int]:
    devices = {choice.device for choice in settings.models if choice.device != "cpu"}
    return sorted(int(device.partition(":")[2] or 0) for device in devices)


def _url(settings: ServeSettings) -> str:
    http = settings.http
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(http.host, http.host)
    return f"{'https' if http.tls else 'http'}://{host}:{http.port}{http.root_path}"


def _deploy(settings: ServeSettings, secret: str, state: StateFolder) -> Callable[[], str | None]:
    """Start Ray Serve and the application; returns what tells why it should end."""
    from ray import serve

    from eqcctpro.serving.deployment import APPLICATION, build

    for name in ("ray.serve", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    serve.start(
        proxy_location=proxy_location(settings),
        http_options=proxy_http_options(settings),
        grpc_options=proxy_grpc_options(settings),
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    try:
        serve.run(build(settings, secret), name=APPLICATION, route_prefix="/")
    except (RuntimeError, TimeoutError) as error:
        raise state.failure() or WorkerError(
            f"the service did not start: {' '.join(str(error).split())[-400:]}",
            hint="eqcctpro serve --dry-run tries the models out",
        ) from error

    def problem() -> str | None:
        watchdog = settings.watchdog
        restarts = state.restarts()
        if watchdog.stop_on_error and restarts > watchdog.restarts:
            return f"{restarts} replicas had to be replaced, and {watchdog.restarts} may be"
        return None

    return problem


def _end() -> None:
    """Have the replicas finish what they have accepted; the rest ends with Ray."""
    from ray import serve

    from eqcctpro.serving.deployment import APPLICATION

    serve.delete(APPLICATION)


def serve_until_ended(
    settings: ServeSettings, ready: Callable[[RunningService], None] | None = None
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what was accepted.

    Parameters
    ----------
    settings : ServeSettings
    ready : callable, optional
        Called when requests are taken.

    Raises
    ------
    EQCCTProError
        The service cannot start, or broke too often.
    """
    check_start(settings)
    ended = threading.Event()

    def heed() -> dict[int, Any]:
        return {
            number: signal.signal(number, lambda *_: ended.set())
            for number in (signal.SIGTERM, signal.SIGINT)
        }

    earlier = heed()
    try:
        with running_service(settings) as service:
            heed()  # Ray puts a handler of its own in place of ours
            if ready is not None:
                ready(service)
            problem = None
            while not ended.wait(_GLANCE_S) and problem is None:
                problem = service.problem()
        if problem is not None:
            raise WorkerError(f"the service broke: {problem}", hint="its log says why")
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
