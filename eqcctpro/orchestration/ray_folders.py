"""Folders of a Ray on this machine: sockets, logs and token.

What a Ray of our own leaves there, and what is left of its processes, goes when it has ended.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from eqcctpro.errors import SettingsError
from eqcctpro.places import make_writable
from eqcctpro.signals_after import signals_after

__all__ = [
    "ray_folder",
    "sessions_removed",
    "usual_ray_folder",
    "writable_token",
]

# Of the path of a socket, in bytes; below its folder Ray names it like
# /session_2026-11-27_12-00-32_538017_1029320/sockets/plasma_store.
LONGEST_SOCKET = 107 if sys.platform.startswith("linux") else 103
LONGEST_FOLDER = LONGEST_SOCKET - 66

# For processes that were killed to be gone.
PARTING_SECONDS = 5.0
# Between two looks at what is left of a session.
_AGAIN_SECONDS = 0.1

_TOKEN = "RAY_AUTH_TOKEN"
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"


@contextmanager
def ray_folder(folder: Path) -> Iterator[str]:
    """Short ASCII path for a folder that Ray can use; a link if its own path is not.

    Parameters
    ----------
    folder : Path
        Is created if it is not there.

    Raises
    ------
    SettingsError
        The folder cannot be created or written.
    """
    path = folder.expanduser().absolute()
    try:
        make_writable(path)
    except OSError as error:
        raise SettingsError(
            f"tmp_dir: Ray cannot write to {folder}: {error.strerror or error}",
            hint="choose another folder, or leave tmp_dir (ray_temp_dir) out",
        ) from error
    if _suits(path):
        yield str(path)
        return
    link = _link_to(path)
    try:
        yield str(link)
    finally:
        with suppress(OSError):
            link.unlink()


@contextmanager
def usual_ray_folder() -> Iterator[str]:
    """Folder ``ray`` in the temporary folder, or one of our own if that is unusable.

    Ray itself would take whatever TMPDIR says, full or too long as it may be.
    """
    place = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(ray_folder(place / "ray"))
        except SettingsError:  # it may be another user's
            own = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="eqp-ray-", ignore_cleanup_errors=True)
            )
            folder = stack.enter_context(ray_folder(Path(own)))
        yield folder


def _suits(path: Path) -> bool:
    return str(path).isascii() and len(str(path)) <= LONGEST_FOLDER


def _link_to(path: Path) -> Path:
    """Short link to a folder, which Ray takes as its folder."""
    for place in (Path(tempfile.gettempdir()), Path("/tmp")):
        link = place / f"eqp-ray-{secrets.token_hex(4)}"
        if not _suits(link):
            continue
        with suppress(OSError):
            link.symlink_to(path, target_is_directory=True)
            return link
    raise SettingsError(
        f"tmp_dir: the name {path} is too long for Ray's sockets, or not ASCII",
        hint=f"choose a folder of at most {LONGEST_FOLDER} ASCII characters",
    )


@contextmanager
def sessions_removed(folder: Path) -> Iterator[None]:
    """Remove the files of a Ray that is started inside the block, even if its start fails.

    Parameters
    ----------
    folder : Path
        Where it keeps its sessions, which it names after this process.
    """
    before = set(folder.glob(f"session_*_{os.getpid()}"))
    try:
        yield
    finally:
        with signals_after():  # it takes a moment, and nobody else does it
            for session in set(folder.glob(f"session_*_{os.getpid()}")) - before:
                _end_session(session)


def _end_session(folder: Path) -> None:
    """Kill the remaining processes of an ended Ray, and remove its folder.

    Its agents would look for the rest of Ray for a minute.
    """
    ends = time.monotonic() + PARTING_SECONDS
    _end_processes(folder.name)
    shutil.rmtree(folder, ignore_errors=True)
    # A process that was only being started may write after the others have ended.
    while folder.exists() and time.monotonic() < ends:
        time.sleep(_AGAIN_SECONDS)
        _end_processes(folder.name)
        shutil.rmtree(folder, ignore_errors=True)
    latest = folder.with_name("session_latest")
    with suppress(OSError):
        if latest.is_symlink() and latest.readlink().name == folder.name:
            latest.unlink()


def _end_processes(session: str) -> None:
    """Kill the processes of a Ray session, and wait for their end."""
    import psutil

    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _is_of_session(process, session):
                process.kill()
                left.append(process)
    psutil.wait_procs(left, timeout=PARTING_SECONDS)


def _is_of_session(process: Any, name: str) -> bool:
    """True if a process belongs to a Ray session, by its arguments or title and open files."""
    words = process.cmdline()
    if any(word.startswith("--") and name in word for word in words):
        return True
    titled = bool(words) and words[0].startswith("ray::")
    return titled and any(name in file.path for file in process.open_files())


@contextmanager
def writable_token() -> Iterator[None]:
    """Give Ray a token of this process where it cannot write one to ``~/.ray``.

    Ray has each of its processes show a token, which it keeps in the home folder.
    """
    if os.environ.get(_TOKEN) or os.environ.get(_TOKEN_PATH) or _home_holds_token():
        yield
        return
    _set_token(secrets.token_hex(32))
    try:
        yield
    finally:
        _set_token(None)


def _home_holds_token() -> bool:
    """True if Ray can read its token in the home folder, or write one there."""
    try:
        path = Path.home() / ".ray" / "auth_token"
        if path.exists():
            return os.access(path, os.R_OK) and path.stat().st_size > 0
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.access(path.parent, os.W_OK | os.X_OK)
    except (OSError, RuntimeError):  # there may be no home at all
        return False


def _set_token(token: str | None) -> None:
    if token is None:
        os.environ.pop(_TOKEN, None)
    else:
        os.environ[_TOKEN] = token
    from ray import _raylet

    loader = getattr(_raylet, "AuthenticationTokenLoader", None)  # older ones have no tokens
    if loader is not None:
        loader.instance().reset_cache()  # it may have looked for one already
