"""The service as a file for Ray Serve's own tools."""

from __future__ import annotations

import json
from typing import Any

import yaml

from eqcctpro.serving.settings import ServeSettings

__all__ = ["ray_serve_file"]


def ray_serve_file(settings: ServeSettings) -> str:
    """What ``serve deploy`` and a RayService's ``serveConfigV2`` take, as YAML.

    Parameters
    ----------
    settings : ServeSettings
        Only what differs from the defaults is written.
    """
    http = settings.http
    options: dict[str, Any] = {
        "host": http.host,
        "port": http.port,
        "request_timeout_s": settings.limits.request_timeout_s + settings.limits.body_timeout_s,
    }
    if http.tls is not None:
        options["ssl_certfile"] = str(http.tls.certificate)
        options["ssl_keyfile"] = str(http.tls.key)
    content: dict[str, Any] = {"proxy_location": "EveryNode", "http_options": options}
    if settings.grpc.port is not None:
        content["grpc_options"] = {
            "port": settings.grpc.port,
            "grpc_servicer_functions": [
                "eqcctpro.serving.grpc_service.add_PickerServicer_to_server"
            ],
        }
    content["applications"] = [
        {
            "name": "eqcctpro",
            "import_path": "eqcctpro.serving.application:application",
            "route_prefix": "/",
            "args": json.loads(settings.model_dump_json(exclude_defaults=True)),
        }
    ]
    return yaml.safe_dump(content, sort_keys=False)
