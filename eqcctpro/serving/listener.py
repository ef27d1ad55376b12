"""HTTP server of a replica, which requests reach without a proxy in between."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from eqcctpro.errors import SettingsError
from eqcctpro.serving.connections import bounded_protocol
from eqcctpro.serving.settings import ServeSettings

if TYPE_CHECKING:
    from eqcctpro.serving.grpc_service import GrpcServer

__all__ = ["Listener", "claim_port"]

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
    grpc : GrpcServer, optional
        What takes gRPC, in the same event loop.

    Raises
    ------
    SettingsError
        It cannot listen there.
    """

    def __init__(self, app: Any, settings: ServeSettings, grpc: GrpcServer | None = None) -> None:
        http = settings.http
        self._grpc, self._ending_s = grpc, settings.shutdown_s
        self._failure: BaseException | None = None
        self._socket = _listening_socket(http.host, http.port, "http.port", shared=True)
        self._handshake_s = None if http.tls is None else settings.limits.headers_timeout_s
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
            timeout_graceful_shutdown=math.ceil(settings.shutdown_s),
            backlog=_BACKLOG,
            **options,
        )
        self._server = uvicorn.Server(config)
        sockets = [self._socket, *(self._socket.dup() for _ in range(_ACCEPTS - 1))]
        self._thread = threading.Thread(
            target=self._run, args=(config, sockets), name="eqcctpro-http", daemon=True
        )

    def _run(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        try:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(self._serve(sockets))
        except BaseException as error:  # SystemExit is what uvicorn raises
            self._failure = error

    async def _serve(self, sockets: list[socket.socket]) -> None:
        if self._handshake_s is not None:
            # uvicorn leaves it at a minute, in which its protocol knows nothing of a connection.
            loop: Any = asyncio.get_running_loop()
            loop.create_server = partial(
                loop.create_server, ssl_handshake_timeout=self._handshake_s
            )
        if self._grpc is None:
            await self._server.serve(sockets)
            return
        await self._grpc.start()
        try:
            await self._server.serve(sockets)
        finally:
            await self._grpc.stop(self._ending_s)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        until = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                if isinstance(self._failure, SettingsError):
                    raise self._failure
                raise SettingsError("http: the server does not start", hint="check http.tls")
            time.sleep(0.01)

    def close(self, timeout_s: float) -> None:
        """Accept nothing more, and wait until what was accepted is answered."""
        self._server.should_exit = True
        self._thread.join(timeout_s)


def _listening_socket(host: str, port: int, name: str, *, shared: bool) -> socket.socket:
    """A socket that is bound; one that is not shared listens, so that the port is its own."""
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
            f"{name}: cannot listen at {host}:{port}: {error.strerror or error}",
            hint="choose another port, such as with --port, or end what listens there",
        ) from error
    return listening


@contextmanager
def claim_port(host: str, port: int, name: str) -> Iterator[None]:
    """Reserve a port for this service's replicas inside the block.

    Replicas share it (``SO_REUSEPORT``), and the system would let those of another service of
    the same user share it, too.

    Parameters
    ----------
    host : str
    port : int
    name : str
        The setting, for errors.

    Raises
    ------
    SettingsError
        Something else listens there, or another service has claimed it.
    """
    claim = _listening_socket(host, port, name, shared=False)
    try:
        if sys.platform == "linux":
            # Linux heeds what sockets permit at the moment when another one is bound: from now
            # on those that share the port may, and no other.  Elsewhere the port is only tried.
            claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            claim.shutdown(socket.SHUT_RDWR)  # takes no connections, and stays bound
        else:
            claim.close()
        yield
    finally:
        claim.close()
