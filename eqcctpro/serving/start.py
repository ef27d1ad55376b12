"""Start, supervision and shutdown of the service."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.errors import SettingsError, WorkerError
from eqcctpro.places import make_writable
from eqcctpro.serving.engines import find_model
from eqcctpro.serving.listener import claim_port
from eqcctpro.serving.logs import LogReader
from eqcctpro.serving.metrics import SHARED_FOLDER, metrics_server
from eqcctpro.serving.proxy import proxy_environment
from eqcctpro.serving.ray_process import RayProcess
from eqcctpro.serving.security import find_authenticator, read_people, read_secret
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.state import StateFolder
from eqcctpro.serving.tracing import require_tracing

__all__ = ["RunningService", "check_files", "check_start", "running_service", "serve_until_ended"]

_GLANCE_S = 0.2


class _EndedEarlyError(Exception):
    """The service was stopped before it had started."""


@dataclass(frozen=True)
class RunningService:
    """A service that accepts requests.

    Attributes
    ----------
    url : str
    settings : ServeSettings
    state : StateFolder
    process : RayProcess
    """

    url: str
    settings: ServeSettings
    state: StateFolder
    process: RayProcess

    @property
    def problem(self) -> str | None:
        """Reason why the service should end; None if it should not."""
        if not self.process.alive:
            return "the process of Ray has ended"
        watchdog = self.settings.watchdog
        restarts = self.state.restarts()
        if watchdog.stop_on_error and restarts > watchdog.restarts:
            return f"{restarts} replicas had to be replaced, and {watchdog.restarts} may be"
        return None


def check_start(settings: ServeSettings) -> None:
    """Find errors in settings and environment before anything is started.

    Raises
    ------
    SettingsError
        A port is taken, or a setting names something that is not there.
    ModelError
        A model's weights are missing.
    """
    with _claimed_ports(settings):
        pass
    check_files(settings)
    if settings.jobs.roots:
        _require_folder(settings.jobs.folder, "jobs.folder")
    for choice in settings.models:
        find_model(choice)


def check_files(settings: ServeSettings) -> None:
    """Check that the files named in settings exist, without changing or starting anything.

    Raises
    ------
    SettingsError
        A file, folder, function or package is missing or of no use.
    """
    find_authenticator(settings.security)
    read_secret(settings.security)
    read_people(settings.security)
    require_tracing(settings.logs.traces)
    for root in settings.jobs.roots:
        if isinstance(root, Path) and not root.is_dir():
            raise SettingsError(f"jobs.roots: {root} is no folder")


def _require_folder(folder: Path, name: str) -> None:
    """Create a folder, and test whether files can be written there.

    Raises
    ------
    SettingsError
    """
    try:
        make_writable(folder)
    except OSError as error:
        raise SettingsError(
            f"{name}: {folder} cannot be written: {error.strerror or error}",
            hint="name a folder on a disk that this user may write to",
        ) from error


@contextmanager
def _claimed_ports(settings: ServeSettings) -> Iterator[None]:
    """Reserve the ports inside the block; replicas can listen there."""
    with ExitStack() as claims:
        if settings.address is None:
            host = settings.http.host
            claims.enter_context(claim_port(host, settings.http.port, "http.port"))
            if settings.grpc.port is not None:
                claims.enter_context(claim_port(host, settings.grpc.port, "grpc.port"))
        yield


@contextmanager
def running_service(
    settings: ServeSettings, told: Callable[[], bool] = lambda: False
) -> Iterator[RunningService]:
    """Run a service until the end of the block, then finish the requests it has accepted.

    Parameters
    ----------
    settings : ServeSettings
    told : callable, optional
        Whether to give up before the service has started.

    Raises
    ------
    EQCCTProError
        It cannot be started; the error says why.
    """
    secret = read_secret(settings.security)
    with ExitStack() as stack:
        stack.enter_context(_claimed_ports(settings))
        state = stack.enter_context(_state_folder())
        stack.enter_context(LogReader(state.log_socket, settings.logs.file))
        # Of Ray Serve's proxy: uvicorn would believe whatever comes from loopback.
        environment = {"FORWARDED_ALLOW_IPS": ",".join(settings.http.trusted_proxies)}
        environment |= proxy_environment(settings)
        if _shares_metrics(settings):
            environment[SHARED_FOLDER] = str(state.metrics)
        stack.enter_context(metrics_server(settings.http.host, settings.metrics, state.metrics))
        process = RayProcess(settings, secret, state, environment)
        stack.callback(process.end)
        while not process.started(_GLANCE_S):
            if told():
                raise _EndedEarlyError
        yield RunningService(_url(settings), settings, state, process)


def _shares_metrics(settings: ServeSettings) -> bool:
    """True if metrics are read in another process than the one that counts."""
    return settings.shared or settings.metrics.port is not None


@contextmanager
def _state_folder() -> Iterator[StateFolder]:
    # Sockets have short names.
    try:
        path = Path(tempfile.mkdtemp(prefix="eqp-serve-"))
    except OSError as error:
        raise SettingsError(
            f"no folder for the service's state can be made: {error.strerror or error}",
            hint="the variable TMPDIR says where; it needs a local disk with free space",
        ) from error
    state = StateFolder(path)
    try:
        state.make()
        yield state
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _url(settings: ServeSettings) -> str:
    http = settings.http
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(http.host, http.host)
    return f"{'https' if http.tls else 'http'}://{host}:{http.port}{http.root_path}"


def serve_until_ended(
    settings: ServeSettings,
    ended: threading.Event,
    ready: Callable[[RunningService], None] | None = None,
) -> None:
    """Serve until a signal or failure ends it, then finish the accepted requests.

    Parameters
    ----------
    settings : ServeSettings
    ended : threading.Event
        What says so.
    ready : callable, optional
        Called when requests are taken.

    Raises
    ------
    EQCCTProError
        The service cannot start, or broke too often.
    """
    check_start(settings)
    try:
        with running_service(settings, ended.is_set) as service:
            if ready is not None and not ended.is_set():
                ready(service)
            problem = None
            while not ended.wait(_GLANCE_S) and problem is None:
                problem = service.problem
            if problem is not None:
                raise WorkerError(f"the service broke: {problem}", hint="its log says why")
    except _EndedEarlyError:
        return
