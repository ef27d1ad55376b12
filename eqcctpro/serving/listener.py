"""A replica's own HTTP server: requests reach it without another process in between."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from typing import Any

import uvicorn

from eqcctpro.errors import SettingsError
from eqcctpro.serving.connections import bounded_protocol
from eqcctpro.serving.settings import ServeSettings

__all__ = ["Listener", "require_free_port"]

_BACKLOG = 2048
# libuv accepts one connection of a socket in a round of its loop: of many clients that come at
# once, the last would wait for as many rounds.
_ACCEPTS = 16
_START_SECONDS = 20.0


class Listener:
    """An HTTP server in a thread and an event loop of its own.

    Several replicas of a machine listen at the same port, and the system shares connections out
    among them.

    Parameters
    ----------
    app : ASGI application
    settings : ServeSettings

    Raises
    ------
    SettingsError
        It cannot listen there.
    """

    def __init__(self, app: Any, settings: ServeSettings) -> None:
        http = settings.http
        self._socket = _listening_socket(http.host, http.port, shared=True)
        options: dict[str, Any] = {}
        if http.tls is not None:
            options["ssl_certfile"] = str(http.tls.certificate)
            options["ssl_keyfile"] = str(http.tls.key)
            if http.tls.client_authority is not None:
                options["ssl_ca_certs"] = str(http.tls.client_authority)
                options["ssl_cert_reqs"] = ssl.CERT_REQUIRED
        config = uvicorn.Config(
            app,
            http=bounded_protocol(settings.limits),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level=logging.CRITICAL,
            server_header=False,
            root_path=http.root_path,
            # By default it would believe whatever comes from loopback.
            proxy_headers=bool(http.trusted_proxies),
            forwarded_allow_ips=list(http.trusted_proxies),
            timeout_keep_alive=http.keep_alive_s,
            timeout_graceful_shutdown=int(settings.shutdown_s),
            backlog=_BACKLOG,
            **options,
        )
        self._server = uvicorn.Server(config)
        sockets = [self._socket, *(self._socket.dup() for _ in range(_ACCEPTS - 1))]
        self._thread = threading.Thread(
            target=self._server.run, args=(sockets,), name="eqcctpro-http", daemon=True
        )

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        until = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise SettingsError("http: the server does not start", hint="check http.tls")
            time.sleep(0.01)

    def close(self, timeout_s: float) -> None:
        """Accept nothing more, and wait until what was accepted is answered."""
        self._server.should_exit = True
        self._thread.join(timeout_s)


def _listening_socket(host: str, port: int, *, shared: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise SettingsError(
            f"http.host: {host} is no address of this machine: {error.strerror or error}",
            hint="127.0.0.1 for this machine alone, 0.0.0.0 for all its networks",
        ) from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared and hasattr(socket, "SO_REUSEPORT"):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind(address)
        if not shared:
            listening.listen(1)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"http.port: cannot listen at {host}:{port}: {error.strerror or error}",
            hint="choose another port with --port, or end what listens there",
        ) from error
    return listening


def require_free_port(host: str, port: int) -> None:
    """Refuse a port that something else listens at.

    Raises
    ------
    SettingsError
    """
    _listening_socket(host, port, shared=False).close()
