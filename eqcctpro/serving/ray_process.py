"""Child process that runs Ray and the service on it.

The latter heeds signals.  This one, and what Ray starts, do not hear them, so that what was
accepted is finished even if all processes of a service are told to end at once.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
from contextlib import suppress

from eqcctpro.child import ChildDiedError, ChildProcess, Parent, end_family, exit_words
from eqcctpro.errors import EQCCTProError, WorkerError
from eqcctpro.orchestration.cluster import ray_session
from eqcctpro.resources.devices import resolve
from eqcctpro.runtimes.slices import available_cores
from eqcctpro.serving.gpus import gpu_ids, gpu_share
from eqcctpro.serving.proxy import proxy_http_options, proxy_location
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.state import VARIABLE, StateFolder

__all__ = ["RayProcess"]

# Ray Serve's own settings; what the user sets in the environment counts.
_RAY_SERVE = {"RAY_SERVE_LOG_TO_STDERR": "0", "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000"}

# Signals that end a process, and that a service heeds in one place only.
_ENDING = {"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"}

# For Ray itself to end, after what was accepted.
_ENDING_S = 20.0


class RayProcess:
    """Handle of the process that runs Ray.

    Parameters
    ----------
    settings : ServeSettings
    secret : str
        What tokens are signed with.
    state : StateFolder
    environment : dict of str
        What Ray's processes inherit beside the environment of this one.
    """

    def __init__(
        self,
        settings: ServeSettings,
        secret: str,
        state: StateFolder,
        environment: dict[str, str],
    ) -> None:
        self._settings, self._state = settings, state
        inherited = {name: os.environ.get(name, value) for name, value in _RAY_SERVE.items()}
        if settings.address == "auto" and "RAY_ADDRESS" in os.environ:
            inherited["RAY_ADDRESS"] = os.environ["RAY_ADDRESS"]
        self._child = ChildProcess(
            __name__, environment={**inherited, **environment, VARIABLE: str(state.path)}
        )
        self._ready = False
        with suppress(ChildDiedError):  # which `started` reports
            self._child.send(pickle.dumps((settings.model_dump_json(), secret)))

    @property
    def alive(self) -> bool:
        """True if the process runs."""
        return self._child.alive

    def started(self, wait_s: float) -> bool:
        """Wait some seconds for the service to accept requests; false if it does not yet.

        Raises
        ------
        EQCCTProError
            It cannot be started.
        """
        if not self._child.says(wait_s):
            return False
        try:
            error: EQCCTProError | None = pickle.loads(self._child.receive())
        except ChildDiedError as died:
            raise self._state.failure() or WorkerError(
                f"Ray's process ended while the service started: {died.message}"
            ) from died
        if error is not None:
            raise error
        self._ready = True
        return True

    def end(self) -> None:
        """Finish accepted requests, if there are any, and end everything.

        Raises
        ------
        WorkerError
            It ended otherwise.
        """
        if not self.alive or (not self._ready and self._settings.address is None):
            self._child.kill()  # nobody is served any more, or nobody yet
            return
        settings = self._settings
        code = self._child.end(settings.drain_s + settings.shutdown_s + _ENDING_S)
        if self._ready and code != 0:
            raise WorkerError(
                f"Ray's process did not end as it should ({exit_words(code)}); what was accepted "
                "may not have been answered",
                hint="limits.request_timeout_s is how long answers may take",
            )


def main() -> None:
    """Start the service, wait until the parent asks to stop, and end it."""
    if hasattr(signal, "pthread_sigmask"):  # before there is any thread
        ending = {number for number in signal.Signals if number.name in _ENDING}
        signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    parent = Parent()
    requests = parent.requests()
    content, secret = pickle.loads(next(requests))
    settings, state = ServeSettings.model_validate_json(content), StateFolder.of_environment()
    assert state is not None
    try:
        with ray_session(
            address=settings.address,
            cpus=max(available_cores(), _cpus(settings)),
            gpu_ids=_gpus(settings),
            temp_dir=settings.ray_temp_dir,
        ):
            from ray import serve

            from eqcctpro.serving.deployment import APPLICATION

            _deploy(settings, secret, state)
            parent.reply(pickle.dumps(None))
            for _ in requests:
                pass
            serve.delete(APPLICATION)  # its replicas finish what they have accepted
            if settings.address is None:
                # Ray would take seconds, and leave behind what does not hear of it.
                end_family(os.getpid())
                os._exit(0)
    except EQCCTProError as error:
        parent.reply(pickle.dumps(error))
        sys.exit(error.exit_code)


def _deploy(settings: ServeSettings, secret: str, state: StateFolder) -> None:
    """Start Ray Serve and the application."""
    from ray import serve

    from eqcctpro.serving.deployment import APPLICATION, build

    for name in ("ray.serve", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    serve.start(
        proxy_location=proxy_location(settings),
        http_options=proxy_http_options(settings),
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    try:
        serve.run(build(settings, secret), name=APPLICATION, route_prefix="/")
    except (RuntimeError, TimeoutError) as error:
        raise state.failure() or WorkerError(
            f"the service did not start: {' '.join(str(error).split())[-400:]}",
            hint="eqcctpro serve --dry-run tries the models out",
        ) from error


def _cpus(settings: ServeSettings) -> int:
    replicas = settings.replicas
    most = replicas.scale.most
    if settings.mode == "staged":
        most += replicas.network_scale.most * len(settings.models)
    return int(most * replicas.cpus + 0.999) + settings.jobs.at_a_time


def _gpus(settings: ServeSettings) -> list[int]:
    """The GPUs that Ray may use, checked before it starts.

    Raises
    ------
    EQCCTProError
        One is not there, or the processes do not fit on them.
    """
    gpu_share(settings)
    if settings.address is not None:
        return []
    for choice in settings.models:
        if choice.runtime != "tensorflow":
            resolve(choice.device)
    return gpu_ids(settings)


if __name__ == "__main__":
    main()
