"""``eqcctpro demo``: pick a made-up network and show how well it went."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.pick import as_given

if TYPE_CHECKING:
    from eqcctpro.demo import DemoResult, DemoScore

__all__ = ["demo"]

_SOURCES = {
    "path": "given by path",
    "cache": "from the cache of weights",
    "package": "from an installed package",
    "download": "downloaded",
}


def demo(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", "--out", help="Folder for the network and its picks."),
    ] = Path("demo"),
    mode: Annotated[str, typer.Option(help="local, modelactor or ripper.")] = "local",
    stations: Annotated[int, typer.Option(min=1, max=999, help="Stations of the network.")] = 12,
    workers: Annotated[int | None, typer.Option(help="Ray workers.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Parent/child; by default the first that is here.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> None:
    """Make a small network with known arrivals, pick it, and compare. Needs no network access."""
    with reporting():
        from eqcctpro.demo import make_demo

        typer.echo(f"{stations} made-up stations, two local earthquakes, two minutes at 100 Hz")
        result = make_demo(
            output, stations=stations, mode=mode, workers=workers, model=model, quiet=quiet
        )
        _report(result, output)
        raise typer.Exit(result.run.exit_code)


def _report(result: DemoResult, folder: Path) -> None:
    for reason in result.passed_over:
        typer.echo(f"passed over {reason}", err=True)
    weights, summary = result.weights, result.run.summary
    typer.echo(
        f"picked with {weights.name} (version {weights.version}, weights "
        f"{_SOURCES[weights.source]}: {weights.weight_path}) on {summary['runtime']}, "
        f"{summary['device']}, mode {summary['mode']}"
    )
    typer.echo("")
    rows = [_row(phase) for phase in result.scores]
    header = ("phase", "found", "other picks", "median residual")
    if sys.stdout.isatty():
        _print_table(header, rows)
    else:
        for cells in (header, *rows):
            typer.echo("  ".join(f"{cell:<15}" for cell in cells).rstrip())
    typer.echo("")
    for label, kind in (("picks", "picks_csv"), ("picture", "overview"), ("summary", "summary")):
        if kind in result.run.paths:
            typer.echo(f"{label + ':':<9}{as_given(result.run.paths[kind], folder)}")


def _row(phase: DemoScore) -> tuple[str, ...]:
    residual = "-" if phase.residual_s is None else f"{phase.residual_s * 1000:+.1f} ms"
    return (phase.phase, f"{phase.found} of {phase.true}", str(phase.extra), residual)


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
