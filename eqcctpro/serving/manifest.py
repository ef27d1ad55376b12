"""Configuration file of the service for Ray Serve's own tools."""

from __future__ import annotations

import json
from typing import Any

import yaml

from eqcctpro.serving.proxy import proxy_http_options, proxy_location
from eqcctpro.serving.settings import ServeSettings

__all__ = ["ray_serve_file"]


def ray_serve_file(settings: ServeSettings) -> str:
    """Ray Serve's configuration for ``serve deploy`` or a RayService's ``serveConfigV2``, as YAML.

    Parameters
    ----------
    settings : ServeSettings
        Only what differs from the defaults is written.
    """
    content: dict[str, Any] = {
        "proxy_location": proxy_location(settings),
        "http_options": proxy_http_options(settings) or {},
        "applications": [
            {
                "name": "eqcctpro",
                "import_path": "eqcctpro.serving.application:application",
                "route_prefix": "/",
                "args": json.loads(settings.model_dump_json(exclude_defaults=True)),
            }
        ],
    }
    return yaml.safe_dump(content, sort_keys=False)
