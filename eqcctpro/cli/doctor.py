"""``eqcctpro doctor``: what this machine has, which models load, what to fix."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from eqcctpro.doctor import Check

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    models: Annotated[
        bool, typer.Option("--models/--no-models", help="Load each model and pick with it.")
    ] = True,
) -> None:
    """Say what this machine has, which models load and pick, and what to fix.

    Ends with exit code 1 when something that every run needs does not work.
    """
    from eqcctpro.doctor import examine

    # Frameworks print while they load; the report alone belongs on standard output.
    with contextlib.redirect_stdout(sys.stderr):
        checks = list(examine(models=models))
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        report = {"ok": not failed, "checks": [asdict(check) for check in checks]}
        typer.echo(json.dumps(report, indent=1))
    elif sys.stdout.isatty():
        _print_table(checks)
    else:
        _print_lines(checks)
    if failed:
        raise typer.Exit(1)


def _print_lines(checks: Sequence[Check]) -> None:
    width = max(len(check.topic) for check in checks)
    for check in checks:
        typer.echo(f"{check.status:<4}  {check.topic:<{width}}  {check.found}")
        if check.hint:
            typer.echo(f"{'':<4}  {'':<{width}}  -> {check.hint}")
    typer.echo(_summary(checks))


def _print_table(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found", "to do"):
        # Paths are long words: they break, and nothing of them is left out.
        table.add_column(heading, overflow="fold")
    for check in checks:
        status = Text(check.status, style=_COLOURS[check.status])
        table.add_row(status, Text(check.topic), Text(check.found), Text(check.hint))
    console = Console()
    console.print(table)
    console.print(_summary(checks), markup=False)


def _summary(checks: Sequence[Check]) -> str:
    counts = {kind: sum(check.status == kind for check in checks) for kind in ("warn", "fail")}
    if not any(counts.values()):
        return "everything works"
    return f"{counts['fail']} failed, {counts['warn']} to look at"
