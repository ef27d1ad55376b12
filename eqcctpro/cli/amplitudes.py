"""``eqcctpro amplitudes``: how strong the motion of each pick is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqcctpro.cli.errors import folder_of, reporting_on

__all__ = ["amplitudes"]


def amplitudes(
    picks: Annotated[
        Path, typer.Argument(metavar="PICKS", help="The folder of a run, or a file of picks.")
    ],
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="The waveforms that were picked.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="CSV; by default amplitudes.csv beside the picks."),
    ] = None,
    response: Annotated[
        Path | None, typer.Option(help="StationXML, for velocity and Wood-Anderson amplitude.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Of the archive, as in pick.")] = "auto",
) -> None:
    """Measure the peak amplitude of each pick's window.

    Writes the picks with amplitude_counts and, with a response, velocity_m_s and wood_anderson_mm.
    """
    path = output or folder_of(picks) / "amplitudes.csv"
    with reporting_on(path.parent, "amplitudes"):
        from eqcctpro.amplitudes.measure import measure_amplitudes
        from eqcctpro.amplitudes.writing import write_amplitudes
        from eqcctpro.picks.reading import read_picks

        measured = measure_amplitudes(read_picks(picks), tuple(inputs), response, layout=layout)
        write_amplitudes(measured, path)
        known = measured.num_rows - measured["amplitude_counts"].null_count
        typer.echo(f"{known} of {measured.num_rows} picks have an amplitude")
        typer.echo(str(path))
