"""``eqcctpro report``: a page on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqcctpro.cli.errors import reporting_on

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a run.")],
    stations: Annotated[
        list[Path] | None,
        typer.Option(help="Coordinates: StationXML, or text of an FDSN station service."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; OUT/report.html by default.")
    ] = None,
) -> None:
    """Write a web page on a run: what was picked, what failed and why, and how long it took.

    The page works without a network.  Waveforms and gaps are read from the archive again, as far
    as it is still there.
    """
    with reporting_on(run if output is None else output.parent, "report"):
        from eqcctpro.report.run_report import write_report

        typer.echo(str(write_report(run, stations=stations or None, output=output)))
