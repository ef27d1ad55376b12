"""Application for Ray Serve's tools: ``import_path: eqcctpro.serving.application:application``."""

from __future__ import annotations

from typing import Any

from eqcctpro.serving.deployment import build
from eqcctpro.serving.security import read_secret
from eqcctpro.serving.sources import gather_settings

__all__ = ["application"]


def application(args: dict[str, Any]) -> Any:
    """Build the service for ``serve run``, ``serve deploy`` or a RayService.

    Parameters
    ----------
    args : dict
        The settings, as ``eqcctpro serve schema`` describes them; the environment counts more.

    Raises
    ------
    SettingsError
    """
    settings = gather_settings({"address": "auto", **args})
    return build(settings, read_secret(settings.security))
