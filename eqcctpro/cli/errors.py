"""Errors and warnings as the command line reports them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from eqcctpro.errors import EQCCTProError, ResourceError
from eqcctpro.notices import OldNameWarning, SettingsWarning, WorkerWarning

__all__ = ["INTERRUPTED", "Interrupted", "folder_of", "reporting", "reporting_on"]

#: Exit code after Ctrl-C, as shells expect it.
INTERRUPTED = 130

_SHOWN = (OldNameWarning, SettingsWarning, WorkerWarning)


class Interrupted(typer.Exit):
    """The end of a command that has said that it was interrupted."""


@contextmanager
def reporting(*, warn: bool = True) -> Iterator[None]:
    """Print an expected error and its hint to standard error, and end with its exit code.

    Parameters
    ----------
    warn : bool
        Print warnings about settings, too.
    """
    try:
        with _shown_warnings(warn):
            yield
    except EQCCTProError as error:
        typer.echo(f"error: {error.message}", err=True)
        if error.hint is not None:
            typer.echo(f"hint: {error.hint}", err=True)
        raise typer.Exit(error.exit_code) from error
    except MemoryError as error:
        typer.echo("error: the machine, or this process's limit, has too little memory", err=True)
        typer.echo("hint: pick fewer stations or shorter time chunks at a time", err=True)
        raise typer.Exit(ResourceError.exit_code) from error
    except KeyboardInterrupt as error:
        typer.echo(str(error) or "interrupted", err=True)
        if hint := getattr(error, "hint", None):
            typer.echo(f"hint: {hint}", err=True)
        raise Interrupted(INTERRUPTED) from error


def folder_of(path: Path) -> Path:
    """The folder that a command's argument names, or that the file is in."""
    return path if path.is_dir() else path.parent


@contextmanager
def reporting_on(folder: Path | None, command: str) -> Iterator[None]:
    """`reporting` for a command that writes to a folder, which no run may change meanwhile."""
    with reporting():
        if folder is None:
            yield
            return
        from eqcctpro.journal.lock import results_held

        with results_held(folder, f"eqcctpro {command}"):
            yield


@contextmanager
def _shown_warnings(warn: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Any, category: type[Warning], *rest: Any, **named: Any) -> None:
            if issubclass(category, _SHOWN):
                typer.echo(f"warning: {message}", err=True)
            else:
                usual(message, category, *rest, **named)

        warnings.showwarning = show
        for kind in _SHOWN:
            warnings.simplefilter("always" if warn else "ignore", kind)
        yield
