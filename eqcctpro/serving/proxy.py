"""Settings of Ray Serve's HTTP proxy."""

from __future__ import annotations

import os
from typing import Any

from eqcctpro.serving.settings import LimitSettings, ServeSettings

__all__ = ["bound_connections", "proxy_environment", "proxy_http_options", "proxy_location"]

# Where the proxy's process finds the limits.
_LIMITS = "EQCCTPRO_PROXY_LIMITS"


def proxy_location(settings: ServeSettings) -> str:
    """Nodes that run the proxy, as Ray Serve calls it."""
    return "EveryNode" if settings.behind_proxy else "Disabled"


def proxy_http_options(settings: ServeSettings) -> dict[str, Any] | None:
    """HTTP options of the proxy; None if there is no proxy."""
    http = settings.http
    if not settings.behind_proxy:
        return None
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


def proxy_environment(settings: ServeSettings) -> dict[str, str]:
    """Variables that have the proxy call `bound_connections` before it listens."""
    return {
        _LIMITS: settings.limits.model_dump_json(),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.{bound_connections.__name__}",
    }


def bound_connections() -> list[Any]:
    """Give the HTTP server of this process, Ray Serve's proxy, our bounds of connections.

    Returns
    -------
    list
        Middlewares, of which there are none.
    """
    import uvicorn.config

    from eqcctpro.serving.connections import bounded_protocol

    limits = LimitSettings.model_validate_json(os.environ[_LIMITS])
    protocols: dict[str, Any] = uvicorn.config.HTTP_PROTOCOLS
    protocols["auto"] = bounded_protocol(limits)
    return []
