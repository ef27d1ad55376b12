"""Folders for what can be made again: exported models, compiled networks, calibrations.

They lie under ``$EQCCTPRO_CACHE``, else ``$XDG_CACHE_HOME/eqcctpro``, else
``~/.cache/eqcctpro``.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from eqcctpro.places import make_writable

__all__ = ["cache_folder", "prepare_seisbench_import", "write_atomically"]

_log = logging.getLogger("eqcctpro")

#: Folders that the log has already said cannot be written.
_reported: set[Path] = set()


def cache_folder(name: str) -> Path:
    """A writable folder of the user's cache, made if need be.

    Parameters
    ----------
    name : str
        Name of the folder, for example ``"exports"``.

    Returns
    -------
    pathlib.Path
        Under the system's temporary folder if the cache cannot be written; the log says
        so once.
    """
    folder = _preferred_root() / name
    try:
        make_writable(folder)
        return folder
    except OSError as error:
        fallback = _temporary_root() / name
        fallback.mkdir(parents=True, exist_ok=True)
        if folder not in _reported:
            _reported.add(folder)
            reason = error.strerror or error
            _log.warning("cache %s cannot be written (%s); using %s", folder, reason, fallback)
        return fallback


def prepare_seisbench_import() -> None:
    """Name another folder to SeisBench where it would fail to create ``~/.seisbench``.

    It creates it on import, also if nothing is to be kept there.
    """
    variable = "SEISBENCH_CACHE_ROOT"
    if os.environ.get(variable):
        return
    try:
        home = Path.home()
    except RuntimeError:  # no home is known
        home = Path("/nowhere")
    if (home / ".seisbench").is_dir() or (home.is_dir() and os.access(home, os.W_OK | os.X_OK)):
        return
    os.environ[variable] = str(cache_folder("seisbench"))


def _preferred_root() -> Path:
    own = os.environ.get("EQCCTPRO_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "eqcctpro"


def _temporary_root() -> Path:
    """A folder in the temporary directory that nobody but this user can have made."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"eqcctpro-cache-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    foreign = hasattr(os, "getuid") and status.st_uid != user
    if folder.is_symlink() or foreign or status.st_mode & 0o022:
        return Path(tempfile.mkdtemp(prefix="eqcctpro-cache-"))
    return folder


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that readers see the old or the new one, never half."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
