"""``eqcctpro dataset``: data to pick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.help import HelpfulApp
from eqcctpro.cli.lists import joined
from eqcctpro.errors import SettingsError

__all__ = ["dataset_app"]

Option = typer.Option
_WHAT, _FROM, _TO = "What", "From where", "How it is written"

# Gaps that are listed on the terminal.
MOST_GAPS = 20

dataset_app = HelpfulApp(name="dataset", help="Make data to pick.", no_args_is_help=True)


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
        tables = ("arrivals.csv", "stations.csv", "stations.xml", "events.xml", "manifest.json")
        for name in ("waveforms", *tables):
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


@dataset_app.command()
def download(
    output: Annotated[Path, Option("-o", "--output", help="Folder that the data are written to.")],
    start: Annotated[str, Option(help="UTC, such as 2024-12-15T12:00:00.", rich_help_panel=_WHAT)],
    end: Annotated[str, Option(help="UTC.", rich_help_panel=_WHAT)],
    networks: Annotated[
        list[str] | None, Option(help="Such as TX,4O.", rich_help_panel=_WHAT)
    ] = None,
    stations: Annotated[
        list[str] | None, Option(help="Such as PB*,ALPN.", rich_help_panel=_WHAT)
    ] = None,
    locations: Annotated[
        list[str] | None, Option(help="Such as 00,--; -- is none.", rich_help_panel=_WHAT)
    ] = None,
    channels: Annotated[
        list[str] | None, Option(help="Such as HH?,EH?.", rich_help_panel=_WHAT)
    ] = None,
    streams: Annotated[
        list[str] | None,
        Option(help="Instead of these: TX.PB35.00.HH?,...", rich_help_panel=_WHAT),
    ] = None,
    host: Annotated[
        str | None, Option(help="TEXNET, EARTHSCOPE, ..., or a web address.", rich_help_panel=_FROM)
    ] = None,
    layout: Annotated[str | None, Option(help="chunks or sds.", rich_help_panel=_TO)] = None,
    chunk: Annotated[
        float | None, Option(help="Minutes of a time chunk (60).", rich_help_panel=_TO)
    ] = None,
    overlap: Annotated[
        float | None, Option(help="Minutes that each chunk begins early.", rich_help_panel=_TO)
    ] = None,
    denoise: Annotated[
        bool, Option("--denoise", help="Write what DeepDenoiser makes of it.", rich_help_panel=_TO)
    ] = False,
    denoise_model: Annotated[
        str | None, Option(help="Its weights (urban).", rich_help_panel=_TO)
    ] = None,
    workers: Annotated[
        int | None, Option(help="Requests under way at a time (4).", rich_help_panel=_FROM)
    ] = None,
    rate: Annotated[
        float | None, Option(help="Requests a second, at most (5).", rich_help_panel=_FROM)
    ] = None,
    retries: Annotated[
        int | None, Option(help="How often a request is sent again (5).", rich_help_panel=_FROM)
    ] = None,
    timeout: Annotated[
        float | None,
        Option(help="Seconds without a byte that end a request (60).", rich_help_panel=_FROM),
    ] = None,
    retry_empty: Annotated[
        bool, Option("--retry-empty", help="Ask again for what there was no data of.")
    ] = False,
    metadata: Annotated[
        bool, Option("--metadata/--no-metadata", help="Write stations.xml beside the data.")
    ] = True,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Only errors.")] = False,
) -> None:
    """Fetch waveforms from an FDSN data centre, into time-chunk folders or SDS.

    Writes the data, stations.xml, and download.json with every gap. The same command goes on where
    one that was interrupted stopped. Exit code 10: some requests failed.
    """
    given: dict[str, Any] = {
        "output": output,
        "start": start,
        "end": end,
        "networks": joined(networks),
        "stations": joined(stations),
        "locations": joined(locations),
        "channels": joined(channels),
        "streams": joined(streams),
        "host": host,
        "layout": layout,
        "chunk": chunk,
        "overlap": overlap,
        "denoise": denoise,
        "denoise_model": denoise_model,
        "workers": workers,
        "rate": rate,
        "retries": retries,
        "timeout": timeout,
        "retry_empty": retry_empty,
        "metadata": metadata,
    }
    with reporting():
        from eqcctpro.download import DownloadSettings
        from eqcctpro.download import download as fetch

        settings = DownloadSettings.checked(**{k: v for k, v in given.items() if v is not None})
        found = fetch(settings, quiet=quiet)
        if not quiet:
            _report_download(found.summary, output)
        raise typer.Exit(found.exit_code)


def _report_download(summary: dict[str, Any], output: Path) -> None:
    """The outcome in a few lines, failures first."""
    for failure in summary["failed"]:
        typer.echo(f"failed: {failure['request']}: {failure['error']}", err=True)
    if summary["metadata_error"]:
        typer.echo(f"no stations.xml: {summary['metadata_error']}", err=True)
    gaps = summary["gaps"]
    for gap in gaps[:MOST_GAPS]:
        typer.echo(
            f"missing: {gap['channel']} {gap['start']} to {gap['end']} ({gap['seconds']:g} s)",
            err=True,
        )
    if len(gaps) > MOST_GAPS:
        typer.echo(f"missing: {len(gaps) - MOST_GAPS} more, in download.json", err=True)
    counts = summary["requests"]
    typer.echo(
        f"{summary['bytes'] / 1e6:.1f} MB in {summary['files']} files of {summary['channels']} "
        f"channels; {counts['done']} requests done, {counts['empty']} without data, "
        f"{counts['failed']} failed"
    )
    names = ("stations.xml",) if summary["metadata"] else ()
    for name in (*names, "download.json"):
        typer.echo(str(output / name))


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
