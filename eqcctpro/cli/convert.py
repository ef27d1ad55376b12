"""``eqcctpro convert``: picks from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqcctpro.cli.errors import folder_of, reporting_on
from eqcctpro.errors import SettingsError

__all__ = ["convert"]


def convert(
    picks: Annotated[
        Path, typer.Argument(metavar="PICKS", help="A file of picks, or the folder of a run.")
    ],
    to: Annotated[
        str,
        typer.Option(
            help="csv, parquet, quakeml, scml, pyocto, gamma, phasenet, nonlinloc, seisbench or "
            "eqcctpro."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file; for eqcctpro a folder.")
    ],
    stations: Annotated[
        list[Path] | None,
        typer.Option(
            help="StationXML, FDSN text or CSV: write the stations too, for gamma, pyocto and "
            "nonlinloc."
        ),
    ] = None,
    velocity_model: Annotated[
        str,
        typer.Option(help="Of NonLinLoc's control file: iasp91, ak135 or halfspace."),
    ] = "iasp91",
    agency: Annotated[str, typer.Option(help="Agency, for QuakeML and SCML.")] = "",
    uncertainty: Annotated[
        str | None,
        typer.Option(
            metavar="P,S", help="Standard errors in s, for NonLinLoc, QuakeML and SCML: 0.05,0.1."
        ),
    ] = None,
) -> None:
    """Write picks in the format of another program.

    PICKS is the output folder of a run, or a file: CSV, Parquet, QuakeML or SCML, also with the
    columns of SeisBench, PyOcto, GaMMA, PhaseNet, QuakeFlow or EQCCTPro. The velocities of
    amplitudes.csv go with the picks to GaMMA and PhaseNet. With --stations a table of stations with
    the same names is written beside the picks, NAME_stations.csv, and NAME.in for NonLinLoc.
    """
    with reporting_on(folder_of(output), "convert"):
        from eqcctpro.picks.formats import ExportOptions, write_picks
        from eqcctpro.picks.reading import read_pick_batches

        options = ExportOptions(agency=agency)
        if uncertainty is not None:
            options = ExportOptions(
                agency=agency,
                uncertainty_s=dict(zip("PS", _seconds(uncertainty), strict=True)),
                state_uncertainty=True,
            )
        batches = read_pick_batches(picks, amplitudes=to in {"gamma", "phasenet"})
        if not stations:
            write_picks(batches, output, to, options)
            typer.echo(str(output))
            return
        from eqcctpro.picks.formats.station_tables import (
            PickedStations,
            check_station_file,
            write_station_file,
        )
        from eqcctpro.station_coordinates import read_stations

        check_station_file(to, velocity_model)
        places, picked = read_stations(*stations), PickedStations()
        write_picks(picked.noting(batches), output, to, options)
        typer.echo(str(output))
        typer.echo(str(write_station_file(picked, places, output, to, velocity_model)))


def _seconds(text: str) -> tuple[float, float]:
    try:
        p, s = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(f"uncertainty: {text!r} is not two numbers", hint="0.05,0.1") from error
    if not (p > 0 and s > 0):
        raise SettingsError(f"uncertainty: {text!r} is not positive")
    return p, s
