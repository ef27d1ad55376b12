"""How the command line reports errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from eqcctpro.errors import EQCCTProError

__all__ = ["INTERRUPTED", "reporting"]

#: Exit code after Ctrl-C, as shells expect it.
INTERRUPTED = 130


@contextmanager
def reporting() -> Iterator[None]:
    """Print an expected error and its hint to standard error, and end with its exit code."""
    try:
        yield
    except EQCCTProError as error:
        typer.echo(f"error: {error.message}", err=True)
        if error.hint is not None:
            typer.echo(f"hint: {error.hint}", err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        typer.echo(str(error) or "interrupted", err=True)
        if hint := getattr(error, "hint", None):
            typer.echo(f"hint: {hint}", err=True)
        raise typer.Exit(INTERRUPTED) from error
