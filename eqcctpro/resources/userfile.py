"""The user's configuration: small JSON files in one folder.

It is ``$EQCCTPRO_CONFIG``, else ``$XDG_CONFIG_HOME/eqcctpro``, else ``~/.config/eqcctpro``.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from eqcctpro.errors import OutputError, SettingsError

__all__ = ["config_folder", "read_user_file", "write_user_file"]


def config_folder() -> Path:
    """Folder of the user's configuration; it need not exist."""
    own = os.environ.get("EQCCTPRO_CONFIG")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "eqcctpro"


def read_user_file(name: str) -> dict[str, Any]:
    """Content of one of the user's files; empty if there is none.

    Raises
    ------
    SettingsError
        The file is there and is not a JSON object.
    """
    path = config_folder() / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path} cannot be read: {error}", hint="correct it, or remove it"
        ) from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path} is not a JSON object", hint="correct it, or remove it")
    return content


def write_user_file(name: str, content: dict[str, Any]) -> Path:
    """Replace one of the user's files; returns where it is.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    path = config_folder() / name
    temporary = path.with_name(f".{name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            hint="set EQCCTPRO_CONFIG to a folder that can be written",
        ) from error
    return path
