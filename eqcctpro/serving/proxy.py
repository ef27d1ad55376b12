"""What Ray Serve's proxy is told."""

from __future__ import annotations

import socket
from typing import Any

from eqcctpro.serving.settings import ServeSettings

__all__ = ["proxy_grpc_options", "proxy_http_options", "proxy_location"]


def proxy_location(settings: ServeSettings) -> str:
    """Where the proxy runs."""
    if settings.http.listener == "proxy":
        return "EveryNode"
    return "HeadOnly" if settings.grpc.port is not None else "Disabled"


def proxy_http_options(settings: ServeSettings) -> dict[str, Any]:
    """How it takes HTTP; it needs a port even where it is there for gRPC alone."""
    http = settings.http
    if http.listener == "replica":
        return {"host": "127.0.0.1", "port": settings.grpc.proxy_port or _free_port()}
    options: dict[str, Any] = {
        "host": http.host,
        "port": http.port,
        "keep_alive_timeout_s": http.keep_alive_s,
        # Ours comes first, with a better answer.
        "request_timeout_s": settings.limits.request_timeout_s + settings.limits.body_timeout_s,
    }
    if http.tls is not None:
        options["ssl_certfile"] = str(http.tls.certificate)
        options["ssl_keyfile"] = str(http.tls.key)
    return options


def proxy_grpc_options(settings: ServeSettings) -> dict[str, Any] | None:
    """How it takes gRPC, if it does."""
    if settings.grpc.port is None:
        return None
    return {
        "port": settings.grpc.port,
        "grpc_servicer_functions": [
            "eqcctpro.serving.grpc_service.add_PickerServicer_to_server",
        ],
        "request_timeout_s": settings.limits.request_timeout_s,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
