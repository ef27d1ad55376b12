"""``eqcctpro dataset``: data to pick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.errors import SettingsError

__all__ = ["dataset_app"]

Option = typer.Option

dataset_app = typer.Typer(name="dataset", help="Make data to pick.", no_args_is_help=True)


@dataset_app.command()
def synthesize(
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the data set goes.")],
    stations: Annotated[int, Option(help="Number of stations.")] = 12,
    duration: Annotated[float, Option(help="Length of the record, s.")] = 300.0,
    rate: Annotated[float, Option(help="Sampling rate, Hz.")] = 100.0,
    earthquakes: Annotated[
        int | None, Option(help="How many; by default one in each minute.")
    ] = None,
    seed: Annotated[int, Option(help="Another seed, another network.")] = 0,
    start: Annotated[str | None, Option(help="Time of the first sample.")] = None,
    centre: Annotated[str | None, Option(metavar="LAT,LON", help="Where the network is.")] = None,
    radius: Annotated[float, Option(help="Radius of the network, km.")] = 60.0,
    earth: Annotated[
        str, Option(help="homogeneous, or the layers of iasp91 or ak135.")
    ] = "homogeneous",
    timechunk: Annotated[
        float | None, Option(help="Minutes of a time chunk; by default one chunk.")
    ] = None,
    overlap: Annotated[float, Option(help="Minutes that neighbouring chunks share.")] = 0.0,
    gaps: Annotated[float, Option(help="Share of the stations with gaps.")] = 0.0,
    glitches: Annotated[float, Option(help="Share of the stations with spikes.")] = 0.0,
    dead: Annotated[float, Option(help="Share of the stations with a dead channel.")] = 0.0,
) -> None:
    """Make a network of stations that record earthquakes whose arrivals are known.

    Writes waveforms/ (the archive to pick), arrivals.csv, stations.csv, stations.xml, events.xml
    and manifest.json.
    """
    with reporting():
        from eqcctpro.synthetic.dataset import Synthesis
        from eqcctpro.synthetic.dataset import synthesize as make
        from eqcctpro.synthetic.station_record import Defects

        optional: dict[str, Any] = {"start": start, "centre": _place(centre)}
        settings = Synthesis(
            stations=stations,
            duration_s=duration,
            sampling_rate=rate,
            earthquakes=earthquakes,
            seed=seed,
            radius_km=radius,
            earth=earth,  # type: ignore[arg-type]
            timechunk_min=timechunk,
            overlap_min=overlap,
            defects=Defects(gaps, glitches, dead),
            **{name: value for name, value in optional.items() if value is not None},
        )
        manifest = make(output, settings)
        lost = sum(len(station["not_recorded"]) for station in manifest["stations"])
        typer.echo(
            f"{stations} stations, {manifest['earthquakes']} earthquakes, "
            f"{manifest['arrivals']} arrivals" + (f", {lost} more not recorded" if lost else "")
        )
        for name in ("waveforms", "arrivals.csv", "stations.xml", "events.xml", "manifest.json"):
            typer.echo(str(output / name))


@dataset_app.command()
def tile(
    records: Annotated[
        Path, typer.Argument(metavar="RECORDS", help="An archive of three-component records.")
    ],
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the data set goes.")],
    labels: Annotated[Path, Option(help="Their labels: CSV, QuakeML or SeisBench metadata.")],
    stations: Annotated[int, Option(min=1, max=65_536, help="Number of stations.")] = 100,
    seconds: Annotated[float, Option(min=1, help="Length of each record, s.")] = 60.0,
    skip: Annotated[float, Option(min=0, help="Left out at each record's beginning, s.")] = 15.0,
) -> None:
    """Make a network of any size from labelled records, used again and again.

    Writes waveforms/ (the archive to pick) and arrivals.csv.
    """
    with reporting():
        from eqcctpro.scoring.labels import read_labels
        from eqcctpro.synthetic.tiling import tile_labelled

        arrivals = tile_labelled(
            records,
            read_labels(labels),
            output,
            stations=stations,
            seconds=seconds,
            skip_s=skip,
        )
        typer.echo(f"{stations} stations, {arrivals} arrivals")
        typer.echo(str(output / "waveforms"))
        typer.echo(str(output / "arrivals.csv"))


def _place(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"centre: {text!r} is not a latitude and a longitude", hint="31.5,-103.0"
        ) from error
    return latitude, longitude
