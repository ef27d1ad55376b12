"""Where settings come from: a file, the environment, the command line, in rising order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from eqcctpro.config import load_config_file
from eqcctpro.errors import SettingsError
from eqcctpro.serving.settings import ServeSettings

__all__ = ["PREFIX", "gather_settings", "place"]

#: ``EQCCTPRO_SERVE__HTTP__PORT=8001`` is ``http.port``.
PREFIX = "EQCCTPRO_SERVE__"


def gather_settings(
    config: Path | Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> ServeSettings:
    """Read and validate the settings of the service.

    Parameters
    ----------
    config : Path or mapping, optional
        TOML, YAML or JSON, or what such a file would hold.
    flags : mapping, optional
        Values by their dotted names, such as ``{"http.port": 8001}``; None is not given.
    assignments : sequence of str
        ``NAME=VALUE`` with dotted names; values are read as YAML.
    environment : mapping, optional
        In place of the process's own.

    Raises
    ------
    SettingsError
        The file cannot be read, or a setting is unknown or wrong.
    """
    values: dict[str, Any] = {}
    if config is not None:
        values = load_config_file(config) if isinstance(config, Path) else deepcopy(dict(config))
    given = os.environ if environment is None else environment
    for name in sorted(given):
        if name.startswith(PREFIX):
            path = name.removeprefix(PREFIX).lower().split("__")
            place(values, path, _typed(given[name], name), name)
    for name, value in (flags or {}).items():
        if value is not None:
            place(values, name.split("."), value, name)
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"--set {text}: no value", hint="write --set http.port=8001")
        place(values, name.strip().split("."), _typed(value, name), f"--set {name}")
    return ServeSettings.checked(values)


def place(values: dict[str, Any], path: Sequence[str], value: Any, name: str) -> None:
    """Set a value inside nested tables and lists; parts that are numbers count from 0."""
    inner: Any = values
    for position, part in enumerate(path):
        last = position == len(path) - 1
        if isinstance(inner, list):
            if not part.isdigit() or int(part) >= len(inner):
                raise SettingsError(f"{name}: there is no item {part} among {len(inner)}")
            key: Any = int(part)
            if not last and isinstance(inner[key], str):
                inner[key] = {"name": inner[key]}
        elif isinstance(inner, dict):
            key = part.replace("-", "_")
        else:
            raise SettingsError(f"{name}: {'.'.join(path[:position])} has no parts")
        if last:
            inner[key] = value
        else:
            if isinstance(inner, dict):
                inner.setdefault(key, {})
            inner = inner[key]


def _typed(text: str, name: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{name}: {text!r} cannot be read: {error}") from error
