"""What Ray Serve's proxy is told."""

from __future__ import annotations

from typing import Any

from eqcctpro.serving.settings import ServeSettings

__all__ = ["proxy_http_options", "proxy_location"]


def proxy_location(settings: ServeSettings) -> str:
    """Where the proxy runs."""
    return "EveryNode" if settings.http.listener == "proxy" else "Disabled"


def proxy_http_options(settings: ServeSettings) -> dict[str, Any] | None:
    """How it takes HTTP, if it does."""
    http = settings.http
    if http.listener == "replica":
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
