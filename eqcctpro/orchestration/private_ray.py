"""Private Ray of one run on this machine: not reachable by others, and with few processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["private_ray"]

# Nothing can be reached at port 0.
NO_SERVER = b"127.0.0.1:0"

_log = logging.getLogger("eqcctpro")


@contextmanager
def private_ray() -> Iterator[None]:
    """Make a Ray that is started inside the block private to this process and quick to start."""
    with _loopback_only(), _few_processes():
        yield


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Let Ray listen on the loopback interface only.

    Ray runs what anybody who reaches its ports sends.  It replaces 127.0.0.1 by the address
    of a network, except on systems where it takes the machine to be the whole cluster.
    """
    from ray._private import ray_constants

    earlier = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = earlier


@contextmanager
def _few_processes() -> Iterator[None]:
    """Start Ray without three processes that are slow to start and not needed.

    They are the monitor that asks for machines, the one that copies logs to the driver, and
    the dashboard's server, which is there without a dashboard too.  ``ray start`` knows how to
    leave out two of them, ``ray.init`` does not.  A Ray that is built otherwise starts as always.
    """
    try:
        from ray._private import ray_constants
        from ray._private.node import Node
        from ray._private.parameter import RayParams

        parameters_made, server_started = RayParams.__init__, Node.start_api_server
        key = ray_constants.DASHBOARD_ADDRESS.encode()
        namespace = ray_constants.KV_NAMESPACE_DASHBOARD
    except (ImportError, AttributeError):
        yield
        return

    def without_monitors(self: Any, *args: Any, **kwargs: Any) -> None:
        parameters_made(self, *args, **kwargs)
        self.no_monitor, self.include_log_monitor = True, False

    def without_server(self: Any, **_: Any) -> None:
        self._webui_url = ""
        # Who looks for the server's address would else do so, and log it, every second.
        try:
            self.get_gcs_client().internal_kv_put(key, NO_SERVER, True, namespace=namespace)
        except Exception as error:  # Ray raises many kinds; no run fails for a log of Ray's
            _log.debug("Ray's agent will look for a dashboard: %s", error)

    RayParams.__init__, Node.start_api_server = without_monitors, without_server
    try:
        yield
    finally:
        RayParams.__init__, Node.start_api_server = parameters_made, server_started
