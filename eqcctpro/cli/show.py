"""``eqcctpro show``: waveforms, curves and picks of one station."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqcctpro.cli.errors import reporting_on
from eqcctpro.errors import SettingsError

__all__ = ["show"]


def show(
    run: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a run.")],
    station: Annotated[str, typer.Argument(metavar="STATION", help="NET.STA, or STA.")],
    time: Annotated[
        str | None, typer.Option(help="Middle of what is shown, UTC; the first pick by default.")
    ] = None,
    length: Annotated[float | None, typer.Option(help="Seconds shown (60).")] = None,
    instrument: Annotated[
        str | None, typer.Option(help="Such as HH, where a station has several.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="PNG, PDF or SVG; OUT/show_STATION.png.")
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="Open a window instead.")] = False,
) -> None:
    """Draw three components of a station, the model's probability curves, and the picks.

    The waveforms are read again, and the curves computed again with the run's model.
    """
    with reporting_on(run if output is None else output.parent, "show"):
        from eqcctpro.analysis.station_plot import plot_station
        from eqcctpro.codes import safe_name
        from eqcctpro.report.style import save_png

        figure = None
        if window:
            import matplotlib.pyplot as plt

            if plt.get_backend().lower() == "agg":
                raise SettingsError(
                    "--window: there is no display here", hint="leave it out to write a picture"
                )
            figure = plt.figure(figsize=(11.0, 7.0), layout="constrained")
        path = output or run / f"show_{safe_name(station)}.png"
        if path.suffix.lower() not in {".png", ".pdf", ".svg"}:
            raise SettingsError(f"--output: {path} is neither .png, .pdf nor .svg")
        figure = plot_station(
            run, station, time=time, length_s=length, instrument=instrument, figure=figure
        )
        if window:
            plt.show()
        else:
            typer.echo(str(save_png(figure, path)))
