"""Warnings about settings that have no effect, all of one call as a single Python warning.

Where a setting is found to have no effect, `without_effect` notes it.  The call that a user made
gathers the notes with `one_warning`, and the warning points to the user's own line.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

__all__ = [
    "OldNameWarning",
    "SettingsWarning",
    "WorkerWarning",
    "gathered",
    "one_warning",
    "warn_user",
    "without_effect",
]

#: Modules between a user's line and a warning.
_NOT_THE_USERS = ("eqcctpro", "pydantic", "pydantic_settings", "contextlib")

_notes: ContextVar[list[str] | None] = ContextVar("eqcctpro_notes", default=None)


class SettingsWarning(UserWarning):
    """Settings that were accepted and have no effect in this run, with the reasons."""


class WorkerWarning(UserWarning):
    """A run waits for Ray, or goes on with fewer workers than were asked for."""


class OldNameWarning(DeprecationWarning):
    """A setting was given by a name that it had, which is still understood."""


def without_effect(setting: str, reason: str) -> None:
    """Note that a setting has no effect.

    Parameters
    ----------
    setting : str
        As the user wrote it: ``"vram_mb=2500"``.
    reason : str
        What makes it so: ``"no GPU is used"``.
    """
    sentence = f"{setting} has no effect: {reason}"
    notes = _notes.get()
    if notes is None:
        warn_user(sentence)
    elif sentence not in notes:
        notes.append(sentence)


@contextmanager
def gathered() -> Iterator[list[str]]:
    """Collect the notes of the calls inside the block, instead of emitting them."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


@contextmanager
def one_warning() -> Iterator[None]:
    """Give the notes of the calls inside as one warning at the end, unless there is an error.

    Inside another `one_warning` that one gives them.
    """
    if _notes.get() is not None:
        yield
        return
    with gathered() as notes:
        yield
    if notes:
        warn_user("; ".join(notes))


def warn_user(message: str, category: type[Warning] = SettingsWarning) -> None:
    """Warn at the line of the user's program that called this package."""
    frame = _users_frame(sys._getframe(1))
    module = frame.f_globals.get("__name__", "<unknown>")
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=module,
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _users_frame(frame: FrameType) -> FrameType:
    """The innermost frame outside this package, or the outermost one."""
    while frame.f_back is not None and _is_ours(frame):
        frame = frame.f_back
    return frame


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _NOT_THE_USERS
